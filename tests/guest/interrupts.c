/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Interrupts at every boundary: a one-shot timer that arms itself again after ever
 * different times strikes loops of every kind of instruction.  The loops' results must
 * be those of a run without interrupts, and every saved RIP must be one that may be.
 *
 * A loop is a function (memory, rounds, interrupts wanted) that returns a checksum.  It
 * turns interrupts on itself, so that none comes outside it.
 */
#include "guest.h"

#define TIMER_VECTOR 0x40
#define MASKED (1u << 16)
#define FLAG_IF 0x200u
#define FLAG_DF 0x400u

#define ROUNDS 400
#define TICKS 400	/* a loop */
#define PATIENCE 6000000000ull	/* TSC ticks a loop; then what was seen has to do */

#define MEM 0x2000000ull
#define OTHER 0x2400000ull
#define MEM_SIZE 0x20000u

typedef uint64_t (*loop_fn)(uint64_t mem, uint64_t rounds, uint64_t interrupts);

static volatile uint64_t from, to;	/* where RIP may be */
static volatile uint64_t closed_from, closed_to;	/* and within it, where not */
static volatile uint32_t ticks, stray, in_closed, bad_flags;

/* Interrupts held back: by CLI, POPF, and one instruction longer by STI and by loads of SS. */
#define LOOP(name, body) \
	asm(".text\n\t.globl " #name ", " #name "_end\n" #name ":\n\t" \
	    "push %rbx\n\tpush %rbp\n\tpush %r12\n\tpush %r13\n\tpush %r14\n\tpush %r15\n\t" \
	    "xor %eax, %eax\n\txor %ecx, %ecx\n\txor %r8d, %r8d\n\txor %r9d, %r9d\n\txor %r10d, %r10d\n\t" \
	    "xor %r14d, %r14d\n\txor %r15d, %r15d\n\ttest %edx, %edx\n\tjz 9f\n\tsti\n9:\tnop\n" \
	    body \
	    "\n\tcli\n\tpop %r15\n\tpop %r14\n\tpop %r13\n\tpop %r12\n\tpop %rbp\n\tpop %rbx\n\tret\n" \
	    #name "_end:\n"); \
	extern uint8_t name[], name##_end[]

LOOP(straight_loop,
     "mov $0x123456789, %r8\n\tmov $77, %r11\n\tmov $99, %r10\n"
     "1:\tadd $3, %rax\n\tadc %rax, %r8\n\trol $7, %r8\n\tadc $0, %rax\n\tlea 5(%rax,%r8), %r9\n\t"
     "imul $11, %r9, %r15\n\txor %r15, %rax\n\tbt $3, %rax\n\tadc %r11, %r10\n\trcr $1, %r10\n\t"
     "adc %r10, %r11\n\tsetc %cl\n\tadd %rcx, %rax\n\tmovzbl %cl, %ecx\n\tbswap %r11\n\t"
     "xor %r11, %rax\n\tshld $5, %r8, %rax\n\tadc $0, %rax\n\tdec %rsi\n\tjnz 1b");

/* A carry that lives from round to round: DEC and LEA leave it alone. */
LOOP(carry_loop,
     "stc\n"
     "1:\tadc $0, %rax\n\tinc %r8\n\tcmc\n\tadc %r8, %rax\n\tstc\n\tlea 1(%rax), %rax\n\tdec %rsi\n\tjnz 1b\n\t"
     "sbb %r8, %r8\n\tadd %r8, %rax");

LOOP(stack_loop,
     "1:\tpush %rax\n\tpush $7\n\tpush %rsi\n\tpush (%rdi)\n\tpop %r8\n\tpop %r9\n\tpop %r10\n\tpop %r11\n\t"
     "add %r8, %rax\n\tadd %r9, %rax\n\tadd %r10, %rax\n\tadd %r11, %rax\n\tpushfq\n\tpop %r8\n\t"
     "and $0x8d5, %r8\n\tadd %r8, %rax\n\tenter $32, $0\n\tmov %rax, -8(%rbp)\n\tleave\n\tadd -48(%rsp), %r9\n\t"
     "mov %rax, (%rdi)\n\tdec %rsi\n\tjnz 1b");

LOOP(string_loop,
     "mov %rsi, %rbx\n\tmov %rdi, %rbp\n\txor %r12d, %r12d\n"
     "1:\tmov %rbp, %rsi\n\tlea 300(%rbp), %rdi\n\tmov $90, %ecx\n\trep movsb\n\t"
     "mov %rbx, %rax\n\tmov $9, %ecx\n\trep stosq\n\t"
     "lea 4(%rbp), %rsi\n\tmov $5, %ecx\n"
     "2:\tlodsl\n\tadd %rax, %r12\n\tloop 2b\n\t"
     "mov %rbp, %rsi\n\tlea 300(%rbp), %rdi\n\tmov $200, %ecx\n\trepe cmpsb\n\tadd %rcx, %r12\n\t"
     "lea 300(%rbp), %rdi\n\tmov $250, %ecx\n\tmov $0x5a, %al\n\trepne scasb\n\tadd %rcx, %r12\n\t"
     "std\n\tlea 50(%rbp), %rsi\n\tlea 700(%rbp), %rdi\n\tmov $13, %ecx\n\trep movsw\n\tcld\n\t"
     "add %rsi, %r12\n\tadd %rbx, (%rbp)\n\tdec %rbx\n\tjnz 1b\n\tmov %r12, %rax");

LOOP(indirect_loop,
     "lea 5f(%rip), %r8\n\tlea 6f(%rip), %r9\n\tmov %r8, (%rdi)\n\tmov %r9, 8(%rdi)\n"
     "1:\tcall *%r8\n\tcall *%r9\n\tmov %rsi, %r10\n\tand $1, %r10d\n\tcall *(%rdi,%r10,8)\n\tcall 5f\n\t"
     "lea 2f(%rip), %r11\n\tjmp *%r11\n\tud2\n"
     "2:\tdec %rsi\n\tjnz 1b\n\tmovq $0, (%rdi)\n\tmovq $0, 8(%rdi)\n\tjmp 7f\n"
     "5:\tadd $3, %rax\n\tret\n"
     "6:\tlea (%rax,%rax,2), %rax\n\tpush %rax\n\tcall 5b\n\tpop %r11\n\txor %r11, %rax\n\tret $0\n"
     "7:");

LOOP(far_loop,
     "1:\tmov %cs, %r8d\n\tpush %r8\n\tlea 2f(%rip), %r9\n\tpush %r9\n\tlretq\n\tud2\n"
     "2:\tadd $5, %rax\n\tmov %rsp, %r10\n\tmov %ss, %r9d\n\tpush %r9\n\tpush %r10\n\tpushfq\n\t"
     "push %r8\n\tlea 3f(%rip), %r9\n\tpush %r9\n\tcmp %rax, %rax\n\tiretq\n\tud2\n"
     "3:\tadc %rsi, %rax\n\tcall 4f\n\tdec %rsi\n\tjnz 1b\n\tjmp 5f\n"
     "4:\trol $1, %rax\n\tret\n5:");

LOOP(locked_loop,
     "mov %rsi, %rbx\n"
     "1:\tlock incq (%rdi)\n\tmov $5, %r8\n\tlock xadd %r8, 8(%rdi)\n\tadd %r8, %rax\n\tmov %rax, %r9\n\t"
     "xchg %r9, 16(%rdi)\n\tadd %r9, %r10\n\tpush %rax\n\tmov 24(%rdi), %rax\n\tlea 3(%rax), %r11\n\t"
     "lock cmpxchg %r11, 24(%rdi)\n\tpop %rax\n\tsetz %cl\n\tmovzbl %cl, %ecx\n\tadd %rcx, %rax\n\t"
     "lock btsq %rbx, 32(%rdi)\n\tadc $0, %rax\n\tlock subq $1, 4092(%rdi)\n\tdec %rbx\n\tjnz 1b");

/* Loops over pages: each is one block whose operands go from page to page. */
LOOP(walk_loop,
     "mov %rsi, %rbx\n\tlea 0x20000(%rdi), %rdx\n"
     "1:\tmov %rdi, %rsi\n"
     "2:\tadd (%rsi), %rax\n\tadd $8, %rsi\n\tcmp %rdx, %rsi\n\tjne 2b\n"
     "3:\tsub $16, %rsi\n\txor (%rsi), %rax\n\taddq %rax, 8(%rsi)\n\tcmp %rdi, %rsi\n\tjne 3b\n\t"
     "mov $0x4000, %ecx\n"
     "4:\tmov -8(%rdi,%rcx,8), %r8\n\tadd %rcx, %r8\n\tmov %r8, -8(%rdi,%rcx,8)\n\tdec %rcx\n\tjnz 4b\n\t"
     "lea 3(%rdi), %rsi\n\tmov $0x7e00, %ecx\n"
     "5:\tmov (%rsi), %r8d\n\tadd %r8d, %eax\n\tadd $4, %rsi\n\tdec %ecx\n\tjnz 5b\n\t"
     "mov $3000, %ecx\n"
     "6:\tadd $1, %rax\n\trol $3, %rax\n\tdec %ecx\n\tjnz 6b\n\t"
     "sub $40, %rbx\n\tjg 1b");

/* The closed stretch: from behind CLI to behind the instruction that STI shadows. */
asm(".globl cli_closed, cli_open\n");
LOOP(cli_loop,
     "1:\tadd $1, %rax\n\tcli\ncli_closed:\n\tadd %rax, %r8\n\tmov %r8, (%rdi)\n\trol $1, %r8\n\tsti\n\t"
     "add $7, %r8\ncli_open:\n\tadd %r8, %rax\n\tnop\n\tdec %rsi\n\tjnz 1b");
asm(".globl popf_closed, popf_open\n");
LOOP(popf_loop,
     "1:\tadd $1, %rax\n\tpushfq\n\tcli\npopf_closed:\n\tadd %rax, %r8\n\tmov %r8, (%rdi)\n\tstc\n\tpopfq\n"
     "popf_open:\n\tadc %r8, %rax\n\tnop\n\tdec %rsi\n\tjnz 1b");
asm(".globl ss_closed, ss_open\n");
LOOP(ss_loop,
     "mov %ss, %r9d\n"
     "1:\tadd $1, %rax\n\tmov %r9d, %ss\nss_closed:\n\tadd %rax, %r8\nss_open:\n\tmov %r8, (%rdi)\n\tadd %r8, %rax\n\t"
     "dec %rsi\n\tjnz 1b");
extern uint8_t cli_closed[], cli_open[], popf_closed[], popf_open[], ss_closed[], ss_open[];

static void arm(void)
{
	static uint32_t seed = 12345;

	seed = seed * 1664525 + 1013904223;
	apic_write(APIC_INITIAL, 1500 + (seed >> 16) % 24000);	/* nanoseconds */
}

static void on_tick(struct trap_frame *f)
{
	ticks++;
	stray += f->rip < from || f->rip >= to;
	in_closed += f->rip >= closed_from && f->rip < closed_to;
	bad_flags += !(f->rflags & FLAG_IF) || (f->rflags & 0x2a);	/* bits 3, 5 and 15 are 0, bit 1 is 1 */
	bad_flags -= !!(f->rflags & 2);
	arm();
}

static void fill(void)
{
	for (unsigned i = 0; i < MEM_SIZE; i += 8)
		write64(MEM + i, i * 0x9e3779b97f4a7c15);
}

static uint64_t checksum(void)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < MEM_SIZE; i += 8)
		sum = sum * 31 + read64(MEM + i);
	return sum;
}

static void timer_off(void)
{
	apic_write(APIC_INITIAL, 0);
	for (int i = 0; i < 4; i++)	/* one that waits already goes */
		asm volatile("sti\n\tnop\n\tnop\n\tcli" : : : "memory");
}

static bool same_results(loop_fn loop)
{
	uint64_t result, sum, start = rdtsc();
	bool ok = true;

	fill();
	result = loop(MEM, ROUNDS, 0);
	sum = checksum();
	ticks = stray = in_closed = bad_flags = 0;
	while (ticks < TICKS && rdtsc() - start < PATIENCE) {
		fill();
		arm();
		ok = loop(MEM, ROUNDS, 1) == result && ok;
		apic_write(APIC_INITIAL, 0);
		ok = checksum() == sum && ok;
	}
	return ok;
}

static void test(const char *name, const uint8_t *start, const uint8_t *end, const uint8_t *shut, const uint8_t *open)
{
	bool ok;

	closed_from = (uint64_t)shut;
	closed_to = (uint64_t)open;
	from = (uint64_t)start;
	to = (uint64_t)end;
	ok = same_results((loop_fn)start);
	check(name, ok && ticks > 0 && !stray && !in_closed && !bad_flags);
	if (!ok || stray || in_closed || bad_flags) {
		print(ok ? "  results right, ticks " : "  results wrong, ticks ");
		print_hex(ticks);
		print(" stray ");
		print_hex(stray);
		print(" in closed stretch ");
		print_hex(in_closed);
		print(" flags ");
		print_hex(bad_flags);
		print("\n");
	}
	from = 0;
	to = ~0ull;
	timer_off();
}

/* --- String instructions interrupted half-way --- */

#define BIG 0x100000u	/* bytes */

static volatile uint64_t rep_at, rep_count, rep_src, rep_dst;
static volatile uint32_t halfway, inconsistent;
static volatile int64_t rep_step;
static volatile bool rep_uses_rsi;
static bool rep_down;

static void on_rep_tick(struct trap_frame *f)
{
	uint64_t done = rep_count - f->rcx;

	if (f->rip == rep_at && f->rcx && f->rcx < rep_count) {
		halfway++;
		inconsistent += f->rdi != rep_dst + (uint64_t)rep_step * done;
		inconsistent += rep_uses_rsi && f->rsi != rep_src + (uint64_t)rep_step * done;
		inconsistent += !(f->rflags & FLAG_DF) != !rep_down;
	}
	arm();
}

#define REP(insn, step, uses_rsi) ({ \
	uint64_t s_ = rep_src, d_ = rep_dst, c_ = rep_count; \
	rep_step = (step); \
	rep_uses_rsi = (uses_rsi); \
	arm(); \
	asm volatile("lea 1f(%%rip), %%r8\n\tmov %%r8, %3\n\tsti\n1:\t" insn "\n\tcli" \
		     : "+S"(s_), "+D"(d_), "+c"(c_), "=m"(rep_at) : "a"(0x1122334455667788) : "r8", "memory", "cc"); \
	apic_write(APIC_INITIAL, 0); \
	c_ == 0 && d_ == rep_dst + rep_count * (uint64_t)rep_step && \
		(!rep_uses_rsi || s_ == rep_src + rep_count * (uint64_t)rep_step); })

static bool equal(uint64_t a, uint64_t b)
{
	for (unsigned i = 0; i < BIG; i += 8)
		if (read64(a + i) != read64(b + i))
			return false;
	return true;
}

static bool all(uint64_t at, uint64_t value)
{
	for (unsigned i = 0; i < BIG; i += 8)
		if (read64(at + i) != value)
			return false;
	return true;
}

static void fill_big(uint64_t seed)
{
	for (unsigned i = 0; i < BIG; i += 8)
		write64(MEM + i, seed + i * 0x9e3779b97f4a7c15);
}

static bool movs_once(unsigned i)
{
	fill_big(i);
	rep_down = false;
	rep_src = MEM, rep_dst = OTHER, rep_count = BIG;
	return REP("rep movsb", 1, true) && equal(MEM, OTHER);
}

static bool movs_down_once(unsigned i)
{
	bool ok;

	fill_big(i);
	rep_down = true;
	rep_src = MEM + BIG - 8, rep_dst = OTHER + BIG - 8, rep_count = BIG / 8;
	asm volatile("std");
	ok = REP("rep movsq\n\tcld", -8, true);
	return ok && equal(MEM, OTHER);
}

static bool stos_once(unsigned i)
{
	(void)i;
	fill_big(i);
	rep_down = false;
	rep_src = 0, rep_dst = MEM, rep_count = BIG / 4;
	return REP("rep stosl", 4, false) && all(MEM, 0x5566778855667788);
}

static bool cmps_once(unsigned i)
{
	if (i == 0) {
		(void)movs_once(0);
		halfway = 0;
	}
	rep_down = false;
	rep_src = MEM, rep_dst = OTHER, rep_count = BIG / 8;
	return REP("repe cmpsq", 8, true);
}

static void test_rep(const char *name, bool (*once)(unsigned))
{
	uint64_t start = rdtsc();
	bool ok = true;

	halfway = inconsistent = 0;
	for (unsigned i = 0; i < 40 || (!halfway && rdtsc() - start < PATIENCE); i++)
		ok = once(i) && ok;
	timer_off();
	check(name, ok && halfway && !inconsistent);
}

int guest_main(void)
{
	from = 0, to = ~0ull;
	apic_enable();
	irq_handler[TIMER_VECTOR] = on_tick;
	apic_write(APIC_DIVIDE, 0xb);
	apic_write(APIC_LVT_TIMER, TIMER_VECTOR);
	test("straight code", straight_loop, straight_loop_end, 0, 0);
	test("a carry from round to round", carry_loop, carry_loop_end, 0, 0);
	test("stack instructions", stack_loop, stack_loop_end, 0, 0);
	test("string instructions", string_loop, string_loop_end, 0, 0);
	test("indirect calls and jumps", indirect_loop, indirect_loop_end, 0, 0);
	test("far returns and IRET", far_loop, far_loop_end, 0, 0);
	test("locked instructions", locked_loop, locked_loop_end, 0, 0);
	test("loops over pages", walk_loop, walk_loop_end, 0, 0);
	test("CLI, STI and its shadow", cli_loop, cli_loop_end, cli_closed, cli_open);
	test("CLI, POPF", popf_loop, popf_loop_end, popf_closed, popf_open);
	test("the shadow of a load of SS", ss_loop, ss_loop_end, ss_closed, ss_open);
	irq_handler[TIMER_VECTOR] = on_rep_tick;
	test_rep("REP MOVS half-way", movs_once);
	test_rep("REP MOVS half-way, downwards", movs_down_once);
	test_rep("REP STOS half-way", stos_once);
	test_rep("REPE CMPS half-way", cmps_once);
	apic_write(APIC_LVT_TIMER, MASKED);
	return check_status();
}
