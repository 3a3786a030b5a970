/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory balloon (VIRTIO 1.2, 5.5): what the guest does not use goes back to the host.
 *
 *   inflate    the driver gives pages up because the host asks    mem_discard()
 *   deflate    and takes them back because it asks for less       nothing: pages come when touched
 *   reporting  free pages, told without being asked, 2 MiB and    mem_discard()
 *              more in one piece
 *   statistics a buffer that the device keeps, and returns when   copied
 *              it wants to have new ones
 *
 * A driver that is asked for more than its guest can spare takes it all the same, and
 * what then needs memory is killed.  So the device asks for no more than the statistics
 * say is available, less a reserve, and again every second until it has what it wants.
 *
 * All of it is the guest's good will: one that touches what it gave up has it again.
 * The bound on a hostile guest is the size of its memory.
 *
 * Free page hints (of migration) and page poison are not offered: a driver whose free
 * pages must keep their contents does not report them then (5.5.6.7).
 *
 * Threads: all functions on the loop's thread.
 */
#ifndef VIRTIO_BALLOON_H
#define VIRTIO_BALLOON_H

#include "virtio/device.h"

/* In bytes. */
struct virtio_balloon_state {
	uint64_t wanted;	/* what the guest is to give up */
	uint64_t given;	/* what it says that it has given up */
	uint64_t reported;	/* of free pages since the device was made, each time counted */
	/* As the driver told last, 0 when it has not: all but the balloon, unused, to be had without swapping. */
	uint64_t total, free, available;
};

/*
 * @yield: a guest that runs out of memory may take back what it gave up
 * (VIRTIO_BALLOON_F_DEFLATE_ON_OOM); Linux then goes on counting it as its own.
 * Returns 0 with ownership in @ret_dev, or -ENOMEM or another errno.
 */
int virtio_balloon_create(struct loop *loop, bool yield, struct virtio_device **ret_dev, struct err *err);

/*
 * Wants the guest to give up @bytes of its memory in all, rounded down to pages; 0: none.
 * It follows as it can.  Returns 0, or -ENOTCONN while no driver runs, which
 * changes nothing.
 */
int virtio_balloon_want(struct virtio_device *dev, uint64_t bytes);

/* Tells how things are, and asks the driver for new statistics, for the next call. */
void virtio_balloon_get(struct virtio_device *dev, struct virtio_balloon_state *ret_state);

#endif /* VIRTIO_BALLOON_H */
