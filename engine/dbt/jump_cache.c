/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Jump caches: where indirect jumps find the code for a guest's address.
 *
 * User code has one per window (address space), kernel code one per vCPU, as TLBs are (mmu.c).  Each begins small, as to
 * empty it takes time and to use it takes memory, and grows with the places that its program jumps to.
 */
#include "engine/dbt/run.h"

#define GROWTH 8u

/* Any thread: one that jumps that way finds the block still whole, or nothing. */
static void clear_one(const struct cpu *cpu, struct jump_cache *jc, unsigned n)
{
	__atomic_store_n(&jc->entry[n].code, cpu->thunk_indirect, __ATOMIC_RELEASE);
}

static void clear(const struct cpu *cpu, struct jump_cache *jc)
{
	for (unsigned i = 0; i < jc->entries; i++)
		clear_one(cpu, jc, i);
	jc->filled = 0;
}

static void show_mask(struct cpu *cpu, enum jc_of of, const struct jump_cache *jc)
{
	if (atomic_load(&cpu->jc_mask[of]))
		atomic_store(&cpu->jc_mask[of], jc->mask);
	if (atomic_load(&cpu->exit_request))	/* a request that came between */
		jc_close(cpu);
}

/*
 * Of a cache whose first @entries are empty, or will be.  Other vCPUs may look for blocks in it that are gone, and find
 * nothing to remove: as what was there is being removed.
 */
static void set_entries(struct cpu *cpu, struct jump_cache *jc, uint32_t entries)
{
	jc->mask = (entries - 1ull) << 1;
	jc->entries = entries;
	jc->crowded = 0;
	if (jc == &cpu->kjc)
		show_mask(cpu, JC_KERNEL, jc);
	else if (jc == &cpu_window(cpu, cpu->context)->ujc)
		show_mask(cpu, JC_USER, jc);
}

void jc_use_window(struct cpu *cpu)
{
	show_mask(cpu, JC_USER, &cpu_window(cpu, cpu->context)->ujc);
}

void jc_begin(struct cpu *cpu)
{
	if (!cpu->kjc.entries)
		set_entries(cpu, &cpu->kjc, JC_ENTRIES_FIRST);
	clear(cpu, &cpu->kjc);
	for (unsigned i = 0; i < DBT_CONTEXTS; i++)
		if (window_has_begun(cpu, i))	/* the thunks may be others */
			cpu_window(cpu, i)->ujc.filled = FILLED_MAX + 1;
}

void jc_flush_window(struct cpu *cpu, unsigned context)
{
	struct window_private *w = cpu_window(cpu, context);
	struct jump_cache *jc = &w->ujc;
	uint32_t filled = jc->filled;

	if (!jc->entries) {
		set_entries(cpu, jc, JC_ENTRIES_FIRST);
		clear(cpu, jc);
	} else if (filled > FILLED_MAX) {
		clear(cpu, jc);
	} else {
		for (unsigned i = 0; i < filled; i++)
			clear_one(cpu, jc, w->jc_filled[i]);
		jc->filled = 0;
	}
	if (jc->entries > JC_ENTRIES_FIRST && filled < jc->entries / GROWTH)
		set_entries(cpu, jc, jc->entries / GROWTH);
}

void jc_forget_page(struct cpu *cpu, unsigned context, uint64_t va)
{
	struct jump_cache *jc = &cpu_window(cpu, context)->ujc;

	/* What begins in the page, or in the one before and reaches into it. */
	va &= PAGE_MASK;
	for (uint64_t at = va - (INSN_LEN_MAX - 1); at != va + PAGE_SIZE; at++) {
		unsigned n = jc_index(jc, at);

		if (at + jc->entry[n].ntag == 0)
			clear_one(cpu, jc, n);
	}
}

void jc_flush_user(struct cpu *cpu)
{
	clear(cpu, &cpu_window(cpu, cpu->context)->ujc);
}

void jc_flush_kernel(struct cpu *cpu)
{
	clear(cpu, &cpu->kjc);
}

static void forget_at(const struct cpu *cpu, struct jump_cache *jc, unsigned n, const struct block *b)
{
	if ((n ? jc->entry[n].code : jc->polled) == (uint64_t)(uintptr_t)b->entry)
		clear_one(cpu, jc, n);
}

/* Only the offset in the page is known: tries all addresses that the index tells apart. */
static void forget_anywhere(const struct cpu *cpu, struct jump_cache *jc, const struct block *b)
{
	for (uint64_t va = b->pa & ~PAGE_MASK; va < (uint64_t)jc->entries << JC_FOLD; va += PAGE_SIZE)
		forget_at(cpu, jc, jc_index(jc, va), b);
}

static void forget_in_kernel(struct cpu *cpu, const struct block *b)
{
	if (b->cached_elsewhere)
		forget_anywhere(cpu, &cpu->kjc, b);
	else
		forget_at(cpu, &cpu->kjc, jc_index(&cpu->kjc, b->cached_va), b);
}

static void forget_in_window(const struct cpu *cpu, struct window_private *w, const struct block *b)
{
	if (!b->cached_elsewhere)
		forget_at(cpu, &w->ujc, jc_index(&w->ujc, b->cached_va), b);
	else if (w->code.too_many)
		forget_anywhere(cpu, &w->ujc, b);
	else
		for (uint32_t i = 0; i < w->code.slots; i++) {
			uint64_t va = user_code_at(&w->code, i, b->pa);

			if (va)
				forget_at(cpu, &w->ujc, jc_index(&w->ujc, va), b);
		}
}

void jc_forget(struct cpu *cpu, const struct block *b)
{
	if (!b->cached)
		return;
	if (!(b->mode & BLOCK_USER)) {
		forget_in_kernel(cpu, b);
		return;
	}
	for (unsigned i = 0; i < DBT_CONTEXTS; i++)
		if (window_has_begun(cpu, i))
			forget_in_window(cpu, cpu_window(cpu, i), b);
}

static void put(const struct cpu *cpu, enum jc_of of, struct jump_cache *jc, uint64_t va, uint64_t code)
{
	unsigned n = jc_index(jc, va);

	jc->entry[n].ntag = 0 - va;
	if (n == 0)
		jc->polled = code;
	jc->entry[n].code = n == 0 ? cpu->thunk_polled[of] : code;
}

/* Writes only news: the block's page may be shared with other processes. */
static void note_cached(struct block *b, uint64_t va)
{
	if (!b->cached) {
		b->cached = true;
		b->cached_va = va;
	} else if (b->cached_va != va && !b->cached_elsewhere) {
		b->cached_elsewhere = true;
	}
}

/* Programs that jump to more places than fit get more room, and begin anew with it. */
static void make_room(struct cpu *cpu, struct jump_cache *jc, uint32_t most)
{
	uint32_t entries = jc->entries;

	if (entries >= most || ++jc->crowded <= entries)
		return;
	set_entries(cpu, jc, entries * GROWTH < most ? entries * GROWTH : most);
	clear(cpu, jc);
}

void jc_insert(struct cpu *cpu, uint64_t va, struct block *b)
{
	struct window_private *w = cpu_window(cpu, cpu->context);
	enum jc_of of = b->mode & BLOCK_USER ? JC_USER : JC_KERNEL;
	struct jump_cache *jc = of == JC_USER ? &w->ujc : &cpu->kjc;

	if (jc->entry[jc_index(jc, va)].code != cpu->thunk_indirect)
		make_room(cpu, jc, of == JC_USER ? JC_ENTRIES : JC_ENTRIES_KERNEL);
	if (of == JC_USER && jc->filled < FILLED_MAX)
		w->jc_filled[jc->filled] = jc_index(jc, va);
	jc->filled += jc->filled < UINT32_MAX;
	note_cached(b, va);
	put(cpu, of, jc, va, (uint64_t)(uintptr_t)b->entry);
}

void jc_fill(struct cpu *cpu, const struct kept_jump *jump, uint64_t njumps)
{
	struct code_cache *cc = cpu->vm->cc;
	uint64_t first = (uint64_t)(uintptr_t)cc->rx, end = first + cc->used;
	uint32_t entries = cpu->kjc.entries, error;
	struct translation tr;

	while (entries < JC_ENTRIES_KERNEL && entries < 2 * njumps)
		entries *= 2;
	set_entries(cpu, &cpu->kjc, entries);
	clear(cpu, &cpu->kjc);
	lock_take(&cc->lock);
	for (uint64_t i = 0; i < njumps; i++) {
		const struct kept_jump *j = &jump[i];

		if (!(j->va >> 63) || j->code < first || j->code >= end || j->pa >= cpu->ram_size ||
		    !(cpu->ram_flags[j->pa / PAGE_SIZE] & PAGE_HAS_CODE) ||
		    mmu_walk(cpu, j->va, ACCESS_EXEC | ACCESS_PROBE, false, &tr, &error) || tr.gpa != j->pa || !tr.global)
			continue;
		mmu_note_exec(cpu, j->va, 0, &tr);
		put(cpu, JC_KERNEL, &cpu->kjc, j->va, j->code);
	}
	lock_drop(&cc->lock);
}

static void give_back(struct cpu *cpu, struct jump_cache *jc)
{
	set_entries(cpu, jc, JC_ENTRIES_FIRST);
	(void)pages_give_back(jc->entry + JC_ENTRIES_FIRST, jc->entry + JC_ENTRIES);
	clear(cpu, jc);
}

void jc_give_back(struct cpu *cpu)
{
	give_back(cpu, &cpu_window(cpu, cpu->context)->ujc);
	if (cpu->kjc.entries > JC_ENTRIES_KEPT)
		give_back(cpu, &cpu->kjc);
}
