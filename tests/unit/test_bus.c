/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/bus.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>
#include <sys/eventfd.h>
#include <unistd.h>

static uint64_t read_offset(void *dev, uint64_t off, unsigned size)
{
	return 0xffffffffffffff00ull | off;
}

static void note_write(void *dev, uint64_t off, unsigned size, uint64_t value)
{
	*(uint64_t *)dev = off << 32 | value;
}

static const struct bus_ops ops = { read_offset, note_write };

static int add(struct bus *bus, uint64_t base, uint64_t size, void *dev)
{
	return bus_add(bus, &(struct bus_range){ base, size, &ops, dev, "test" }, NULL);
}

static void test_ranges_must_not_overlap_or_wrap(void **state)
{
	static struct bus bus;

	assert_int_equal(add(&bus, 0x1000, 0x1000, NULL), 0);
	assert_int_equal(add(&bus, 0x3000, 0x1000, NULL), 0);
	assert_int_equal(add(&bus, 0x2000, 0x1000, NULL), 0);
	assert_int_equal(add(&bus, 0x1fff, 1, NULL), -EEXIST);
	assert_int_equal(add(&bus, 0x0, 0x1001, NULL), -EEXIST);
	assert_int_equal(add(&bus, 0x0, 0x10000, NULL), -EEXIST);
	assert_int_equal(add(&bus, 0x5000, 0, NULL), -EINVAL);
	assert_int_equal(add(&bus, UINT64_MAX - 1, 4, NULL), -EINVAL);
	assert_int_equal(add(&bus, UINT64_MAX, 1, NULL), 0);
	assert_int_equal(add(&bus, 0, 0x1000, NULL), 0);
}

static void test_accesses_reach_their_range_whole_or_not_at_all(void **state)
{
	static struct bus bus;
	uint64_t seen = 0, v;

	assert_int_equal(add(&bus, 0x2000, 0x10, &seen), 0);
	assert_true(bus_read(&bus, 0x2004, 4, &v));
	assert_int_equal(v, 0xffffff04);
	assert_true(bus_read(&bus, 0x200f, 1, &v));
	assert_int_equal(v, 0x0f);
	assert_false(bus_read(&bus, 0x200e, 4, &v));
	assert_int_equal(v, 0xffffffff);
	assert_false(bus_read(&bus, 0x1ffe, 8, &v));
	assert_int_equal(v, UINT64_MAX);
	assert_true(bus_write(&bus, 0x2008, 1, 0x1234));
	assert_int_equal(seen, 8ull << 32 | 0x34);
	assert_false(bus_write(&bus, 0x2010, 1, 1));
}

static void test_a_doorbell_signals_instead_of_calling(void **state)
{
	static struct bus bus;
	int fd = eventfd(0, EFD_NONBLOCK);
	uint64_t seen = 0, count;

	assert_int_equal(add(&bus, 0x2000, 0x10, &seen), 0);
	assert_int_equal(bus_add_doorbell(&bus, &(struct bus_doorbell){ 0x2004, 4, true, 7, fd },
					  NULL), 0);
	assert_true(bus_write(&bus, 0x2004, 4, 7));
	assert_int_equal(seen, 0);
	assert_int_equal(read(fd, &count, 8), 8);
	assert_int_equal(count, 1);
	assert_true(bus_write(&bus, 0x2004, 4, 8));
	assert_int_equal(seen, 4ull << 32 | 8);
	assert_true(bus_write(&bus, 0x2004, 2, 7));	/* another width */
	assert_int_equal(seen, 4ull << 32 | 7);
	assert_int_equal(read(fd, &count, 8), -1);
	close(fd);
}

static void test_a_full_bus_says_so(void **state)
{
	static struct bus bus;

	for (unsigned i = 0; i < BUS_RANGES_MAX; i++)
		assert_int_equal(add(&bus, 16 * (BUS_RANGES_MAX - i), 16, NULL), 0);
	assert_int_equal(add(&bus, 0x100000, 16, NULL), -ENOSPC);
	for (unsigned i = 0; i < BUS_DOORBELLS_MAX; i++)
		assert_int_equal(bus_add_doorbell(&bus, &(struct bus_doorbell){ .addr = i }, NULL), 0);
	assert_int_equal(bus_add_doorbell(&bus, &(struct bus_doorbell){ 0 }, NULL), -ENOSPC);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ranges_must_not_overlap_or_wrap),
		cmocka_unit_test(test_accesses_reach_their_range_whole_or_not_at_all),
		cmocka_unit_test(test_a_doorbell_signals_instead_of_calling),
		cmocka_unit_test(test_a_full_bus_says_so),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
