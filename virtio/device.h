/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every virtio device has, whatever its kind and its transport.
 *
 *   vCPU thread --- registers ---> transport --- eventfd ---> loop thread
 *                                      |                          |
 *                                      '------ dev->lock ---------'
 *                                                    device code (ops)
 *
 * A device runs on the loop given to its constructor: queue notifications,
 * host descriptors and timers arrive there.  A machine that wants disk and file
 * system requests not to hold up other devices gives them a loop of their own.
 *
 * Lock: dev->lock is held whenever an op is called and guards queues, features
 * and config.  The loop thread holds it while it serves the device, so a vCPU
 * that reads config or changes status waits for the request being served; the
 * registers on the fast path (notify, interrupt status and acknowledge) take no
 * lock.  An op that drops the lock must check dev->running again.
 *
 * Life of a device:
 *
 *   state        entered by                          leaves by
 *   idle         constructor, reset                  DRIVER_OK -> running
 *   running      DRIVER_OK; ops->notified follows    reset -> idle, error -> broken
 *   broken       virtio_broken(): NEEDS_RESET set    reset -> idle
 */
#ifndef VIRTIO_DEVICE_H
#define VIRTIO_DEVICE_H

#include "virtio/queue.h"

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct blob;
struct blob_reader;
struct err;
struct loop;
struct virtio_device;

#define VIRTIO_QUEUES_MAX 17u	/* a network device for 8 vCPUs */
#define VIRTIO_TURN QUEUE_SIZE_MAX	/* chains served before the loop's other users have their turn */

/* Feature bits of every device (VIRTIO 1.2, 6). */
#define VIRTIO_FEATURE_INDIRECT (1ull << 28)
#define VIRTIO_FEATURE_EVENT_IDX (1ull << 29)
#define VIRTIO_FEATURE_VERSION_1 (1ull << 32)

struct virtio_device_ops {
	const char *name;	/* for messages: "virtio-blk" */
	uint32_t id;	/* device type (VIRTIO 1.2, 5) */
	unsigned nqueues;	/* what devices have that do not set their own after virtio_device_init() */
	uint16_t queue_size[VIRTIO_QUEUES_MAX];	/* largest sizes, powers of two */

	/* Required, loop thread.  Queue @index may have new buffers. */
	void (*notified)(struct virtio_device *dev, unsigned index);
	/* Optional, any thread.  The driver wrote config bytes (inside config_len). */
	void (*config_write)(struct virtio_device *dev, uint32_t off, const void *bytes, uint32_t len);
	/*
	 * Optional, any thread.  Returns when no request is being worked on outside
	 * the lock; may drop the lock to wait.
	 */
	void (*drain)(struct virtio_device *dev);
	/* Required, any thread; after drain.  Forgets all the driver told the device. */
	void (*reset)(struct virtio_device *dev);
	/*
	 * Optional; after drain.  Appends what restore() needs to go on; may push
	 * requests first that cannot be saved.
	 */
	void (*save)(struct virtio_device *dev, struct blob *out);
	/*
	 * Optional; features and queues are restored already.  0; 1 when something that the
	 * driver knows is something else on the host by now, 2 when the guest cannot find that out
	 * by itself; or -EINVAL for bad bytes.
	 */
	int (*restore)(struct virtio_device *dev, struct blob_reader *in);
	/* Required.  Transport gone, loop not running or on the loop's thread. */
	void (*destroy)(struct virtio_device *dev);
};

/* What a device asks its transport for.  Any thread; takes no lock. */
struct virtio_transport {
	void (*queue_used)(void *ctx);	/* interrupt: used buffers */
	void (*config_changed)(void *ctx);	/* interrupt: config, with a new generation */
	void (*needs_reset)(void *ctx);
	void (*ring)(void *ctx, unsigned index);	/* as if the driver had notified queue @index */
	void *ctx;
};

/* First member of every device's own struct. */
struct virtio_device {
	const struct virtio_device_ops *ops;
	struct loop *loop;	/* borrowed */
	uint64_t features;	/* offered */
	unsigned nqueues;	/* fixed once a transport is attached */
	const void *config;	/* borrowed from the device; changes under the lock */
	uint32_t config_len;

	pthread_mutex_t lock;	/* guards all below */
	uint64_t acked;	/* features the driver accepted */
	struct queue queue[VIRTIO_QUEUES_MAX];
	bool running;	/* between DRIVER_OK and reset, and not broken */
	bool paused;	/* being saved: no new request is begun */
	unsigned turn;	/* chains it may still take before the loop serves others */
	unsigned complaints;	/* messages logged about this driver */
	struct virtio_transport transport;	/* all NULL before one is attached */
};

/* Fills the common part.  @features are those beyond the ones every device has. */
void virtio_device_init(struct virtio_device *dev, const struct virtio_device_ops *ops,
			struct loop *loop, uint64_t features);
void virtio_device_finish(struct virtio_device *dev);

/* Frees any device through its ops.  NULL is fine. */
void virtio_device_destroy(struct virtio_device *dev);

static inline void virtio_lock(struct virtio_device *dev)
{
	(void)pthread_mutex_lock(&dev->lock);
}

static inline void virtio_unlock(struct virtio_device *dev)
{
	(void)pthread_mutex_unlock(&dev->lock);
}

/*
 * Takes a chain from queue @index while the device runs.  Returns true with a
 * chain; false when there is none, or the driver broke the rules and the device
 * now needs a reset, or the device's turn is over: a driver can offer buffers
 * faster than they are served, or let the device do so by rings that overlap.
 * Then ops->notified follows in the next turn.  Lock held.
 */
bool virtio_pop(struct virtio_device *dev, unsigned index, struct chain *ret_chain);

/* queue_push() and, when the driver wants it, an interrupt.  Lock held. */
void virtio_push(struct virtio_device *dev, unsigned index, const struct chain *chain,
		 uint32_t written);

/* Interrupts when the driver wants it for what queue_push() put there.  Lock held. */
void virtio_interrupt(struct virtio_device *dev, unsigned index);

/* Tells the driver that config bytes changed.  Lock held. */
void virtio_config_changed(struct virtio_device *dev);

/*
 * The driver broke the rules: stops the device until reset and tells the driver
 * (VIRTIO 1.2, 2.1.2).  @why is logged, at most a few times a device.  Lock held.
 */
void virtio_broken(struct virtio_device *dev, const char *why);

#endif /* VIRTIO_DEVICE_H */
