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

int block_writev(struct block *blk, uint64_t off, const struct iovec *iov, unsigned niov)
{
	int r = check_iov(blk, off, iov, niov);

	if (r < 0)
		return r;
	return blk->read_only ? -EROFS : blk->ops->writev(blk, off, iov, niov);
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
	return blk->ops->discard(blk, off, len);
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
	if (blk->ops->write_zeroes) {
		r = blk->ops->write_zeroes(blk, off, len, unmap);
		if (r != -EOPNOTSUPP)
			return r;
	}
	return write_zero_bytes(blk, off, len);
}

void block_destroy(struct block *blk)
{
	if (blk)
		blk->ops->destroy(blk);
}
