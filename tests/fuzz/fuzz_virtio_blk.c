/* SPDX-License-Identifier: Apache-2.0 */
#include "block/block.h"
#include "tests/fuzz/virtio_fuzz.h"
#include "virtio/blk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct block *base, *disk;
	struct virtio_device *dev;
	struct drv d;

	drv_init(&d);
	if (block_ram_create(1u << 20, &base, NULL) < 0 ||
	    block_overlay_create(base, NULL, 0, &disk, NULL) < 0 ||
	    virtio_blk_create(d.loop, disk, "fuzz", &dev, NULL) < 0)
		abort();
	drv_attach(&d, dev);
	fuzz_run(&d, data, len);
	drv_finish(&d);
	return 0;
}
