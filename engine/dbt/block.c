/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/dbt/block.h"

#include "engine/dbt/cpu.h"
#include "engine/dbt/run.h"

#define MOVES_MAX 8
#define BLOCK_HASH_TOGETHER 128u	/* entries for the blocks of a page */

uint64_t code_page_index(const struct code_cache *cc, gpa_t gpa)
{
	for (unsigned i = 0; i < cc->mem->nbanks; i++) {
		const struct mem_bank *b = &cc->mem->bank[i];

		if (gpa >= b->base && gpa - b->base < b->size)
			return (gpa - b->base + b->offset) / PAGE_SIZE;
	}
	return ~0ull;
}

uint8_t code_page_flags(const struct code_cache *cc, gpa_t gpa)
{
	uint64_t i = code_page_index(cc, gpa);

	return i == ~0ull ? 0 : atomic_load_explicit(&cc->page_flags[i], memory_order_relaxed);
}

uint8_t code_page_note_access(struct code_cache *cc, gpa_t gpa, bool writable)
{
	uint64_t i = code_page_index(cc, gpa);
	uint8_t flags;

	if (i == ~0ull)
		return 0;
	flags = atomic_load(&cc->page_flags[i]);
	if (!writable || flags & (PAGE_HAS_CODE | PAGE_CLEAN | PAGE_WRITE_CACHED))
		return flags;
	/* Set before looking again: a translation starting now sees the mark or we see its flag. */
	return atomic_fetch_or(&cc->page_flags[i], PAGE_WRITE_CACHED);
}

void code_break_at(struct code_cache *cc, uint64_t va)
{
	lock_take(&cc->lock);
	if (!code_breaks_at(cc, va)) {
		cc->break_at[(va & 4095) / 64] |= 1ull << (va & 63);
		for (uint32_t i = 0; i < cc->nblocks; i++)
			if (cc->blocks[i].valid && cc->blocks[i].mode & BLOCK_BREAK)
				block_remove(cc, &cc->blocks[i]);
	}
	lock_drop(&cc->lock);
}

/* Blocks of a page lie together: a machine that runs from few pages touches little of the table. */
static uint32_t hash_block(gpa_t pa, uint32_t mode)
{
	uint32_t page = (uint32_t)(page_hash(pa >> 12) >> (64 - BLOCK_HASH_BITS));
	uint32_t in_page = (uint32_t)(pa >> 3 ^ pa >> 10 ^ mode * 37);

	return (page & ~(BLOCK_HASH_TOGETHER - 1)) | (in_page & (BLOCK_HASH_TOGETHER - 1));
}

static uint32_t hash_page(gpa_t page)
{
	return (uint32_t)(page_hash(page >> 12) >> (64 - PAGE_HASH_BITS));
}

struct block **block_chain(struct code_cache *cc, gpa_t pa, uint32_t mode)
{
	return &cc->hash[hash_block(pa, mode)];
}

void block_list(struct code_cache *cc, struct block *b)
{
	struct block **chain = block_chain(cc, b->pa, b->mode);

	b->hash_next = *chain;
	*chain = b;
}

struct block *block_find(struct code_cache *cc, gpa_t pa, uint32_t mode, uint64_t va)
{
	for (struct block *b = *block_chain(cc, pa, mode); b; b = b->hash_next)
		if (b->pa == pa && b->mode == mode && (!b->absolute || b->va == va) && !b->dormant)
			return b;
	return NULL;
}

struct code_page *code_page_find(struct code_cache *cc, gpa_t page)
{
	struct code_page *p = cc->pages[hash_page(page)];

	while (p && p->page != page)
		p = p->next;
	return p;
}

struct code_page *code_page_get(struct code_cache *cc, gpa_t page)
{
	struct code_page **head = &cc->pages[hash_page(page)], *p = code_page_find(cc, page);

	if (p)
		return p;
	p = code_arena(cc, sizeof(*p));
	if (!p)
		return NULL;
	*p = (struct code_page){ .page = page, .next = *head };
	*head = p;
	return p;
}

static bool page_add(struct code_cache *cc, struct block *b, gpa_t page, gpa_t first, gpa_t last, bool second)
{
	struct code_page *p = code_page_get(cc, page);
	uint64_t i = code_page_index(cc, page);

	if (!p)
		return false;
	p->lines |= line_mask(first, last) | (second ? 0 : b->ahead);
	if (second)
		b->page2_next = p->blocks;
	else
		b->page_next = p->blocks;
	p->blocks = b;
	if (i != ~0ull)
		atomic_fetch_or(&cc->page_flags[i], PAGE_HAS_CODE);
	return true;
}

struct block **block_next_in(struct block *b, gpa_t page)
{
	return (b->pa & PAGE_MASK) == page ? &b->page_next : &b->page2_next;
}

void block_insert(struct code_cache *cc, struct block *b)
{
	gpa_t page = b->pa & PAGE_MASK;
	gpa_t last = b->pa + (b->len ? b->len - 1u : 0);

	block_list(cc, b);
	b->valid = true;
	if (b->pa2 == ~0ull) {
		(void)page_add(cc, b, page, b->pa, last, false);
	} else {
		(void)page_add(cc, b, page, b->pa, page + PAGE_SIZE - 1, false);
		(void)page_add(cc, b, b->pa2 & PAGE_MASK, 0, last & 4095, true);
	}
}

void *code_arena(struct code_cache *cc, size_t bytes)
{
	void *p = cc->arena + cc->arena_used;

	bytes = (bytes + 7) & ~(size_t)7;
	if (cc->arena_used + bytes > cc->arena_size)
		return NULL;
	cc->arena_used += bytes;
	return p;
}

#define JMP 0xe9u
#define NO_JMP 0x0000441f0full	/* NOP of as many bytes */

static void store_insn5(uint8_t *at, uint64_t insn)
{
	unsigned shift = 8 * ((uintptr_t)at % 8);
	uint64_t *word = (uint64_t *)(void *)(at - (uintptr_t)at % 8);

	__atomic_store_n(word, (*word & ~(0xffffffffffull << shift)) | insn << shift, __ATOMIC_RELEASE);
}

/*
 * Has the jump with its rel32 at @at lead to @to.  Other vCPUs may be executing it: one store in an aligned quadword, which x86
 * fetches whole.  Where it would lead right behind itself there is none.  False: the code is shared, and there is no memory to
 * have a copy of it.
 */
static bool store_jump(struct code_cache *cc, uint8_t *at, const uint8_t *to)
{
	int32_t rel = (int32_t)(to - (at + 4));

	if (!code_own(cc, at, sizeof(rel)))
		return false;
	if (at[-1] == JMP || at[-1] == (uint8_t)NO_JMP)	/* not Jcc or CALL, whose rel32 alone need not cross quadwords */
		store_insn5(at - 1, rel ? JMP | (uint64_t)(uint32_t)rel << 8 : NO_JMP);
	else
		__atomic_store_n((int32_t *)(void *)at, rel, __ATOMIC_RELEASE);
	return true;
}

static uint8_t *writable(const struct code_cache *cc, const uint8_t *code)
{
	return cc->rw + (code - cc->rx);
}

void exit_link_at(struct code_cache *cc, struct exit *x, struct block *to, const uint8_t *at)
{
	if (x->to || !store_jump(cc, x->patch, at))
		return;
	x->to = to;
	x->next_to = to->incoming;
	to->incoming = x;
	if (to->absolute && !to->linked) {
		to->linked = true;
		to->linked_next = cc->linked;
		cc->linked = to;
	}
}

const uint8_t *block_at(const struct block *b, enum arrival arrival)
{
	switch (arrival) {
	case ARRIVE_INDIRECT:
		return b->entry;
	case ARRIVE_FROM_PAGE:
		return b->checked;
	case ARRIVE_BY_CALL:
		return b->called ? b->checked - CALLED_BYTES : NULL;
	case ARRIVE_WITHIN:
		break;
	}
	return b->code;
}

void exit_link(struct code_cache *cc, struct exit *x, struct block *to)
{
	exit_link_at(cc, x, to, writable(cc, block_at(to, exit_arrival(x))));
}

void exit_divert(struct code_cache *cc, struct exit *x, uint8_t *code)
{
	if (!x->to)
		(void)store_jump(cc, x->patch, code);
}

/* @x is in no list of incoming ones any more. */
static void lead_to_stub(struct code_cache *cc, struct exit *x)
{
	if (!store_jump(cc, x->patch, x->stub))
		__builtin_trap();	/* the guest would run what is no longer there */
	x->to = NULL;
}

void exit_unlink(struct code_cache *cc, struct exit *x)
{
	struct exit **pp;

	if (!x->to)
		return;
	for (pp = &x->to->incoming; *pp && *pp != x; pp = &(*pp)->next_to)
		;
	if (*pp)
		*pp = x->next_to;
	lead_to_stub(cc, x);
}

void block_unlink_incoming(struct code_cache *cc, struct block *b)
{
	struct exit *x = b->incoming, *next;

	for (; x; x = next) {
		next = x->next_to;
		lead_to_stub(cc, x);
	}
	b->incoming = NULL;
}

static void remove_outgoing(struct code_cache *cc, struct block *b)
{
	for (uint32_t i = 0; i < b->nexits; i++)
		exit_unlink(cc, &cc->exits[b->first_exit + i]);
}

static void unhash(struct code_cache *cc, struct block *b)
{
	struct block **pp;

	for (pp = block_chain(cc, b->pa, b->mode); *pp; pp = &(*pp)->hash_next)
		if (*pp == b) {
			*pp = b->hash_next;
			return;
		}
}

void block_detach(struct code_cache *cc, struct block *b)
{
	b->valid = false;
	unhash(cc, b);
	if (cc->on_drop)
		cc->on_drop(cc->ctx, b);
}

static void remove_from_page(struct code_cache *cc, struct block *b, gpa_t page)
{
	struct code_page *p = code_page_find(cc, page);
	struct block **pp;

	if (!p)
		return;
	for (pp = &p->blocks; *pp; pp = block_next_in(*pp, page))
		if (*pp == b) {
			*pp = *block_next_in(b, page);
			return;
		}
}

void block_remove(struct code_cache *cc, struct block *b)
{
	block_detach(cc, b);
	block_unlink_incoming(cc, b);
	remove_outgoing(cc, b);
	remove_from_page(cc, b, b->pa & PAGE_MASK);
	if (b->pa2 != ~0ull)
		remove_from_page(cc, b, b->pa2 & PAGE_MASK);
}

static bool overlaps(const struct block *b, gpa_t gpa, gpa_t last)
{
	gpa_t page_end = (b->pa | (PAGE_SIZE - 1));
	gpa_t b_last = b->pa + b->len - 1;

	if (b->pa2 == ~0ull && b->ahead & line_mask(gpa, last))
		return true;
	if (b->pa2 == ~0ull)
		return b->pa <= last && gpa <= b_last;
	return (b->pa <= last && gpa <= page_end) ||
	       ((b->pa2 & PAGE_MASK) <= last && gpa <= (b->pa2 & PAGE_MASK) + (b_last & 4095));
}

bool exit_flags_agree(struct code_cache *cc, const struct exit *x, const struct block *to)
{
	struct code_page *p;

	if (!(x->dead & to->live_in))
		return true;
	p = code_page_find(cc, x->from->pa & PAGE_MASK);
	if (p)
		p->timid = true;
	if (x->from->valid)
		block_remove(cc, x->from);
	return false;
}

void block_strayed(struct code_cache *cc, struct block *b, const struct block *now)
{
	struct exit **pp = &b->incoming;

	b->contested |= (now->live_in & ~b->live_in) != 0;
	while (*pp) {
		struct exit *x = *pp;

		if (!x->leaves_page) {
			pp = &x->next_to;
			continue;
		}
		*pp = x->next_to;
		lead_to_stub(cc, x);
		if (!exit_flags_agree(cc, x, now))
			pp = &b->incoming;	/* with its block others may have gone */
	}
}

/* Blocks of other pages that jump to @b and took flags to be dead there: its code is about to change. */
static void drop_misled(struct code_cache *cc, const struct block *b)
{
	const struct exit *x = b->incoming;

	while (x)
		if (x->dead && x->from->valid && (x->from->pa & PAGE_MASK) != (b->pa & PAGE_MASK)) {
			block_remove(cc, x->from);
			x = b->incoming;
		} else {
			x = x->next_to;
		}
}

void code_page_misplace(struct code_cache *cc, const struct code_page *p)
{
	if (cc->on_misplace)
		cc->on_misplace(cc->ctx, p->number);
}

void code_page_base(struct code_cache *cc, struct code_page *p, int64_t off)
{
	p->off = off;
	p->number = cc->nnumbers++;
	p->has_off = true;
}

bool code_page_move(struct code_cache *cc, gpa_t page, int64_t off)
{
	struct code_page *p = code_page_find(cc, page);

	if (!p || p->moves == MOVES_MAX)
		return false;
	p->moves++;
	code_page_misplace(cc, p);
	code_page_base(cc, p, off);
	while (p->blocks)
		block_remove(cc, p->blocks);
	return true;
}

unsigned code_invalidate(struct code_cache *cc, gpa_t gpa, uint64_t len)
{
	gpa_t last = gpa + len - 1;
	unsigned dropped = 0;

	for (gpa_t page = gpa & PAGE_MASK; page <= last; page += PAGE_SIZE) {
		struct code_page *p = code_page_find(cc, page);
		gpa_t from = gpa > page ? gpa : page;
		gpa_t to = last < page + PAGE_SIZE - 1 ? last : page + PAGE_SIZE - 1;
		struct block *b, *next;

		if (p && !(p->lines & line_mask(from, to)))
			continue;
		for (b = p ? p->blocks : NULL; b; b = next) {
			next = *block_next_in(b, page);
			if (overlaps(b, from, to)) {
				drop_misled(cc, b);
				block_remove(cc, b);
				dropped++;
			}
		}
		if (!p || !p->blocks) {
			uint64_t i = code_page_index(cc, page);

			if (p)
				p->lines = 0;
			if (i != ~0ull)
				atomic_fetch_and(&cc->page_flags[i], (uint8_t)~PAGE_HAS_CODE);
		}
	}
	return dropped;
}

bool code_cache_full(const struct code_cache *cc)
{
	return COLD_START - cc->used < 256 << 10 || cc->size - cc->cold < 256 << 10 ||
	       cc->arena_size - cc->arena_used < 1 << 20 || cc->nblocks + 8 > BLOCKS_MAX ||
	       cc->nexits + 4096 > EXITS_MAX;
}

void code_forget_blocks(struct code_cache *cc)
{
	zero_bytes(cc->pages, sizeof(cc->pages));
	zero_bytes(cc->hash, sizeof(cc->hash));
	cc->linked = NULL;
	kernel_code_forget(cc);
	for (uint64_t i = 0; i < cc->npages; i++)
		if (cc->page_flags[i] & PAGE_HAS_CODE)
			atomic_fetch_and(&cc->page_flags[i], (uint8_t)~PAGE_HAS_CODE);
}

void code_cache_reset(struct code_cache *cc)
{
	code_forget_blocks(cc);
	zero_bytes(cc->sleepers, sizeof(cc->sleepers));
	cc->nsleepers = 0;
	code_own_all(cc);
	cc->used = cc->base_used;
	cc->end = NULL;
	cc->cold = COLD_START;
	cc->nblocks = 0;
	cc->nexits = 0;
	cc->nnumbers = 0;
	cc->arena_used = 0;
	cc->generation++;
}

struct block *block_of_pc(struct code_cache *cc, uint64_t pc)
{
	uint32_t lo = 0, hi = cc->nblocks;

	if (pc < (uint64_t)(uintptr_t)cc->rx || pc >= (uint64_t)(uintptr_t)cc->rx + cc->used)
		return NULL;
	while (lo < hi) {	/* last block that starts at or before pc */
		uint32_t mid = (lo + hi) / 2;

		if ((uint64_t)(uintptr_t)cc->blocks[mid].code <= pc)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (lo == 0)
		return NULL;
	return pc < (uint64_t)(uintptr_t)cc->blocks[lo - 1].code + cc->blocks[lo - 1].code_len ?
		&cc->blocks[lo - 1] : NULL;
}

unsigned block_guest_off(const struct block *b, uint64_t pc)
{
	uint64_t off = pc - (uint64_t)(uintptr_t)b->code;
	unsigned guest = 0;

	for (unsigned i = 0; i < b->ninsns && b->marks[i].host_off <= off; i++)
		guest = b->marks[i].guest_off;
	return guest;
}
