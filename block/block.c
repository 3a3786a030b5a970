/* SPDX-License-Identifier: Apache-2.0 */
#include "block/block.h"

#include "base/checked.h"

#include <errno.h>

/* Zeroes are written in pieces of this many bytes, repeated in one vector. */
#define ZERO_BYTES 4096u
#define ZERO_IOV 64u

static int check_iov(const struct block *blk, uint64_t off, const struct iovec *iov, unsigned niov)
{
	uint64_t len = 0;

	if (niov > BLOCK_IOV_MAX)
		return -EINVAL;
	for (unsigned i = 0; i < niov; i++)
		if (__builtin_add_overflow(len, iov[i].iov_len, &len))
			return -ERANGE;
	return range_ok(off, len, blk->size) ? 0 : -ERANGE;
}

int block_readv(struct block *blk, uint64_t off, const struct iovec *iov, unsigned niov)
{
	int r = check_iov(blk, off, iov, niov);

	return r < 0 ? r : blk->ops->readv(blk, off, iov, niov);
}

/* Also when it has failed: a part may have been changed. */
static void mark(struct block *blk, uint64_t off, uint64_t len)
{
	for (uint64_t n = off / BLOCK_PIECE; blk->changed && len && n <= (off + len - 1) / BLOCK_PIECE; n++)
		blk->changed[n / 8] |= (uint8_t)(1u << n % 8);
}

static uint64_t total(const struct iovec *iov, unsigned niov)
{
	uint64_t len = 0;

	for (unsigned i = 0; i < niov; i++)
		len += iov[i].iov_len;
	return len;
}

int block_writev(struct block *blk, uint64_t off, const struct iovec *iov, unsigned niov)
{
	int r = check_iov(blk, off, iov, niov);

	if (r < 0 || blk->read_only)
		return r < 0 ? r : -EROFS;
	r = blk->ops->writev(blk, off, iov, niov);
	mark(blk, off, total(iov, niov));
	return r;
}

int block_read(struct block *blk, uint64_t off, void *buf, size_t len)
{
	const struct iovec iov = { .iov_base = buf, .iov_len = len };

	return block_readv(blk, off, &iov, 1);
}

int block_write(struct block *blk, uint64_t off, const void *buf, size_t len)
{
	/* struct iovec has no const; back ends only read from it here. */
	const struct iovec iov = { .iov_base = (void *)(uintptr_t)buf, .iov_len = len };

	return block_writev(blk, off, &iov, 1);
}

void block_watch(struct block *blk, uint8_t *bitmap)
{
	blk->changed = bitmap;
}

int block_file_of(struct block *blk, int *ret_fd, uint64_t *ret_at)
{
	return blk->ops->file_of && !blk->read_only ? blk->ops->file_of(blk, ret_fd, ret_at) : -EOPNOTSUPP;
}

int block_flush(struct block *blk)
{
	return blk->ops->flush && !blk->read_only ? blk->ops->flush(blk) : 0;
}

static int check_change(const struct block *blk, uint64_t off, uint64_t len)
{
	if (!range_ok(off, len, blk->size))
		return -ERANGE;
	return blk->read_only ? -EROFS : 0;
}

int block_discard(struct block *blk, uint64_t off, uint64_t len)
{
	int r = check_change(blk, off, len);

	if (r < 0 || !blk->ops->discard || !len)
		return r;
	r = blk->ops->discard(blk, off, len);
	mark(blk, off, len);
	return r;
}

static int write_zero_bytes(struct block *blk, uint64_t off, uint64_t len)
{
	static uint8_t zero[ZERO_BYTES];	/* never written */
	struct iovec iov[ZERO_IOV];

	while (len) {
		uint64_t done = 0;
		unsigned n = 0;
		int r;

		for (; n < ZERO_IOV && done < len; n++) {
			uint64_t part = len - done < ZERO_BYTES ? len - done : ZERO_BYTES;

			iov[n] = (struct iovec){ .iov_base = zero, .iov_len = part };
			done += part;
		}
		r = blk->ops->writev(blk, off, iov, n);
		if (r < 0)
			return r;
		off += done;
		len -= done;
	}
	return 0;
}

int block_write_zeroes(struct block *blk, uint64_t off, uint64_t len, bool unmap)
{
	int r = check_change(blk, off, len);

	if (r < 0 || !len)
		return r;
	r = blk->ops->write_zeroes ? blk->ops->write_zeroes(blk, off, len, unmap) : -EOPNOTSUPP;
	if (r == -EOPNOTSUPP)
		r = write_zero_bytes(blk, off, len);
	mark(blk, off, len);
	return r;
}

void block_destroy(struct block *blk)
{
	if (blk)
		blk->ops->destroy(blk);
}
