/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/control.h"
#include "machine/process.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>
#include <pthread.h>

#define HEADER offsetof(struct control_msg, text)

static int pair[2];
static struct control_msg msg;
static int fd;

static int setup(void **state)
{
	fd = -1;
	return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair);
}

static int teardown(void **state)
{
	(void)close(pair[0]);
	(void)close(pair[1]);
	return 0;
}

static int receive(void)
{
	return control_recv(pair[1], &msg, &fd);
}

/* The lowest free number: grows when a descriptor was left open. */
static int free_descriptor(void)
{
	int n = open("/dev/null", O_RDONLY | O_CLOEXEC);

	assert_true(n >= 0);
	(void)close(n);
	return n;
}

static void send_raw(const void *bytes, size_t len, unsigned nfds)
{
	union {
		char buf[CMSG_SPACE(2 * sizeof(int))];
		struct cmsghdr align;
	} anc = { { 0 } };
	struct iovec iov = { (void *)(uintptr_t)bytes, len };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (nfds) {
		m.msg_control = anc.buf;
		m.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
		anc.align = (struct cmsghdr){ CMSG_LEN(nfds * sizeof(int)), SOL_SOCKET, SCM_RIGHTS };
		memcpy(CMSG_DATA(&anc.align), pair, nfds * sizeof(int));
	}
	assert_int_equal(sendmsg(pair[0], &m, 0), len);
}

static void test_a_message_arrives_as_sent(void **state)
{
	assert_int_equal(control_send(pair[0], CONTROL_CONNECTED, 7, -ECONNREFUSED, "text", 4, -1), 0);
	assert_int_equal(receive(), 1);
	assert_int_equal(msg.type, CONTROL_CONNECTED);
	assert_int_equal(msg.value, 7);
	assert_int_equal(msg.value2, -ECONNREFUSED);
	assert_int_equal(msg.len, 4);
	assert_string_equal(msg.text, "text");
	assert_int_equal(fd, -1);
	assert_int_equal(receive(), -EAGAIN);
}

static void test_the_longest_text_fits_and_no_longer(void **state)
{
	static char text[CONTROL_TEXT_MAX + 1];
	int room = 4 * (int)sizeof(text);

	(void)setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
	memset(text, 'x', sizeof(text));
	assert_int_equal(control_send(pair[0], CONTROL_SPEC, 0, 0, text, CONTROL_TEXT_MAX + 1, -1), -E2BIG);
	assert_int_equal(control_send(pair[0], CONTROL_SPEC, 0, 0, text, CONTROL_TEXT_MAX, -1), 0);
	assert_int_equal(receive(), 1);
	assert_int_equal(msg.len, CONTROL_TEXT_MAX);
	assert_int_equal(strlen(msg.text), CONTROL_TEXT_MAX);
}

static void test_a_descriptor_travels_and_closes_on_exec(void **state)
{
	int p[2];
	char c;

	assert_int_equal(pipe(p), 0);
	assert_int_equal(control_send(pair[0], CONTROL_READY, 0, 0, NULL, 0, p[0]), 0);
	(void)close(p[0]);
	assert_int_equal(receive(), 1);
	assert_true(fd >= 0);
	assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
	assert_int_equal(write(p[1], "q", 1), 1);
	assert_int_equal(read(fd, &c, 1), 1);
	assert_int_equal(c, 'q');
	(void)close(fd);
	(void)close(p[1]);
}

static void test_a_closed_side_is_the_end(void **state)
{
	(void)close(pair[0]);
	assert_int_equal(receive(), 0);
	assert_int_equal(control_send(pair[1], CONTROL_READY, 0, 0, NULL, 0, -1), -EPIPE);
	pair[0] = -1;
}

static void test_a_full_socket_does_not_block(void **state)
{
	static const char text[4096];
	int r = 0;

	for (int i = 0; i < 10000 && r == 0; i++)
		r = control_send(pair[0], CONTROL_CONSOLE, 0, 0, text, sizeof(text), -1);
	assert_int_equal(r, -EAGAIN);
}

static void test_lengths_that_do_not_match_are_refused(void **state)
{
	struct control_msg m = { .type = CONTROL_CONSOLE };
	static const uint32_t liars[] = { 0, 2, 4, UINT32_MAX, UINT32_MAX - HEADER + 4 };

	for (size_t i = 0; i < sizeof(liars) / sizeof(liars[0]); i++) {
		m.len = liars[i];
		send_raw(&m, HEADER + 3, 0);
		assert_int_equal(receive(), -EPROTO);
	}
	for (size_t n = 1; n < HEADER; n++) {
		send_raw(&m, n, 0);
		assert_int_equal(receive(), -EPROTO);
	}
}

static void test_refused_messages_leave_no_descriptor(void **state)
{
	struct control_msg m = { .type = CONTROL_READY };
	int before = free_descriptor();

	send_raw(&m, HEADER, 2);	/* one more than a message may have */
	assert_int_equal(receive(), -EPROTO);
	assert_int_equal(free_descriptor(), before);
	m.len = 1;
	send_raw(&m, HEADER, 1);
	assert_int_equal(receive(), -EPROTO);
	assert_int_equal(free_descriptor(), before);
	send_raw(&m, 0, 1);	/* looks like the end */
	assert_int_equal(receive(), 0);
	assert_int_equal(free_descriptor(), before);
}

static void *serve(void *arg)
{
	return (void *)(intptr_t)machine_process(*(int *)arg, NULL, NULL);
}

/* Runs the process of a VM on a thread; returns its exit status once @pair[0] is closed. */
static int served(pthread_t thread)
{
	void *status;

	assert_int_equal(pthread_join(thread, &status), 0);
	return (int)(intptr_t)status;
}

static int next_message(void)
{
	int r;

	(void)fcntl(pair[0], F_SETFL, fcntl(pair[0], F_GETFL) & ~O_NONBLOCK);
	r = control_recv(pair[0], &msg, &fd);
	return r == 1 ? (int)msg.type : r;
}

static void test_a_process_refuses_bad_specs_with_a_sentence(void **state)
{
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, serve, &pair[1]), 0);
	assert_int_equal(control_send(pair[0], CONTROL_CONNECT, 5, 80, NULL, 0, -1), 0);
	assert_int_equal(next_message(), CONTROL_CONNECTED);
	assert_int_equal(msg.value, 5);
	assert_int_equal(msg.value2, -ENOTCONN);
	assert_int_equal(control_send(pair[0], CONTROL_CONSOLE_INPUT, 0, 0, "x", 1, -1), 0);	/* nobody to take it */
	assert_int_equal(control_send(pair[0], (enum control_type)999, 0, 0, NULL, 0, pair[0]), 0);
	assert_int_equal(control_send(pair[0], CONTROL_SPEC, 0, 0, "cpus = x", 8, -1), 0);
	assert_int_equal(next_message(), CONTROL_FAILED);
	assert_int_equal(msg.value, -EINVAL);
	assert_string_equal(msg.text, "line 1: expected a value");
	assert_int_equal(served(thread), 1);
}

static void test_a_process_ends_when_its_owner_goes_or_talks_nonsense(void **state)
{
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, serve, &pair[1]), 0);
	send_raw("nonsense", 8, 0);
	assert_int_equal(served(thread), 0);
	assert_int_equal(pthread_create(&thread, NULL, serve, &pair[1]), 0);
	(void)shutdown(pair[0], SHUT_RDWR);
	assert_int_equal(served(thread), 0);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_a_message_arrives_as_sent),
		T(test_the_longest_text_fits_and_no_longer),
		T(test_a_descriptor_travels_and_closes_on_exec),
		T(test_a_closed_side_is_the_end),
		T(test_a_full_socket_does_not_block),
		T(test_lengths_that_do_not_match_are_refused),
		T(test_refused_messages_leave_no_descriptor),
		T(test_a_process_refuses_bad_specs_with_a_sentence),
		T(test_a_process_ends_when_its_owner_goes_or_talks_nonsense),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
