/* SPDX-License-Identifier: Apache-2.0 */
#include "build/kernel_config.h"

#include "os/err.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* The features that @list chooses; free() them. */
static char *chosen(const char *list, char **ret_config)
{
	char *config, *features;

	assert_int_equal(kernel_config_make(list, &config, &features, NULL), 0);
	if (ret_config)
		*ret_config = config;
	else
		free(config);
	return features;
}

static void expect(const char *list, const char *want)
{
	char *got = chosen(list, NULL);

	assert_string_equal(got, want);
	free(got);
}

static void test_features_are_taken_from_left_to_right_in_the_tables_order(void **state)
{
	expect("", "");
	expect("ext4,net", "net,ext4");
	expect("net,ipv6,-ipv6", "net");
	expect("all,-all,loop,loop", "loop");
	expect("-net,net", "net");
}

static void test_no_list_means_the_defaults(void **state)
{
	char *none = chosen(NULL, NULL), *named = chosen("default", NULL), *all = chosen("all", NULL);

	assert_string_equal(none, named);
	assert_non_null(strstr(none, "net,ipv6,ext4"));
	assert_null(strstr(none, "xfs"));
	assert_non_null(strstr(all, "xfs"));
	free(none);
	free(named);
	free(all);
}

static void test_unknown_features_and_unmet_needs_are_named(void **state)
{
	static const struct {
		const char *list, *word;
	} bad[] = { { "net,ipx", "'ipx'" }, { "ipv6", "'ipv6' needs 'net'" }, { "default,-net", "needs 'net'" },
		    { ",", "''" }, { "-", "''" }, { "NET", "'NET'" }, { "net ipv6", "'net ipv6'" } };
	char *config, *features;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct err err = { 0 };

		assert_int_equal(kernel_config_make(bad[i].list, &config, &features, &err), -EINVAL);
		assert_non_null(strstr(err.msg, bad[i].word));
	}
}

static void test_a_feature_adds_its_options_to_the_base(void **state)
{
	char *without, *with, *a = chosen("", &without), *b = chosen("net", &with);

	assert_memory_equal(with, without, strlen(without));
	assert_null(strstr(without, "CONFIG_INET=y\n"));
	assert_non_null(strstr(with, "CONFIG_INET=y\n"));
	assert_non_null(strstr(with, "CONFIG_LOCALVERSION=\"-roux\"\n"));
	assert_non_null(strstr(with, "CONFIG_RD_GZIP=n\n"));
	free(a);
	free(b);
	free(with);
	free(without);
}

static void test_no_option_is_given_two_values(void **state)
{
	char *config, *features = chosen("all", &config), *save = NULL;

	for (char *line = strtok_r(config, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char name[128];
		size_t len = strcspn(line, "=") + 1;

		assert_true(len < sizeof(name) && strncmp(line, "CONFIG_", 7) == 0);
		memcpy(name, line, len);
		name[len] = '\0';
		for (const char *at = save; at && *at; at = strchr(at, '\n') ? strchr(at, '\n') + 1 : NULL)
			assert_int_not_equal(strncmp(at, name, len), 0);
	}
	free(config);
	free(features);
}

static void test_missing_options_are_found(void **state)
{
	const char *wanted = "CONFIG_A=y\nCONFIG_B=n\nCONFIG_C=7\n";

	assert_null(kernel_config_missing(wanted, "#\nCONFIG_C=7\nCONFIG_A=y\n"));
	assert_ptr_equal(kernel_config_missing(wanted, "CONFIG_AA=y\nCONFIG_A=y2\nCONFIG_C=7"), wanted);
	assert_ptr_equal(kernel_config_missing(wanted, "CONFIG_A=y\nCONFIG_C=77\n"), wanted + 22);
	assert_null(kernel_config_missing("", ""));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_features_are_taken_from_left_to_right_in_the_tables_order),
		cmocka_unit_test(test_no_list_means_the_defaults),
		cmocka_unit_test(test_unknown_features_and_unmet_needs_are_named),
		cmocka_unit_test(test_a_feature_adds_its_options_to_the_base),
		cmocka_unit_test(test_no_option_is_given_two_values),
		cmocka_unit_test(test_missing_options_are_found),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
