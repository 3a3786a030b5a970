/* SPDX-License-Identifier: Apache-2.0 */
/* String instructions: counts, direction, widths, page crossings and faults half-way. */
#include "guest.h"

#define VA 0x6000000000ull
#define PA 0x1a00000ull
#define BUF PA

static void fill(uint64_t at, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		((volatile uint8_t *)at)[i] = (uint8_t)(i * 7 + 1);
}

static bool same(uint64_t a, uint64_t b, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (((volatile uint8_t *)a)[i] != ((volatile uint8_t *)b)[i])
			return false;
	return true;
}

static void test_moves(void)
{
	uint64_t s = BUF, d = BUF + 0x1000, n = 100;

	fill(BUF, 256);
	asm volatile("rep movsb" : "+S"(s), "+D"(d), "+c"(n) : : "memory");
	check("rep movsb", same(BUF, BUF + 0x1000, 100) && n == 0 && s == BUF + 100);
	s = BUF, d = BUF + 0x2000, n = 20;
	asm volatile("rep movsq" : "+S"(s), "+D"(d), "+c"(n) : : "memory");
	check("rep movsq", same(BUF, BUF + 0x2000, 160) && d == BUF + 0x2000 + 160);
	s = BUF + 99, d = BUF + 0x3000 + 99, n = 100;
	asm volatile("std\n\trep movsb\n\tcld" : "+S"(s), "+D"(d), "+c"(n) : : "memory");
	check("rep movsb downwards", same(BUF, BUF + 0x3000, 100) && s == BUF - 1);
	fill(BUF, 16);
	s = BUF, d = BUF + 1, n = 15;
	asm volatile("rep movsb" : "+S"(s), "+D"(d), "+c"(n) : : "memory");
	check("overlapping movsb repeats the first byte",
	      *(volatile uint8_t *)(BUF + 15) == 1 && *(volatile uint8_t *)(BUF + 7) == 1);
	s = BUF, d = BUF + 0x1000, n = 0;
	asm volatile("rep movsb" : "+S"(s), "+D"(d), "+c"(n) : : "memory");
	check("a count of 0 moves nothing", s == BUF && d == BUF + 0x1000);
}

static void test_stores(void)
{
	uint64_t d = BUF + 1, n = 30;

	fill(BUF, 256);
	asm volatile("rep stosl" : "+D"(d), "+c"(n) : "a"(0xdeadbeef) : "memory");
	check("rep stosl, unaligned", read32(BUF + 1) == 0xdeadbeef &&
	      read32(BUF + 117) == 0xdeadbeef && d == BUF + 121);
	check_equal("and not a byte more", *(volatile uint8_t *)(BUF + 121), (uint8_t)(121 * 7 + 1));
}

static void test_scans(void)
{
	uint64_t d = BUF, s, n = 256;
	uint8_t zero, carry;

	fill(BUF, 256);
	asm volatile("repne scasb\n\tsetz %2" : "+D"(d), "+c"(n), "=q"(zero)
		     : "a"((uint8_t)(50 * 7 + 1)) : "cc", "memory");
	check("repne scasb finds", zero && d == BUF + 51 && n == 256 - 51);
	fill(BUF + 0x1000, 256);
	*(volatile uint8_t *)(BUF + 0x1000 + 77) = 0xff;
	s = BUF, d = BUF + 0x1000, n = 256;
	asm volatile("repe cmpsb\n\tsetz %3\n\tsetc %4"
		     : "+S"(s), "+D"(d), "+c"(n), "=q"(zero), "=q"(carry) : : "cc", "memory");
	check("repe cmpsb stops at the difference", !zero && carry && s == BUF + 78);
	s = BUF, n = 0;
	asm volatile("lodsl" : "+S"(s), "=a"(n) : : "memory");
	check_equal("lodsl zero-extends", n, read32(BUF));
}

static void test_crossing(void)
{
	uint64_t s = BUF, d = VA + 0xf00, n = 0x400;

	map(VA, PA + 0x10000, 1, PTE_P | PTE_W);
	map(VA + 0x1000, PA + 0x20000, 1, PTE_P | PTE_W);
	fill(BUF, 0x400);
	asm volatile("rep movsb" : "+S"(s), "+D"(d), "+c"(n) : : "memory");
	check("rep movsb over two pages that are not neighbours",
	      same(BUF, PA + 0x10f00, 0x100) && same(BUF + 0x100, PA + 0x20000, 0x300));
	d = VA + 0xffd;
	n = 3;
	asm volatile("rep stosq" : "+D"(d), "+c"(n) : "a"(0x0102030405060708) : "memory");
	check("rep stosq with an element on the border",
	      read64(VA + 0xffd) == 0x0102030405060708 && read32(PA + 0x20000) == 0x02030405 &&
	      d == VA + 0xffd + 24);
}

static void test_fault_half_way(void)
{
	uint64_t at;

	*pte_of(VA + 0x1000, 1) = 0;
	invlpg(VA + 0x1000);
	fill(BUF, 256);
	at = TRAPPING("rep movsb", "S"(BUF), "D"(VA + 0xff0), "c"(100));
	check_trap("rep movsb faults at its own address", 14, 2, at);
	check_equal("RCX counts what is left", trap.rcx, 100 - 16);
	check_equal("RSI has moved as far", trap.rsi, BUF + 16);
	check_equal("RDI is at the fault", trap.rdi, VA + 0x1000);
	check_equal("CR2 too", trap.cr2, VA + 0x1000);
	check("the bytes before it were written", same(BUF, PA + 0x10ff0, 16));
	at = TRAPPING("rep stosq", "a"(0), "D"(VA + 0xff0), "c"(100));
	check_trap("rep stosq faults at its own address", 14, 2, at);
	check_equal("after two elements", trap.rcx, 98);
}

static void test_mmio(void)
{
	uint64_t s = BUF, d = DEV_SCRATCH, n = 2;

	write64(BUF, 0x8877665544332211);
	asm volatile("rep movsl" : "+S"(s), "+D"(d), "+c"(n) : : "memory");
	check_equal("rep movsl to a device", read64(DEV_SCRATCH), 0x8877665544332211);
	s = DEV_SCRATCH, d = BUF + 0x100, n = 8;
	asm volatile("rep movsb" : "+S"(s), "+D"(d), "+c"(n) : : "memory");
	check_equal("rep movsb from a device", read64(BUF + 0x100), 0x8877665544332211);
}

int guest_main(void)
{
	test_moves();
	test_stores();
	test_scans();
	test_crossing();
	test_fault_half_way();
	test_mmio();
	return check_status();
}
