/* SPDX-License-Identifier: Apache-2.0 */
/* Records of VMs as text and back, and what restart policies and health checks make of them. */
#include "life/health.h"
#include "life/record.h"
#include "life/restart.h"
#include "os/weight.h"
#include "os/err.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define ID "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

static char *text(const char *s)
{
	char *copy = strdup(s);

	assert_non_null(copy);
	return copy;
}

static void fill(struct vm_record *r)
{
	record_init(r);
	memcpy(r->id, ID, VM_ID_SIZE);
	(void)snprintf(r->name, sizeof(r->name), "web");
	r->created_ns = 1800000000000000001;
	r->config.image = text("alpine \"3\"\n\xc3\xa4");
	assert_int_equal(strings_add(&r->config.argv, "sh"), 0);
	assert_int_equal(strings_add(&r->config.argv, ""), 0);
	assert_int_equal(strings_add(&r->config.labels, "tier=front=1"), 0);
	assert_int_equal(strings_add(&r->config.labels, "empty="), 0);
	r->config.memory = 1ull << 40;
	r->config.stdin_once = true;
	r->config.restart = VM_RESTART_ON_FAILURE;
	r->config.restart_max = 7;
	r->config.nshares = 1;
	r->config.share[0] = (struct vm_share){ text("/a"), text("/b"), true };
	r->config.ndisks = 2;
	r->config.disk[0] = (struct vm_disk){ text("/d"), false, true };
	r->config.disk[1] = (struct vm_disk){ text("/e"), true, false };
	r->state.status = VM_PAUSED;
	r->state.exit_code = -1;
	r->state.started_ns = 1800000000999999999;
	r->state.error = text("why");
	r->state.health = VM_UNHEALTHY;
	r->state.health_failures = UINT32_MAX;
}

static void test_what_is_written_is_read_back(void **state)
{
	struct vm_record a, b;
	char *first, *second;
	struct err err = { 0 };

	fill(&a);
	record_init(&b);
	first = record_encode(&a);
	assert_non_null(first);
	assert_int_equal(record_decode(first, strlen(first), &b, &err), 0);
	second = record_encode(&b);
	assert_string_equal(first, second);
	assert_string_equal(b.config.image, a.config.image);
	assert_string_equal(b.config.argv.v[1], "");
	assert_string_equal(strings_value(&b.config.labels, "tier"), "front=1");
	assert_true(b.created_ns == a.created_ns && b.state.started_ns == a.state.started_ns && b.state.finished_ns == 0);
	assert_true(b.config.stop_timeout_ms == -1 && b.config.memory == 1ull << 40);
	assert_true(b.config.disk[0].overlay && b.config.disk[1].read_only && b.config.share[0].read_only);
	free(first);
	free(second);
	record_finish(&a);
	record_finish(&b);
}

static int decode(const char *json)
{
	struct vm_record r;
	struct err err = { 0 };
	int result;

	record_init(&r);
	result = record_decode(json, strlen(json), &r, &err);
	assert_true(result == 0 || err.msg[0]);
	record_finish(&r);
	return result;
}

#define BASE "{\"Version\":1,\"Id\":\"" ID "\",\"Name\":\"web\",\"Config\":{"

static void test_missing_members_keep_their_defaults(void **state)
{
	assert_int_equal(decode(BASE "}}"), 0);
	assert_int_equal(decode(BASE "},\"Unknown\":[1,{}]}"), 0);
}

static void test_damaged_records_are_refused(void **state)
{
	static const char *const bad[] = {
		"", "{", "[]", "null", "{\"Version\":1}",
		"{\"Version\":2,\"Id\":\"" ID "\",\"Name\":\"web\",\"Config\":{}}",
		"{\"Version\":1,\"Id\":\"../../x\",\"Name\":\"web\",\"Config\":{}}",
		"{\"Version\":1,\"Id\":\"" ID "\",\"Name\":\"a/b\",\"Config\":{}}",
		"{\"Version\":1,\"Id\":\"" ID "\",\"Name\":\"web\"}",
		BASE "\"Cpus\":-1}}", BASE "\"Cpus\":1.5}}", BASE "\"Cpus\":4294967296}}", BASE "\"Cpus\":\"1\"}}",
		BASE "\"Memory\":1e300}}", BASE "\"Tty\":1}}", BASE "\"Cmd\":\"sh\"}}", BASE "\"Cmd\":[1]}}",
		BASE "\"RestartPolicy\":\"sometimes\"}}", BASE "\"Image\":{}}}", BASE "\"Labels\":{\"a\":1}}}",
		BASE "\"Mounts\":[{}]}}", BASE "\"Mounts\":[1]}}", BASE "\"Disks\":[{\"Path\":\"\"}]}}",
		BASE "},\"Created\":\"soon\"}", BASE "},\"State\":{\"ExitCode\":1e10}}",
		BASE "\"Disks\":[{\"Path\":\"a\"},{\"Path\":\"a\"},{\"Path\":\"a\"},{\"Path\":\"a\"},{\"Path\":\"a\"},{\"Path\":\"a\"},"
		"{\"Path\":\"a\"},{\"Path\":\"a\"},{\"Path\":\"a\"},{\"Path\":\"a\"},{\"Path\":\"a\"},{\"Path\":\"a\"},{\"Path\":\"a\"},"
		"{\"Path\":\"a\"},{\"Path\":\"a\"},{\"Path\":\"a\"},{\"Path\":\"a\"}]}}",
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		if (decode(bad[i]) != -EBADMSG)
			fail_msg("taken: %s", bad[i]);
}

static void test_every_cut_record_is_refused(void **state)
{
	struct vm_record r, b;
	char *whole;

	fill(&r);
	whole = record_encode(&r);
	assert_non_null(whole);
	for (size_t n = 0; n + 2 < strlen(whole); n++) {
		record_init(&b);
		assert_int_equal(record_decode(whole, n, &b, NULL), -EBADMSG);
		record_finish(&b);
	}
	free(whole);
	record_finish(&r);
}

static void test_policies_have_names(void **state)
{
	uint32_t restart = 0, max = 0;

	assert_true(vm_restart_parse("on-failure:3", &restart, &max) && restart == VM_RESTART_ON_FAILURE && max == 3);
	assert_true(vm_restart_parse("on-failure", &restart, &max) && max == 0);
	assert_true(vm_restart_parse("no", &restart, &max) && restart == VM_RESTART_NO);
	assert_true(vm_restart_parse("unless-stopped", &restart, &max) && restart == VM_RESTART_UNLESS_STOPPED);
	assert_false(vm_restart_parse("always:3", &restart, &max) || vm_restart_parse("", &restart, &max) ||
		     vm_restart_parse("on-failure:", &restart, &max) || vm_restart_parse("on-failure:-1", &restart, &max) ||
		     vm_restart_parse("on-failure:4294967296", &restart, &max) || vm_restart_parse("alway", &restart, &max));
	assert_string_equal(vm_status_name(VM_EXITED), "exited");
	assert_string_equal(vm_status_name(99), "unknown");
}

static void test_policies_decide_on_restarts(void **state)
{
	struct vm_record r;

	record_init(&r);
	assert_false(restart_wanted(&r, 1));
	r.config.restart = VM_RESTART_ALWAYS;
	assert_true(restart_wanted(&r, 0) && restart_wanted(&r, 137));
	r.config.restart = VM_RESTART_UNLESS_STOPPED;
	assert_true(restart_wanted(&r, 0));
	r.config.restart = VM_RESTART_ON_FAILURE;
	assert_true(restart_wanted(&r, 1) && !restart_wanted(&r, 0));
	r.config.restart_max = 2;
	r.state.restarts = 1;
	assert_true(restart_wanted(&r, 1));
	r.state.restarts = 2;
	assert_false(restart_wanted(&r, 1));
}

static void test_short_lives_wait_longer_each_time(void **state)
{
	uint64_t delay = 0, sum = 0;

	for (int i = 0; i < 20; i++) {
		uint64_t next = restart_delay(delay, 1000000);

		assert_true(next >= delay && next <= 60000000000);
		delay = next;
		sum += delay;
	}
	assert_true(delay == 60000000000 && sum > delay);
	assert_true(restart_delay(delay, 10000000000) == 100000000);
	assert_true(restart_delay(0, 0) == 100000000);
}

/* From state and input to state: s starting, h healthy, u unhealthy; g: a failure in the start period. */
static void test_health_follows_its_table(void **state)
{
	static const struct {
		const char *results;	/* + ok, - failure, g failure in the start period */
		uint32_t health, failures;
	} cases[] = {
		{ "", VM_HEALTH_STARTING, 0 }, { "+", VM_HEALTHY, 0 }, { "--", VM_HEALTH_STARTING, 2 },
		{ "---", VM_UNHEALTHY, 3 }, { "ggggg", VM_HEALTH_STARTING, 0 }, { "gg--", VM_HEALTH_STARTING, 2 },
		{ "+--", VM_HEALTHY, 2 }, { "+---", VM_UNHEALTHY, 3 }, { "---+", VM_HEALTHY, 0 }, { "--+--", VM_HEALTHY, 2 },
		{ "+ggg", VM_UNHEALTHY, 3 },	/* once it has been up, the start is over */
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct vm_state s = { .health = VM_HEALTH_STARTING };

		for (const char *c = cases[i].results; *c; c++)
			health_count(&s, *c == '+', *c == 'g', 3);
		if (s.health != cases[i].health || s.health_failures != cases[i].failures)
			fail_msg("'%s': %s after %u", cases[i].results, vm_health_name(s.health), s.health_failures);
	}
}

static void test_shares_become_nice_values(void **state)
{
	assert_int_equal(weight_to_nice(1024), 0);
	assert_int_equal(weight_to_nice(820), 1);
	assert_int_equal(weight_to_nice(1277), -1);
	assert_int_equal(weight_to_nice(2), 19);
	assert_int_equal(weight_to_nice(262144), -20);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_is_written_is_read_back),
		cmocka_unit_test(test_missing_members_keep_their_defaults),
		cmocka_unit_test(test_damaged_records_are_refused),
		cmocka_unit_test(test_every_cut_record_is_refused),
		cmocka_unit_test(test_policies_have_names),
		cmocka_unit_test(test_policies_decide_on_restarts),
		cmocka_unit_test(test_short_lives_wait_longer_each_time),
		cmocka_unit_test(test_health_follows_its_table),
		cmocka_unit_test(test_shares_become_nice_values),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
