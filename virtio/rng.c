/* SPDX-License-Identifier: Apache-2.0 */
#include "virtio/rng.h"

#include "os/err.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

/* One request gets at most this much; the driver asks again for more. */
#define REQUEST_BYTES_MAX 65536u

struct rng {
	struct virtio_device dev;	/* first */
	struct chain chain;	/* the request being served */
};

/* Bytes put into the front of the writable part. */
static uint32_t fill(const struct chain *c)
{
	uint32_t done = 0;

	for (unsigned i = c->nread; i < c->nread + c->nwrite && done < REQUEST_BYTES_MAX; i++) {
		size_t len = c->iov[i].iov_len;
		ssize_t n;

		if (len > REQUEST_BYTES_MAX - done)
			len = REQUEST_BYTES_MAX - done;
		do
			n = getrandom(c->iov[i].iov_base, len, 0);
		while (n < 0 && errno == EINTR);
		if (n > 0)
			done += (uint32_t)n;
		if (n < (ssize_t)len)
			break;
	}
	return done;
}

static void rng_notified(struct virtio_device *dev, unsigned index)
{
	struct chain *c = &((struct rng *)dev)->chain;

	while (virtio_pop(dev, index, c))
		queue_push(&dev->queue[index], c, fill(c));
	virtio_interrupt(dev, index);
}

static void rng_reset(struct virtio_device *dev)
{
}

static void rng_destroy(struct virtio_device *dev)
{
	virtio_device_finish(dev);
	free(dev);
}

static const struct virtio_device_ops rng_ops = {
	.name = "virtio-rng",
	.id = 4,
	.nqueues = 1,
	.queue_size = { 64 },
	.notified = rng_notified,
	.reset = rng_reset,
	.destroy = rng_destroy,
};

int virtio_rng_create(struct loop *loop, struct virtio_device **ret_dev, struct err *err)
{
	struct rng *rng = calloc(1, sizeof(*rng));

	if (!rng)
		return err_set(err, -ENOMEM, "virtio-rng: out of memory");
	virtio_device_init(&rng->dev, &rng_ops, loop, 0);
	*ret_dev = &rng->dev;
	return 0;
}
