/* SPDX-License-Identifier: Apache-2.0 */
/* The agent's parsers: configuration, users, requests. */
#include "abi/agent.h"
#include "guest/conf.h"
#include "guest/read_ahead.h"
#include "guest/request.h"
#include "guest/user.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static char text[GUEST_CONF_SIZE_MAX + 1];
static struct conf conf;

static int parse(const char *str)
{
	size_t len = strlen(str);

	memcpy(text, str, len);
	return conf_parse(text, len, &conf);
}

static void test_full_configuration_is_understood(void **state)
{
	assert_int_equal(parse("# comment\nroot=virtiofs:rootfs\noverlay=tmpfs\noverlay_size=50%\n"
			       "readonly=yes\nmount=virtiofs:ro:share0:/data:with:colons\n"
			       "mount=tmpfs:rw:size=1m:/scratch\nhostname=box\nconsole=ready\n"
			       "interface=eth1\nclock=1700000000.000000005\ntransport=vport\n"
			       "address=eth0:192.0.2.2/24\naddress=eth0:2001:db8::2/64\ngateway=192.0.2.1\n"
			       "nameserver=192.0.2.3\nsearch=a b\nhost=other:2001:db8::9\n"), 0);
	assert_int_equal(conf.root, CONF_ROOT_VIRTIOFS);
	assert_string_equal(conf.root_source, "rootfs");
	assert_true(conf.overlay && conf.readonly && conf.say_ready && conf.vport);
	assert_string_equal(conf.overlay_size, "50%");
	assert_int_equal(conf.nmounts, 2);
	assert_string_equal(conf.mount[0].target, "/data:with:colons");
	assert_true(conf.mount[0].readonly);
	assert_string_equal(conf.mount[1].source, "size=1m");
	assert_false(conf.mount[1].readonly);
	assert_string_equal(conf.hostname, "box");
	assert_true(conf.has_clock && conf.clock_s == 1700000000 && conf.clock_ns == 5);
	assert_string_equal(conf.interface, "eth1");
	assert_int_equal(conf.naddresses, 2);
	assert_string_equal(conf.address[1].interface, "eth0");
	assert_string_equal(conf.address[1].addr, "2001:db8::2");
	assert_int_equal(conf.address[1].prefix, 64);
	assert_string_equal(conf.gateway[0], "192.0.2.1");
	assert_string_equal(conf.nameserver[0], "192.0.2.3");
	assert_string_equal(conf.search, "a b");
	assert_string_equal(conf.host[0].name, "other");
	assert_string_equal(conf.host[0].addr, "2001:db8::9");
}

static void test_empty_configuration_stays_in_the_initramfs(void **state)
{
	assert_int_equal(parse(""), 0);
	assert_int_equal(conf.root, CONF_ROOT_INITRAMFS);
	assert_string_equal(conf.hostname, "roux");
	assert_false(conf.overlay || conf.vport || conf.has_clock);
}

static void test_wrong_lines_are_named_by_number(void **state)
{
	static const char *const wrong[] = {
		"nonsense", "key=value", "root=", "root=virtiofs", "root=virtiofs:", "root=blk:/dev/vda",
		"root=blk:vda:ext4", "root=nfs:x", "root=initramfs:x", "overlay=maybe", "overlay_size=",
		"overlay_size=1m,mode=777", "mount=virtiofs:ro:tag", "mount=virtiofs:xx:tag:/a",
		"mount=virtiofs:ro:tag:relative", "mount=nfs:ro:x:/a", "hostname=", "clock=", "clock=x",
		"clock=1.5", "address=eth0:192.0.2.2", "address=192.0.2.2/24", "address=eth0:192.0.2.2/33",
		"address=:192.0.2.2/24", "gateway=", "nameserver=", "search=", "host=name",
		"clock=99999999999999999999", "clock=-1", "transport=pigeon",
	};
	char line[128];

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		strcpy(line, "hostname=a\n");
		strcat(line, wrong[i]);
		assert_int_equal(parse(line), 2);
	}
	memcpy(text, "hostname=a\0b", 12);
	assert_int_equal(conf_parse(text, 12, &conf), 1);
}

static void test_too_many_mounts_are_refused(void **state)
{
	static char many[GUEST_CONF_SIZE_MAX];

	for (int i = 0; i < GUEST_CONF_MOUNTS_MAX; i++)
		strcat(many, "mount=tmpfs:rw::/a\n");
	assert_int_equal(parse(many), 0);
	strcat(many, "mount=tmpfs:rw::/a\n");
	assert_int_equal(parse(many), GUEST_CONF_MOUNTS_MAX + 1);
}

#define PASSWD \
	"root:x:0:0:root:/root:/bin/sh\nbroken line\n7:x:70:71::/seven:\n" \
	"app:x:1000:1001::/home/app:/bin/sh\nbad:x:12x:3::/:\nlast:x:7:8::/last"
#define GROUP "root:x:0:\nwheel:x:10:app,root\nusers:x:100:someone,app\nbroken\napp:x:1001:\nx:x:99:ap,pp"

static int resolve(const char *spec, struct user *user)
{
	return user_resolve(spec, PASSWD, strlen(PASSWD), GROUP, strlen(GROUP), user);
}

static void test_user_by_name_has_groups_and_home(void **state)
{
	struct user u;

	assert_int_equal(resolve("app", &u), 0);
	assert_int_equal(u.uid, 1000);
	assert_int_equal(u.gid, 1001);
	assert_int_equal(u.ngroups, 3);
	assert_int_equal(u.groups[0], 1001);	/* its own first, as after a login */
	assert_int_equal(u.groups[1], 10);
	assert_int_equal(u.groups[2], 100);
	assert_string_equal(u.home, "/home/app");
	assert_int_equal(resolve("1000", &u), 0);
	assert_int_equal(u.gid, 1001);
	assert_int_equal(u.ngroups, 3);
	assert_int_equal(resolve("last", &u), 0);
	assert_string_equal(u.home, "/last");
}

static void test_no_user_is_root(void **state)
{
	struct user u;

	assert_int_equal(resolve(NULL, &u), 0);
	assert_int_equal(u.uid, 0);
	assert_string_equal(u.home, "/root");
	assert_int_equal(resolve("", &u), 0);
	assert_int_equal(resolve(":", &u), 0);
	assert_int_equal(u.uid, 0);
}

static void test_named_group_replaces_the_others(void **state)
{
	struct user u;

	assert_int_equal(resolve("app:users", &u), 0);
	assert_int_equal(u.gid, 100);
	assert_int_equal(u.ngroups, 0);
	assert_int_equal(resolve("app:4000", &u), 0);
	assert_int_equal(u.gid, 4000);
	assert_int_equal(resolve("app:nosuch", &u), -2);
}

static void test_numbers_need_no_entry_but_names_do(void **state)
{
	struct user u;

	assert_int_equal(resolve("4242", &u), 0);
	assert_int_equal(u.uid, 4242);
	assert_int_equal(u.gid, 0);
	assert_string_equal(u.home, "");
	assert_int_equal(resolve("4294967295", &u), -1);	/* means "no change" to setuid() */
	assert_int_equal(resolve("nosuch", &u), -1);
	assert_int_equal(resolve("bad", &u), -1);
	assert_int_equal(user_resolve("root", "", 0, "", 0, &u), -1);
	assert_int_equal(user_resolve("5", "", 0, "", 0, &u), 0);
}

static void test_a_name_made_of_digits_beats_the_number(void **state)
{
	struct user u;

	assert_int_equal(resolve("7", &u), 0);
	assert_int_equal(u.uid, 70);
}

static struct exec_request exec_req;
static uint8_t frame_buf[512];

static struct frame finish(struct frame_writer *w)
{
	struct frame f = { 0 };
	size_t n = frame_end(w);

	assert_int_equal(frame_parse(frame_buf, n, sizeof(frame_buf), &f), 1);
	return f;
}

static void test_exec_request_is_read(void **state)
{
	struct frame_writer w;
	struct frame f;

	frame_begin(&w, frame_buf, sizeof(frame_buf), AGENT_EXEC);
	field_put_str(&w, AGENT_TAG_ARG, "ls");
	field_put_str(&w, AGENT_TAG_ARG, "-l");
	field_put_str(&w, AGENT_TAG_ENV, "A=b");
	field_put_str(&w, AGENT_TAG_CWD, "/tmp");
	field_put_u32(&w, AGENT_TAG_TTY, 1);
	field_put_u32(&w, AGENT_TAG_ROWS, 24);
	f = finish(&w);
	assert_int_equal(request_exec(&f, &exec_req), 0);
	assert_int_equal(exec_req.argc, 2);
	assert_string_equal(exec_req.argv[1], "-l");
	assert_null(exec_req.argv[2]);
	assert_string_equal(exec_req.env[0], "A=b");
	assert_null(exec_req.env[1]);
	assert_true(exec_req.tty && !exec_req.has_stdin);
	assert_int_equal(exec_req.rows, 24);
}

static void test_exec_request_with_wrong_values_is_refused(void **state)
{
	struct frame_writer w;
	struct frame f;

	for (int i = 0; i < 5; i++) {
		frame_begin(&w, frame_buf, sizeof(frame_buf), AGENT_EXEC);
		field_put_str(&w, AGENT_TAG_ARG, "ls");
		if (i == 0)
			field_put_str(&w, AGENT_TAG_CWD, "relative");
		if (i == 1)
			field_put_u32(&w, AGENT_TAG_TTY, 2);
		if (i == 2)
			field_put_u32(&w, AGENT_TAG_ROWS, 0);
		if (i == 3)
			field_put_str(&w, AGENT_TAG_ENV, "novalue");
		if (i == 4)
			field_put(&w, AGENT_TAG_STDIN, "", 1);
		f = finish(&w);
		assert_int_equal(request_exec(&f, &exec_req), -1);
	}
}

static int identity(uint16_t tag, const void *data, size_t len, struct identity_request *ret)
{
	struct frame_writer w;
	struct frame f;

	frame_begin(&w, frame_buf, sizeof(frame_buf), AGENT_IDENTITY);
	field_put(&w, tag, data, len);
	f = finish(&w);
	return request_identity(&f, ret);
}

static void test_identity_is_read(void **state)
{
	static const char digits[] = "0123456789abcdef0123456789abcdef";
	struct identity_request id;

	assert_int_equal(identity(AGENT_TAG_MACHINE_ID, digits, 33, &id), 0);
	assert_string_equal(id.machine_id, digits);
	assert_int_equal(identity(AGENT_TAG_MAC, "\2abcde", 6, &id), 0);
	assert_memory_equal(id.mac, "\2abcde", 6);
	assert_int_equal(identity(AGENT_TAG_TAKEN, "10.0.0.2/8", 11, &id), 0);
	assert_int_equal(id.ntaken, 1);
	assert_string_equal(id.taken[0], "10.0.0.2/8");
}

static void test_identity_with_wrong_values_is_refused_or_ignored(void **state)
{
	struct identity_request id;

	assert_int_equal(identity(AGENT_TAG_MAC, "\2abcd", 5, &id), -1);
	assert_int_equal(identity(AGENT_TAG_HOSTNAME, "", 1, &id), -1);
	/* Optional: hosts and agents are not always of the same age. */
	assert_int_equal(identity(AGENT_TAG_MACHINE_ID, "0123456789abcdef", 17, &id), 0);
	assert_null(id.machine_id);
	assert_int_equal(identity(AGENT_TAG_MACHINE_ID, "0123456789ABCDEF0123456789ABCDEF", 33, &id), 0);
	assert_null(id.machine_id);
}

static char read_text[100];

static void on_read_ahead(struct read_ahead_request *req)
{
	size_t at = strlen(read_text);

	(void)snprintf(read_text + at, sizeof(read_text) - at, "%s %llu+%llu ", req->path, (unsigned long long)req->offset,
		       (unsigned long long)req->size);
}

static void test_read_ahead_is_one_range_after_the_other(void **state)
{
	struct read_ahead_request req = { .read = on_read_ahead };
	struct frame_writer w;
	struct frame f;

	frame_begin(&w, frame_buf, sizeof(frame_buf), AGENT_READ_AHEAD);
	for (unsigned i = 0; i < 2; i++) {
		field_put_str(&w, AGENT_TAG_PATH, i ? "/b" : "/a");
		field_put_u64(&w, AGENT_TAG_OFFSET, i);
		field_put_u64(&w, AGENT_TAG_SIZE, 10);
	}
	field_put_u64(&w, AGENT_TAG_OFFSET, INT64_MAX - 9ull);
	field_put_u64(&w, AGENT_TAG_SIZE, 9);
	f = finish(&w);
	assert_int_equal(request_read_ahead(&f, &req), 0);
	assert_string_equal(read_text, "/a 0+10 /b 1+10 /b 9223372036854775798+9 ");

	frame_begin(&w, frame_buf, sizeof(frame_buf), AGENT_READ_AHEAD);
	field_put_u64(&w, AGENT_TAG_SIZE, 10);	/* of what? */
	f = finish(&w);
	req = (struct read_ahead_request){ .read = on_read_ahead };
	assert_int_equal(request_read_ahead(&f, &req), -1);
	frame_begin(&w, frame_buf, sizeof(frame_buf), AGENT_READ_AHEAD);
	field_put_str(&w, AGENT_TAG_PATH, "relative");
	f = finish(&w);
	assert_int_equal(request_read_ahead(&f, &req), -1);
	frame_begin(&w, frame_buf, sizeof(frame_buf), AGENT_READ_AHEAD);
	field_put_str(&w, AGENT_TAG_PATH, "/a");
	field_put_u64(&w, AGENT_TAG_OFFSET, 2);
	field_put_u64(&w, AGENT_TAG_SIZE, INT64_MAX);
	f = finish(&w);
	assert_int_equal(request_read_ahead(&f, &req), -1);
}

static void test_read_ahead_reads_files_only(void **state)
{
	char path[] = "/tmp/roux-test-XXXXXX";
	struct read_ahead_request req = { .path = path, .offset = 2, .size = 100 };
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, "contents", 8), 8);
	read_ahead(&req);
	assert_true(req.done == 6 || req.done == 0);	/* 0: this host has little memory free */
	req = (struct read_ahead_request){ .path = "/dev/zero", .size = 100 };
	read_ahead(&req);
	assert_int_equal(req.done, 0);
	assert_int_equal(unlink(path), 0);
	req.path = path;
	read_ahead(&req);
	assert_int_equal(req.done, 0);
	(void)close(fd);
}

static void test_signals_out_of_range_are_refused(void **state)
{
	static const uint32_t wrong[] = { 0, 65, 0xffffffff };
	struct frame_writer w;
	struct frame f;
	uint32_t signo;

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		frame_begin(&w, frame_buf, sizeof(frame_buf), AGENT_SIGNAL);
		field_put_u32(&w, AGENT_TAG_SIGNO, wrong[i]);
		f = finish(&w);
		assert_int_equal(request_signal(&f, &signo), -1);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_full_configuration_is_understood),
		cmocka_unit_test(test_empty_configuration_stays_in_the_initramfs),
		cmocka_unit_test(test_wrong_lines_are_named_by_number),
		cmocka_unit_test(test_too_many_mounts_are_refused),
		cmocka_unit_test(test_user_by_name_has_groups_and_home),
		cmocka_unit_test(test_no_user_is_root),
		cmocka_unit_test(test_named_group_replaces_the_others),
		cmocka_unit_test(test_numbers_need_no_entry_but_names_do),
		cmocka_unit_test(test_a_name_made_of_digits_beats_the_number),
		cmocka_unit_test(test_exec_request_is_read),
		cmocka_unit_test(test_exec_request_with_wrong_values_is_refused),
		cmocka_unit_test(test_identity_is_read),
		cmocka_unit_test(test_identity_with_wrong_values_is_refused_or_ignored),
		cmocka_unit_test(test_read_ahead_is_one_range_after_the_other),
		cmocka_unit_test(test_read_ahead_reads_files_only),
		cmocka_unit_test(test_signals_out_of_range_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
