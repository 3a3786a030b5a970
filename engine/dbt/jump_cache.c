/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Jump caches: where indirect jumps find the code for a guest's address.
 *
 * User code has one per window (address space), kernel code one per vCPU, as TLBs are (mmu.c).
 */
#include "engine/dbt/run.h"

/* Any thread: one that jumps that way finds the block still whole, or nothing. */
static void jc_clear_one(const struct cpu *cpu, struct jump_cache *jc, unsigned n)
{
	__atomic_store_n(&jc->entry[n].code, cpu->thunk_indirect, __ATOMIC_RELEASE);
}

static void jc_clear(const struct cpu *cpu, enum jc_of of, struct jump_cache *jc)
{
	for (unsigned i = 0; i < cpu->jc_size[of].entries; i++)
		jc_clear_one(cpu, jc, i);
}

static void set_jc_entries(struct cpu *cpu, enum jc_of of, uint32_t entries)
{
	cpu->jc_size[of] = (struct jc_size){ .mask = (entries - 1ull) << 1, .entries = entries };
	if (atomic_load(&cpu->jc_mask[of]))
		atomic_store(&cpu->jc_mask[of], cpu->jc_size[of].mask);
	if (atomic_load(&cpu->exit_request))	/* a request that came between */
		jc_close(cpu);
}

/* Programs that jump to more places than fit get more room, and begin anew with it. */
static void grow_jump_cache(struct cpu *cpu, enum jc_of of)
{
	uint32_t entries = cpu->jc_size[of].entries;

	set_jc_entries(cpu, of, entries * 8 < JC_ENTRIES ? entries * 8 : JC_ENTRIES);
	if (of == JC_KERNEL) {
		jc_clear(cpu, JC_KERNEL, &cpu->kjc);
		return;
	}
	for (unsigned i = 0; i < DBT_CONTEXTS; i++) {
		if (window_has_begun(cpu, i))
			cpu_window(cpu, i)->njc = FILLED_MAX + 1;
		if (i == cpu->context)
			jc_clear(cpu, JC_USER, &cpu_window(cpu, i)->ujc);
		else
			cpu->ctx[i].cr3 = ~0ull;
	}
}

void jc_begin(struct cpu *cpu)
{
	for (unsigned of = 0; of < 2; of++)
		if (!cpu->jc_size[of].entries)
			set_jc_entries(cpu, of, JC_ENTRIES_FIRST);
}

void jc_flush_window(struct cpu *cpu, unsigned context)
{
	struct window_private *w = cpu_window(cpu, context);

	if (w->njc > FILLED_MAX) {
		jc_clear(cpu, JC_USER, &w->ujc);
	} else {
		for (unsigned i = 0; i < w->njc; i++)
			jc_clear_one(cpu, &w->ujc, w->jc_filled[i]);
	}
	w->njc = 0;
}

void jc_forget_page(struct cpu *cpu, unsigned context, uint64_t va)
{
	struct window_private *w = cpu_window(cpu, context);

	/* What begins in the page, or in the one before and reaches into it. */
	va &= PAGE_MASK;
	for (uint64_t at = va - (INSN_LEN_MAX - 1); at != va + PAGE_SIZE; at++) {
		unsigned n = jc_index(cpu, JC_USER, at);

		if (at + w->ujc.entry[n].ntag == 0)
			jc_clear_one(cpu, &w->ujc, n);
	}
}

void jc_flush_user(struct cpu *cpu)
{
	struct window_private *w = cpu_window(cpu, cpu->context);

	jc_clear(cpu, JC_USER, &w->ujc);
	w->njc = 0;
}

void jc_flush_kernel(struct cpu *cpu)
{
	jc_clear(cpu, JC_KERNEL, &cpu->kjc);
}

static void forget_at(const struct cpu *cpu, struct jump_cache *jc, unsigned n, const struct block *b)
{
	if ((n ? jc->entry[n].code : jc->polled) == (uint64_t)(uintptr_t)b->entry)
		jc_clear_one(cpu, jc, n);
}

static void forget_in(const struct cpu *cpu, enum jc_of of, struct jump_cache *jc, const struct block *b)
{
	if (!b->cached_elsewhere) {
		forget_at(cpu, jc, jc_index(cpu, of, b->cached_va), b);
		return;
	}
	/* Only the offset in the page is known: tries all addresses that the index tells apart. */
	for (uint64_t va = b->pa & ~PAGE_MASK; va < (uint64_t)JC_ENTRIES << JC_FOLD; va += PAGE_SIZE)
		forget_at(cpu, jc, jc_index(cpu, of, va), b);
}

void jc_forget(struct cpu *cpu, const struct block *b)
{
	if (!b->cached)
		return;
	if (!(b->mode & BLOCK_USER)) {
		forget_in(cpu, JC_KERNEL, &cpu->kjc, b);
	} else {
		for (unsigned i = 0; i < DBT_CONTEXTS; i++)
			if (window_has_begun(cpu, i))
				forget_in(cpu, JC_USER, &cpu_window(cpu, i)->ujc, b);
	}
}

static void jc_put(const struct cpu *cpu, enum jc_of of, struct jump_cache *jc, uint64_t va, uint64_t code)
{
	unsigned n = jc_index(cpu, of, va);

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

void jc_insert(struct cpu *cpu, uint64_t va, struct block *b)
{
	struct window_private *w = cpu_window(cpu, cpu->context);
	enum jc_of of = b->mode & BLOCK_USER ? JC_USER : JC_KERNEL;
	struct jump_cache *jc = of == JC_USER ? &w->ujc : &cpu->kjc;
	struct jc_size *size = &cpu->jc_size[of];

	if (jc->entry[jc_index(cpu, of, va)].code != cpu->thunk_indirect && size->entries < JC_ENTRIES &&
	    ++size->crowded > size->entries)
		grow_jump_cache(cpu, of);
	if (of == JC_USER)
		note_filled(w->jc_filled, &w->njc, jc_index(cpu, of, va));
	note_cached(b, va);
	jc_put(cpu, of, jc, va, (uint64_t)(uintptr_t)b->entry);
}

void jc_fill(struct cpu *cpu, const struct kept_jump *jump, uint64_t njumps)
{
	struct code_cache *cc = cpu->vm->cc;
	uint64_t first = (uint64_t)(uintptr_t)cc->rx, end = first + cc->used;
	uint32_t entries = cpu->jc_size[JC_KERNEL].entries, error;
	struct translation tr;

	while (entries < JC_ENTRIES && entries < 2 * njumps)
		entries *= 2;
	set_jc_entries(cpu, JC_KERNEL, entries);
	jc_clear(cpu, JC_KERNEL, &cpu->kjc);
	lock_take(&cc->lock);
	for (uint64_t i = 0; i < njumps; i++) {
		const struct kept_jump *j = &jump[i];

		if (!(j->va >> 63) || j->code < first || j->code >= end || j->pa >= cpu->ram_size ||
		    !(cpu->ram_flags[j->pa / PAGE_SIZE] & PAGE_HAS_CODE) ||
		    mmu_walk(cpu, j->va, ACCESS_EXEC | ACCESS_PROBE, false, &tr, &error) || tr.gpa != j->pa || !tr.global)
			continue;
		mmu_note_exec(cpu, j->va, &tr);
		kernel_code_note(cc, j->va, j->pa);
		jc_put(cpu, JC_KERNEL, &cpu->kjc, j->va, j->code);
	}
	lock_drop(&cc->lock);
}

static void give_back(struct cpu *cpu, enum jc_of of, struct jump_cache *jc)
{
	set_jc_entries(cpu, of, JC_ENTRIES_FIRST);
	(void)pages_give_back(jc->entry + JC_ENTRIES_FIRST, jc->entry + JC_ENTRIES);
	jc_clear(cpu, of, jc);
}

void jc_give_back(struct cpu *cpu)
{
	struct window_private *w = cpu_window(cpu, cpu->context);

	give_back(cpu, JC_USER, &w->ujc);
	w->njc = 0;
	if (cpu->jc_size[JC_KERNEL].entries > JC_ENTRIES_KEPT)
		give_back(cpu, JC_KERNEL, &cpu->kjc);
}
