/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Drives a device as a hostile driver would.  The input is a list of commands:
 *
 *   0 q n {w lenlo lenhi bytes...}*n   offers a chain; readable buffers carry the
 *                                      bytes that follow, then rings the bell
 *   1 off16 len bytes...               writes anywhere in the rings' memory
 *   2 reg value32                      writes a register
 *   3                                  resets and negotiates again
 */
#ifndef TESTS_VIRTIO_FUZZ_H
#define TESTS_VIRTIO_FUZZ_H

#include "tests/unit/virtio_driver.h"

#define FUZZ_SEGS_MAX 6u
#define FUZZ_COMMANDS_MAX 200u

struct fuzz_input {
	const uint8_t *at;
	size_t left;
};

static inline uint8_t fuzz_u8(struct fuzz_input *in)
{
	if (!in->left)
		return 0;
	in->left--;
	return *in->at++;
}

static inline uint32_t fuzz_u16(struct fuzz_input *in)
{
	uint32_t lo = fuzz_u8(in);

	return lo | (uint32_t)fuzz_u8(in) << 8;
}

static inline size_t fuzz_bytes(struct fuzz_input *in, uint8_t *dst, size_t len)
{
	if (len > in->left)
		len = in->left;
	memcpy(dst, in->at, len);
	in->at += len;
	in->left -= len;
	return len;
}

static inline void fuzz_chain(struct drv *d, struct fuzz_input *in)
{
	unsigned q = fuzz_u8(in) % d->dev->nqueues, n = 1 + fuzz_u8(in) % FUZZ_SEGS_MAX;
	struct drv_seg seg[FUZZ_SEGS_MAX];
	gpa_t at = DRV_DATA;

	for (unsigned i = 0; i < n; i++) {
		seg[i].write = fuzz_u8(in) & 1;
		seg[i].len = fuzz_u16(in);
		seg[i].gpa = at;
		if (!seg[i].write)
			seg[i].len = (uint32_t)fuzz_bytes(in, d->ram + at, seg[i].len);
		at += 0x10000;
	}
	if (!d->q[q].size)	/* the driver broke the queues with a register */
		return;
	(void)drv_add(d, q, seg, n);
	drv_kick(d, q);
}

static inline void fuzz_run(struct drv *d, const uint8_t *data, size_t len)
{
	struct fuzz_input in = { data, len };
	uint32_t off;

	(void)drv_start(d, DRV_FEATURES_ALL);
	for (unsigned i = 0; in.left && i < FUZZ_COMMANDS_MAX; i++) {
		switch (fuzz_u8(&in) % 4) {
		case 0:
			fuzz_chain(d, &in);
			break;
		case 1:
			off = fuzz_u16(&in);
			(void)fuzz_bytes(&in, d->ram + off, fuzz_u8(&in));
			break;
		case 2:
			off = fuzz_u8(&in) * 4u % VIRTIO_MMIO_WINDOW;
			drv_write(d, off, fuzz_u16(&in) | fuzz_u16(&in) << 16);
			drv_pump(d);
			break;
		default:
			(void)drv_start(d, DRV_FEATURES_ALL);
			break;
		}
	}
	drv_pump(d);
}

#endif /* TESTS_VIRTIO_FUZZ_H */
