/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Translated code kept with a snapshot.  A process that has the code cache at the same
 * addresses, and whose guest memory is the same, can go on with it: only the thunks, in its
 * first page, name addresses of the program.
 *
 *   page 0   struct kept
 *   pages    translated code, stubs, then the parts of struct layout that are in use, then the
 *            kernel's jumps
 *
 * Code that was set aside (dormant.c) suits guests with other memory: it is copied, as most of it will be linked
 * anew, and nothing is known of the guest's pages.
 *
 * Tables are mapped privately, so that they are shared with every other process that came
 * from the snapshot, until they change.
 */
#include "engine/dbt/engine_dbt.h"

#include "base/checked.h"
#include "engine/dbt/run.h"
#include "os/err.h"
#include "vmm/vm.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PARTS 7

struct kept {
	char magic[8];
	struct program program;	/* that translated */
	uint64_t base;	/* of the code cache */
	uint64_t bytes[PARTS];	/* of what follows, each rounded up to pages */
	uint64_t njumps;	/* struct kept_jump behind that */
	uint32_t aside;	/* it was set aside, for guests that are told @cpuid */
	struct cpuid_table cpuid;
};

_Static_assert(sizeof(struct kept) <= PAGE_SIZE, "it is in the first page");

static const char magic[8] = { 'd', 'b', 't', 'c', 'o', 'd', 'e', '5' };

struct part {
	uint8_t *at;
	size_t bytes;
};

/* What is in use, in the order of the file. */
static void parts_of(const struct dbt_vm *dv, struct part part[PARTS])
{
	const struct code_cache *cc = dv->cc;

	part[0] = (struct part){ cc->rw, cc->used };
	part[1] = (struct part){ cc->rw + COLD_START, cc->cold - COLD_START };
	part[2] = (struct part){ (uint8_t *)(uintptr_t)cc, sizeof(*cc) };
	part[3] = (struct part){ (uint8_t *)cc->blocks, cc->nblocks * sizeof(*cc->blocks) };
	part[4] = (struct part){ (uint8_t *)cc->exits, cc->nexits * sizeof(*cc->exits) };
	part[5] = (struct part){ cc->arena, cc->arena_used };
	part[6] = (struct part){ (uint8_t *)(uintptr_t)cc->page_flags, dv->aside ? 0 : cc->npages };
}

static uint64_t pages(uint64_t bytes)
{
	return (bytes + PAGE_SIZE - 1) & PAGE_MASK;
}

/* What the kernel's jump caches hold, of kernels that map themselves the same everywhere; NULL counts. */
static uint64_t list_jumps(const struct code_cache *cc, struct kept_jump *to)
{
	uint64_t n = 0;

	for (uint32_t i = 0; i < cc->nblocks; i++) {
		const struct block *b = &cc->blocks[i];

		if (!b->valid || !b->cached || !b->entry || b->mode != 0 || b->pa2 != ~0ull)
			continue;
		if (to)
			to[n] = (struct kept_jump){ b->cached_va, b->pa, (uint64_t)(uintptr_t)b->entry };
		n++;
	}
	return n;
}

void dbt_drop_kept(struct dbt_vm *dv)
{
	if (dv->jumps)
		(void)munmap(dv->jumps, pages(dv->njumps * sizeof(*dv->jumps)));
	dv->jumps = NULL;
	dv->njumps = 0;
}

void dbt_forget(struct vm *vm)
{
	struct dbt_vm *dv = vm->engine_data;

	dbt_drop_kept(dv);
	code_cache_reset(dv->cc);
	dv->cc->recording = dv->aside = false;
	for (unsigned i = 0; i < dv->ncpus; i++)
		mmu_init(dv->cpu[i]);
}

void dbt_record(struct vm *vm)
{
	struct dbt_vm *dv = vm->engine_data;

	dv->cc->recording = true;
}

void dbt_set_aside(struct vm *vm, bool done)
{
	struct dbt_vm *dv = vm->engine_data;

	dv->aside = !done;
	if (done)
		return;
	lock_take(&dv->cc->lock);
	dormant_all(dv->cc);
	lock_drop(&dv->cc->lock);
}

uint64_t dbt_kept_bytes(struct vm *vm)
{
	const struct dbt_vm *dv = vm->engine_data;
	struct part part[PARTS];
	uint64_t sum = PAGE_SIZE;

	if (!dv->program.inode)
		return 0;
	parts_of(dv, part);
	for (unsigned i = 0; i < PARTS; i++)
		sum += pages(part[i].bytes);
	return sum + pages(list_jumps(dv->cc, NULL) * sizeof(struct kept_jump));
}

void dbt_keep(struct vm *vm, uint8_t *to)
{
	struct dbt_vm *dv = vm->engine_data;
	struct kept *k = (struct kept *)(void *)to;
	struct part part[PARTS];

	*k = (struct kept){ .program = dv->program, .base = (uint64_t)(uintptr_t)dv->cc->base,
			    .aside = dv->aside, .cpuid = *dv->cpuid };
	memcpy(k->magic, magic, sizeof(magic));
	parts_of(dv, part);
	to += PAGE_SIZE;
	for (unsigned i = 0; i < PARTS; i++) {
		k->bytes[i] = part[i].bytes;
		memcpy(to, part[i].at, part[i].bytes);
		to += pages(part[i].bytes);
	}
	k->njumps = list_jumps(dv->cc, (struct kept_jump *)(void *)to);
	dv->taken_blocks = dv->cc->nblocks;
	dv->taken_generation = dv->cc->generation;
}

unsigned dbt_learned(struct vm *vm, const uint8_t *memory)
{
	struct dbt_vm *dv = vm->engine_data;
	struct code_cache *cc = dv->cc;
	unsigned n = 0;

	if (cc->generation != dv->taken_generation)
		return 0;	/* much of what was brought is gone */
	if (!memory)
		return cc->nblocks - dv->taken_blocks;
	lock_take(&cc->lock);
	for (unsigned i = 0; i < vm->mem->nbanks; i++) {
		const struct mem_bank *b = &vm->mem->bank[i];

		for (uint64_t at = 0; at < b->size; at += PAGE_SIZE)
			if (cc->page_flags[(b->offset + at) / PAGE_SIZE] & PAGE_HAS_CODE &&
			    memcmp(b->host + at, memory + b->offset + at, PAGE_SIZE) != 0)
				dormant_page(cc, b->base + at, b->host + at);
	}
	for (uint32_t i = dv->taken_blocks; i < cc->nblocks; i++)
		n += cc->blocks[i].valid || cc->blocks[i].dormant;
	lock_drop(&cc->lock);
	return n;
}

static bool fits(const struct kept *k, const struct dbt_vm *dv, uint64_t bytes)
{
	uint64_t sum = PAGE_SIZE;

	if (memcmp(k->magic, magic, sizeof(magic)) != 0 || memcmp(&k->program, &dv->program, sizeof(k->program)) != 0 ||
	    !k->program.inode || k->base % CODE_CACHE_ALIGN)
		return false;
	for (unsigned i = 0; i < PARTS; i++) {
		if (k->bytes[i] > bytes)
			return false;
		sum += pages(k->bytes[i]);
	}
	if (k->aside && (k->cpuid.nentries > CPUID_ENTRIES_MAX || !cpuid_same(&k->cpuid, dv->cpuid)))
		return false;
	if (k->njumps > k->bytes[3] / sizeof(struct block))
		return false;
	sum += pages(k->njumps * sizeof(struct kept_jump));
	return sum == bytes && k->bytes[0] >= THUNK_BYTES && k->bytes[0] <= COLD_START &&
	       k->bytes[1] <= CODE_CACHE_BYTES - COLD_START && k->bytes[2] == sizeof(struct code_cache) &&
	       k->bytes[3] <= BLOCKS_MAX * sizeof(struct block) && k->bytes[4] <= EXITS_MAX * sizeof(struct exit) &&
	       k->bytes[5] <= dv->cc->arena_size && k->bytes[6] == (k->aside ? 0 : dv->cc->npages);
}

/* Tables of the file in the place of @cc's own, which are empty. */
static int take_parts(struct code_cache *cc, const struct kept *k, int fd, uint64_t at)
{
	uint8_t *base = cc->base, *rx = cc->rx;
	const struct mem *mem = cc->mem;
	struct code_part code[2];
	_Atomic uint8_t *page_flags = cc->page_flags;
	uint64_t npages = cc->npages;
	int own_fd = cc->fd;
	uint8_t *to[PARTS] = { cc->rw, cc->rw + COLD_START, (uint8_t *)(uintptr_t)cc, (uint8_t *)cc->blocks,
			       (uint8_t *)cc->exits, cc->arena, (uint8_t *)(uintptr_t)cc->page_flags };
	int r = 0;

	at += PAGE_SIZE;
	for (unsigned i = 0; i < PARTS && r == 0; i++) {
		if (i < 2)
			code[i] = (struct code_part){ .start = i ? COLD_START : 0, .bytes = k->bytes[i], .offset = at };
		else if (k->bytes[i] && mmap(to[i], pages(k->bytes[i]), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, fd,
					     (off_t)at) == MAP_FAILED)
			r = -errno;
		at += pages(k->bytes[i]);
	}
	cc->lock = (struct lock){ 0 };
	cc->fd = own_fd;
	cc->mem = mem;
	cc->unit_bits = 0;
	cc->spare_rw = cc->spare_rx = NULL;
	if (k->aside) {
		cc->npages = npages;
		cc->page_flags = page_flags;
	}
	if (r == 0)
		r = k->aside ? code_cache_copy(cc, fd, code, ARRAY_SIZE(code)) : code_cache_share(cc, fd, code, ARRAY_SIZE(code));
	if (r < 0)
		return r;
	return cc->base == base && cc->rx == rx && cc->size == CODE_CACHE_BYTES && cc->npages == npages ? 0 : -EINVAL;
}

/* They only save look-ups. */
static void take_jumps(struct dbt_vm *dv, const struct kept *k, int fd, uint64_t offset, uint64_t bytes)
{
	size_t len = pages(k->njumps * sizeof(struct kept_jump));
	void *at = len ? mmap(NULL, len, PROT_READ, MAP_PRIVATE, fd, (off_t)(offset + bytes - len)) : MAP_FAILED;

	dbt_drop_kept(dv);
	if (at == MAP_FAILED)
		return;
	dv->jumps = at;
	dv->njumps = k->njumps;
	for (unsigned i = 0; i < dv->ncpus; i++)
		dv->cpu[i]->takes_jumps = true;
}

int dbt_take_kept(struct vm *vm, int fd, uint64_t offset, uint64_t bytes, struct err *err)
{
	struct dbt_vm *dv = vm->engine_data;
	struct code_cache *cc;
	struct kept k;
	int r = bytes >= PAGE_SIZE && pread(fd, &k, sizeof(k), (off_t)offset) == sizeof(k) ? 0 : -EINVAL;

	if (r == 0 && !fits(&k, dv, bytes))
		r = -EINVAL;
	if (r < 0)
		return err_set(err, r, "translated code is of another roux, and made anew");
	if (code_cache_in_way(dv->cc, k.base))	/* one in 20,000 is, by chance */
		r = dbt_new_code_cache(vm, err);
	if (r == 0)
		r = code_cache_create_at(k.base, vm->mem, &cc, err);
	if (r < 0)
		return r;
	r = take_parts(cc, &k, fd, offset);
	if (r < 0) {
		code_cache_destroy(cc);
		return err_set(err, r, "translated code cannot be read, and is made anew: %s", strerror(-r));
	}
	cc->on_drop = dv->cc->on_drop;
	cc->on_misplace = dv->cc->on_misplace;
	cc->ctx = dv;
	code_cache_destroy(dv->cc);
	dbt_use_code_cache(vm, cc);
	dv->taken_blocks = cc->nblocks;
	dv->taken_generation = cc->generation;
	take_jumps(dv, &k, fd, offset, bytes);
	return 0;
}

void dbt_take_jumps(struct dbt_vm *dv, struct cpu *cpu)
{
	if (cpu->takes_jumps)
		jc_fill(cpu, dv->jumps, dv->njumps);
	cpu->takes_jumps = false;
}

void dbt_note_program(struct dbt_vm *dv)
{
	struct stat st;

	if (stat("/proc/self/exe", &st) == 0)
		dv->program = (struct program){ st.st_dev, st.st_ino, (uint64_t)st.st_size, (uint64_t)st.st_mtim.tv_sec,
						(uint64_t)st.st_mtim.tv_nsec };
}
