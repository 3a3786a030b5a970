/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/guest_mem.h"

#include "base/checked.h"
#include "os/err.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#define RUN_MAX (1u << 20)	/* bytes that mem_each() has at once */
#define MEM_ALIGN 0x200000ull	/* banks are multiples of a large page */
#define BARE_LEAST (8 * MEM_ALIGN)	/* of a hole that is worth a mapping of its own */

static int map_over(uint8_t *host, uint64_t size, int fd, uint64_t fd_offset)
{
	int flags = MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE | (fd < 0 ? MAP_ANONYMOUS : 0);

	return mmap(host, size, PROT_READ | PROT_WRITE, flags, fd, (off_t)fd_offset) == MAP_FAILED ? -errno : 0;
}

/* No RAM is in core files.  @large: it is of no file and comes in large pages. */
static void advise(uint8_t *host, uint64_t size, bool large)
{
	(void)madvise(host, size, MADV_DONTDUMP);
	if (!large)
		return;
	(void)prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, host, size, "roux-ram");	/* for people who read smaps */
	(void)madvise(host, size, MADV_HUGEPAGE);
}

/*
 * Holes of the file become memory of no file: that comes in large pages, and is not first made of zeroes in the host's page cache, then
 * copied.  Looks at every BARE_LEAST / 2 bytes, so that holes of less than half as much again may be missed, until it has a few.
 */
static int bare_holes(struct mem_bank *b, int fd, uint64_t fd_offset)
{
	for (uint64_t at = 0; at < b->size && b->nbare < MEM_BARE_MAX;) {
		off_t data = lseek(fd, (off_t)(fd_offset + at), SEEK_DATA);
		uint64_t end = at;

		if (data >= 0)
			end = (uint64_t)data - fd_offset;
		else if (errno == ENXIO)	/* none as far as the file goes */
			end = b->size;
		end = (end < b->size ? end : b->size) & ~(MEM_ALIGN - 1);
		if (end >= at + BARE_LEAST) {
			int r = map_over(b->host + at, end - at, -1, 0);

			if (r < 0)
				return r;
			b->bare[b->nbare++] = (struct mem_range){ .from = at, .end = end };
			advise(b->host + at, end - at, true);
		}
		at = (end > at ? end : at) + BARE_LEAST / 2;
	}
	return 0;
}

/* Contents from @fd, or zero when that is -1. */
static int map_bank(struct mem *mem, gpa_t base, uint64_t size, uint64_t offset, int fd, uint64_t fd_offset)
{
	struct mem_bank *b = &mem->bank[mem->nbanks];
	/* Large-page alignment lets the host back RAM with huge pages. */
	uint8_t *area = mmap(NULL, size + MEM_ALIGN, PROT_NONE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uint8_t *host;
	int r;

	if (area == MAP_FAILED)
		return -errno;
	host = (uint8_t *)(((uintptr_t)area + MEM_ALIGN - 1) & ~(uintptr_t)(MEM_ALIGN - 1));
	if (host > area)
		(void)munmap(area, (size_t)(host - area));
	(void)munmap(host + size, (size_t)(area + MEM_ALIGN - host));
	*b = (struct mem_bank){ .host = host, .base = base, .size = size, .offset = offset, .file = fd >= 0 };
	r = map_over(host, size, fd, fd >= 0 ? fd_offset + offset : 0);
	if (r == 0) {
		advise(host, size, fd < 0);
		r = fd >= 0 ? bare_holes(b, fd, fd_offset + offset) : 0;
	}
	if (r < 0)
		(void)munmap(host, size);
	else
		mem->nbanks++;
	return r;
}

static int create(uint64_t size, int fd, uint64_t fd_offset, struct mem **ret_mem, struct err *err)
{
	uint64_t low = size < MEM_GAP_START ? size : MEM_GAP_START;
	struct mem *mem;
	int r;

	if (size == 0 || size % MEM_ALIGN || size > 1ull << 46)
		return err_set(err, -EINVAL, "guest memory must be a multiple of 2 MiB, not %llu bytes",
			       (unsigned long long)size);
	mem = calloc(1, sizeof(*mem));
	if (!mem)
		return err_set(err, -ENOMEM, "out of host memory");
	mem->size = size;
	r = map_bank(mem, 0, low, 0, fd, fd_offset);
	if (r == 0 && size > low)
		r = map_bank(mem, MEM_GAP_END, size - low, low, fd, fd_offset);
	if (r < 0)
		goto fail;
	*ret_mem = mem;
	return 0;

fail:
	mem_destroy(mem);
	return err_set(err, r, "cannot reserve %llu MiB of guest memory: %s",
		       (unsigned long long)(size >> 20), strerror(-r));
}

int mem_create(uint64_t size, struct mem **ret_mem, struct err *err)
{
	return create(size, -1, 0, ret_mem, err);
}

int mem_create_from(int fd, uint64_t offset, uint64_t size, struct mem **ret_mem, struct err *err)
{
	return create(size, fd, offset, ret_mem, err);
}

static bool is_zero(const uint8_t *page)
{
	const uint64_t *word = (const uint64_t *)(const void *)page;
	uint64_t any = 0;

	for (unsigned i = 0; i < MEM_PAGE / 8; i += 8) {
		for (unsigned k = 0; k < 8; k++)
			any |= word[i + k];
		if (any)
			return false;
	}
	return true;
}

void mem_copy(const struct mem *mem, uint8_t *to)
{
	for (unsigned i = 0; i < mem->nbanks; i++) {
		const struct mem_bank *b = &mem->bank[i];

		for (uint64_t at = 0; at < b->size; at += MEM_PAGE)
			if (!is_zero(b->host + at))
				memcpy(to + b->offset + at, b->host + at, MEM_PAGE);
	}
}

/* Bytes from @at on, in whole pages, that are not zero. */
static uint64_t run_at(const struct mem_bank *b, uint64_t at)
{
	uint64_t end = at;

	while (end < b->size && end - at < RUN_MAX && !is_zero(b->host + end))
		end += MEM_PAGE;
	return end - at;
}

int mem_each(const struct mem *mem, int (*fn)(void *ctx, uint64_t offset, const uint8_t *bytes, uint64_t len), void *ctx)
{
	for (unsigned i = 0; i < mem->nbanks; i++) {
		const struct mem_bank *b = &mem->bank[i];

		for (uint64_t at = 0, run; at < b->size; at += run ? run : MEM_PAGE) {
			int r;

			run = run_at(b, at);
			r = run ? fn(ctx, b->offset + at, b->host + at, run) : 0;
			if (r < 0)
				return r;
		}
	}
	return 0;
}

int mem_each_marked(const struct mem *mem, const uint64_t *bitmap,
		    int (*fn)(void *ctx, uint64_t offset, const uint8_t *bytes, uint64_t len), void *ctx)
{
	for (unsigned i = 0; i < mem->nbanks; i++) {
		const struct mem_bank *b = &mem->bank[i];

		for (uint64_t at = 0; at < b->size; at += MEM_PAGE) {
			uint64_t page = (b->offset + at) / MEM_PAGE;
			int r = bitmap[page / 64] >> page % 64 & 1 ? fn(ctx, b->offset + at, b->host + at, MEM_PAGE) : 0;

			if (r < 0)
				return r;
			if (page % 64 == 0 && !bitmap[page / 64])	/* 63 more that are not */
				at += 63 * MEM_PAGE;
		}
	}
	return 0;
}

void mem_destroy(struct mem *mem)
{
	if (!mem)
		return;
	for (unsigned i = 0; i < mem->nbanks; i++)
		(void)munmap(mem->bank[i].host, mem->bank[i].size);
	free(mem);
}

void mem_init_borrowed(struct mem *mem, void *host, gpa_t base, uint64_t size)
{
	*mem = (struct mem){ .bank = { { .host = host, .base = base, .size = size } },
			     .nbanks = 1, .size = size };
}

void *mem_at(const struct mem *mem, gpa_t gpa, uint64_t len)
{
	for (unsigned i = 0; i < mem->nbanks; i++) {
		const struct mem_bank *b = &mem->bank[i];

		if (gpa >= b->base && range_ok(gpa - b->base, len, b->size))
			return b->host + (gpa - b->base);
	}
	return NULL;
}

int mem_read(const struct mem *mem, gpa_t gpa, void *dst, size_t len)
{
	const void *src = mem_at(mem, gpa, len);

	if (!src)
		return -EFAULT;
	memcpy(dst, src, len);
	return 0;
}

int mem_write(const struct mem *mem, gpa_t gpa, const void *src, size_t len)
{
	void *dst = mem_at(mem, gpa, len);

	if (!dst)
		return -EFAULT;
	memcpy(dst, src, len);
	mem_wrote(mem, gpa, len);
	return 0;
}

int mem_merge(struct mem *mem, struct err *err)
{
	for (unsigned i = 0; i < mem->nbanks; i++)
		if (madvise(mem->bank[i].host, mem->bank[i].size, MADV_MERGEABLE) < 0)
			return errno == EINVAL ? err_set(err, -EINVAL, "this host's kernel cannot merge memory (no KSM)") :
				err_set(err, -errno, "cannot have memory merged: %s", strerror(errno));
	mem->merge = true;
	return 0;
}

/* Whether some of the pages of a bank at [@host, @host + @len) may be those of a file. */
static bool is_of_file(const struct mem *mem, const uint8_t *host, uint64_t len)
{
	const struct mem_bank *b = mem->bank;
	uint64_t at;

	while (host < b->host || host >= b->host + b->size)
		b++;
	at = (uint64_t)(host - b->host);
	for (unsigned i = 0; i < b->nbare; i++)
		if (at >= b->bare[i].from && at + len <= b->bare[i].end)
			return false;
	return b->file;
}

int mem_discard(const struct mem *mem, gpa_t gpa, uint64_t len)
{
	uint8_t *host = mem_at(mem, gpa, len);
	int r = 0;

	if (gpa % MEM_PAGE || len % MEM_PAGE)
		return -EINVAL;
	if (!host)
		return -EFAULT;
	if (!len)
		return 0;
	if (!is_of_file(mem, host, len)) {
		r = madvise(host, len, MADV_DONTNEED) < 0 ? -errno : 0;
	} else {	/* madvise() would bring the file's contents back */
		r = map_over(host, len, -1, 0);
		advise(host, len, false);
		if (mem->merge)
			(void)madvise(host, len, MADV_MERGEABLE);
	}
	if (r == 0)
		mem_wrote(mem, gpa, len);
	return r;
}
