/* SPDX-License-Identifier: Apache-2.0 */
#include "os/blob.h"
#include "tests/unit/virtio_driver.h"
#include "virtio/console.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <unistd.h>
#include <cmocka.h>

struct host {
	char out[256];
	size_t len, room;
	unsigned rooms;
};

static struct drv drv;
static struct host host;

static size_t output(void *ctx, const void *bytes, size_t len)
{
	if (len > host.room)
		len = host.room;
	memcpy(host.out + host.len, bytes, len);
	host.len += len;
	host.room -= len;
	return len;
}

static void input_room(void *ctx)
{
	host.rooms++;
}

static const struct virtio_console_host host_ops = { .output = output, .input_room = input_room };

static int setup(void **state)
{
	struct virtio_device *dev;

	memset(&host, 0, sizeof(host));
	host.room = sizeof(host.out);
	drv_init(&drv);
	assert_int_equal(virtio_console_create(drv.loop, &host_ops, &dev, NULL), 0);
	drv_attach(&drv, dev);
	assert_int_equal(drv_start(&drv, DRV_FEATURES_ALL), 15);
	return 0;
}

static int teardown(void **state)
{
	drv_finish(&drv);
	return 0;
}

static void test_output_reaches_the_host_in_order(void **state)
{
	const struct drv_seg seg[] = { { DRV_DATA, 5, false }, { DRV_DATA + 100, 6, false } };

	drv_put(&drv, DRV_DATA, "hello", 5);
	drv_put(&drv, DRV_DATA + 100, " world", 6);
	assert_int_equal(drv_request(&drv, 1, seg, 2), 0);
	assert_int_equal(host.len, 11);
	assert_memory_equal(host.out, "hello world", 11);
}

static void test_slow_host_holds_the_request_back(void **state)
{
	const struct drv_seg seg = { DRV_DATA, 8, false };
	uint32_t id, len;

	host.room = 3;
	drv_put(&drv, DRV_DATA, "abcdefgh", 8);
	(void)drv_add(&drv, 1, &seg, 1);
	drv_kick(&drv, 1);
	assert_false(drv_used(&drv, 1, &id, &len));
	host.room = 100;
	virtio_console_output_ready(drv.dev);
	assert_true(drv_used(&drv, 1, &id, &len));
	assert_memory_equal(host.out, "abcdefgh", 8);
}

static void test_request_in_flight_survives_save_and_not_reset(void **state)
{
	const struct drv_seg seg = { DRV_DATA, 8, false };
	struct blob blob = { 0 };
	struct blob_reader in;
	uint32_t id, len;

	host.room = 3;
	drv_put(&drv, DRV_DATA, "abcdefgh", 8);
	(void)drv_add(&drv, 1, &seg, 1);
	drv_kick(&drv, 1);
	virtio_mmio_pause(drv.mmio);
	virtio_mmio_save(drv.mmio, &blob);
	virtio_mmio_resume(drv.mmio);
	in = (struct blob_reader){ .at = blob.bytes, .left = blob.len };
	assert_int_equal(virtio_mmio_restore(drv.mmio, &in, NULL), 0);
	host.room = 100;
	virtio_console_output_ready(drv.dev);
	assert_true(drv_used(&drv, 1, &id, &len));
	assert_memory_equal(host.out, "abcdefgh", 8);
	blob_finish(&blob);

	host.room = 0;
	(void)drv_add(&drv, 1, &seg, 1);
	drv_kick(&drv, 1);
	assert_int_equal(drv_start(&drv, DRV_FEATURES_ALL), 15);
	host.room = 100;
	virtio_console_output_ready(drv.dev);
	assert_int_equal(host.len, 8);
}

/* 4.2.2.2: a driver may stop one queue and set it up again; its old buffers are its own. */
static void test_request_in_flight_ends_with_its_queue(void **state)
{
	const struct drv_seg old = { DRV_DATA, 8, false }, new = { DRV_DATA + 64, 3, false };
	struct blob blob = { 0 };
	struct blob_reader in;
	uint32_t id, len;

	host.room = 3;
	drv_put(&drv, DRV_DATA, "abcdefgh", 8);
	(void)drv_add(&drv, 1, &old, 1);
	drv_kick(&drv, 1);
	drv_write(&drv, 0x30, 1);
	drv_write(&drv, 0x44, 0);
	assert_int_equal(drv_read(&drv, 0x44), 0);
	drv_setup_queue(&drv, 1);
	virtio_mmio_pause(drv.mmio);
	virtio_mmio_save(drv.mmio, &blob);
	virtio_mmio_resume(drv.mmio);
	in = (struct blob_reader){ .at = blob.bytes, .left = blob.len };
	assert_int_equal(virtio_mmio_restore(drv.mmio, &in, NULL), 0);
	blob_finish(&blob);
	host.room = 100;
	virtio_console_output_ready(drv.dev);
	assert_false(drv_used(&drv, 1, &id, &len));
	assert_int_equal(host.len, 3);
	drv_put(&drv, DRV_DATA + 64, "new", 3);
	assert_int_equal(drv_request(&drv, 1, &new, 1), 0);
	assert_memory_equal(host.out, "abcnew", 6);
}

static void test_input_waits_for_buffers_and_bounds_memory(void **state)
{
	const struct drv_seg seg = { DRV_DATA, 16, true };
	char big[8192] = { 'x' };
	size_t taken = 0, n;

	assert_int_equal(virtio_console_input(drv.dev, "typed", 5), 5);
	assert_int_equal(drv_request(&drv, 0, &seg, 1), 5);
	assert_memory_equal(drv.ram + DRV_DATA, "typed", 5);
	while ((n = virtio_console_input(drv.dev, big, sizeof(big))))
		taken += n;
	assert_true(taken < sizeof(big));
	assert_int_equal(host.rooms, 0);
	assert_int_equal(drv_request(&drv, 0, &seg, 1), 16);
	assert_int_equal(host.rooms, 1);
}

static void test_resize_interrupts_with_a_new_generation(void **state)
{
	uint32_t gen = drv_read(&drv, 0xfc);

	drv.irqs = 0;
	virtio_console_resize(drv.dev, 132, 43);
	assert_int_equal(drv.irqs, 1);
	assert_int_equal(drv_read(&drv, 0x60), 2);
	assert_int_not_equal(drv_read(&drv, 0xfc), gen);
	assert_int_equal(drv_read(&drv, 0x100), 132 | 43 << 16);
}

static void test_descriptors_on_both_sides(void **state)
{
	const struct drv_seg out = { DRV_DATA, 5, false }, in = { DRV_DATA + 64, 16, true };
	int to_guest[2], from_guest[2];
	struct virtio_device *dev;
	struct drv d;
	char buf[16];

	assert_int_equal(pipe2(to_guest, O_NONBLOCK), 0);
	assert_int_equal(pipe2(from_guest, O_NONBLOCK), 0);
	drv_init(&d);
	assert_int_equal(virtio_console_create_fd(d.loop, to_guest[0], from_guest[1], &dev, NULL), 0);
	drv_attach(&d, dev);
	(void)drv_start(&d, DRV_FEATURES_ALL);
	drv_put(&d, DRV_DATA, "login", 5);
	assert_int_equal(drv_request(&d, 1, &out, 1), 0);
	assert_int_equal(read(from_guest[0], buf, sizeof(buf)), 5);
	assert_memory_equal(buf, "login", 5);
	assert_int_equal(write(to_guest[1], "root\n", 5), 5);
	assert_int_equal(drv_request(&d, 0, &in, 1), 5);
	assert_memory_equal(d.ram + DRV_DATA + 64, "root\n", 5);
	(void)close(to_guest[1]);
	drv_pump(&d);	/* end of input must not spin */
	(void)close(from_guest[0]);	/* output nobody reads is dropped, without SIGPIPE */
	assert_int_equal(drv_request(&d, 1, &out, 1), 0);
	drv_finish(&d);
	(void)close(to_guest[0]);
	(void)close(from_guest[1]);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_output_reaches_the_host_in_order),
		T(test_slow_host_holds_the_request_back),
		T(test_request_in_flight_survives_save_and_not_reset),
		T(test_request_in_flight_ends_with_its_queue),
		T(test_input_waits_for_buffers_and_bounds_memory),
		T(test_resize_interrupts_with_a_new_generation),
		T(test_descriptors_on_both_sides),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
