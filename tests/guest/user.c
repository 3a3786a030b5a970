/* SPDX-License-Identifier: Apache-2.0 */
/* Between rings 0 and 3: system calls both ways, interrupts and faults from user mode, the bases of segments. */
#include "ring3.h"

static void user_syscall(void)
{
	asm volatile("mov $5, %eax\n\tsyscall");
}

static volatile uint64_t sysret_value;
static void user_sysret(void)
{
	asm volatile("mov $77, %%eax\n\tsyscall\n\tmov %%rax, %0\n\tmov $5, %%eax\n\tsyscall"
		     : "=m"(sysret_value) : : "rax", "rcx", "r11");
}

static void user_int80(void)
{
	asm volatile("int $0x80");
}

static void user_privileged(void)
{
	asm volatile("cli");
}

static void user_kernel_page(void)
{
	asm volatile("mov %0, %%rax\n\tmovb $1, (%%rax)" : : "i"(0x1400000) : "rax", "memory");
}

/*
 * Flags in every combination, there and back: POPF in ring 3, SYSCALL, SYSRET with what
 * R11 holds or with other flags, PUSHF.  SFMASK as kernels set it: all flags cleared.
 */
#define FLAG_IF 0x200ull

static volatile uint64_t flags_in, flags_kernel, flags_back, flags_after;

void flags_entry(void);
asm(".pushsection .text\n"
    ".globl flags_entry\nflags_entry:\n\t"
    "mov %rsp, %r8\n\tmov back_rsp, %rsp\n\tpushfq\n\tpopq flags_kernel\n\t"
    "cmp $77, %eax\n\tje 1f\n\t"
    "cli\n\tret\n"
    "1:\tmov %r11, seen_r11\n\tmov flags_back, %r11\n\tmov %r8, %rsp\n\tsysretq\n"
    ".popsection");

static void user_flags(void)
{
	asm volatile("pushq %1\n\tpopfq\n\tmov $77, %%eax\n\tsyscall\n\t"
		     "pushfq\n\tpopq %0\n\tcld\n\tmov $5, %%eax\n\tsyscall"
		     : "=m"(flags_after) : "m"(flags_in) : "rax", "rcx", "r8", "r11", "cc", "memory");
}

static uint64_t some_flags(unsigned n)
{
	static const uint8_t bit[] = { 0, 2, 4, 6, 7, 10, 11 };
	uint64_t f = 2;

	for (unsigned k = 0; k < 7; k++)
		f |= (uint64_t)(n >> k & 1) << bit[k];
	return f;
}

static void check_flags(void)
{
	unsigned saved = 0, cleared = 0, restored = 0;

	wrmsr(LSTAR, (uint64_t)flags_entry);
	wrmsr(SFMASK, 0x257fd5);
	for (unsigned n = 0; n < 512; n++) {
		flags_in = some_flags(n & 127) | FLAG_IF;
		flags_back = some_flags((n * 37 + 11) & 127) | (n < 384 ? FLAG_IF : 0);
		if (n < 128)
			flags_back = flags_in;
		run_user(user_flags);
		cleared += flags_kernel == 2;
		saved += seen_r11 == flags_in;
		restored += flags_after == flags_back;
	}
	check_equal("SYSCALL clears what SFMASK says", cleared, 512);
	check_equal("SYSCALL saves every flag", saved, 512);
	check_equal("SYSRET restores every flag", restored, 512);
}

#define FSGSBASE (1ull << 16)
#define NONCANONICAL 0x800000000000ull

/* WRFSBASE and WRGSBASE, which leave flags alone: every combination of them around each. */
static void check_bases(void)
{
	uint64_t base = 0x123456789000, seen = 0, other = 0, flags, at;
	unsigned kept = 0;

	write_cr4(read_cr4() | FSGSBASE);
	for (unsigned n = 0; n < 128; n++) {
		uint64_t want = some_flags(n);

		asm volatile("push %3\n\tpopfq\n\twrfsbase %4\n\twrgsbase %5\n\tpushfq\n\tpop %2\n\tcld\n\t"
			     "rdfsbase %0\n\trdgsbase %1"
			     : "=&r"(seen), "=&r"(other), "=&r"(flags)
			     : "r"(want), "r"(base + n), "r"(-(uint64_t)n) : "cc", "memory");
		kept += flags == want && seen == base + n && other == -(uint64_t)n;
	}
	check_equal("WRFSBASE and WRGSBASE keep flags", kept, 128);
	at = TRAPPING("wrfsbase %1", "r"(NONCANONICAL));
	check_trap("#GP by WRFSBASE of a non-canonical address", 13, 0, at);
	at = TRAPPING("wrgsbase %1", "r"(~NONCANONICAL));
	check_trap("#GP by WRGSBASE of another", 13, 0, at);
	asm volatile("wrfsbase %1\n\trdfsbase %0" : "=r"(seen) : "r"(NONCANONICAL - 1));
	check_equal("the last address of the lower half is canonical", seen, NONCANONICAL - 1);
	asm volatile("wrfsbase %k1\n\trdfsbase %0" : "=r"(seen) : "r"(~0ull));
	check_equal("32 bits are extended with zeros", seen, 0xffffffff);
	write_cr4(read_cr4() & ~FSGSBASE);
	at = TRAPPING("wrfsbase %1", "r"(0ull));
	check_trap("#UD by WRFSBASE without CR4.FSGSBASE", 6, 0, at);
}

int guest_main(void)
{
	check_bases();
	ring3_begin();
	run_user(user_syscall);
	check_equal("SYSCALL saves flags in R11", seen_r11 & 0x202, 0x202);
	check("and the return address in RCX", seen_rcx > (uint64_t)user_syscall);
	run_user(user_sysret);
	check_equal("SYSRET goes back to user code", sysret_value, 78);

	check_flags();

	irq_handler[0x80] = leave_user;
	run_user(user_int80);
	check_equal("INT 0x80 arrives with the user's CS", seen_cs, USER_CODE);
	irq_handler[13] = leave_user;
	run_user(user_privileged);
	check("CLI in ring 3 is #GP(0)", trap.vector == 13 && trap.error == 0 && seen_cs == USER_CODE);
	irq_handler[14] = leave_user;
	run_user(user_kernel_page);
	check("a supervisor page faults: present, write, user",
	      trap.vector == 14 && trap.error == 7 && trap.cr2 == 0x1400000);
	return check_status();
}
