/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/reads.h"
#include "os/blob.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

static const struct reads_range file = { .of = READS_OF_SHARE, .index = 1, .from = 65536, .len = 1u << 20, .path = "usr/bin/x" };
static const struct reads_range disk = { .of = READS_OF_DISK, .index = 7, .from = 1ull << 40, .len = 16384 };

static void test_a_list_is_read_as_it_was_written(void **state)
{
	struct blob list = { 0 };
	struct blob_reader in;
	struct reads_range range;

	reads_put(&list, &file);
	reads_put(&list, &disk);
	assert_false(list.failed);
	in = (struct blob_reader){ .at = list.bytes, .left = list.len };
	assert_int_equal(reads_take(&in, &range), 1);
	assert_int_equal(range.of, file.of);
	assert_int_equal(range.index, file.index);
	assert_int_equal(range.from, file.from);
	assert_int_equal(range.len, file.len);
	assert_string_equal(range.path, file.path);
	assert_int_equal(reads_take(&in, &range), 1);
	assert_int_equal(range.of, disk.of);
	assert_int_equal(range.from, disk.from);
	assert_string_equal(range.path, "");
	assert_int_equal(reads_take(&in, &range), 0);
	for (size_t len = 1; len < list.len; len++) {
		int r;

		in = (struct blob_reader){ .at = list.bytes, .left = len };
		while ((r = reads_take(&in, &range)) == 1)
			;
		assert_int_equal(r, len == list.len - 22 ? 0 : -EBADMSG);	/* without the second */
	}
	blob_finish(&list);
}

/* A list of one range is refused. */
static void refuse(const struct reads_range *range, size_t nul_at)
{
	struct blob list = { 0 };
	struct blob_reader in;
	struct reads_range got;

	reads_put(&list, range);
	if (nul_at)
		list.bytes[nul_at] = '\0';
	in = (struct blob_reader){ .at = list.bytes, .left = list.len };
	assert_int_equal(reads_take(&in, &got), -EBADMSG);
	blob_finish(&list);
}

static void test_ranges_that_cannot_be_are_refused(void **state)
{
	struct reads_range r = file;

	refuse(&r, 2 + 2 + 8 + 8 + 2 + 3);	/* a NUL in the path */
	r.from = 1ull << 63;
	refuse(&r, 0);
	r.from = 1ull << 62;
	r.len = 1ull << 62;
	refuse(&r, 0);
	r = file;
	r.path[0] = '\0';
	refuse(&r, 0);
	r = disk;
	r.path[0] = 'x';
	refuse(&r, 0);
	r = disk;
	r.of = 3;
	refuse(&r, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_list_is_read_as_it_was_written),
		cmocka_unit_test(test_ranges_that_cannot_be_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
