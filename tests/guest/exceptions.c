/* SPDX-License-Identifier: Apache-2.0 */
/* Exceptions through the IDT: vector, error code, CR2 and the exact instruction. */
#include "guest.h"

#define NOWHERE 0x4000000000ull	/* not mapped */
#define NONCANONICAL 0x8000000000000000ull

static void test_arithmetic(void)
{
	uint64_t at = TRAPPING("xor %%edx, %%edx\n\tmov $1, %%eax\n\tdiv %%edx", "d"(0));

	check("#DE has no error code", trap.vector == 0 && trap.error == 0 && trap.count == 1);
	check("#DE points at DIV, not before it", trap.rip > at);
	at = TRAPPING("div %1", "r"(0ull), "a"(1), "d"(0));
	check_trap("#DE by a zero register", 0, 0, at);
	at = TRAPPING("div %1", "r"(1ull), "a"(0), "d"(1));
	check_trap("#DE by a quotient that does not fit", 0, 0, at);
}

static void test_undefined(void)
{
	uint64_t at = TRAPPING("ud2", "r"(0));

	check_trap("#UD by UD2", 6, 0, at);
}

static void test_page_faults(void)
{
	uint64_t at = TRAPPING("movb (%1), %%al", "r"(NOWHERE + 5));

	check_trap("#PF by a read of an absent page", 14, 0, at);
	check_equal("CR2 of the read", trap.cr2, NOWHERE + 5);
	at = TRAPPING("movq %%rax, (%1)", "r"(NOWHERE + 0x123));
	check_trap("#PF by a write to an absent page", 14, 2, at);
	check_equal("CR2 of the write", trap.cr2, NOWHERE + 0x123);
	at = TRAPPING("addq $1, 8(%1)", "r"(NOWHERE));
	check_trap("#PF by read-modify-write says write", 14, 2, at);
	check_equal("CR2 of read-modify-write", trap.cr2, NOWHERE + 8);
	at = TRAPPING("pushq (%1)", "r"(NOWHERE));
	check_trap("#PF by PUSH from memory", 14, 0, at);
	trap.count = 0;
	asm volatile("lea 2f(%%rip), %%rax\n\tmov %%rax, trap_resume\n\tmov %%rsp, %%rbx\n\t"
		     "jmp *%0\n2:\tmov %%rbx, %%rsp"
		     : : "r"(NOWHERE) : "rax", "rbx", "memory");
	check_trap("#PF by an instruction fetch", 14, 0, NOWHERE);
	check_equal("CR2 of the fetch", trap.cr2, NOWHERE);
}

static void test_protection(void)
{
	uint64_t at = TRAPPING("movq (%1), %%rax", "r"(NONCANONICAL));

	check_trap("#GP by a non-canonical address", 13, 0, at);
	at = TRAPPING("mov %w1, %%es", "r"(0x60));
	check_trap("#GP by a selector outside the GDT", 13, 0x60, at);
	at = TRAPPING("wrmsr", "c"(0x12345678), "a"(0), "d"(0));
	check_trap("#GP by WRMSR to an unknown MSR", 13, 0, at);
	at = TRAPPING("rdmsr", "c"(0x12345678));
	check_trap("#GP by RDMSR of an unknown MSR", 13, 0, at);
	at = TRAPPING("mov %1, %%cr4", "r"(1ull << 40));
	check_trap("#GP by a reserved bit of CR4", 13, 0, at);
	at = TRAPPING("mov %1, %%cr0", "r"(0x80000000ull));
	check_trap("#GP by paging without protection", 13, 0, at);
}

static void test_flags(void)
{
	uint64_t flags;

	/* SETC: only flags that the program still needs are promised (CAVEATS.md). */
	(void)TRAPPING("stc\n\tmovb (%1), %%al\n\tsetc %%al", "r"(NOWHERE));
	check("flags at the fault are the instruction's", trap.rflags & 1);
	(void)TRAPPING("clc\n\tmovb (%1), %%al\n\tsetc %%al", "r"(NOWHERE));
	check("and clear when they were clear", !(trap.rflags & 1));
	check("interrupts were off", !(trap.rflags & 0x200));
	asm volatile("pushfq\n\tpop %0" : "=r"(flags));
	check_equal("IF stays off", flags & 0x200, 0);
}

int guest_main(void)
{
	test_arithmetic();
	test_undefined();
	test_page_faults();
	test_protection();
	test_flags();
	return check_status();
}
