/* SPDX-License-Identifier: Apache-2.0 */
/* Page sizes, accessed and dirty bits, write protection, NX, invalidation, crossings. */
#include "guest.h"

#define VA 0x5000000000ull	/* free addresses for tests */
#define PA 0x1800000ull	/* 24 MiB: free memory, 1:1 mapped too */
#define LARGE 0x200000ull
#define GIANT 0x40000000ull
#define HIGH 0xffff900000000000ull	/* addresses as kernels have them */
#define CR0_WP (1ull << 16)
#define EFER 0xc0000080u

static uint64_t leaf_bits(uint64_t va, unsigned level)
{
	return *pte_of(va, level) & (PTE_A | PTE_D);
}

static void test_sizes(void)
{
	write64(PA + 8, 0x1111);
	map(VA, PA, 1, PTE_P | PTE_W);
	check_equal("4-KiB page", read64(VA + 8), 0x1111);
	map(VA + (1ull << 30), PA, 2, PTE_P | PTE_W);
	check_equal("2-MiB page", read64(VA + (1ull << 30) + 8), 0x1111);
	write64(VA + 16, 7);
	check_equal("one memory behind both", read64(VA + (1ull << 30) + 16), 7);
}

static void test_accessed_dirty(void)
{
	uint64_t va = VA + 0x100000;

	map(va, PA, 1, PTE_P | PTE_W);
	check_equal("a new page is neither accessed nor dirty", leaf_bits(va, 1), 0);
	(void)read64(va);
	check_equal("a read sets accessed", leaf_bits(va, 1), PTE_A);
	write64(va, 1);
	check_equal("a write sets dirty", leaf_bits(va, 1), PTE_A | PTE_D);
	*pte_of(va, 1) &= ~(uint64_t)(PTE_A | PTE_D);
	invlpg(va);
	(void)read64(va);
	check_equal("clearing and INVLPG start over", leaf_bits(va, 1), PTE_A);
	map(va, PA, 1, PTE_P | PTE_W);
	asm volatile("lock; addq $1, (%0)" : : "r"(va) : "memory");
	check_equal("read-modify-write sets both", leaf_bits(va, 1), PTE_A | PTE_D);
}

static void test_remap(void)
{
	uint64_t va = VA + 0x200000;

	write64(PA, 0xaaaa);
	write64(PA + 0x1000, 0xbbbb);
	map(va, PA, 1, PTE_P | PTE_W);
	check_equal("first mapping", read64(va), 0xaaaa);
	*pte_of(va, 1) = (PA + 0x1000) | PTE_P | PTE_W;
	invlpg(va);
	check_equal("INVLPG shows the second", read64(va), 0xbbbb);
	*pte_of(va, 1) = PA | PTE_P | PTE_W;
	write_cr3(read_cr3());
	check_equal("loading CR3 shows the first again", read64(va), 0xaaaa);
	*pte_of(va, 1) = 0;
	invlpg(va);
	(void)TRAPPING("movq (%1), %%rax", "r"(va));
	check_equal("an unmapped page faults", trap.vector, 14);
}

static void put_function(uint64_t at, uint32_t result)
{
	*(volatile uint8_t *)at = 0xb8;	/* mov eax, imm32; ret */
	*(volatile uint32_t *)(at + 1) = result;
	*(volatile uint8_t *)(at + 5) = 0xc3;
}

static void test_large_remap(uint64_t va)
{
	unsigned stale = 0;

	for (uint64_t at = 0; at < LARGE; at += 0x1000) {
		write64(PA + at, 1);
		write64(PA + LARGE + at, 2);
	}
	map(va, PA, 2, PTE_P | PTE_W);
	for (uint64_t at = 0; at < LARGE; at += 0x1000)
		stale += read64(va + at) != 1;
	check_equal("all of a 2-MiB page", stale, 0);
	check_equal("one place in it", read64(va + 0x5000), 1);
	*pte_of(va, 2) = (PA + LARGE) | PTE_P | PTE_W | PTE_PS;
	invlpg(va + 0x123456);
	check_equal("that place after INVLPG of another", read64(va + 0x5000), 2);
	for (uint64_t at = 0; at < LARGE; at += 0x1000) {
		stale += read64(va + at) != 2;
		write64(va + at, 3);
	}
	check_equal("and all the others", stale, 0);
	*pte_of(va, 2) = PA | PTE_P | PTE_PS;
	invlpg(va);
	(void)TRAPPING("movq $4, (%1)", "r"(va + 0x7000));
	check_equal("and that it is read-only now", trap.vector, 14);
	check_equal("nothing was written to it", read64(PA + 0x7000), 1);
	put_function(PA + 0x3000, 5);
	put_function(PA + LARGE + 0x3000, 6);
	check_equal("code in a 2-MiB page", ((uint32_t (*)(void))(va + 0x3000))(), 5);
	*pte_of(va, 2) = (PA + LARGE) | PTE_P | PTE_W | PTE_PS;
	invlpg(va + 0x1000);
	check_equal("INVLPG of another address shows other code", ((uint32_t (*)(void))(va + 0x3000))(), 6);
}

static void test_giant_remap(void)
{
	uint64_t va = VA + 3 * GIANT;
	uint32_t leaf[4];
	bool has;

	cpuid(0x80000001, 0, leaf);
	has = leaf[3] >> 26 & 1;
	write64(PA, 1);
	if (has)
		map(va, 0, 3, PTE_P | PTE_W);
	check("1-GiB page, if the processor has them", !has || read64(va + PA) == 1);
	*pte_of(va, 3) = 0;
	invlpg(va + 0x23456789);
	(void)TRAPPING("movq (%1), %%rax", "r"(va + PA));
	check_equal("INVLPG of an address is of all of it", trap.vector, 14);
}

static void test_protection(void)
{
	uint64_t va = VA + 0x300000, at;

	map(va, PA, 1, PTE_P);
	write_cr0(read_cr0() & ~CR0_WP);
	at = TRAPPING("movq $1, (%1)", "r"(va));
	check("without WP the kernel writes read-only pages", trap.count == 0);
	write_cr0(read_cr0() | CR0_WP);
	at = TRAPPING("movq $1, (%1)", "r"(va));
	check_trap("with WP it faults, present and write", 14, 3, at);
	check_equal("CR2 of the protection fault", trap.cr2, va);

	wrmsr(EFER, rdmsr(EFER) | 1 << 11);
	*(volatile uint8_t *)PA = 0xc3;	/* RET */
	map(va, PA, 1, PTE_P | PTE_W);
	((void (*)(void))va)();
	check("code runs where NX is clear", true);
	map(va, PA, 1, PTE_P | PTE_W | PTE_NX);
	trap.count = 0;
	asm volatile("lea 2f(%%rip), %%rax\n\tmov %%rax, trap_resume\n\tmov %%rsp, %%rbx\n\t"
		     "call *%0\n2:\tmov %%rbx, %%rsp"
		     : : "r"(va) : "rax", "rbx", "memory");
	check_trap("NX faults: present and fetch", 14, 0x11, va);
	at = TRAPPING("movq (%1), %%rax", "r"(va));
	check("NX pages can be read", trap.count == 0);
	*pte_of(va, 1) |= 1ull << 51;
	invlpg(va);
	at = TRAPPING("movq (%1), %%rax", "r"(va));
	check("a reserved bit faults or is an address", trap.count <= 1);
	(void)at;
}

static void test_crossing(void)
{
	uint64_t va = VA + 0x400000, at;

	map(va, PA, 1, PTE_P | PTE_W);
	map(va + 0x1000, PA + 0x5000, 1, PTE_P | PTE_W);
	write64(va + 0xffc, 0x1122334455667788);
	check_equal("a write across pages is split", read32(PA + 0xffc), 0x55667788);
	check_equal("its second half is in the other page", read32(PA + 0x5000), 0x11223344);
	check_equal("a read across pages joins", read64(va + 0xffc), 0x1122334455667788);
	*pte_of(va + 0x1000, 1) = 0;
	invlpg(va + 0x1000);
	at = TRAPPING("movq %2, (%1)", "r"(va + 0xffc), "r"(-1ull));
	check_trap("a write into an absent second page faults", 14, 2, at);
	check_equal("CR2 is in the second page", trap.cr2, va + 0x1000);
}

static void test_crossing_code(void)
{
	uint64_t va = VA + 0x500000;
	uint64_t (*f)(void) = (uint64_t (*)(void))(va + 0xffc);
	static const uint8_t code[] = { 0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8, 0xc3 };

	map(va, PA, 1, PTE_P | PTE_W);
	map(va + 0x1000, PA + 0x7000, 1, PTE_P | PTE_W);
	for (unsigned i = 0; i < sizeof(code); i++)
		*(volatile uint8_t *)(va + 0xffc + i) = code[i];
	check_equal("an instruction across pages", f(), 0x0807060504030201);
	*(volatile uint8_t *)(va + 0x1000) = 0x33;	/* a byte of its immediate */
	check_equal("changed in its second page", f(), 0x0807060504330201 - 0x310000 + 0x310000);
}

int guest_main(void)
{
	test_sizes();
	test_accessed_dirty();
	test_remap();
	test_large_remap(VA + 2 * GIANT);
	test_large_remap(HIGH);
	test_giant_remap();
	test_protection();
	test_crossing();
	test_crossing_code();
	return check_status();
}
