/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From cpu->rip to its block: known, translated by another VM, or translated now
 * from pages that are claimed, so that writes to them are noticed.
 */
#include "engine/dbt/run.h"

#include <linux/membarrier.h>

struct translate_job {
	struct block_source src;
	struct block *made;
};

static void run_translate(struct cpu *cpu, void *arg)
{
	struct translate_job *j = arg;

	dormant_note(cpu->vm->cc, &j->src);
	j->made = translate(cpu->vm->cc, cpu, &j->src);
}

/* Until the loop that @cpu is in now, if any, has given up its look-ups for writing (see loop.c). */
static void wait_for_strip(struct cpu *cpu)
{
	uint32_t now = atomic_load(&cpu->strips);

	while (now & 1 && atomic_load(&cpu->strips) == now) {
		ask_to_exit(cpu);
		(void)raw_syscall4(SYS_sched_yield, 0, 0, 0, 0);
	}
}

/*
 * Until @cpu has been outside translated code: there a store may be under way whose
 * look-up came first.  C code that writes marks itself in cpu.strips instead.
 */
static void wait_for_store(struct cpu *cpu)
{
	uint32_t looks = atomic_load(&cpu->looks);

	while (__atomic_load_n(&cpu->in_code, __ATOMIC_SEQ_CST) && atomic_load(&cpu->looks) == looks) {
		ask_to_exit(cpu);
		(void)raw_syscall4(SYS_sched_yield, 0, 0, 0, 0);
	}
}

/*
 * From now on writes to the page are noticed, on every vCPU: whoever held a look-up
 * for writing has done the write, which what is translated next includes.
 */
static void claim_page(struct cpu *cpu, gpa_t gpa, const uint8_t *host)
{
	struct code_cache *cc = cpu->vm->cc;
	uint64_t i = code_page_index(cc, gpa);
	uint8_t old, holders = 0;

	if (i == ~0ull)
		return;
	old = atomic_fetch_or(&cc->page_flags[i], PAGE_HAS_CODE);
	if (!(old & PAGE_WRITE_CACHED))
		return;
	atomic_fetch_and(&cc->page_flags[i], (uint8_t)~PAGE_WRITE_CACHED);
	for (unsigned k = 0; k < cpu->vm->ncpus; k++)
		if (mmu_protect_host_page(cpu->vm->cpu[k], (uint64_t)(uintptr_t)host & PAGE_MASK) && cpu->vm->cpu[k] != cpu)
			holders |= (uint8_t)(1u << k);
	if (cpu->vm->ncpus == 1)
		return;
	/* in_code is set without a fence: the barrier orders it against the look-ups of every thread that runs. */
	(void)raw_syscall4(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0, 0);
	for (unsigned k = 0; k < cpu->vm->ncpus; k++) {
		if (cpu->vm->cpu[k] != cpu)
			wait_for_strip(cpu->vm->cpu[k]);
		if (holders >> k & 1)
			wait_for_store(cpu->vm->cpu[k]);
	}
}

/* What another VM has translated already.  The page is claimed. */
static struct block *find_dormant(struct cpu *cpu, const struct block_source *src)
{
	struct code_cache *cc = cpu->vm->cc;
	const uint8_t *page = src->bytes - (src->pa & ~PAGE_MASK);

	if (!(src->mode & BLOCK_USER))
		return dormant_wake(cc, src->pa, src->mode, src->va, page);
	return dormant_wake_page(cc, src->pa & PAGE_MASK, page) ? block_find(cc, src->pa, src->mode, src->va) : NULL;
}

/* The page behind that of cpu->rip, where its instruction may go on. */
static uint64_t next_page(const struct cpu *cpu)
{
	return (cpu->rip & PAGE_MASK) + PAGE_SIZE;
}

static int walk_next_page(struct cpu *cpu, unsigned access, struct translation *ret, uint32_t *ret_error)
{
	return mmu_walk(cpu, next_page(cpu), access, cpu->cpl == 3, ret, ret_error);
}

/* @tr: of cpu->rip.  @ret_next: of the next page, for a block that has one. */
static struct block *make_block(struct cpu *cpu, struct translate_job *j, const struct translation *tr, struct translation *ret_next)
{
	uint32_t error;
	bool crosses = (cpu->rip & 4095) + INSN_LEN_MAX > PAGE_SIZE;

	j->src.bytes = tr->host;
	claim_page(cpu, j->src.pa, tr->host);
	j->made = find_dormant(cpu, &j->src);
	if (j->made) {
		cpu->stats.woken++;
		return j->made;
	}
	if (crosses && walk_next_page(cpu, ACCESS_EXEC | ACCESS_PROBE, ret_next, &error) == 0 && ret_next->host) {
		j->src.pa2 = ret_next->gpa;
		j->src.bytes2 = ret_next->host;
		claim_page(cpu, j->src.pa2, ret_next->host);
	}
	cpu_heavy(cpu, run_translate, j);
	if (j->made)
		return j->made;
	if (code_cache_full(cpu->vm->cc)) {
		cpu->leave = LEAVE_FLUSH;
	} else if (crosses && !j->src.bytes2) {
		int vector = walk_next_page(cpu, ACCESS_EXEC, ret_next, &error);

		if (vector) {
			raise_access(cpu, vector, next_page(cpu), error);
		} else {
			cpu->fatal = "the guest executes an instruction that continues in device memory";
			cpu->leave = LEAVE_ERROR;
		}
	} else {
		cpu->fatal = "a block could not be translated";
		cpu->leave = LEAVE_ERROR;
	}
	return NULL;
}

bool may_cache(const struct cpu *cpu, const struct block *b)
{
	if (b->mode & (BLOCK_SINGLE | BLOCK_SLOW | BLOCK_PLAIN))
		return false;
	return !(b->mode & BLOCK_BREAK) || !code_breaks_at(cpu->vm->cc, b->pa);
}

struct entry_job {
	struct block *b;
	enum arrival arrival;
	bool made;
};

static void run_make_entry(struct cpu *cpu, void *arg)
{
	struct entry_job *j = arg;

	j->made = block_make_entry(cpu->vm->cc, j->b, j->arrival);
}

bool has_entry(struct cpu *cpu, struct block *b, enum arrival arrival)
{
	struct entry_job j = { b, arrival, block_at(b, arrival) != NULL };

	if (!j.made && !code_cache_full(cpu->vm->cc))
		cpu_heavy(cpu, run_make_entry, &j);
	return j.made;
}

struct block *cpu_find_block(struct cpu *cpu, uint32_t mode, enum arrival arrival)
{
	struct translation tr, next;
	struct block *b;
	uint32_t error;
	int vector = mmu_walk(cpu, cpu->rip, ACCESS_EXEC, cpu->cpl == 3, &tr, &error);

	if (vector) {
		raise_access(cpu, vector, cpu->rip, error);
		return NULL;
	}
	if (!tr.host) {
		cpu->fatal = "the guest executes device memory";
		cpu->leave = LEAVE_ERROR;
		return NULL;
	}
	lock_take(&cpu->vm->cc->lock);
	b = block_find(cpu->vm->cc, tr.gpa, mode, cpu->rip);
	if (b && b->pa2 != ~0ull && (walk_next_page(cpu, ACCESS_EXEC, &next, &error) || next.gpa != b->pa2)) {
		block_remove(cpu->vm->cc, b);	/* the second page is not the one that was translated */
		b = NULL;
	}
	if (!b) {
		struct translate_job j = { { .pa = tr.gpa, .pa2 = ~0ull, .va = cpu->rip, .mode = mode, .arrival = arrival }, NULL };

		b = make_block(cpu, &j, &tr, &next);
	}
	if (b)
		mmu_note_exec(cpu, cpu->rip, mode, &tr);
	if (b && b->pa2 != ~0ull)
		mmu_note_exec(cpu, cpu->rip + PAGE_SIZE, mode, &next);
	if (b && arrival == ARRIVE_INDIRECT && may_cache(cpu, b) && has_entry(cpu, b, arrival))	/* under the lock: or it may be gone before */
		jc_insert(cpu, cpu->rip, b);
	lock_drop(&cpu->vm->cc->lock);
	return b;
}
