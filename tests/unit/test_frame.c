/* SPDX-License-Identifier: Apache-2.0 */
#include "base/frame.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

static void test_what_was_written_is_read_back(void **state)
{
	uint8_t buf[256];
	struct frame_writer w;
	struct field_reader reader;
	struct frame frame;
	struct field field;
	uint32_t u32;
	uint64_t u64;
	size_t size;

	frame_begin(&w, buf, sizeof(buf), 77);
	field_put_u32(&w, 1, 0x01020304);
	field_put_u64(&w, 2, 0x0102030405060708);
	field_put_str(&w, 3, "text");
	field_put(&w, 4, NULL, 0);
	size = frame_end(&w);
	assert_int_not_equal(size, 0);

	assert_int_equal(frame_parse(buf, size, 200, &frame), 1);
	assert_int_equal(frame.type, 77);
	assert_int_equal(frame.len + FRAME_HEADER, size);
	reader = (struct field_reader){ frame.data, frame.len };
	assert_int_equal(field_next(&reader, &field), 1);
	assert_true(field_u32(&field, &u32));
	assert_int_equal(u32, 0x01020304);
	assert_false(field_u64(&field, &u64));
	assert_int_equal(field_next(&reader, &field), 1);
	assert_true(field_u64(&field, &u64));
	assert_true(u64 == 0x0102030405060708);
	assert_int_equal(field_next(&reader, &field), 1);
	assert_string_equal(field_str(&field), "text");
	assert_int_equal(field_next(&reader, &field), 1);
	assert_int_equal(field.tag, 4);
	assert_null(field_str(&field));
	assert_int_equal(field_next(&reader, &field), 0);
}

static void test_every_shorter_input_asks_for_more(void **state)
{
	uint8_t buf[64];
	struct frame_writer w;
	struct frame frame;
	size_t size;

	frame_begin(&w, buf, sizeof(buf), 1);
	field_put_u32(&w, 1, 5);
	size = frame_end(&w);
	for (size_t n = 0; n < size; n++)
		assert_int_equal(frame_parse(buf, n, 64, &frame), 0);
}

static void test_large_and_reserved_headers_are_broken(void **state)
{
	uint8_t head[FRAME_HEADER];
	struct frame frame;

	frame_put_header(head, 1, 65);
	assert_int_equal(frame_parse(head, sizeof(head), 64, &frame), -1);
	frame_put_header(head, 1, 0);
	head[7] = 1;
	assert_int_equal(frame_parse(head, sizeof(head), 64, &frame), -1);
}

static void test_field_longer_than_its_frame_is_broken(void **state)
{
	static const uint8_t bad[] = { 1, 0, 0, 0, 2, 0, 0, 0, 'x' };
	struct field_reader reader = { bad, sizeof(bad) };
	struct field field;

	assert_int_equal(field_next(&reader, &field), -1);
	reader = (struct field_reader){ bad, 7 };
	assert_int_equal(field_next(&reader, &field), -1);
}

static void test_string_needs_exactly_one_nul_at_its_end(void **state)
{
	struct field f = { .data = (const uint8_t *)"a\0b\0", .len = 4 };

	assert_null(field_str(&f));
	f.len = 1;
	assert_null(field_str(&f));
	f.len = 2;
	assert_string_equal(field_str(&f), "a");
}

static void test_frame_that_does_not_fit_has_size_zero(void **state)
{
	uint8_t buf[FRAME_HEADER + FIELD_HEADER + 3];
	struct frame_writer w;

	frame_begin(&w, buf, sizeof(buf), 1);
	field_put_u32(&w, 1, 5);
	assert_int_equal(frame_end(&w), 0);
	frame_begin(&w, buf, 3, 1);
	field_put_u32(&w, 1, 5);
	assert_int_equal(frame_end(&w), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_was_written_is_read_back),
		cmocka_unit_test(test_every_shorter_input_asks_for_more),
		cmocka_unit_test(test_large_and_reserved_headers_are_broken),
		cmocka_unit_test(test_field_longer_than_its_frame_is_broken),
		cmocka_unit_test(test_string_needs_exactly_one_nul_at_its_end),
		cmocka_unit_test(test_frame_that_does_not_fit_has_size_zero),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
