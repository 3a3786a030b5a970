/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Network device (VIRTIO 1.2, 5.1) over a link: checksum and TCP segmentation
 * offload both ways, mergeable receive buffers, a pair of queues for each vCPU.
 *
 * A frame to the guest goes to the pair on which the guest last sent a frame of the
 * same flow (5.1.6.5.5).
 */
#ifndef VIRTIO_NET_H
#define VIRTIO_NET_H

#include "virtio/device.h"

struct link;

#define VIRTIO_NET_PAIRS_MAX 8u

/*
 * A device with @npairs pairs of queues (1..VIRTIO_NET_PAIRS_MAX) on @link, which it
 * takes over; on failure @link stays with the caller.  @loop is the link's.  0 with
 * ownership in @ret_dev, or -ENOMEM.
 */
int virtio_net_create(struct loop *loop, struct link *link, unsigned npairs, struct virtio_device **ret_dev,
		      struct err *err);

#endif /* VIRTIO_NET_H */
