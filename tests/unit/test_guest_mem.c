/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/guest_mem.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <cmocka.h>
#include <unistd.h>

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

/* A file of @size zero bytes behind @offset others. */
static int make_file(uint64_t offset, uint64_t size)
{
	int fd = memfd_create("guest memory", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)(offset + size)), 0);
	return fd;
}

static void put(int fd, uint64_t at, const char *text)
{
	assert_int_equal(pwrite(fd, text, strlen(text), (off_t)at), strlen(text));
}

static void test_memory_from_a_file_has_its_contents_in_both_banks(void **state)
{
	const uint64_t size = MEM_GAP_START + (2 << 20), offset = 12288;
	int fd = make_file(offset, size);
	struct mem *mem;

	put(fd, offset - 3, "notlow");
	put(fd, offset + MEM_GAP_START - 3, "tophigh");
	put(fd, offset + size - 3, "end");
	assert_int_equal(mem_create_from(fd, offset, size, &mem, NULL), 0);
	assert_int_equal(close(fd), 0);	/* it is not needed any more */
	assert_memory_equal(mem_at(mem, 0, 4), "low", 4);
	assert_memory_equal(mem_at(mem, MEM_GAP_START - 3, 3), "top", 3);
	assert_memory_equal(mem_at(mem, MEM_GAP_END, 5), "high", 5);
	assert_memory_equal(mem_at(mem, MEM_GAP_END + (2 << 20) - 3, 3), "end", 3);
	mem_destroy(mem);
}

static void test_writes_to_memory_from_a_file_stay_here(void **state)
{
	int fd = make_file(0, 2 << 20);
	struct mem *one, *two;
	char bytes[3];

	put(fd, 100, "old");
	assert_int_equal(mem_create_from(fd, 0, 2 << 20, &one, NULL), 0);
	assert_int_equal(mem_create_from(fd, 0, 2 << 20, &two, NULL), 0);
	assert_int_equal(mem_write(one, 100, "new", 3), 0);
	assert_int_equal(mem_write(one, 1 << 20, "new", 3), 0);
	assert_memory_equal(mem_at(two, 100, 3), "old", 3);
	assert_memory_equal(mem_at(two, 1 << 20, 3), "\0\0", 3);
	assert_int_equal(pread(fd, bytes, 3, 100), 3);
	assert_memory_equal(bytes, "old", 3);
	assert_memory_equal(mem_at(one, 100, 3), "new", 3);
	mem_destroy(one);
	mem_destroy(two);
	assert_int_equal(close(fd), 0);
}

static void test_discarded_pages_of_a_file_are_zero(void **state)
{
	int fd = make_file(0, 4 << 20);
	uint64_t seen = 0;
	struct mem *mem;
	uint8_t *ram;

	for (uint64_t at = 0; at < 4 << 20; at += 4096)
		put(fd, at, "of the file");
	assert_int_equal(mem_create_from(fd, 0, 4 << 20, &mem, NULL), 0);
	mem->watch = (struct mem_watch){ .wrote = count, .ctx = &seen };
	ram = mem_at(mem, 0, 4 << 20);
	ram[8192] = 'x';	/* one of them was written to before */
	assert_int_equal(mem_discard(mem, 4096, 8192), 0);
	assert_int_equal(seen, 4096 * 1000 + 8192);
	for (unsigned i = 4096; i < 4096 + 8192; i++)
		assert_int_equal(ram[i], 0);
	assert_int_equal(ram[0], 'o');
	assert_int_equal(ram[12288], 'o');
	ram[4096] = 1;	/* it can be used as before, and given back again */
	assert_int_equal(mem_discard(mem, 0, 4 << 20), 0);
	assert_int_equal(ram[4096] + ram[12288] + ram[(4 << 20) - 4096], 0);
	assert_ptr_equal(mem_at(mem, 4096, 1), ram + 4096);
	mem_destroy(mem);
	assert_int_equal(close(fd), 0);
}

static void test_large_holes_of_a_file_are_of_no_file(void **state)
{
	const uint64_t size = 128 << 20, edge = (48 << 20) + (1 << 20);
	int fd = make_file(4096, size);
	const struct mem_bank *b;
	struct mem *mem;
	uint8_t *ram;

	put(fd, 4096, "first");
	put(fd, 4096 + edge, "middle");
	assert_int_equal(mem_create_from(fd, 4096, size, &mem, NULL), 0);
	b = &mem->bank[0];
	assert_int_equal(b->nbare, 2);
	assert_true(b->bare[0].from > 0 && b->bare[0].from <= 8 << 20 && b->bare[0].end == 48 << 20);
	assert_true(b->bare[1].from >= 50 << 20 && b->bare[1].from <= 58 << 20 && b->bare[1].end == size);
	ram = mem_at(mem, 0, size);
	assert_memory_equal(ram, "first", 6);
	assert_memory_equal(ram + edge, "middle", 7);
	memset(ram + b->bare[0].end - 4096, 'x', 8192);	/* a page on either side */
	assert_int_equal(mem_discard(mem, b->bare[0].end - 4096, 4096), 0);
	assert_int_equal(ram[b->bare[0].end - 4096], 0);
	assert_int_equal(ram[b->bare[0].end], 'x');
	assert_int_equal(mem_discard(mem, 0, size), 0);
	assert_int_equal(ram[0] + ram[b->bare[0].end] + ram[edge], 0);
	ram[edge] = 1;
	mem_destroy(mem);
	assert_int_equal(close(fd), 0);
}

static void test_a_file_without_large_holes_is_mapped_as_it_is(void **state)
{
	const uint64_t size = 64 << 20;
	int fd = make_file(0, size);
	struct mem *mem;

	for (uint64_t at = 0; at < size; at += 8 << 20)
		put(fd, at, "here");
	assert_int_equal(mem_create_from(fd, 0, size, &mem, NULL), 0);
	assert_int_equal(mem->bank[0].nbare, 0);
	for (uint64_t at = 0; at < size; at += 8 << 20)
		assert_memory_equal(mem_at(mem, at, 5), "here", 5);
	mem_destroy(mem);
	assert_int_equal(close(fd), 0);
}

static void test_a_copy_leaves_out_what_is_zero(void **state)
{
	const uint64_t size = MEM_GAP_START + (2 << 20);
	int fd = make_file(0, size);
	struct mem *mem, *again;
	struct stat st;
	uint8_t *to;

	assert_int_equal(mem_create(size, &mem, NULL), 0);
	assert_int_equal(mem_write(mem, 4096 + 4095, "ab", 2), 0);
	assert_int_equal(mem_write(mem, MEM_GAP_END, "high", 4), 0);
	assert_int_equal(mem_write(mem, MEM_GAP_END + (2 << 20) - 1, "z", 1), 0);
	to = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
	assert_true(to != MAP_FAILED);
	mem_copy(mem, to);
	assert_int_equal(munmap(to, size), 0);
	mem_destroy(mem);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_blocks, 4 * 8);
	assert_int_equal(mem_create_from(fd, 0, size, &again, NULL), 0);
	assert_memory_equal(mem_at(again, 4096 + 4095, 2), "ab", 2);
	assert_memory_equal(mem_at(again, MEM_GAP_END, 5), "high", 5);
	assert_memory_equal(mem_at(again, MEM_GAP_END + (2 << 20) - 1, 1), "z", 1);
	mem_destroy(again);
	assert_int_equal(close(fd), 0);
}

static void test_memory_from_what_is_no_file_is_refused(void **state)
{
	struct mem *mem;
	int fd = make_file(0, 2 << 20);

	assert_int_equal(mem_create_from(1000, 0, 2 << 20, &mem, NULL), -EBADF);
	assert_int_equal(mem_create_from(fd, 1, 2 << 20, &mem, NULL), -EINVAL);
	assert_int_equal(mem_create_from(fd, 0, 4096, &mem, NULL), -EINVAL);
	assert_int_equal(close(fd), 0);
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
		cmocka_unit_test(test_memory_from_a_file_has_its_contents_in_both_banks),
		cmocka_unit_test(test_writes_to_memory_from_a_file_stay_here),
		cmocka_unit_test(test_discarded_pages_of_a_file_are_zero),
		cmocka_unit_test(test_large_holes_of_a_file_are_of_no_file),
		cmocka_unit_test(test_a_file_without_large_holes_is_mapped_as_it_is),
		cmocka_unit_test(test_a_copy_leaves_out_what_is_zero),
		cmocka_unit_test(test_memory_from_what_is_no_file_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
