/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host's side of agent sessions, against an agent played from a script: its
 * frames wait in the socket before the host says anything.
 */
#include "abi/agent.h"
#include "api/handle.h"
#include "api/session.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

static struct roux_machine machine;
static struct control_msg message;
static int host, agent;	/* the two ends of a stream */
static int vmm;	/* the VM process's end of the control socket */

static int setup(void **state)
{
	int stream[2], control[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, stream) < 0 ||
	    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, control) < 0)
		return -1;
	host = stream[0];
	agent = stream[1];
	vmm = control[1];
	machine = (struct roux_machine){ .sock = control[0], .ready_fd = -1, .identified = true, .msg = &message,
					 .wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) };
	return machine.wake_fd < 0;
}

static int teardown(void **state)
{
	if (host >= 0)
		(void)close(host);
	(void)close(machine.sock);
	(void)close(machine.wake_fd);
	(void)close(agent);
	(void)close(vmm);
	return 0;
}

/* The VM process answers the next request for a stream to the agent. */
static void connect_agent(void)
{
	assert_int_equal(control_send(vmm, CONTROL_CONNECTED, machine.last_connect + 1, 0, NULL, 0, host), 0);
	(void)close(host);
	host = -1;
}

static void say_bytes(const void *bytes, size_t len)
{
	assert_int_equal(send(agent, bytes, len, MSG_NOSIGNAL), len);
}

static void say_raw(uint8_t type, const void *data, size_t len)
{
	uint8_t head[FRAME_HEADER];

	frame_put_header(head, type, (uint32_t)len);
	say_bytes(head, sizeof(head));
	if (len)
		say_bytes(data, len);
}

static void say_u32(uint8_t type, uint16_t tag, uint32_t value)
{
	struct frame_writer w;
	uint8_t buf[64];

	frame_begin(&w, buf, sizeof(buf), type);
	field_put_u32(&w, tag, value);
	say_bytes(buf, frame_end(&w));
}

static void say_hello(uint32_t magic, uint32_t version, uint32_t version_min, uint16_t more)
{
	struct frame_writer w;
	uint8_t buf[128];

	frame_begin(&w, buf, sizeof(buf), AGENT_HELLO);
	field_put_u32(&w, AGENT_TAG_MAGIC, magic);
	field_put_u32(&w, AGENT_TAG_VERSION, version);
	field_put_u32(&w, AGENT_TAG_VERSION_MIN, version_min);
	if (more)
		field_put_u64(&w, more, 1);
	say_bytes(buf, frame_end(&w));
}

static void say_hello_and_started(void)
{
	say_hello(AGENT_MAGIC, AGENT_VERSION, AGENT_VERSION_MIN, AGENT_TAG_UPTIME_NS);
	say_u32(AGENT_STARTED, AGENT_TAG_PID, 1);
}

/* What the host sent: the next frame must have @type.  Returns its payload's length. */
static uint32_t hear(uint8_t type)
{
	static uint8_t buf[FRAME_HEADER + AGENT_FRAME_MAX];
	struct frame f;

	assert_int_equal(recv(agent, buf, FRAME_HEADER, MSG_WAITALL), FRAME_HEADER);
	(void)frame_parse(buf, FRAME_HEADER, AGENT_FRAME_MAX, &f);
	assert_int_equal(buf[4], type);
	memcpy(&f.len, buf, 4);
	if (f.len)
		assert_int_equal(recv(agent, buf, f.len, MSG_WAITALL), f.len);
	return f.len;
}

static struct roux_process *exec_with(int in, int out)
{
	static const char *const argv[] = { "true", NULL };
	const struct roux_exec_options o = { .size = sizeof(o), .argv = argv, .stdin_fd = in, .stdout_fd = out,
					     .stderr_fd = -1 };
	struct roux_error error = { 0 };
	struct roux_process *p;

	connect_agent();
	assert_int_equal(roux_exec(&machine, &o, &p, &error), 0);
	return p;
}

/* ------------------------------------------------------------------- frames */

static struct session open_session(void)
{
	struct session s;

	assert_int_equal(session_open(&s, host, NULL), 0);
	host = -1;
	(void)hear(AGENT_HELLO);
	return s;
}

static void test_frames_come_whole_however_they_are_cut(void **state)
{
	struct session s = open_session();
	uint8_t bytes[2 * (FRAME_HEADER + 3)];
	struct frame f;

	frame_put_header(bytes, AGENT_STDOUT, 3);
	memcpy(bytes + FRAME_HEADER, "abc", 3);
	frame_put_header(bytes + FRAME_HEADER + 3, AGENT_STDERR, 3);
	memcpy(bytes + 2 * FRAME_HEADER + 3, "def", 3);
	for (size_t i = 0; i < sizeof(bytes); i++) {
		assert_int_equal(session_next(&s, &f), i == FRAME_HEADER + 3);
		say_bytes(bytes + i, 1);
		assert_int_equal(session_fill(&s), 0);
	}
	assert_int_equal(session_next(&s, &f), 1);
	assert_int_equal(f.type, AGENT_STDERR);
	assert_memory_equal(f.data, "def", 3);
	assert_int_equal(session_next(&s, &f), 0);
	session_close(&s);
	assert_int_equal(s.fd, -1);
}

static void test_the_largest_frame_fits_and_a_larger_one_is_refused(void **state)
{
	static uint8_t data[AGENT_FRAME_MAX];
	struct session s = open_session();
	uint8_t head[FRAME_HEADER];
	struct frame f;
	size_t sent = 0;
	int r;

	frame_put_header(head, AGENT_STDOUT, sizeof(data));
	say_bytes(head, sizeof(head));
	while ((r = session_next(&s, &f)) == 0) {
		ssize_t n = send(agent, data + sent, sizeof(data) - sent, MSG_DONTWAIT);

		sent += n > 0 ? (size_t)n : 0;
		assert_int_equal(session_fill(&s), 0);
	}
	assert_int_equal(r, 1);
	assert_int_equal(f.len, sizeof(data));
	frame_put_header(head, AGENT_STDOUT, sizeof(data) + 1);
	say_bytes(head, sizeof(head));
	assert_int_equal(session_fill(&s), 0);
	assert_int_equal(session_next(&s, &f), -EPROTO);
	session_close(&s);
}

static void test_waiting_ends_in_time_by_a_wake_or_at_the_end(void **state)
{
	struct session s = open_session();
	struct frame f;

	assert_int_equal(session_wait(&s, monotonic_ns() + 1000000, machine.wake_fd, &f), -ETIMEDOUT);
	assert_int_equal(eventfd_write(machine.wake_fd, 1), 0);
	assert_int_equal(session_wait(&s, UINT64_MAX, machine.wake_fd, &f), -EINTR);
	say_raw(AGENT_OK, NULL, 0);
	assert_int_equal(session_wait(&s, UINT64_MAX, machine.wake_fd, &f), 0);	/* the wake was used up */
	assert_int_equal(f.type, AGENT_OK);
	(void)shutdown(agent, SHUT_RDWR);
	assert_int_equal(session_wait(&s, UINT64_MAX, -1, &f), -EPIPE);
	assert_int_equal(session_send(&s, AGENT_PING, NULL, 0), -EPIPE);
	session_close(&s);
}

static void test_hello_needs_the_magic_and_a_common_version(void **state)
{
	static const struct {
		uint32_t magic, version, version_min;
		uint16_t more;
		int want;
	} t[] = {
		{ AGENT_MAGIC, AGENT_VERSION, AGENT_VERSION_MIN, 0, 0 },
		{ AGENT_MAGIC, AGENT_VERSION + 5, AGENT_VERSION, AGENT_TAG_UPTIME_NS, 0 },
		{ AGENT_MAGIC, AGENT_VERSION, AGENT_VERSION, 999 | AGENT_TAG_OPTIONAL, 0 },
		{ AGENT_MAGIC, AGENT_VERSION, AGENT_VERSION, 999, -EPROTO },
		{ AGENT_MAGIC + 1, AGENT_VERSION, AGENT_VERSION_MIN, 0, -EPROTO },
		{ AGENT_MAGIC, AGENT_VERSION + 5, AGENT_VERSION + 1, 0, -EPROTO },
		{ AGENT_MAGIC, 0, 0, 0, -EPROTO },
	};
	struct session s = open_session();
	struct err err = { 0 };

	for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
		say_hello(t[i].magic, t[i].version, t[i].version_min, t[i].more);
		assert_int_equal(session_hello(&s, UINT64_MAX, -1, &err), t[i].want);
	}
	say_raw(AGENT_OK, NULL, 0);
	assert_int_equal(session_hello(&s, UINT64_MAX, -1, &err), -EPROTO);
	assert_string_equal(err.msg, "the guest's agent does not answer: Protocol error");
	session_close(&s);
}

static void test_errors_of_the_agent_become_reports(void **state)
{
	uint8_t buf[256];
	struct frame_writer w;
	struct frame f;
	struct err err = { 0 };

	frame_begin(&w, buf, sizeof(buf), AGENT_ERROR);
	field_put_u32(&w, AGENT_TAG_ERRNO, ENOENT);
	field_put_str(&w, AGENT_TAG_MESSAGE, "no such program");
	assert_int_equal(frame_parse(buf, frame_end(&w), AGENT_FRAME_MAX, &f), 1);
	assert_int_equal(session_error(&f, &err), -ENOENT);
	assert_string_equal(err.msg, "no such program");

	frame_begin(&w, buf, sizeof(buf), AGENT_ERROR);	/* numbers that are no errno, text without an end */
	field_put_u32(&w, AGENT_TAG_ERRNO, 0x80000000u);
	field_put(&w, AGENT_TAG_MESSAGE, "xyz", 3);
	assert_int_equal(frame_parse(buf, frame_end(&w), AGENT_FRAME_MAX, &f), 1);
	assert_int_equal(session_error(&f, &err), -EIO);
	assert_string_equal(err.msg, "the guest's agent reported an error");
}

/* ---------------------------------------------------------------- processes */

static void test_output_and_status_arrive(void **state)
{
	int out = memfd_create("out", MFD_CLOEXEC);
	struct roux_process *p;
	struct roux_exit how;
	char got[16] = "";

	say_hello_and_started();
	say_raw(AGENT_STDOUT, "hello ", 6);
	say_raw(AGENT_STDERR, "nobody", 6);
	say_raw(AGENT_STDOUT, "you", 3);
	say_u32(AGENT_EXITED, AGENT_TAG_STATUS, 7);
	p = exec_with(-1, out);
	(void)hear(AGENT_HELLO);
	(void)hear(AGENT_EXEC);
	assert_int_equal(roux_process_wait(p, -1, &how, NULL), 0);
	assert_int_equal(how.status, 7);
	assert_int_equal(how.signal, 0);
	assert_int_equal(pread(out, got, sizeof(got), 0), 9);
	assert_string_equal(got, "hello you");
	roux_process_destroy(p);
	(void)close(out);
}

static void test_a_killed_process_says_by_what(void **state)
{
	struct roux_process *p;
	struct roux_exit how;

	say_hello_and_started();
	say_u32(AGENT_EXITED, AGENT_TAG_SIGNO, SIGKILL);
	p = exec_with(-1, -1);
	assert_int_equal(roux_process_wait(p, -1, &how, NULL), 0);
	assert_int_equal(how.signal, SIGKILL);
	assert_int_equal(how.status, 128 + SIGKILL);
	roux_process_destroy(p);
}

static void test_what_breaks_the_protocol_ends_the_session(void **state)
{
	static const struct {
		uint8_t type;
		uint16_t tag;
		uint32_t value;
	} t[] = {
		{ AGENT_EXITED, AGENT_TAG_STATUS, 256 },
		{ AGENT_EXITED, AGENT_TAG_SIGNO, 0x7fffffff },	/* 128 more would not fit */
		{ AGENT_CREDIT, AGENT_TAG_CREDIT_BYTES, 1 },	/* nothing was sent yet */
		{ AGENT_CREDIT, AGENT_TAG_CREDIT_BYTES, UINT32_MAX },
		{ 200, AGENT_TAG_STATUS, 0 },
	};

	for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
		struct roux_error error = { 0 };
		struct roux_process *p;
		struct roux_exit how;

		say_hello_and_started();
		say_u32(t[i].type, t[i].tag, t[i].value);
		p = exec_with(-1, -1);
		assert_int_equal(roux_process_wait(p, -1, &how, &error), -EIO);
		assert_string_equal(error.message, "the guest's agent does not keep to its protocol");
		roux_process_destroy(p);
		(void)teardown(state);
		assert_int_equal(setup(state), 0);
	}
}

static int failed_exec(struct roux_error *error)
{
	static const char *const argv[] = { "nothing", NULL };
	const struct roux_exec_options o = { .size = sizeof(o), .argv = argv, .stdin_fd = -1, .stdout_fd = -1,
					     .stderr_fd = -1 };
	struct roux_process *p;
	int r = roux_exec(&machine, &o, &p, error);

	assert_null(p);
	return r;
}

static void test_a_failed_exec_gives_the_agents_reason(void **state)
{
	struct roux_error error = { 0 };

	say_hello(AGENT_MAGIC, AGENT_VERSION, AGENT_VERSION_MIN, 0);
	say_u32(AGENT_ERROR, AGENT_TAG_ERRNO, ENOEXEC);
	connect_agent();
	assert_int_equal(failed_exec(&error), -ENOEXEC);
	(void)teardown(state);
	assert_int_equal(setup(state), 0);
	say_hello(AGENT_MAGIC, AGENT_VERSION, AGENT_VERSION_MIN, 0);
	(void)shutdown(agent, SHUT_WR);
	connect_agent();
	assert_int_equal(failed_exec(&error), -EPIPE);
	assert_string_equal(error.message, "the guest hung up");
	assert_int_equal(control_send(vmm, CONTROL_CONNECTED, 2, -ECONNREFUSED, NULL, 0, -1), 0);
	assert_int_equal(failed_exec(&error), -ECONNREFUSED);
	assert_string_equal(error.message, "cannot reach the guest: Connection refused");
}

/* The first connection carries the agent's complaint about a failed boot, and nothing else. */
static void test_a_failed_boot_is_told_on_the_first_connection(void **state)
{
	struct roux_error error = { 0 };

	say_hello(AGENT_MAGIC, AGENT_VERSION, AGENT_VERSION_MIN, 0);
	say_u32(AGENT_ERROR, AGENT_TAG_ERRNO, ENODEV);
	machine.ready_fd = host;
	host = -1;
	assert_int_equal(failed_exec(&error), -ENODEV);
	assert_int_equal(machine.ready_fd, -1);
	(void)teardown(state);
	assert_int_equal(setup(state), 0);
	say_hello_and_started();	/* to a command nobody sent */
	machine.ready_fd = host;
	host = -1;
	assert_int_equal(failed_exec(&error), -EPROTO);
}

static void test_input_keeps_to_the_window(void **state)
{
	int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	struct roux_process *p;
	struct roux_exit how;
	uint32_t got = 0;

	say_hello_and_started();
	p = exec_with(zero, -1);
	(void)hear(AGENT_HELLO);
	(void)hear(AGENT_EXEC);
	for (int i = 0; i < 2; i++) {	/* the whole window, and again after it was given back */
		while (got < AGENT_STDIN_WINDOW) {	/* the host waits while much of it lies in the socket */
			assert_int_equal(roux_process_wait(p, 20, &how, NULL), -ETIMEDOUT);
			got += hear(AGENT_STDIN);
		}
		assert_int_equal(got, AGENT_STDIN_WINDOW);
		assert_int_equal(roux_process_wait(p, 20, &how, NULL), -ETIMEDOUT);
		assert_int_equal(recv(agent, &got, 1, MSG_DONTWAIT), -1);
		say_u32(AGENT_CREDIT, AGENT_TAG_CREDIT_BYTES, AGENT_STDIN_WINDOW);
		got = 0;
	}
	roux_process_destroy(p);
	(void)close(zero);
}

/* A guest that gives credit and takes nothing must not keep the caller from its other business. */
static void test_a_guest_that_does_not_read_blocks_nobody(void **state)
{
	int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC), room = 32768;	/* less than the window */
	struct roux_process *p;
	struct roux_exit how;

	assert_int_equal(setsockopt(host, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room)), 0);
	say_hello_and_started();
	p = exec_with(zero, -1);
	for (int i = 0; i < 200; i++) {
		assert_int_equal(roux_process_wait(p, 1, &how, NULL), -ETIMEDOUT);
		say_u32(AGENT_CREDIT, AGENT_TAG_CREDIT_BYTES, 0);
		if (i == 20)	/* what was sent so far is less than the window */
			say_u32(AGENT_CREDIT, AGENT_TAG_CREDIT_BYTES, 8192);
	}
	roux_machine_interrupt(&machine);
	assert_int_equal(roux_process_wait(p, -1, &how, NULL), -EINTR);
	assert_int_equal(roux_process_signal(p, SIGTERM), 0);
	roux_process_destroy(p);
	(void)close(zero);
}

static void add_up(void *ctx, const char *name, uint64_t value)
{
	*(uint64_t *)ctx += value;
}

/* Nobody waits for the first two any more when they come. */
static void test_late_answers_are_nobodys(void **state)
{
	struct err err = { 0 };
	uint64_t sum = 0;

	assert_int_equal(machine_ask(&machine, CONTROL_KEEP, 0, -1, 1, &err), -ETIMEDOUT);
	assert_int_equal(machine_ask(&machine, CONTROL_COUNT, 0, -1, 1, &err), -ETIMEDOUT);
	assert_int_equal(control_send(vmm, CONTROL_KEPT, 7, 1, NULL, 0, -1), 0);
	assert_int_equal(control_send(vmm, CONTROL_COUNTERS, 0, 2, "x 40\n", 5, -1), 0);
	assert_int_equal(control_send(vmm, CONTROL_COUNTERS, 0, 3, "x 1\ny 2\n", 8, -1), 0);
	assert_int_equal(roux_machine_counters(&machine, add_up, &sum, NULL), 0);
	assert_int_equal(sum, 3);
	assert_int_equal(control_send(vmm, CONTROL_SAVED, 9, 0, NULL, 0, -1), 0);	/* that nobody has asked for */
	assert_int_equal(control_send(vmm, CONTROL_KEPT, 5, 4, NULL, 0, -1), 0);
	assert_int_equal(machine_ask(&machine, CONTROL_KEEP, 0, -1, 1000, &err), 0);
	assert_int_equal(machine.answer.value, 5);
	free(machine.counters);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_late_answers_are_nobodys),
		T(test_frames_come_whole_however_they_are_cut),
		T(test_the_largest_frame_fits_and_a_larger_one_is_refused),
		T(test_waiting_ends_in_time_by_a_wake_or_at_the_end),
		T(test_hello_needs_the_magic_and_a_common_version),
		T(test_errors_of_the_agent_become_reports),
		T(test_output_and_status_arrive),
		T(test_a_killed_process_says_by_what),
		T(test_what_breaks_the_protocol_ends_the_session),
		T(test_a_failed_exec_gives_the_agents_reason),
		T(test_a_failed_boot_is_told_on_the_first_connection),
		T(test_input_keeps_to_the_window),
		T(test_a_guest_that_does_not_read_blocks_nobody),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
