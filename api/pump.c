/* SPDX-License-Identifier: Apache-2.0 */
#include "api/pump.h"

#include "abi/agent.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

void pump_init(struct pump *p, const struct session *session)
{
	*p = (struct pump){ .session = *session, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1, .out_fd = -1,
			    .window = AGENT_STDIN_WINDOW };
}

void pump_finish(struct pump *p)
{
	session_close(&p->session);
}

bool pump_done(const struct pump *p)
{
	return p->exited && !p->out_left;
}

/* What a pipe that polls as writable surely takes, so that no write blocks (pipe(7)). */
#define WRITE_MAX PIPE_BUF

static void put_out(struct pump *p, int fd, const struct frame *f)
{
	p->out = f->data;
	p->out_left = fd >= 0 ? f->len : 0;
	p->out_fd = fd;
}

/* Output to a descriptor of the caller; one that is gone swallows it. */
static void write_out(struct pump *p)
{
	ssize_t n = write(p->out_fd, p->out, p->out_left < WRITE_MAX ? p->out_left : WRITE_MAX);

	if (n < 0 && errno != EAGAIN && errno != EINTR)
		p->out_left = 0;
	if (n > 0) {
		p->out += n;
		p->out_left -= (size_t)n;
	}
}

/* No more than the window as a whole, whatever the guest says. */
static int on_credit(struct pump *p, uint32_t bytes)
{
	if (bytes > AGENT_STDIN_WINDOW - p->window)
		return -EPROTO;
	p->window += bytes;
	return 0;
}

/* 0, or -EPROTO when the agent does not keep to abi/agent.h. */
static int on_frame(struct pump *p, const struct frame *f)
{
	switch (f->type) {
	case AGENT_STDOUT:
		put_out(p, p->stdout_fd, f);
		return 0;
	case AGENT_STDERR:
		put_out(p, p->stderr_fd, f);
		p->in_line = f->len && f->data[f->len - 1] != '\n';
		return 0;
	case AGENT_CREDIT:
		return on_credit(p, session_u32(f, AGENT_TAG_CREDIT_BYTES));
	case AGENT_EXITED:
		p->exited = session_exited(f, &p->signal, &p->status) == 0;
		return p->exited ? 0 : -EPROTO;
	default:
		return p->other ? p->other(p->ctx, f) : -EPROTO;
	}
}

/* A stream that polls as writable has most of its buffer free (unix(7) sockets): no send blocks. */
static bool is_writable(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLOUT };

	return poll(&p, 1, 0) == 1;
}

static int send_input(struct pump *p)
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
	if (p->filter)
		n = p->filter(p->ctx, buf, (size_t)n);
	if (n <= 0)
		return (int)n;
	p->window -= (uint32_t)n;
	return session_send(&p->session, AGENT_STDIN, buf, (size_t)n);
}

enum { POLL_SESSION, POLL_STDIN, POLL_OUTPUT, POLL_ROOM, POLLS };

int pump_step(struct pump *p, struct pollfd *extra, unsigned nextra, int timeout_ms)
{
	struct pollfd fds[POLLS + PUMP_EXTRA_MAX] = {
		[POLL_SESSION] = { .fd = p->out_left ? -1 : p->session.fd, .events = POLLIN },
		[POLL_STDIN] = { .fd = p->window && !p->congested ? p->stdin_fd : -1, .events = POLLIN },
		[POLL_OUTPUT] = { .fd = p->out_left ? p->out_fd : -1, .events = POLLOUT },
		[POLL_ROOM] = { .fd = p->congested ? p->session.fd : -1, .events = POLLOUT },
	};
	struct frame f;
	int r = p->out_left ? 0 : session_next(&p->session, &f);

	for (unsigned i = 0; i < nextra; i++)
		extra[i].revents = 0;
	if (r)
		return r < 0 ? r : on_frame(p, &f);
	memcpy(fds + POLLS, extra, nextra * sizeof(*extra));
	if (poll(fds, POLLS + nextra, timeout_ms) < 0)
		return errno == EINTR ? 0 : -errno;
	memcpy(extra, fds + POLLS, nextra * sizeof(*extra));
	if (fds[POLL_OUTPUT].revents)
		write_out(p);
	if (fds[POLL_ROOM].revents)
		p->congested = false;
	if (fds[POLL_STDIN].revents) {
		r = send_input(p);
		if (r == -EINTR || r == -ECANCELED)	/* the filter wants out */
			return r;
		if (r < 0 && r != -EPIPE)
			p->stdin_fd = -1;	/* unreadable input is as good as its end */
	}
	return fds[POLL_SESSION].revents ? session_fill(&p->session) : 0;
}

int pump_signal(struct pump *p, int signo)
{
	uint8_t buf[32];
	struct frame_writer w;

	frame_begin(&w, buf, sizeof(buf), AGENT_SIGNAL);
	field_put_u32(&w, AGENT_TAG_SIGNO, (uint32_t)signo);
	return session_send_frame(&p->session, buf, frame_end(&w));
}

int pump_resize(struct pump *p, uint16_t rows, uint16_t cols)
{
	uint8_t buf[64];
	struct frame_writer w;

	frame_begin(&w, buf, sizeof(buf), AGENT_RESIZE);
	field_put_u32(&w, AGENT_TAG_ROWS, rows);
	field_put_u32(&w, AGENT_TAG_COLS, cols);
	return session_send_frame(&p->session, buf, frame_end(&w));
}
