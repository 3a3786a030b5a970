/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What KVM gives only with nested paging, 1-GiB pages, and what only processors do
 * and emulators do not: a store that faults in its second page leaves the first alone.
 */
#include "guest.h"

#define VA 0x5000000000ull
#define PA 0x1800000ull

static void test_huge(void)
{
	uint32_t r[4];

	cpuid(0x80000001, 0, r);
	check("CPUID offers 1-GiB pages", r[3] >> 26 & 1);
	map(VA, 0, 3, PTE_P | PTE_W);
	write64(PA + 8, 0x1111);
	check_equal("a read through one", read64(VA + PA + 8), 0x1111);
	write64(VA + PA + 16, 7);
	check_equal("a write through one", read64(PA + 16), 7);
	check_equal("accessed and dirty are set", *pte_of(VA, 3) & (PTE_A | PTE_D), PTE_A | PTE_D);
}

static void test_crossing(void)
{
	uint64_t va = VA + (4ull << 30), at;

	map(va, PA, 1, PTE_P | PTE_W);
	*pte_of(va + 0x1000, 1) = 0;
	invlpg(va + 0x1000);
	write32(PA + 0xffc, 0x5a5a5a5a);
	at = TRAPPING("movq %2, (%1)", "r"(va + 0xffc), "r"(-1ull));
	check_trap("a store into an absent second page faults", 14, 2, at);
	check_equal("and leaves the first page alone", read32(PA + 0xffc), 0x5a5a5a5a);
}

int guest_main(void)
{
	test_huge();
	test_crossing();
	return check_status();
}
