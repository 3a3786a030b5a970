/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-mmio, version 2 (VIRTIO 1.2, 4.2): one register window per device.
 *
 *   window           +0x000 registers        +0x100 device config
 *   QueueNotify      one eventfd per queue, watched by the device's loop; give
 *                    them to the bus so that the vCPU does not even call us
 *   interrupt        irq() pulses an edge when InterruptStatus gains a bit;
 *                    while the bit is set the driver is still to acknowledge
 *                    and look, so a second edge would tell it nothing
 *
 * Reset by the driver is complete when its write returns: the device has been
 * drained, and no host thread touches guest memory for it any more.  The vCPU
 * may wait there for a host I/O that was under way.
 *
 * No shared memory regions: their length reads as all ones (4.2.2.1).
 */
#ifndef VIRTIO_MMIO_H
#define VIRTIO_MMIO_H

#include "virtio/device.h"
#include "vmm/bus.h"

#define VIRTIO_MMIO_WINDOW 0x200u	/* bytes */

struct virtio_mmio;

/*
 * Pulses the device's interrupt line.  Any thread, possibly with dev->lock held:
 * must not wait for a vCPU, nor take a lock that is held around bus accesses.
 */
typedef void (*virtio_irq_fn)(void *ctx);

/*
 * Attaches @dev (borrowed, must outlive the transport) to guest memory @mem
 * (borrowed) at guest address @base.  Call before the device's loop runs or on
 * its thread.  0 with ownership in @ret_mmio, -ENOMEM or an errno of eventfd.
 */
int virtio_mmio_create(struct virtio_device *dev, const struct mem *mem, uint64_t base,
		       virtio_irq_fn irq, void *irq_ctx, struct virtio_mmio **ret_mmio,
		       struct err *err);

/* Detaches and frees; on the loop's thread or while it does not run.  NULL is fine. */
void virtio_mmio_destroy(struct virtio_mmio *mmio);

/* The window, for bus_add(). */
struct bus_range virtio_mmio_range(struct virtio_mmio *mmio);

/*
 * The doorbells, for bus_add_doorbell(): one per queue.  Fills @ret_doorbells
 * and returns their number.  The descriptors stay the transport's.
 */
unsigned virtio_mmio_doorbells(struct virtio_mmio *mmio,
			       struct bus_doorbell ret_doorbells[VIRTIO_QUEUES_MAX]);

/*
 * Waits for the requests that the device is working on; from then on it begins none
 * and touches no guest memory until virtio_mmio_resume().  No vCPU may run meanwhile.
 */
void virtio_mmio_pause(struct virtio_mmio *mmio);
void virtio_mmio_resume(struct virtio_mmio *mmio);

/*
 * Appends registers, queues and device state of a paused device to @out.  It may
 * answer requests that cannot be saved, so guest memory is saved after it.  Check
 * out->failed.
 */
void virtio_mmio_save(struct virtio_mmio *mmio, struct blob *out);

/*
 * Takes over saved state from @in, on a device made with the same parameters
 * and before vCPUs run; guest memory holds its saved contents already.  0, 1 when
 * something that the driver knows is something else on the host by now, 2 when the guest cannot find that out, or -EINVAL
 * with a sentence, after which the device is as if reset.
 */
int virtio_mmio_restore(struct virtio_mmio *mmio, struct blob_reader *in, struct err *err);

#endif /* VIRTIO_MMIO_H */
