/* SPDX-License-Identifier: Apache-2.0 */
/* What owners of connections call (RFC 9293, 3.9.1), and what ICMP and the link have to say. */
#include "net/tcp_conn.h"

#define PORT_FIRST 49152u	/* RFC 6335, 6 */
#define PORT_COUNT 16384u
#define SEND_FIRST (256u << 10)	/* bytes of send buffer before the window has grown */

void tcp_set_owner(struct tcp_conn *conn, const struct tcp_ops *ops, void *user)
{
	conn->ops = ops;
	conn->user = user;
}

void *tcp_user(const struct tcp_conn *conn)
{
	return conn->user;
}

const struct net_endpoint *tcp_local(const struct tcp_conn *conn)
{
	return &conn->local;
}

const struct net_endpoint *tcp_remote(const struct tcp_conn *conn)
{
	return &conn->remote;
}

/* Ends without an event: the owner has said that it knows. */
static void end_quietly(struct tcp_conn *conn)
{
	tcp_enter(conn->net);
	conn->ops = NULL;
	tcp_end(conn, NET_OK);
	tcp_leave(conn->net);
}

void tcp_accept(struct tcp_conn *conn)
{
	if (conn->state != TCP_REQUESTED)
		return;
	conn->state = TCP_SYN_RECEIVED;
	conn->end_due = 0;
	tcp_send_syn(conn);
}

void tcp_refuse(struct tcp_conn *conn)
{
	if (conn->dead)
		return;
	conn->net->stats.tcp_refused++;
	tcp_send_rst(conn);
	end_quietly(conn);
}

void tcp_unreachable(struct tcp_conn *conn, enum icmp_kind why)
{
	struct icmp_error error = { .kind = why, .proto = PROTO_TCP, .sender = conn->remote,
				    .target = conn->local };
	uint8_t transport[8];

	if (conn->dead)
		return;
	put16(transport, conn->remote.port);
	put16(transport + 2, conn->local.port);
	put32(transport + 4, conn->irs);
	conn->net->stats.tcp_refused++;
	(void)icmp_send_quoting(conn->net, &error, transport);
	end_quietly(conn);
}

static bool choose_port(struct net *net, struct net_endpoint *local,
			const struct net_endpoint *remote)
{
	uint32_t start = net_random32(net) % PORT_COUNT;

	for (uint32_t i = 0; i < PORT_COUNT; i++) {	/* RFC 6056, 3.3.1 */
		local->port = (uint16_t)(PORT_FIRST + (start + i) % PORT_COUNT);
		if (!tcp_find(net, local, remote) && !tcp_find_waiting(net, local, remote))
			return true;
	}
	return false;
}

int tcp_connect(struct net *net, const struct net_endpoint *local,
		const struct net_endpoint *remote, const struct tcp_ops *ops, void *user,
		struct tcp_conn **ret_conn)
{
	struct net_endpoint from = *local;
	struct tcp_conn *conn;
	struct time_wait *wait;

	if (net_addr_is4(&from.addr) != net_addr_is4(&remote->addr) || !remote->port ||
	    net_addr_is_zero(&remote->addr) || net_addr_is_multicast(&remote->addr))
		return NET_EINVAL;
	if (net_addr_is_zero(&from.addr) && !net_source_for(net, &remote->addr, &from.addr))
		return NET_ENETUNREACH;
	if (!from.port && !choose_port(net, &from, remote))
		return NET_EADDRINUSE;
	if (tcp_find(net, &from, remote))
		return NET_EADDRINUSE;
	wait = tcp_find_waiting(net, &from, remote);
	if (wait)	/* RFC 6191: our clock is ahead of the old connection's */
		tcp_forget_waiting(net, wait);
	tcp_enter(net);
	conn = tcp_new(net, &from, remote);
	if (conn) {
		tcp_set_owner(conn, ops, user);
		tcp_prepare(conn);
		conn->state = TCP_SYN_SENT;
		tcp_send_syn(conn);
		*ret_conn = conn;
	}
	tcp_leave(net);
	return conn ? NET_OK : NET_ENOMEM;
}

/* Bytes of send buffer that it may have now. */
static uint32_t send_limit(const struct tcp_conn *conn)
{
	/* Twice what may be in flight, so that the next flight is ready when this is acknowledged. */
	uint32_t limit = max_of(SEND_FIRST, min_of(conn->cwnd, UINT32_MAX / 2) * 2);

	return min_of(limit, conn->net->limits.tcp_send_max);
}

size_t tcp_reserve(struct tcp_conn *conn, size_t want, struct net_room *rooms, unsigned max,
		   unsigned *ret_count)
{
	uint32_t limit = send_limit(conn), used = conn->send.len;
	size_t room = used < limit ? limit - used : 0, got = 0;

	*ret_count = 0;
	if (conn->dead || conn->fin_queued)
		return 0;
	if (room && want)
		got = chunks_reserve(conn->net, &conn->send, min_of(want, room), rooms, max, ret_count);
	if (got < want && (!got || room < want)) {
		conn->short_of_room = true;
		if (!conn->send.len)
			tcp_arm(conn);
	}
	return got;
}

void tcp_commit(struct tcp_conn *conn, size_t len)
{
	if (conn->dead || conn->fin_queued)
		return;
	chunks_commit(conn->net, &conn->send, len);
	if (len)
		tcp_output(conn);
}

size_t tcp_send(struct tcp_conn *conn, const void *data, size_t len)
{
	struct net_room rooms[8];
	const uint8_t *at = data;
	size_t got, done = 0;
	unsigned count;

	while (done < len && (got = tcp_reserve(conn, len - done, rooms, 8, &count))) {
		for (unsigned i = 0; i < count; i++) {
			__builtin_memcpy(rooms[i].data, at + done, rooms[i].len);
			done += rooms[i].len;
		}
		chunks_commit(conn->net, &conn->send, got);
	}
	if (done)
		tcp_output(conn);
	return done;
}

void tcp_offer_room(struct tcp_conn *conn)
{
	uint32_t limit = send_limit(conn);

	if (!conn->short_of_room || conn->send.len > limit - limit / 4 || conn->fin_queued)
		return;
	conn->short_of_room = false;
	if (conn->ops && conn->ops->writable)
		conn->ops->writable(conn);
}

size_t tcp_unacked(const struct tcp_conn *conn)
{
	return conn->send.len;
}

void tcp_set_nagle(struct tcp_conn *conn, bool on)
{
	conn->nagle = on;
	if (!on)
		tcp_output(conn);
}

void tcp_set_keepalive(struct tcp_conn *conn, uint64_t idle_ns, uint64_t interval_ns, unsigned count)
{
	conn->keep_idle_ms = (uint32_t)min_of((idle_ns + MS - 1) / MS, UINT32_MAX);
	conn->keep_interval_ms = (uint32_t)min_of(max_of(interval_ns / MS, 1),
						  (uint64_t)UINT32_MAX);
	conn->keep_count = (uint8_t)min_of(count, 255u);
	conn->keep_due = conn->keep_idle_ms ? conn->net->now + conn->keep_idle_ms * MS : 0;
	tcp_arm(conn);
}

void tcp_shutdown(struct tcp_conn *conn)
{
	if (conn->dead || conn->fin_queued)
		return;
	chunks_commit(conn->net, &conn->send, 0);
	conn->fin_queued = true;
	conn->short_of_room = false;
	if (conn->state == TCP_ESTABLISHED)
		conn->state = TCP_FIN_WAIT_1;
	else if (conn->state == TCP_CLOSE_WAIT)
		conn->state = TCP_LAST_ACK;
	tcp_output(conn);
}

void tcp_close(struct tcp_conn *conn)
{
	if (conn->dead)
		return;
	if (conn->state < TCP_ESTABLISHED || conn->kept.len || conn->early) {
		tcp_abort(conn);	/* something gets lost, and the peer is told */
		return;
	}
	conn->ops = NULL;
	tcp_shutdown(conn);
	if (conn->state == TCP_FIN_WAIT_2) {	/* shut down before */
		conn->end_due = conn->net->now + WAIT_TIME;
		tcp_arm(conn);
	}
	tcp_enter(conn->net);
	tcp_end_if_done(conn);
	tcp_leave(conn->net);
}

void tcp_abort(struct tcp_conn *conn)
{
	if (conn->dead)
		return;
	if (conn->state != TCP_SYN_SENT)
		tcp_send_rst(conn);
	end_quietly(conn);
}

void tcp_info(const struct tcp_conn *conn, struct tcp_info *ret_info)
{
	uint32_t sent = conn->snd_nxt - conn->snd_una;

	*ret_info = (struct tcp_info){
		.state = conn->state, .bytes_in = conn->bytes_in, .bytes_out = conn->bytes_out,
		.segments_in = conn->segments_in, .segments_out = conn->segments_out,
		.retransmits = conn->retransmits, .srtt_ns = conn->srtt, .rto_ns = conn->rto,
		.cwnd = conn->cwnd, .ssthresh = conn->ssthresh, .send_window = conn->snd_wnd,
		.recv_window = conn->rcv_adv - conn->rcv_nxt,
		.unsent = conn->send.len > sent ? conn->send.len - sent : 0,
		.unacked = min_of(sent, conn->send.len), .kept = conn->kept.len,
		.mss = (uint16_t)(conn->mss - (conn->timestamps ? TCP_TIMESTAMPS_SIZE : 0)), .sack = conn->sack,
		.timestamps = conn->timestamps, .window_scaling = conn->scaling,
	};
}

void tcp_output_ready(struct net *net)
{
	struct list *blocked = &net->tcp->blocked;

	/* In turn: one that is blocked again goes to the end, and all that follow would be too. */
	while (!list_empty(blocked)) {
		struct tcp_conn *conn = container_of(blocked->next, struct tcp_conn, work);

		list_remove(&conn->work);
		conn->blocked = false;
		tcp_output(conn);
		if (conn->blocked)
			return;
	}
}

static void lower_mss(struct tcp_conn *conn, uint32_t mtu)
{
	uint32_t mss = tcp_path_mss(conn->net, conn, mtu);
	bool v4 = net_addr_is4(&conn->local.addr);

	/* RFC 8201, 4: no path of IPv6 is that small, the message is to be discarded. */
	if (!v4 && mtu < MSS_MIN6 + TCP_SIZE + IP6_SIZE)
		return;
	if (mss >= conn->mss)
		return;
	conn->mss = (uint16_t)mss;
	if (conn->snd_nxt == conn->snd_una)
		return;
	conn->recovery = RECOVERY_TIMEOUT;	/* send all again; but it was not congestion */
	conn->recover = conn->snd_nxt;
	conn->high_rxt = conn->snd_una;
	tcp_output(conn);
}

void tcp_icmp_error(struct net *net, const struct icmp_error *error, uint32_t seq)
{
	struct tcp_conn *conn = tcp_find(net, &error->sender, &error->target);

	/* RFC 5927, 4.1: somebody who does not see our segments does not know the number. */
	if (!conn || seq_lt(seq, conn->snd_una) || !seq_lt(seq, conn->snd_nxt))
		return;
	if (error->kind == ICMP_TOO_BIG) {
		if (conn->state >= TCP_ESTABLISHED)
			lower_mss(conn, error->mtu);
		return;
	}
	if (conn->state != TCP_SYN_SENT)	/* soft: RFC 9293, 3.9.2.2 */
		return;
	if (error->kind == ICMP_NET_UNREACHABLE)
		tcp_end(conn, NET_ENETUNREACH);
	else if (error->kind == ICMP_PORT_UNREACHABLE || error->kind == ICMP_PROTOCOL_UNREACHABLE)
		tcp_end(conn, NET_ECONNREFUSED);
	else if (error->kind == ICMP_HOST_UNREACHABLE || error->kind == ICMP_PROHIBITED)
		tcp_end(conn, NET_EHOSTUNREACH);
}
