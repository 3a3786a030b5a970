/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What one boot translated, for the next.
 *
 * A guest that boots changes its own code as it goes, and what is at an address now is not what was there
 * in another boot at this moment.  So each translation is kept with the page that it was made of, as that was
 * then: it sleeps, linked to no other, until the guest runs what is at that address and the bytes are the same.
 *
 * Kernel code only, and only what lies in one page: the rest is elsewhere in every boot.
 */
#include "engine/dbt/block.h"

#include "engine/dbt/run.h"

static bool same(const uint8_t *a, const uint8_t *b, unsigned n)
{
	while (n--)
		if (*a++ != *b++)
			return false;
	return true;
}

static bool same_page(const uint8_t *a, const uint8_t *b)
{
	const uint64_t *x = (const uint64_t *)(const void *)a, *y = (const uint64_t *)(const void *)b;

	for (unsigned i = 0; i < PAGE_SIZE / sizeof(*x); i++)
		if (x[i] != y[i])
			return false;
	return true;
}

void dormant_note(struct code_cache *cc, struct block_source *src)
{
	const unsigned off = (unsigned)(src->pa & ~PAGE_MASK);
	const uint8_t *page = src->bytes - off;
	struct code_page *p;
	uint8_t *copy;

	if (!cc->recording || src->mode & (BLOCK_USER | BLOCK_SINGLE | BLOCK_SLOW | BLOCK_BREAK))
		return;
	p = code_page_get(cc, src->pa & PAGE_MASK);
	if (!p)
		return;
	if (!p->seen || !same_page(p->seen, page)) {
		copy = code_arena(cc, PAGE_SIZE);
		if (!copy)
			return;
		copy_bytes(copy, page, PAGE_SIZE);
		p->seen = copy;
	}
	/* Of the copy, so that the two agree whatever others write meanwhile. */
	src->seen = p->seen;
	src->bytes = p->seen + off;
}

/* Whether what @b was made of is what is in @page: itself, and what told which flags are dead behind it. */
static bool is_as_seen(const struct block *b, const uint8_t *page)
{
	const unsigned off = (unsigned)(b->pa & ~PAGE_MASK);

	if (!same(b->seen + off, page + off, b->len))
		return false;
	for (uint64_t lines = b->ahead; lines; lines &= lines - 1) {
		unsigned at = (unsigned)__builtin_ctzll(lines) * 64;

		if (!same(b->seen + at, page + at, 64))
			return false;
	}
	return true;
}

struct block *dormant_wake(struct code_cache *cc, gpa_t pa, uint32_t mode, uint64_t va, const uint8_t *page)
{
	for (struct block **pp = block_chain(cc, pa, mode); *pp; pp = &(*pp)->hash_next) {
		struct block *b = *pp;

		if (!b->dormant || b->pa != pa || b->mode != mode || b->va != va || !is_as_seen(b, page))
			continue;
		*pp = b->hash_next;
		b->dormant = false;
		block_insert(cc, b);
		return b;
	}
	return NULL;
}

void dormant_all(struct code_cache *cc)
{
	for (uint32_t i = 0; i < cc->nblocks; i++)
		if (cc->blocks[i].valid)
			block_remove(cc, &cc->blocks[i]);
	zero_bytes(cc->pages, sizeof(cc->pages));
	zero_bytes(cc->hash, sizeof(cc->hash));
	cc->linked = NULL;
	for (uint64_t i = 0; i < cc->npages; i++)
		if (cc->page_flags[i] & PAGE_HAS_CODE)
			atomic_fetch_and(&cc->page_flags[i], (uint8_t)~PAGE_HAS_CODE);
	for (uint32_t i = 0; i < cc->nexits; i++)
		cc->exits[i].relinks = 0;
	for (uint32_t i = 0; i < cc->nblocks; i++) {
		struct block *b = &cc->blocks[i], **chain;

		if (!b->seen)
			continue;
		b->linked = false;
		chain = block_chain(cc, b->pa, b->mode);
		b->dormant = true;
		b->cached = b->cached_elsewhere = false;
		b->hash_next = *chain;
		*chain = b;
	}
}
