/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/cli.h"
#include "cli/options.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

#define WORDS_MAX 1200

static struct run_options opt;
static char said[4096];	/* on standard error, during the last parse() */

static int teardown(void **state)
{
	run_options_finish(&opt);
	return 0;
}

/* Parses "run" and the words given, which end with NULL. */
static int parse(const char *word, ...)
{
	static char *argv[WORDS_MAX];
	int argc = 0, saved = dup(STDERR_FILENO), file = memfd_create("stderr", MFD_CLOEXEC), r;
	ssize_t n;
	va_list ap;

	run_options_finish(&opt);
	argv[argc++] = (char *)(uintptr_t)"run";
	va_start(ap, word);
	for (; word; word = va_arg(ap, const char *))
		argv[argc++] = (char *)(uintptr_t)word;
	va_end(ap);
	argv[argc] = NULL;
	assert_true(saved >= 0 && file >= 0 && dup2(file, STDERR_FILENO) >= 0);
	r = run_options_parse(&opt, argc, argv);
	(void)fflush(stderr);
	assert_true(dup2(saved, STDERR_FILENO) >= 0);
	n = pread(file, said, sizeof(said) - 1, 0);
	assert_true(n >= 0);
	said[n] = '\0';
	(void)close(saved);
	(void)close(file);
	return r;
}

static void test_sizes_have_units(void **state)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} good[] = { { "512", 512ull << 20 }, { "1b", 1 }, { "64K", 64 << 10 }, { "2mb", 2 << 20 }, { "1.5GiB", 3ull << 29 },
		     { ".5g", 1 << 29 }, { "8000000G", 8000000ull << 30 } };
	static const char *const bad[] = { "", "M", "-1", "+1", "0", "0G", "nan", "inf", "infG", "0.1b", "1T", "1 G",
					   "1e300G", "9000000000G", "12x", "0x", " 1" };
	uint64_t got;

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		assert_true(parse_size(good[i].text, &got));
		assert_int_equal(got, good[i].bytes);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_false(parse_size(bad[i], &got));
}

static void test_options_end_at_the_image(void **state)
{
	assert_int_equal(parse("-it", "--json", "--dbt-stats", "--cpus", "4", "--memory=2G", "debian", "ls", "-l", "--cpus", "9", NULL), 0);
	assert_true(opt.interactive && opt.exec.tty && opt.json && opt.stats && !opt.console);
	assert_int_equal(opt.machine.cpus, 4);
	assert_int_equal(opt.machine.memory, 2ull << 30);
	assert_string_equal(opt.machine.image, "debian");
	assert_string_equal(opt.exec.argv[0], "ls");
	assert_string_equal(opt.exec.argv[3], "9");
	assert_null(opt.exec.argv[4]);
	assert_true(opt.exec.use_entrypoint);
}

static void test_gdb_has_a_port(void **state)
{
	assert_int_equal(parse("img", NULL), 0);
	assert_false(opt.machine.gdb);
	assert_int_equal(parse("--gdb", "0", "img", NULL), 0);
	assert_true(opt.machine.gdb && opt.machine.gdb_port == 0 && !opt.machine.gdb_wait);
	assert_int_equal(parse("--gdb", "65535", "--gdb-wait", "img", NULL), 0);
	assert_true(opt.machine.gdb_port == 65535 && opt.machine.gdb_wait);
	assert_int_equal(parse("--gdb", "65536", "img", NULL), EXIT_ROUX);
	assert_int_equal(parse("--gdb", "host:1", "img", NULL), EXIT_ROUX);
	assert_int_equal(parse("--gdb-wait", "img", NULL), EXIT_ROUX);
}

static void test_two_dashes_separate_the_command_once(void **state)
{
	assert_int_equal(parse("img", "--", "sh", "-c", "--", NULL), 0);
	assert_string_equal(opt.argv[0], "sh");
	assert_string_equal(opt.argv[2], "--");
	assert_int_equal(parse("--", "-img", "--", "--", NULL), 0);
	assert_string_equal(opt.machine.image, "-img");
	assert_string_equal(opt.argv[0], "--");
	assert_null(opt.argv[1]);
	assert_int_equal(parse("img", NULL), 0);
	assert_null(opt.argv[0]);
}

static void test_an_entrypoint_takes_the_place_of_the_images(void **state)
{
	assert_int_equal(parse("--entrypoint", "/bin/sh", "img", "-c", "id", NULL), 0);
	assert_false(opt.exec.use_entrypoint);
	assert_string_equal(opt.argv[0], "/bin/sh");
	assert_string_equal(opt.argv[1], "-c");
}

static void test_volumes_name_both_sides_and_a_mode(void **state)
{
	assert_int_equal(parse("-v", "/a:/b", "-v", "rel:/c:ro", "-v", "x:/d:rw", "-v", "y:/e:z", "img", NULL), 0);
	assert_int_equal(opt.machine.nshares, 4);
	assert_string_equal(opt.shares[0].host, "/a");
	assert_string_equal(opt.shares[0].guest, "/b");
	assert_false(opt.shares[0].read_only);
	assert_string_equal(opt.shares[1].guest, "/c");
	assert_true(opt.shares[1].read_only);
	assert_string_equal(opt.shares[2].guest, "/d");
	assert_false(opt.shares[2].read_only);
	assert_string_equal(opt.shares[3].guest, "/e:z");
}

static void test_disks_may_be_read_only_or_overlaid(void **state)
{
	assert_int_equal(parse("--disk", "a.img", "--disk", "b:c:ro", "--disk", "d:cow", "img", NULL), 0);
	assert_int_equal(opt.machine.ndisks, 3);
	assert_false(opt.disks[0].read_only || opt.disks[0].overlay);
	assert_string_equal(opt.disks[1].path, "b:c");
	assert_true(opt.disks[1].read_only && !opt.disks[1].overlay);
	assert_true(!opt.disks[2].read_only && opt.disks[2].overlay);
}

static void test_variables_come_from_the_caller_when_they_have_no_value(void **state)
{
	assert_int_equal(setenv("ROUX_TEST_SET", "v=1", 1), 0);
	assert_int_equal(unsetenv("ROUX_TEST_UNSET"), 0);
	assert_int_equal(parse("-e", "A=b", "-e", "ROUX_TEST_SET", "-e", "ROUX_TEST_UNSET", "--env=E=", "img", NULL), 0);
	assert_int_equal(opt.nenv, 3);
	assert_string_equal(opt.exec.env[0], "A=b");
	assert_string_equal(opt.exec.env[1], "ROUX_TEST_SET=v=1");
	assert_string_equal(opt.exec.env[2], "E=");
	assert_null(opt.exec.env[3]);
}

static void test_mistakes_are_named(void **state)
{
	static const struct {
		const char *option, *value, *says;
	} t[] = {
		{ "--cpus", "0", "--cpus must be a number from 1 to 8, not '0'" },
		{ "--cpus", "9", "not '9'" },
		{ "--cpus", "2x", "not '2x'" },
		{ "--cpus", "", "not ''" },
		{ "--cpus", "-18446744073709551615", "--cpus must be" },	/* 1 to strtoul() */
		{ "--timeout", "99999999999999999999", "--timeout must be" },
		{ "--memory", "nan", "--memory needs a size such as 512M or 2G, not 'nan'" },
		{ "-v", "/a", "-v needs HOST:GUEST with an absolute GUEST, not '/a'" },
		{ "-v", "/a:b", "absolute GUEST" },
		{ "-v", ":/b", "-v needs HOST:GUEST" },
		{ "-e", "=x", "-e needs NAME or NAME=VALUE, not '=x'" },
		{ "-e", "", "-e needs NAME" },
		{ "--no-such", "x", "see 'roux run --help'" },
		{ "-z", "x", "see 'roux run --help'" },
	};

	for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
		assert_int_equal(parse(t[i].option, t[i].value, "img", NULL), EXIT_ROUX);
		assert_non_null(strstr(said, t[i].says));
	}
	assert_int_equal(parse("-i", NULL), EXIT_ROUX);
	assert_string_equal(said, "roux: run needs an image; see 'roux run --help'\n");
	assert_int_equal(parse("--cpus", NULL), EXIT_ROUX);	/* the value is missing */
}

/* Fills the words with @n times @option @value, then an image. */
static int parse_many(const char *option, const char *value, unsigned n)
{
	static char *argv[2 * WORDS_MAX];
	int argc = 0;

	run_options_finish(&opt);
	argv[argc++] = (char *)(uintptr_t)"run";
	for (unsigned i = 0; i < n; i++) {
		argv[argc++] = (char *)(uintptr_t)option;
		argv[argc++] = (char *)(uintptr_t)value;
	}
	argv[argc++] = (char *)(uintptr_t)"img";
	argv[argc] = NULL;
	return run_options_parse(&opt, argc, argv);
}

static void test_limits_are_exact(void **state)
{
	assert_int_equal(setenv("ROUX_TEST_SET", "1", 1), 0);
	assert_int_equal(parse_many("-v", "/a:/b:ro", RUN_SHARES_MAX), 0);
	assert_int_equal(parse_many("-v", "/a:/b:ro", RUN_SHARES_MAX + 1), EXIT_ROUX);
	assert_int_equal(parse_many("--disk", "a", RUN_DISKS_MAX), 0);
	assert_int_equal(parse_many("--disk", "a", RUN_DISKS_MAX + 1), EXIT_ROUX);
	assert_int_equal(parse_many("-e", "ROUX_TEST_SET", RUN_ENV_MAX - 1), 0);
	assert_null(opt.exec.env[RUN_ENV_MAX - 1]);
	assert_int_equal(parse_many("-e", "ROUX_TEST_SET", RUN_ENV_MAX), EXIT_ROUX);
}

static void test_too_many_words_are_refused(void **state)
{
	static char *argv[RUN_ARGS_MAX + 3];
	int argc = 0;

	argv[argc++] = (char *)(uintptr_t)"run";
	argv[argc++] = (char *)(uintptr_t)"img";
	while (argc < RUN_ARGS_MAX + 1)
		argv[argc++] = (char *)(uintptr_t)"word";
	assert_int_equal(run_options_parse(&opt, argc, argv), 0);
	assert_null(opt.argv[RUN_ARGS_MAX - 1]);
	argv[argc++] = (char *)(uintptr_t)"one more";
	assert_int_equal(run_options_parse(&opt, argc, argv), EXIT_ROUX);
}

#define T(f) cmocka_unit_test_teardown(f, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_sizes_have_units),
		T(test_options_end_at_the_image),
		T(test_gdb_has_a_port),
		T(test_two_dashes_separate_the_command_once),
		T(test_an_entrypoint_takes_the_place_of_the_images),
		T(test_volumes_name_both_sides_and_a_mode),
		T(test_disks_may_be_read_only_or_overlaid),
		T(test_variables_come_from_the_caller_when_they_have_no_value),
		T(test_mistakes_are_named),
		T(test_limits_are_exact),
		T(test_too_many_words_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
