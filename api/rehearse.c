/* SPDX-License-Identifier: Apache-2.0 */
/* What every machine of a template will do is done in the template first: sessions with its agent that end before it is saved. */
#include "api/handle.h"

#include "abi/agent.h"

#include <errno.h>
#include <signal.h>
#include <sys/socket.h>

#define PROGRAM_TIMEOUT_MS 2000u	/* an image's own /bin/sh may be anything */

int machine_begin_session(struct roux_machine *m, struct session *ret_session, uint64_t deadline, struct err *err)
{
	int fd = machine_open_stream(m, deadline, err), r;

	*ret_session = (struct session){ .fd = -1 };
	r = fd < 0 ? fd : session_open(ret_session, fd, err);
	if (r == 0)
		r = session_hello(ret_session, deadline, m->wake_fd, err);
	return r;
}

int machine_end_session(struct roux_machine *m, struct session *s, uint64_t deadline, int result)
{
	struct frame f;
	int r;

	if (s->fd < 0)
		return result;
	(void)shutdown(s->fd, SHUT_WR);
	do
		r = session_wait(s, deadline, m->wake_fd, &f);
	while (r == 0);
	session_close(s);
	return result >= 0 && (r == -ETIMEDOUT || r == -EINTR) ? r : result;
}

/* Which every guest has. */
static const char *const own_program[] = { AGENT_SELF, AGENT_SELF_REHEARSE, NULL };

/* A session in which the guest runs @argv, which @reads its standard input, under an identity that changes nothing. */
static int begin_program(struct roux_machine *m, struct session *ret_session, const char *const argv[], bool reads, uint64_t deadline,
			 struct err *err)
{
	uint8_t buf[256];
	struct frame_writer w;
	int r = machine_begin_session(m, ret_session, deadline, err);

	if (r < 0)
		return r;
	frame_begin(&w, buf, sizeof(buf), AGENT_IDENTITY);
	r = session_send_frame(ret_session, buf, frame_end(&w));
	frame_begin(&w, buf, sizeof(buf), AGENT_EXEC);
	for (unsigned i = 0; argv[i]; i++)
		field_put_str(&w, AGENT_TAG_ARG, argv[i]);
	if (reads)
		field_put_u32(&w, AGENT_TAG_STDIN, 1);
	return r < 0 ? r : session_send_frame(ret_session, buf, frame_end(&w));
}

/* Until the agent has answered with frame @type: 0; or with an error: 1. */
static int wait_for(struct roux_machine *m, struct session *s, uint8_t type, uint64_t deadline)
{
	struct frame f;
	int r;

	do
		r = session_wait(s, deadline, m->wake_fd, &f);
	while (r == 0 && f.type != type && f.type != AGENT_ERROR);
	return r < 0 ? r : f.type != type;
}

/* Until the command has ended: 0; or 1 when it did not begin, or took too long and was killed. */
static int wait_for_program(struct roux_machine *m, struct session *s, uint64_t deadline)
{
	uint8_t buf[64];
	struct frame_writer w;
	int r = wait_for(m, s, AGENT_EXITED, monotonic_ns() + PROGRAM_TIMEOUT_MS * 1000000ull);

	if (r != -ETIMEDOUT)
		return r;
	frame_begin(&w, buf, sizeof(buf), AGENT_SIGNAL);
	field_put_u32(&w, AGENT_TAG_SIGNO, SIGKILL);
	r = session_send_frame(s, buf, frame_end(&w));
	if (r == 0)
		r = wait_for(m, s, AGENT_EXITED, deadline);
	return r < 0 ? r : 1;
}

/* 0; 1 when it did not begin, or took too long; or a negative errno. */
static int run_program(struct roux_machine *m, const char *const argv[], uint64_t deadline, struct err *err)
{
	struct session s;
	int r = begin_program(m, &s, argv, false, deadline, err);

	if (r == 0)
		r = wait_for_program(m, &s, deadline);
	return machine_end_session(m, &s, deadline, r);
}

int machine_warm_up(struct roux_machine *m, unsigned times, uint64_t deadline, struct err *err)
{
	static const char *const shell[] = { "/bin/sh", "-c", "/bin/true; :", NULL };
	const char *const *argv = shell;
	int r = 0;

	for (unsigned i = 0; i < times && r == 0; i++) {
		r = run_program(m, argv, deadline, err);
		if (r == 1 && argv == shell) {	/* the image has none, or an unusual one */
			argv = own_program;
			r = run_program(m, argv, deadline, err);
		}
	}
	return r < 0 ? r : 0;
}

static int request(struct roux_machine *m, struct session *s, uint8_t type, uint64_t deadline)
{
	int r = session_send(s, type, NULL, 0);

	return r < 0 ? r : wait_for(m, s, AGENT_OK, deadline);
}

static int stop_programs(struct roux_machine *m, uint64_t deadline, struct err *err)
{
	struct session s;
	int r = machine_begin_session(m, &s, deadline, err);

	if (r == 0)
		r = request(m, &s, AGENT_FREEZE, deadline);
	if (r >= 0)
		r = request(m, &s, AGENT_THAW, deadline);
	return machine_end_session(m, &s, deadline, r);
}

int machine_rehearse_stop(struct roux_machine *m, uint64_t deadline, struct err *err)
{
	struct session s;
	int r = begin_program(m, &s, own_program, true, deadline, err);

	if (r == 0)
		r = wait_for(m, &s, AGENT_STARTED, deadline);
	if (r == 0) {
		r = stop_programs(m, deadline, err);
		if (r >= 0)
			r = session_send(&s, AGENT_STDIN_EOF, NULL, 0);
		if (r == 0)
			r = wait_for_program(m, &s, deadline);
	}
	return machine_end_session(m, &s, deadline, r);
}
