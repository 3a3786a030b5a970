/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disk device (VIRTIO 1.2, 5.2) over a back end of block/: read, write, flush,
 * discard, write-zeroes and identity, with data moved directly between guest
 * buffers and the back end.
 *
 * Requests are served one after the other on the device's loop, which blocks on
 * the back end: give a disk whose I/O must not hold up others its own loop.
 */
#ifndef VIRTIO_BLK_H
#define VIRTIO_BLK_H

#include "virtio/device.h"

struct block;

/*
 * A disk on @blk, which it takes over; on failure @blk stays with the caller.
 * @serial (borrowed, may be NULL) is cut to 20 bytes.  Read-only when the back
 * end is.  0 with ownership in @ret_dev, or -ENOMEM.
 */
int virtio_blk_create(struct loop *loop, struct block *blk, const char *serial,
		      struct virtio_device **ret_dev, struct err *err);

/*
 * block_watch() of its back end, and block_file_of() with the disk's @ret_size in bytes, unless @bitmap is NULL.
 * Any thread.  0 or a negative errno; then nothing is watched.
 */
int virtio_blk_watch(struct virtio_device *dev, uint8_t *bitmap, int *ret_fd, uint64_t *ret_at, uint64_t *ret_size);

/*
 * Calls @fn for what the guest has read of a disk that it cannot write to: bytes [@from, @from + @len), or a little more.
 * Under the device's lock: @fn calls nothing of it.  Any thread.
 */
typedef void (*virtio_blk_read_fn)(void *ctx, uint64_t from, uint64_t len);
void virtio_blk_reads(struct virtio_device *dev, virtio_blk_read_fn fn, void *ctx);
/* About how many bytes that is. */
uint64_t virtio_blk_bytes_read(struct virtio_device *dev);
/* It has read nothing from here on: what it has read, a template has too. */
void virtio_blk_forget_reads(struct virtio_device *dev);

/* Bytes of the disk. */
uint64_t virtio_blk_size(const struct virtio_device *dev);

#endif /* VIRTIO_BLK_H */
