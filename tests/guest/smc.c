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

/* Copies @n bytes to code that may be running nearby, byte by byte as Linux' text_poke_early() does. */
static void patch(uint64_t at, const uint8_t *bytes, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		((volatile uint8_t *)at)[i] = bytes[i];
}

/* Linux' alternatives: a call is replaced by other instructions and NOPs of the same length. */
static void test_alternatives(void)
{
	static const uint8_t original[] = { 0x31, 0xc0, 0xe8, 0x39, 0, 0, 0, 0xc3 };	/* xor eax, eax; call +0x40; ret */
	static const uint8_t callee[] = { 0x83, 0xc0, 0x07, 0xc3 };	/* add $7, %eax; ret */
	static const uint8_t inlined[] = { 0x83, 0xc0, 0x09, 0x66, 0x90 };	/* add $9, %eax; two-byte nop */
	static const uint8_t nop5[] = { 0x0f, 0x1f, 0x44, 0, 0 };
	code_fn f = (code_fn)PA;
	bool ok = true;

	patch(PA + 0x40, callee, sizeof(callee));
	for (int i = 0; i < 50; i++) {
		patch(PA, original, sizeof(original));
		ok = ok && f() == 7;
		patch(PA + 2, inlined, sizeof(inlined));
		ok = ok && f() == 9;
		patch(PA + 2, nop5, sizeof(nop5));
		ok = ok && f() == 0;
	}
	check("a call replaced by instructions and NOPs", ok);
}

/* A static key: 5-byte NOP and JMP in a loop that was hot before; two bytes for the short form. */
static void test_static_key(void)
{
	/* xor eax,eax; mov $100,%ecx; 1: [nop5 or jmp 3f]; inc %eax; 2: dec %ecx; jnz 1b; ret; 3: add $3,%eax; jmp 2b */
	static const uint8_t code[] = { 0x31, 0xc0, 0xb9, 100, 0, 0, 0, 0x0f, 0x1f, 0x44, 0, 0, 0xff, 0xc0,
					0xff, 0xc9, 0x75, 0xf5, 0xc3, 0x83, 0xc0, 3, 0xeb, 0xf6 };
	static const uint8_t nop5[] = { 0x0f, 0x1f, 0x44, 0, 0 }, jmp5[] = { 0xe9, 7, 0, 0, 0 };
	static const uint8_t jmp2[] = { 0xeb, 10 }, nop2[] = { 0x66, 0x90 };
	code_fn f = (code_fn)PA;
	bool ok = true;

	patch(PA, code, sizeof(code));
	for (int i = 0; i < 50; i++) {
		for (int k = 0; k < 5; k++)
			ok = ok && f() == 100;
		patch(PA + 7, i & 1 ? jmp5 : jmp2, i & 1 ? 5 : 2);
		for (int k = 0; k < 5; k++)
			ok = ok && f() == 300;
		patch(PA + 7, nop2, 2);	/* what is left of the long NOP or jump must be instructions, too */
		patch(PA + 7, nop5, 5);
	}
	check("a static key switched in hot code", ok);
}

/* The flags that a block computes become needed only by the code patched in behind it, in the same and in another page. */
static void test_patched_flags(uint64_t at, const char *name)
{
	static const uint8_t first[] = { 0x31, 0xc0, 0x83, 0xe8, 1, 0xe9 };	/* xor eax,eax; sub $1,%eax; jmp at */
	static const uint8_t kills[] = { 0x31, 0xc0, 0xc3 };	/* xor eax,eax; ret */
	static const uint8_t reads[] = { 0x19, 0xc0, 0xc3 };	/* sbb eax,eax; ret: -1 by the carry */
	code_fn f = (code_fn)PA;
	bool ok = true;

	patch(PA, first, sizeof(first));
	write32(PA + 6, (uint32_t)(at - (PA + 10)));
	for (int i = 0; i < 20; i++) {
		patch(at, kills, sizeof(kills));
		for (int k = 0; k < 4; k++)
			ok = ok && f() == 0;
		patch(at, reads, sizeof(reads));
		(void)f();	/* the first run after another page changed may see other flags: CAVEATS.md */
		for (int k = 0; k < 4; k++)
			ok = ok && f() == 0xffffffff;
	}
	check(name, ok);
}

/* Instructions that cross from one page to the next, rewritten in either. */
static void test_crossing(void)
{
	const uint64_t at = PA + 0xffd;	/* mov $imm32, %eax has its last two bytes in the second page */
	code_fn f = (code_fn)at;
	bool ok = true;

	for (uint32_t i = 0; i < 100; i++) {
		write_code(at, i * 0x01010101);
		ok = ok && f() == i * 0x01010101;
		*(volatile uint8_t *)(PA + 0x1001) = 0x77;
		ok = ok && f() >> 24 == 0x77;
		*(volatile uint8_t *)(PA + 0xffe) = 0x33;
		ok = ok && (f() & 0xff) == 0x33;
	}
	check("an instruction in two pages rewritten in both", ok);
}

int guest_main(void)
{
	test_rewrite();
	test_alias();
	test_ahead();
	test_loop();
	test_remap();
	test_alternatives();
	test_static_key();
	test_patched_flags(PA + 0x200, "flags that patched code reads");
	test_patched_flags(PA + 0x1200, "in another page");
	test_crossing();
	return check_status();
}
