/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest-physical memory as seen by devices, loaders and engines.
 *
 *   gpa 0 ........ MEM_GAP_START | MMIO gap | 4 GiB ........
 *   [ bank 0                   ]            [ bank 1       ]
 *
 * Host pages, large ones where the host has them to give, appear when first
 * touched, and go again with mem_discard().
 *
 * Everything read from guest memory is hostile and may change while we look at
 * it: copy a structure out once, check the copy, use the copy.
 *
 * Whoever writes guest memory through a pointer from mem_at() must call
 * mem_wrote() afterwards and before the guest can learn of the write: engines
 * drop translated code and mark pages dirty there.  mem_write() does it itself.
 *
 * Threads: banks never change after mem_create(); all functions may be called
 * from any thread.
 */
#ifndef VMM_GUEST_MEM_H
#define VMM_GUEST_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;

/* Guest-physical address, bytes.  Never cast to a pointer: use mem_at(). */
typedef uint64_t gpa_t;

#define MEM_GAP_START 0xc0000000ull	/* RAM below, MMIO from here ... */
#define MEM_GAP_END 0x100000000ull	/* ... to here */
#define MEM_BANKS_MAX 2
#define MEM_BARE_MAX 4	/* a template has two or three */
#define MEM_PAGE 4096u	/* bytes */

/* Bytes [@from, @end) of a bank. */
struct mem_range {
	uint64_t from, end;
};

/* One contiguous bank.  @host is borrowed; struct mem owns the mapping. */
struct mem_bank {
	uint8_t *host;
	gpa_t base;	/* guest address of host[0] */
	uint64_t size;	/* bytes */
	uint64_t offset;	/* of host[0], counting the bytes of all banks in order */
	bool file;	/* host pages that were not written to are those of a file, but for @bare */
	struct mem_range bare[MEM_BARE_MAX];	/* of no file for sure; there may be more of them */
	unsigned nbare;
};

/* Told about every write that did not come from guest code. */
struct mem_watch {
	void (*wrote)(void *ctx, gpa_t gpa, uint64_t len);
	void *ctx;
};

struct mem {
	struct mem_bank bank[MEM_BANKS_MAX];
	unsigned nbanks;
	uint64_t size;	/* bytes in all banks */
	bool merge;	/* mem_merge() was called */
	struct mem_watch watch;	/* optional; set by the engine before vCPUs run */
};

/*
 * Makes guest RAM of @size bytes (a multiple of 2 MiB, at least that), all
 * zero, not yet backed by host pages.  Returns 0 and passes ownership in
 * @ret_mem, -EINVAL for a bad size, -ENOMEM when the host refuses.
 */
int mem_create(uint64_t size, struct mem **ret_mem, struct err *err);

/*
 * The same with the contents of file @fd from @offset, a multiple of MEM_PAGE: pages
 * are shared with everybody who has them so until they are written to, here only.
 * Large holes of the file are RAM as mem_create() makes it.  The file must not change;
 * @fd stays the caller's.
 */
int mem_create_from(int fd, uint64_t offset, uint64_t size, struct mem **ret_mem, struct err *err);

/*
 * Copies all that is not zero to @to, mem->size bytes that are zero before.  Banks
 * follow one another, as in mem_create_from().
 */
void mem_copy(const struct mem *mem, uint8_t *to);

/*
 * Calls @fn for all that is not zero, in order: @offset counts the bytes of all banks.  Stops at its first error, a
 * negative errno, and returns that.
 */
int mem_each(const struct mem *mem, int (*fn)(void *ctx, uint64_t offset, const uint8_t *bytes, uint64_t len), void *ctx);

/* The same for the pages of @bitmap, a bit per MEM_PAGE bytes of all banks in order, zero or not. */
int mem_each_marked(const struct mem *mem, const uint64_t *bitmap,
		    int (*fn)(void *ctx, uint64_t offset, const uint8_t *bytes, uint64_t len), void *ctx);

/*
 * Lets the host's kernel keep one copy of pages that are the same here and in other memory that allows it (KSM; it
 * does while /sys/kernel/mm/ksm/run is 1).  Call it before other threads have @mem.  0, or -EINVAL from a kernel that cannot.
 */
int mem_merge(struct mem *mem, struct err *err);

/* Unmaps and frees.  NULL is fine. */
void mem_destroy(struct mem *mem);

/*
 * Wraps @size caller-owned bytes at @host as a bank at @base, for tests and
 * fuzzing.  mem_destroy() must not be called on it.
 */
void mem_init_borrowed(struct mem *mem, void *host, gpa_t base, uint64_t size);

/*
 * Returns the host address of guest bytes [@gpa, @gpa + @len), or NULL when any
 * of them lies outside one bank or the sum wraps.  @len 0 is valid at the end.
 * The pointer is borrowed and stays good until mem_destroy().
 */
void *mem_at(const struct mem *mem, gpa_t gpa, uint64_t len);

/* Copies @len guest bytes into @dst.  Returns 0, or -EFAULT as mem_at(). */
int mem_read(const struct mem *mem, gpa_t gpa, void *dst, size_t len);

/* Copies @len bytes to the guest and reports them.  Returns 0 or -EFAULT. */
int mem_write(const struct mem *mem, gpa_t gpa, const void *src, size_t len);

/*
 * Gives the host pages of guest bytes [@gpa, @gpa + @len) back: the bytes become
 * zero, and cost nothing until somebody touches them.  Reports that as a write.
 * Pointers from mem_at() stay good.  Returns 0, -EINVAL unless both are multiples
 * of MEM_PAGE, -EFAULT as mem_at(), or what the host says.
 */
int mem_discard(const struct mem *mem, gpa_t gpa, uint64_t len);

/* Reports that guest bytes [@gpa, @gpa + @len) were written by the host. */
static inline void mem_wrote(const struct mem *mem, gpa_t gpa, uint64_t len)
{
	if (mem->watch.wrote && len)
		mem->watch.wrote(mem->watch.ctx, gpa, len);
}

#endif /* VMM_GUEST_MEM_H */
