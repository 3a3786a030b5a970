/* SPDX-License-Identifier: Apache-2.0 */
/* Names, times, signals and lists: what people write and read. */
#include "life/names.h"
#include "os/signame.h"
#include "life/strlist.h"
#include "life/when.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#define S 1000000000ll
#define NOW (1800000000 * S)	/* 2027-01-15T08:00:00Z */

static void test_names_are_docker_names(void **state)
{
	char long_name[VM_NAME_MAX + 1];

	assert_true(vm_name_valid("a") && vm_name_valid("0") && vm_name_valid("Web_1.x-y"));
	assert_false(vm_name_valid("") || vm_name_valid(".a") || vm_name_valid("-a") || vm_name_valid("_a"));
	assert_false(vm_name_valid("a/b") || vm_name_valid("..") || vm_name_valid("a b") || vm_name_valid("\xc3\xa4"));
	memset(long_name, 'x', sizeof(long_name));
	long_name[VM_NAME_MAX - 1] = '\0';
	assert_true(vm_name_valid(long_name));
	long_name[VM_NAME_MAX - 1] = 'x';
	long_name[VM_NAME_MAX] = '\0';
	assert_false(vm_name_valid(long_name));
}

static void test_made_names_and_ids_are_valid(void **state)
{
	char name[VM_NAME_MAX], id[VM_ID_SIZE], other[VM_ID_SIZE];

	for (unsigned i = 0; i < 200; i++) {
		vm_name_make(i, name);
		assert_true(vm_name_valid(name));
	}
	assert_int_equal(vm_id_make(id), 0);
	assert_int_equal(vm_id_make(other), 0);
	assert_true(vm_id_valid(id) && strcmp(id, other) != 0);
	id[3] = 'G';
	assert_false(vm_id_valid(id) || vm_id_valid("") || vm_id_valid("abc") || vm_id_valid(".names.lock"));
}

static int64_t when(const char *text)
{
	int64_t ns = -1;

	if (!when_parse(text, NOW, &ns))
		fail_msg("'%s' was refused", text);
	return ns;
}

static void test_points_in_time_are_read(void **state)
{
	assert_true(when("2027-01-15T08:00:00Z") == NOW);
	assert_true(when("2027-01-15 08:00:00") == NOW);
	assert_true(when("2027-01-15T10:00:00+02:00") == NOW);
	assert_true(when("2027-01-15T02:30:00.5-05:30") == NOW + S / 2);
	assert_true(when("2027-01-15T08:00:00.000000001Z") == NOW + 1);
	assert_true(when("2027-01-15T08:00:00.0000000019Z") == NOW + 1);
	assert_true(when("2027-01-15") == NOW - 8 * 3600 * S);
	assert_true(when("1800000000") == NOW && when("1800000000.25") == NOW + S / 4);
	assert_true(when("10m") == NOW - 600 * S && when("1h30m") == NOW - 5400 * S && when("0s") == NOW);
}

static void test_what_is_no_time_is_refused(void **state)
{
	static const char *const bad[] = { "", "yesterday", "2027-13-01", "2027-01-15T", "2027-01-15T25:00:00Z",
		"2027-01-15T08:00:00X", "2027-01-15T08:00:00+2", "2027-01-15T08:00:00+99:00", "2027-01-15T08:00:00+-1:-1",
		"2027-01-15T08:00:00Z ", "9999-01-01", "99999999999", "-5s", "5 s", "5x", "s", "1m5", "5s-3s", "1e400s",
		"nan", "inf", "0x10", "12345.6.7" };
	int64_t ns;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		if (when_parse(bad[i], NOW, &ns))
			fail_msg("'%s' was taken as %lld", bad[i], (long long)ns);
}

static void test_times_are_written_as_they_are_read(void **state)
{
	static const int64_t times[] = { 0, 1, NOW, NOW + 999999999, -1, -S, -S / 2, -86400 * S * 365 };
	char text[WHEN_SIZE];

	for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
		when_format(times[i], text);
		if (when(text) != times[i])
			fail_msg("%lld became '%s'", (long long)times[i], text);
	}
	when_format(NOW + 5, text);
	assert_string_equal(text, "2027-01-15T08:00:00.000000005Z");
}

static void test_spans_have_units(void **state)
{
	char text[40];
	int64_t ns;

	assert_true(span_parse("90", &ns) && ns == 90 * S);
	assert_true(span_parse("1.5s", &ns) && ns == 3 * S / 2);
	assert_true(span_parse("1d2h3m4s5ms6us7ns", &ns) && ns == 93784 * S + 5006007);
	span_format(S / 2, text, sizeof(text));
	assert_string_equal(text, "Less than a second");
	span_format(59 * S, text, sizeof(text));
	assert_string_equal(text, "59 seconds");
	span_format(60 * S, text, sizeof(text));
	assert_string_equal(text, "About a minute");
	span_format(3 * 3600 * S, text, sizeof(text));
	assert_string_equal(text, "3 hours");
	span_format(100 * 86400 * S, text, sizeof(text));
	assert_string_equal(text, "3 months");
}

static void test_signals_have_names_and_numbers(void **state)
{
	assert_int_equal(signal_by_name("KILL"), SIGKILL);
	assert_int_equal(signal_by_name("SIGTERM"), SIGTERM);
	assert_int_equal(signal_by_name("sighup"), SIGHUP);
	assert_int_equal(signal_by_name("9"), 9);
	assert_int_equal(signal_by_name("sigrtmin+3"), SIGRTMIN + 3);
	assert_int_equal(signal_by_name("RTMAX-1"), SIGRTMAX - 1);
	assert_int_equal(signal_by_name("RTMIN"), SIGRTMIN);
	assert_int_equal(signal_by_name("RTMIN+"), -EINVAL);
	assert_int_equal(signal_by_name("RTMAX-99"), -EINVAL);
	assert_int_equal(signal_by_name("0"), -EINVAL);
	assert_int_equal(signal_by_name("65"), -EINVAL);
	assert_int_equal(signal_by_name("-9"), -EINVAL);
	assert_int_equal(signal_by_name(""), -EINVAL);
	assert_int_equal(signal_by_name("SIG"), -EINVAL);
	assert_int_equal(signal_by_name("9x"), -EINVAL);
}

static void test_lists_own_what_is_added(void **state)
{
	static const char *const more[] = { "B=2", "C", NULL };
	struct strings list = { 0 };
	char word[] = "A=1";

	assert_int_equal(strings_add(&list, word), 0);
	word[0] = 'X';
	assert_int_equal(strings_add_all(&list, more), 0);
	assert_int_equal(strings_add_all(&list, NULL), 0);
	assert_int_equal(list.n, 3);
	assert_string_equal(list.v[0], "A=1");
	assert_null(list.v[3]);
	assert_string_equal(strings_value(&list, "B"), "2");
	assert_null(strings_value(&list, "C"));
	assert_null(strings_value(&list, "D"));
	strings_finish(&list);
	assert_true(list.n == 0 && !list.v);
	assert_null(strings_value(&list, "A"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names_are_docker_names),
		cmocka_unit_test(test_made_names_and_ids_are_valid),
		cmocka_unit_test(test_points_in_time_are_read),
		cmocka_unit_test(test_what_is_no_time_is_refused),
		cmocka_unit_test(test_times_are_written_as_they_are_read),
		cmocka_unit_test(test_spans_have_units),
		cmocka_unit_test(test_signals_have_names_and_numbers),
		cmocka_unit_test(test_lists_own_what_is_added),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
