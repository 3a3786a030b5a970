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

/* --- REP MOVS and STOS into pages that code ran from --- */

#define COPY (PA + 0x100000)	/* of the two pages at PA, where no code runs */
#define AREA 0x2000u
#define FUNCTION_STEP 16u

static void movs(uint64_t to, uint64_t from, uint64_t n, unsigned size)
{
	switch (size) {
	case 1: asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory"); break;
	case 2: asm volatile("rep movsw" : "+D"(to), "+S"(from), "+c"(n) : : "memory"); break;
	case 4: asm volatile("rep movsl" : "+D"(to), "+S"(from), "+c"(n) : : "memory"); break;
	default: asm volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(n) : : "memory"); break;
	}
}

static void movs_down(uint64_t to, uint64_t from, uint64_t n)
{
	asm volatile("std\n\trep movsb\n\tcld" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
}

static void stos(uint64_t to, uint64_t value, uint64_t n, unsigned size)
{
	switch (size) {
	case 1: asm volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(value) : "memory"); break;
	case 2: asm volatile("rep stosw" : "+D"(to), "+c"(n) : "a"(value) : "memory"); break;
	case 4: asm volatile("rep stosl" : "+D"(to), "+c"(n) : "a"(value) : "memory"); break;
	default: asm volatile("rep stosq" : "+D"(to), "+c"(n) : "a"(value) : "memory"); break;
	}
}

/* Whether each returns @first and how far it is from the first one. */
static bool functions_return(uint64_t from, uint64_t to, uint32_t first)
{
	bool ok = true;

	for (uint64_t at = from; at < to; at += FUNCTION_STEP)
		ok = ok && ((code_fn)at)() == first + (uint32_t)(at - from);
	return ok;
}

static void write_functions(uint64_t from, uint64_t to, uint32_t first)
{
	for (uint64_t at = from; at < to; at += FUNCTION_STEP)
		write_code(at, first + (uint32_t)(at - from));
}

static void test_functions_moved_over_others(void)
{
	static const unsigned sizes[] = { 1, 2, 4, 8 };
	bool old_ok = true, new_ok = true, around_ok = true;

	write_functions(PA, PA + AREA, 0);
	for (unsigned i = 0; i < 8; i++) {
		unsigned size = sizes[i % 4], from = i * 0x110, n = 0x10 * (1 + i * 11);	/* in one page, and over its end */

		write_functions(COPY, COPY + n, i * 0x10000);
		old_ok = old_ok && functions_return(PA, PA + AREA, 0);
		movs(PA + from, COPY, n / size, size);
		new_ok = new_ok && functions_return(PA + from, PA + from + n, i * 0x10000);
		around_ok = around_ok && functions_return(PA, PA + from, 0) &&
			    functions_return(PA + from + n, PA + AREA, from + n);
		write_functions(PA + from, PA + from + n, from);
	}
	check("functions that ran before", old_ok);
	check("others moved over them", new_ok);
	check("and what is around them", around_ok);
}

static void test_nops_stored_over_functions(void)
{
	bool ok = true;

	for (unsigned i = 0; i < 8; i++) {
		unsigned size = 1u << i % 4, n = 0x100 * (1 + i);
		uint64_t at = PA + 0x800 - i * FUNCTION_STEP;

		write_functions(PA, PA + AREA, 0);
		ok = ok && functions_return(PA, PA + AREA, 0);
		stos(at, 0x9090909090909090, n / size, size);
		/* From anywhere in them to the first that is left. */
		for (uint64_t k = 0; k <= n; k += 0x40)
			ok = ok && ((code_fn)(at + k))() == (uint32_t)(at + n - PA);
		ok = ok && ((code_fn)(at - FUNCTION_STEP))() == (uint32_t)(at - FUNCTION_STEP - PA);
	}
	check("functions overwritten with NOPs", ok);
}

/* Moves inside the area, with code in it, and by single bytes in the copy: the same must come out. */
static bool moves_as_bytes_do(uint64_t to, uint64_t from, unsigned n, unsigned size, bool down)
{
	for (uint64_t i = 0; i < AREA; i++)
		*(volatile uint8_t *)(PA + i) = (uint8_t)(i * 11 + (i >> 8));
	write_code(PA + 0xff0, 5);
	write_code(PA + 0x1ff0, 6);
	for (uint64_t i = 0; i < AREA; i++)
		*(volatile uint8_t *)(COPY + i) = *(volatile uint8_t *)(PA + i);
	if (((code_fn)(PA + 0xff0))() != 5 || ((code_fn)(PA + 0x1ff0))() != 6)
		return false;
	if (down)
		movs_down(PA + to, PA + from, n);
	else
		movs(PA + to, PA + from, n / size, size);
	for (unsigned i = 0; i < n; i += size) {
		uint64_t element = 0;

		for (unsigned k = 0; k < size; k++)
			element |= (uint64_t)*(volatile uint8_t *)(COPY + (down ? from - i : from + i + k)) << (8 * k);
		for (unsigned k = 0; k < size; k++)
			*(volatile uint8_t *)(COPY + (down ? to - i : to + i + k)) = (uint8_t)(element >> (8 * k));
	}
	for (uint64_t i = 0; i < AREA; i++)
		if (*(volatile uint8_t *)(PA + i) != *(volatile uint8_t *)(COPY + i))
			return false;
	return true;
}

static void test_overlapping_moves(void)
{
	static const unsigned distances[] = { 1, 7, 100, 256 };
	bool up = true, near = true, below = true, down = true;

	for (unsigned i = 0; i < sizeof(distances) / sizeof(*distances); i++) {
		unsigned d = distances[i];

		up = up && moves_as_bytes_do(0x100 + d, 0x100, 0x900, 1, false);
		for (unsigned size = 2; size <= 8; size *= 2)
			near = near && moves_as_bytes_do(0x203 + d, 0x203, 0x800, size, false);
		below = below && moves_as_bytes_do(0x301, 0x301 + d, 0x980, 1, false) &&
			moves_as_bytes_do(0x301, 0x301 + d, 0x980, 8, false);
		down = down && moves_as_bytes_do(0xb00, 0xb00 - d, 0x800, 1, true) &&
		       moves_as_bytes_do(0xb00 - d, 0xb00, 0x800, 1, true);
	}
	check("bytes moved up over themselves repeat", up);
	check("larger elements too", near);
	check("moved down they stay what they are", below);
	check("from their end on", down);
	up = moves_as_bytes_do(0xe01, 0xe00, 0x1000, 1, false) && moves_as_bytes_do(0xe64, 0xe00, 0x1100, 4, false);
	check("over the end of a page", up);
}

/* The same bytes under two addresses: what overlaps is not to be told from the addresses. */
static void test_overlap_in_two_mappings(void)
{
	bool ok = true;

	map(VA, PA, 1, PTE_P | PTE_W);
	for (unsigned i = 0; i < 600; i++)
		*(volatile uint8_t *)(PA + i) = 0xcc;
	*(volatile uint8_t *)(PA + 0x10) = 0x90;
	write_code(PA + 0x300, 77);
	ok = ((code_fn)(PA + 0x300))() == 77;
	movs(PA + 0x11, VA + 0x10, 0x2ef, 1);
	ok = ok && ((code_fn)(PA + 0x10))() == 77 && ((code_fn)(VA + 0x1ff))() == 77;
	check("one NOP repeated through two mappings", ok);
}

static void test_page_end_and_fault(void)
{
	uint64_t at;

	map(VA, PA, 1, PTE_P | PTE_W);
	*pte_of(VA + 0x1000, 1) = 0;
	invlpg(VA + 0x1000);
	write_functions(PA, PA + 0x1000, 0);
	write_functions(COPY, COPY + 0x1000, 0x500000);
	check("functions in a page before one that is not there", functions_return(VA, VA + 0x1000, 0));
	at = TRAPPING("rep movsb", "S"(COPY), "D"(VA + 0xa00), "c"(0x700));
	check_trap("moving over its end faults", 14, 2, at);
	check_equal("RCX counts what is left", trap.rcx, 0x100);
	check("what fitted was moved", functions_return(VA + 0xa00, VA + 0x1000, 0x500000) &&
	      functions_return(VA, VA + 0xa00, 0));
	*pte_of(VA, 1) = PA | PTE_P;
	invlpg(VA);
	write_cr0(read_cr0() | 1u << 16);	/* WP: also for the supervisor */
	at = TRAPPING("rep stosq", "a"(0), "D"(VA + 0x10), "c"(0x40));
	check_trap("storing where it is read-only faults", 14, 3, at);
	check_equal("at the first element", trap.cr2, VA + 0x10);
	check_equal("with all left", trap.rcx, 0x40);
	check("and changes nothing", functions_return(VA, VA + 0xa00, 0));
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
	test_functions_moved_over_others();
	test_nops_stored_over_functions();
	test_overlapping_moves();
	test_overlap_in_two_mappings();
	test_page_end_and_fault();
	return check_status();
}
