/* SPDX-License-Identifier: Apache-2.0 */
/* Entropy device (VIRTIO 1.2, 5.4): every buffer is filled from getrandom(2). */
#ifndef VIRTIO_RNG_H
#define VIRTIO_RNG_H

#include "virtio/device.h"

/* Returns 0 with ownership in @ret_dev, or -ENOMEM. */
int virtio_rng_create(struct loop *loop, struct virtio_device **ret_dev, struct err *err);

#endif /* VIRTIO_RNG_H */
