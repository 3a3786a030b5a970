/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fuzz/virtio_fuzz.h"
#include "virtio/console.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* Takes less than offered now and then, so that requests stay in flight. */
static size_t output(void *ctx, const void *bytes, size_t len)
{
	volatile const uint8_t *p = bytes;

	return len && p[0] % 4 == 0 ? len / 2 : len;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	const struct virtio_console_host host = { .output = output };
	struct virtio_device *dev;
	struct drv d;

	drv_init(&d);
	if (virtio_console_create(d.loop, &host, &dev, NULL) < 0)
		abort();
	drv_attach(&d, dev);
	(void)virtio_console_input(dev, "typed text", 10);
	fuzz_run(&d, data, len);
	(void)virtio_console_input(dev, data, len);
	virtio_console_output_ready(dev);
	drv_finish(&d);
	return 0;
}
