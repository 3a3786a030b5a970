/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/guest_mem.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

static void test_address_past_end_or_wrapping_is_null(void **state)
{
	struct mem *mem;

	assert_int_equal(mem_create(4 << 20, &mem, NULL), 0);
	assert_non_null(mem_at(mem, (4 << 20) - 8, 8));
	assert_null(mem_at(mem, (4 << 20) - 7, 8));
	assert_null(mem_at(mem, UINT64_MAX, 2));
	assert_null(mem_at(mem, 0, UINT64_MAX));
	mem_destroy(mem);
}

static void test_ram_above_the_gap_starts_at_4_gib(void **state)
{
	struct mem *mem;

	assert_int_equal(mem_create(MEM_GAP_START + (2 << 20), &mem, NULL), 0);
	assert_null(mem_at(mem, MEM_GAP_START, 1));
	assert_null(mem_at(mem, MEM_GAP_START - 1, 2));
	assert_non_null(mem_at(mem, MEM_GAP_END, 2 << 20));
	mem_destroy(mem);
}

static void test_odd_sizes_are_refused(void **state)
{
	struct mem *mem;

	assert_int_equal(mem_create(0, &mem, NULL), -EINVAL);
	assert_int_equal(mem_create(4096, &mem, NULL), -EINVAL);
}

static void count(void *ctx, gpa_t gpa, uint64_t len)
{
	*(uint64_t *)ctx += gpa * 1000 + len;
}

static void test_host_writes_are_reported(void **state)
{
	char ram[64] = { 0 };
	uint64_t seen = 0;
	struct mem mem;

	mem_init_borrowed(&mem, ram, 0, sizeof(ram));
	mem.watch = (struct mem_watch){ .wrote = count, .ctx = &seen };
	assert_int_equal(mem_write(&mem, 7, "abc", 3), 0);
	assert_int_equal(seen, 7003);
	assert_memory_equal(ram + 7, "abc", 3);
	assert_int_equal(mem_write(&mem, 62, "abc", 3), -EFAULT);
	assert_int_equal(seen, 7003);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_address_past_end_or_wrapping_is_null),
		cmocka_unit_test(test_ram_above_the_gap_starts_at_4_gib),
		cmocka_unit_test(test_odd_sizes_are_refused),
		cmocka_unit_test(test_host_writes_are_reported),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
