/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the code of address spaces is.
 *
 * A direct jump from one page of relocatable code to another is linked to a check in front of its target: whether the page of
 * that is, in this address space, where it must be seen from the vbase in use (window_private.nbase).  So links hold for ever
 * and for all processes, wherever each has the code; what a new process has to find out is one number a page.
 *
 * These numbers, and the jump caches of windows, hold while addresses lead where they did.  When a guest flushes the mappings of
 * a program, mostly no code has moved: Linux does so for more than 33 pages that are given back.  To look is little work beside
 * finding each place anew, so every page that code of a window was found in is noted, and compared with the page tables then.
 *
 * Kernel code whose address is not built into its blocks is linked in the same way, and is here too.  A page that is at several
 * addresses has the number of one of them: jumps to it at others go through here.
 */
#include "engine/dbt/run.h"

#define SLOTS_FIRST 512u
#define MOVED_MAX 16u	/* if more have, it is another program */

enum { BY_KERNEL = 1, BY_USER = 2 };	/* in the low bits of user_page.va */

#define NOTHING (~0ull)	/* user_page.pa: nothing is known of code there any more */

static struct user_page *slot_of(struct user_code *u, uint64_t va)
{
	uint32_t at = (uint32_t)(page_hash(va >> 12) >> 40) & (u->slots - 1);

	while (u->page[at].va && (u->page[at].va ^ va) & PAGE_MASK)
		at = (at + 1) & (u->slots - 1);
	return &u->page[at];
}

static void set_nbase(struct window_private *w, unsigned user, uint32_t number, uint64_t nbase)
{
	if (number < CODE_NUMBERS)
		__atomic_store_n(&w->nbase[user][number], nbase, __ATOMIC_RELAXED);
}

/* Direct jumps do not find the code at @p any more. */
static void misplace(struct window_private *w, const struct user_page *p)
{
	if (p->va & BY_USER)
		set_nbase(w, 1, p->number, 0);
	if (p->va & BY_KERNEL)
		set_nbase(w, 0, p->number, 0);
}

void user_code_forget(struct cpu *cpu, unsigned context)
{
	struct window_private *w = cpu_window(cpu, context);
	struct user_code *u = &w->code;

	if (u->used) {
		for (uint32_t i = 0; i < u->slots; i++)
			misplace(w, &u->page[i]);
		zero_bytes(u->page, u->slots * sizeof(u->page[0]));
	}
	if (!u->slots || u->used < u->slots / 16)
		u->slots = SLOTS_FIRST;
	u->used = 0;
	u->too_many = false;
	zero_bytes(&u->large, sizeof(u->large));
	jc_flush_window(cpu, context);
}

/* The slot of @va, or an empty one for it; what is known may have to be noted anew to have room.  NULL: there is none. */
static struct user_page *slot_for(struct cpu *cpu, struct user_code *u, uint64_t va)
{
	uint32_t slots = u->slots * 4 < USER_SLOTS ? u->slots * 4 : USER_SLOTS;
	struct user_page *p = slot_of(u, va);

	if (p->va || u->used < u->slots / 2)
		return p;
	if (u->slots == USER_SLOTS)
		return NULL;
	user_code_forget(cpu, cpu->context);
	u->slots = slots;
	return slot_of(u, va);
}

/* @p is for what @va leads to now, @pa. */
static void take_slot(struct cpu *cpu, struct window_private *w, struct user_page *p, uint64_t va, gpa_t pa)
{
	if (!p->va) {
		w->code.used++;
	} else if (p->pa != NOTHING) {	/* it led somewhere else, and a flush is due */
		jc_forget_page(cpu, cpu->context, va);
		misplace(w, p);
	}
	*p = (struct user_page){ .va = (va & PAGE_MASK) | (p->va & ~PAGE_MASK), .pa = pa };
}

void user_code_note(struct cpu *cpu, uint64_t va, uint32_t mode, const struct translation *tr)
{
	struct window_private *w = cpu_window(cpu, cpu->context);
	struct user_code *u = &w->code;
	const gpa_t pa = tr->gpa & PAGE_MASK;
	const struct code_page *code = code_page_find(cpu->vm->cc, pa);
	struct user_page *p = slot_for(cpu, u, va);
	const bool user = mode & BLOCK_USER;

	large_pages_add(&u->large, va, tr->shift);
	if (!p) {
		u->too_many = true;
		return;
	}
	if (!p->va || p->pa != pa)
		take_slot(cpu, w, p, va, pa);
	p->va |= user ? BY_USER : BY_KERNEL;
	p->number = CODE_NUMBERS;
	if (code && code->has_off) {
		p->number = code->number;
		set_nbase(w, user, p->number, (uint64_t)code->off - (va & PAGE_MASK));
	}
}

static bool is_in_place(struct cpu *cpu, const struct user_page *p)
{
	struct translation tr;
	uint32_t error;

	return mmu_walk(cpu, p->va & PAGE_MASK, ACCESS_EXEC | ACCESS_PROBE, p->va & BY_USER, &tr, &error) == 0 &&
	       (tr.gpa & PAGE_MASK) == p->pa;
}

/* Forgets the code at @p unless it is where it was; the page tables of other windows than that of CR3 are not known. */
static bool has_moved(struct cpu *cpu, unsigned context, struct user_page *p, bool is_of_cr3)
{
	if (!p->va || p->pa == NOTHING || (is_of_cr3 && is_in_place(cpu, p)))
		return false;
	jc_forget_page(cpu, context, p->va);
	misplace(cpu_window(cpu, context), p);
	p->pa = NOTHING;
	return true;
}

void user_code_check(struct cpu *cpu, unsigned context)
{
	struct user_code *u = &cpu_window(cpu, context)->code;
	unsigned moved = 0;

	for (uint32_t i = 0; i < u->slots && !u->too_many && moved <= MOVED_MAX; i++)
		moved += has_moved(cpu, context, &u->page[i], true);
	if (u->too_many || moved > MOVED_MAX)
		user_code_forget(cpu, context);
}

bool user_code_check_page(struct cpu *cpu, unsigned context, uint64_t va)
{
	struct user_code *u = &cpu_window(cpu, context)->code;
	struct user_page *p = slot_of(u, va);
	unsigned shift = large_pages_shift(&u->large, va);
	bool is_of_cr3 = context == cpu->context, moved = false;

	if (shift == 12 && (p->va || !u->too_many)) {
		moved = has_moved(cpu, context, p, is_of_cr3);
	} else if (shift == 12) {	/* not noted, but maybe in use */
		jc_forget_page(cpu, context, va);
		moved = true;
	} else if (u->too_many) {
		user_code_forget(cpu, context);
		return true;
	} else {
		for (uint32_t i = 0; i < u->slots; i++)
			if (u->page[i].va >> shift == va >> shift)
				moved |= has_moved(cpu, context, &u->page[i], is_of_cr3);
	}
	return moved;
}

void user_code_misplace(struct cpu *cpu, uint32_t number)
{
	for (unsigned i = 0; i < DBT_CONTEXTS; i++)
		if (window_has_begun(cpu, i))
			set_nbase(cpu_window(cpu, i), 1, number, 0);	/* of programs: no other pages sleep, and nobody returns to others */
}

uint64_t user_code_at(const struct user_code *u, uint32_t slot, gpa_t pa)
{
	uint64_t va = __atomic_load_n(&u->page[slot].va, __ATOMIC_RELAXED);
	gpa_t at = __atomic_load_n(&u->page[slot].pa, __ATOMIC_RELAXED);

	return va && at == (pa & PAGE_MASK) ? (va & PAGE_MASK) | (pa & ~PAGE_MASK) : 0;
}
