/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Several back ends put one after the other.  Requests are cut at the seams, so
 * parts see vectors that are theirs alone.
 */
#include "block/block.h"
#include "os/err.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct part {
	struct block *blk;	/* owned */
	uint64_t start;	/* byte of the whole where it begins */
};

struct concat {
	struct block blk;	/* first: see concat_of() */
	unsigned nparts;
	struct part part[];	/* none is empty */
};

static struct concat *concat_of(struct block *blk)
{
	return (struct concat *)blk;
}

/* The part that has byte @off. */
static struct part *find(struct concat *c, uint64_t off)
{
	unsigned low = 0, high = c->nparts - 1;

	while (low < high) {
		unsigned mid = low + (high - low + 1) / 2;

		if (c->part[mid].start <= off)
			low = mid;
		else
			high = mid - 1;
	}
	return &c->part[low];
}

/*
 * Takes up to @max bytes from the vector at entry *@i, byte *@skip of it, into
 * @piece, and moves the two on.  Returns the entries in @piece.
 */
static unsigned take(const struct iovec *iov, unsigned niov, unsigned *i, size_t *skip, uint64_t max,
		     struct iovec *piece, uint64_t *ret_bytes)
{
	unsigned n = 0;

	for (*ret_bytes = 0; *i < niov && *ret_bytes < max; n++) {
		size_t left = iov[*i].iov_len - *skip;
		size_t len = left < max - *ret_bytes ? left : (size_t)(max - *ret_bytes);

		piece[n] = (struct iovec){ .iov_base = (uint8_t *)iov[*i].iov_base + *skip, .iov_len = len };
		*ret_bytes += len;
		*skip += len;
		if (*skip == iov[*i].iov_len) {
			++*i;
			*skip = 0;
		}
	}
	return n;
}

static int concat_readv(struct block *blk, uint64_t off, const struct iovec *iov, unsigned niov)
{
	struct iovec piece[BLOCK_IOV_MAX];
	unsigned i = 0;
	size_t skip = 0;

	while (i < niov) {
		struct part *p = find(concat_of(blk), off);
		uint64_t inside = off - p->start, bytes;
		unsigned n;
		int r;

		if (iov[i].iov_len == 0) {	/* perhaps at the end, where nothing can be taken */
			i++;
			continue;
		}
		n = take(iov, niov, &i, &skip, p->blk->size - inside, piece, &bytes);
		r = block_readv(p->blk, inside, piece, n);
		if (r < 0)
			return r;
		off += bytes;
	}
	return 0;
}

static void concat_destroy(struct block *blk)
{
	for (unsigned i = 0; i < concat_of(blk)->nparts; i++)
		block_destroy(concat_of(blk)->part[i].blk);
	free(blk);
}

static const struct block_ops concat_ops = {
	.name = "concat",
	.readv = concat_readv,
	.destroy = concat_destroy,
};

int block_concat_create(struct block *const *parts, unsigned nparts, struct block **ret_blk, struct err *err)
{
	struct concat *c;

	for (unsigned i = 0; i < nparts; i++)
		if (parts[i]->size == 0)
			return err_set(err, -EINVAL, "part %u of a disk is empty", i + 1);
	c = nparts ? calloc(1, sizeof(*c) + nparts * sizeof(c->part[0])) : NULL;
	if (!c)
		return nparts ? err_set(err, -ENOMEM, "out of memory for a disk")
			      : err_set(err, -EINVAL, "a disk needs a part");
	c->blk = (struct block){ .ops = &concat_ops, .best_io = 4096, .read_only = true };
	c->nparts = nparts;
	for (unsigned i = 0; i < nparts; i++) {
		c->part[i] = (struct part){ .blk = parts[i], .start = c->blk.size };
		if (__builtin_add_overflow(c->blk.size, parts[i]->size, &c->blk.size)) {
			free(c);
			return err_set(err, -EINVAL, "a disk is too large");
		}
	}
	*ret_blk = &c->blk;
	return 0;
}
