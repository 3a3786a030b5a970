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

#endif /* VIRTIO_BLK_H */
