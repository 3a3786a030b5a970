/* SPDX-License-Identifier: Apache-2.0 */
/* Disks made of several: every read is what the parts, put one after the other, have there. */
#include "block/block.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define PARTS 5
#define SIZE (BLOCK_SECTOR * (1 + 3 + 8 + 1 + 2))

static const unsigned sectors[PARTS] = { 1, 3, 8, 1, 2 };
static uint8_t expected[SIZE];
static struct block *whole;

static int setup(void **state)
{
	struct block *part[PARTS];
	size_t at = 0;

	for (size_t i = 0; i < SIZE; i++)
		expected[i] = (uint8_t)(i * 7 + i / 251);
	for (unsigned i = 0; i < PARTS; i++) {
		assert_int_equal(block_ram_create(sectors[i] * BLOCK_SECTOR, &part[i], NULL), 0);
		assert_int_equal(block_write(part[i], 0, expected + at, sectors[i] * BLOCK_SECTOR), 0);
		at += sectors[i] * BLOCK_SECTOR;
	}
	return block_concat_create(part, PARTS, &whole, NULL);
}

static int teardown(void **state)
{
	block_destroy(whole);
	return 0;
}

static void test_the_whole_is_as_large_as_its_parts_and_read_only(void **state)
{
	assert_int_equal(whole->size, SIZE);
	assert_true(whole->read_only);
	assert_int_equal(block_write(whole, 0, expected, BLOCK_SECTOR), -EROFS);
}

static void test_reads_of_any_place_and_length_cross_seams(void **state)
{
	uint8_t got[SIZE];

	for (size_t off = 0; off < SIZE; off += BLOCK_SECTOR / 2)
		for (size_t len = 0; off + len <= SIZE; len += BLOCK_SECTOR / 2) {
			memset(got, 0, sizeof(got));
			assert_int_equal(block_read(whole, off, got, len), 0);
			assert_memory_equal(got, expected + off, len);
		}
}

static void test_vectors_are_cut_where_parts_end(void **state)
{
	uint8_t got[SIZE];
	struct iovec iov[64];

	srand(1);
	for (unsigned round = 0; round < 2000; round++) {
		size_t off = (size_t)rand() % SIZE, at = off;
		unsigned n = 0;

		for (; n < 64 && at < SIZE; n++) {
			size_t len = (size_t)rand() % 1500;	/* often 0, too */

			len = rand() % 4 ? len : 0;
			len = len < SIZE - at ? len : SIZE - at;
			iov[n] = (struct iovec){ .iov_base = got + at, .iov_len = len };
			at += len;
		}
		memset(got, 0, sizeof(got));
		assert_int_equal(block_readv(whole, off, iov, n), 0);
		assert_memory_equal(got + off, expected + off, at - off);
	}
}

static void test_reads_beyond_the_end_are_refused(void **state)
{
	uint8_t got[2];

	assert_int_equal(block_read(whole, SIZE, got, 0), 0);
	assert_int_equal(block_read(whole, SIZE - 1, got, 2), -ERANGE);
	assert_int_equal(block_read(whole, UINT64_MAX, got, 2), -ERANGE);
}

static int fail_readv(struct block *blk, uint64_t off, const struct iovec *iov, unsigned niov)
{
	return -EIO;
}

static void fail_destroy(struct block *blk)
{
	free(blk);
}

static struct block *failing(uint64_t size)
{
	static const struct block_ops ops = { .name = "fail", .readv = fail_readv, .destroy = fail_destroy };
	struct block *blk = malloc(sizeof(*blk));

	assert_non_null(blk);
	*blk = (struct block){ .ops = &ops, .size = size, .read_only = true };
	return blk;
}

static void test_a_part_that_fails_fails_the_read(void **state)
{
	struct block *part[2], *both;
	uint8_t got[2 * BLOCK_SECTOR];

	assert_int_equal(block_ram_create(BLOCK_SECTOR, &part[0], NULL), 0);
	part[1] = failing(BLOCK_SECTOR);
	assert_int_equal(block_concat_create(part, 2, &both, NULL), 0);
	assert_int_equal(block_read(both, 0, got, BLOCK_SECTOR), 0);
	assert_int_equal(block_read(both, 0, got, 2 * BLOCK_SECTOR), -EIO);
	block_destroy(both);
}

static void test_empty_parts_and_no_parts_are_refused(void **state)
{
	struct block *none = failing(0), *whole2 = NULL;

	assert_int_equal(block_concat_create(NULL, 0, &whole2, NULL), -EINVAL);
	assert_int_equal(block_concat_create(&none, 1, &whole2, NULL), -EINVAL);
	block_destroy(none);	/* still ours */
	assert_null(whole2);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_the_whole_is_as_large_as_its_parts_and_read_only),
		T(test_reads_of_any_place_and_length_cross_seams),
		T(test_vectors_are_cut_where_parts_end),
		T(test_reads_beyond_the_end_are_refused),
		cmocka_unit_test(test_a_part_that_fails_fails_the_read),
		cmocka_unit_test(test_empty_parts_and_no_parts_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
