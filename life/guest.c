/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sessions in the guest beside the command's.  A client's exec is a relay: the monitor
 * says HELLO and EXEC in its name, and from then on passes bytes both ways without
 * looking at them, so that the windows of abi/agent.h hold from end to end.
 */
#include "life/inside.h"

#include "abi/agent.h"
#include "api/handle.h"
#include "life/call.h"
#include "life/clock.h"
#include "life/health.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RELAY_IN_MAX (128u << 10)	/* bytes of the guest's output held */
#define RELAY_QUEUE_MAX (256u << 10)	/* bytes for the guest, beyond which it has to take some first */

struct relay {
	struct conn *conn;	/* NULL when the client has left before the connection came */
	struct stream stream;	/* to the agent; fd -1 while it is being connected */
	uint8_t *frame;	/* EXEC, until it is sent; owned */
	size_t len;
};

/* ------------------------------------------------------------------- relays */

static void free_relay(struct relay *r)
{
	stream_close(&r->stream);
	free(r->frame);
	free(r);
}

void relay_end(struct conn *c)
{
	struct relay *r = c->relay;

	c->relay = NULL;
	if (!r)
		return;
	if (r->stream.fd < 0)
		r->conn = NULL;	/* freed when the connection comes */
	else
		free_relay(r);
}

void guest_relay(struct conn *c)
{
	struct relay *r = c->relay;

	if (!r || r->stream.fd < 0)
		return;
	/* What is not taken here stays in a buffer that, once full, is not read into any more. */
	if (c->stream.in_len && stream_queued(&r->stream) < RELAY_QUEUE_MAX) {
		(void)stream_write(&r->stream, c->stream.in, c->stream.in_len);
		stream_take(&c->stream, c->stream.in_len);
	}
	if (r->stream.in_len && stream_queued(&c->stream) < CLIENT_QUEUE_MAX) {
		(void)stream_write(&c->stream, r->stream.in, r->stream.in_len);
		stream_take(&r->stream, r->stream.in_len);
	}
}

static void relay_moves(void *ctx)
{
	struct relay *r = ctx;

	guest_relay(r->conn);
}

static void relay_closed(void *ctx)
{
	struct relay *r = ctx;
	struct conn *c = r->conn;

	/* What is held goes out although the queue may be full: it is bounded. */
	if (r->stream.in_len)
		(void)stream_write(&c->stream, r->stream.in, r->stream.in_len);
	r->stream.in_len = 0;
	conn_finish(c);
}

static void relay_connected(void *ctx, int result, int fd)
{
	static const struct stream_ops ops = { .on_data = relay_moves, .on_closed = relay_closed,
						.on_drained = relay_moves };
	struct relay *r = ctx;
	struct conn *c = r->conn;
	struct session session;

	if (!c || result < 0) {
		if (fd >= 0)
			(void)close(fd);
		if (c) {
			c->relay = NULL;
			conn_failed(c, -result, STATUS_FAILED, "cannot reach the guest");
			conn_finish(c);
		}
		free_relay(r);
		return;
	}
	if (session_open(&session, fd, NULL) < 0 ||
	    stream_open(&r->stream, c->m->loop, session.fd, RELAY_IN_MAX, &ops, r) < 0) {
		c->relay = NULL;
		free_relay(r);
		conn_close(c);
		return;
	}
	(void)stream_write(&r->stream, r->frame, r->len);
	free(r->frame);
	r->frame = NULL;
	guest_relay(c);
}

void guest_exec(struct conn *c, uint8_t *frame, size_t len)
{
	struct relay *r = calloc(1, sizeof(*r));
	int result;

	if (!r) {
		free(frame);
		conn_error(c, 503, STATUS_FAILED, "out of memory");
		return;
	}
	*r = (struct relay){ .conn = c, .stream.fd = -1, .frame = frame, .len = len };
	result = machine_connect_agent(c->m->machine, relay_connected, r);
	if (result < 0) {
		free_relay(r);
		conn_error(c, 503, STATUS_FAILED, "cannot reach the guest: %s", strerror(-result));
		return;
	}
	c->relay = r;
	c->mode = CONN_RELAY;
	conn_upgrade(c);
}

/* --------------------------------------------------------------- questions */

#define ASK_TIMEOUT_MS 5000

struct question {
	struct conn *conn;
	struct call *call;
	guest_answer_fn answer;
};

static void on_answer(void *ctx, const uint8_t *frames, size_t len)
{
	struct question *q = ctx;
	struct conn *c = q->conn;

	c->question = NULL;
	q->answer(c, frames, len);
	free(q);
}

void guest_ask(struct conn *c, const uint8_t *request, size_t len, guest_answer_fn answer)
{
	struct question *q = calloc(1, sizeof(*q));

	if (q) {
		*q = (struct question){ .conn = c, .answer = answer };
		q->call = call_begin(c->m, request, len, ASK_TIMEOUT_MS, on_answer, q);
	}
	if (!q || !q->call) {
		free(q);
		answer(c, NULL, 0);
		return;
	}
	c->question = q;
	c->mode = CONN_WAITING;
	c->answer = NULL;
}

void guest_forget(struct conn *c)
{
	if (!c->question)
		return;
	call_cancel(c->question->call);
	free(c->question);
	c->question = NULL;
}

void guest_begin(struct monitor *m)
{
	if (m->record.config.cpu_shares)
		(void)machine_set_shares(m->machine, m->record.config.cpu_shares, NULL);
	health_begin(m);
	clock_begin(m);
}

void guest_end(struct monitor *m)
{
	health_end(m);
	clock_end(m);
	for (struct conn *c = m->conns; c; c = c->next) {
		if (c->mode == CONN_RELAY)
			conn_finish(c);
		if (c->question) {
			guest_answer_fn answer = c->question->answer;

			guest_forget(c);
			answer(c, NULL, 0);
		}
	}
}
