/* SPDX-License-Identifier: Apache-2.0 */
#include "life/call.h"

#include "abi/agent.h"
#include "api/handle.h"
#include "os/loop.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define IN_MAX (2u * (AGENT_DATA_MAX + FRAME_HEADER)) /* bytes of answer: a list of processes */

struct call {
	struct monitor *m;
	call_fn fn;	/* NULL: cancelled */
	void *ctx;
	struct stream stream;	/* fd -1 while it is being connected */
	struct loop_source *timer;
	bool connecting;
	size_t parsed;	/* bytes of in that are frames of the answer */
	uint8_t *request;	/* owned */
	size_t len;
};

static void free_call(void *ctx)
{
	struct call *c = ctx;

	stream_close(&c->stream);
	loop_remove(c->timer);
	free(c->request);
	free(c);
}

/* The stream's own callbacks may be on the stack: the loop frees it. */
static void end(struct call *c)
{
	c->fn = NULL;
	(void)loop_set_timer(c->timer, 0, 0);
	if (c->connecting)
		return;	/* freed when the connection comes */
	if (c->stream.fd >= 0) {
		stream_pause(&c->stream, true);
		c->stream.ended = true;
	}
	(void)loop_post(c->m->loop, free_call, c);
}

static void finish(struct call *c, bool answered)
{
	call_fn fn = c->fn;

	if (!fn)
		return;
	c->fn = NULL;
	fn(c->ctx, answered ? c->stream.in : NULL, answered ? c->parsed : 0);
	end(c);
}

/* Moves over the frames that are there.  1 when the answer is complete, -1 when it is broken. */
static int take_frames(struct call *c)
{
	struct stream *s = &c->stream;
	struct frame f;
	int r;

	while ((r = frame_parse(s->in + c->parsed, s->in_len - c->parsed, AGENT_FRAME_MAX, &f)) == 1) {
		size_t size = FRAME_HEADER + f.len;

		if (f.type == AGENT_HELLO || f.type == AGENT_STDOUT || f.type == AGENT_STDERR || f.type == AGENT_CREDIT ||
		    f.type == AGENT_STARTED) {
			uint8_t *at = s->in + c->parsed;

			memmove(at, at + size, s->in_len - c->parsed - size);
			s->in_len -= size;
			continue;
		}
		c->parsed += size;
		if (f.type == AGENT_OK || f.type == AGENT_ERROR || f.type == AGENT_STATS_REPLY || f.type == AGENT_EXITED)
			return 1;
	}
	return r < 0 || s->in_len == s->in_max ? -1 : 0;
}

static void on_data(void *ctx)
{
	struct call *c = ctx;
	int r = c->fn ? take_frames(c) : 0;

	if (r)
		finish(c, r > 0);
}

static void on_closed(void *ctx)
{
	finish(ctx, false);
}

static void on_timeout(void *ctx)
{
	struct call *c = ctx;
	struct frame_writer w;
	uint8_t buf[32];

	/* It may be a command that hangs: its end is asked for, and hanging up is a second reason. */
	if (c->stream.fd >= 0) {
		frame_begin(&w, buf, sizeof(buf), AGENT_SIGNAL);
		field_put_u32(&w, AGENT_TAG_SIGNO, SIGKILL);
		(void)stream_write(&c->stream, buf, frame_end(&w));
	}
	finish(c, false);
}

static void on_connected(void *ctx, int result, int fd)
{
	static const struct stream_ops ops = { .on_data = on_data, .on_closed = on_closed };
	struct call *c = ctx;
	struct session session;

	c->connecting = false;
	if (!c->fn || result < 0 || session_open(&session, fd, NULL) < 0) {
		if (fd >= 0 && (result < 0 || !c->fn))
			(void)close(fd);
		if (c->fn)
			finish(c, false);
		else
			free_call(c);
		return;
	}
	if (stream_open(&c->stream, c->m->loop, session.fd, IN_MAX, &ops, c) < 0) {
		finish(c, false);
		return;
	}
	(void)stream_write(&c->stream, c->request, c->len);
}

struct call *call_begin(struct monitor *m, const uint8_t *request, size_t len, int64_t timeout_ms, call_fn fn, void *ctx)
{
	struct call *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	*c = (struct call){ .m = m, .fn = fn, .ctx = ctx, .stream.fd = -1, .request = malloc(len), .len = len };
	if (!c->request || loop_add_timer(m->loop, on_timeout, c, &c->timer, NULL) < 0 ||
	    machine_connect_agent(m->machine, on_connected, c) < 0) {
		free_call(c);
		return NULL;
	}
	memcpy(c->request, request, len);
	c->connecting = true;
	(void)loop_set_timer(c->timer, (uint64_t)timeout_ms * 1000000u, 0);
	return c;
}

void call_cancel(struct call *c)
{
	end(c);
}
