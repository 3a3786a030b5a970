/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Paging as the guest sees it, and the TLBs that hide it.
 *
 * User code has one TLB per window (address space).  Kernel code has one per vCPU,
 * shared by all windows, because kernels map themselves the same everywhere; entries
 * there that are not global pages of the upper half are listed in user_in_kernel[]
 * and dropped when CR3 changes.
 */
#include "engine/dbt/run.h"

#include "engine/dbt/miss.h"
#include "isa/paging.h"

#include <sys/mman.h>

#define LARGE_SIZE (1ull << LARGE_SHIFT)
#define AHEAD 7u	/* pages: see fill_ahead() */

enum { PF_P = 1, PF_W = 2, PF_U = 4, PF_RSVD = 8, PF_I = 16 };

static inline unsigned tlb_index(uint64_t va)
{
	return (unsigned)(va >> 12) & (TLB_ENTRIES - 1);
}

/*
 * A tag that can never match at @index.  It belongs to a page far away: the check
 * that keeps flags looks only at an access's last byte, which may be in the next page.
 */
static inline uint64_t never(unsigned index)
{
	return 0 - ((uint64_t)(index ^ TLB_ENTRIES / 2) << 12);
}

static void tlb_clear_one(struct tlb *tlb, unsigned n)
{
	tlb->read.ntag[n] = tlb->write.ntag[n] = never(n);
}

/* Of entry @n: it becomes that of the page at @page, which is at @host, if @wanted or it is nobody's. */
static inline void side_set(struct tlb_side *side, unsigned n, uint64_t page, uint64_t host, bool wanted, bool allowed)
{
	if (allowed && (wanted || side->ntag[n] == never(n) || !side->ntag[n])) {
		side->ntag[n] = 0 - page;
		side->addend[n] = host - page;
		side->host[n] = host;
	} else if (!allowed && side->ntag[n] == 0 - page) {
		side->ntag[n] = never(n);
	}
}

/* For accesses @rw to that page, and others where that costs no other page its entry. */
static inline void tlb_set(struct tlb *tlb, unsigned n, uint64_t page, uint64_t host, unsigned rw, bool readable, bool writable)
{
	side_set(&tlb->read, n, page, host, !(rw & MEM_WRITE), readable);
	side_set(&tlb->write, n, page, host, rw & MEM_WRITE, writable);
}

static inline const struct tlb_side *tlb_side(const struct tlb *tlb, unsigned rw)
{
	return rw & MEM_WRITE ? &tlb->write : &tlb->read;
}

static void tlb_clear(struct tlb *tlb)
{
	for (unsigned i = 0; i < TLB_ENTRIES; i++)
		tlb_clear_one(tlb, i);
}

/*
 * Memory that is all zero is a TLB that matches nothing but page 0, whose entry is the first, and the
 * end of an access that wraps around to it, which begins in the last page.
 */
static void tlb_begin(struct tlb *tlb)
{
	tlb_clear_one(tlb, 0);
	tlb_clear_one(tlb, TLB_ENTRIES - 1);
}

/* What struct walked.key must be for @va now. */
static inline uint64_t walked_key(const struct cpu *cpu, uint64_t va)
{
	return va >> 21 | (uint64_t)cpu->walked_age << 43;
}

static inline struct walked *walked_slot(struct cpu *cpu, uint64_t va)
{
	return &cpu->walked[(va >> 21 ^ va >> 26) & (WALKED - 1)];
}

static void forget_walks(struct cpu *cpu)
{
	cpu->walked_age = (cpu->walked_age + 1) & 0x1fffff;
	if (cpu->walked_age)
		return;
	for (unsigned i = 0; i < WALKED; i++)	/* so old that age 1 might be met again */
		cpu->walked[i].key = 0;
	cpu->walked_age = 1;
}

/* Remembers entry @n as filled, so that a flush of few entries touches only those. */
static inline void note_filled(struct window_private *w, unsigned n)
{
	if (w->ntlb < FILLED_MAX)
		w->tlb_filled[w->ntlb] = (uint16_t)n;
	if (w->ntlb <= FILLED_MAX)
		w->ntlb++;
}

static void window_flush_tlb(struct cpu *cpu, unsigned context)
{
	struct window_private *w = cpu_window(cpu, context);

	forget_walks(cpu);
	if (!window_has_begun(cpu, context)) {
		tlb_begin(&w->utlb);
	} else {
		if (w->ntlb > FILLED_MAX) {
			tlb_clear(&w->utlb);
		} else {
			for (unsigned i = 0; i < w->ntlb; i++)
				tlb_clear_one(&w->utlb, w->tlb_filled[i]);
		}
		zero_bytes(&w->ularge, sizeof(w->ularge));
	}
	w->ntlb = 0;
	cpu->stats.tlb_flush++;
}

/* For other page tables than it had, or maybe had. */
static void window_renew(struct cpu *cpu, unsigned context)
{
	window_flush_tlb(cpu, context);
	user_code_forget(cpu, context);
	cpu->windows_begun |= (uint8_t)(1u << context);	/* now other vCPUs may look for blocks in its jump cache, which has a size */
}

/* For page tables that are those of CR3, and were before, but may be others now. */
static void window_flush(struct cpu *cpu, unsigned context)
{
	window_flush_tlb(cpu, context);
	user_code_check(cpu, context);
}

static void kernel_flush(struct cpu *cpu)
{
	if (cpu->ktlb_filled)
		tlb_clear(&cpu->ktlb);
	else
		tlb_begin(&cpu->ktlb);
	cpu->ktlb_filled = false;
	cpu->nuser_in_kernel = 0;
	zero_bytes(&cpu->klarge, sizeof(cpu->klarge));
}

/* Drops the entry of the page at @va, of 4 KiB. */
static void invalidate_entry(struct tlb *tlb, uint64_t va)
{
	tlb_clear_one(tlb, tlb_index(va));
}

static void drop_user_in_kernel(struct cpu *cpu)
{
	forget_walks(cpu);
	if (cpu->nuser_in_kernel > USER_IN_KERNEL_MAX) {
		tlb_clear(&cpu->ktlb);
		zero_bytes(&cpu->klarge, sizeof(cpu->klarge));
	} else {
		for (unsigned i = 0; i < cpu->nuser_in_kernel; i++)
			invalidate_entry(&cpu->ktlb, cpu->user_in_kernel[i]);
	}
	cpu->nuser_in_kernel = 0;
	if (cpu->kernel_code_moves) {
		jc_flush_kernel(cpu);
		cpu->kernel_code_moves = false;
	}
}

static void use_window(struct cpu *cpu, unsigned context)
{
	cpu->context = context;
	cpu->ctx[context].used = ++cpu->ctx_age;
	cpu->gs_window = (uint64_t)(uintptr_t)cpu->windows + context * WINDOW_SIZE;
	__asm__ volatile("wrgsbase %0" : : "r"(cpu->gs_window));
	jc_use_window(cpu);
}

/* With PCIDs a window is named by its PCID, otherwise there is just one. */
static uint64_t window_key(const struct cpu *cpu, uint64_t cr3)
{
	return cpu->cr4 & CR4_PCIDE ? cr3 & 0xfff : 0;
}

/* Nothing is on the stack of returns.c. */
static void returns_begin(struct cpu *cpu)
{
	*(uint64_t *)(uintptr_t)cpu->returns_empty = cpu->thunk_return;
	cpu->returns = cpu->returns_empty;
}

void mmu_init(struct cpu *cpu)
{
	jc_begin(cpu);
	for (unsigned i = 0; i < DBT_CONTEXTS; i++)
		cpu->ctx[i].cr3 = ~0ull;
	/* In use at once: what goes through the windows in use must not pass this one by. */
	cpu->ctx[0].cr3 = window_key(cpu, cpu->cr3);
	window_renew(cpu, 0);
	kernel_flush(cpu);
	kernel_code_begin(cpu);
	cpu->context = 0;
	cpu->gs_window = (uint64_t)(uintptr_t)cpu->windows;
	returns_begin(cpu);
	cpu->tlb_mask = (uint64_t)(TLB_ENTRIES - 1) << 12;
	jc_open(cpu);
	if (atomic_load(&cpu->exit_request))
		jc_close(cpu);
	cpu->page_mask = PAGE_MASK;
	cpu->bit_mask[0] = 15;
	cpu->bit_mask[1] = 31;
	cpu->bit_mask[2] = 63;
}

void mmu_flush_all(struct cpu *cpu)
{
	for (unsigned i = 0; i < DBT_CONTEXTS; i++) {
		if (i != cpu->context)
			cpu->ctx[i].cr3 = ~0ull;
		else
			window_flush(cpu, i);
	}
	kernel_flush(cpu);
	forget_walks(cpu);
	kernel_code_flush(cpu);
}

static unsigned find_window(const struct cpu *cpu, uint64_t key)
{
	for (unsigned i = 0; i < DBT_CONTEXTS; i++)
		if (cpu->ctx[i].cr3 == key)
			return i;
	return DBT_CONTEXTS;
}

static unsigned oldest_window(const struct cpu *cpu)
{
	unsigned best = 0;

	for (unsigned i = 1; i < DBT_CONTEXTS; i++)
		if (cpu->ctx[i].used < cpu->ctx[best].used)
			best = i;
	return best;
}

void mmu_load_cr3(struct cpu *cpu, uint64_t value, bool keep)
{
	uint64_t key = window_key(cpu, value);
	unsigned w = find_window(cpu, key);

	cpu->cr3 = value;
	drop_user_in_kernel(cpu);
	if (w == DBT_CONTEXTS) {
		w = oldest_window(cpu);
		cpu->ctx[w].cr3 = key;
		window_renew(cpu, w);
	} else if (!keep) {
		window_flush(cpu, w);
	}
	use_window(cpu, w);
}

bool pages_give_back(const void *from, const void *to)
{
	uint64_t first = ((uint64_t)(uintptr_t)from + PAGE_SIZE - 1) & PAGE_MASK, end = (uint64_t)(uintptr_t)to & PAGE_MASK;

	return end <= first || raw_syscall4(SYS_madvise, (long)first, (long)(end - first), MADV_REMOVE, 0) == 0;
}

/*
 * The window in use keeps its token and where its code is, by which links go on to hold: only what is looked up in it
 * is looked for again.
 */
void mmu_give_back(struct cpu *cpu)
{
	struct window_private *w = cpu_window(cpu, cpu->context);

	lock_take(&cpu->vm->cc->lock);	/* others look for blocks in jump caches */
	for (unsigned i = 0; i < DBT_CONTEXTS; i++) {
		if (i == cpu->context || !window_has_begun(cpu, i))
			continue;
		cpu->ctx[i].cr3 = ~0ull;
		if (pages_give_back(cpu_window(cpu, i), cpu->windows + (i + 1) * WINDOW_SIZE))
			cpu->windows_begun &= (uint8_t)~(1u << i);
	}
	if (pages_give_back(&w->utlb, &w->utlb + 1))
		tlb_begin(&w->utlb);
	else
		tlb_clear(&w->utlb);
	w->ntlb = 0;
	jc_give_back(cpu);
	scan_give_back();
	lock_drop(&cpu->vm->cc->lock);
}

void mmu_forget_page(struct cpu *cpu, uint64_t va)
{
	invalidate_entry(&cpu->ktlb, va);
	for (unsigned i = 0; i < DBT_CONTEXTS; i++)
		if (window_has_begun(cpu, i))
			invalidate_entry(&cpu_window(cpu, i)->utlb, va);
}

/* Drops the entries of the page of 2^@shift bytes at @va. */
static void invalidate_page(struct tlb *tlb, unsigned shift, uint64_t va)
{
	unsigned count = TLB_ENTRIES, first = 0;

	invalidate_entry(tlb, va);
	if (shift == 12)
		return;
	if (shift == LARGE_SHIFT) {	/* its entries lie together */
		count = LARGE_SIZE / PAGE_SIZE;
		first = tlb_index(va & ~(LARGE_SIZE - 1));
	}
	for (unsigned n = first; n < first + count; n++)
		if ((0 - tlb->read.ntag[n]) >> shift == va >> shift || (0 - tlb->write.ntag[n]) >> shift == va >> shift)
			tlb_clear_one(tlb, n);
}

void mmu_note_exec(struct cpu *cpu, uint64_t va, uint32_t mode, const struct translation *tr)
{
	if (va >> 63) {
		page_filter_add(&cpu->kernel_code_seen, va);
		large_pages_add(&cpu->kernel_code_large, va, tr->shift);
	}
	if (!(mode & BLOCK_USER) && (!tr->global || !(va >> 63)))
		cpu->kernel_code_moves = true;
	if (!(va >> 63 && is_absolute(va, mode)))
		user_code_note(cpu, va, mode, tr);
	if (!(mode & BLOCK_USER))
		kernel_code_note(cpu->vm->cc, va, tr->gpa);
}

/* Whether kernel code may have been seen in the page of 2^@shift bytes at @va. */
static bool kernel_code_seen_in(const struct cpu *cpu, uint64_t va, unsigned shift)
{
	uint64_t first = va & ~((1ull << shift) - 1);

	if (shift == GIANT_SHIFT)
		return true;
	for (uint64_t at = first; at < first + (1ull << shift); at += PAGE_SIZE)
		if (page_filter_has(&cpu->kernel_code_seen, at))
			return true;
	return false;
}

/* Drops what a window knows of the page at @va, of 4 KiB or as large as any that was there. */
static void forget_user_page(struct cpu *cpu, unsigned context, uint64_t va)
{
	struct window_private *w = cpu_window(cpu, context);

	invalidate_page(&w->utlb, large_pages_shift(&w->ularge, va), va);
	if (user_code_check_page(cpu, context, va) && cpu->kernel_code_moves)
		jc_flush_kernel(cpu);
}

static void forget_kernel_page(struct cpu *cpu, uint64_t va)
{
	unsigned shift = large_pages_shift(&cpu->kernel_code_large, va);

	invalidate_page(&cpu->ktlb, large_pages_shift(&cpu->klarge, va), va);
	if (!(va >> 63) || !kernel_code_seen_in(cpu, va, shift))
		return;
	if (shift == 12)
		kernel_code_flush_page(cpu, va);
	else
		kernel_code_flush(cpu);
}

void mmu_invlpg(struct cpu *cpu, uint64_t va)
{
	forget_walks(cpu);
	forget_kernel_page(cpu, va);
	for (unsigned i = 0; i < DBT_CONTEXTS; i++)	/* a kernel's page may be a global one */
		if (i == cpu->context || (va >> 63 && cpu->ctx[i].cr3 != ~0ull))
			forget_user_page(cpu, i, va);
}

void mmu_invpcid(struct cpu *cpu, unsigned type, uint64_t pcid, uint64_t va)
{
	unsigned w = find_window(cpu, pcid);

	forget_walks(cpu);
	switch (type) {
	case 0:	/* one address of one PCID */
		if (pcid == (cpu->cr3 & 0xfff))
			mmu_invlpg(cpu, va);
		else if (w != DBT_CONTEXTS)
			forget_user_page(cpu, w, va);
		break;
	case 1:
		if (w == cpu->context)
			window_flush(cpu, w);
		else if (w != DBT_CONTEXTS)
			window_renew(cpu, w);
		drop_user_in_kernel(cpu);
		break;
	case 2:
		mmu_flush_all(cpu);
		break;
	default:	/* 3: all but global */
		for (unsigned i = 0; i < DBT_CONTEXTS; i++)
			if (i == cpu->context)
				window_flush(cpu, i);
			else if (cpu->ctx[i].cr3 != ~0ull)
				window_renew(cpu, i);
		drop_user_in_kernel(cpu);
		break;
	}
}

static bool protect_in(struct tlb_side *side, uint64_t host)
{
	bool found = false;

	for (unsigned i = 0; i < TLB_ENTRIES; i++)
		if (side->host[i] == host && side->ntag[i] != never(i)) {
			__atomic_store_n(&side->ntag[i], never(i), __ATOMIC_RELEASE);
			found = true;
		}
	return found;
}

bool mmu_protect_host_page(struct cpu *cpu, uint64_t host)
{
	bool found = protect_in(&cpu->ktlb.write, host);

	for (unsigned i = 0; i < DBT_CONTEXTS; i++)
		if (cpu->ctx[i].cr3 != ~0ull)
			found |= protect_in(&cpu_window(cpu, i)->utlb.write, host);
	return found;
}

/* Sets @bits in a page table entry that another vCPU may be changing. */
static bool pte_set(uint64_t *pte, uint64_t seen, uint64_t bits)
{
	return __atomic_compare_exchange_n(pte, &seen, seen | bits, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
}

static uint8_t *ram_at(const struct cpu *cpu, gpa_t gpa, uint64_t len)
{
	const struct mem *mem = cpu->vm->cc->mem;

	for (unsigned i = 0; i < mem->nbanks; i++)
		if (gpa >= mem->bank[i].base && gpa - mem->bank[i].base + len <= mem->bank[i].size)
			return mem->bank[i].host + (gpa - mem->bank[i].base);
	return NULL;
}

/* The page table that an entry, or CR3, leads to; NULL outside RAM. */
static uint64_t *table_at(const struct cpu *cpu, uint64_t entry)
{
	return (uint64_t *)(void *)ram_at(cpu, entry & PTE_ADDR, PAGE_SIZE);
}

static int fault(uint32_t *ret_error, const struct cpu *cpu, unsigned access, bool user, uint32_t why)
{
	*ret_error = why | (access & ACCESS_WRITE ? PF_W : 0) | (user ? PF_U : 0) |
		(access & ACCESS_EXEC && cpu->efer & EFER_NXE ? PF_I : 0);
	return VEC_PF;
}

/* The 2 MiB around @va in a large page of 2^@shift bytes. */
static void note_large(struct walked *w, uint64_t key, uint64_t va, int shift, uint64_t pte, uint64_t allowed)
{
	uint64_t within = ((1ull << shift) - 1) & ~(LARGE_SIZE - 1);
	uint64_t gpa = (pte & PTE_ADDR & ~((1ull << shift) - 1)) | (va & within);

	*w = (struct walked){ .key = key, .allowed = allowed,
			      .large = gpa | (pte & (PTE_P | PTE_W | PTE_U | PTE_A | PTE_D | PTE_G | PTE_NX)),
			      .shift = (uint8_t)shift };
}

int mmu_walk(struct cpu *cpu, uint64_t va, unsigned access, bool user, struct translation *ret,
	     uint32_t *ret_error)
{
	struct walked *known = walked_slot(cpu, va);
	uint64_t *table = known->table, *slot, pte = 0, allowed = known->allowed, size;
	bool nx = known->nx, hit = known->key == walked_key(cpu, va) && known->table, write_ok;
	int shift = 12;

	if (!(cpu->cr0 & CR0_PG)) {
		ret->gpa = va & 0xffffffff;
		ret->host = ram_at(cpu, ret->gpa & PAGE_MASK, PAGE_SIZE);
		ret->writable = ret->user = ret->exec = true;
		ret->global = false;
		ret->shift = 12;
		if (ret->host)
			ret->host += ret->gpa & 4095;
		return 0;
	}
	if (!canonical(va))
		return VEC_GP;
	if (!hit) {
again:
		hit = false;
		table = table_at(cpu, cpu->cr3);
		allowed = PTE_W | PTE_U;
		nx = false;
		shift = 39;
	}
	for (;; shift -= 9) {
		if (!table)
			return fault(ret_error, cpu, access, user, 0);
		slot = &table[va >> shift & 511];
		pte = __atomic_load_n(slot, __ATOMIC_RELAXED);
		if (!(pte & PTE_P) && hit)
			goto again;	/* the table may be another by now */
		if (!(pte & PTE_P))
			return fault(ret_error, cpu, access, user, 0);
		allowed &= pte;
		if (pte & PTE_NX) {
			if (!(cpu->efer & EFER_NXE))
				return fault(ret_error, cpu, access, user, PF_P | PF_RSVD);
			nx = true;
		}
		if (shift == 12 || (pte & PTE_PS && shift < 39))
			break;
		if (pte & PTE_PS)
			return fault(ret_error, cpu, access, user, PF_P | PF_RSVD);
		if (!(pte & PTE_A) && !(access & ACCESS_PROBE) && !pte_set(slot, pte, PTE_A))
			goto again;
		table = table_at(cpu, pte);
		if (shift == 21 && table && !(access & ACCESS_PROBE))
			*known = (struct walked){ .key = walked_key(cpu, va), .table = table, .allowed = allowed, .nx = nx };
	}
	size = 1ull << shift;
	if (shift > 12 && pte & PTE_ADDR & (size - 1) & ~PTE_G & ~(1ull << 12))
		return fault(ret_error, cpu, access, user, PF_P | PF_RSVD);
	write_ok = allowed & PTE_W || (!user && !(cpu->cr0 & CR0_WP));
	if ((user && !(allowed & PTE_U)) || (access & ACCESS_WRITE && !write_ok) || (access & ACCESS_EXEC && nx)) {
		if (hit)
			goto again;
		return fault(ret_error, cpu, access, user, PF_P);
	}
	if (!(access & ACCESS_PROBE)) {
		uint64_t want = PTE_A | (access & ACCESS_WRITE ? PTE_D : 0);

		if ((pte & want) != want) {
			if (!pte_set(slot, pte, want))
				goto again;
			pte |= want;
		}
		if (shift > 12)
			note_large(known, walked_key(cpu, va), va, shift, pte, allowed);
	}
	ret->gpa = (pte & PTE_ADDR & ~(size - 1)) | (va & (size - 1));
	ret->host = ram_at(cpu, ret->gpa & PAGE_MASK, PAGE_SIZE);
	if (ret->host)
		ret->host += ret->gpa & 4095;
	ret->writable = write_ok && pte & PTE_D;
	ret->global = pte & PTE_G && cpu->cr4 & CR4_PGE;
	ret->user = allowed & PTE_U;
	ret->exec = !nx;
	ret->shift = (uint8_t)shift;
	return 0;
}

static inline void note_temporary(struct cpu *cpu, uint64_t va)
{
	if (cpu->nuser_in_kernel < USER_IN_KERNEL_MAX)
		cpu->user_in_kernel[cpu->nuser_in_kernel++] = va;
	else
		cpu->nuser_in_kernel = USER_IN_KERNEL_MAX + 1;
}

/* Fills in the entry for a page; returns the accesses (MEM_*) that must be slow ones all the same. */
static unsigned set_entry(struct cpu *cpu, uint64_t va, unsigned rw, bool user, const struct translation *tr)
{
	struct window_private *w = cpu_window(cpu, cpu->context);
	unsigned n = tlb_index(va);
	struct tlb *tlb = user ? &w->utlb : &cpu->ktlb;
	uint64_t page = va & PAGE_MASK, host = (uint64_t)(uintptr_t)tr->host & PAGE_MASK;
	uint8_t flags = code_page_note_access(cpu->vm->cc, tr->gpa, tr->writable) & (PAGE_HAS_CODE | PAGE_CLEAN);
	unsigned slow = (flags ? MEM_WRITE : 0) | (cpu->debug.data ? debug_watched(cpu, va) : 0);

	if (user)
		note_filled(w, n);
	else if (!tr->global || !(va >> 63))
		note_temporary(cpu, va);
	large_pages_add(user ? &w->ularge : &cpu->klarge, va, tr->shift);
	cpu->ktlb_filled |= !user;
	tlb_set(tlb, n, page, host, rw, !(slow & MEM_READ), tr->writable && !(slow & MEM_WRITE));
	if (cpu->vm->ncpus > 1 && tr->writable && !flags) {
		/* Whoever claimed the page since may have looked for this entry too early: see claim_page(). */
		atomic_thread_fence(memory_order_seq_cst);
		flags = code_page_flags(cpu->vm->cc, tr->gpa) & (PAGE_HAS_CODE | PAGE_CLEAN);
		if (flags) {
			tlb->write.ntag[n] = never(n);
			slow |= MEM_WRITE;
		}
	}
	return slow;
}

enum fill mmu_fill(struct cpu *cpu, uint64_t va, unsigned rw, bool user, struct translation *ret_tr,
		   int *ret_vector, uint32_t *ret_error)
{
	*ret_vector = mmu_walk(cpu, va, rw, user, ret_tr, ret_error);
	if (*ret_vector)
		return FILL_FAULT;
	if (!ret_tr->host)
		return FILL_SLOW;
	return set_entry(cpu, va, rw, user, ret_tr) & rw ? FILL_SLOW : FILL_OK;
}

/* What @known, which is of the 2 MiB around @va, has as its page table entry; not present when it does not know. */
static inline uint64_t known_pte(const struct cpu *cpu, const struct walked *known, uint64_t va)
{
	uint64_t pte;

	if (known->key != walked_key(cpu, va))
		return 0;
	if (known->table)
		pte = __atomic_load_n(&known->table[va >> 12 & 511], __ATOMIC_RELAXED);
	else
		pte = known->large | (va & (LARGE_SIZE - 1) & PAGE_MASK);
	return pte & (known->allowed | ~(PTE_W | PTE_U));
}

/*
 * Fills in the entry for the page at @va, which is in the 2 MiB of @known, if no more than its page table entry has to be looked at
 * for an access @rw.  Nothing is changed in memory.
 */
static inline __attribute__((always_inline)) bool fill_quick(struct cpu *cpu, const struct walked *known, uint64_t va, unsigned rw,
							     bool user)
{
	uint64_t pte = known_pte(cpu, known, va), gpa = pte & PTE_ADDR;
	uint64_t need = PTE_P | PTE_A | (user ? PTE_U : 0) | (rw & MEM_WRITE ? PTE_W | PTE_D : 0);
	bool writable = (pte & (PTE_W | PTE_D)) == (PTE_W | PTE_D);
	struct window_private *w = (struct window_private *)(uintptr_t)(cpu->gs_window + WINDOW_SHARED);
	struct tlb *tlb = user ? &w->utlb : &cpu->ktlb;
	unsigned n = tlb_index(va);

	if ((pte & need) != need || gpa >= cpu->ram_size || (pte & PTE_NX && !(cpu->efer & EFER_NXE)) ||
	    (writable && atomic_load_explicit(&cpu->ram_flags[gpa / PAGE_SIZE], memory_order_relaxed) != PAGE_WRITE_CACHED))
		return false;
	if (user) {
		note_filled(w, n);
	} else {
		cpu->ktlb_filled = true;
		if (!(pte & PTE_G && cpu->cr4 & CR4_PGE && va >> 63))
			note_temporary(cpu, va);
	}
	if (!known->table)
		large_pages_add(user ? &w->ularge : &cpu->klarge, va, known->shift);
	tlb_set(tlb, n, va & PAGE_MASK, (uint64_t)(uintptr_t)cpu->ram + gpa, rw, true, writable);
	if (cpu->vm->ncpus > 1 && writable) {	/* as in set_entry() */
		atomic_thread_fence(memory_order_seq_cst);
		if (atomic_load(&cpu->ram_flags[gpa / PAGE_SIZE]) != PAGE_WRITE_CACHED) {
			tlb->write.ntag[n] = never(n);
			return false;
		}
	}
	return true;
}

/* Whether there are entries for the two pages from @page on in steps of @step bytes. */
static inline bool has_two(const struct tlb_side *side, uint64_t page, uint64_t step)
{
	return side->ntag[tlb_index(page)] == 0 - page && side->ntag[tlb_index(page + step)] == 0 - (page + step);
}

/*
 * Who missed at @va after the two pages before it, or behind it, goes on in order, most likely: the pages that follow are filled in
 * before they are missed, as a processor may (SDM vol. 3, 4.10.2.3).  A miss costs more than itself: the loads behind it begin after it.
 */
static inline __attribute__((always_inline)) void fill_ahead(struct cpu *cpu, const struct walked *known, uint64_t va, unsigned rw,
							     bool user)
{
	const struct window_private *w = (const struct window_private *)(uintptr_t)(cpu->gs_window + WINDOW_SHARED);
	const struct tlb_side *side = tlb_side(user ? &w->utlb : &cpu->ktlb, rw);
	uint64_t page = va & PAGE_MASK, step;

	if (has_two(side, page - PAGE_SIZE, 0ull - PAGE_SIZE))
		step = PAGE_SIZE;
	else if (has_two(side, page + PAGE_SIZE, PAGE_SIZE))
		step = 0ull - PAGE_SIZE;
	else
		return;
	for (unsigned i = 0; i < AHEAD; i++) {
		uint64_t in = side->ntag[tlb_index(page += step)];

		/* Only what the same copy has left behind makes room for it. */
		if ((page ^ va) >> LARGE_SHIFT || (in != 0 - (page - step * TLB_ENTRIES) && in != never(tlb_index(page)) && in) ||
		    !fill_quick(cpu, known, page, rw, user))
			return;
	}
}

uint64_t dbt_miss_quick(struct cpu *cpu)
{
	const struct miss_site *site = (const struct miss_site *)(uintptr_t)cpu->miss_data;
	uint64_t va = cpu->miss_address;
	const struct walked *known = walked_slot(cpu, va);

	if (cpu->debug.data || (va & 4095) + site->size > PAGE_SIZE || !fill_quick(cpu, known, va, site->rw, site->user))
		return 0;
	fill_ahead(cpu, known, va, site->rw, site->user);
	cpu->stats.tlb_miss++;
	return site_pc(cpu->miss_data, site);
}

/* One access inside a page through the TLB; 0, a vector, or -1 for "not RAM". */
static int page_access(struct cpu *cpu, uint64_t va, unsigned rw, bool user, uint8_t **ret_host,
		       struct translation *tr, uint32_t *ret_error)
{
	const struct tlb_side *side = tlb_side(user ? &cpu_window(cpu, cpu->context)->utlb : &cpu->ktlb, rw);
	unsigned n = tlb_index(va);
	int vector;

	if (va + side->ntag[n] < PAGE_SIZE) {
		*ret_host = (uint8_t *)(uintptr_t)(side->host[n] + (va & 4095));
		tr->host = NULL;
		return 0;
	}
	switch (mmu_fill(cpu, va, rw, user, tr, &vector, ret_error)) {
	case FILL_FAULT:
		return vector;
	case FILL_OK:
		*ret_host = tr->host;
		return 0;
	case FILL_SLOW:
		*ret_host = tr->host;
		return -1;
	}
	return -1;
}

uint8_t *mmu_host(struct cpu *cpu, uint64_t va, unsigned rw, bool user)
{
	struct translation tr;
	uint32_t error;
	uint8_t *host;

	return page_access(cpu, va, rw, user, &host, &tr, &error) == 0 ? host : NULL;
}

int mem_probe(struct cpu *cpu, uint64_t va, unsigned size, unsigned rw, bool user, uint32_t *ret_error)
{
	struct translation tr;
	uint8_t *host;
	int r = page_access(cpu, va, rw, user, &host, &tr, ret_error);

	if (r > 0) {
		cpu->fault_va = va;
		return r;
	}
	if ((va & 4095) + size <= PAGE_SIZE)
		return 0;
	va = (va & PAGE_MASK) + PAGE_SIZE;
	r = page_access(cpu, va, rw, user, &host, &tr, ret_error);
	if (r > 0)
		cpu->fault_va = va;
	return r > 0 ? r : 0;
}

void mmu_hold(struct cpu *cpu)
{
	if (cpu->vm->ncpus > 1)
		atomic_fetch_add(&cpu->strips, 1);
}

void mmu_drop(struct cpu *cpu)
{
	mmu_hold(cpu);
}

/* copy_bytes() for the sizes that delivery and IRET have: starting REP MOVSB takes longer than they do. */
static void copy_words(void *dst, const void *src, unsigned size)
{
	typedef uint64_t __attribute__((may_alias, aligned(1))) word;
	word *d = dst;
	const word *s = src;

	if (size % 8 || size > 64) {
		copy_bytes(dst, src, size);
		return;
	}
	for (unsigned i = 0; i < size / 8; i++)
		d[i] = s[i];
}

static int copy_piece(struct cpu *cpu, uint64_t va, uint8_t *buf, unsigned size, unsigned rw, bool user,
		      uint32_t *ret_error)
{
	struct translation tr;
	uint8_t *host;
	int r;

	if (rw & MEM_WRITE)
		mmu_hold(cpu);
	r = page_access(cpu, va, rw, user, &host, &tr, ret_error);
	if (r && rw & MEM_WRITE)
		mmu_drop(cpu);
	if (r > 0) {
		cpu->fault_va = va;
		return r;
	}
	if (r < 0 && !tr.host) {	/* a device: byte by byte is all anyone may expect here */
		for (unsigned i = 0; i < size; i++)
			if (rw & MEM_WRITE)
				mmio_write(cpu, tr.gpa + i, 1, buf[i]);
			else
				buf[i] = (uint8_t)mmio_read(cpu, tr.gpa + i, 1);
		return 0;
	}
	if (rw & MEM_WRITE) {
		switch (size) {	/* one store, so that other vCPUs see all or nothing */
		case 4: __atomic_store_n((uint32_t *)(void *)host, *(uint32_t *)(void *)buf, __ATOMIC_RELAXED); break;
		case 8: __atomic_store_n((uint64_t *)(void *)host, *(uint64_t *)(void *)buf, __ATOMIC_RELAXED); break;
		default: copy_words(host, buf, size); break;
		}
		if (r == 0)
			mmu_drop(cpu);
		else
			page_written(cpu, tr.gpa, size);
	} else {
		switch (size) {
		case 4: *(uint32_t *)(void *)buf = __atomic_load_n((uint32_t *)(void *)host, __ATOMIC_RELAXED); break;
		case 8: *(uint64_t *)(void *)buf = __atomic_load_n((uint64_t *)(void *)host, __ATOMIC_RELAXED); break;
		default: copy_words(buf, host, size); break;
		}
	}
	return 0;
}

static int copy_guest(struct cpu *cpu, uint64_t va, uint8_t *buf, unsigned size, unsigned rw, bool user,
		      uint32_t *ret_error)
{
	uint64_t start = va;
	unsigned all = size;
	int r = 0;

	if ((va & 4095) + size > PAGE_SIZE && rw & MEM_WRITE) {	/* all or nothing */
		for (uint64_t page = va & PAGE_MASK; page < va + size && !r; page += PAGE_SIZE)
			r = mem_probe(cpu, page < va ? va : page, 1, rw, user, ret_error);
		if (r)
			return r;
	}
	while (size && !r) {
		unsigned here = (unsigned)(PAGE_SIZE - (va & 4095));

		if (here > size)
			here = size;
		r = copy_piece(cpu, va, buf, here, rw, user, ret_error);
		va += here;
		buf += here;
		size -= here;
	}
	if (!r && cpu->debug.data)
		debug_accessed(cpu, start, all, rw);
	return r;
}

int mem_load(struct cpu *cpu, uint64_t va, void *dst, unsigned size, bool user, uint32_t *ret_error)
{
	return copy_guest(cpu, va, dst, size, MEM_READ, user, ret_error);
}

int mem_store(struct cpu *cpu, uint64_t va, const void *src, unsigned size, bool user, uint32_t *ret_error)
{
	return copy_guest(cpu, va, (uint8_t *)(uintptr_t)src, size, MEM_WRITE, user, ret_error);
}
