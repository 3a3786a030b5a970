/* SPDX-License-Identifier: Apache-2.0 */
#include "block/block.h"
#include "tests/unit/virtio_driver.h"
#include "virtio/blk.h"

#include <linux/virtio_blk.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#define DISK (1u << 20)	/* bytes */
#define STATUS (DRV_DATA + 0x100)

static struct drv drv;
static struct block *disk;	/* the device's, to look behind it */

static int setup(void **state)
{
	struct virtio_device *dev;

	drv_init(&drv);
	assert_int_equal(block_ram_create(DISK, &disk, NULL), 0);
	assert_int_equal(virtio_blk_create(drv.loop, disk, "disk-of-the-test", &dev, NULL), 0);
	drv_attach(&drv, dev);
	assert_int_equal(drv_start(&drv, DRV_FEATURES_ALL), 15);
	return 0;
}

static int teardown(void **state)
{
	drv_finish(&drv);
	return 0;
}

/* One request with up to two data buffers; returns the status byte. */
static int request(uint32_t type, uint64_t sector, const struct drv_seg *data, unsigned n)
{
	const struct virtio_blk_outhdr hdr = { .type = type, .sector = sector };
	struct drv_seg seg[8] = { { DRV_DATA, sizeof(hdr), false } };

	for (unsigned i = 0; i < n; i++)
		seg[1 + i] = data[i];
	seg[1 + n] = (struct drv_seg){ STATUS, 1, true };
	drv.ram[STATUS] = 0xff;
	drv_put(&drv, DRV_DATA, &hdr, sizeof(hdr));
	if (drv_request(&drv, 0, seg, n + 2) < 0)
		return -1;
	return drv.ram[STATUS];
}

static void test_config_shows_the_disk(void **state)
{
	assert_int_equal(drv_read(&drv, 0x100), DISK / 512);
	assert_int_equal(drv_read(&drv, 0x104), 0);
	assert_int_equal(drv_read(&drv, 0x100 + 20), 512);
}

static void test_writes_and_reads_several_segments(void **state)
{
	const struct drv_seg out[] = { { DRV_DATA + 0x1000, 700, false },
				       { DRV_DATA + 0x2001, 324, false } };
	const struct drv_seg in[] = { { DRV_DATA + 0x3000, 1000, true }, { DRV_DATA + 0x4000, 24, true } };

	memset(drv.ram + DRV_DATA + 0x1000, 'a', 700);
	memset(drv.ram + DRV_DATA + 0x2001, 'b', 324);
	assert_int_equal(request(VIRTIO_BLK_T_OUT, 3, out, 2), VIRTIO_BLK_S_OK);
	assert_int_equal(request(VIRTIO_BLK_T_IN, 3, in, 2), VIRTIO_BLK_S_OK);
	assert_int_equal(drv.ram[DRV_DATA + 0x3000 + 699], 'a');
	assert_int_equal(drv.ram[DRV_DATA + 0x3000 + 700], 'b');
	assert_int_equal(drv.ram[DRV_DATA + 0x4000 + 23], 'b');
	assert_int_equal(request(VIRTIO_BLK_T_FLUSH, 0, NULL, 0), VIRTIO_BLK_S_OK);
}

static void test_requests_past_the_end_fail(void **state)
{
	const struct drv_seg in = { DRV_DATA + 0x1000, 1024, true };
	const struct drv_seg odd = { DRV_DATA + 0x1000, 513, true };

	assert_int_equal(request(VIRTIO_BLK_T_IN, DISK / 512 - 2, &in, 1), VIRTIO_BLK_S_OK);
	assert_int_equal(request(VIRTIO_BLK_T_IN, DISK / 512 - 1, &in, 1), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(VIRTIO_BLK_T_IN, UINT64_MAX, &in, 1), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(VIRTIO_BLK_T_IN, UINT64_MAX / 512, &in, 1), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(VIRTIO_BLK_T_IN, 0, &odd, 1), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(99, 0, &in, 1), VIRTIO_BLK_S_UNSUPP);
}

static void test_discard_and_write_zeroes(void **state)
{
	const struct virtio_blk_discard_write_zeroes ranges[] = {
		{ .sector = 1, .num_sectors = 1, .flags = 1 }, { .sector = 4, .num_sectors = 2 } };
	const struct drv_seg out = { DRV_DATA + 0x1000, sizeof(ranges), false };
	char block[512 * 6], zero[512] = { 0 };

	memset(block, 'z', sizeof(block));
	assert_int_equal(block_write(disk, 0, block, sizeof(block)), 0);
	drv_put(&drv, DRV_DATA + 0x1000, ranges, sizeof(ranges));
	assert_int_equal(request(VIRTIO_BLK_T_WRITE_ZEROES, 0, &out, 1), VIRTIO_BLK_S_OK);
	assert_int_equal(block_read(disk, 0, block, sizeof(block)), 0);
	assert_int_equal(block[511], 'z');
	assert_memory_equal(block + 512, zero, 512);
	assert_int_equal(block[1024], 'z');
	assert_memory_equal(block + 512 * 5, zero, 512);
	/* unmap is no flag of discard */
	assert_int_equal(request(VIRTIO_BLK_T_DISCARD, 0, &out, 1), VIRTIO_BLK_S_UNSUPP);
	drv.ram[DRV_DATA + 0x1000 + 12] = 0;
	assert_int_equal(request(VIRTIO_BLK_T_DISCARD, 0, &out, 1), VIRTIO_BLK_S_OK);
}

static void test_identity(void **state)
{
	const struct drv_seg in = { DRV_DATA + 0x1000, 20, true };

	assert_int_equal(request(VIRTIO_BLK_T_GET_ID, 0, &in, 1), VIRTIO_BLK_S_OK);
	assert_string_equal((char *)drv.ram + DRV_DATA + 0x1000, "disk-of-the-test");
}

static void test_request_without_room_for_status_breaks_the_device(void **state)
{
	const struct drv_seg seg = { DRV_DATA, 16, false };

	assert_int_equal(drv_request(&drv, 0, &seg, 1), -1);
	assert_int_equal(drv_read(&drv, 0x70) & 64, 64);
}

static void test_read_only_disk_refuses_writes(void **state)
{
	const struct drv_seg out = { DRV_DATA + 0x1000, 512, false };

	disk->read_only = true;
	assert_int_equal(request(VIRTIO_BLK_T_OUT, 0, &out, 1), VIRTIO_BLK_S_IOERR);
}

static void add_range(void *ctx, uint64_t from, uint64_t len)
{
	char *text = ctx;
	size_t at = strlen(text);

	(void)snprintf(text + at, 200 - at, "%llu+%llu ", (unsigned long long)from >> 10, (unsigned long long)len >> 10);
}

static void test_what_was_read_of_a_read_only_disk_is_known(void **state)
{
	const struct drv_seg in = { DRV_DATA + 0x1000, 1024, true };
	char text[200] = "";

	assert_int_equal(request(VIRTIO_BLK_T_IN, 0, &in, 1), VIRTIO_BLK_S_OK);
	virtio_blk_reads(drv.dev, add_range, text);
	assert_string_equal(text, "");	/* the guest may write to it */
	disk->read_only = true;
	assert_int_equal(request(VIRTIO_BLK_T_IN, 31, &in, 1), VIRTIO_BLK_S_OK);	/* of two pieces */
	assert_int_equal(request(VIRTIO_BLK_T_IN, 31, &in, 1), VIRTIO_BLK_S_OK);
	assert_int_equal(request(VIRTIO_BLK_T_IN, 128, &in, 1), VIRTIO_BLK_S_OK);
	assert_int_equal(request(VIRTIO_BLK_T_IN, DISK / 512 - 2, &in, 1), VIRTIO_BLK_S_OK);
	assert_int_equal(request(VIRTIO_BLK_T_IN, DISK / 512 - 1, &in, 1), VIRTIO_BLK_S_IOERR);
	virtio_blk_reads(drv.dev, add_range, text);
	assert_string_equal(text, "0+32 64+16 1008+16 ");
	assert_int_equal(virtio_blk_bytes_read(drv.dev), 64 << 10);
	virtio_blk_forget_reads(drv.dev);
	text[0] = '\0';
	virtio_blk_reads(drv.dev, add_range, text);
	assert_string_equal(text, "");
	assert_int_equal(virtio_blk_bytes_read(drv.dev), 0);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_config_shows_the_disk),
		T(test_writes_and_reads_several_segments),
		T(test_requests_past_the_end_fail),
		T(test_discard_and_write_zeroes),
		T(test_identity),
		T(test_request_without_room_for_status_breaks_the_device),
		T(test_read_only_disk_refuses_writes),
		T(test_what_was_read_of_a_read_only_disk_is_known),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
