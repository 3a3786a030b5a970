/* SPDX-License-Identifier: Apache-2.0 */
/* Code that changes: by itself, through another mapping, right before it runs. */
#include "guest.h"

#define PA 0x1c00000ull
#define VA 0x7000000000ull

typedef uint32_t (*code_fn)(void);

/* mov $value, %eax; ret */
static void write_code(uint64_t at, uint32_t value)
{
	volatile uint8_t *p = (volatile uint8_t *)at;

	p[0] = 0xb8;
	*(volatile uint32_t *)(p + 1) = value;
	p[5] = 0xc3;
}

static void test_rewrite(void)
{
	code_fn f = (code_fn)PA;
	bool ok = true;

	for (uint32_t i = 0; i < 200; i++) {
		write_code(PA, i * 3);
		ok = ok && f() == i * 3;
	}
	check("code rewritten two hundred times", ok);
}

static void test_alias(void)
{
	code_fn f = (code_fn)VA;

	map(VA, PA, 1, PTE_P | PTE_W);
	write_code(PA, 1);
	check_equal("code run through one mapping", f(), 1);
	write_code(PA, 2);
	check_equal("and rewritten through another", f(), 2);
}

static void test_ahead(void)
{
	uint32_t got;

	/* The store changes the immediate of the very next instruction. */
	asm volatile("movl $0x7777, 1f+1(%%rip)\n1:\tmov $0x1111, %%eax" : "=a"(got) : : "memory");
	check_equal("a store into the next instruction", got, 0x7777);
}

static void test_loop(void)
{
	uint32_t sum = 0;

	/* Each turn adds an immediate and increments it in place. */
	asm volatile("mov $10, %%ecx\n"
		     "1:\tadd $1, %0\n"
		     "\tincb 1b+2(%%rip)\n"
		     "\tdec %%ecx\n\tjnz 1b"
		     : "+r"(sum) : : "ecx", "memory");
	check_equal("a loop that changes its own operand", sum, 55);
}

static void test_remap(void)
{
	code_fn f = (code_fn)VA;

	write_code(PA, 10);
	write_code(PA + 0x1000, 20);
	map(VA, PA, 1, PTE_P | PTE_W);
	check_equal("code at an address", f(), 10);
	map(VA, PA + 0x1000, 1, PTE_P | PTE_W);
	check_equal("other code after remapping it", f(), 20);
}

int guest_main(void)
{
	test_rewrite();
	test_alias();
	test_ahead();
	test_loop();
	test_remap();
	return check_status();
}
