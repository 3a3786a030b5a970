/* SPDX-License-Identifier: Apache-2.0 */
#include "link/link.h"
#include "tests/fuzz/virtio_fuzz.h"
#include "virtio/net.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* Sends every frame back, and reads all of it meanwhile. */
static int echo_send(struct link *link, const struct link_frame *frame)
{
	volatile uint8_t sum = 0;

	for (unsigned i = 0; i < frame->niov; i++)
		for (size_t k = 0; k < frame->iov[i].iov_len; k++)
			sum = (uint8_t)(sum + ((const uint8_t *)frame->iov[i].iov_base)[k]);
	(void)link_deliver(link, frame);
	return 0;
}

static void echo_ready(struct link *link)
{
}

static void echo_destroy(struct link *link)
{
	link_finish(link);
	free(link);
}

static const struct link_ops echo_ops = { .name = "echo", .send = echo_send, .ready = echo_ready,
					  .destroy = echo_destroy };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static const uint8_t mac[6] = { 2 };
	struct link *link = calloc(1, sizeof(*link));
	struct virtio_device *dev;
	struct drv d;

	drv_init(&d);
	if (!link)
		abort();
	link_init(link, &echo_ops, d.loop, mac, LINK_MTU_DEFAULT);
	if (virtio_net_create(d.loop, link, 2, &dev, NULL) < 0)
		abort();
	drv_attach(&d, dev);
	fuzz_run(&d, data, len);
	drv_finish(&d);
	return 0;
}
