/* SPDX-License-Identifier: Apache-2.0 */
#include "os/checked.h"
#include "os/file.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

static char base[64], notes[128];
static int file[2];
static uint8_t key[SHA256_SIZE];

static int open_new(const char *name)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", base, name);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "content", 7), 7);
	return fd;
}

static int setup(void **state)
{
	snprintf(base, sizeof(base), "/tmp/roux-test-checked-XXXXXX");
	assert_non_null(mkdtemp(base));
	snprintf(notes, sizeof(notes), "%s/checked", base);
	assert_int_equal(setenv("ROUX_STORE", base, 1), 0);
	file[0] = open_new("a");
	file[1] = open_new("b");
	return 0;
}

static int teardown(void **state)
{
	(void)close(file[0]);
	(void)close(file[1]);
	return file_remove_tree(AT_FDCWD, base);
}

/* When the clock has ticked. */
static struct checked_state state_of(unsigned n)
{
	struct checked_state s;
	int r;

	while ((r = checked_state(file, n, key, &s)) == -EAGAIN)
		(void)nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	assert_int_equal(r, 0);
	return s;
}

static bool is_noted(unsigned n, unsigned tag)
{
	struct checked_state s = state_of(n);
	unsigned found = 9;

	return checked_recall(&s, &found) && found == tag;
}

static void note(unsigned n, unsigned tag)
{
	struct checked_state s = state_of(n);

	checked_note(&s, tag);
}

static void test_what_was_noted_is_recalled_with_its_tag(void **state)
{
	assert_false(is_noted(1, 0));
	note(1, 0);
	note(2, 1);
	assert_true(is_noted(1, 0));
	assert_true(is_noted(2, 1));
	assert_false(is_noted(1, 1));
	key[31]++;
	assert_false(is_noted(1, 0));
}

static void test_a_write_is_seen_whatever_is_done_about_it(void **state)
{
	struct stat st;

	note(2, 1);
	assert_int_equal(fstat(file[1], &st), 0);
	assert_int_equal(pwrite(file[1], "C", 1, 0), 1);
	assert_false(is_noted(2, 1));
	assert_int_equal(futimens(file[1], (struct timespec[2]){ st.st_atim, st.st_mtim }), 0);
	assert_false(is_noted(2, 1));
	assert_int_equal(pwrite(file[1], "c", 1, 0), 1);
	assert_false(is_noted(2, 1));
	note(2, 1);
	assert_true(is_noted(2, 1));
}

static void test_what_was_changed_just_now_has_no_state(void **state)
{
	struct checked_state s;
	struct timespec before, after;
	int r;

	do {	/* until it was within one tick */
		assert_int_equal(clock_gettime(CLOCK_REALTIME_COARSE, &before), 0);
		assert_int_equal(pwrite(file[0], "C", 1, 0), 1);
		r = checked_state(file, 1, key, &s);
		assert_int_equal(clock_gettime(CLOCK_REALTIME_COARSE, &after), 0);
	} while (before.tv_nsec != after.tv_nsec);
	assert_int_equal(r, -EAGAIN);
}

static void test_of_many_notes_the_newest_are_kept(void **state)
{
	struct checked_state s = state_of(1), other = s;
	struct stat st;
	unsigned tag;

	checked_note(&s, 1);
	for (unsigned i = 0; i < 255; i++) {
		memcpy(other.digest, &i, sizeof(i));
		checked_note(&other, 0);
	}
	assert_true(checked_recall(&s, &tag));
	memset(other.digest, 9, sizeof(other.digest));
	checked_note(&other, 0);
	assert_false(checked_recall(&s, &tag));
	assert_true(checked_recall(&other, &tag));
	assert_int_equal(stat(notes, &st), 0);
	assert_int_equal(st.st_size, 256 * SHA256_SIZE);
}

static void test_damaged_notes_are_none(void **state)
{
	char junk[9000] = "";

	note(1, 1);
	assert_int_equal(truncate(notes, 31), 0);
	assert_false(is_noted(1, 1));
	note(1, 1);
	assert_true(is_noted(1, 1));
	assert_int_equal(file_write_atomic(notes, junk, sizeof(junk), 0600, NULL), 0);	/* more than there can be */
	assert_false(is_noted(1, 1));
	note(1, 1);
	assert_true(is_noted(1, 1));
	assert_int_equal(unlink(notes), 0);
	assert_int_equal(mkdir(notes, 0700), 0);
	note(1, 1);
	assert_false(is_noted(1, 1));
}

static void test_files_whose_times_are_not_this_kernels_have_no_state(void **state)
{
	struct checked_state s;
	int proc = open("/proc/self/status", O_RDONLY | O_CLOEXEC);

	assert_int_equal(checked_state(&proc, 1, key, &s), -EOPNOTSUPP);
	(void)close(proc);
	assert_int_equal(checked_state(&proc, 1, key, &s), -EOPNOTSUPP);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_what_was_noted_is_recalled_with_its_tag),
		T(test_a_write_is_seen_whatever_is_done_about_it),
		T(test_what_was_changed_just_now_has_no_state),
		T(test_of_many_notes_the_newest_are_kept),
		T(test_damaged_notes_are_none),
		T(test_files_whose_times_are_not_this_kernels_have_no_state),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
