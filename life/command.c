/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Output goes to the log and to every client that wants it; while one of them has
 * CLIENT_QUEUE_MAX bytes to take, no more is read, so that the command waits as it
 * would for a pipe.  A client that takes nothing for CLIENT_SLOW_MS is dropped, unless
 * it started the VM: that one is somebody's pipeline.
 *
 * Input comes from all clients.  Each has the window of abi/agent.h, and gets credit
 * when its bytes are sent on, so all buffers are bounded and signals are never delayed.
 */
#include "life/inside.h"

#include "abi/agent.h"
#include "life/when.h"
#include "os/loop.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define AGENT_IN_MAX (4u * (AGENT_DATA_MAX + FRAME_HEADER))

/* ------------------------------------------------------------------- output */

static bool is_listener(const struct conn *c)
{
	return c->mode == CONN_ATTACHED && c->output;
}

void command_unblock(struct monitor *m)
{
	const uint64_t period_ns = CLIENT_SLOW_MS * 1000000ull / 4;
	bool held_up = false;

	for (struct conn *c = m->conns; c; c = c->next)
		held_up |= is_listener(c) && stream_queued(&c->stream) >= CLIENT_QUEUE_MAX;
	if (held_up == m->command.stream.paused)
		return;	/* asked after every piece of output: no system call then */
	stream_pause(&m->command.stream, held_up);
	(void)loop_set_timer(m->slow_timer, held_up ? period_ns : 0, period_ns);
}

static void take_output(struct monitor *m, uint8_t type, const struct frame *f)
{
	uint64_t dropped = m->output.dropped;

	output_write(&m->output, type == AGENT_STDOUT ? OUTPUT_STDOUT : OUTPUT_STDERR, when_now(), f->data, f->len);
	m->record.state.log_dropped += m->output.dropped - dropped;
	for (struct conn *c = m->conns; c; c = c->next)
		if (is_listener(c))
			(void)stream_frame(&c->stream, type, f->data, f->len);
	command_unblock(m);
}

/* -------------------------------------------------------------------- input */

static void send_credit(struct conn *c, uint32_t bytes)
{
	uint8_t buf[32];
	struct frame_writer w;

	frame_begin(&w, buf, sizeof(buf), AGENT_CREDIT);
	field_put_u32(&w, AGENT_TAG_CREDIT_BYTES, bytes);
	(void)stream_write(&c->stream, buf, frame_end(&w));
}

/* Sends on what @c has waiting, as far as the agent takes it. */
static void push_input(struct conn *c)
{
	struct command *cmd = &c->m->command;
	bool takes = c->m->record.config.open_stdin && !cmd->eof_sent;

	if (takes && cmd->stream.fd < 0)
		return;	/* it does not run yet */
	while (c->input_len && (!takes || cmd->window)) {
		size_t n = c->input_len < AGENT_DATA_MAX ? c->input_len : AGENT_DATA_MAX;

		if (takes && n > cmd->window)
			n = cmd->window;
		if (takes) {
			(void)stream_frame(&cmd->stream, AGENT_STDIN, c->input, n);
			cmd->window -= (uint32_t)n;
		}
		memmove(c->input, c->input + n, c->input_len - n);
		c->input_len -= n;
		send_credit(c, (uint32_t)n);
	}
	if (takes && c->input_eof && !c->input_len && c->m->record.config.stdin_once) {
		(void)stream_frame(&cmd->stream, AGENT_STDIN_EOF, NULL, 0);
		cmd->eof_sent = true;
	}
}

static bool keep_input(struct conn *c, const struct frame *f)
{
	if (!c->input)
		c->input = malloc(AGENT_STDIN_WINDOW);
	if (!c->input || c->input_eof || f->len > AGENT_STDIN_WINDOW - c->input_len)
		return false;
	memcpy(c->input + c->input_len, f->data, f->len);
	c->input_len += f->len;
	push_input(c);
	return true;
}

static void client_signal(struct conn *c, uint32_t signo)
{
	struct monitor *m = c->m;

	if (signo == 0 || signo >= NSIG)
		return;
	if (m->command.stream.fd < 0 && c->creator)
		monitor_call_off(m, 128 + (int)signo);	/* Ctrl-C before anything runs */
	else
		(void)command_signal(m, signo == SIGTERM ? monitor_stop_signal(m) : (int)signo);
}

bool command_client_frame(struct conn *c, const struct frame *f)
{
	switch (f->type) {
	case AGENT_STDIN:
		return keep_input(c, f);
	case AGENT_STDIN_EOF:
		c->input_eof = true;
		push_input(c);
		return true;
	case AGENT_SIGNAL:
		client_signal(c, session_u32(f, AGENT_TAG_SIGNO));
		return true;
	case AGENT_RESIZE:
		command_resize(c->m, (uint16_t)session_u32(f, AGENT_TAG_ROWS), (uint16_t)session_u32(f, AGENT_TAG_COLS));
		return true;
	case LIFE_DETACH:
		c->detached = true;
		conn_finish(c);
		return true;
	default:
		return false;
	}
}

void command_client_gone(struct conn *c)
{
	struct monitor *m = c->m;

	if (c->creator && !c->detached && m->record.config.stdin_once && m->command.stream.fd >= 0) {
		c->input_eof = true;	/* its input ends with it */
		push_input(c);
	}
	if (c->creator && m->starter && !m->machine)
		monitor_call_off(m, 0);
	command_unblock(m);
}

/* --------------------------------------------------------------- the session */

int command_signal(struct monitor *m, int signo)
{
	uint8_t buf[32];
	struct frame_writer w;

	if (m->command.stream.fd < 0)
		return -ESRCH;
	frame_begin(&w, buf, sizeof(buf), AGENT_SIGNAL);
	field_put_u32(&w, AGENT_TAG_SIGNO, (uint32_t)signo);
	return stream_write(&m->command.stream, buf, frame_end(&w));
}

void command_resize(struct monitor *m, uint16_t rows, uint16_t cols)
{
	uint8_t buf[64];
	struct frame_writer w;

	if (m->command.stream.fd < 0 || !rows || !cols)
		return;
	frame_begin(&w, buf, sizeof(buf), AGENT_RESIZE);
	field_put_u32(&w, AGENT_TAG_ROWS, rows);
	field_put_u32(&w, AGENT_TAG_COLS, cols);
	(void)stream_write(&m->command.stream, buf, frame_end(&w));
}

/* False when the command or its session is over. */
static bool on_frame(struct monitor *m, const struct frame *f)
{
	int signo, status;
	uint32_t credit;

	switch (f->type) {
	case AGENT_STDOUT:
	case AGENT_STDERR:
		take_output(m, f->type, f);
		return true;
	case AGENT_CREDIT:
		credit = session_u32(f, AGENT_TAG_CREDIT_BYTES);
		if (credit > AGENT_STDIN_WINDOW - m->command.window)
			break;
		m->command.window += credit;
		for (struct conn *c = m->conns; c; c = c->next)
			if (c->mode == CONN_ATTACHED)
				push_input(c);
		return true;
	case AGENT_EXITED:
		if (session_exited(f, &signo, &status) < 0)
			break;
		monitor_exited(m, status);
		return false;
	default:
		break;
	}
	monitor_failed(m, STATUS_FAILED, "the guest's agent does not keep to its protocol");
	return false;
}

static void on_data(void *ctx)
{
	struct monitor *m = ctx;
	struct stream *s = &m->command.stream;
	size_t at = 0;
	struct frame f;
	int r;

	while ((r = frame_parse(s->in + at, s->in_len - at, AGENT_FRAME_MAX, &f)) == 1) {
		at += FRAME_HEADER + f.len;
		if (!on_frame(m, &f))
			return;
	}
	stream_take(s, at);
	if (r < 0 || s->in_len == s->in_max)
		monitor_failed(m, STATUS_FAILED, "the guest's agent does not keep to its protocol");
}

static void on_closed(void *ctx)
{
	struct monitor *m = ctx;

	monitor_failed(m, STATUS_FAILED, NULL);
}

int command_begin(struct monitor *m, struct session *session, const struct session_notes *notes)
{
	static const struct stream_ops ops = { .on_data = on_data, .on_closed = on_closed };
	struct command *c = &m->command;
	size_t left = session->in_len - session->taken;
	int fd = session->fd, r;

	session->fd = -1;
	*c = (struct command){ .window = notes ? notes->window : AGENT_STDIN_WINDOW, .eof_sent = notes && notes->eof_sent };
	memcpy(c->name, session->stream, sizeof(c->name));
	r = stream_open(&c->stream, m->loop, fd, AGENT_IN_MAX + session->in_cap + (notes ? notes->in_len : 0), &ops, m);
	if (r < 0)
		return r;
	/* What came behind STARTED is in the session's buffer already. */
	if (left)
		memcpy(c->stream.in, session->in + session->taken, left);
	if (notes) {
		memcpy(c->stream.in, notes->in, notes->in_len);
		left = notes->in_len;
		r = stream_write(&c->stream, notes->out, notes->out_len);
		if (r < 0)
			return r;
	}
	c->stream.in_len = left;
	for (struct conn *client = m->conns; client; client = client->next)
		if (client->mode == CONN_ATTACHED) {
			command_greet(client);
			push_input(client);
		}
	if (left)
		on_data(m);
	return 0;
}

void command_end(struct monitor *m)
{
	stream_close(&m->command.stream);
	(void)loop_set_timer(m->slow_timer, 0, 0);
}

void command_greet(struct conn *c)
{
	uint8_t buf[32];
	struct frame_writer w;

	if (c->m->command.stream.fd < 0)
		return;
	frame_begin(&w, buf, sizeof(buf), AGENT_STARTED);
	field_put_u32(&w, AGENT_TAG_PID, 0);
	(void)stream_write(&c->stream, buf, frame_end(&w));
}
