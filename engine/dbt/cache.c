/* SPDX-License-Identifier: Apache-2.0 */
/* The range of addresses that a code cache is in. */
#include "engine/dbt/block.h"

#include "engine/dbt/cpu.h"
#include "engine/dbt/run.h"
#include "os/err.h"
#include "os/file.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#define ARENA_BYTES (512ull << 20)
#define UNIT_BITS_MIN 12u
#define UNITS_MAX 2048u	/* each may become two mappings more, of which a process may have 65530 */
#define RANGE_START (17ull << 40)	/* behind the sanitizers' shadow memory */
#define RANGE_END (79ull << 40)	/* in front of where position-independent programs begin */

/* Parts of the range: translated code twice, the struct, tables. */
struct layout {
	size_t rw, cache, blocks, exits, arena, flags, end;	/* offsets; executable code is at 0 */
};

static size_t pages(size_t bytes)
{
	return (bytes + PAGE_SIZE - 1) & PAGE_MASK;
}

static struct layout layout_of(const struct mem *mem)
{
	struct layout l;

	l.rw = CODE_CACHE_BYTES;
	l.cache = l.rw + CODE_CACHE_BYTES;
	l.blocks = l.cache + pages(sizeof(struct code_cache));
	l.exits = l.blocks + pages(sizeof(struct block) * BLOCKS_MAX);
	l.arena = l.exits + pages(sizeof(struct exit) * EXITS_MAX);
	l.flags = l.arena + ARENA_BYTES;
	l.end = l.flags + pages(mem->size / PAGE_SIZE);
	return l;
}

/* Where neither a program nor its libraries, stacks or heap are, whatever the kernel's dice say. */
static uint64_t choose_base(void)
{
	uint64_t dice = 0;

	(void)getrandom(&dice, sizeof(dice), GRND_NONBLOCK);
	return RANGE_START + dice % ((RANGE_END - RANGE_START) / CODE_CACHE_ALIGN) * CODE_CACHE_ALIGN;
}

static int map_code(struct code_cache *cc)
{
	cc->fd = memfd_create("roux-code", MFD_CLOEXEC);
	if (cc->fd < 0 || ftruncate(cc->fd, (off_t)cc->size) < 0 ||
	    mmap(cc->rx, cc->size, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_FIXED, cc->fd, 0) == MAP_FAILED ||
	    mmap(cc->rw, cc->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, cc->fd, 0) == MAP_FAILED)
		return -errno;
	return 0;
}

int code_cache_create_at(uint64_t base, const struct mem *mem, struct code_cache **ret_cache, struct err *err)
{
	struct layout l = layout_of(mem);
	struct code_cache *cc;
	uint8_t *at = mmap((void *)(uintptr_t)base, l.end, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
	int r;

	if (at == MAP_FAILED)
		return err_set(err, -errno, "cannot reserve memory for translated code: "
			       "raise the limit of virtual memory (ulimit -v)");
	cc = (struct code_cache *)(void *)(at + l.cache);
	cc->base = at;
	cc->mem = mem;
	cc->size = CODE_CACHE_BYTES;
	cc->cold = COLD_START;
	cc->arena_size = ARENA_BYTES;
	cc->npages = mem->size / PAGE_SIZE;
	cc->kernel_epoch = 1;
	cc->rx = at;
	cc->rw = at + l.rw;
	cc->blocks = (struct block *)(void *)(at + l.blocks);
	cc->exits = (struct exit *)(void *)(at + l.exits);
	cc->arena = at + l.arena;
	cc->page_flags = (_Atomic uint8_t *)(at + l.flags);
	r = map_code(cc);
	if (r < 0) {
		code_cache_destroy(cc);
		return err_set(err, r, "cannot make memory for translated code: %s", strerror(-r));
	}
	*ret_cache = cc;
	return 0;
}

bool code_cache_in_way(const struct code_cache *cc, uint64_t base)
{
	uint64_t ours = (uint64_t)(uintptr_t)cc->base, len = layout_of(cc->mem).end;

	return base - ours < len || ours - base < len;
}

int code_cache_create(const struct mem *mem, struct code_cache **ret_cache, struct err *err)
{
	int r;

	do
		r = code_cache_create_at(choose_base(), mem, ret_cache, err);
	while (r == -EEXIST);
	return r;
}

static int read_all(int fd, uint8_t *to, size_t bytes, uint64_t offset)
{
	ssize_t n = file_read_at(fd, to, bytes, offset);

	return n < 0 ? (int)n : (size_t)n == bytes ? 0 : -EIO;
}

static int map_part(struct code_cache *cc, int fd, size_t from, size_t to, uint64_t offset)
{
	if (mmap(cc->rx + from, to - from, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_FIXED, fd, (off_t)offset) == MAP_FAILED ||
	    mmap(cc->rw + from, to - from, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, (off_t)offset) == MAP_FAILED)
		return -errno;
	for (size_t i = from >> cc->unit_bits; i < to >> cc->unit_bits; i++)
		cc->shared[i / 64] |= 1ull << i % 64;
	return 0;
}

/* The thunks in front are a process's own.  What does not fill a unit is copied. */
static int share_part(struct code_cache *cc, int fd, const struct code_part *p)
{
	size_t unit = (size_t)1 << cc->unit_bits, end = p->start + p->bytes;
	size_t from = ((p->start ? p->start : THUNK_BYTES) + unit - 1) & ~(unit - 1), to = end & ~(unit - 1);
	int r;

	if (to <= from)
		return read_all(fd, cc->rw + p->start, p->bytes, p->offset);
	r = map_part(cc, fd, from, to, p->offset + from - p->start);
	if (r == 0)
		r = read_all(fd, cc->rw + p->start, from - p->start, p->offset);
	return r < 0 ? r : read_all(fd, cc->rw + to, end - to, p->offset + to - p->start);
}

int code_cache_copy(struct code_cache *cc, int fd, const struct code_part *parts, unsigned nparts)
{
	int r = 0;

	for (unsigned i = 0; i < nparts && r == 0; i++)
		r = read_all(fd, cc->rw + parts[i].start, parts[i].bytes, parts[i].offset);
	return r;
}

int code_cache_share(struct code_cache *cc, int fd, const struct code_part *parts, unsigned nparts)
{
	size_t bytes = 0;
	int r = 0;

	for (unsigned i = 0; i < nparts; i++)
		bytes += parts[i].bytes;
	cc->unit_bits = UNIT_BITS_MIN;
	while (bytes >> cc->unit_bits > UNITS_MAX)
		cc->unit_bits++;
	zero_bytes(cc->shared, sizeof(cc->shared));
	cc->spare_rw = mmap(NULL, cc->size, PROT_READ | PROT_WRITE, MAP_SHARED, cc->fd, 0);
	cc->spare_rx = mmap(NULL, cc->size, PROT_READ | PROT_EXEC, MAP_SHARED, cc->fd, 0);
	if (cc->spare_rw == MAP_FAILED || cc->spare_rx == MAP_FAILED)
		return -errno;
	for (unsigned i = 0; i < nparts && r == 0; i++)
		r = share_part(cc, fd, &parts[i]);
	return r;
}

static void unmap_spare(const struct code_cache *cc, uint8_t *at)
{
	if (at && at != MAP_FAILED)
		(void)munmap(at, cc->size);
}

void code_cache_destroy(struct code_cache *cc)
{
	if (!cc)
		return;
	unmap_spare(cc, cc->spare_rw);
	unmap_spare(cc, cc->spare_rx);
	if (cc->fd >= 0)
		(void)close(cc->fd);
	(void)munmap(cc->base, layout_of(cc->mem).end);
}
