/* SPDX-License-Identifier: Apache-2.0 */
/* User code that jumps and calls through pointers beside it, which stay as they are, or change often, or lead in a circle. */
#include "ring3.h"

#define ROUNDS 3000u
#define TIMER_VECTOR 0x40
#define TIMER_COUNT 1000000u

extern uint64_t jump_places[4], call_places[4];
static volatile uint64_t pointer, sum, shift, mask;

/*
 * Each round goes to place (round >> shift & mask), with a carry when less than 50 are left.  The places add 1, 100, 10,000 or
 * 1,000,000, and the carry.
 */
#define GO(instruction, places) \
	asm volatile("mov %0, %%ebx\n" \
		     "1:\tmov shift, %%ecx\n\tmov %%ebx, %%eax\n\tshr %%cl, %%eax\n\tand mask, %%eax\n\t" \
		     "mov " places "(,%%rax,8), %%rax\n\tmov %%rax, pointer\n\tcmp $50, %%ebx\n\t" \
		     instruction " *pointer(%%rip)\n" \
		     places "_back:\n\tdec %%ebx\n\tjnz 1b\n\tmov $5, %%eax\n\tsyscall" \
		     : : "i"(ROUNDS) : "rax", "rbx", "rcx", "memory", "cc")

static void user_jumps(void)
{
	GO("jmp", "jump_places");
}

static void user_calls(void)
{
	GO("call", "call_places");
}

#define PLACES(name, back) \
	asm(".pushsection .text\n" \
	    "1:\tadcq $1, sum\n\t" back "\n2:\tadcq $100, sum\n\t" back "\n" \
	    "3:\tadcq $10000, sum\n\t" back "\n4:\tadcq $1000000, sum\n\t" back "\n" \
	    ".popsection\n.pushsection .data\n.balign 8\n.globl " name "\n" name ":\t.quad 1b, 2b, 3b, 4b\n.popsection")

PLACES("jump_places", "jmp jump_places_back");
PLACES("call_places", "ret");

static uint64_t expected(void)
{
	static const uint64_t worth[] = { 1, 100, 10000, 1000000 };
	uint64_t s = 0;

	for (unsigned i = ROUNDS; i; i--)
		s += worth[i >> shift & mask] + (i < 50);
	return s;
}

static void check_rounds(const char *what, void (*code)(void), unsigned with_shift, unsigned with_mask)
{
	shift = with_shift;
	mask = with_mask;
	sum = 0;
	run_user(code);
	check_equal(what, sum, expected());
}

static void user_circle(void)
{
	asm volatile("lea 1f(%%rip), %%rax\n\tmov %%rax, pointer\n1:\tjmp *pointer(%%rip)" : : : "rax", "memory");
}

static void check_circle(void)
{
	irq_handler[TIMER_VECTOR] = leave_user;
	apic_enable();
	apic_write(APIC_DIVIDE, 0xb);
	apic_write(APIC_LVT_TIMER, TIMER_VECTOR);
	for (unsigned k = 0; k < 3; k++) {
		trap.vector = 0;
		apic_write(APIC_INITIAL, TIMER_COUNT);
		run_user(user_circle);
		apic_write(APIC_EOI, 0);
		check_equal("a timer ends a circle of jumps", trap.vector, TIMER_VECTOR);
	}
}

int guest_main(void)
{
	ring3_begin();
	for (unsigned k = 0; k < 4; k++) {
		void (*code)(void) = k % 2 ? user_calls : user_jumps;

		print(k % 2 ? "calls\n" : "jumps\n");
		check_rounds("a pointer that stays", code, 0, 0);
		check_rounds("one that changes now and then", code, 8, 3);
		check_rounds("and stays again", code, 0, 0);
		check_rounds("one that changes each time", code, 0, 1);
		check_rounds("between four", code, 0, 3);
		check_rounds("and stays", code, 20, 3);
	}
	check_circle();
	return check_status();
}
