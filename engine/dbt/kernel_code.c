/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the kernel's code is.
 *
 * Links between the kernel's blocks and its jump caches hold while its addresses lead where they did.  When a guest flushes its
 * kernel mappings, mostly no code has moved, and to look is little work beside making all links anew.  So every page that
 * kernel code was found in is noted, and compared with the page tables then.
 *
 * Whoever finds that something has moved undoes all links and begins another epoch, with no pages; vCPUs whose jump cache is of
 * an earlier one empty it at their own next flush.
 */
#include "engine/dbt/run.h"

static bool is_noted(const struct code_cache *cc, const struct kernel_page *page)
{
	return (page->va & 4095) == (cc->kernel_epoch & 4095);
}

/* Index of where the page is, or would be. */
static uint32_t kernel_page_at(const struct code_cache *cc, uint64_t va)
{
	uint32_t at = (uint32_t)(page_hash(va >> 12) >> 40) % KERNEL_PAGES;

	while (is_noted(cc, &cc->kernel_page[at]) && (cc->kernel_page[at].va ^ va) & PAGE_MASK)
		at = (at + 1) % KERNEL_PAGES;
	return at;
}

void kernel_code_note(struct code_cache *cc, uint64_t va, gpa_t pa)
{
	struct kernel_page *k = &cc->kernel_page[kernel_page_at(cc, va)];
	bool known = is_noted(cc, k);

	if (known && k->pa != (pa & PAGE_MASK))
		k->pa = ~0ull;	/* a flush is due on some vCPU, and will find that */
	else if (!known && cc->nkernel_pages++ < KERNEL_PAGES / 2)
		*k = (struct kernel_page){ (va & PAGE_MASK) | (cc->kernel_epoch & 4095), pa & PAGE_MASK };
}

/* What was noted of the page of @va, or NULL. */
static const struct kernel_page *page_of(const struct code_cache *cc, uint64_t va)
{
	const struct kernel_page *k = &cc->kernel_page[kernel_page_at(cc, va)];

	return is_noted(cc, k) ? k : NULL;
}

void kernel_code_forget(struct code_cache *cc)
{
	struct block *b, *next;

	for (b = cc->linked; b; b = next) {
		next = b->linked_next;
		b->linked = false;
		block_unlink_incoming(cc, b);
	}
	cc->linked = NULL;
	cc->nkernel_pages = 0;
	if ((++cc->kernel_epoch & 4095) == 0) {	/* those of so many times ago would be back */
		zero_bytes(cc->kernel_page, sizeof(cc->kernel_page));
		cc->kernel_epoch++;
	}
}

/* Whether what was executed at @k is still what its address leads to, for whichever CR3. */
static bool is_in_place(struct cpu *cpu, const struct kernel_page *k)
{
	struct translation tr;
	uint32_t error;

	return mmu_walk(cpu, k->va & PAGE_MASK, ACCESS_EXEC | ACCESS_PROBE, false, &tr, &error) == 0 && tr.global && tr.gpa == k->pa;
}

/* Whether all pages that kernel code was executed from are known, and are those of any CR3. */
static bool kernel_is_known(const struct cpu *cpu)
{
	return !cpu->kernel_code_moves && cpu->vm->cc->nkernel_pages <= KERNEL_PAGES / 2;
}

static bool kernel_is_in_place(struct cpu *cpu, const struct code_cache *cc)
{
	if (!kernel_is_known(cpu))
		return false;
	for (unsigned i = 0; i < KERNEL_PAGES; i++)
		if (is_noted(cc, &cc->kernel_page[i]) && !is_in_place(cpu, &cc->kernel_page[i]))
			return false;
	return true;
}

void kernel_code_begin(struct cpu *cpu)
{
	cpu->kernel_epoch = cpu->vm->cc->kernel_epoch;
	cpu->kernel_code_moves = false;
}

/* Links and the jump cache go if they may be of code that has moved.  With the lock held. */
static void settle_kernel_code(struct cpu *cpu, bool in_place)
{
	struct code_cache *cc = cpu->vm->cc;

	if (!in_place)
		kernel_code_forget(cc);
	if (cpu->kernel_epoch != cc->kernel_epoch)
		jc_flush_kernel(cpu);
	kernel_code_begin(cpu);
}

void kernel_code_flush(struct cpu *cpu)
{
	struct code_cache *cc = cpu->vm->cc;

	lock_take(&cc->lock);
	settle_kernel_code(cpu, kernel_is_in_place(cpu, cc));
	lock_drop(&cc->lock);
}

void kernel_code_flush_page(struct cpu *cpu, uint64_t va)
{
	struct code_cache *cc = cpu->vm->cc;
	const struct kernel_page *k;

	lock_take(&cc->lock);
	k = page_of(cc, va);
	if (!kernel_is_known(cpu) || cpu->kernel_epoch != cc->kernel_epoch || (k && !is_in_place(cpu, k)))
		settle_kernel_code(cpu, false);
	lock_drop(&cc->lock);
}
