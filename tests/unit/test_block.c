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

/* --- A disk and what it must hold, driven by random requests --- */

#define GROWN (SIZE + 2u * CLUSTER)
#define VECTOR_MAX 9u

struct model {
	struct block *cow;
	uint8_t now[GROWN];	/* what reads must give */
	uint8_t flushed[GROWN];	/* what a flush made safe */
	uint64_t seed;
};

static uint32_t pick(struct model *m, uint32_t below)
{
	m->seed = m->seed * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(m->seed >> 33) % below;
}

/* A range that begins or ends at a cluster now and then. */
static void pick_range(struct model *m, uint64_t *ret_off, uint64_t *ret_len)
{
	uint64_t off = pick(m, GROWN), end = off + pick(m, pick(m, 3) ? 3000 : 3 * CLUSTER);

	if (pick(m, 3) == 0)
		off &= ~(uint64_t)(CLUSTER - 1);
	if (pick(m, 3) == 0)
		end = (end + CLUSTER - 1) & ~(uint64_t)(CLUSTER - 1);
	if (end > GROWN || pick(m, 20) == 0)
		end = GROWN;
	*ret_off = off;
	*ret_len = end - off;
}

/* Cuts @len bytes at @buf into pieces, empty ones among them. */
static unsigned pick_vector(struct model *m, uint8_t *buf, uint64_t len, struct iovec iov[VECTOR_MAX])
{
	unsigned n = 0;

	while (n < VECTOR_MAX - 1 && pick(m, 4)) {
		size_t part = len ? pick(m, (uint32_t)len + 1) : 0;

		iov[n++] = (struct iovec){ buf, part };
		buf += part;
		len -= part;
	}
	iov[n++] = (struct iovec){ buf, len };
	return n;
}

static void write_random(struct model *m, uint64_t off, uint64_t len)
{
	static uint8_t data[GROWN];
	struct iovec iov[VECTOR_MAX];

	for (uint64_t i = 0; i < len; i++)
		data[i] = (uint8_t)pick(m, 256);
	assert_int_equal(block_writev(m->cow, off, iov, pick_vector(m, data, len, iov)), 0);
	memcpy(m->now + off, data, len);
}

static void read_and_compare(struct model *m, uint64_t off, uint64_t len)
{
	static uint8_t data[GROWN];
	struct iovec iov[VECTOR_MAX];

	memset(data, 0x5a, len);
	assert_int_equal(block_readv(m->cow, off, iov, pick_vector(m, data, len, iov)), 0);
	assert_memory_equal(data, m->now + off, len);
}

/* Discarded bytes may read as anything, and then keep to it. */
static void discard_and_look(struct model *m, uint64_t off, uint64_t len)
{
	assert_int_equal(block_discard(m->cow, off, len), 0);
	assert_int_equal(block_read(m->cow, off, m->now + off, len), 0);
}

static void reopen(struct model *m)
{
	block_destroy(m->cow);
	assert_int_equal(block_overlay_create(open_image(true, false), layer, GROWN, &m->cow, NULL), 0);
}

static void one_request(struct model *m)
{
	uint64_t off, len;

	pick_range(m, &off, &len);
	switch (pick(m, 8)) {
	case 0:
		assert_int_equal(block_write_zeroes(m->cow, off, len, pick(m, 2)), 0);
		memset(m->now + off, 0, len);
		break;
	case 1:
		discard_and_look(m, off, len);
		break;
	case 2:
	case 3:
	case 4:
		write_random(m, off, len);
		break;
	default:
		read_and_compare(m, off, len);
		break;
	}
}

/* Many young layers rather than an old one, whose clusters would soon all be its own. */
static void test_random_requests_agree_with_a_model_across_reopening(void **state)
{
	static struct model m;
	static uint8_t before[SIZE], after[SIZE];
	struct block *base = open_image(true, false);

	assert_int_equal(block_read(base, 0, before, SIZE), 0);
	block_destroy(base);
	m.seed = 20;
	for (unsigned round = 0; round < 200; round++) {
		(void)unlink(layer);
		memset(m.now, 0, sizeof(m.now));
		memcpy(m.now, before, SIZE);
		assert_int_equal(block_overlay_create(open_image(true, false), layer, GROWN, &m.cow, NULL), 0);
		for (unsigned i = 0; i < 10; i++)
			one_request(&m);
		read_and_compare(&m, 0, GROWN);
		assert_int_equal(block_flush(m.cow), 0);
		reopen(&m);
		read_and_compare(&m, 0, GROWN);
		block_destroy(m.cow);
	}
	base = open_image(true, false);
	assert_int_equal(block_read(base, 0, after, SIZE), 0);
	assert_memory_equal(before, after, SIZE);	/* the base is never written */
	block_destroy(base);
}

/*
 * The owner dies without a flush, the host does not.  Clusters that were the layer's
 * before have the new bytes, the others show the base as a whole: never a mixture.
 */
static void test_a_crash_shows_each_new_cluster_as_the_base_had_it(void **state)
{
	static struct model m;
	static uint8_t got[GROWN];
	uint8_t *bytes = test_malloc(3 * CLUSTER);

	m = (struct model){ .seed = 7 };
	assert_int_equal(block_overlay_create(open_image(true, false), layer, GROWN, &m.cow, NULL), 0);
	assert_int_equal(block_read(m.cow, 0, m.now, GROWN), 0);
	write_random(&m, CLUSTER + 100, 1000);
	assert_int_equal(block_flush(m.cow), 0);
	memcpy(m.flushed, m.now, GROWN);
	memset(bytes, '!', 3 * CLUSTER);
	assert_int_equal(block_write(m.cow, 2 * CLUSTER - 50, bytes, CLUSTER + 100), 0);	/* clusters 1 (ours), 2, 3 */
	reopen(&m);
	assert_int_equal(block_read(m.cow, 0, got, GROWN), 0);
	memset(m.flushed + 2 * CLUSTER - 50, '!', 50);	/* in place: the cluster was there */
	assert_memory_equal(got, m.flushed, GROWN);
	block_destroy(m.cow);
	test_free(bytes);
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

static bool is_marked(const uint8_t *bitmap, unsigned piece)
{
	return bitmap[piece / 8] >> piece % 8 & 1;
}

static void test_watched_changes_are_marked_by_piece(void **state)
{
	struct block *blk = open_image(false, false);
	uint8_t bitmap[1] = { 0 }, bytes[2] = { 1, 2 };

	_Static_assert(SIZE <= 8 * BLOCK_PIECE, "one byte");
	assert_int_equal(block_watch_bytes(SIZE), 1);
	assert_int_equal(block_watch_bytes(8 * BLOCK_PIECE + 1), 2);
	assert_int_equal(block_write(blk, 0, bytes, 1), 0);
	block_watch(blk, bitmap);
	assert_int_equal(block_read(blk, 3 * BLOCK_PIECE, bytes, 1), 0);
	assert_int_equal(block_write(blk, SIZE, bytes, 1), -ERANGE);
	assert_int_equal(bitmap[0], 0);
	assert_int_equal(block_write(blk, BLOCK_PIECE - 1, bytes, 2), 0);
	assert_true(is_marked(bitmap, 0) && is_marked(bitmap, 1) && !is_marked(bitmap, 2));
	assert_int_equal(block_discard(blk, 2 * BLOCK_PIECE, 512), 0);
	assert_int_equal(block_write_zeroes(blk, SIZE - 512, 512, true), 0);
	assert_int_equal(bitmap[0], 0x17);
	block_watch(blk, NULL);
	assert_int_equal(block_write(blk, 3 * BLOCK_PIECE, bytes, 1), 0);
	assert_int_equal(bitmap[0], 0x17);
	block_destroy(blk);
}

/* A layer in memory becomes a file by copying it. */
static void test_the_file_of_an_overlay_is_all_of_it(void **state)
{
	struct block *base = open_image(true, false), *blk, *again;
	uint8_t buf[4096];
	uint64_t at, end;
	int from, to;
	ssize_t n;

	assert_int_equal(block_file_of(base, &from, &at), -EOPNOTSUPP);
	assert_int_equal(block_overlay_create(base, NULL, 0, &blk, NULL), 0);
	assert_int_equal(block_write(blk, CLUSTER + 5, "changed", 7), 0);
	assert_int_equal(block_file_of(blk, &from, &at), 0);
	assert_int_equal(at % BLOCK_PIECE, 0);
	end = at + SIZE;
	to = open(layer, O_RDWR | O_CREAT | O_EXCL, 0600);
	assert_true(to >= 0);
	for (uint64_t off = 0; off < end; off += (uint64_t)n) {
		n = pread(from, buf, end - off < sizeof(buf) ? end - off : sizeof(buf), (off_t)off);
		assert_true(n > 0 && pwrite(to, buf, (size_t)n, (off_t)off) == n);
	}
	assert_int_equal(close(to), 0);
	assert_int_equal(block_write(blk, CLUSTER + 5, "later..", 7), 0);
	assert_int_equal(block_overlay_create(open_image(true, false), layer, 0, &again, NULL), 0);
	assert_int_equal(block_read(again, CLUSTER + 5, buf, 7), 0);
	assert_memory_equal(buf, "changed", 7);
	assert_int_equal(byte_at(again, 0), 'A');
	assert_int_equal(byte_at(again, CLUSTER + 4), byte_at(blk, CLUSTER + 4));
	block_destroy(again);
	block_destroy(blk);
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
		T(test_random_requests_agree_with_a_model_across_reopening),
		T(test_a_crash_shows_each_new_cluster_as_the_base_had_it),
		T(test_overlay_larger_than_base_shows_zeroes),
		T(test_persistent_overlay_survives),
		T(test_watched_changes_are_marked_by_piece),
		T(test_the_file_of_an_overlay_is_all_of_it),
		T(test_damaged_or_foreign_overlay_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
