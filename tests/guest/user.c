/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ring 3: system calls both ways, interrupts and faults from user mode.  Needs a
 * processor that runs user code properly; emulating hosts' KVM cannot.
 */
#include "guest.h"

#define EFER 0xc0000080u
#define STAR 0xc0000081u
#define LSTAR 0xc0000082u
#define SFMASK 0xc0000084u
#define USER_DATA 0x23
#define USER_CODE 0x2b

static volatile uint64_t back_rsp, seen_rcx, seen_r11, seen_cs;
static volatile uint64_t user_rip;

/* Runs @code in ring 3 until it makes a system call or int 0x80. */
static void run_user(void (*code)(void))
{
	static uint8_t stack[4096] __attribute__((aligned(16)));

	asm volatile("push %%rbp\n\tpush %%rbx\n\tlea 1f(%%rip), %%rax\n\tpush %%rax\n\t"
		     "mov %%rsp, %0\n\t"
		     "pushq %2\n\tpushq %3\n\tpushq $0x202\n\tpushq %4\n\tpushq %5\n\tiretq\n"
		     "1:\tpop %%rbx\n\tpop %%rbp"
		     : "=m"(back_rsp)
		     : "m"(back_rsp), "i"(USER_DATA), "r"(stack + sizeof(stack)), "i"(USER_CODE),
		       "r"(code)
		     : "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13",
		       "r14", "r15", "memory", "cc");
}

void syscall_entry(void);
asm(".pushsection .text\n"
    ".globl syscall_entry\nsyscall_entry:\n\t"
    "mov %rcx, seen_rcx\n\tmov %r11, seen_r11\n\t"
    "cmp $77, %eax\n\tje 1f\n\t"
    "mov back_rsp, %rsp\n\tcli\n\tret\n"
    "1:\tmov $78, %eax\n\tsysretq\n"
    ".popsection");

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

static void leave_user(struct trap_frame *f)
{
	seen_cs = f->cs;
	trap.vector = (unsigned)f->vector;
	trap.error = f->error;
	user_rip = f->rip;
	asm volatile("mov %%cr2, %0" : "=r"(trap.cr2));
	f->cs = 0x10;
	f->ss = 0x18;
	f->rflags = 2;
	f->rsp = back_rsp + 8;
	f->rip = *(volatile uint64_t *)back_rsp;
}

static void open_to_user(void)
{
	/* Every 2-MiB page becomes user-accessible but the one at 20 MiB. */
	*pte_of(0, 4) |= PTE_U;
	*pte_of(0, 3) |= PTE_U;
	for (uint64_t va = 0; va < 64ull << 20; va += 2ull << 20)
		if (va != 20ull << 20)
			*pte_of(va, 2) |= PTE_U;
	write_cr3(read_cr3());
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

/*
 * A chain of pages, each of which adds a number to chain_sum and jumps to the next, and what becomes of it when pages of it
 * become others: of memory where each adds 1, or 1000.
 */
#define CHAIN 0x6000000000ull
#define CHAIN_MEMORY 0x1800000ull	/* 24 MiB */
#define CHAIN_MAX 600u

static volatile uint64_t chain_sum;

static uint64_t chain_page(unsigned i, bool other)
{
	return CHAIN_MEMORY + (i + (other ? CHAIN_MAX : 0)) * 0x1000;
}

static void write_chain(unsigned n)
{
	for (unsigned k = 0; k < 2 * n; k++) {
		uint8_t *at = (uint8_t *)chain_page(k / 2, k & 1);
		static const uint8_t last[] = { 0xb8, 5, 0, 0, 0, 0x0f, 0x05 };	/* mov eax, 5; syscall */

		*(uint32_t *)at = 0x25048148;	/* add qword [chain_sum], 1 or 1000 */
		*(uint32_t *)(at + 4) = (uint32_t)(uintptr_t)&chain_sum;
		*(uint32_t *)(at + 8) = k & 1 ? 1000 : 1;
		if (k / 2 % 2) {	/* mov rax, the next page; jmp rax */
			*(uint16_t *)(at + 12) = 0xb848;
			*(uint64_t *)(at + 14) = CHAIN + (k / 2 + 1) * 0x1000;
			*(uint16_t *)(at + 22) = 0xe0ff;
		} else {
			at[12] = 0xe9;	/* jmp */
			*(uint32_t *)(at + 13) = 0x1000 - 17;
		}
		for (unsigned b = 0; k / 2 == n - 1 && b < sizeof(last); b++)
			at[12 + b] = last[b];
	}
}

static void map_chain(unsigned i, bool other)
{
	*pte_of(CHAIN + i * 0x1000, 1) = chain_page(i, other) | PTE_P | PTE_W | PTE_U;
}

static uint64_t run_chain(void)
{
	chain_sum = 0;
	run_user((void (*)(void))CHAIN);
	return chain_sum;
}

static void check_chain(unsigned n)
{
	uint64_t va = CHAIN + n / 2 * 0x1000;	/* jumped to indirectly */

	write_chain(n);
	for (unsigned i = 0; i < n; i++)
		map_chain(i, false);
	write_cr3(read_cr3());
	for (unsigned k = 0; k < 3; k++)
		check_equal("all pages of a chain", run_chain(), n);
	write_cr3(read_cr3());
	check_equal("the same after a flush", run_chain(), n);
	map_chain(n / 2, true);
	write_cr3(read_cr3());
	check_equal("a page of it is another after a flush", run_chain(), n + 999);
	map_chain(n / 2 + 1, true);
	write_cr3(read_cr3());
	check_equal("and the next", run_chain(), n + 2 * 999);
	map_chain(n / 2 + 1, false);
	invlpg(va + 0x1000);
	map_chain(n / 2, false);
	invlpg(va);
	check_equal("the first ones after INVLPG", run_chain(), n);
	invlpg(va);
	check_equal("and after INVLPG without a change", run_chain(), n);
	for (unsigned i = 0; i < n; i++)
		map_chain(i, true);
	write_cr3(read_cr3());
	check_equal("all pages are others", run_chain(), 1000 * n);
	*pte_of(va, 1) = 0;
	write_cr3(read_cr3());
	run_user((void (*)(void))CHAIN);
	check_equal("a page that is no longer there", trap.cr2, va);
	map_chain(n / 2, true);
	check_equal("and is again, which needs no flush", run_chain(), 1000 * n);
}

/* Code of a large page that becomes another one, which INVLPG of any address in it tells. */
#define LARGE_CODE 0x6040000000ull
#define LARGE_MEMORY 0x2000000ull	/* 32 MiB, and 2 MiB behind it */
#define LARGE_BYTES 0x200000ull

static void write_large_code(uint64_t at, uint32_t add)
{
	static const uint8_t end[] = { 0xb8, 5, 0, 0, 0, 0x0f, 0x05 };	/* mov eax, 5; syscall */
	uint8_t *code = (uint8_t *)at;

	*(uint32_t *)code = 0x25048148;	/* add qword [chain_sum], add */
	*(uint32_t *)(code + 4) = (uint32_t)(uintptr_t)&chain_sum;
	*(uint32_t *)(code + 8) = add;
	for (unsigned b = 0; b < sizeof(end); b++)
		code[12 + b] = end[b];
}

static void map_large_code(bool other)
{
	*pte_of(LARGE_CODE, 2) = (LARGE_MEMORY + (other ? LARGE_BYTES : 0)) | PTE_P | PTE_W | PTE_U | PTE_PS;
}

static uint64_t run_large_code(void)
{
	chain_sum = 0;
	run_user((void (*)(void))(LARGE_CODE + 0x3000));
	return chain_sum;
}

static void check_large_code(void)
{
	write_large_code(LARGE_MEMORY + 0x3000, 1);
	write_large_code(LARGE_MEMORY + LARGE_BYTES + 0x3000, 1000);
	map_large_code(false);
	check_equal("code of a large page", run_large_code(), 1);
	map_large_code(true);
	invlpg(LARGE_CODE + 0x155000);
	check_equal("the page is another after INVLPG of an address in it", run_large_code(), 1000);
	write_cr3(read_cr3());
	map_large_code(false);
	invlpg(LARGE_CODE + 0x155000);
	check_equal("and again when a flush came between that found nothing new", run_large_code(), 1);
}

/* One page at two addresses, with different ones behind it. */
#define TWICE 0x60c0000000ull

static uint64_t run_twice(unsigned k)
{
	chain_sum = 0;
	run_user((void (*)(void))(TWICE + k * 0x10000));
	return chain_sum;
}

static void check_twice(void)
{
	write_chain(2);
	for (unsigned k = 0; k < 2; k++) {
		*pte_of(TWICE + k * 0x10000, 1) = chain_page(0, false) | PTE_P | PTE_W | PTE_U;
		*pte_of(TWICE + k * 0x10000 + 0x1000, 1) = chain_page(1, k) | PTE_P | PTE_W | PTE_U;
	}
	for (unsigned n = 0; n < 3; n++) {
		for (unsigned m = 0; m < 3; m++)
			check_equal("a page at its first address", run_twice(0), 2);
		for (unsigned m = 0; m < 3; m++)
			check_equal("and at its second, in front of another page", run_twice(1), 1001);
	}
}

/*
 * Calls and returns that are not each other's: deeper ones than a translator may remember, to other addresses than behind the
 * call, and out of several calls at once.
 */
#define DEPTH 3000

static uint8_t deep_stack[DEPTH * 8 + 4096] __attribute__((aligned(16)));
static volatile uint64_t returns_right, returns_wrong;

static void user_deep(void)
{
	asm volatile("mov %%rsp, %%rbx\n\tmov %0, %%rsp\n\tmov %1, %%ecx\n\tcall 1f\n\tmov %%rbx, %%rsp\n\tjmp 3f\n"
		     "1:\tdec %%ecx\n\tjz 2f\n\tcall 1b\n"
		     "2:\tincq returns_right\n\tret\n"
		     "3:\tmov $5, %%eax\n\tsyscall"
		     : : "r"(deep_stack + sizeof(deep_stack)), "i"(DEPTH) : "rax", "rbx", "rcx", "memory", "cc");
}

static void user_elsewhere(void)
{
	asm volatile("mov $100, %%ecx\n"
		     "1:\tcall 2f\n\tincq returns_wrong\n"
		     "4:\tincq returns_right\n\tdec %%ecx\n\tjnz 1b\n\tjmp 3f\n"
		     "2:\tlea 4b(%%rip), %%rax\n\tmov %%rax, (%%rsp)\n\tret\n"
		     "3:\tmov $5, %%eax\n\tsyscall"
		     : : : "rax", "rcx", "memory", "cc");
}

static void user_several(void)
{
	asm volatile("mov $700, %%ecx\n"
		     "1:\tcall 2f\n\tincq returns_right\n\tdec %%ecx\n\tjnz 1b\n\tjmp 3f\n"
		     "2:\tcall 4f\n\tincq returns_wrong\n\tret\n"
		     "4:\tlea 8(%%rsp), %%rsp\n\tret\n"
		     "3:\tmov $5, %%eax\n\tsyscall"
		     : : : "rax", "rcx", "memory", "cc");
}

/* A page that has become another one when its call returns: of one that adds 1 behind the call, or 1000. */
#define CALLER 0x6080000000ull
#define CALLER_MEMORY 0x2400000ull	/* 36 MiB: the two, and what they call */

static volatile bool caller_changes;

static void map_caller(bool other)
{
	*pte_of(CALLER, 1) = (CALLER_MEMORY + (other ? 0x1000 : 0)) | PTE_P | PTE_W | PTE_U;
	invlpg(CALLER);
}

void change_caller(void);
void change_caller(void)
{
	if (caller_changes)
		map_caller(true);
}

void caller_entry(void);
asm(".pushsection .text\n"
    ".globl caller_entry\ncaller_entry:\n\t"
    "mov %rsp, %rbx\n\tmov back_rsp, %rsp\n\tcmp $77, %eax\n\tje 1f\n\tcli\n\tret\n"
    "1:\tpush %rcx\n\tpush %r11\n\tcall change_caller\n\tpop %r11\n\tpop %rcx\n\tmov %rbx, %rsp\n\tsysretq\n"
    ".popsection");

static void write_caller(void)
{
	static const uint8_t end[] = { 0xb8, 5, 0, 0, 0, 0x0f, 0x05 };	/* mov eax, 5; syscall */
	static const uint8_t callee[] = { 0xb8, 77, 0, 0, 0, 0x0f, 0x05, 0xc3 };	/* mov eax, 77; syscall; ret */

	for (unsigned k = 0; k < 2; k++) {
		uint8_t *at = (uint8_t *)(CALLER_MEMORY + k * 0x1000);

		at[0] = 0xe8;	/* call the next page */
		*(uint32_t *)(at + 1) = 0x1000 - 5;
		*(uint32_t *)(at + 5) = 0x25048148;	/* add qword [chain_sum], 1 or 1000 */
		*(uint32_t *)(at + 9) = (uint32_t)(uintptr_t)&chain_sum;
		*(uint32_t *)(at + 13) = k ? 1000 : 1;
		for (unsigned b = 0; b < sizeof(end); b++)
			at[17 + b] = end[b];
	}
	for (unsigned b = 0; b < sizeof(callee); b++)
		((uint8_t *)CALLER_MEMORY)[0x2000 + b] = callee[b];
	map_caller(false);
	*pte_of(CALLER + 0x1000, 1) = (CALLER_MEMORY + 0x2000) | PTE_P | PTE_W | PTE_U;
}

static void check_returns(void)
{
	for (unsigned k = 0; k < 3; k++) {
		returns_right = returns_wrong = 0;
		run_user(user_deep);
		check_equal("all returns of a deep recursion", returns_right, DEPTH);
		returns_right = 0;
		run_user(user_elsewhere);
		check_equal("returns to another address", returns_right, 100);
		returns_right = 0;
		run_user(user_several);
		check_equal("returns out of two calls at once", returns_right, 700);
		check_equal("none went behind its call", returns_wrong, 0);
	}
	wrmsr(LSTAR, (uint64_t)caller_entry);
	write_caller();
	chain_sum = 0;
	for (unsigned k = 0; k < 20; k++)
		run_user((void (*)(void))CALLER);
	check_equal("what is behind a call", chain_sum, 20);
	caller_changes = true;
	run_user((void (*)(void))CALLER);
	check_equal("what is there when the call returns", chain_sum, 1020);
}

int guest_main(void)
{
	open_to_user();
	check_bases();
	wrmsr(EFER, rdmsr(EFER) | 1);
	wrmsr(STAR, 0x10ull << 32 | (uint64_t)(0x18 | 3) << 48);
	wrmsr(LSTAR, (uint64_t)syscall_entry);
	wrmsr(SFMASK, 0x200);

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
	wrmsr(LSTAR, (uint64_t)syscall_entry);
	check_chain(40);
	check_chain(CHAIN_MAX);
	check_large_code();
	check_twice();
	check_returns();
	return check_status();
}
