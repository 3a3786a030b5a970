/* SPDX-License-Identifier: Apache-2.0 */
/* User code whose pages become other ones, and whose returns go elsewhere. */
#include "ring3.h"

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
		if (k / 2 % 4 == 1) {	/* mov rax, the next page; jmp rax */
			*(uint16_t *)(at + 12) = 0xb848;
			*(uint64_t *)(at + 14) = CHAIN + (k / 2 + 1) * 0x1000;
			*(uint16_t *)(at + 22) = 0xe0ff;
		} else if (k / 2 % 4 == 3) {	/* jmp [rip], with the next page behind it */
			*(uint16_t *)(at + 12) = 0x25ff;
			*(uint32_t *)(at + 14) = 0;
			*(uint64_t *)(at + 18) = CHAIN + (k / 2 + 1) * 0x1000;
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
	ring3_begin();
	irq_handler[14] = leave_user;
	check_chain(40);
	check_chain(CHAIN_MAX);
	check_large_code();
	check_twice();
	check_returns();
	return check_status();
}
