/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Single steps, INT3, INT1 and the resume flag.  A piece of code sets TF by POPF and
 * clears it at its end; the handler of #DB notes every RIP, which must be those of the
 * piece's table.
 */
#include "guest.h"

#define VEC_DB 1
#define VEC_BP 3
#define VEC_PF 14
#define FLAG_TF 0x100ull
#define FLAG_RF 0x10000ull
#define DR6_BS (1ull << 14)
#define NOWHERE 0x4000000000ull
#define PA 0x1800000ull

#define STEPS_MAX 64

static volatile uint64_t steps[STEPS_MAX], last_flags, rcx_seen[STEPS_MAX];
static volatile unsigned nsteps, bad;
static volatile bool in_handler_tf;

static uint64_t read_dr6(void)
{
	uint64_t v;

	asm volatile("mov %%dr6, %0" : "=r"(v));
	return v;
}

static void write_dr6(uint64_t v)
{
	asm volatile("mov %0, %%dr6" : : "r"(v));
}

static void on_debug(struct trap_frame *f)
{
	uint64_t flags;

	asm volatile("pushfq\n\tpop %0" : "=r"(flags));
	in_handler_tf |= !!(flags & FLAG_TF);
	if (nsteps < STEPS_MAX) {
		rcx_seen[nsteps] = f->rcx;
		steps[nsteps++] = f->rip;
	}
	last_flags = f->rflags;
	bad += !(read_dr6() & DR6_BS) || f->rflags & FLAG_RF;
	write_dr6(0xffff0ff0);
}

/*
 * A piece: code between setting and clearing TF.  @traps: addresses, ended by 0, where
 * traps come; the last is always that of the instruction behind the POPF that clears TF.
 */
#define PIECE(name, body, traps) \
	asm(".text\n\t.globl " #name ", " #name "_traps\n" #name ":\n\t" \
	    "push %rbx\n\tpush %rbp\n\tpush %r12\n\tmov %rdi, %rbp\n\t" \
	    "pushfq\n\torl $0x100, (%rsp)\n\tpopfq\n" \
	    body \
	    "\n70:\tpushfq\n71:\tandl $~0x100, (%rsp)\n72:\tpopfq\n73:\tnop\n\tpop %r12\n\tpop %rbp\n\tpop %rbx\n\tret\n" \
	    "\t.balign 8\n" #name "_traps:\n\t.quad " traps "\n\t.quad 71b, 72b, 73b, 0\n"); \
	extern uint64_t name(uint64_t mem); \
	extern const uint64_t name##_traps[]

/* The trap comes after an instruction, so the first is at the second one. */
PIECE(plain_piece,
      "1:\tnop\n2:\tadd $1, %eax\n3:\tmov %rax, (%rbp)\n4:\tpush %rax\n5:\tpop %rcx\n6:\tjmp 8f\n7:\tud2\n"
      "8:\tcall 11f\n9:\tcmp %eax, %eax\n10:\tjz 70f\n\tud2\n11:\tlea 1(%rax), %rcx\n12:\tret\n",
      "2b, 3b, 4b, 5b, 6b, 8b, 11b, 12b, 9b, 10b, 70b");

/* Every round of REP traps, with RIP at the instruction until the last is done. */
PIECE(rep_piece,
      "\tmov %rbp, %rsi\n\tlea 64(%rbp), %rdi\n1:\tmov $3, %ecx\n2:\trep movsb\n3:\tmov $2, %ecx\n"
      "4:\trep stosl\n5:\txor %ecx, %ecx\n6:\trep stosb\n7:\tmovsb\n"
      "8:\tmov $2, %ecx\n9:\tlodsb\n10:\tloop 9b\n",
      "(1b - 4), 1b, 2b, 2b, 2b, 3b, 4b, 4b, 5b, 6b, 7b, 8b, 9b, 10b, 9b, 10b, 70b");

PIECE(system_piece,
      "1:\tswapgs\n2:\tswapgs\n3:\tmov %cr3, %rax\n4:\tmov %rax, %cr3\n5:\txor %eax, %eax\n6:\tcpuid\n7:\trdtsc\n"
      "8:\tmov $0xc0000102, %ecx\n9:\trdmsr\n10:\twrmsr\n11:\tcld\n12:\tlock incl (%rbp)\n"
      "13:\tmov %ds, %eax\n14:\tmov %eax, %ds\n",
      "2b, 3b, 4b, 5b, 6b, 7b, 8b, 9b, 10b, 11b, 12b, 13b, 14b, 70b");

/* No trap between a load of SS and the instruction behind it. */
PIECE(ss_piece,
      "1:\tmov %ss, %eax\n2:\tmov %eax, %ss\n3:\tnop\n4:\tnop\n",
      "2b, 4b, 70b");

/* CLI, and POPF that leaves TF set.  STI holds interrupts back, not traps. */
PIECE(flags_piece,
      "1:\tcli\n2:\tpushfq\n3:\tpopfq\n4:\tstc\n5:\tsti\n6:\tcli\n7:\tnop\n",
      "2b, 3b, 4b, 5b, 6b, 7b, 70b");

/* INT3 and a fault leave TF in the frame only: their handlers are not stepped, and IRET does not trap. */
PIECE(int3_piece,
      "1:\tnop\n2:\tint3\n3:\tnop\n4:\tnop\n",
      "2b, 4b, 70b");
PIECE(fault_piece,
      "1:\tmov $0x4000000000, %rbx\n2:\tmov (%rbx), %rax\n3:\tnop\n",
      "2b, 3b, 70b");

/* IRET itself traps when TF was set before it, and a far return. */
PIECE(return_piece,
      "1:\tmov %rsp, %rcx\n2:\tmov %ss, %eax\n3:\tpush %rax\n4:\tpush %rcx\n5:\tpushfq\n6:\tmov %cs, %eax\n"
      "7:\tpush %rax\n8:\tlea 11f(%rip), %rax\n9:\tpush %rax\n10:\tiretq\n\tud2\n11:\tmov %cs, %eax\n12:\tpush %rax\n"
      "13:\tlea 16f(%rip), %rax\n14:\tpush %rax\n15:\tlretq\n\tud2\n16:\tnop\n",
      "2b, 3b, 4b, 5b, 6b, 7b, 8b, 9b, 10b, 11b, 12b, 13b, 14b, 15b, 16b, 70b");

static void test(const char *name, uint64_t (*piece)(uint64_t), const uint64_t *traps)
{
	bool ok = true;
	unsigned n = 0;

	nsteps = bad = 0;
	in_handler_tf = false;
	(void)piece(PA);
	while (traps[n])
		n++;
	for (unsigned i = 0; i < n && i < nsteps; i++)
		ok = ok && steps[i] == traps[i];
	check(name, ok && n == nsteps && !bad && !in_handler_tf);
	if (ok && n == nsteps && !bad && !in_handler_tf)
		return;
	print("  bad ");
	print_hex(bad);
	print(in_handler_tf ? " TF in handler, traps at" : " traps at");
	for (unsigned i = 0; i < nsteps; i++) {
		print(" ");
		print_hex(steps[i] - (uint64_t)piece);
	}
	print(", want");
	for (unsigned i = 0; i < n; i++) {
		print(" ");
		print_hex(traps[i] - (uint64_t)piece);
	}
	print("\n");
}

static volatile uint64_t breakpoint_flags;

static void on_breakpoint(struct trap_frame *f)
{
	breakpoint_flags = f->rflags;
}

static volatile uint64_t fault_flags;

static void map_it(struct trap_frame *f)
{
	fault_flags = f->rflags;
	map(NOWHERE, PA, 1, PTE_P | PTE_W);
}

static void test_faults(void)
{
	irq_handler[VEC_PF] = map_it;
	test("a step over a fault", fault_piece, fault_piece_traps);
	check_equal("the fault's frame has TF and RF", fault_flags & (FLAG_TF | FLAG_RF), FLAG_TF | FLAG_RF);
	*pte_of(NOWHERE, 1) = 0;
	invlpg(NOWHERE);
	fault_flags = 0;
	(void)read64(NOWHERE);
	check_equal("without TF only RF", fault_flags & (FLAG_TF | FLAG_RF), FLAG_RF);
	irq_handler[VEC_PF] = 0;
}

static volatile uint64_t int1_rip, int1_dr6;

static void on_int1(struct trap_frame *f)
{
	int1_rip = f->rip;
	int1_dr6 = read_dr6();
	last_flags = f->rflags;
}

static void test_int1(void)
{
	uint64_t at;

	irq_handler[VEC_DB] = on_int1;
	write_dr6(0xffff0ff0);
	asm volatile("lea 1f(%%rip), %0\n1:\t.byte 0xf1" : "=r"(at) : : "memory");
	check_equal("INT1 traps behind itself", int1_rip, at + 1);
	check_equal("and is no step to DR6", int1_dr6 & DR6_BS, 0);
	check_equal("RF is clear in its frame", last_flags & FLAG_RF, 0);
	irq_handler[VEC_DB] = on_debug;
}

static void test_resume_flag(void)
{
	uint64_t flags;

	asm volatile("pushfq\n\torl $0x10000, (%%rsp)\n\tpopfq\n\tpushfq\n\tpop %0" : "=r"(flags));
	check_equal("POPF does not set RF", flags & FLAG_RF, 0);
	/* IRET sets it, and the next instruction clears it. */
	asm volatile("mov %%rsp, %%rcx\n\tmov %%ss, %%eax\n\tpush %%rax\n\tpush %%rcx\n\tpushfq\n\torl $0x10000, (%%rsp)\n\t"
		     "mov %%cs, %%eax\n\tpush %%rax\n\tlea 1f(%%rip), %%rax\n\tpush %%rax\n\tiretq\n"
		     "1:\tnop\n\tint3" : : : "rax", "rcx", "memory", "cc");
	check_equal("RF lasts one instruction after IRET", breakpoint_flags & FLAG_RF, 0);
}

/* --- SYSCALL and SYSRET trap by the TF that they leave --- */

static volatile uint64_t back_rsp;

extern const uint64_t user_traps[];
void user_piece(void);
void syscall_entry(void);
asm(".text\nuser_piece:\n\t"
    "nop\n2:\tmov $77, %eax\n3:\tsyscall\n4:\tnop\n5:\tmov $5, %eax\n6:\tsyscall\n\tud2\n"
    "\t.balign 8\nuser_traps:\n\t.quad 2b, 3b, 4b, 5b, 6b, 0\n"
    "syscall_entry:\n\tcmp $77, %eax\n\tje 1f\n\tmov back_rsp, %rsp\n\tret\n"
    "1:\tmov $78, %eax\n\tsysretq\n");

/* Runs user_piece in ring 3, with TF set, until it makes another system call than 77. */
static uint64_t run_user(uint64_t unused)
{
	static uint8_t stack[4096] __attribute__((aligned(16)));

	(void)unused;
	asm volatile("push %%rbp\n\tpush %%rbx\n\tlea 1f(%%rip), %%rax\n\tpush %%rax\n\tmov %%rsp, %0\n\t"
		     "pushq $0x23\n\tpushq %1\n\tpushq $0x102\n\tpushq $0x2b\n\tpushq %2\n\tiretq\n"
		     "1:\tpop %%rbx\n\tpop %%rbp"
		     : "=m"(back_rsp) : "r"(stack + sizeof(stack)), "r"(user_piece)
		     : "rax", "rcx", "rdx", "r11", "memory", "cc");
	return 0;
}

static void test_system_call(void)
{
	*pte_of(0, 4) |= PTE_U;
	*pte_of(0, 3) |= PTE_U;
	*pte_of((uint64_t)user_piece, 2) |= PTE_U;
	write_cr3(read_cr3());
	wrmsr(0xc0000080, rdmsr(0xc0000080) | 1);	/* EFER.SCE */
	wrmsr(0xc0000081, 0x10ull << 32 | (uint64_t)(0x18 | 3) << 48);	/* STAR */
	wrmsr(0xc0000082, (uint64_t)syscall_entry);
	wrmsr(0xc0000084, FLAG_TF | 0x200);	/* SFMASK */
	test("steps in user code over SYSCALL", run_user, user_traps);
}

static void test_step_registers(void)
{
	bool down = true;

	test("steps through REP", rep_piece, rep_piece_traps);
	/* The third, fourth and fifth traps are those of the first REP: RCX counts down. */
	for (unsigned i = 0; i < 4; i++)
		down = down && rcx_seen[2 + i] == 3 - i;
	check("RCX counts down from step to step", down);
}

int guest_main(void)
{
	irq_handler[VEC_DB] = on_debug;
	irq_handler[VEC_BP] = on_breakpoint;
	test("steps through plain code", plain_piece, plain_piece_traps);
	test_step_registers();
	test("steps through system instructions", system_piece, system_piece_traps);
	test("steps over a load of SS", ss_piece, ss_piece_traps);
	test("steps over STI, CLI, POPF", flags_piece, flags_piece_traps);
	test("steps over INT3", int3_piece, int3_piece_traps);
	check_equal("whose frame has TF and not RF", breakpoint_flags & (FLAG_TF | FLAG_RF), FLAG_TF);
	test("steps over IRET and a far return", return_piece, return_piece_traps);
	test_faults();
	test_int1();
	test_system_call();
	test_resume_flag();
	return check_status();
}
