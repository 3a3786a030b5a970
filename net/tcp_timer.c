/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What happens to a connection without a segment: retransmission (RFC 6298), probes
 * of a closed window, acknowledgements that waited, keep-alive, and the ends of those
 * that nobody ends.  One timer serves them all: it is set to the first that is due.
 */
#include "net/tcp_conn.h"

#define TRIES_SYN 6u	/* about two minutes */
#define TRIES_SYN_ACK 5u
#define TRIES_DATA 15u	/* RFC 9293, 3.8.3: R2 of at least 100 s; this is about 15 minutes */
#define TRIES_ORPHAN 8u	/* nobody waits for it any more */
#define ROOM_RETRY (20 * MS)	/* for memory */

static uint64_t earlier(uint64_t a, uint64_t b)
{
	return !a || (b && b < a) ? b : a;
}

void tcp_arm(struct tcp_conn *conn)
{
	uint64_t due = earlier(conn->rtx_due, conn->ack_due);

	due = earlier(due, conn->keep_due);
	due = earlier(due, conn->end_due);
	if (conn->short_of_room && !conn->send.len)
		due = earlier(due, conn->net->now + ROOM_RETRY);
	if (due)
		timer_set(conn->net, &conn->timer, due);
	else
		timer_stop(&conn->timer);
}

static unsigned tries_allowed(const struct tcp_conn *conn)
{
	if (conn->state == TCP_SYN_SENT)
		return TRIES_SYN;
	if (conn->state == TCP_SYN_RECEIVED)
		return TRIES_SYN_ACK;
	return conn->ops ? TRIES_DATA : TRIES_ORPHAN;
}

static void back_off(struct tcp_conn *conn)
{
	conn->rto = min_of(conn->rto * 2, RTO_MAX);
	conn->rtx_due = conn->net->now + conn->rto;
}

/* RFC 6298, 5.4 to 5.7; RFC 6675, 5.1. */
static void timed_out(struct tcp_conn *conn)
{
	conn->net->stats.tcp_timeouts++;
	back_off(conn);
	conn->rtt_at = 0;
	if (conn->state == TCP_SYN_SENT || conn->state == TCP_SYN_RECEIVED) {
		tcp_send_syn(conn);
		return;
	}
	if (conn->tries > 1)	/* the peer may have thrown away what it reported: RFC 2018, 8 */
		sack_clear(conn);
	cc_timeout(conn);
	conn->recovery = RECOVERY_TIMEOUT;
	conn->recover = conn->snd_nxt;
	conn->high_rxt = conn->snd_una;
	conn->dup_acks = 0;
	if (!conn->blocked)
		tcp_retransmit_first(conn);
}

static void rtx_expired(struct tcp_conn *conn)
{
	conn->rtx_due = 0;
	if (conn->tries++ >= tries_allowed(conn) && (!conn->persisting || !conn->ops)) {
		if (conn->state >= TCP_ESTABLISHED)
			tcp_send_rst(conn);
		tcp_end(conn, NET_ETIMEDOUT);
		return;
	}
	if (!conn->persisting) {
		timed_out(conn);
		return;
	}
	conn->tries = (uint8_t)min_of((unsigned)conn->tries, TRIES_DATA);	/* for ever: RFC 9293, 3.8.6.1 */
	back_off(conn);
	if (conn->blocked)
		return;
	if (conn->snd_wnd)
		tcp_send_part(conn);
	else
		tcp_send_probe(conn);
}

static void keep_alive(struct tcp_conn *conn)
{
	uint64_t idle = conn->keep_idle_ms * MS, since = conn->net->now - conn->heard_at;

	conn->keep_due = 0;
	if (!conn->keep_idle_ms || conn->state < TCP_ESTABLISHED)
		return;
	if (since < idle) {
		conn->keep_due = conn->heard_at + idle;
	} else if (conn->probes >= conn->keep_count) {
		tcp_send_rst(conn);
		tcp_end(conn, NET_ETIMEDOUT);
	} else {
		conn->probes++;
		conn->keep_due = conn->net->now + conn->keep_interval_ms * MS;
		if (conn->snd_nxt == conn->snd_una)
			tcp_send_probe(conn);
	}
}

static bool is_due(const struct tcp_conn *conn, uint64_t due)
{
	return due && due <= conn->net->now;
}

void tcp_timer(struct net *net, struct timer *timer)
{
	struct tcp_conn *conn = container_of(timer, struct tcp_conn, timer);

	if (is_due(conn, conn->end_due)) {
		tcp_end(conn, NET_ETIMEDOUT);
		return;
	}
	if (is_due(conn, conn->ack_due)) {
		conn->ack_due = 0;
		conn->ack_now = true;
		tcp_output(conn);
	}
	if (is_due(conn, conn->rtx_due))
		rtx_expired(conn);
	if (!conn->dead && is_due(conn, conn->keep_due))
		keep_alive(conn);
	if (!conn->dead && conn->short_of_room && !conn->send.len)
		tcp_offer_room(conn);
	if (!conn->dead)
		tcp_arm(conn);
}
