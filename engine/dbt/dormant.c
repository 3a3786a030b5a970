/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What one VM translated, for others whose memory is not the same.
 *
 * A guest that boots changes its own code as it goes, and what is at an address now is not what was there
 * in another boot at this moment.  So each translation of kernel code is kept with the page that it was made of, as
 * that was then: it sleeps, linked to no other, until the guest runs what is at that address and the bytes are the same.
 *
 * Pages of programs are somewhere else each time, but seldom change.  They sleep as a whole, with links to and from their
 * blocks, until a page with the same bytes is run, wherever.
 *
 * What lies in two pages is translated anew.
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

/* @b is no longer valid. */
static void fall_asleep(struct block *b)
{
	b->dormant = true;
	b->cached = b->cached_elsewhere = false;
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
	if (!p->seen && p->blocks)	/* from another boot, if that noted it */
		p->seen = p->blocks->seen;
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

/* --- pages of programs --- */

#define ARENA_FULL (192ull << 20)	/* bytes: no more pages are kept then */

static uint64_t content_of(const uint8_t *page)
{
	const uint64_t *w = (const uint64_t *)(const void *)page, prime = 0x9e3779b97f4a7c15ull;
	uint64_t h[4] = { 1, 2, 3, 4 };

	for (unsigned i = 0; i < PAGE_SIZE / sizeof(*w); i += 4)
		for (unsigned k = 0; k < 4; k++) {
			h[k] = (h[k] ^ w[i + k]) * prime;
			h[k] ^= h[k] >> 29;
		}
	return ((h[0] * prime ^ h[1]) * prime ^ h[2]) * prime ^ h[3];
}

static struct sleeper **sleepers(struct code_cache *cc, uint64_t content)
{
	return &cc->sleepers[content >> (64 - SLEEPER_HASH_BITS)];
}

static bool may_sleep(const struct block *b)
{
	return b->mode & BLOCK_USER && !(b->mode & (BLOCK_SINGLE | BLOCK_SLOW | BLOCK_BREAK)) && !b->absolute && b->pa2 == ~0ull;
}

static void keep_sleepers_only(struct code_cache *cc, struct code_page *p, bool none)
{
	struct block *b, *next;

	for (b = p->blocks; b; b = next) {
		next = *block_next_in(b, p->page);
		if (none || !may_sleep(b))
			block_remove(cc, b);
	}
}

static struct sleeper *make_sleeper(struct code_cache *cc, const uint8_t *host)
{
	struct sleeper *s = cc->arena_used < ARENA_FULL ? code_arena(cc, sizeof(*s)) : NULL;
	uint8_t *copy = s ? code_arena(cc, PAGE_SIZE) : NULL;

	if (!copy)
		return NULL;
	copy_bytes(copy, host, PAGE_SIZE);
	*s = (struct sleeper){ .content = content_of(copy), .seen = copy };
	return s;
}

static bool is_of_program(const struct code_page *p)
{
	return p && p->blocks && p->blocks->mode & BLOCK_USER;
}

void dormant_page(struct code_cache *cc, gpa_t page, const uint8_t *host)
{
	struct code_page *p = code_page_get(cc, page);
	uint64_t i = code_page_index(cc, page);
	struct sleeper *s, **list;

	if (!is_of_program(p)) {
		(void)code_invalidate(cc, page, PAGE_SIZE);
		return;
	}
	keep_sleepers_only(cc, p, false);
	if (p->blocks) {
		s = p->sleeper && same_page(p->sleeper->seen, host) ? p->sleeper : make_sleeper(cc, host);
		if (!s)
			keep_sleepers_only(cc, p, true);
	}
	if (p->blocks) {
		for (struct block *b = p->blocks; b; b = b->page_next) {
			block_detach(cc, b);
			fall_asleep(b);
		}
		s->blocks = p->blocks;
		s->off = p->off;
		s->number = p->number;
		s->timid = p->timid;
		code_page_misplace(cc, p);
		list = sleepers(cc, s->content);
		s->next = *list;
		*list = s;
		cc->nsleepers++;
	}
	p->blocks = NULL;
	p->sleeper = NULL;
	p->lines = 0;
	p->has_off = false;
	if (i != ~0ull)
		atomic_fetch_and(&cc->page_flags[i], (uint8_t)~PAGE_HAS_CODE);
}

static void wake_block(struct code_cache *cc, struct code_page *p, struct block *b)
{
	b->pa = p->page | (b->pa & ~PAGE_MASK);
	b->dormant = false;
	b->valid = true;
	block_list(cc, b);
	p->lines |= line_mask(b->pa, b->pa + (b->len ? b->len - 1u : 0)) | b->ahead;
}

bool dormant_wake_page(struct code_cache *cc, gpa_t page, const uint8_t *host)
{
	struct code_page *p = cc->nsleepers ? code_page_get(cc, page) : NULL;
	struct sleeper **at, *s;
	uint64_t content;

	if (!p || p->blocks)
		return false;
	content = content_of(host);
	for (at = sleepers(cc, content); (s = *at); at = &s->next)
		if (s->content == content && same_page(s->seen, host))
			break;
	if (!s)
		return false;
	*at = s->next;
	cc->nsleepers--;
	p->blocks = s->blocks;
	p->sleeper = s;
	p->off = s->off;
	p->number = s->number;
	p->has_off = true;
	p->timid = s->timid;
	for (struct block *b = p->blocks; b; b = b->page_next)
		wake_block(cc, p, b);
	return true;
}

/* --- all --- */

/* Pages of programs that have code now. */
static void dormant_pages(struct code_cache *cc)
{
	for (unsigned i = 0; i < cc->mem->nbanks; i++) {
		const struct mem_bank *b = &cc->mem->bank[i];

		for (uint64_t at = 0; at < b->size; at += PAGE_SIZE)
			if (cc->page_flags[(b->offset + at) / PAGE_SIZE] & PAGE_HAS_CODE && is_of_program(code_page_get(cc, b->base + at)))
				dormant_page(cc, b->base + at, b->host + at);
	}
}

void dormant_all(struct code_cache *cc)
{
	dormant_pages(cc);
	for (uint32_t i = 0; i < cc->nblocks; i++)
		if (cc->blocks[i].valid)
			block_remove(cc, &cc->blocks[i]);
	code_forget_blocks(cc);
	for (uint32_t i = 0; i < cc->nexits; i++)
		cc->exits[i].relinks = 0;
	for (uint32_t i = 0; i < cc->nblocks; i++) {
		struct block *b = &cc->blocks[i];

		if (!b->seen)
			continue;
		fall_asleep(b);
		b->linked = false;
		block_list(cc, b);
	}
}
