/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the code of address spaces is.
 *
 * Links that check a token, and jump caches of windows, hold while addresses lead where they did.  When a guest flushes the
 * mappings of a program, mostly no code has moved: Linux does so for more than 33 pages that are given back.  To look is
 * little work beside finding each place and making each link anew, so every page that code of a window was found in is
 * noted, and compared with the page tables then.
 *
 * Kernel code whose address is not built into its blocks is linked in the same way, and is here too.
 *
 * A page may be at two addresses, in front of different ones.  Its blocks are the same at both, so that direct jumps to other
 * pages must not be linked there (struct code_page.scattered).
 */
#include "engine/dbt/run.h"

#define SLOTS_FIRST 512u
#define MOVED_MAX 16u	/* if more have, it is another program */

enum { NOTED = 1, BY_USER = 2 };	/* in the low bits of user_page.va */

#define NOTHING (~0ull)	/* user_page.pa: nothing is known of code there any more */
#define SEVERAL (~1ull)	/* it led to different places since the last flush */

/* Where to look for an address, or a place in memory, first. */
static uint32_t first_slot(const struct user_code *u, uint64_t address)
{
	return (uint32_t)(page_hash(address >> 12) >> 40) & (u->slots - 1);
}

static struct user_page *slot_of(struct user_code *u, uint64_t va)
{
	uint32_t at = first_slot(u, va);

	while (u->page[at].va && (u->page[at].va ^ va) & PAGE_MASK)
		at = (at + 1) & (u->slots - 1);
	return &u->page[at];
}

void user_code_forget(struct cpu *cpu, unsigned context)
{
	struct window_private *w = cpu_window(cpu, context);
	struct user_code *u = &w->code;

	if (u->used) {
		zero_bytes(u->page, u->slots * sizeof(u->page[0]));
		zero_bytes(u->at, u->slots * sizeof(u->at[0]));
	}
	if (!u->slots || u->used < u->slots / 16)
		u->slots = SLOTS_FIRST;
	u->used = u->places = 0;
	u->too_many = false;
	zero_bytes(&u->large, sizeof(u->large));
	jc_flush_window(cpu, context);
	w->token = new_token(cpu);
}

/* More room for more pages; what was known is noted anew when it is found again. */
static void make_room(struct cpu *cpu, struct user_code *u)
{
	uint32_t slots = u->slots * 4 < USER_SLOTS ? u->slots * 4 : USER_SLOTS;

	user_code_forget(cpu, cpu->context);
	u->slots = slots;
}

/* Notes that @p leads to @pa.  If another page does too, direct jumps from there to other pages lead to different places. */
static void note_place(struct code_cache *cc, struct user_code *u, const struct user_page *p, gpa_t pa)
{
	uint32_t i = first_slot(u, pa);

	for (; u->at[i]; i = (i + 1) & (u->slots - 1)) {
		const struct user_page *other = &u->page[u->at[i] - 1];

		if (other->pa == pa) {
			if (other != p)
				code_page_scatter(cc, pa);
			return;
		}
	}
	u->at[i] = (uint32_t)(p - u->page) + 1;
	u->places++;
}

/* Room for one more page; what is known may have to be noted anew.  False: there is none. */
static bool have_room(struct cpu *cpu, struct user_code *u)
{
	if (u->used >= u->slots / 2 && u->slots < USER_SLOTS)
		make_room(cpu, u);
	else if (u->places >= u->slots / 4 * 3)	/* pages have moved often */
		user_code_forget(cpu, cpu->context);
	return u->used < u->slots / 2;
}

void user_code_note(struct cpu *cpu, uint64_t va, uint32_t mode, const struct translation *tr)
{
	struct user_code *u = &cpu_window(cpu, cpu->context)->code;
	struct code_cache *cc = cpu->vm->cc;
	struct user_page *p = slot_of(u, va);
	gpa_t pa = tr->gpa & PAGE_MASK;
	bool known = p->va && p->pa == pa, has_room = known || have_room(cpu, u);

	large_pages_add(&u->large, va, tr->shift);
	if (!known)
		p = slot_of(u, va);
	if (!p->va && !has_room) {
		u->too_many = true;
		code_page_scatter(cc, pa);	/* for all that is known */
		return;
	}
	if (!p->va) {
		u->used++;
		p->pa = pa;
		note_place(cc, u, p, pa);
	} else if (!known) {
		note_place(cc, u, p, pa);
		p->pa = p->pa == NOTHING ? pa : SEVERAL;	/* a flush is due, and will find that */
	}
	p->va = (va & PAGE_MASK) | (p->va & BY_USER) | NOTED | (mode & BLOCK_USER ? BY_USER : 0);
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
	p->pa = NOTHING;
	return true;
}

void user_code_check(struct cpu *cpu, unsigned context)
{
	struct window_private *w = cpu_window(cpu, context);
	struct user_code *u = &w->code;
	unsigned moved = 0;

	for (uint32_t i = 0; i < u->slots && !u->too_many && moved <= MOVED_MAX; i++)
		moved += has_moved(cpu, context, &u->page[i], true);
	if (u->too_many || moved > MOVED_MAX)
		user_code_forget(cpu, context);
	else if (moved)
		w->token = new_token(cpu);
}

bool user_code_check_page(struct cpu *cpu, unsigned context, uint64_t va)
{
	struct window_private *w = cpu_window(cpu, context);
	struct user_code *u = &w->code;
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
	if (moved)
		w->token = new_token(cpu);
	return moved;
}

uint64_t user_code_at(const struct user_code *u, uint32_t slot, gpa_t pa)
{
	uint64_t va = __atomic_load_n(&u->page[slot].va, __ATOMIC_RELAXED);
	gpa_t at = __atomic_load_n(&u->page[slot].pa, __ATOMIC_RELAXED);

	return va && (at == (pa & PAGE_MASK) || at == SEVERAL) ? (va & PAGE_MASK) | (pa & ~PAGE_MASK) : 0;
}
