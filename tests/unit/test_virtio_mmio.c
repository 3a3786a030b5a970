/* SPDX-License-Identifier: Apache-2.0 */
/* Queues and transport, through the entropy device, the simplest there is. */
#include "os/blob.h"
#include "tests/unit/virtio_driver.h"
#include "virtio/rng.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <unistd.h>
#include <cmocka.h>

enum { NEEDS_RESET = 64 };

static int setup(void **state)
{
	static struct drv d;
	struct virtio_device *dev;

	drv_init(&d);
	assert_int_equal(virtio_rng_create(d.loop, &dev, NULL), 0);
	drv_attach(&d, dev);
	*state = &d;
	return 0;
}

static int teardown(void **state)
{
	drv_finish(*state);
	return 0;
}

static void test_identifies_itself(void **state)
{
	struct drv *d = *state;

	assert_int_equal(drv_read(d, 0), 0x74726976);
	assert_int_equal(drv_read(d, 4), 2);
	assert_int_equal(drv_read(d, 8), 4);
	assert_int_equal(drv_read(d, 0xb0), 0xffffffff);
	assert_int_equal(drv_read(d, 0xb4), 0xffffffff);
	assert_int_equal(d->range.ops->read(d->range.dev, 0, 1), 0);	/* words only */
	assert_int_equal(drv_read(d, 2), 0);
}

static void test_features_need_version_1_and_only_what_is_offered(void **state)
{
	struct drv *d = *state;

	assert_int_equal(drv_start(d, DRV_FEATURES_ALL & ~(1ull << 32)) & 8, 0);
	assert_int_equal(drv_start(d, DRV_FEATURES_ALL), 15);
	drv_write(d, 0x70, 0);
	assert_int_equal(drv_read(d, 0x70), 0);
	drv_write(d, 0x24, 0);
	drv_write(d, 0x20, 1u << 5);	/* never offered */
	drv_write(d, 0x24, 1);
	drv_write(d, 0x20, 1);
	drv_write(d, 0x70, 8);
	assert_int_equal(drv_read(d, 0x70), 0);
	drv_write(d, 0x70, 4);
	assert_int_equal(drv_read(d, 0x70), 0);
}

static void test_a_request_is_served_with_one_interrupt(void **state)
{
	struct drv *d = *state;
	const struct drv_seg seg[] = { { DRV_DATA, 100, true }, { DRV_DATA + 4096, 28, true } };
	unsigned zeros = 0;

	(void)drv_start(d, DRV_FEATURES_ALL);
	assert_int_equal(drv_request(d, 0, seg, 2), 128);
	assert_int_equal(d->irqs, 1);
	assert_int_equal(drv_read(d, 0x60), 1);
	assert_true(d->wrote >= 128 + 8 + 2);
	for (unsigned i = 0; i < 100; i++)
		zeros += d->ram[DRV_DATA + i] == 0;
	assert_true(zeros < 20);

	/* Not acknowledged: the bit is still set, another edge would say nothing. */
	assert_int_equal(drv_request(d, 0, seg, 2), 128);
	assert_int_equal(d->irqs, 1);
	drv_write(d, 0x64, 1);
	assert_int_equal(drv_read(d, 0x60), 0);
	drv_put16(d, d->q[0].avail + 4 + 2u * d->q[0].size, d->q[0].used_idx);
	assert_int_equal(drv_request(d, 0, seg, 2), 128);
	assert_int_equal(d->irqs, 2);
}

static void test_buffers_offered_before_driver_ok_are_served(void **state)
{
	struct drv *d = *state;
	const struct drv_seg seg = { DRV_DATA, 16, true };
	uint32_t id, len;

	drv_write(d, 0x70, 0);
	drv_write(d, 0x24, 1);
	drv_write(d, 0x20, 1);
	drv_write(d, 0x70, 8);
	drv_setup_queue(d, 0);
	(void)drv_add(d, 0, &seg, 1);
	drv_kick(d, 0);
	assert_false(drv_used(d, 0, &id, &len));
	drv_write(d, 0x70, 8 | 4);
	drv_pump(d);
	assert_true(drv_used(d, 0, &id, &len));
}

static void test_event_index_suppresses_interrupts(void **state)
{
	struct drv *d = *state;
	const struct drv_seg seg = { DRV_DATA, 16, true };

	(void)drv_start(d, DRV_FEATURES_ALL);
	drv_put16(d, d->q[0].avail + 4 + 2u * d->q[0].size, 2);	/* used_event: after the third */
	for (int i = 0; i < 3; i++) {
		drv_write(d, 0x64, 3);
		assert_int_equal(drv_request(d, 0, &seg, 1), 16);
		if (i == 0)	/* the first ever is always told: no older index to compare with */
			d->irqs = 0;
		assert_int_equal(d->irqs, i == 2);
	}
	/* avail_event follows what we took, so that the driver notifies again. */
	assert_int_equal(drv_get16(d, d->q[0].used + 4 + 8u * d->q[0].size), 3);
}

static void test_without_event_index_the_flag_suppresses(void **state)
{
	struct drv *d = *state;
	const struct drv_seg seg = { DRV_DATA, 16, true };

	(void)drv_start(d, DRV_FEATURES_ALL & ~VIRTIO_FEATURE_EVENT_IDX);
	drv_put16(d, d->q[0].avail, 1);
	assert_int_equal(drv_request(d, 0, &seg, 1), 16);
	assert_int_equal(d->irqs, 0);
	drv_put16(d, d->q[0].avail, 0);
	assert_int_equal(drv_request(d, 0, &seg, 1), 16);
	assert_int_equal(d->irqs, 1);
}

static void test_indirect_table_is_followed(void **state)
{
	struct drv *d = *state;
	uint32_t id, len;

	(void)drv_start(d, DRV_FEATURES_ALL);
	drv_desc(d, DRV_DATA, 0, DRV_DATA + 0x1000, 10, DRV_WRITE | DRV_NEXT, 1);
	drv_desc(d, DRV_DATA, 1, DRV_DATA + 0x2000, 20, DRV_WRITE, 0);
	drv_desc(d, d->q[0].desc, 5, DRV_DATA, 32, DRV_INDIRECT, 0);
	drv_offer(d, 0, 5);
	drv_kick(d, 0);
	assert_true(drv_used(d, 0, &id, &len));
	assert_int_equal(id, 5);
	assert_int_equal(len, 30);
}

/* Offers descriptor 0 and expects the device to break, and a reset to mend it. */
static void expect_broken(struct drv *d)
{
	const struct drv_seg good = { DRV_DATA, 16, true };

	drv_offer(d, 0, 0);
	drv_kick(d, 0);
	assert_int_equal(drv_read(d, 0x70) & NEEDS_RESET, NEEDS_RESET);
	assert_int_equal(drv_read(d, 0x60) & 2, 2);
	assert_int_equal(drv_get16(d, d->q[0].used + 2), 0);
	assert_int_equal(drv_start(d, DRV_FEATURES_ALL), 15);
	assert_int_equal(drv_request(d, 0, &good, 1), 16);
	assert_int_equal(drv_start(d, DRV_FEATURES_ALL), 15);
}

static void test_malformed_chains_stop_the_device_until_reset(void **state)
{
	struct drv *d = *state;
	gpa_t t;

	(void)drv_start(d, DRV_FEATURES_ALL);
	t = d->q[0].desc;
	drv_desc(d, t, 0, DRV_DATA, 1, DRV_WRITE | DRV_NEXT, 0);	/* loops */
	expect_broken(d);
	drv_desc(d, t, 0, DRV_DATA, 1, DRV_WRITE | DRV_NEXT, 9999);	/* link outside */
	expect_broken(d);
	drv_desc(d, t, 0, DRV_RAM - 4, 8, DRV_WRITE, 0);	/* ends outside memory */
	expect_broken(d);
	drv_desc(d, t, 0, UINT64_MAX - 3, 8, DRV_WRITE, 0);	/* wraps */
	expect_broken(d);
	for (unsigned i = 0; i < 4; i++)	/* a longer loop, entered from outside it */
		drv_desc(d, t, i, DRV_DATA, 1, DRV_WRITE | DRV_NEXT, i < 3 ? (uint16_t)(i + 1) : 1);
	expect_broken(d);
	drv_desc(d, t, 0, DRV_RAM, 1, DRV_WRITE, 0);	/* begins outside memory */
	expect_broken(d);
	for (unsigned i = 0; i < 2; i++)	/* more than 4 GiB in all (2.7.4.2), in a bank that is smaller */
		drv_desc(d, t, i, DRV_DATA, UINT32_MAX, DRV_WRITE | (i ? 0 : DRV_NEXT), 1);
	expect_broken(d);
	drv_desc(d, t, 0, DRV_DATA, 8, DRV_WRITE | DRV_NEXT, 1);	/* readable after writable */
	drv_desc(d, t, 1, DRV_DATA, 8, 0, 0);
	expect_broken(d);
}

static void test_indirect_abuse_stops_the_device(void **state)
{
	struct drv *d = *state;
	gpa_t t;

	(void)drv_start(d, DRV_FEATURES_ALL);
	t = d->q[0].desc;
	drv_desc(d, t, 0, DRV_DATA, 24, DRV_INDIRECT, 0);	/* one and a half entries */
	expect_broken(d);
	drv_desc(d, t, 0, DRV_DATA, 0, DRV_INDIRECT, 0);	/* empty */
	expect_broken(d);
	drv_desc(d, t, 0, DRV_RAM - 16, 32, DRV_INDIRECT, 0);	/* outside */
	expect_broken(d);
	drv_desc(d, t, 0, DRV_DATA, 16, DRV_INDIRECT | DRV_NEXT, 1);	/* chained on */
	expect_broken(d);
	drv_desc(d, DRV_DATA, 0, DRV_DATA, 16, DRV_INDIRECT, 0);	/* nested */
	drv_desc(d, t, 0, DRV_DATA, 16, DRV_INDIRECT, 0);
	expect_broken(d);
	drv_desc(d, DRV_DATA, 0, DRV_DATA, 1, DRV_WRITE | DRV_NEXT, 0);	/* loops inside */
	drv_desc(d, t, 0, DRV_DATA, 16, DRV_INDIRECT, 0);
	expect_broken(d);
	drv_desc(d, DRV_DATA, 0, DRV_DATA + 64, 8, DRV_WRITE | DRV_NEXT, 2);	/* link behind the table */
	drv_desc(d, t, 0, DRV_DATA, 32, DRV_INDIRECT, 0);
	expect_broken(d);
	drv_desc(d, DRV_DATA, 0, DRV_DATA + 64, 8, DRV_WRITE | DRV_NEXT, 1);	/* nested behind a good entry */
	drv_desc(d, DRV_DATA, 1, DRV_DATA, 16, DRV_INDIRECT, 0);
	drv_desc(d, t, 0, DRV_DATA, 32, DRV_INDIRECT, 0);
	expect_broken(d);
	(void)drv_start(d, DRV_FEATURES_ALL & ~VIRTIO_FEATURE_INDIRECT);
	drv_desc(d, DRV_DATA, 0, DRV_DATA + 64, 8, DRV_WRITE, 0);
	drv_desc(d, t, 0, DRV_DATA, 16, DRV_INDIRECT, 0);	/* not negotiated */
	expect_broken(d);
}

static void test_wild_available_index_stops_the_device(void **state)
{
	struct drv *d = *state;

	(void)drv_start(d, DRV_FEATURES_ALL);
	drv_put16(d, d->q[0].avail + 2, 1000);
	drv_kick(d, 0);
	assert_int_equal(drv_read(d, 0x70) & NEEDS_RESET, NEEDS_RESET);
	(void)drv_start(d, DRV_FEATURES_ALL);
	drv_put16(d, d->q[0].avail + 4, d->q[0].size);	/* head outside the table */
	drv_put16(d, d->q[0].avail + 2, 1);
	drv_kick(d, 0);
	assert_int_equal(drv_read(d, 0x70) & NEEDS_RESET, NEEDS_RESET);
}

/*
 * Rings in one place, and a saved state in which one is an entry ahead: each used
 * entry the device writes is a new available one.  A driver that offers buffers all
 * the time, from another processor, looks the same to the device.
 */
static void test_a_queue_that_feeds_itself_leaves_the_loop_to_others(void **state)
{
	struct drv *d = *state;
	const struct drv_seg good = { DRV_DATA, 16, true };
	struct blob blob = { 0 };
	struct blob_reader in;

	(void)drv_start(d, DRV_FEATURES_ALL & ~VIRTIO_FEATURE_EVENT_IDX);
	drv_write(d, 0x44, 0);
	drv_write(d, 0x90, DRV_DATA);
	drv_write(d, 0xa0, DRV_DATA);
	drv_write(d, 0x44, 1);
	virtio_mmio_pause(d->mmio);
	virtio_mmio_save(d->mmio, &blob);
	virtio_mmio_resume(d->mmio);
	blob.bytes[blob.len - 2] = 1;	/* next used entry of the only queue */
	in = (struct blob_reader){ .at = blob.bytes, .left = blob.len };
	assert_int_equal(virtio_mmio_restore(d->mmio, &in, NULL), 0);
	blob_finish(&blob);
	drv_put16(d, DRV_DATA + 2, 1);
	drv_kick(d, 0);	/* returns, as the loop also does what was posted to it ... */
	assert_int_equal(drv_get16(d, DRV_DATA + 2), VIRTIO_TURN + 1);
	drv_pump(d);	/* ... and goes on in the next turn */
	assert_int_equal(drv_get16(d, DRV_DATA + 2), 2 * VIRTIO_TURN + 1);
	assert_int_equal(drv_start(d, DRV_FEATURES_ALL), 15);
	assert_int_equal(drv_request(d, 0, &good, 1), 16);
}

static void test_queue_sizes_that_are_not_offered_are_refused(void **state)
{
	struct drv *d = *state;
	const uint32_t max = drv_read(d, 0x34), bad[] = { 0, 3, max - 1, max + 1, 2 * max, 0x8000, 0x10000, UINT32_MAX };

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		(void)drv_start(d, DRV_FEATURES_ALL);
		drv_write(d, 0x44, 0);
		drv_write(d, 0x38, bad[i]);
		drv_write(d, 0x44, 1);
		assert_int_equal(drv_read(d, 0x44), 0);
		assert_int_equal(drv_read(d, 0x70) & NEEDS_RESET, NEEDS_RESET);
		assert_int_equal(drv_read(d, 0x60) & 2, 2);	/* 2.1.2: the driver is told */
	}
	(void)drv_start(d, DRV_FEATURES_ALL);
	drv_write(d, 0x44, 0);
	drv_write(d, 0x38, 1);	/* the smallest */
	drv_write(d, 0x44, 1);
	assert_int_equal(drv_read(d, 0x44), 1);
	drv_write(d, 0x38, max);	/* 4.2.2.2: fixed while ready */
	d->q[0] = (struct drv_queue){ .size = 1, .desc = d->q[0].desc, .avail = d->q[0].avail, .used = d->q[0].used };
	memset(d->ram + d->q[0].desc, 0, 0x8000);
	for (int i = 0; i < 3; i++)
		assert_int_equal(drv_request(d, 0, &(struct drv_seg){ DRV_DATA, 16, true }, 1), 16);
}

static void test_misaligned_rings_are_refused(void **state)
{
	static const struct { uint32_t reg, off; } bad[] = { { 0x80, 8 }, { 0x90, 1 }, { 0xa0, 2 } };
	struct drv *d = *state;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		(void)drv_start(d, DRV_FEATURES_ALL);
		drv_write(d, 0x44, 0);
		drv_write(d, bad[i].reg, DRV_DATA + bad[i].off);
		drv_write(d, 0x44, 1);
		assert_int_equal(drv_read(d, 0x44), 0);
		assert_int_equal(drv_read(d, 0x70) & NEEDS_RESET, NEEDS_RESET);
	}
}

/* Before DRIVER_OK a device that breaks says so in its status, without an interrupt (2.1.2). */
static void test_a_bad_queue_before_driver_ok_is_told_without_interrupt(void **state)
{
	struct drv *d = *state;

	drv_write(d, 0x70, 0);
	drv_write(d, 0x24, 1);
	drv_write(d, 0x20, 1);
	drv_write(d, 0x70, 8);
	drv_write(d, 0x38, 3);
	drv_write(d, 0x44, 1);
	assert_int_equal(drv_read(d, 0x70), 8 | NEEDS_RESET);
	assert_int_equal(drv_read(d, 0x60), 0);
	assert_int_equal(d->irqs, 0);
	drv_write(d, 0x70, 8 | 4);	/* the driver goes on regardless: nothing runs */
	drv_setup_queue(d, 0);
	drv_desc(d, d->q[0].desc, 0, DRV_DATA, 16, DRV_WRITE, 0);
	drv_offer(d, 0, 0);
	drv_kick(d, 0);
	assert_int_equal(drv_get16(d, d->q[0].used + 2), 0);
	drv_write(d, 0x70, 8 | 4);	/* 2.1.1: writing the bit does not clear it */
	assert_int_equal(drv_read(d, 0x70) & NEEDS_RESET, NEEDS_RESET);
}

static void test_notifications_before_driver_ok_touch_nothing(void **state)
{
	static uint8_t before[DRV_DATA];
	struct drv *d = *state;

	drv_write(d, 0x70, 0);
	drv_kick(d, 0);	/* no queue yet */
	drv_write(d, 0x24, 1);
	drv_write(d, 0x20, 1);
	drv_write(d, 0x70, 8);
	drv_setup_queue(d, 0);
	drv_desc(d, d->q[0].desc, 0, DRV_DATA, 16, DRV_WRITE, 0);
	drv_offer(d, 0, 0);
	memcpy(before, d->ram, sizeof(before));
	d->wrote = 0;
	drv_kick(d, 0);
	assert_memory_equal(d->ram, before, sizeof(before));
	assert_int_equal(d->wrote, 0);
	assert_int_equal(drv_read(d, 0x60), 0);
	assert_int_equal(drv_read(d, 0x70), 8);
}

static void test_queue_outside_memory_is_refused(void **state)
{
	struct drv *d = *state;

	(void)drv_start(d, DRV_FEATURES_ALL);
	drv_write(d, 0x44, 0);
	assert_int_equal(drv_read(d, 0x44), 0);
	drv_write(d, 0xa4, 1);
	drv_write(d, 0x44, 1);
	assert_int_equal(drv_read(d, 0x44), 0);
	assert_int_equal(drv_read(d, 0x70) & NEEDS_RESET, NEEDS_RESET);
	drv_write(d, 0x30, 77);	/* no such queue */
	assert_int_equal(drv_read(d, 0x34), 0);
	drv_write(d, 0x44, 1);
	drv_write(d, 0x50, 77);
	drv_pump(d);
}

static void test_saved_state_goes_on_in_another_device(void **state)
{
	struct drv *d = *state;
	const struct drv_seg seg = { DRV_DATA, 16, true };
	struct blob blob = { 0 };
	struct blob_reader in;
	struct virtio_device *dev;

	(void)drv_start(d, DRV_FEATURES_ALL);
	for (int i = 0; i < 5; i++)
		assert_int_equal(drv_request(d, 0, &seg, 1), 16);
	virtio_mmio_pause(d->mmio);
	virtio_mmio_save(d->mmio, &blob);
	virtio_mmio_resume(d->mmio);
	assert_false(blob.failed);
	virtio_mmio_destroy(d->mmio);
	virtio_device_destroy(d->dev);
	assert_int_equal(virtio_rng_create(d->loop, &dev, NULL), 0);
	drv_attach(d, dev);
	in = (struct blob_reader){ .at = blob.bytes, .left = blob.len };
	assert_int_equal(virtio_mmio_restore(d->mmio, &in, NULL), 0);
	assert_int_equal(in.left, 0);
	assert_int_equal(drv_request(d, 0, &seg, 1), 16);
	assert_int_equal(drv_get16(d, d->q[0].used + 2), 6);

	for (size_t n = 0; n < blob.len; n++) {	/* every truncation is noticed */
		in = (struct blob_reader){ .at = blob.bytes, .left = n };
		assert_int_equal(virtio_mmio_restore(d->mmio, &in, NULL), -EINVAL);
		assert_int_equal(drv_read(d, 0x70), 0);
	}
	blob_finish(&blob);
}

static void test_doorbells_reach_the_device(void **state)
{
	struct drv *d = *state;
	const struct drv_seg seg = { DRV_DATA, 16, true };
	struct bus_doorbell bell[VIRTIO_QUEUES_MAX];
	uint64_t one = 1;
	uint32_t id, len;

	assert_int_equal(virtio_mmio_doorbells(d->mmio, bell), 1);
	assert_int_equal(bell[0].addr, d->range.base + 0x50);
	assert_true(bell[0].match);
	(void)drv_start(d, DRV_FEATURES_ALL);
	(void)drv_add(d, 0, &seg, 1);
	assert_int_equal(write(bell[0].fd, &one, 8), 8);
	drv_pump(d);
	assert_true(drv_used(d, 0, &id, &len));
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_identifies_itself),
		T(test_features_need_version_1_and_only_what_is_offered),
		T(test_a_request_is_served_with_one_interrupt),
		T(test_buffers_offered_before_driver_ok_are_served),
		T(test_event_index_suppresses_interrupts),
		T(test_without_event_index_the_flag_suppresses),
		T(test_indirect_table_is_followed),
		T(test_malformed_chains_stop_the_device_until_reset),
		T(test_indirect_abuse_stops_the_device),
		T(test_wild_available_index_stops_the_device),
		T(test_a_queue_that_feeds_itself_leaves_the_loop_to_others),
		T(test_queue_sizes_that_are_not_offered_are_refused),
		T(test_misaligned_rings_are_refused),
		T(test_a_bad_queue_before_driver_ok_is_told_without_interrupt),
		T(test_notifications_before_driver_ok_touch_nothing),
		T(test_queue_outside_memory_is_refused),
		T(test_saved_state_goes_on_in_another_device),
		T(test_doorbells_reach_the_device),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
