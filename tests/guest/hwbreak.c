/* SPDX-License-Identifier: Apache-2.0 */
/* Debug registers and single steps, as a debugger inside the guest uses them (SDM vol. 3, chapter 17). */
#include "guest.h"

#define LOG_MAX 64
#define FLAG_TF 0x100u
#define FLAG_RF 0x10000u
#define DR6_BD 0x2000u
#define DR6_BS 0x4000u
#define DR7_GD 0x2000u

enum type { EXEC, WRITE, PORT, ACCESS };

static struct {
	unsigned n;
	uint64_t rip[LOG_MAX], dr6[LOG_MAX], rflags[LOG_MAX], rcx[LOG_MAX];
	unsigned steps;	/* single steps to take before TF goes */
	bool keep_rf;	/* resumes without RF, once: the breakpoint comes again */
} seen;

static void set_dr6(uint64_t v)
{
	asm volatile("mov %0, %%dr6" : : "r"(v));
}

static void set_dr7(uint64_t v)
{
	asm volatile("mov %0, %%dr7" : : "r"(v) : "memory");
}

static uint64_t get_dr7(void)
{
	uint64_t v;

	asm volatile("mov %%dr7, %0" : "=r"(v));
	return v;
}

static void debug_exception(struct trap_frame *f)
{
	uint64_t dr6;

	asm volatile("mov %%dr6, %0" : "=r"(dr6));
	if (seen.n < LOG_MAX) {
		seen.rip[seen.n] = f->rip;
		seen.dr6[seen.n] = dr6 & 0xe00f;
		seen.rflags[seen.n] = f->rflags;
		seen.rcx[seen.n] = f->rcx;
		seen.n++;
	}
	set_dr6(0xffff0ff0);
	if (dr6 & DR6_BS && seen.steps && --seen.steps == 0)
		f->rflags &= ~(uint64_t)FLAG_TF;
	if (!seen.keep_rf)
		f->rflags |= FLAG_RF;
	seen.keep_rf = false;
}

static void point(unsigned n, const volatile void *at, enum type type, unsigned len)
{
	static const uint64_t code[] = { [1] = 0, [2] = 1, [8] = 2, [4] = 3 };
	uint64_t addr = (uint64_t)at, dr7 = get_dr7();

	switch (n) {
	case 0: asm volatile("mov %0, %%dr0" : : "r"(addr)); break;
	case 1: asm volatile("mov %0, %%dr1" : : "r"(addr)); break;
	case 2: asm volatile("mov %0, %%dr2" : : "r"(addr)); break;
	default: asm volatile("mov %0, %%dr3" : : "r"(addr)); break;
	}
	dr7 &= ~(0xfull << (16 + 4 * n));
	seen.n = 0;
	set_dr7(dr7 | ((uint64_t)type | code[len] << 2) << (16 + 4 * n) | (n & 1 ? 1ull : 2ull) << 2 * n);
}

static void all_off(void)
{
	set_dr7(0x400);
}

/* ------------------------------------------------------------- instructions */

/* Places in a loop of straight-line code; each is one instruction. */
extern const uint8_t loop_start[], loop_middle[], loop_end[], loop_after[];
asm(".text\n"
    "count_loop:\n"
    "loop_start: add $1, %rax\n"
    "\tlea 3(%rax), %rdx\n"
    "loop_middle: xor %rdx, %rsi\n"
    "\tsub $1, %rcx\n"
    "loop_end: jnz loop_start\n"
    "loop_after: ret\n");

static uint64_t run_loop(uint64_t rounds)
{
	uint64_t sum = 0;

	asm volatile("call count_loop" : "+a"(sum), "+c"(rounds) : : "rdx", "rsi", "cc", "memory");
	return sum;
}

static void test_instructions(void)
{
	check_equal("the loop runs without breakpoints", run_loop(1000), 1000);
	point(0, loop_middle, EXEC, 1);
	check_equal("a breakpoint in a loop changes nothing", run_loop(5), 5);
	check_equal("it comes each round", seen.n, 5);
	check("before the instruction", seen.rip[0] == (uint64_t)loop_middle && seen.rcx[0] == 5 && seen.rcx[4] == 1);
	check_equal("as breakpoint 0", seen.dr6[4], 1);
	check("the frame of a breakpoint has no RF", !(seen.rflags[0] & FLAG_RF));
	point(1, loop_start, EXEC, 1);
	(void)run_loop(3);
	check("two breakpoints take turns", seen.n == 6 && seen.dr6[0] == 2 && seen.dr6[1] == 1 && seen.dr6[2] == 2);
	point(2, loop_end, EXEC, 1);
	point(3, loop_after, EXEC, 1);
	(void)run_loop(2);
	check("so do four", seen.n == 7 && seen.dr6[5] == 4 && seen.dr6[6] == 8 && seen.dr6[4] == 1);
	all_off();
	seen.n = 0;
	check_equal("none when they are off", run_loop(3) + seen.n, 3);
	point(0, loop_start, EXEC, 1);
	seen.keep_rf = true;
	(void)run_loop(1);
	check_equal("without RF it comes again", seen.n, 2);
	all_off();
	point(0, loop_middle, EXEC, 1);
	set_dr7(0x400);
	point(3, loop_after, EXEC, 1);
	check_equal("a breakpoint that moved", run_loop(100), 100);
	check("comes at the new place only", seen.n == 1 && seen.rip[0] == (uint64_t)loop_after && seen.dr6[0] == 8);
	all_off();
}

/* --------------------------------------------------------------------- data */

static volatile union {
	uint64_t q[512];
	uint8_t b[4096];
} page __attribute__((aligned(4096)));
static uint64_t source[8];

static void test_data(void)
{
	uint64_t v;

	point(0, &page.q[8], WRITE, 8);
	page.q[7] = 1;
	page.q[9] = 1;
	v = page.q[8];
	check_equal("a write watchpoint does not mind neighbours and reads", seen.n + v, 0);
	asm volatile("1: movq $5, %0\n\t2:" : "=m"(page.q[8]));
	check("a write is met", seen.n == 1 && seen.dr6[0] == 1 && page.q[8] == 5);
	asm volatile("movb $6, %0" : "=m"(page.b[71]));
	check("a write to its last byte too", seen.n == 2);
	asm volatile("lock addl $1, %0" : "+m"(page.b[66]));
	check("and a read-modify-write", seen.n == 3);
	asm volatile("movq $1, %0" : "=m"(page.b[60]));
	check("and one that begins before it", seen.n == 4);
	asm volatile("movq $1, %0" : "=m"(page.b[56]));
	asm volatile("movq $1, %0" : "=m"(page.b[72]));
	check("but not one beside it", seen.n == 4);

	point(1, &page.b[100], ACCESS, 4);
	asm volatile("movl %1, %k0" : "=r"(v) : "m"(page.b[100]));
	check("an access watchpoint meets reads", seen.n == 1 && seen.dr6[0] == 2);
	asm volatile("movb %1, %b0" : "=q"(v) : "m"(page.b[103]));
	asm volatile("movb $1, %0" : "=m"(page.b[102]));
	check("and writes", seen.n == 3 && seen.dr6[2] == 2);
	asm volatile("movw %1, %w0" : "=r"(v) : "m"(page.b[104]));
	check("but not the next bytes", seen.n == 3);
	all_off();

	point(2, &page.b[201], WRITE, 1);
	asm volatile("movw $1, %0" : "=m"(page.b[200]));
	asm volatile("movb $1, %0" : "=m"(page.b[202]));
	check("one byte", seen.n == 1 && seen.dr6[0] == 4);
	point(2, &page.b[206], WRITE, 2);
	asm volatile("movl $1, %0" : "=m"(page.b[204]));
	asm volatile("movw $1, %0" : "=m"(page.b[208]));
	check("two bytes", seen.n == 1);
	point(3, &page.b[206], WRITE, 2);
	asm volatile("movl $1, %0" : "=m"(page.b[204]));
	check("two watchpoints on the same bytes", seen.n == 1 && seen.dr6[0] == 12);
	all_off();
}

static void test_where(void)
{
	uint64_t after;

	point(0, &page.q[8], WRITE, 8);
	asm volatile("lea 1f(%%rip), %0\n\tmovq $9, %1\n\t1: nop" : "=&r"(after), "=m"(page.q[8]));
	check_equal("the trap comes after the instruction", seen.rip[0], after);
	check("with the write done", page.q[8] == 9);
	/* The frame of the trap, aligned to 16 bytes, begins below the watched word. */
	point(0, &page.q[500], WRITE, 8);
	asm volatile("mov %%rsp, %%rbx\n\tlea 4008(%1), %%rsp\n\tpush %%rax\n\tpop %%rax\n\tmov %%rbx, %%rsp"
		     : : "a"(0), "r"(&page) : "rbx", "memory");
	check("PUSH is a write and POP is none", seen.n == 1);
	all_off();
	point(0, &page.q[500], ACCESS, 8);
	asm volatile("mov %%rsp, %%rbx\n\tlea 4008(%1), %%rsp\n\tpush %%rax\n\tpop %%rax\n\tmov %%rbx, %%rsp"
		     : : "a"(0), "r"(&page) : "rbx", "memory");
	check("POP is an access", seen.n == 2);
	all_off();
}

static void test_strings(void)
{
	const volatile void *to = &page.q[16];
	const void *from = source;
	uint64_t n = 8;

	point(0, &page.q[18], WRITE, 8);
	asm volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
	check("a string instruction stops after the element", seen.n == 1 && seen.rcx[0] == 5);
	check("and goes on", n == 0 && to == &page.q[24]);
	to = &page.q[16];
	n = 8;
	asm volatile("rep stosq" : "+D"(to), "+c"(n) : "a"(7) : "memory");
	check("so does a fill", seen.n == 2 && seen.rcx[1] == 5 && page.q[23] == 7);
	all_off();
}

/* -------------------------------------------------------------- single steps */

static void test_steps(void)
{
	uint64_t first, sum;

	seen.n = 0;
	seen.steps = 4;
	asm volatile("lea 1f(%%rip), %0\n\tpushfq\n\torl $0x100, (%%rsp)\n\tpopfq\n\t"
		     "mov $1, %1\n1:\tadd $2, %1\n\tadd $3, %1\n\tadd $4, %1\n\tadd $5, %1"
		     : "=&r"(first), "=&r"(sum) : : "cc", "memory");
	check_equal("steps change nothing", sum, 15);
	check("the first trap comes after the instruction behind POPF", seen.rip[0] == first);
	check_equal("one a step", seen.n, 4);
	check("each says BS", seen.dr6[0] == DR6_BS && seen.dr6[3] == DR6_BS);

	point(0, &page.q[8], WRITE, 8);
	seen.steps = 2;
	asm volatile("pushfq\n\torl $0x100, (%%rsp)\n\tpopfq\n\tmovq $3, %0\n\tnop" : "=m"(page.q[8]) : : "cc", "memory");
	check("a step over a watched write is one trap", seen.n == 2 && seen.dr6[0] == (DR6_BS | 1));
	all_off();
	seen.steps = 0;
}

/* ------------------------------------------------------------------- details */

static void test_registers(void)
{
	uint64_t at, v;

	set_dr6(0);
	asm volatile("mov %%dr6, %0" : "=r"(v));
	check_equal("DR6 keeps its fixed bits", v, 0xffff0ff0);
	set_dr7(0xffffffff & ~(uint64_t)DR7_GD & ~0xfffffcffull);
	check_equal("DR7 keeps its fixed bits", get_dr7(), 0x700);
	irq_handler[1] = NULL;
	at = TRAPPING("mov %1, %%dr7", "r"(1ull << 32));
	check_trap("#GP by upper bits of DR7", 13, 0, at);
	set_dr7(0x400 | DR7_GD);
	at = TRAPPING("mov %%dr0, %%rax", "r"(0));
	check_trap("#DB by general detect", 1, 0, at);
	asm volatile("mov %%dr6, %0" : "=r"(v));
	check_equal("which says BD", v & 0xe00f, DR6_BD);
	check("and is over with the exception", !(get_dr7() & DR7_GD));
	irq_handler[1] = debug_exception;
	set_dr6(0xffff0ff0);
	all_off();
}

int guest_main(void)
{
	irq_handler[1] = debug_exception;
	set_dr6(0xffff0ff0);
	test_instructions();
	test_data();
	test_where();
	test_strings();
	test_steps();
	test_registers();
	return check_status();
}
