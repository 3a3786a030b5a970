/* SPDX-License-Identifier: Apache-2.0 */
#include "os/blob.h"
#include "tests/unit/virtio_driver.h"
#include "virtio/balloon.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#define PAGE 4096u
#define STATS (1ull << 1)
#define DEFLATE_ON_OOM (1ull << 2)
#define REPORTING (1ull << 5)
#define RESERVE 8192u	/* pages that a guest keeps */
#define CONFIG 0x100	/* register of num_pages; actual comes behind it */
#define GIVEN (2u << 20)	/* guest address of the pages that the tests give up */

enum { INFLATE, DEFLATE, STATISTICS, REPORT, REPORT_BY_THE_SPEC };

static struct drv drv;

static int setup_with(bool yield)
{
	struct virtio_device *dev;

	drv_init(&drv);
	assert_int_equal(virtio_balloon_create(drv.loop, yield, &dev, NULL), 0);
	drv_attach(&drv, dev);
	assert_int_equal(drv_start(&drv, DRV_FEATURES_ALL), 15);
	memset(drv.ram + GIVEN, 0xaa, 1 << 20);
	drv.wrote = 0;
	return 0;
}

static int setup(void **state)
{
	return setup_with(false);
}

static int teardown(void **state)
{
	drv_finish(&drv);
	return 0;
}

static bool is_resident(gpa_t at)
{
	unsigned char resident;

	assert_int_equal(mincore(drv.ram + at, PAGE, &resident), 0);
	return resident & 1;
}

static int64_t send_pages(unsigned queue, const uint32_t *page, unsigned n)
{
	const struct drv_seg seg = { DRV_DATA, n * 4, false };

	drv_put(&drv, DRV_DATA, page, n * 4);
	return drv_request(&drv, queue, &seg, 1);
}

static int64_t report(unsigned queue, gpa_t gpa, uint32_t len)
{
	const struct drv_seg seg = { gpa, len, true };

	return drv_request(&drv, queue, &seg, 1);
}

static struct virtio_balloon_state get(void)
{
	struct virtio_balloon_state s;

	virtio_balloon_get(drv.dev, &s);
	return s;
}

/* ---------------------------------------------------------------- inflating */

static void test_pages_given_up_go_back_to_the_host(void **state)
{
	const uint32_t page[] = { 512, 513, 514, 520, 519, 530 };

	assert_int_equal(send_pages(INFLATE, page, 6), 0);
	for (uint32_t p = 512; p < 532; p++) {
		bool given = p <= 514 || p == 519 || p == 520 || p == 530;

		assert_int_equal(is_resident(p * PAGE), !given);
	}
	assert_true(drv.wrote >= 6 * PAGE);	/* code that was translated from them is forgotten */
	assert_int_equal(drv.ram[512 * PAGE], 0);
	assert_int_equal(drv.ram[515 * PAGE], 0xaa);
}

static void test_pages_taken_back_can_be_used(void **state)
{
	const uint32_t page = 512;

	assert_int_equal(send_pages(INFLATE, &page, 1), 0);
	assert_int_equal(send_pages(DEFLATE, &page, 1), 0);
	drv.ram[512 * PAGE] = 1;
	assert_true(is_resident(512 * PAGE));
}

static void test_a_page_outside_memory_breaks_the_device_until_reset(void **state)
{
	static const uint32_t outside[] = { DRV_RAM / PAGE, 0xc0000, 0x100000, UINT32_MAX };

	for (unsigned i = 0; i < 4; i++) {
		const uint32_t page[] = { 512, outside[i] };

		assert_int_equal(send_pages(INFLATE, page, 2), -1);
		assert_int_equal(drv_start(&drv, DRV_FEATURES_ALL), 15);
	}
	assert_int_equal(send_pages(INFLATE, (const uint32_t[]){ 512 }, 1), 0);
}

static void test_half_a_page_number_is_refused(void **state)
{
	const struct drv_seg seg = { DRV_DATA, 6, false };

	assert_int_equal(drv_request(&drv, INFLATE, &seg, 1), -1);
}

static void test_lists_may_be_long_but_not_endless(void **state)
{
	static uint32_t page[4097];

	for (unsigned i = 0; i < 4097; i++)
		page[i] = 512 + i % 256;
	assert_int_equal(send_pages(INFLATE, page, 4096), 0);
	assert_false(is_resident(767 * PAGE));
	assert_int_equal(send_pages(INFLATE, page, 4097), -1);
}

static void test_one_turn_does_not_serve_all_pages_of_a_flood(void **state)
{
	static uint32_t page[4096];
	const struct drv_seg seg = { DRV_DATA, sizeof(page), false };
	uint32_t id, len;
	unsigned served = 0;

	for (unsigned i = 0; i < 4096; i++)
		page[i] = 512 + i * 2 % 256;	/* no neighbours */
	drv_put(&drv, DRV_DATA, page, sizeof(page));
	for (unsigned i = 0; i < 32; i++)
		(void)drv_add(&drv, INFLATE, &seg, 1);
	drv_kick(&drv, INFLATE);
	while (drv_used(&drv, INFLATE, &id, &len))
		served++;
	assert_in_range(served, 1, 31);
	for (unsigned i = 0; i < 64; i++)
		drv_pump(&drv);
	while (drv_used(&drv, INFLATE, &id, &len))
		served++;
	assert_int_equal(served, 32);
}

/* -------------------------------------------------------------------- asking */

static void put_stat(unsigned i, uint16_t tag, uint64_t value)
{
	drv_put(&drv, DRV_DATA + 10 * i, &tag, 2);
	drv_put(&drv, DRV_DATA + 10 * i + 2, &value, 8);
}

/* Offers statistics that say so many pages are available. */
static void tell_available(uint64_t pages)
{
	const struct drv_seg seg = { DRV_DATA, 10, false };

	put_stat(0, 6, pages * PAGE);
	(void)drv_add(&drv, STATISTICS, &seg, 1);
	drv_kick(&drv, STATISTICS);
}

static bool stats_wanted(void)
{
	uint32_t id, len;

	return drv_used(&drv, STATISTICS, &id, &len);
}

static void test_the_driver_learns_what_is_asked_and_tells_what_it_gave(void **state)
{
	struct virtio_balloon_state s;
	unsigned irqs = atomic_load(&drv.irqs);

	assert_int_equal(drv_start(&drv, ~STATS), 15);
	assert_int_equal(virtio_balloon_want(drv.dev, 10 * PAGE + 5), 0);
	assert_true(atomic_load(&drv.irqs) > irqs);
	assert_int_equal(drv_read(&drv, CONFIG), 10);
	drv_write(&drv, CONFIG + 4, 7);
	drv_write(&drv, CONFIG, 1000);	/* not the driver's */
	s = get();
	assert_int_equal(s.wanted, 10 * PAGE);
	assert_int_equal(s.given, 7 * PAGE);
	assert_int_equal(drv_read(&drv, CONFIG), 10);
	assert_int_equal(drv_read(&drv, CONFIG + 4), 7);
}

static void test_a_guest_is_asked_only_for_what_it_can_spare(void **state)
{
	tell_available(RESERVE + 1000);	/* was so, some time ago */
	assert_int_equal(virtio_balloon_want(drv.dev, 300 * PAGE), 0);
	assert_int_equal(drv_read(&drv, CONFIG), 0);
	assert_true(stats_wanted());
	tell_available(RESERVE + 100);
	assert_int_equal(drv_read(&drv, CONFIG), 100);
	drv_write(&drv, CONFIG + 4, 100);
	assert_false(stats_wanted());
	for (int i = 0; i < 3000 && !stats_wanted(); i++) {	/* after a second it looks again */
		(void)nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
		drv_pump(&drv);
	}
	tell_available(RESERVE - 50);
	assert_int_equal(drv_read(&drv, CONFIG), 100);
	(void)get();
	tell_available(RESERVE + 1000);
	assert_int_equal(drv_read(&drv, CONFIG), 300);
	assert_int_equal(virtio_balloon_want(drv.dev, 20 * PAGE), 0);
	assert_int_equal(drv_read(&drv, CONFIG), 20);	/* it may have the rest back at once */
}

static void test_nothing_is_asked_of_a_guest_without_driver(void **state)
{
	drv_write(&drv, 0x70, 0);
	assert_int_equal(virtio_balloon_want(drv.dev, 10 * PAGE), -ENOTCONN);
	assert_int_equal(get().wanted, 0);
}

static void test_the_next_driver_is_asked_for_what_the_last_one_was(void **state)
{
	tell_available(RESERVE + 1000);
	assert_int_equal(virtio_balloon_want(drv.dev, 10 * PAGE), 0);
	tell_available(RESERVE + 1000);
	drv_write(&drv, CONFIG + 4, 10);
	assert_int_equal(drv_start(&drv, DRV_FEATURES_ALL), 15);
	assert_int_equal(get().given, 0);
	assert_int_equal(drv_read(&drv, CONFIG), 0);
	tell_available(RESERVE + 1000);
	assert_int_equal(drv_read(&drv, CONFIG), 10);
}

static void test_only_a_yielding_balloon_lets_a_guest_short_of_memory_deflate(void **state)
{
	assert_false(drv_features(&drv) & DEFLATE_ON_OOM);
	drv_finish(&drv);
	(void)setup_with(true);
	assert_true(drv_features(&drv) & DEFLATE_ON_OOM);
}

/* ----------------------------------------------------------------- reporting */

static void test_reported_pages_go_back_to_the_host(void **state)
{
	assert_int_equal(report(REPORT, GIVEN, 16 * PAGE), 0);
	assert_false(is_resident(GIVEN));
	assert_false(is_resident(GIVEN + 15 * PAGE));
	assert_true(is_resident(GIVEN + 16 * PAGE));
	assert_int_equal(get().reported, 16 * PAGE);
	assert_int_equal(report(REPORT_BY_THE_SPEC, GIVEN + 16 * PAGE, PAGE), 0);
	assert_false(is_resident(GIVEN + 16 * PAGE));
}

static void test_reports_come_on_the_third_queue_without_statistics(void **state)
{
	assert_int_equal(drv_start(&drv, ~STATS), 11 | 4);
	assert_int_equal(report(STATISTICS, GIVEN, PAGE), 0);
	assert_false(is_resident(GIVEN));
}

static void test_reports_that_were_not_agreed_on_do_nothing(void **state)
{
	assert_int_equal(drv_start(&drv, ~REPORTING), 15);
	assert_int_equal(report(REPORT, GIVEN, PAGE), 0);
	assert_true(is_resident(GIVEN));
}

static void test_reports_of_parts_of_pages_or_from_outside_break_the_device(void **state)
{
	assert_int_equal(report(REPORT, GIVEN + 1, PAGE), -1);
	assert_int_equal(drv_start(&drv, DRV_FEATURES_ALL), 15);
	assert_int_equal(report(REPORT, GIVEN, PAGE + 8), -1);
	assert_int_equal(drv_start(&drv, DRV_FEATURES_ALL), 15);
	assert_int_equal(report(REPORT, DRV_RAM - PAGE, 2 * PAGE), -1);
	assert_int_equal(drv_start(&drv, DRV_FEATURES_ALL), 15);
	assert_int_equal(report(REPORT, UINT64_MAX - PAGE + 1, 2 * PAGE), -1);
	assert_true(is_resident(GIVEN));
}

/* ---------------------------------------------------------------- statistics */

static void test_statistics_are_kept_until_new_ones_are_wanted(void **state)
{
	const struct drv_seg seg = { DRV_DATA, 45, false };	/* half an entry at the end does not count */
	struct virtio_balloon_state s;
	uint32_t id, len;

	put_stat(0, 5, 500);
	put_stat(1, 4, 400);
	put_stat(2, 99, 1);
	put_stat(3, 6, 450);
	(void)drv_add(&drv, STATISTICS, &seg, 1);
	drv_kick(&drv, STATISTICS);
	assert_false(drv_used(&drv, STATISTICS, &id, &len));
	s = get();
	assert_int_equal(s.total, 500);
	assert_int_equal(s.free, 400);
	assert_int_equal(s.available, 450);
	assert_true(drv_used(&drv, STATISTICS, &id, &len));	/* asked again */
	(void)get();
	assert_false(drv_used(&drv, STATISTICS, &id, &len));
}

static void test_a_second_buffer_of_statistics_returns_the_first(void **state)
{
	const struct drv_seg seg[] = { { DRV_DATA, 10, false }, { DRV_DATA + 10, 10, false } };
	uint32_t id, len, first;

	put_stat(0, 5, 500);
	put_stat(1, 5, 600);
	first = drv_add(&drv, STATISTICS, &seg[0], 1);
	(void)drv_add(&drv, STATISTICS, &seg[1], 1);
	drv_kick(&drv, STATISTICS);
	assert_true(drv_used(&drv, STATISTICS, &id, &len));
	assert_int_equal(id, first);
	assert_false(drv_used(&drv, STATISTICS, &id, &len));
	assert_int_equal(get().total, 600);
}

static void test_statistics_of_a_driver_that_is_gone_are_forgotten(void **state)
{
	const struct drv_seg seg = { DRV_DATA, 10, false };

	put_stat(0, 5, 500);
	(void)drv_add(&drv, STATISTICS, &seg, 1);
	drv_kick(&drv, STATISTICS);
	assert_int_equal(drv_start(&drv, DRV_FEATURES_ALL), 15);
	assert_int_equal(get().total, 0);
	assert_false(stats_wanted());
}

static void test_state_survives_saving(void **state)
{
	struct blob blob = { 0 };
	struct blob_reader in;

	assert_int_equal(drv_start(&drv, ~STATS), 15);
	assert_int_equal(virtio_balloon_want(drv.dev, 10 * PAGE), 0);
	drv_write(&drv, CONFIG + 4, 7);
	virtio_mmio_pause(drv.mmio);
	virtio_mmio_save(drv.mmio, &blob);
	virtio_mmio_resume(drv.mmio);
	assert_int_equal(virtio_balloon_want(drv.dev, 0), 0);
	drv_write(&drv, CONFIG + 4, 0);
	in = (struct blob_reader){ .at = blob.bytes, .left = blob.len };
	assert_int_equal(virtio_mmio_restore(drv.mmio, &in, NULL), 0);
	assert_int_equal(drv_read(&drv, CONFIG), 10);
	assert_int_equal(get().wanted, 10 * PAGE);
	assert_int_equal(get().given, 7 * PAGE);
	blob_finish(&blob);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_pages_given_up_go_back_to_the_host),
		T(test_pages_taken_back_can_be_used),
		T(test_a_page_outside_memory_breaks_the_device_until_reset),
		T(test_half_a_page_number_is_refused),
		T(test_lists_may_be_long_but_not_endless),
		T(test_one_turn_does_not_serve_all_pages_of_a_flood),
		T(test_the_driver_learns_what_is_asked_and_tells_what_it_gave),
		T(test_a_guest_is_asked_only_for_what_it_can_spare),
		T(test_nothing_is_asked_of_a_guest_without_driver),
		T(test_the_next_driver_is_asked_for_what_the_last_one_was),
		T(test_only_a_yielding_balloon_lets_a_guest_short_of_memory_deflate),
		T(test_reported_pages_go_back_to_the_host),
		T(test_reports_come_on_the_third_queue_without_statistics),
		T(test_reports_that_were_not_agreed_on_do_nothing),
		T(test_reports_of_parts_of_pages_or_from_outside_break_the_device),
		T(test_statistics_are_kept_until_new_ones_are_wanted),
		T(test_a_second_buffer_of_statistics_returns_the_first),
		T(test_statistics_of_a_driver_that_is_gone_are_forgotten),
		T(test_state_survives_saving),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
