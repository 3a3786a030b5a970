/* SPDX-License-Identifier: Apache-2.0 */
#include "link/link.h"
#include "os/loop.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#define S_NS 1000000000ull

/* ------------------------------------------------------ limits and capture */

static struct {
	struct link link;	/* first */
	unsigned sent;
} back;

static struct loop *loop;
static unsigned writable;

static int count_send(struct link *link, const struct link_frame *frame)
{
	back.sent++;
	return 0;
}

static void no_ready(struct link *link)
{
}

static void finish(struct link *link)
{
	link_finish(link);
}

static const struct link_ops count_ops = { .name = "test", .send = count_send, .ready = no_ready,
					   .destroy = finish };

static uint64_t now_ns(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * S_NS + (uint64_t)t.tv_nsec;
}

static uint8_t bytes[1000];
static const struct iovec iov = { bytes, sizeof(bytes) };
static const struct link_frame frame = { .iov = &iov, .niov = 1, .len = sizeof(bytes) };

static void fill_up(void *ctx)
{
	writable++;
	while (link_send(&back.link, &frame) == 0)
		;
	if (back.sent >= 400)
		loop_quit(loop);
}

static int make_link(void **state)
{
	static const uint8_t mac[6] = { 2 };

	memset(&back, 0, sizeof(back));
	writable = 0;
	if (loop_create(&loop, NULL) < 0)
		return -1;
	link_init(&back.link, &count_ops, loop, mac, LINK_MTU_DEFAULT);
	link_attach(&back.link, &(struct link_sink){ .writable = fill_up });
	return 0;
}

static int free_link(void **state)
{
	link_destroy(&back.link);
	loop_destroy(loop);
	return 0;
}

static void test_a_limit_of_frames_holds(void **state)
{
	const struct link_limits some = { .frames_per_s = 1000 }, none = { 0 };
	uint64_t begin;

	assert_int_equal(link_limit(&back.link, &some, &none, NULL), 0);
	begin = now_ns();
	fill_up(NULL);
	assert_true(back.sent >= 100 && back.sent <= 102);	/* a burst */
	assert_int_equal(loop_run(loop, NULL), 0);
	/* The other 300 take 0.3 s at least; more where the host is busy. */
	assert_true(now_ns() - begin >= S_NS * 29 / 100);
	assert_true(writable > 1);
}

static void test_a_limit_of_bytes_holds(void **state)
{
	const struct link_limits some = { .bytes_per_s = 1000000 }, none = { 0 };
	uint64_t begin;

	assert_int_equal(link_limit(&back.link, &some, &none, NULL), 0);
	begin = now_ns();
	fill_up(NULL);
	assert_int_equal(loop_run(loop, NULL), 0);
	assert_true(now_ns() - begin >= S_NS * 29 / 100);
}

static void test_a_capture_is_a_pcap_file(void **state)
{
	char path[] = "/tmp/roux-pcap-XXXXXX";
	uint32_t head[6], record[4];
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(link_capture(&back.link, dup(fd), NULL), 0);
	bytes[999] = 0x5a;
	assert_int_equal(link_send(&back.link, &frame), 0);
	link_destroy(&back.link);
	back.link.capture = NULL;
	assert_int_equal(pread(fd, head, sizeof(head), 0), sizeof(head));
	assert_int_equal(head[0], 0xa1b23c4d);
	assert_int_equal(head[5], 1);
	assert_int_equal(pread(fd, record, sizeof(record), sizeof(head)), sizeof(record));
	assert_int_equal(record[2], 1000);
	assert_int_equal(pread(fd, bytes, 1, sizeof(head) + sizeof(record) + 999), 1);
	assert_int_equal(bytes[0], 0x5a);
	(void)close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_a_limit_of_frames_holds, make_link, free_link),
		cmocka_unit_test_setup_teardown(test_a_limit_of_bytes_holds, make_link, free_link),
		cmocka_unit_test_setup_teardown(test_a_capture_is_a_pcap_file, make_link, free_link),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
