/* SPDX-License-Identifier: Apache-2.0 */
/* The folders of VMs, their logs and the events, as processes that were killed leave them. */
#include "life/events.h"
#include "life/names.h"
#include "life/output.h"
#include "life/vms.h"
#include "os/err.h"
#include "os/file.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

static char top[64];
static struct vms vms;
static struct err err;

static int setup(void **state)
{
	char path[96];

	(void)snprintf(top, sizeof(top), "/tmp/roux-life-XXXXXX");
	if (!mkdtemp(top))
		return -1;
	(void)snprintf(path, sizeof(path), "%s/store", top);
	(void)setenv("ROUX_STORE", path, 1);
	(void)snprintf(path, sizeof(path), "%s/state", top);
	(void)setenv("ROUX_STATE", path, 1);
	return vms_open(&vms, &err);
}

static int teardown(void **state)
{
	return file_remove_tree(AT_FDCWD, top);
}

static void make(const char *name, struct vm_record *r, struct vm_owned *owned)
{
	record_init(r);
	(void)snprintf(r->name, sizeof(r->name), "%s", name);
	assert_int_equal(vms_create(&vms, r, owned, &err), 0);
}

static int count_one(void *ctx, const char *id)
{
	(*(unsigned *)ctx)++;
	return 0;
}

static unsigned count(void)
{
	unsigned n = 0;

	assert_int_equal(vms_each(&vms, count_one, &n), 0);
	return n;
}

static void test_vms_are_found_by_name_and_id(void **state)
{
	struct vm_record a, b, r;
	struct vm_owned oa, ob;
	char id[VM_ID_SIZE];
	bool alive;

	make("web", &a, &oa);
	make("", &b, &ob);
	assert_true(vm_name_valid(b.name) && count() == 2);
	assert_int_equal(vms_find(&vms, "web", id, &err), 0);
	assert_string_equal(id, a.id);
	assert_int_equal(vms_find(&vms, b.name, id, &err), 0);
	assert_string_equal(id, b.id);
	memcpy(id, a.id, 12);
	id[12] = '\0';
	assert_int_equal(vms_find(&vms, id, id, &err), 0);
	assert_string_equal(id, a.id);
	assert_int_equal(vms_find(&vms, "", id, &err), -ENOENT);
	assert_int_equal(vms_find(&vms, "../names/web", id, &err), -ENOENT);
	assert_int_equal(vms_find(&vms, "nobody", id, &err), -ENOENT);
	record_init(&r);
	assert_int_equal(vms_load(&vms, a.id, &r, &alive, &err), 0);
	assert_true(alive);
	assert_int_equal(vm_remove(&vms, &oa, a.name, &err), 0);
	assert_int_equal(vm_remove(&vms, &ob, b.name, &err), 0);
	vm_release(&oa);
	vm_release(&ob);
	assert_int_equal(count(), 0);
	record_finish(&r);
}

static void test_a_name_belongs_to_one(void **state)
{
	struct vm_record a, b;
	struct vm_owned oa, ob;

	make("one", &a, &oa);
	record_init(&b);
	(void)snprintf(b.name, sizeof(b.name), "one");
	assert_int_equal(vms_create(&vms, &b, &ob, &err), -EEXIST);
	assert_non_null(strstr(err.msg, "roux rm one"));
	assert_int_equal(count(), 1);
	assert_int_equal(vm_rename(&vms, &oa, &a, "two", &err), 0);
	make("one", &b, &ob);
	assert_int_equal(vm_rename(&vms, &oa, &a, "one", &err), -EEXIST);
	assert_string_equal(a.name, "two");
	assert_int_equal(vm_rename(&vms, &oa, &a, "a/b", &err), -EINVAL);
	assert_int_equal(vm_remove(&vms, &oa, a.name, &err), 0);
	assert_int_equal(vm_remove(&vms, &ob, b.name, &err), 0);
	vm_release(&oa);
	vm_release(&ob);
}

/* A process that makes a VM and is gone: @record says how far it came. */
static void die_creating(const char *name, uint32_t status, bool record)
{
	pid_t pid = fork();
	int how;

	if (pid == 0) {
		struct vm_record r;
		struct vm_owned owned;
		char path[PATH_MAX];

		record_init(&r);
		(void)snprintf(r.name, sizeof(r.name), "%s", name);
		r.state.status = status;
		r.state.monitor_pid = 1;
		if (vms_create(&vms, &r, &owned, NULL) < 0)
			_exit(1);
		if (!record && (file_path(path, NULL, owned.data, "/record.json", NULL) < 0 || unlink(path) < 0))
			_exit(1);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &how, 0), pid);
	assert_int_equal(how, 0);
}

static void test_a_vm_whose_owner_died_says_so(void **state)
{
	struct vm_record r;
	struct vm_owned owned;
	char id[VM_ID_SIZE];
	bool alive = true;

	die_creating("orphan", VM_RUNNING, true);
	record_init(&r);
	assert_int_equal(vms_find(&vms, "orphan", id, &err), 0);
	assert_int_equal(vms_load(&vms, id, &r, &alive, &err), 0);
	assert_false(alive);
	assert_int_equal(r.state.status, VM_EXITED);
	assert_int_equal(r.state.exit_code, 137);
	assert_int_equal(r.state.monitor_pid, 0);
	assert_non_null(r.state.error);
	assert_int_equal(vms_own(&vms, id, 0, &owned, &err), 0);
	assert_int_equal(vm_remove(&vms, &owned, "orphan", &err), 0);
	vm_release(&owned);
	assert_int_equal(vms_own(&vms, id, 0, &owned, &err), -ENOENT);
	record_finish(&r);
}

static void test_half_made_vms_go_and_free_their_names(void **state)
{
	struct vm_record r;
	struct vm_owned owned;

	die_creating("half", VM_STARTING, false);
	make("half", &r, &owned);	/* the link of the dead one is no obstacle */
	assert_int_equal(count(), 1);
	assert_int_equal(vm_remove(&vms, &owned, "half", &err), 0);
	vm_release(&owned);
	assert_int_equal(count(), 0);
}

static void test_one_at_a_time_owns_a_vm(void **state)
{
	struct vm_record r;
	struct vm_owned owned, other;

	make("busy", &r, &owned);
	assert_int_equal(vms_own(&vms, r.id, 10, &other, &err), -EBUSY);
	vm_release(&owned);
	assert_int_equal(vms_own(&vms, r.id, 10, &other, &err), 0);
	assert_int_equal(vm_remove(&vms, &other, "busy", &err), 0);
	vm_release(&other);
}

static void put(struct output_writer *w, enum output_stream stream, const char *text)
{
	output_write(w, stream, 7, text, strlen(text));
}

/* All that a reader sees, as one string. */
static size_t read_all(const char *folder, long tail, char *ret, size_t size)
{
	struct output_reader r;
	struct output_record record;
	size_t len = 0;

	assert_int_equal(output_reader_open(&r, folder), 0);
	if (tail >= 0)
		assert_int_equal(output_seek_tail(&r, (uint64_t)tail), 0);
	while (output_read(&r, &record)) {
		assert_true(len + record.len < size && record.time_ns == 7);
		memcpy(ret + len, record.data, record.len);
		len += record.len;
	}
	ret[len] = '\0';
	output_reader_close(&r);
	return len;
}

static void test_logs_are_read_as_written(void **state)
{
	struct output_writer w;
	char all[256];

	output_open(&w, top, 0);
	put(&w, OUTPUT_STDOUT, "one\ntw");
	put(&w, OUTPUT_STDERR, "err\n");
	put(&w, OUTPUT_STDOUT, "o\nend");
	output_close(&w);
	(void)read_all(top, -1, all, sizeof(all));
	assert_string_equal(all, "one\ntwerr\no\nend");
	(void)read_all(top, 2, all, sizeof(all));
	assert_string_equal(all, "o\nend");
	assert_int_equal(read_all(top, 0, all, sizeof(all)), 0);
	/* A later writer goes on behind half a record that a kill left. */
	assert_int_equal(truncate(strcat(strcpy(all, top), "/log.1"), 6 + 4 + 16 * 2 + 10), 0);
	output_open(&w, top, 0);
	put(&w, OUTPUT_STDOUT, "later\n");
	output_close(&w);
	(void)read_all(top, -1, all, sizeof(all));
	assert_string_equal(all, "one\ntwerr\nlater\n");
}

static void test_logs_have_a_largest_size(void **state)
{
	static char text[1000], all[64 << 10];
	struct output_writer w;
	struct stat st;
	off_t sum = 0;
	char path[96];

	memset(text, 'x', sizeof(text) - 1);
	output_open(&w, top, 40000);
	for (int i = 0; i < 200; i++)
		put(&w, OUTPUT_STDOUT, text);
	output_close(&w);
	for (int i = 0; i < 100; i++) {
		(void)snprintf(path, sizeof(path), "%s/log.%d", top, i);
		sum += stat(path, &st) == 0 ? st.st_size : 0;
	}
	assert_true(sum <= 40000 && sum > 20000);
	assert_true(read_all(top, -1, all, sizeof(all)) > 20000);
}

static void test_damaged_logs_end_there(void **state)
{
	static const uint8_t bad_stream[] = { 1, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 'x' };
	static const uint8_t too_long[] = { 1, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 'x' };
	static const uint8_t empty[] = { 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 'x' };
	struct output_record r;

	assert_int_equal(output_parse(bad_stream, sizeof(bad_stream), &r), -1);
	assert_int_equal(output_parse(too_long, sizeof(too_long), &r), -1);
	assert_int_equal(output_parse(empty, sizeof(empty), &r), -1);
	assert_int_equal(output_parse(empty, 15, &r), 0);
}

static void test_events_are_read_in_order_and_damage_is_skipped(void **state)
{
	struct events_reader reader;
	struct vm_record r;
	struct event e;
	char path[PATH_MAX], old[PATH_MAX];
	FILE *f;

	record_init(&r);
	assert_int_equal(vm_id_make(r.id), 0);
	(void)snprintf(r.name, sizeof(r.name), "ev");
	events_open(&reader, &vms);
	assert_int_equal(events_read(&reader, &e), 0);
	events_add(&vms, &r, "create", NULL);
	(void)snprintf(path, sizeof(path), "%s/events/log", vms.data);
	f = fopen(path, "a");
	assert_non_null(f);
	(void)fputs("{\"Time\":\"20\nnot json\n\n", f);
	(void)fclose(f);
	events_add(&vms, &r, "die", "137");
	assert_int_equal(events_read(&reader, &e), 1);
	assert_string_equal(e.action, "create");
	assert_int_equal(events_read(&reader, &e), 1);
	assert_string_equal(e.action, "die");
	assert_string_equal(e.detail, "137");
	assert_string_equal(e.id, r.id);
	assert_int_equal(events_read(&reader, &e), 0);
	/* A reader misses nothing when the file is put aside under it. */
	events_add(&vms, &r, "start", NULL);
	(void)snprintf(old, sizeof(old), "%s/events/log.1", vms.data);
	assert_int_equal(rename(path, old), 0);
	events_add(&vms, &r, "stop", NULL);
	assert_int_equal(events_read(&reader, &e), 1);
	assert_string_equal(e.action, "start");
	assert_int_equal(events_read(&reader, &e), 1);
	assert_string_equal(e.action, "stop");
	events_close(&reader);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_vms_are_found_by_name_and_id),
		T(test_a_name_belongs_to_one),
		T(test_a_vm_whose_owner_died_says_so),
		T(test_half_made_vms_go_and_free_their_names),
		T(test_one_at_a_time_owns_a_vm),
		T(test_logs_are_read_as_written),
		T(test_logs_have_a_largest_size),
		T(test_damaged_logs_end_there),
		T(test_events_are_read_in_order_and_damage_is_skipped),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
