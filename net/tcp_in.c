/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Segments received, in the order of RFC 9293, 3.10.7: sequence number, RST, SYN,
 * ACK, data, FIN; with PAWS (RFC 7323, 5) and the checks of RFC 5961.
 *
 *   state          a SYN comes      its ACK comes    FIN of theirs   ours is acknowledged
 *   (none)         REQUESTED
 *   REQUESTED      -                -                -               tcp_accept(): SYN_RECEIVED
 *   SYN_SENT       (SYN+ACK)        ESTABLISHED
 *   SYN_RECEIVED   again            ESTABLISHED
 *   ESTABLISHED    challenge                         CLOSE_WAIT      tcp_shutdown(): FIN_WAIT_1
 *   FIN_WAIT_1     challenge                         CLOSING         FIN_WAIT_2
 *   FIN_WAIT_2     challenge                         TIME_WAIT
 *   CLOSING        challenge                         -               TIME_WAIT
 *   CLOSE_WAIT     challenge                         -               tcp_shutdown(): LAST_ACK
 *   LAST_ACK       challenge                         -               (none)
 */
#include "net/siphash.h"
#include "net/tcp_conn.h"

#define PAWS_IDLE (24ull * 24 * 3600 * SECOND)	/* RFC 7323, 5.5 */
#define MSS_DEFAULT4 536u
#define MSS_DEFAULT6 1220u
#define MSS_LEAST 128u	/* less than this would make every segment a header */

static void parse_sack(struct segment *segment, const uint8_t *blocks, uint32_t len)
{
	for (; len >= 8 && segment->sack_count < SACK_HISTORY; blocks += 8, len -= 8)
		segment->sack[segment->sack_count++] =
			(struct seq_range){ get32(blocks), get32(blocks + 4) };
}

static void parse_option(struct segment *segment, const uint8_t *option, uint32_t len)
{
	bool syn = segment->flags & TCP_SYN;

	switch (option[0]) {
	case 2:
		if (len == 4 && syn) {
			segment->has_mss = true;
			segment->mss = get16(option + 2);
		}
		break;
	case 3:
		if (len == 3 && syn) {
			segment->has_scale = true;
			segment->scale = min_of(option[2], (uint8_t)14);	/* RFC 7323, 2.3 */
		}
		break;
	case 4:
		segment->sack_ok |= len == 2 && syn;
		break;
	case 5:
		parse_sack(segment, option + 2, len - 2);
		break;
	case 8:
		if (len == 10) {
			segment->has_ts = true;
			segment->ts = get32(option + 2);
			segment->ts_echo = get32(option + 6);
		}
		break;
	default:
		break;
	}
}

/* RFC 9293, 3.1: a broken option ends the list, it does not spoil the segment. */
static void parse_options(struct segment *segment, const uint8_t *at, uint32_t left)
{
	while (left) {
		uint32_t len;

		if (at[0] == 0)
			return;
		if (at[0] == 1) {
			at++;
			left--;
			continue;
		}
		if (left < 2 || at[1] < 2 || at[1] > left)
			return;
		len = at[1];
		parse_option(segment, at, len);
		at += len;
		left -= len;
	}
}

static bool parse(struct net *net, const struct packet *packet, struct segment *ret_segment)
{
	const uint8_t *tcp = packet->head + packet->at;
	uint32_t size;

	if (!packet_has(packet, packet->at, TCP_SIZE))
		goto bad;
	size = (tcp[12] >> 4) * 4u;
	if (size < TCP_SIZE || !packet_has(packet, packet->at, size) || !get16(tcp) ||
	    !get16(tcp + 2))
		goto bad;
	if (!packet_checksum_ok(packet, PROTO_TCP, 16)) {
		net->stats.bad_checksum++;
		return false;
	}
	*ret_segment = (struct segment){ .seq = get32(tcp + 4), .ack = get32(tcp + 8),
					 .window = get16(tcp + 14), .flags = tcp[13] & 0x1f,
					 .data_at = packet->at + size,
					 .len = packet->end - packet->at - size };
	parse_options(ret_segment, tcp + TCP_SIZE, size - TCP_SIZE);
	return true;
bad:
	net->stats.bad_transport++;
	return false;
}

/* RFC 6528: the clock runs, and differs between any two pairs of ends. */
static void choose_numbers(struct tcp_conn *conn)
{
	uint64_t words[5] = { conn->local.addr.q[0], conn->local.addr.q[1], conn->remote.addr.q[0],
			      conn->remote.addr.q[1],
			      (uint64_t)conn->local.port << 16 | conn->remote.port };
	const struct net *net = conn->net;

	conn->iss = (uint32_t)siphash(net->key, words, 5) + (uint32_t)(net->now >> 6);
	words[4] = UINT64_MAX;
	conn->ts_offset = (uint32_t)siphash(net->key, words, 5);	/* RFC 7323, 5.4, 7.1 */
	conn->snd_una = conn->snd_nxt = conn->high_rxt = conn->iss;
}

static uint8_t scale_for(uint32_t window)
{
	uint8_t shift = 0;

	while (shift < 14 && (uint32_t)UINT16_MAX << shift < window)
		shift++;
	return shift;
}

void tcp_prepare(struct tcp_conn *conn)
{
	choose_numbers(conn);
	conn->window = min_of(WINDOW_FIRST, conn->net->limits.tcp_recv_max);
	conn->recv_shift = scale_for(conn->net->limits.tcp_recv_max);
	conn->rto = RTO_FIRST;
	conn->sack = conn->timestamps = conn->scaling = true;
}

/* What the peer's SYN says about it. */
static void take_syn(struct tcp_conn *conn, const struct segment *segment)
{
	uint16_t mss = net_addr_is4(&conn->local.addr) ? MSS_DEFAULT4 : MSS_DEFAULT6;

	if (segment->has_mss)
		mss = max_of(segment->mss, (uint16_t)MSS_LEAST);
	conn->peer_mss = mss;
	conn->scaling = segment->has_scale && conn->scaling;
	conn->send_shift = conn->scaling ? segment->scale : 0;
	conn->recv_shift = conn->scaling ? conn->recv_shift : 0;
	conn->sack = segment->sack_ok && conn->sack;
	conn->timestamps = segment->has_ts && conn->timestamps;
	conn->ts_recent = segment->ts;
	conn->ts_recent_at = conn->net->now;
	conn->irs = segment->seq;
	conn->rcv_nxt = conn->rcv_adv = conn->last_ack = segment->seq + 1;
	conn->snd_wnd = conn->snd_wnd_max = segment->window;
	conn->snd_wl1 = segment->seq;
	conn->snd_wl2 = segment->ack;
	tcp_init_sender(conn);
}

/* A SYN for which there is no connection. */
static void request(struct net *net, const struct packet *packet, const struct segment *segment,
		    const struct net_endpoint *local, const struct net_endpoint *remote)
{
	struct tcp_conn *conn;

	if (net_addr_is_zero(&remote->addr) || net_addr_equal(&local->addr, &remote->addr))
		return;
	conn = tcp_new(net, local, remote);
	if (!conn)
		return;	/* the SYN will come again */
	conn->peer_asked = true;
	conn->state = TCP_REQUESTED;
	tcp_prepare(conn);
	take_syn(conn, segment);
	tcp_asked(net, conn);
}

/* Does the segment end a TIME_WAIT?  RFC 9293, 3.6.1 and RFC 6191. */
static bool may_reuse(const struct time_wait *wait, const struct segment *segment)
{
	if ((segment->flags & (TCP_SYN | TCP_ACK | TCP_RST)) != TCP_SYN)
		return false;
	if (wait->timestamps && segment->has_ts && (int32_t)(segment->ts - wait->ts_recent) > 0)
		return true;
	return seq_lt(wait->rcv_nxt, segment->seq);
}

/* True when the segment was for a connection in TIME_WAIT, and is dealt with. */
static bool waiting_input(struct net *net, const struct segment *segment,
			  const struct net_endpoint *local, const struct net_endpoint *remote)
{
	struct time_wait *wait = tcp_find_waiting(net, local, remote);

	if (!wait)
		return false;
	if (may_reuse(wait, segment)) {
		tcp_forget_waiting(net, wait);
		return false;
	}
	if (segment->flags & TCP_RST)	/* RFC 1337 */
		return true;
	if (segment->flags & TCP_FIN)
		tcp_wait_again(net, wait);
	if (segment->len || segment->flags & (TCP_SYN | TCP_FIN) || segment->seq != wait->rcv_nxt)
		tcp_reply_waiting(net, wait);
	return true;
}

/* RFC 9293, 3.10.7.3. */
static void syn_sent_input(struct tcp_conn *conn, const struct packet *packet,
			   struct segment *segment)
{
	bool ack = segment->flags & TCP_ACK;

	if (ack && segment->ack != conn->snd_nxt) {
		tcp_reply_rst(conn->net, packet, segment);
		return;
	}
	if (segment->flags & TCP_RST) {
		if (ack)
			tcp_end(conn, NET_ECONNREFUSED);
		return;
	}
	if (!(segment->flags & TCP_SYN))
		return;
	take_syn(conn, segment);
	conn->tries = 0;
	conn->rtx_due = 0;
	if (!ack) {	/* both began at once */
		conn->peer_asked = true;
		conn->state = TCP_SYN_RECEIVED;
		tcp_send_syn(conn);
		return;
	}
	conn->snd_una = conn->high_rxt = segment->ack;
	if (conn->rtt_at)
		tcp_sample_rtt(conn);
	conn->ack_now = true;
	tcp_established(conn);
	if (!conn->dead)
		tcp_output(conn);
}

/* RFC 7323, 5.3, R1: an old duplicate. */
static bool paws_rejects(const struct tcp_conn *conn, const struct segment *segment)
{
	return conn->timestamps && segment->has_ts && !(segment->flags & TCP_RST) &&
	       (int32_t)(segment->ts - conn->ts_recent) < 0 &&
	       conn->net->now - conn->ts_recent_at < PAWS_IDLE;
}

/* Cuts what lies outside of the window.  False: nothing of it lies inside (RFC 9293, 3.4). */
static bool fit_window(struct tcp_conn *conn, struct segment *segment)
{
	uint32_t edge = seq_max(conn->rcv_adv, conn->rcv_nxt), cut;
	uint32_t size = segment->len + !!(segment->flags & TCP_FIN);

	if (!size)
		return seq_le(conn->rcv_nxt, segment->seq) && seq_le(segment->seq, edge);
	if (seq_le(segment->seq + size, conn->rcv_nxt) ||
	    (!seq_lt(segment->seq, edge) && segment->seq != conn->rcv_nxt))
		return false;
	if (seq_lt(segment->seq, conn->rcv_nxt)) {
		cut = conn->rcv_nxt - segment->seq;
		cut = min_of(cut, segment->len);
		segment->seq += cut;
		segment->data_at += cut;
		segment->len -= cut;
		conn->ack_now = true;	/* part of it came again */
	}
	if (seq_lt(edge, segment->seq + segment->len)) {
		segment->len = seq_lt(segment->seq, edge) ? edge - segment->seq : 0;
		segment->flags &= (uint8_t)~TCP_FIN;
		conn->ack_now = true;
	}
	return true;
}

/* RFC 5961, 3.2.  With all said on both sides it is TIME_WAIT in all but name (RFC 1337). */
static void reset_input(struct tcp_conn *conn, const struct segment *segment)
{
	if (conn->fin_seen && conn->fin_sent && conn->snd_una == conn->snd_nxt)
		return;
	if (segment->seq == conn->rcv_nxt)
		tcp_end(conn, conn->state == TCP_SYN_RECEIVED && !conn->peer_asked ? NET_ECONNREFUSED :
										  NET_ECONNRESET);
	else if (seq_lt(conn->rcv_nxt, segment->seq) && seq_lt(segment->seq, conn->rcv_adv))
		tcp_challenge(conn);
}

/* The handshake's last segment.  False: it is not. */
static bool complete_handshake(struct tcp_conn *conn, const struct packet *packet,
			       const struct segment *segment)
{
	if (segment->ack != conn->snd_nxt) {
		tcp_reply_rst(conn->net, packet, segment);
		return false;
	}
	conn->snd_una = conn->high_rxt = segment->ack;
	conn->snd_wnd = conn->snd_wnd_max = segment->window;
	conn->snd_wl1 = segment->seq;
	conn->snd_wl2 = segment->ack;
	conn->tries = 0;
	conn->rtx_due = 0;
	if (conn->rtt_at)
		tcp_sample_rtt(conn);
	tcp_established(conn);
	return !conn->dead;
}

/* RFC 7323, 4.3: only a segment that covers what we acknowledged last may be echoed. */
static void take_timestamp(struct tcp_conn *conn, const struct segment *segment)
{
	if (!conn->timestamps || !segment->has_ts || seq_lt(conn->last_ack, segment->seq) ||
	    (int32_t)(segment->ts - conn->ts_recent) < 0)
		return;
	conn->ts_recent = segment->ts;
	conn->ts_recent_at = conn->net->now;
}

/* RFC 9293, 3.10.7.4, for a connection that has seen the peer's SYN. */
static void synchronized_input(struct tcp_conn *conn, const struct packet *packet,
			       struct segment *segment)
{
	uint32_t first = segment->seq;

	if (paws_rejects(conn, segment) || !fit_window(conn, segment)) {
		if (segment->flags & TCP_RST)
			return;
		if (conn->state == TCP_SYN_RECEIVED && segment->flags & TCP_SYN) {
			tcp_send_syn(conn);
			return;
		}
		tcp_challenge(conn);
		/* An acknowledgement in it is good all the same when the window is shut. */
		if (!(segment->flags & TCP_ACK) || segment->seq != conn->rcv_nxt)
			return;
		segment->len = 0;
		segment->flags &= (uint8_t)~TCP_FIN;
	}
	if (segment->flags & TCP_RST) {
		segment->seq = first;
		reset_input(conn, segment);
		return;
	}
	if (segment->flags & TCP_SYN) {	/* RFC 5961, 4.2 */
		tcp_challenge(conn);
		return;
	}
	if (!(segment->flags & TCP_ACK))
		return;
	take_timestamp(conn, segment);
	if (conn->state == TCP_SYN_RECEIVED && !complete_handshake(conn, packet, segment))
		return;
	if (!tcp_acknowledge(conn, segment))
		return;
	if (!conn->ops && segment->len) {	/* there is nobody to take it: RFC 9293, 3.6.1 */
		/* Of the number that the peer expects; ours may be ahead of what it has. */
		tcp_reply_rst(conn->net, packet, segment);
		tcp_end(conn, NET_ECONNABORTED);
		return;
	}
	if (segment->len || segment->flags & TCP_FIN)
		tcp_receive(conn, packet, segment);
	if (conn->dead)
		return;
	tcp_end_if_done(conn);
	if (!conn->dead && (conn->send.len || conn->fin_queued || conn->ack_now))
		tcp_output(conn);
}

void tcp_input(struct net *net, struct packet *packet)
{
	struct net_endpoint local, remote;
	struct tcp_conn *conn;
	struct segment segment;

	if (!parse(net, packet, &segment))
		return;
	local = (struct net_endpoint){ packet->dst, get16(packet->head + packet->at + 2) };
	remote = (struct net_endpoint){ packet->src, get16(packet->head + packet->at) };
	conn = tcp_find(net, &local, &remote);
	if (!conn) {
		if (net->tcp->wait_count && waiting_input(net, &segment, &local, &remote))
			return;
		if ((segment.flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) == TCP_SYN)
			request(net, packet, &segment, &local, &remote);
		else
			tcp_reply_rst(net, packet, &segment);
		return;
	}
	conn->segments_in++;
	conn->heard_at = net->now;
	conn->probes = 0;
	if (!(segment.flags & TCP_SYN))
		segment.window <<= conn->send_shift;
	if (conn->state == TCP_SYN_SENT)
		syn_sent_input(conn, packet, &segment);
	else if (conn->state != TCP_REQUESTED)
		synchronized_input(conn, packet, &segment);
	else if (segment.flags & TCP_RST && segment.seq == conn->rcv_nxt)
		tcp_end(conn, NET_ECONNRESET);
}
