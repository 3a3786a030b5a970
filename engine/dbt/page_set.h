/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sets of pages that may say yes where it is no (Bloom filters), and the hash that they and tables of pages use.
 */
#ifndef ENGINE_DBT_PAGE_SET_H
#define ENGINE_DBT_PAGE_SET_H

#include <stdbool.h>
#include <stdint.h>

#define LARGE_SHIFT 21
#define GIANT_SHIFT 30

/* Of the number of a page.  The high bits are the good ones (Knuth, TAOCP vol. 3, 6.4: multiplicative hashing). */
static inline uint64_t page_hash(uint64_t page)
{
	return page * 0x9e3779b97f4a7c15ull;
}

/* Pages of 4 KiB, with three bits for each. */
#define PAGE_FILTER_BITS 17

struct page_filter {
	uint64_t word[(1u << PAGE_FILTER_BITS) / 64];
};

static inline unsigned page_filter_bit(uint64_t va, unsigned k)
{
	return (unsigned)(page_hash(va >> 12) >> (64 - (k + 1) * PAGE_FILTER_BITS)) & ((1u << PAGE_FILTER_BITS) - 1);
}

static inline void page_filter_add(struct page_filter *filter, uint64_t va)
{
	for (unsigned k = 0; k < 3; k++) {
		unsigned bit = page_filter_bit(va, k);

		filter->word[bit / 64] |= 1ull << bit % 64;
	}
}

static inline bool page_filter_has(const struct page_filter *filter, uint64_t va)
{
	for (unsigned k = 0; k < 3; k++) {
		unsigned bit = page_filter_bit(va, k);

		if (!(filter->word[bit / 64] >> bit % 64 & 1))
			return false;
	}
	return true;
}

/*
 * Pages of 2 MiB and 1 GiB, with one bit for each: those that TLB entries, or code that is known, all of 4 KiB, are parts of.
 * INVLPG of an address invalidates all of its page (SDM vol. 3, 4.10.4.1).
 */
#define LARGE_FILTER_BITS 9

struct large_pages {
	uint64_t of_2m[(1u << LARGE_FILTER_BITS) / 64], of_1g[(1u << LARGE_FILTER_BITS) / 64];
};

static inline unsigned large_pages_bit(uint64_t page)
{
	return (unsigned)(page_hash(page) >> (64 - LARGE_FILTER_BITS));
}

/* Adds the page of 2^@shift bytes at @va, unless it is of 4 KiB. */
static inline void large_pages_add(struct large_pages *large, uint64_t va, unsigned shift)
{
	unsigned bit = large_pages_bit(va >> shift);

	if (shift == LARGE_SHIFT)
		large->of_2m[bit / 64] |= 1ull << bit % 64;
	else if (shift == GIANT_SHIFT)
		large->of_1g[bit / 64] |= 1ull << bit % 64;
}

/* Size of the largest page at @va that was added, as a shift; else 12. */
static inline unsigned large_pages_shift(const struct large_pages *large, uint64_t va)
{
	unsigned giant = large_pages_bit(va >> GIANT_SHIFT), bit = large_pages_bit(va >> LARGE_SHIFT);

	if (large->of_1g[giant / 64] >> giant % 64 & 1)
		return GIANT_SHIFT;
	return large->of_2m[bit / 64] >> bit % 64 & 1 ? LARGE_SHIFT : 12;
}

#endif /* ENGINE_DBT_PAGE_SET_H */
