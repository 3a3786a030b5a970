/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fuzz/virtio_fuzz.h"
#include "virtio/rng.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct virtio_device *dev;
	struct drv d;

	drv_init(&d);
	if (virtio_rng_create(d.loop, &dev, NULL) < 0)
		abort();
	drv_attach(&d, dev);
	fuzz_run(&d, data, len);
	drv_finish(&d);
	return 0;
}
