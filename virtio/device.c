/* SPDX-License-Identifier: Apache-2.0 */
#include "virtio/device.h"

#include "os/log.h"

#include <errno.h>

#define COMPLAINTS_MAX 8	/* a hostile guest must not fill the log */

void virtio_device_init(struct virtio_device *dev, const struct virtio_device_ops *ops,
			struct loop *loop, uint64_t features)
{
	*dev = (struct virtio_device){
		.ops = ops,
		.loop = loop,
		.features = features | VIRTIO_FEATURE_VERSION_1 | VIRTIO_FEATURE_INDIRECT |
			    VIRTIO_FEATURE_EVENT_IDX,
		.nqueues = ops->nqueues,
		.turn = VIRTIO_TURN,
	};
	(void)pthread_mutex_init(&dev->lock, NULL);
	for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++) {
		dev->queue[i].size_max = ops->queue_size[i];
		queue_reset(&dev->queue[i]);
	}
}

void virtio_device_finish(struct virtio_device *dev)
{
	(void)pthread_mutex_destroy(&dev->lock);
}

void virtio_device_destroy(struct virtio_device *dev)
{
	if (dev)
		dev->ops->destroy(dev);
}

bool virtio_pop(struct virtio_device *dev, unsigned index, struct chain *ret_chain)
{
	int r;

	if (!dev->running || dev->paused)
		return false;
	if (dev->turn == 0) {
		if (dev->transport.ring)
			dev->transport.ring(dev->transport.ctx, index);
		return false;
	}
	dev->turn--;
	r = queue_pop(&dev->queue[index], ret_chain);
	if (r < 0)
		virtio_broken(dev, r == -EFAULT ? "a buffer lies outside guest memory" :
						  "a descriptor chain is malformed");
	return r > 0;
}

void virtio_push(struct virtio_device *dev, unsigned index, const struct chain *chain,
		 uint32_t written)
{
	queue_push(&dev->queue[index], chain, written);
	virtio_interrupt(dev, index);
}

void virtio_interrupt(struct virtio_device *dev, unsigned index)
{
	if (dev->running && queue_wants_interrupt(&dev->queue[index]) && dev->transport.queue_used)
		dev->transport.queue_used(dev->transport.ctx);
}

void virtio_config_changed(struct virtio_device *dev)
{
	if (dev->transport.config_changed)
		dev->transport.config_changed(dev->transport.ctx);
}

void virtio_broken(struct virtio_device *dev, const char *why)
{
	if (dev->complaints < COMPLAINTS_MAX) {
		dev->complaints++;
		log_msg(LOG_LEVEL_WARN, dev->ops->name, "stopped until the guest resets it: %s", why);
	}
	dev->running = false;
	if (dev->transport.needs_reset)
		dev->transport.needs_reset(dev->transport.ctx);
}
