/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fuzz/virtio_fuzz.h"
#include "virtio/balloon.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct virtio_balloon_state state;
	struct virtio_device *dev;
	struct drv d;

	drv_init(&d);
	if (virtio_balloon_create(d.loop, true, &dev, NULL) < 0)
		abort();
	drv_attach(&d, dev);
	fuzz_run(&d, data, len);
	/* The host's side of it finds whatever state the driver has left. */
	(void)virtio_balloon_want(dev, len << 20);
	virtio_balloon_get(dev, &state);
	drv_pump(&d);
	drv_finish(&d);
	return 0;
}
