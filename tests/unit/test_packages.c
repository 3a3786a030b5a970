/* SPDX-License-Identifier: Apache-2.0 */
#include "build/packages.h"
#include "os/err.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define HASH "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define STANZA(name, more) "Package: " name "\nVersion: 1\nArchitecture: amd64\n" more "Filename: pool/" name ".deb\nSize: 5\nSHA256: " HASH "\n\n"

static struct err err;

/* Chosen names in order, separated by blanks. */
static const char *choose(const char *text, const char *include)
{
	static char names[512];
	struct packages all = { .count = 0 };
	char *copy = strdup(text);
	int r = packages_parse(copy, strlen(copy), &all, &err);

	names[0] = '\0';
	if (r == 0)
		r = packages_choose(&all, include, &err);
	for (size_t i = 0; r == 0 && i < all.nchosen; i++)
		snprintf(names + strlen(names), sizeof(names) - strlen(names), "%s ", all.at[all.chosen[i]].name);
	packages_free(&all);
	free(copy);
	return r == 0 ? names : NULL;
}

static void test_essential_packages_and_what_they_need(void **state)
{
	static const char text[] = STANZA("zeta", "Essential: yes\nDepends: alpha (>= 1) | beta, virtual\nDescription: text\n more\n")
		STANZA("alpha", "Pre-Depends: gamma:any [amd64]\n") STANZA("beta", "") STANZA("gamma", "") STANZA("maker", "Provides: virtual (= 2), x\n")
		STANZA("req", "Priority: required\n") STANZA("unused", "");

	assert_string_equal(choose(text, NULL), "req zeta alpha maker gamma ");
	assert_string_equal(choose(text, "unused"), "req zeta unused alpha maker gamma ");
	/* An alternative that is chosen anyway will do. */
	assert_string_equal(choose(text, "beta"), "req zeta beta maker ");
	assert_null(choose(text, "nothing"));
	assert_null(choose(STANZA("aa", "Essential: yes\nDepends: nowhere\n"), NULL));
	assert_non_null(strstr(err.msg, "nowhere"));
}

static void test_packages_that_need_each_other(void **state)
{
	assert_string_equal(choose(STANZA("aa", "Essential: yes\nDepends: bb\n") STANZA("bb", "Depends: aa\n"), NULL), "aa bb ");
}

static void test_hostile_stanzas_are_left_out(void **state)
{
	assert_null(choose("", NULL));
	assert_null(choose("no stanza at all", NULL));
	assert_null(choose("Package: ../x\nVersion: 1\nFilename: a\nSize: 1\nSHA256: " HASH "\n", NULL));
	assert_null(choose("Package: xx\nVersion: 1\nFilename: ../../a\nSize: 1\nSHA256: " HASH "\n", NULL));
	assert_null(choose("Package: xx\nVersion: 1\nFilename: a\nSize: 1\nSHA256: 12\n", NULL));
}

static void test_hashes_in_a_release_file(void **state)
{
	static const char text[] = "Suite: x\nMD5Sum:\n 00 5 main/Packages.xz\nSHA256:\n " HASH "      12 main/Packages.xz.old\n "
		HASH " 34 main/Packages.xz\nSHA512:\n " HASH " 56 other\n";
	uint64_t size;
	char hex[65];

	assert_int_equal(packages_release_hash(text, "main/Packages.xz", hex, &size, &err), 0);
	assert_int_equal(size, 34);
	assert_string_equal(hex, HASH);
	assert_int_equal(packages_release_hash(text, "other", hex, &size, &err), -ENOENT);
	assert_int_equal(packages_release_hash("", "x", hex, &size, &err), -ENOENT);
	assert_int_equal(packages_release_hash("SHA256:\n zz 1 x\n", "x", hex, &size, &err), -EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_essential_packages_and_what_they_need),
		cmocka_unit_test(test_packages_that_need_each_other),
		cmocka_unit_test(test_hostile_stanzas_are_left_out),
		cmocka_unit_test(test_hashes_in_a_release_file),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
