/* SPDX-License-Identifier: Apache-2.0 */
/* Streams to the guest's agent, and which machine it is told to be. */
#include "api/handle.h"

#include "abi/agent.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#define DEBUGGED_TIMEOUT_MS 86400000u	/* somebody may be looking at the stopped guest */

/* The agent's first connection begins with HELLO; after a failed boot an ERROR follows. */
int machine_check_ready(struct roux_machine *m, uint64_t deadline, struct session *s, struct err *err)
{
	struct frame f;
	int r = session_open(s, m->ready_fd, err);

	m->ready_fd = -1;
	if (r < 0)
		return r;
	r = session_hello(s, deadline, m->wake_fd, err);
	if (r < 0)
		return r;
	if (session_next(s, &f) != 1)
		return 0;
	return f.type == AGENT_ERROR ? session_error(&f, err) :
		err_set(err, -EPROTO, "the guest's agent does not keep to its protocol");
}

/* As machine_connect_agent(), with the request's number for machine_take_connect(). */
static int request_stream(struct roux_machine *m, machine_connected_fn fn, void *ctx, int32_t *ret_id)
{
	struct machine_connect *c;
	int r;

	if (m->sock < 0 || machine_ended(m))
		return -ENOTCONN;
	c = malloc(sizeof(*c));
	if (!c)
		return -ENOMEM;
	*c = (struct machine_connect){ .next = m->connects, .id = ++m->last_connect, .connected = fn, .ctx = ctx };
	r = control_send(m->sock, CONTROL_CONNECT, c->id, (int32_t)AGENT_PORT, NULL, 0, -1);
	if (r < 0) {
		free(c);
		return r;
	}
	m->connects = c;
	*ret_id = c->id;
	return 0;
}

int machine_connect_agent(struct roux_machine *m, machine_connected_fn fn, void *ctx)
{
	int32_t id;

	return request_stream(m, fn, ctx, &id);
}

struct answer {
	bool come;
	int result, fd;
};

static void on_answer(void *ctx, int result, int fd)
{
	*(struct answer *)ctx = (struct answer){ .come = true, .result = result, .fd = fd };
}

int machine_open_stream(struct roux_machine *m, uint64_t deadline, struct err *err)
{
	struct answer a = { .fd = -1 };
	int32_t id;
	int r = request_stream(m, on_answer, &a, &id);

	if (r == 0) {
		while (r == 0 && !a.come && !machine_ended(m))
			r = machine_events_until(m, deadline);
		if (a.come) {
			r = a.result;
		} else {
			free(machine_take_connect(m, id));	/* @a is about to go */
			r = r < 0 ? r : -ENOTCONN;
		}
	}
	return r < 0 ? err_set(err, r, "cannot reach the guest: %s",
			       machine_ended(m) && m->reason[0] ? m->reason : strerror(-r)) : a.fd;
}

void machine_forget_connects(struct roux_machine *m)
{
	struct machine_connect *c;

	while ((c = m->connects)) {
		m->connects = c->next;
		c->connected(c->ctx, -ENOTCONN, -1);
		free(c);
	}
}

static void put_all(struct frame_writer *w, uint16_t tag, const struct spec_list *list)
{
	for (unsigned i = 0; i < list->n; i++)
		field_put_str(w, tag, list->at[i]);
}

/*
 * Its connections over the host are gone with the process that held them.  Those with others on its network are not,
 * if it has its addresses still.
 */
static void put_connections(const struct spec_net *n, bool moved, struct frame_writer *w)
{
	field_put(w, AGENT_TAG_RESET, NULL, 0);
	if (n->kind == SPEC_NET_NAMED && !moved)
		put_all(w, AGENT_TAG_KEPT, &n->guest);
	put_all(w, AGENT_TAG_OUTSIDE, &n->gateway);
	put_all(w, AGENT_TAG_OUTSIDE, &n->dns);
}

static void put_network(const struct roux_machine *m, struct frame_writer *w)
{
	const struct spec_net *n = &m->spec.net[0];
	/* One that was not saved with addresses of a named network has none yet. */
	bool named = n->kind == SPEC_NET_NAMED, moved = named && !m->had.known;

	if (!m->spec.nnets || n->kind == SPEC_NET_TAP)
		return;
	for (unsigned i = 0; m->had.known && i < n->guest.n && i < 2; i++)
		moved |= strcmp(n->guest.at[i], m->had.addr[i]) != 0;
	if (m->had.known)
		put_connections(n, moved, w);
	for (unsigned i = 0; moved && i < 2; i++)
		if (m->had.addr[i][0])
			field_put_str(w, AGENT_TAG_LEFT, m->had.addr[i]);
	if (moved)
		put_all(w, AGENT_TAG_TAKEN, &n->guest);
	if (moved || (m->spec.restore && !named))
		field_put(w, AGENT_TAG_MAC, n->mac, sizeof(n->mac));
}

/* Before the guest does anything for anybody. */
static int give_identity(const struct roux_machine *m, struct session *s)
{
	uint8_t buf[2048], seed[64];
	struct frame_writer w;
	struct timespec now;

	if (getrandom(seed, sizeof(seed), 0) != (ssize_t)sizeof(seed))
		return -EIO;
	(void)clock_gettime(CLOCK_REALTIME, &now);
	frame_begin(&w, buf, sizeof(buf), AGENT_IDENTITY);
	field_put_u64(&w, AGENT_TAG_CLOCK_NS, (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec);
	field_put(&w, AGENT_TAG_SEED, seed, sizeof(seed));
	if (m->hostname)
		field_put_str(&w, AGENT_TAG_HOSTNAME, m->hostname);
	field_put_str(&w, AGENT_TAG_MACHINE_ID, m->machine_id);
	put_network(m, &w);
	s->identity_due = true;
	return session_send_frame(s, buf, frame_end(&w));
}

static uint64_t patience(const struct roux_machine *m)
{
	return monotonic_ns() + (m->spec.gdb ? DEBUGGED_TIMEOUT_MS : CONNECT_TIMEOUT_MS) * 1000000ull;
}

int machine_session(struct roux_machine *m, struct session *ret_session, struct err *err)
{
	int fd, r;

	if (m->boot_failed.code) {
		*err = m->boot_failed;
		return err->code;
	}
	if (m->ready_fd >= 0 && m->greeted) {
		r = machine_take_saved(m, ret_session, err);
	} else if (m->ready_fd >= 0) {
		r = machine_check_ready(m, patience(m), ret_session, err);
		memcpy(ret_session->stream, m->ready_stream, sizeof(m->ready_stream));
	} else {
		fd = machine_open_stream(m, patience(m), err);
		if (fd < 0)
			return fd;
		r = session_open(ret_session, fd, err);
		if (r < 0)
			return r;
		ret_session->hello_due = true;
		memcpy(ret_session->stream, m->stream, sizeof(m->stream));
	}
	if (r == 0 && !m->identified) {
		r = give_identity(m, ret_session);
		if (r < 0)
			(void)machine_events(m, 100);	/* which may be about to say why */
		if (r < 0)
			(void)err_set(err, r, "cannot tell the guest which machine it is: %s", m->reason[0] ? m->reason : strerror(-r));
	}
	if (r < 0)
		session_close(ret_session);
	return r;
}

int machine_settle(struct roux_machine *m, struct session *s, struct err *err)
{
	uint64_t deadline = patience(m);
	struct frame f;
	int r;

	if (s->hello_due) {
		r = session_hello(s, deadline, m->wake_fd, err);
		if (r < 0)
			return r;
		s->hello_due = false;
	}
	if (!s->identity_due)
		return 0;
	r = session_wait(s, deadline, m->wake_fd, &f);
	if (r < 0)
		return err_set(err, r, "cannot tell the guest which machine it is: %s", strerror(-r));
	if (f.type == AGENT_ERROR)
		return session_error(&f, err);
	if (f.type != AGENT_OK)
		return err_set(err, -EPROTO, "the guest's agent does not keep to its protocol");
	s->identity_due = false;
	m->identified = true;
	return 0;
}
