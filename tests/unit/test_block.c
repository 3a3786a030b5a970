/* SPDX-License-Identifier: Apache-2.0 */
#include "block/block.h"
#include "block/overlay_header.h"
#include "os/err.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#define KIB 1024u
#define CLUSTER (64u * KIB)
#define SIZE (4u * CLUSTER + 512u)	/* the last cluster is short */

static char dir[64];
static char image[96], layer[96];

static int setup(void **state)
{
	FILE *f;

	(void)snprintf(dir, sizeof(dir), "/tmp/roux-block-XXXXXX");
	assert_non_null(mkdtemp(dir));
	(void)snprintf(image, sizeof(image), "%s/image", dir);
	(void)snprintf(layer, sizeof(layer), "%s/layer", dir);
	f = fopen(image, "w");
	assert_non_null(f);
	for (unsigned i = 0; i < SIZE; i++)
		(void)fputc('A' + (int)(i / 512 % 26), f);
	assert_int_equal(fclose(f), 0);
	return 0;
}

static int teardown(void **state)
{
	(void)unlink(image);
	(void)unlink(layer);
	return rmdir(dir);
}

static struct block *open_image(bool read_only, bool direct)
{
	const struct block_file_options opt = { .read_only = read_only, .direct = direct };
	struct block *blk;

	assert_int_equal(block_file_open(image, &opt, &blk, NULL), 0);
	return blk;
}

static int byte_at(struct block *blk, uint64_t off)
{
	uint8_t b;

	assert_int_equal(block_read(blk, off, &b, 1), 0);
	return b;
}

static void test_ranges_are_checked_without_overflow(void **state)
{
	struct block *blk;
	char buf[4];

	assert_int_equal(block_ram_create(512, &blk, NULL), 0);
	assert_int_equal(block_write(blk, 508, "abcd", 4), 0);
	assert_int_equal(block_read(blk, 508, buf, 4), 0);
	assert_memory_equal(buf, "abcd", 4);
	assert_int_equal(block_read(blk, 509, buf, 4), -ERANGE);
	assert_int_equal(block_read(blk, UINT64_MAX, buf, 4), -ERANGE);
	assert_int_equal(block_discard(blk, 0, UINT64_MAX), -ERANGE);
	assert_int_equal(block_write_zeroes(blk, 510, 2, false), 0);
	assert_int_equal(byte_at(blk, 509), 'b');
	assert_int_equal(byte_at(blk, 510), 0);
	block_destroy(blk);
	block_destroy(NULL);
	assert_int_equal(block_ram_create(100, &blk, NULL), -EINVAL);
}

static void test_file_keeps_what_is_written(void **state)
{
	struct block *blk = open_image(false, false);

	assert_int_equal(blk->size, SIZE);
	assert_int_equal(block_write(blk, 1000, "xyz", 3), 0);
	assert_int_equal(block_write_zeroes(blk, 4096, 8192, true), 0);
	assert_int_equal(block_flush(blk), 0);
	block_destroy(blk);
	blk = open_image(true, false);
	assert_int_equal(byte_at(blk, 1001), 'y');
	assert_int_equal(byte_at(blk, 8191), 0);
	assert_int_equal(block_write(blk, 0, "x", 1), -EROFS);
	block_destroy(blk);
}

static void test_direct_file_serves_any_alignment(void **state)
{
	struct block *blk = open_image(false, true);
	void *aligned = NULL;

	assert_int_equal(posix_memalign(&aligned, 4096, 8192), 0);
	assert_int_equal(block_read(blk, 4096, aligned, 8192), 0);
	assert_int_equal(*(char *)aligned, 'A' + 8);
	assert_int_equal(block_write(blk, 4097, "q", 1), 0);
	assert_int_equal(block_read(blk, 4096, aligned, 4096), 0);
	assert_int_equal(((char *)aligned)[1], 'q');
	memset(aligned, 'D', 4096);
	assert_int_equal(block_write(blk, 0, aligned, 4096), 0);
	assert_int_equal(byte_at(blk, 17), 'D');
	free(aligned);
	block_destroy(blk);
}

static void test_writable_image_is_locked(void **state)
{
	const struct block_file_options opt = { 0 };
	struct block *blk = open_image(false, false), *other;
	struct err err = { 0 };

	assert_int_equal(block_file_open(image, &opt, &other, &err), -EBUSY);
	assert_non_null(strstr(err.msg, "in use"));
	block_destroy(blk);
	assert_int_equal(block_file_open("/nonexistent", &opt, &other, &err), -ENOENT);
	assert_int_equal(block_file_open("/tmp", &opt, &other, &err), -EISDIR);
}

/* The same writes over a plain copy and an overlay must read the same. */
static void test_overlay_agrees_with_a_plain_disk(void **state)
{
	struct block *base = open_image(true, false), *cow, *plain;
	static uint8_t a[SIZE], b[SIZE], data[3 * CLUSTER];

	assert_int_equal(block_overlay_create(base, NULL, 0, &cow, NULL), 0);
	assert_int_equal(block_ram_create(SIZE, &plain, NULL), 0);
	assert_int_equal(block_read(cow, 0, a, SIZE), 0);
	assert_int_equal(block_write(plain, 0, a, SIZE), 0);
	srand(1);
	for (int i = 0; i < 300; i++) {
		uint64_t off = (uint64_t)rand() % SIZE;
		size_t len = (size_t)rand() % (i % 3 ? 2000 : sizeof(data));

		if (len > SIZE - off)
			len = SIZE - off;
		memset(data, i, len);
		if (i % 7 == 0) {
			assert_int_equal(block_write_zeroes(cow, off, len, true), 0);
			assert_int_equal(block_write_zeroes(plain, off, len, false), 0);
		} else {
			assert_int_equal(block_write(cow, off, data, len), 0);
			assert_int_equal(block_write(plain, off, data, len), 0);
		}
		assert_int_equal(block_read(cow, 0, a, SIZE), 0);
		assert_int_equal(block_read(plain, 0, b, SIZE), 0);
		assert_memory_equal(a, b, SIZE);
	}
	assert_int_equal(block_discard(cow, 0, SIZE), 0);
	assert_int_equal(byte_at(cow, 0), 0);
	block_destroy(plain);
	block_destroy(cow);
	base = open_image(true, false);
	assert_int_equal(byte_at(base, 0), 'A');	/* the base is untouched */
	block_destroy(base);
}

static void test_overlay_larger_than_base_shows_zeroes(void **state)
{
	struct block *cow;

	assert_int_equal(block_overlay_create(open_image(true, false), NULL, 2 * SIZE, &cow, NULL), 0);
	assert_int_equal(byte_at(cow, SIZE - 1), 'A' + (SIZE / 512 - 1) % 26);
	assert_int_equal(byte_at(cow, SIZE), 0);
	assert_int_equal(block_write(cow, SIZE + 5, "n", 1), 0);
	assert_int_equal(byte_at(cow, SIZE - 1), 'A' + (SIZE / 512 - 1) % 26);
	assert_int_equal(byte_at(cow, SIZE + 5), 'n');
	block_destroy(cow);
}

static void test_persistent_overlay_survives(void **state)
{
	struct block *cow, *base;

	assert_int_equal(block_overlay_create(open_image(true, false), layer, 0, &cow, NULL), 0);
	assert_int_equal(block_write(cow, CLUSTER + 7, "kept", 4), 0);
	assert_int_equal(block_flush(cow), 0);
	assert_int_equal(block_write(cow, 3 * CLUSTER, "lost", 4), 0);	/* never flushed */

	base = open_image(true, false);
	struct block *other;
	struct err err = { 0 };

	assert_int_equal(block_overlay_create(base, layer, 0, &other, &err), -EBUSY);
	block_destroy(cow);
	assert_int_equal(block_overlay_create(base, layer, 0, &cow, NULL), 0);
	assert_int_equal(byte_at(cow, CLUSTER + 7), 'k');
	assert_int_equal(byte_at(cow, CLUSTER + 6), 'A' + (CLUSTER / 512) % 26);
	assert_int_equal(byte_at(cow, 3 * CLUSTER), 'A' + (3 * CLUSTER / 512) % 26);
	block_destroy(cow);
}

static void test_damaged_or_foreign_overlay_is_refused(void **state)
{
	struct block *base = open_image(true, false), *cow;
	struct err err = { 0 };
	uint8_t byte;
	int fd;

	assert_int_equal(block_overlay_create(base, layer, 0, &cow, NULL), 0);
	block_destroy(cow);
	base = open_image(true, false);
	assert_int_equal(block_overlay_create(base, layer, 2 * SIZE, &cow, &err), -EINVAL);
	fd = open(layer, O_RDWR);
	for (size_t i = 0; i < sizeof(struct overlay_header); i++) {	/* every byte counts */
		assert_int_equal(pread(fd, &byte, 1, (off_t)i), 1);
		byte ^= 0x40;
		assert_int_equal(pwrite(fd, &byte, 1, (off_t)i), 1);
		assert_true(block_overlay_create(base, layer, 0, &cow, &err) < 0);
		byte ^= 0x40;
		assert_int_equal(pwrite(fd, &byte, 1, (off_t)i), 1);
	}
	(void)close(fd);
	assert_int_equal(block_overlay_create(base, layer, 0, &cow, NULL), 0);
	block_destroy(cow);
	base = open_image(true, false);
	assert_int_equal(block_overlay_create(base, image, 0, &cow, &err), -EBUSY);
	assert_int_equal(block_overlay_create(base, NULL, 512, &cow, &err), -EINVAL);
	block_destroy(base);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_ranges_are_checked_without_overflow),
		T(test_file_keeps_what_is_written),
		T(test_direct_file_serves_any_alignment),
		T(test_writable_image_is_locked),
		T(test_overlay_agrees_with_a_plain_disk),
		T(test_overlay_larger_than_base_shows_zeroes),
		T(test_persistent_overlay_survives),
		T(test_damaged_or_foreign_overlay_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
