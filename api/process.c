/* SPDX-License-Identifier: Apache-2.0 */
/* A process in a guest: starts it and moves its streams. */
#include "api/handle.h"

#include "abi/agent.h"
#include "oci/image.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct roux_process {
	struct roux_machine *machine;	/* borrowed */
	struct session session;
	int stdin_fd, stdout_fd, stderr_fd;	/* borrowed; stdin_fd -1 after its end */
	uint32_t window;	/* bytes of input the agent still takes */
	bool congested;	/* the agent's stream is full: input waits */
	/* Output not yet written: inside the session's buffer, so nothing is received before it is gone. */
	const uint8_t *out;
	size_t out_left;
	int out_fd;
	bool exited;
	struct roux_exit exit;
};

/* ----------------------------------------------------------------- starting */

static unsigned count(char *const *list)
{
	unsigned n = 0;

	while (list && list[n])
		n++;
	return n;
}

static void put_args(struct frame_writer *w, char *const *list)
{
	for (unsigned i = 0; i < count(list); i++)
		field_put_str(w, AGENT_TAG_ARG, list[i]);
}

/* Entrypoint, then the caller's words or else the image's (OCI run-time rules). */
static int put_command(struct frame_writer *w, const struct oci_config *config, const struct roux_exec_options *o,
		       struct err *err)
{
	char *const *argv = (char *const *)(uintptr_t)o->argv;
	bool image_words = count(argv) == 0;
	size_t before = w->len;

	if (config && (image_words || o->use_entrypoint))
		put_args(w, config->entrypoint);
	if (!image_words)
		put_args(w, argv);
	else if (config)
		put_args(w, config->cmd);
	if (w->len == before)
		return err_set(err, -EINVAL, "no command given, and the image names none");
	return 0;
}

static const char *first_of(const char *a, const char *b)
{
	return a && *a ? a : b && *b ? b : NULL;
}

static int send_exec(struct roux_process *p, const struct roux_exec_options *o, struct err *err)
{
	const struct oci_config *config = p->machine->config;
	const char *cwd = first_of(o->cwd, config ? config->working_dir : NULL);
	const char *user = first_of(o->user, config ? config->user : NULL);
	uint8_t *buf = malloc(AGENT_FRAME_MAX + FRAME_HEADER);
	struct frame_writer w;
	size_t len;
	int r;

	if (!buf)
		return err_set(err, -ENOMEM, "out of memory");
	frame_begin(&w, buf, AGENT_FRAME_MAX + FRAME_HEADER, AGENT_EXEC);
	r = put_command(&w, config, o, err);
	for (unsigned i = 0; config && i < count(config->env); i++)
		field_put_str(&w, AGENT_TAG_ENV, config->env[i]);
	for (unsigned i = 0; o->env && o->env[i]; i++)
		field_put_str(&w, AGENT_TAG_ENV, o->env[i]);
	if (cwd)
		field_put_str(&w, AGENT_TAG_CWD, cwd);
	if (user)
		field_put_str(&w, AGENT_TAG_USER, user);
	if (o->tty) {
		field_put_u32(&w, AGENT_TAG_TTY, 1);
		field_put_u32(&w, AGENT_TAG_ROWS, o->rows ? o->rows : 24);
		field_put_u32(&w, AGENT_TAG_COLS, o->cols ? o->cols : 80);
	}
	field_put_u32(&w, AGENT_TAG_STDIN, o->stdin_fd >= 0);
	field_put_u32(&w, AGENT_TAG_PRIMARY, o->primary);
	len = frame_end(&w);
	if (r == 0 && len == 0)
		r = err_set(err, -E2BIG, "command and environment are longer than 1 MiB");
	if (r == 0) {
		r = session_send_frame(&p->session, buf, len);
		if (r < 0)
			(void)err_set(err, r, "the guest hung up");
	}
	free(buf);
	return r;
}

static int wait_started(struct roux_process *p, struct err *err)
{
	struct frame f;

	for (;;) {
		int r = session_wait(&p->session, UINT64_MAX, p->machine->wake_fd, &f);

		if (r == -EINTR)
			return r;
		if (r < 0) {
			(void)machine_events(p->machine, 100);
			return err_set(err, r, "%s", p->machine->reason[0] ? p->machine->reason : "the guest hung up");
		}
		if (f.type == AGENT_STARTED)
			return 0;
		if (f.type == AGENT_ERROR)
			return session_error(&f, err);
	}
}

int roux_exec(struct roux_machine *machine, const struct roux_exec_options *options,
	      struct roux_process **ret_process, struct roux_error *error)
{
	struct roux_exec_options o = { .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1 };
	struct roux_process *p = calloc(1, sizeof(*p));
	struct err err = { 0 };
	int r;

	*ret_process = NULL;
	if (!p)
		return give_error(error, &err, -ENOMEM);
	memcpy(&o, options, options->size < sizeof(o) ? options->size : sizeof(o));
	*p = (struct roux_process){ .machine = machine, .session.fd = -1, .stdin_fd = o.stdin_fd,
				    .stdout_fd = o.stdout_fd, .stderr_fd = o.stderr_fd,
				    .window = AGENT_STDIN_WINDOW };
	r = machine_session(machine, &p->session, &err);
	if (r == 0)
		r = send_exec(p, &o, &err);
	if (r == 0)
		r = wait_started(p, &err);
	if (r < 0) {
		roux_process_destroy(p);
		return give_error(error, &err, r);
	}
	*ret_process = p;
	return 0;
}

/* ------------------------------------------------------------------ streams */

/* What a pipe that polls as writable surely takes, so that no write blocks (pipe(7)). */
#define WRITE_MAX PIPE_BUF

static void put_out(struct roux_process *p, int fd, const struct frame *f)
{
	p->out = f->data;
	p->out_left = fd >= 0 ? f->len : 0;
	p->out_fd = fd;
}

/* Output to a descriptor of the caller; one that is gone swallows it. */
static void write_out(struct roux_process *p)
{
	ssize_t n = write(p->out_fd, p->out, p->out_left < WRITE_MAX ? p->out_left : WRITE_MAX);

	if (n < 0 && errno != EAGAIN && errno != EINTR)
		p->out_left = 0;
	if (n > 0) {
		p->out += n;
		p->out_left -= (size_t)n;
	}
}

static uint32_t only_u32(const struct frame *f, uint16_t tag)
{
	struct field_reader fr = { f->data, f->len };
	struct field field;
	uint32_t v = 0;

	while (field_next(&fr, &field) == 1)
		if (field.tag == tag)
			(void)field_u32(&field, &v);
	return v;
}

static int on_exited(struct roux_process *p, const struct frame *f)
{
	uint32_t signo = only_u32(f, AGENT_TAG_SIGNO), status = only_u32(f, AGENT_TAG_STATUS);

	if (signo >= NSIG || status > 255)
		return -EPROTO;
	p->exit.signal = (int)signo;
	p->exit.status = signo ? 128 + (int)signo : (int)status;
	p->exited = true;
	return 0;
}

/* No more than the window as a whole, whatever the guest says. */
static int on_credit(struct roux_process *p, uint32_t bytes)
{
	if (bytes > AGENT_STDIN_WINDOW - p->window)
		return -EPROTO;
	p->window += bytes;
	return 0;
}

/* 0, or -EPROTO when the agent does not keep to abi/agent.h. */
static int on_frame(struct roux_process *p, const struct frame *f)
{
	switch (f->type) {
	case AGENT_STDOUT:
		put_out(p, p->stdout_fd, f);
		return 0;
	case AGENT_STDERR:
		put_out(p, p->stderr_fd, f);
		return 0;
	case AGENT_CREDIT:
		return on_credit(p, only_u32(f, AGENT_TAG_CREDIT_BYTES));
	case AGENT_EXITED:
		return on_exited(p, f);
	default:
		return -EPROTO;
	}
}

/* A stream that polls as writable has most of its buffer free (unix(7) sockets): no send blocks. */
static bool is_writable(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLOUT };

	return poll(&p, 1, 0) == 1;
}

static int send_input(struct roux_process *p)
{
	uint8_t buf[16384];
	size_t want = p->window < sizeof(buf) ? p->window : sizeof(buf);
	ssize_t n;

	p->congested = !is_writable(p->session.fd);
	if (p->congested)
		return 0;
	n = read(p->stdin_fd, buf, want);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	if (n == 0) {
		p->stdin_fd = -1;
		return session_send(&p->session, AGENT_STDIN_EOF, NULL, 0);
	}
	p->window -= (uint32_t)n;
	return session_send(&p->session, AGENT_STDIN, buf, (size_t)n);
}

enum { POLL_SESSION, POLL_STDIN, POLL_MACHINE, POLL_WAKE, POLL_OUTPUT, POLL_ROOM, POLLS };

/* Waits once and moves what can be moved.  0, -EINTR, -EPIPE at the end of the stream, ... */
static int step(struct roux_process *p, int timeout_ms)
{
	struct pollfd fds[POLLS] = {
		[POLL_SESSION] = { .fd = p->out_left ? -1 : p->session.fd, .events = POLLIN },
		[POLL_STDIN] = { .fd = p->window && !p->congested ? p->stdin_fd : -1, .events = POLLIN },
		[POLL_MACHINE] = { .fd = p->machine->sock, .events = POLLIN },
		[POLL_WAKE] = { .fd = p->machine->wake_fd, .events = POLLIN },
		[POLL_OUTPUT] = { .fd = p->out_left ? p->out_fd : -1, .events = POLLOUT },
		[POLL_ROOM] = { .fd = p->congested ? p->session.fd : -1, .events = POLLOUT },
	};
	struct frame f;
	uint64_t times;
	int r = p->out_left ? 0 : session_next(&p->session, &f);

	if (r)
		return r < 0 ? r : on_frame(p, &f);
	if (poll(fds, POLLS, timeout_ms) < 0)
		return errno == EINTR ? 0 : -errno;
	if (fds[POLL_WAKE].revents && read(p->machine->wake_fd, &times, sizeof(times)) > 0)
		return -EINTR;
	if (fds[POLL_MACHINE].revents)
		(void)machine_events(p->machine, 0);
	if (fds[POLL_OUTPUT].revents)
		write_out(p);
	if (fds[POLL_ROOM].revents)
		p->congested = false;
	if (fds[POLL_STDIN].revents) {
		r = send_input(p);
		if (r < 0 && r != -EPIPE)
			p->stdin_fd = -1;	/* unreadable input is as good as its end */
	}
	return fds[POLL_SESSION].revents ? session_fill(&p->session) : 0;
}

int roux_process_wait(struct roux_process *p, int timeout_ms, struct roux_exit *ret_exit, struct roux_error *error)
{
	uint64_t deadline = timeout_ms < 0 ? UINT64_MAX : monotonic_ns() + (uint64_t)timeout_ms * 1000000u;
	struct err err = { 0 };

	while (!p->exited || p->out_left) {
		uint64_t now = monotonic_ns();
		int r, left = -1;

		if (timeout_ms >= 0 && now >= deadline)
			return give_error(error, &err, -ETIMEDOUT);
		if (timeout_ms >= 0)
			left = (int)((deadline - now) / 1000000 + 1);
		r = step(p, left);
		if (r == -EINTR)
			return give_error(error, &err, -EINTR);
		if (r < 0 && !p->exited) {
			(void)machine_events(p->machine, 200);
			(void)err_set(&err, -EIO, "%s", p->machine->reason[0] ? p->machine->reason :
				      r == -EPROTO ? "the guest's agent does not keep to its protocol" :
				      "the machine ended before the process did");
			return give_error(error, &err, -EIO);
		}
	}
	*ret_exit = p->exit;
	return 0;
}

int roux_process_signal(struct roux_process *p, int signo)
{
	uint8_t buf[32];
	struct frame_writer w;

	frame_begin(&w, buf, sizeof(buf), AGENT_SIGNAL);
	field_put_u32(&w, AGENT_TAG_SIGNO, (uint32_t)signo);
	return session_send_frame(&p->session, buf, frame_end(&w));
}

int roux_process_resize(struct roux_process *p, uint16_t rows, uint16_t cols)
{
	uint8_t buf[64];
	struct frame_writer w;

	frame_begin(&w, buf, sizeof(buf), AGENT_RESIZE);
	field_put_u32(&w, AGENT_TAG_ROWS, rows);
	field_put_u32(&w, AGENT_TAG_COLS, cols);
	return session_send_frame(&p->session, buf, frame_end(&w));
}

void roux_process_destroy(struct roux_process *p)
{
	if (!p)
		return;
	session_close(&p->session);
	free(p);
}
