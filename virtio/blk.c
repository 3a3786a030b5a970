/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A request is a 16-byte header, data, and one status byte at the very end of
 * the writable part (5.2.6).  The driver may cut it into descriptors as it
 * likes, so everything here works on byte offsets.
 */
#include "virtio/blk.h"

#include "block/block.h"
#include "os/blob.h"
#include "os/err.h"

#include <endian.h>
#include <errno.h>
#include <linux/virtio_blk.h>
#include <stdlib.h>
#include <string.h>

#define SEG_MAX 254u	/* data buffers a request may have: the queue less header and status */
#define DISCARD_SECTORS_MAX (1u << 22)	/* 2 GiB a segment */
#define DISCARD_SEG_MAX 32u
#define PIECE 16384u	/* bytes, of which one bit tells that the guest has read them */
#define READ_MAX (64ull << 20)	/* bytes that are noted: what comes later is not what everybody reads first */

struct blk {
	struct virtio_device dev;	/* first */
	struct block *back;	/* owned */
	struct virtio_blk_config config;
	char serial[VIRTIO_BLK_ID_BYTES];
	uint64_t *pieces;	/* owned, a bit each: was read; NULL: nothing was */
	uint64_t bytes_read;	/* in them */
	struct chain chain;	/* the request being served */
	struct iovec iov[CHAIN_SEGS_MAX];
};

static struct blk *blk_of(struct virtio_device *dev)
{
	return (struct blk *)dev;
}

/* Byte offset of @sector, or UINT64_MAX, which no disk contains. */
static uint64_t offset_of(uint64_t sector)
{
	uint64_t off;

	return __builtin_mul_overflow(sector, (uint64_t)BLOCK_SECTOR, &off) ? UINT64_MAX : off;
}

static uint64_t npieces(const struct blk *b)
{
	return (b->back->size + PIECE - 1) / PIECE;
}

/* Within the disk. */
static void note_read(struct blk *b, uint64_t off, uint64_t len)
{
	if (!b->back->read_only || !len)
		return;
	if (!b->pieces)
		b->pieces = calloc(npieces(b) / 64 + 1, sizeof(*b->pieces));
	for (uint64_t i = off / PIECE; b->pieces && i <= (off + len - 1) / PIECE && b->bytes_read < READ_MAX; i++) {
		b->bytes_read += b->pieces[i / 64] >> i % 64 & 1 ? 0 : PIECE;
		b->pieces[i / 64] |= 1ull << i % 64;
	}
}

static int do_read(struct blk *b, uint64_t sector)
{
	uint32_t len = b->chain.write_len - 1;	/* the last byte is the status */
	unsigned n = chain_slice_write(&b->chain, 0, len, b->iov);
	int r;

	if (len % BLOCK_SECTOR)
		return -EINVAL;
	r = block_readv(b->back, offset_of(sector), b->iov, n);
	if (r == 0)
		note_read(b, offset_of(sector), len);
	return r;
}

static int do_write(struct blk *b, uint64_t sector)
{
	uint32_t len = b->chain.read_len - (uint32_t)sizeof(struct virtio_blk_outhdr);
	unsigned n = chain_slice_read(&b->chain, sizeof(struct virtio_blk_outhdr), len, b->iov);
	int r;

	if (len % BLOCK_SECTOR)
		return -EINVAL;
	r = block_writev(b->back, offset_of(sector), b->iov, n);
	/* Without FLUSH the driver believes in a write-through disk: 5.2.6.2. */
	if (r == 0 && !(b->dev.acked & 1ull << VIRTIO_BLK_F_FLUSH))
		r = block_flush(b->back);
	return r;
}

static int do_range(struct blk *b, uint32_t type, const struct virtio_blk_discard_write_zeroes *range)
{
	uint64_t off = offset_of(le64toh(range->sector));
	uint64_t len = (uint64_t)le32toh(range->num_sectors) * BLOCK_SECTOR;
	uint32_t flags = le32toh(range->flags);
	bool unmap = flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;

	if (le32toh(range->num_sectors) > DISCARD_SECTORS_MAX)
		return -EINVAL;
	if (flags & ~(uint32_t)VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP ||
	    (unmap && type == VIRTIO_BLK_T_DISCARD))
		return -EOPNOTSUPP;
	return type == VIRTIO_BLK_T_DISCARD ? block_discard(b->back, off, len) :
					      block_write_zeroes(b->back, off, len, unmap);
}

/* Discard and write-zeroes carry an array of ranges as data (5.2.6). */
static int do_ranges(struct blk *b, uint32_t type)
{
	struct virtio_blk_discard_write_zeroes range[DISCARD_SEG_MAX];
	size_t len = b->chain.read_len - sizeof(struct virtio_blk_outhdr);
	int r = 0;

	if (len == 0 || len % sizeof(range[0]) || len > sizeof(range))
		return -EINVAL;
	(void)chain_read(&b->chain, sizeof(struct virtio_blk_outhdr), range, len);
	for (size_t i = 0; r == 0 && i < len / sizeof(range[0]); i++)
		r = do_range(b, type, &range[i]);
	return r;
}

static int do_get_id(struct blk *b)
{
	size_t room = b->chain.write_len - 1;

	(void)chain_write(&b->chain, 0, b->serial, room < sizeof(b->serial) ? room : sizeof(b->serial));
	return 0;
}

static int serve(struct blk *b, uint32_t type, uint64_t sector)
{
	switch (type) {
	case VIRTIO_BLK_T_IN:
		return do_read(b, sector);
	case VIRTIO_BLK_T_OUT:
		return do_write(b, sector);
	case VIRTIO_BLK_T_FLUSH:
		return block_flush(b->back);
	case VIRTIO_BLK_T_GET_ID:
		return do_get_id(b);
	case VIRTIO_BLK_T_DISCARD:
	case VIRTIO_BLK_T_WRITE_ZEROES:
		return do_ranges(b, type);
	default:
		return -EOPNOTSUPP;
	}
}

static uint8_t status_of(int r)
{
	if (r == 0)
		return VIRTIO_BLK_S_OK;
	return r == -EOPNOTSUPP ? VIRTIO_BLK_S_UNSUPP : VIRTIO_BLK_S_IOERR;
}

/* False when the request cannot even carry a status. */
static bool handle(struct blk *b)
{
	struct virtio_blk_outhdr hdr;
	uint8_t status;

	if (chain_read(&b->chain, 0, &hdr, sizeof(hdr)) < sizeof(hdr) || b->chain.write_len == 0)
		return false;
	status = status_of(serve(b, le32toh(hdr.type), le64toh(hdr.sector)));
	(void)chain_write(&b->chain, b->chain.write_len - 1, &status, 1);
	return true;
}

static void blk_notified(struct virtio_device *dev, unsigned index)
{
	struct blk *b = blk_of(dev);

	while (virtio_pop(dev, index, &b->chain)) {
		if (!handle(b)) {
			virtio_broken(dev, "a request has no room for header or status");
			return;
		}
		/* All of it, also after a failed read: the part before the failure
		 * may have reached guest memory. */
		virtio_push(dev, index, &b->chain, b->chain.write_len);
	}
}

static void blk_reset(struct virtio_device *dev)
{
}

/* There is nothing to be saved: a disk has no state but its bytes.  These are in its file then. */
static void blk_save(struct virtio_device *dev, struct blob *out)
{
	uint64_t at;
	int fd, r = block_file_of(blk_of(dev)->back, &fd, &at);

	out->failed |= r < 0 && r != -EOPNOTSUPP;
}

int virtio_blk_watch(struct virtio_device *dev, uint8_t *bitmap, int *ret_fd, uint64_t *ret_at, uint64_t *ret_size)
{
	struct block *back = blk_of(dev)->back;
	int r = 0;

	virtio_lock(dev);
	if (bitmap) {
		*ret_size = back->size;
		r = back->read_only ? -EROFS : block_file_of(back, ret_fd, ret_at);
	}
	block_watch(back, r == 0 ? bitmap : NULL);
	virtio_unlock(dev);
	return r;
}

void virtio_blk_reads(struct virtio_device *dev, virtio_blk_read_fn fn, void *ctx)
{
	struct blk *b = blk_of(dev);
	uint64_t n = npieces(b), from, to;

	virtio_lock(dev);
	for (from = 0; b->pieces && from < n; from = to + 1) {
		for (to = from; to < n && b->pieces[to / 64] >> to % 64 & 1; to++)
			;
		if (to > from)
			fn(ctx, from * PIECE, (to - from) * PIECE);
	}
	virtio_unlock(dev);
}

void virtio_blk_forget_reads(struct virtio_device *dev)
{
	struct blk *b = blk_of(dev);

	virtio_lock(dev);
	free(b->pieces);
	b->pieces = NULL;
	b->bytes_read = 0;
	virtio_unlock(dev);
}

uint64_t virtio_blk_bytes_read(struct virtio_device *dev)
{
	uint64_t bytes;

	virtio_lock(dev);
	bytes = blk_of(dev)->bytes_read;
	virtio_unlock(dev);
	return bytes;
}

uint64_t virtio_blk_size(const struct virtio_device *dev)
{
	return ((const struct blk *)dev)->back->size;
}

static void blk_destroy(struct virtio_device *dev)
{
	block_destroy(blk_of(dev)->back);
	free(blk_of(dev)->pieces);
	virtio_device_finish(dev);
	free(dev);
}

static const struct virtio_device_ops blk_ops = {
	.name = "virtio-blk",
	.id = 2,
	.nqueues = 1,
	.queue_size = { 256 },
	.notified = blk_notified,
	.reset = blk_reset,
	.save = blk_save,
	.destroy = blk_destroy,
};

static uint64_t features_for(const struct block *back)
{
	uint64_t f = 1ull << VIRTIO_BLK_F_SEG_MAX | 1ull << VIRTIO_BLK_F_BLK_SIZE |
		     1ull << VIRTIO_BLK_F_TOPOLOGY;

	if (back->read_only)
		return f | 1ull << VIRTIO_BLK_F_RO;
	return f | 1ull << VIRTIO_BLK_F_FLUSH | 1ull << VIRTIO_BLK_F_DISCARD |
	       1ull << VIRTIO_BLK_F_WRITE_ZEROES;
}

static void fill_config(struct virtio_blk_config *c, const struct block *back)
{
	uint32_t best_sectors = back->best_io / BLOCK_SECTOR;

	c->capacity = htole64(back->size / BLOCK_SECTOR);
	c->seg_max = htole32(SEG_MAX);
	c->blk_size = htole32(BLOCK_SECTOR);
	/* In logical blocks; "physical" is 4 KiB: 8 of them. */
	c->physical_block_exp = 3;
	c->min_io_size = htole16(best_sectors < UINT16_MAX ? (uint16_t)best_sectors : UINT16_MAX);
	c->opt_io_size = htole32(best_sectors);
	c->max_discard_sectors = c->max_write_zeroes_sectors = htole32(DISCARD_SECTORS_MAX);
	c->max_discard_seg = c->max_write_zeroes_seg = htole32(DISCARD_SEG_MAX);
	c->discard_sector_alignment = htole32(best_sectors);
	c->write_zeroes_may_unmap = 1;
}

int virtio_blk_create(struct loop *loop, struct block *blk, const char *serial,
		      struct virtio_device **ret_dev, struct err *err)
{
	struct blk *b = calloc(1, sizeof(*b));

	if (!b)
		return err_set(err, -ENOMEM, "virtio-blk: out of memory");
	virtio_device_init(&b->dev, &blk_ops, loop, features_for(blk));
	b->dev.config = &b->config;
	b->dev.config_len = sizeof(b->config);
	b->back = blk;
	fill_config(&b->config, blk);
	if (serial)	/* 5.2.6: padded with NULs, none when all 20 bytes are used */
		memcpy(b->serial, serial, strnlen(serial, sizeof(b->serial)));
	*ret_dev = &b->dev;
	return 0;
}
