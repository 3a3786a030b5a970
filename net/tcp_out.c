/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Segments sent.  Payload goes out of the send buffer without a copy, in frames of up
 * to 64 KiB where the peer takes them (NET_OFFLOAD_TSO4, TSO6).
 *
 * When the link has no room the connection joins tcp_table.blocked; nothing is
 * recorded as sent that was not.
 */
#include "net/tcp_conn.h"

#define OPTION_SPACE 40u	/* RFC 9293, 3.1 */
#define CHALLENGES_A_SECOND 100u

uint32_t tcp_ts_now(const struct net *net)
{
	return (uint32_t)(net->now / MS);
}

uint32_t tcp_path_mss(const struct net *net, const struct tcp_conn *conn, uint32_t mtu)
{
	bool v4 = net_addr_is4(&conn->local.addr);
	uint32_t least = v4 ? MSS_MIN4 : MSS_MIN6;
	uint32_t head = TCP_SIZE + (v4 ? IP4_SIZE : IP6_SIZE);

	mtu = min_of(mtu, net->mtu);
	return mtu > head + least ? mtu - head : least;
}

static void put_timestamps(uint8_t *at, uint32_t now, uint32_t recent)
{
	put32(at, 0x0101080a);	/* NOP, NOP, kind 8, length 10: RFC 7323, appendix A */
	put32(at + 4, now);
	put32(at + 8, recent);
}

static void put_own_timestamps(const struct tcp_conn *conn, uint8_t *at)
{
	if (conn->timestamps)
		put_timestamps(at, tcp_ts_now(conn->net) + conn->ts_offset, conn->ts_recent);
}

static uint32_t timestamps_size(bool timestamps)
{
	return timestamps ? TCP_TIMESTAMPS_SIZE : 0;
}

/* Ranges of SACK that there is room for beside the timestamps. */
static uint32_t sack_count(const struct tcp_conn *conn)
{
	return min_of(conn->history_count, (OPTION_SPACE - timestamps_size(conn->timestamps) - 4) / 8);
}

static void put_sack(const struct tcp_conn *conn, uint8_t *at)
{
	uint32_t count = sack_count(conn);

	if (!count)
		return;
	put32(at, 0x01010500 | (2 + 8 * count));
	for (uint32_t i = 0; i < count; i++) {
		put32(at + 4 + 8 * i, conn->history[i].begin);
		put32(at + 8 + 8 * i, conn->history[i].end);
	}
}

static uint32_t options_size(const struct tcp_conn *conn)
{
	uint32_t count = sack_count(conn);

	return timestamps_size(conn->timestamps) + (count ? 4 + 8 * count : 0);
}

static void put_header(uint8_t *tcp, const struct net_endpoint *local, const struct net_endpoint *remote,
		       uint32_t seq, uint32_t ack, uint8_t flags, uint32_t size, uint32_t window)
{
	put16(tcp, local->port);
	put16(tcp + 2, remote->port);
	put32(tcp + 4, seq);
	put32(tcp + 8, ack);
	tcp[12] = (uint8_t)(size / 4 << 4);
	tcp[13] = flags;
	put16(tcp + 14, (uint16_t)window);
}

/* What is true after a segment with our present acknowledgement has left. */
static void acknowledged(struct tcp_conn *conn)
{
	conn->last_ack = conn->rcv_nxt;
	conn->ack_bytes = 0;
	conn->ack_now = false;
	conn->ack_due = 0;
	conn->segments_out++;
	conn->blocked = false;
	list_remove(&conn->work);
}

static bool leave(struct tcp_conn *conn, struct out *out)
{
	out->checksum_at = 16;
	if (ip_output(conn->net, out) != NET_EAGAIN) {
		acknowledged(conn);
		return true;
	}
	conn->blocked = true;
	list_append(&conn->net->tcp->blocked, &conn->work);
	return false;
}

/* Sends [seq, seq + len) of the send buffer, in one frame.  False: the link is full. */
static bool send_segment(struct tcp_conn *conn, uint32_t seq, uint32_t len, uint8_t flags)
{
	uint32_t size = TCP_SIZE + options_size(conn), mss = conn->mss - (size - TCP_SIZE);
	bool v4 = net_addr_is4(&conn->local.addr);
	struct out out;
	uint8_t *tcp = out_init(&out, &conn->local.addr, &conn->remote.addr, PROTO_TCP,
				(uint16_t)size);
	size_t got = 0;

	if (len)
		out.count += chunks_peek(&conn->send, seq - conn->snd_una, len, out.spans + 1,
					 NET_SPANS_MAX - 1, &got);
	out.len = got;
	if (got < len)	/* so many small pieces that a frame cannot name them: the rest follows */
		flags &= (uint8_t)~(TCP_FIN | TCP_PSH);
	if (got > mss) {
		out.gso = v4 ? NET_GSO_TCP4 : NET_GSO_TCP6;
		out.gso_size = (uint16_t)mss;
	}
	put_header(tcp, &conn->local, &conn->remote, seq, conn->rcv_nxt, flags, size,
		   tcp_window(conn) >> conn->recv_shift);
	put_own_timestamps(conn, tcp + TCP_SIZE);
	put_sack(conn, tcp + TCP_SIZE + timestamps_size(conn->timestamps));
	out.dont_fragment = true;
	if (!leave(conn, &out))
		return false;
	if (got)
		conn->last_sent_at = conn->net->now;
	seq += (uint32_t)got + (flags & TCP_FIN ? 1 : 0);
	if (seq_lt(conn->snd_nxt, seq))
		conn->snd_nxt = seq;
	if (flags & TCP_FIN)
		conn->fin_sent = true;
	return got == len;
}

/* The most that one frame carries. */
static uint32_t frame_payload(const struct tcp_conn *conn, uint32_t mss)
{
	bool v4 = net_addr_is4(&conn->local.addr);
	uint32_t head = TCP_SIZE + OPTION_SPACE + (v4 ? IP4_SIZE : IP6_SIZE);

	if (!(conn->net->offloads & (v4 ? NET_OFFLOAD_TSO4 : NET_OFFLOAD_TSO6)))
		return mss;
	return (uint32_t)max_of((UINT16_MAX - head) / mss * mss, mss);
}

static uint32_t fin_seq(const struct tcp_conn *conn)
{
	return conn->snd_una + conn->send.len;
}

static bool send_ack(struct tcp_conn *conn)
{
	return send_segment(conn, conn->snd_nxt, 0, TCP_ACK);
}

/* Sends a part of [begin, ...) again.  False: the link is full. */
static bool retransmit(struct tcp_conn *conn, struct seq_range range)
{
	uint32_t mss = conn->mss - options_size(conn);
	uint32_t data_end = seq_min(range.end, fin_seq(conn));
	uint32_t len = seq_lt(range.begin, data_end) ? data_end - range.begin : 0;
	uint8_t flags = TCP_ACK;

	len = min_of(len, frame_payload(conn, mss));
	if (range.begin + len == fin_seq(conn))
		flags |= (len ? TCP_PSH : 0) | (conn->fin_sent ? TCP_FIN : 0);
	conn->rtt_at = 0;	/* Karn: an acknowledgement would not say of which */
	if (!send_segment(conn, range.begin, len, flags) && conn->blocked)
		return false;
	conn->high_rxt = seq_max(conn->high_rxt, range.begin + len + (flags & TCP_FIN ? 1 : 0));
	conn->retransmits++;
	conn->net->stats.tcp_retransmits++;
	return true;
}

void tcp_retransmit_first(struct tcp_conn *conn)
{
	uint32_t end = seq_min(conn->snd_nxt, conn->snd_una + conn->mss - options_size(conn));

	if (seq_lt(conn->snd_una, conn->snd_nxt))
		(void)retransmit(conn, (struct seq_range){ conn->snd_una, end });
}

/* Whether @len of @unsent bytes are worth a segment now (RFC 9293, 3.8.6.2.1). */
static bool worth_sending(const struct tcp_conn *conn, uint32_t len, uint32_t unsent, uint32_t mss,
			  uint32_t pipe)
{
	if (len >= mss)
		return true;
	if (len == unsent)	/* all there is */
		return !conn->nagle || !pipe || conn->fin_queued;
	return len && len >= conn->snd_wnd_max / 2;
}

/* Sends one frame of new data, or FIN.  False: nothing more may be sent now. */
static bool send_new(struct tcp_conn *conn)
{
	uint32_t sent = conn->snd_nxt - conn->snd_una, unsent = conn->send.len - sent;
	uint32_t mss = conn->mss - options_size(conn), pipe, window, room, len;
	uint8_t flags = TCP_ACK;

	if (conn->fin_sent || (!unsent && !conn->fin_queued))
		return false;
	if (!sent)
		cc_idle(conn);
	pipe = sack_pipe(conn);
	window = seq_lt(conn->snd_nxt, conn->snd_una + conn->snd_wnd) ? conn->snd_wnd - sent : 0;
	room = conn->cwnd > pipe ? conn->cwnd - pipe : 0;
	len = min_of(unsent, min_of(window, room));
	if (room < unsent && room < window)
		conn->cwnd_limited = true;
	if (unsent && !worth_sending(conn, len, unsent, mss, pipe))
		return false;
	len = min_of(len, frame_payload(conn, mss));
	if (len > mss && len < unsent)
		len -= len % mss;
	if (len == unsent)
		flags |= (len ? TCP_PSH : 0) | (conn->fin_queued ? TCP_FIN : 0);
	if (!conn->rtt_at && len) {
		conn->rtt_at = conn->net->now;
		conn->rtt_seq = conn->snd_nxt + len;
	}
	if (!send_segment(conn, conn->snd_nxt, len, flags))
		return !conn->blocked && len;
	return !(flags & TCP_FIN);
}

static bool may_send(const struct tcp_conn *conn)
{
	return conn->state >= TCP_ESTABLISHED && conn->state != TCP_CLOSED && !conn->dead;
}

static void set_timer(struct tcp_conn *conn)
{
	bool flight = conn->snd_nxt != conn->snd_una;
	bool unsent = conn->send.len > conn->snd_nxt - conn->snd_una;

	if (flight && (!conn->rtx_due || conn->persisting)) {
		conn->rtx_due = conn->net->now + conn->rto;
		conn->persisting = false;
	} else if (!flight && unsent && !conn->blocked) {
		if (!conn->persisting)	/* the window holds it back: RFC 9293, 3.8.6.1 */
			conn->rtx_due = conn->net->now + conn->rto;
		conn->persisting = true;
	} else if (!flight) {
		conn->rtx_due = 0;
		conn->persisting = false;
	}
	tcp_arm(conn);
}

void tcp_output(struct tcp_conn *conn)
{
	struct seq_range lost;

	if (!may_send(conn) || conn->in_data)
		return;
	while (conn->recovery != RECOVERY_NONE && sack_pipe(conn) < conn->cwnd &&
	       sack_next_lost(conn, &lost))
		if (!retransmit(conn, lost))
			return;
	while (send_new(conn))
		continue;
	while (!conn->blocked && sack_next_doubtful(conn, &lost) &&
	       sack_pipe(conn) + conn->mss <= conn->cwnd)
		if (!retransmit(conn, lost))
			return;
	if (conn->ack_now && !conn->blocked)
		(void)send_ack(conn);
	set_timer(conn);
}

void tcp_send_part(struct tcp_conn *conn)
{
	uint32_t len = min_of(conn->send.len, conn->snd_wnd);

	if (conn->snd_nxt != conn->snd_una || !may_send(conn))
		return;
	len = min_of(len, conn->mss - options_size(conn));
	conn->rtx_due = 0;
	(void)send_segment(conn, conn->snd_nxt, len, TCP_ACK | TCP_PSH);
	set_timer(conn);
}

void tcp_send_probe(struct tcp_conn *conn)
{
	/* An old sequence number: it must be answered (RFC 9293, 3.8.4 and 3.10.7.4). */
	(void)send_segment(conn, conn->snd_una - 1, 0, TCP_ACK);
}

void tcp_challenge(struct tcp_conn *conn)
{
	if (conn->net->now - conn->challenge_at >= SECOND) {
		conn->challenge_at = conn->net->now;
		conn->challenges = 0;
	}
	if (conn->challenges++ >= CHALLENGES_A_SECOND)
		return;
	conn->net->stats.tcp_challenges++;
	if (conn->state == TCP_SYN_RECEIVED)
		tcp_send_syn(conn);
	else
		(void)send_ack(conn);
}

/* In the order of Linux, which middleboxes know and the same scripts can expect. */
static void put_syn_options(const struct tcp_conn *conn, uint8_t *at)
{
	put32(at, 2u << 24 | 4u << 16 | tcp_path_mss(conn->net, conn, UINT16_MAX));
	at += 4;
	if (conn->timestamps) {
		put_own_timestamps(conn, at);
		if (conn->sack)
			put16(at, 0x0402);	/* in place of two NOPs */
		at += TCP_TIMESTAMPS_SIZE;
	} else if (conn->sack) {
		put32(at, 0x01010402);
		at += 4;
	}
	if (conn->scaling)
		put32(at, 0x01030300 | conn->recv_shift);
}

void tcp_send_syn(struct tcp_conn *conn)
{
	struct out out;
	uint8_t *tcp;
	uint32_t size = TCP_SIZE + 4 + (conn->timestamps ? TCP_TIMESTAMPS_SIZE : conn->sack ? 4 : 0) +
			(conn->scaling ? 4 : 0);

	tcp = out_init(&out, &conn->local.addr, &conn->remote.addr, PROTO_TCP, (uint16_t)size);
	put_header(tcp, &conn->local, &conn->remote, conn->iss, conn->peer_asked ? conn->rcv_nxt : 0,
		   conn->peer_asked ? TCP_SYN | TCP_ACK : TCP_SYN, size,
		   min_of(conn->window, UINT16_MAX));	/* never scaled: RFC 7323, 2.2 */
	put_syn_options(conn, tcp + TCP_SIZE);
	out.dont_fragment = true;
	conn->rcv_adv = conn->rcv_nxt + min_of(conn->window, UINT16_MAX);
	if (!conn->tries && !conn->rtt_at) {
		conn->rtt_at = conn->net->now;
		conn->rtt_seq = conn->iss + 1;
	}
	conn->snd_nxt = conn->iss + 1;
	if (!leave(conn, &out)) {	/* the timer sends it again */
		conn->blocked = false;
		list_remove(&conn->work);
	}
	if (!conn->rtx_due)
		conn->rtx_due = conn->net->now + conn->rto;
	tcp_arm(conn);
}

void tcp_send_rst(struct tcp_conn *conn)
{
	struct out out;
	uint8_t *tcp = out_init(&out, &conn->local.addr, &conn->remote.addr, PROTO_TCP, TCP_SIZE);
	bool refused = conn->state == TCP_REQUESTED;

	put_header(tcp, &conn->local, &conn->remote, refused ? 0 : conn->snd_nxt, conn->rcv_nxt,
		   TCP_RST | TCP_ACK, TCP_SIZE, 0);
	out.checksum_at = 16;
	conn->net->stats.tcp_resets_out++;
	(void)ip_output(conn->net, &out);
}

static void reply(struct net *net, const struct net_endpoint *local,
		  const struct net_endpoint *remote, uint32_t seq, uint32_t ack, uint8_t flags)
{
	struct out out;
	uint8_t *tcp = out_init(&out, &local->addr, &remote->addr, PROTO_TCP, TCP_SIZE);

	put_header(tcp, local, remote, seq, ack, flags, TCP_SIZE, 0);
	out.checksum_at = 16;
	(void)ip_output(net, &out);
}

void tcp_reply_rst(struct net *net, const struct packet *packet, const struct segment *segment)
{
	struct net_endpoint local = { packet->dst, get16(packet->head + packet->at + 2) };
	struct net_endpoint remote = { packet->src, get16(packet->head + packet->at) };
	uint32_t end = segment->seq + segment->len + !!(segment->flags & TCP_SYN) +
		       !!(segment->flags & TCP_FIN);

	if (segment->flags & TCP_RST)
		return;
	net->stats.tcp_resets_out++;
	if (segment->flags & TCP_ACK)
		reply(net, &local, &remote, segment->ack, 0, TCP_RST);
	else
		reply(net, &local, &remote, 0, end, TCP_RST | TCP_ACK);
}

void tcp_reply_waiting(struct net *net, const struct time_wait *wait)
{
	struct out out;
	uint32_t size = TCP_SIZE + timestamps_size(wait->timestamps);
	uint8_t *tcp = out_init(&out, &wait->local.addr, &wait->remote.addr, PROTO_TCP, (uint16_t)size);

	put_header(tcp, &wait->local, &wait->remote, wait->snd_nxt, wait->rcv_nxt, TCP_ACK, size, 0);
	if (wait->timestamps)
		put_timestamps(tcp + TCP_SIZE, tcp_ts_now(net) + wait->ts_offset, wait->ts_recent);
	out.checksum_at = 16;
	(void)ip_output(net, &out);
}
