/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/guest_mem.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
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

static void test_discarded_pages_are_zero_reported_and_the_hosts_again(void **state)
{
	unsigned char resident[2];
	uint64_t seen = 0;
	struct mem *mem;
	uint8_t *ram;

	assert_int_equal(mem_create(4 << 20, &mem, NULL), 0);
	ram = mem_at(mem, 2 << 20, 2 << 20);
	memset(ram, 0xaa, 2 << 20);
	mem->watch = (struct mem_watch){ .wrote = count, .ctx = &seen };
	assert_int_equal(mem_discard(mem, (2 << 20) + 4096, (2 << 20) - 4096), 0);
	assert_int_equal(seen, ((2 << 20) + 4096) * 1000ull + (2 << 20) - 4096);
	assert_int_equal(mincore(ram, 8192, resident), 0);
	assert_int_equal(resident[0] & 1, 1);
	assert_int_equal(resident[1] & 1, 0);
	assert_int_equal(ram[4095], 0xaa);
	assert_int_equal(ram[4096], 0);
	ram[4096] = 1;	/* it can be used as before */
	assert_ptr_equal(mem_at(mem, 2 << 20, 1), ram);
	mem_destroy(mem);
}

static void test_discarding_what_is_not_whole_pages_of_ram_is_refused(void **state)
{
	uint64_t seen = 0;
	struct mem *mem;

	assert_int_equal(mem_create(MEM_GAP_START + (2 << 20), &mem, NULL), 0);
	mem->watch = (struct mem_watch){ .wrote = count, .ctx = &seen };
	assert_int_equal(mem_discard(mem, 4095, 4096), -EINVAL);
	assert_int_equal(mem_discard(mem, 4096, 4095), -EINVAL);
	assert_int_equal(mem_discard(mem, MEM_GAP_START - 4096, 8192), -EFAULT);
	assert_int_equal(mem_discard(mem, MEM_GAP_START, 4096), -EFAULT);
	assert_int_equal(mem_discard(mem, MEM_GAP_END + (2 << 20), 4096), -EFAULT);
	assert_int_equal(mem_discard(mem, UINT64_MAX - 4095, 4096), -EFAULT);
	assert_int_equal(mem_discard(mem, UINT64_MAX - 4095, 8192), -EFAULT);
	assert_int_equal(mem_discard(mem, 0, UINT64_MAX - 4095), -EFAULT);
	assert_int_equal(mem_discard(mem, 4096, 0), 0);
	assert_int_equal(seen, 0);
	mem_destroy(mem);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_address_past_end_or_wrapping_is_null),
		cmocka_unit_test(test_ram_above_the_gap_starts_at_4_gib),
		cmocka_unit_test(test_odd_sizes_are_refused),
		cmocka_unit_test(test_host_writes_are_reported),
		cmocka_unit_test(test_discarded_pages_are_zero_reported_and_the_hosts_again),
		cmocka_unit_test(test_discarding_what_is_not_whole_pages_of_ram_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
