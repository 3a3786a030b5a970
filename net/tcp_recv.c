/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Data received.  What is in order goes to the owner out of the frame; what it does
 * not take is kept, and the window shrinks by that.  What comes early is kept until
 * the gap is filled, and reported (RFC 2018, 4).
 *
 * The window is honest: what was announced is accepted, unless memory of the
 * whole net is used up; then it is not acknowledged and comes again.
 */
#include "net/tcp_conn.h"

#define EARLY_MAX 4096u	/* pieces of a connection: headers are memory, and the list is searched */
#define ACK_DELAY_PROXY (500 * 1000ull)	/* ns: an answer over the host's loopback is faster */
#define ACK_DELAY_HOST (40 * MS)	/* RFC 9293, 3.8.6.3: below 500 ms */

/* What may be kept of a connection now: less when memory becomes scarce. */
static uint32_t allowance(const struct tcp_conn *conn)
{
	const struct net *net = conn->net;
	size_t left = net->limits.memory - min_of(net->limits.memory, net->stats.memory);

	return (uint32_t)min_of((size_t)conn->window, left / 8);
}

static uint32_t wanted_edge(const struct tcp_conn *conn)
{
	uint32_t allowed = allowance(conn), used = conn->kept.len;
	uint32_t edge = conn->rcv_nxt + (allowed > used ? allowed - used : 0);

	return seq_max(edge, conn->rcv_adv);
}

/* RFC 9293, 3.8.6.2.2: the edge moves by a segment or half of the buffer, or not at all. */
static bool worth_moving(const struct tcp_conn *conn, uint32_t edge)
{
	return edge - conn->rcv_adv >= min_of(conn->window / 2, conn->mss);
}

uint32_t tcp_window(struct tcp_conn *conn)
{
	uint32_t edge = wanted_edge(conn), window;

	if (!worth_moving(conn, edge))
		edge = conn->rcv_adv;
	window = (edge - conn->rcv_nxt) >> conn->recv_shift << conn->recv_shift;
	window = min_of(window, (uint32_t)UINT16_MAX << conn->recv_shift);
	conn->rcv_adv = seq_max(conn->rcv_adv, conn->rcv_nxt + window);
	return window;
}

/* By enough to be worth a segment. */
static bool window_opened(const struct tcp_conn *conn)
{
	uint32_t edge = wanted_edge(conn);

	if (conn->fin_seen || !worth_moving(conn, edge))
		return false;
	/* Early when the peer may be waiting, late when it is far from the edge. */
	return conn->rcv_adv - conn->rcv_nxt < 2u * conn->mss ||
	       edge - conn->rcv_adv >= conn->window / 4;
}

static void ack_later(struct tcp_conn *conn)
{
	struct list *flush = &conn->net->tcp->flush;

	if (conn->ack_bytes >= ACK_AT_ONCE) {
		conn->ack_now = true;
		tcp_output(conn);
	} else if (list_empty(&conn->work)) {
		list_append(flush, &conn->work);
	}
}

/* Small things wait a little for an answer to travel with; two segments do not. */
static void acknowledge_or_wait(struct tcp_conn *conn)
{
	const struct net *net = conn->net;

	if (conn->ack_bytes >= 2u * conn->mss || conn->ack_now) {
		conn->ack_now = true;
		tcp_output(conn);
	} else if (conn->ack_bytes && !conn->ack_due) {
		conn->ack_due = net->now + (net->proxy ? ACK_DELAY_PROXY : ACK_DELAY_HOST);
		tcp_arm(conn);
	}
}

void tcp_flush(struct net *net)
{
	struct list *flush = &net->tcp->flush;

	while (!list_empty(flush)) {
		struct tcp_conn *conn = container_of(flush->next, struct tcp_conn, work);

		list_remove(&conn->work);
		acknowledge_or_wait(conn);
	}
}

/* Lets the window follow the speed of the peer and the owner, as Linux's receivers do. */
static void tune_window(struct tcp_conn *conn, uint32_t taken)
{
	uint64_t now = conn->net->now, rtt = max_of(conn->srtt, 100 * 1000ull);

	conn->tune_bytes += taken;
	if (now - conn->tune_at < rtt)
		return;
	if (conn->tune_bytes > conn->window / 2 && now - conn->tune_at < 4 * rtt)
		conn->window = min_of(conn->window * 2, conn->net->limits.tcp_recv_max);
	conn->tune_bytes = 0;
	conn->tune_at = now;
}

/* Gives bytes to the owner; returns how many it took.  It may have ended the connection. */
static size_t give(struct tcp_conn *conn, const struct net_span *spans, unsigned count, size_t len)
{
	size_t taken;

	if (!conn->ops || !conn->ops->data)
		return len;
	conn->in_data = true;
	taken = min_of(conn->ops->data(conn, spans, count, len), len);
	conn->in_data = false;
	conn->kept_shut = taken < len;
	return taken;
}

/* @len bytes at rcv_nxt.  False: not all were accepted, or the connection has ended. */
static bool accept_data(struct tcp_conn *conn, struct net_span *spans, unsigned count, size_t len)
{
	size_t taken = 0, accepted;

	if (!conn->kept.len && !conn->kept_shut)
		taken = give(conn, spans, count, len);
	if (conn->dead)
		return false;
	accepted = taken;
	if (taken < len) {
		count = spans_cut(spans, count, taken, len - taken, spans);
		accepted += chunks_append(conn->net, &conn->kept, spans, count);
	}
	conn->rcv_nxt += (uint32_t)accepted;
	conn->bytes_in += accepted;
	conn->ack_bytes += (uint32_t)accepted;
	if (taken == len)
		tune_window(conn, (uint32_t)taken);
	return accepted == len;
}

void tcp_free_early(struct tcp_conn *conn)
{
	struct early *next;

	for (struct early *early = conn->early; early; early = next) {
		next = early->next;
		net_free(conn->net, early, sizeof(*early) + early->len);
	}
	conn->early = conn->early_last = NULL;
	conn->early_bytes = conn->early_count = 0;
	conn->history_count = 0;
}

/* Takes what has become in order. */
static void drain_early(struct tcp_conn *conn)
{
	struct early *early;
	bool more = true;

	while (more && (early = conn->early) && seq_le(early->seq, conn->rcv_nxt)) {
		uint32_t skip = conn->rcv_nxt - early->seq;
		struct net_span span = { early->bytes + skip, early->len - skip };

		conn->early = early->next;
		if (!conn->early)
			conn->early_last = NULL;
		conn->early_bytes -= early->len;
		conn->early_count--;
		if (skip < early->len)
			more = accept_data(conn, &span, 1, span.len);
		net_free(conn->net, early, sizeof(*early) + early->len);
		if (conn->dead)
			return;
	}
}

/* Ranges that became in order are no longer reported. */
static void trim_history(struct tcp_conn *conn)
{
	uint8_t count = 0;

	for (uint8_t i = 0; i < conn->history_count; i++)
		if (seq_lt(conn->rcv_nxt, conn->history[i].begin))
			conn->history[count++] = conn->history[i];
	conn->history_count = count;
}

/* RFC 2018, 4: the range with the newest data first, then those reported before. */
static void report(struct tcp_conn *conn, struct seq_range range)
{
	struct seq_range kept[SACK_HISTORY];
	uint8_t count = 1;

	if (!conn->sack)
		return;
	for (uint8_t i = 0; i < conn->history_count; i++) {
		struct seq_range old = conn->history[i];

		if (seq_le(old.begin, range.end) && seq_le(range.begin, old.end)) {
			range.begin = seq_min(range.begin, old.begin);
			range.end = seq_max(range.end, old.end);
		} else if (count < SACK_HISTORY) {
			kept[count++] = old;
		}
	}
	kept[0] = range;
	for (uint8_t i = 0; i < count; i++)
		conn->history[i] = kept[i];
	conn->history_count = count;
}

/* Keeps [seq, seq + len) in its place, without what is there already. */
static void keep_early(struct tcp_conn *conn, const struct packet *packet, uint32_t at, uint32_t seq,
		       uint32_t len)
{
	struct early **link = &conn->early, *early, *before = NULL;
	uint32_t end = seq + len;

	if (conn->early_last && seq_le(conn->early_last->seq + conn->early_last->len, seq)) {
		before = conn->early_last;	/* the usual case */
		link = &before->next;
	}
	while (*link && seq_le((*link)->seq + (*link)->len, seq)) {
		before = *link;
		link = &before->next;
	}
	for (;;) {	/* the parts of it that lie in gaps */
		uint32_t stop = *link ? seq_min(end, (*link)->seq) : end;

		if (seq_lt(seq, stop)) {
			early = NULL;
			if (conn->early_count < EARLY_MAX &&
			    conn->early_bytes + conn->kept.len + (stop - seq) <=
				    conn->window + UINT16_MAX)
				early = net_alloc(conn->net, sizeof(*early) + (stop - seq));
			if (!early)
				return;
			early->seq = seq;
			early->len = stop - seq;
			packet_copy(packet, at, early->len, early->bytes);
			early->next = *link;
			*link = early;
			conn->early_bytes += early->len;
			conn->early_count++;
			if (!early->next)
				conn->early_last = early;
			report(conn, (struct seq_range){ seq, stop });
			link = &early->next;
		}
		if (!*link || seq_le(end, (*link)->seq))
			return;
		at += (*link)->seq + (*link)->len - seq;
		seq = (*link)->seq + (*link)->len;
		link = &(*link)->next;
		if (seq_le(end, seq))
			return;
	}
}

static void tell_closed(struct tcp_conn *conn)
{
	if (!conn->fin_seen || conn->fin_told || conn->kept.len)
		return;
	conn->fin_told = true;
	if (conn->ops && conn->ops->peer_closed)
		conn->ops->peer_closed(conn);
	if (!conn->dead)
		tcp_end_if_done(conn);
}

/* RFC 9293, 3.10.7.4, eighth. */
static void take_fin(struct tcp_conn *conn)
{
	conn->fin_seen = true;
	conn->rcv_nxt++;
	conn->ack_now = true;
	tcp_free_early(conn);	/* there is nothing after FIN */
	if (conn->state == TCP_ESTABLISHED)
		conn->state = TCP_CLOSE_WAIT;
	else if (conn->state == TCP_FIN_WAIT_1)
		conn->state = TCP_CLOSING;
	tcp_output(conn);
	tell_closed(conn);
}

/* Data out of order: RFC 5681, 4.2: acknowledge at once. */
static void receive_early(struct tcp_conn *conn, const struct packet *packet,
			  const struct segment *segment)
{
	conn->net->stats.tcp_out_of_order++;
	keep_early(conn, packet, segment->data_at, segment->seq, segment->len);
	conn->ack_now = true;
}

static void receive_in_order(struct tcp_conn *conn, const struct packet *packet,
			     const struct segment *segment)
{
	struct net_span spans[NET_SPANS_MAX];
	bool gap = conn->early;
	unsigned count = packet_spans(packet, segment->data_at, segment->data_at + segment->len,
				      spans);

	if (accept_data(conn, spans, count, segment->len) && gap)
		drain_early(conn);
	if (conn->dead)
		return;
	if (gap) {
		trim_history(conn);
		conn->ack_now = true;
	}
}

void tcp_receive(struct tcp_conn *conn, const struct packet *packet, const struct segment *segment)
{
	uint32_t end = segment->seq + segment->len;

	if (segment->len && conn->fin_seen)
		return;
	if (segment->len && segment->seq == conn->rcv_nxt)
		receive_in_order(conn, packet, segment);
	else if (segment->len)
		receive_early(conn, packet, segment);
	if (conn->dead)
		return;
	if (segment->flags & TCP_FIN && end == conn->rcv_nxt && !conn->fin_seen) {
		take_fin(conn);
		return;
	}
	if (segment->flags & TCP_FIN && !conn->fin_seen)
		conn->ack_now = true;	/* too early: it will come again */
	if (conn->ack_now)
		tcp_output(conn);
	else if (segment->len)
		ack_later(conn);
}

void tcp_resume(struct tcp_conn *conn)
{
	struct net_span spans[NET_SPANS_MAX];
	size_t len, taken;

	if (conn->dead || conn->in_data || !conn->kept_shut)
		return;
	tcp_enter(conn->net);
	conn->kept_shut = false;
	while (conn->kept.len && !conn->kept_shut && !conn->dead) {
		unsigned count = chunks_peek(&conn->kept, 0, conn->kept.len, spans, NET_SPANS_MAX,
					     &len);

		taken = give(conn, spans, count, len);
		if (!conn->dead)
			chunks_consume(conn->net, &conn->kept, taken);
	}
	if (!conn->dead) {
		if (window_opened(conn))
			conn->ack_now = true;
		tcp_output(conn);	/* also what the owner sent from within data() */
		tell_closed(conn);
	}
	tcp_leave(conn->net);
}
