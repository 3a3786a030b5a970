/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copy-on-write layer over a read-only base, by 64 KiB clusters.
 *
 * The first write to a cluster that does not cover it copies the rest from the
 * base.  The allocation bitmap lives in memory and reaches the file only in
 * flush, after the data it speaks of is durable:
 *
 *   write data (page cache) ... flush: fdatasync, write dirty bitmap, fdatasync
 *
 * A crash in between therefore shows the base for clusters of which the guest
 * was never told that they are durable, and never shows half a copy.
 */
#include "block/block.h"
#include "block/file_io.h"
#include "block/overlay_header.h"
#include "os/err.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define CLUSTER (1ull << OVERLAY_CLUSTER_BITS)
#define BITMAP_PAGE 4096u	/* bytes; the bitmap is written back by pages */

struct overlay {
	struct block blk;	/* first: see overlay_of() */
	struct block *base;	/* owned once created */
	int fd;	/* owned */
	bool persistent;
	uint64_t data_off;	/* of cluster 0 in fd */
	uint8_t *bitmap;	/* owned */
	size_t bitmap_bytes;
	uint8_t *dirty;	/* owned; a byte per page of the bitmap not yet in the file */
	uint8_t *copy;	/* owned; one cluster of scratch */
};

static struct overlay *overlay_of(struct block *blk)
{
	return (struct overlay *)blk;
}

static bool is_own(const struct overlay *o, uint64_t cluster)
{
	return o->bitmap[cluster / 8] >> (cluster % 8) & 1;
}

static void set_own(struct overlay *o, uint64_t cluster)
{
	o->bitmap[cluster / 8] |= (uint8_t)(1u << (cluster % 8));
	o->dirty[cluster / 8 / BITMAP_PAGE] = 1;
}

/* Cuts @len bytes from the vector at *iov + *skip into @out; returns the entries used. */
static unsigned slice(const struct iovec **iov, size_t *skip, uint64_t len, struct iovec *out)
{
	unsigned n = 0;

	while (len) {
		size_t part = (*iov)->iov_len - *skip;

		if (part > len)
			part = len;
		if (part)
			out[n++] = (struct iovec){ .iov_base = (uint8_t *)(*iov)->iov_base + *skip,
						   .iov_len = part };
		len -= part;
		*skip += part;
		if (*skip == (*iov)->iov_len) {
			(*iov)++;
			*skip = 0;
		}
	}
	return n;
}

static uint64_t total(const struct iovec *iov, unsigned niov)
{
	uint64_t len = 0;

	for (unsigned i = 0; i < niov; i++)
		len += iov[i].iov_len;
	return len;
}

static int read_base(struct overlay *o, uint64_t off, const struct iovec *iov, unsigned niov)
{
	uint64_t len = total(iov, niov), inside = 0;
	struct iovec part[BLOCK_IOV_MAX];
	size_t skip = 0;

	if (off < o->base->size)
		inside = len < o->base->size - off ? len : o->base->size - off;
	if (inside) {
		unsigned n = slice(&iov, &skip, inside, part);
		int r = block_readv(o->base, off, part, n);

		if (r < 0)
			return r;
	}
	if (len > inside) {
		unsigned n = slice(&iov, &skip, len - inside, part);

		for (unsigned i = 0; i < n; i++)
			memset(part[i].iov_base, 0, part[i].iov_len);
	}
	return 0;
}

/* Bytes from @off up to the end of the run of clusters that live on one side. */
static uint64_t run_length(const struct overlay *o, uint64_t off, uint64_t len, bool own)
{
	uint64_t c = off >> OVERLAY_CLUSTER_BITS, end = off + len;

	while (c << OVERLAY_CLUSTER_BITS < end && is_own(o, c) == own)
		c++;
	return (c << OVERLAY_CLUSTER_BITS < end ? c << OVERLAY_CLUSTER_BITS : end) - off;
}

static int overlay_readv(struct block *blk, uint64_t off, const struct iovec *iov, unsigned niov)
{
	struct overlay *o = overlay_of(blk);
	uint64_t left = total(iov, niov);
	struct iovec part[BLOCK_IOV_MAX];
	size_t skip = 0;

	while (left) {
		bool own = is_own(o, off >> OVERLAY_CLUSTER_BITS);
		uint64_t run = run_length(o, off, left, own);
		unsigned n = slice(&iov, &skip, run, part);
		int r = own ? block_file_readv(o->fd, o->data_off + off, part, n) : read_base(o, off, part, n);

		if (r < 0)
			return r;
		off += run;
		left -= run;
	}
	return 0;
}

/* Makes a cluster our own with the base's bytes, before a part of it is written. */
static int copy_up(struct overlay *o, uint64_t cluster)
{
	uint64_t off = cluster << OVERLAY_CLUSTER_BITS;
	uint64_t len = o->blk.size - off < CLUSTER ? o->blk.size - off : CLUSTER;
	const struct iovec iov = { .iov_base = o->copy, .iov_len = len };
	int r = read_base(o, off, &iov, 1);

	if (r == 0)
		r = block_file_writev(o->fd, o->data_off + off, &iov, 1);
	if (r == 0)
		set_own(o, cluster);
	return r;
}

/* Copies up the clusters that [@off, @off + @len) covers in part. */
static int copy_up_ends(struct overlay *o, uint64_t off, uint64_t len)
{
	uint64_t end = off + len, first = off >> OVERLAY_CLUSTER_BITS;
	uint64_t last = (end - 1) >> OVERLAY_CLUSTER_BITS;
	int r = 0;

	if (off % CLUSTER && !is_own(o, first))
		r = copy_up(o, first);
	if (r == 0 && end % CLUSTER && end != o->blk.size && !is_own(o, last))
		r = copy_up(o, last);
	return r;
}

static void own_range(struct overlay *o, uint64_t off, uint64_t len)
{
	for (uint64_t c = off >> OVERLAY_CLUSTER_BITS; c << OVERLAY_CLUSTER_BITS < off + len; c++)
		if (!is_own(o, c))
			set_own(o, c);
}

static int overlay_writev(struct block *blk, uint64_t off, const struct iovec *iov, unsigned niov)
{
	struct overlay *o = overlay_of(blk);
	uint64_t len = total(iov, niov);
	int r;

	if (!len)
		return 0;
	r = copy_up_ends(o, off, len);
	if (r == 0)
		r = block_file_writev(o->fd, o->data_off + off, iov, niov);
	if (r == 0)
		own_range(o, off, len);
	return r;
}

/* A hole that is our own reads as zeroes and hides the base. */
static int overlay_write_zeroes(struct block *blk, uint64_t off, uint64_t len, bool unmap)
{
	struct overlay *o = overlay_of(blk);
	int r = copy_up_ends(o, off, len);

	if (r == 0)
		r = block_file_punch(o->fd, o->data_off + off, len);
	if (r == 0)
		own_range(o, off, len);
	return r;
}

static int overlay_discard(struct block *blk, uint64_t off, uint64_t len)
{
	uint64_t start = (off + CLUSTER - 1) & ~(CLUSTER - 1);
	uint64_t end = off + len == blk->size ? blk->size : (off + len) & ~(CLUSTER - 1);
	int r;

	if (start >= end)
		return 0;	/* no whole cluster: keeping the bytes is allowed */
	r = overlay_write_zeroes(blk, start, end - start, true);
	return r == -EOPNOTSUPP ? 0 : r;
}

static int write_bitmap(struct overlay *o)
{
	size_t pages = (o->bitmap_bytes + BITMAP_PAGE - 1) / BITMAP_PAGE;

	for (size_t i = 0; i < pages; i++) {
		size_t off = i * BITMAP_PAGE;
		struct iovec iov = { .iov_base = o->bitmap + off, .iov_len = BITMAP_PAGE };
		int r;

		if (!o->dirty[i])
			continue;
		if (iov.iov_len > o->bitmap_bytes - off)
			iov.iov_len = o->bitmap_bytes - off;
		r = block_file_writev(o->fd, OVERLAY_HEADER_BYTES + off, &iov, 1);
		if (r < 0)
			return r;
		o->dirty[i] = 0;
	}
	return 0;
}

static int overlay_file_of(struct block *blk, int *ret_fd, uint64_t *ret_at)
{
	struct overlay *o = overlay_of(blk);
	int r = write_bitmap(o);

	*ret_fd = o->fd;
	*ret_at = o->data_off;
	return r;
}

static int overlay_flush(struct block *blk)
{
	struct overlay *o = overlay_of(blk);
	int r;

	if (!o->persistent)
		return 0;
	if (fdatasync(o->fd) < 0)
		return -errno;
	if (!memchr(o->dirty, 1, (o->bitmap_bytes + BITMAP_PAGE - 1) / BITMAP_PAGE))
		return 0;
	r = write_bitmap(o);
	if (r < 0)
		return r;
	return fdatasync(o->fd) < 0 ? -errno : 0;
}

static void overlay_destroy(struct block *blk)
{
	struct overlay *o = overlay_of(blk);

	block_destroy(o->base);
	if (o->fd >= 0)
		(void)close(o->fd);
	free(o->bitmap);
	free(o->dirty);
	free(o->copy);
	free(o);
}

static const struct block_ops overlay_ops = {
	.name = "overlay",
	.readv = overlay_readv,
	.writev = overlay_writev,
	.flush = overlay_flush,
	.discard = overlay_discard,
	.write_zeroes = overlay_write_zeroes,
	.file_of = overlay_file_of,
	.destroy = overlay_destroy,
};

/* A new file appears under its name only once its header is durable. */
static int create_file(const char *path, uint64_t size, uint64_t base_size, int *ret_fd)
{
	struct overlay_header h;
	const struct iovec iov = { .iov_base = &h, .iov_len = sizeof(h) };
	char tmp[4096];
	int fd, r;

	if (snprintf(tmp, sizeof(tmp), "%s.XXXXXX", path) >= (int)sizeof(tmp))
		return -ENAMETOOLONG;
	fd = mkostemp(tmp, O_CLOEXEC);
	if (fd < 0)
		return -errno;
	overlay_header_make(&h, size, base_size);
	r = block_file_writev(fd, 0, &iov, 1);
	if (r == 0 && ftruncate(fd, (off_t)(le64toh(h.data_off) + size)) < 0)
		r = -errno;
	if (r == 0)
		r = block_file_lock(fd, true);
	if (r == 0 && fsync(fd) < 0)
		r = -errno;
	if (r == 0 && link(tmp, path) < 0)	/* not rename: a racing creator keeps its file */
		r = errno == EEXIST ? -EBUSY : -errno;
	(void)unlink(tmp);
	if (r < 0) {
		(void)close(fd);
		return r;
	}
	*ret_fd = fd;
	return 0;
}

/* Loads header and bitmap of an existing file. */
static int load_file(struct overlay *o)
{
	struct overlay_header h;
	uint8_t page[sizeof(h)] = { 0 };
	struct iovec iov = { .iov_base = page, .iov_len = sizeof(page) };
	int r = block_file_lock(o->fd, true);

	if (r == 0)
		r = block_file_readv(o->fd, 0, &iov, 1);
	if (r == 0)
		r = overlay_header_parse(page, sizeof(page), &h);
	if (r < 0)
		return r;
	if (h.size != o->blk.size || h.base_size != o->base->size)
		return -EINVAL;
	iov = (struct iovec){ .iov_base = o->bitmap, .iov_len = o->bitmap_bytes };
	return block_file_readv(o->fd, OVERLAY_HEADER_BYTES, &iov, 1);
}

/* The same layout in memory, so that it can be kept after all: block_file_of(). */
static int open_memory(struct overlay *o)
{
	struct overlay_header h;
	const struct iovec iov = { .iov_base = &h, .iov_len = sizeof(h) };

	overlay_header_make(&h, o->blk.size, o->base->size);
	o->data_off = le64toh(h.data_off);
	o->fd = memfd_create("roux-overlay", MFD_CLOEXEC);
	if (o->fd < 0)
		return -errno;
	if (ftruncate(o->fd, (off_t)(o->data_off + o->blk.size)) < 0)
		return -errno;
	return block_file_writev(o->fd, 0, &iov, 1);
}

static int open_store(struct overlay *o, const char *path)
{
	int r;

	if (!path)
		return open_memory(o);
	o->persistent = true;
	o->fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (o->fd >= 0)
		r = load_file(o);
	else if (errno == ENOENT)
		r = create_file(path, o->blk.size, o->base->size, &o->fd);
	else
		r = -errno;
	if (r == 0) {
		struct overlay_header h;

		overlay_header_make(&h, o->blk.size, o->base->size);
		o->data_off = le64toh(h.data_off);
	}
	return r;
}

static const char *why(int r)
{
	switch (r) {
	case -EINVAL:
		return "not an overlay of this base image";
	case -EBADMSG:
		return "the header is damaged";
	case -EPROTONOSUPPORT:
		return "made by another version of roux";
	case -EBUSY:
		return "in use by another process";
	default:
		return strerror(-r);
	}
}

int block_overlay_create(struct block *base, const char *path, uint64_t size,
			 struct block **ret_blk, struct err *err)
{
	struct overlay *o;
	int r;

	if (size == 0)
		size = base->size;
	if (size < base->size || size % BLOCK_SECTOR || size > OVERLAY_SIZE_MAX || size == 0)
		return err_set(err, -EINVAL, "overlay: size %llu bytes does not fit a base of %llu bytes",
			       (unsigned long long)size, (unsigned long long)base->size);
	o = calloc(1, sizeof(*o));
	if (!o)
		return err_set(err, -ENOMEM, "overlay: out of memory");
	o->blk = (struct block){ .ops = &overlay_ops, .size = size, .best_io = CLUSTER };
	o->base = base;
	o->fd = -1;
	o->bitmap_bytes = (size_t)(((size + CLUSTER - 1) >> OVERLAY_CLUSTER_BITS) + 7) / 8;
	o->bitmap = calloc(1, o->bitmap_bytes);
	o->dirty = calloc(1, (o->bitmap_bytes + BITMAP_PAGE - 1) / BITMAP_PAGE);
	o->copy = malloc(CLUSTER);
	r = o->bitmap && o->dirty && o->copy ? open_store(o, path) : -ENOMEM;
	if (r < 0) {
		o->base = NULL;	/* stays with the caller */
		overlay_destroy(&o->blk);
		return err_set(err, r, "overlay '%s': %s", path ? path : "in memory", why(r));
	}
	*ret_blk = &o->blk;
	return 0;
}
