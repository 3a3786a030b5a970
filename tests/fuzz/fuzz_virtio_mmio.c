/* SPDX-License-Identifier: Apache-2.0 */
/* Registers in any order and width, and saved state from anywhere. */
#include "os/blob.h"
#include "tests/fuzz/virtio_fuzz.h"
#include "virtio/console.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static size_t output(void *ctx, const void *bytes, size_t len)
{
	return len / 2;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	const struct virtio_console_host host = { .output = output };
	struct fuzz_input in = { data, len };
	struct virtio_device *dev;
	struct blob blob = { 0 };
	struct blob_reader state;
	struct drv d;

	drv_init(&d);
	if (virtio_console_create(d.loop, &host, &dev, NULL) < 0)
		abort();
	drv_attach(&d, dev);
	state = (struct blob_reader){ .at = data, .left = len };
	(void)virtio_mmio_restore(d.mmio, &state, NULL);
	for (unsigned i = 0; in.left && i < FUZZ_COMMANDS_MAX; i++) {
		uint64_t off = fuzz_u16(&in) % VIRTIO_MMIO_WINDOW;
		unsigned size = 1u << (fuzz_u8(&in) & 3);
		bool write = fuzz_u8(&in) & 1;

		if (off + size > VIRTIO_MMIO_WINDOW)
			continue;
		if (write)
			d.range.ops->write(d.range.dev, off, size, fuzz_u16(&in));
		else
			(void)d.range.ops->read(d.range.dev, off, size);
	}
	drv_pump(&d);
	virtio_mmio_pause(d.mmio);
	virtio_mmio_save(d.mmio, &blob);
	virtio_mmio_resume(d.mmio);
	blob_finish(&blob);
	drv_finish(&d);
	return 0;
}
