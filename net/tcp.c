/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of connections, their beginning and end, and what their owners call.
 *
 * Callbacks may end any connection, also the one they are about.  So nothing is
 * freed while a call is under way that may still look at it: it is marked dead, and
 * freed when the outermost call leaves (tcp_leave).
 */
#include "net/siphash.h"
#include "net/tcp_conn.h"

#define HASH_FIRST 64u	/* lists; doubled as connections come */
#define REQUEST_TIME (180 * SECOND)	/* by then every peer has given up asking */
#define WAIT_TIME (60 * SECOND)	/* 2 MSL: RFC 9293 says 4 minutes; everybody does with less */
#define PORT_FIRST 49152u	/* RFC 6335, 6 */
#define PORT_COUNT 16384u
#define SEND_FIRST (256u << 10)	/* bytes of send buffer before the window has grown */

static uint64_t hash_of(const struct net *net, const struct net_endpoint *local,
			const struct net_endpoint *remote)
{
	uint64_t words[5] = { local->addr.q[0], local->addr.q[1], remote->addr.q[0],
			      remote->addr.q[1], (uint64_t)local->port << 16 | remote->port };

	return siphash(net->key, words, 5);
}

static bool same_ends(const struct net_endpoint *a_local, const struct net_endpoint *a_remote,
		      const struct net_endpoint *b_local, const struct net_endpoint *b_remote)
{
	return a_local->port == b_local->port && a_remote->port == b_remote->port &&
	       net_addr_equal(&a_local->addr, &b_local->addr) &&
	       net_addr_equal(&a_remote->addr, &b_remote->addr);
}

struct tcp_conn *tcp_find(const struct net *net, const struct net_endpoint *local,
			  const struct net_endpoint *remote)
{
	const struct tcp_table *table = net->tcp;
	struct tcp_conn *conn = table->hash[hash_of(net, local, remote) & table->mask];

	while (conn && !same_ends(&conn->local, &conn->remote, local, remote))
		conn = conn->hash_next;
	return conn;
}

static void link_hash(struct tcp_conn *conn)
{
	struct tcp_table *table = conn->net->tcp;
	uint64_t hash = hash_of(conn->net, &conn->local, &conn->remote);

	conn->hash_next = table->hash[hash & table->mask];
	table->hash[hash & table->mask] = conn;
}

static void unlink_hash(struct tcp_conn *conn)
{
	struct tcp_table *table = conn->net->tcp;
	uint64_t hash = hash_of(conn->net, &conn->local, &conn->remote);
	struct tcp_conn **link = &table->hash[hash & table->mask];

	while (*link != conn)
		link = &(*link)->hash_next;
	*link = conn->hash_next;
}

static void grow_hash(struct net *net)
{
	struct tcp_table *table = net->tcp;
	struct tcp_conn **old = table->hash, *next;
	uint32_t old_size = table->mask + 1;
	struct tcp_conn **hash = net_alloc_zero(net, old_size * 2 * sizeof(struct tcp_conn *));

	if (!hash)
		return;	/* longer lists, then */
	table->hash = hash;
	table->mask = old_size * 2 - 1;
	for (uint32_t i = 0; i < old_size; i++) {
		for (struct tcp_conn *conn = old[i]; conn; conn = next) {
			next = conn->hash_next;
			link_hash(conn);
		}
	}
	net_free(net, old, old_size * sizeof(struct tcp_conn *));
}

/* The oldest request or handshake makes room for a new one. */
static void drop_embryonic(struct net *net)
{
	struct tcp_table *table = net->tcp;

	if (list_empty(&table->embryonic))
		return;
	net->stats.tcp_embryonic_dropped++;
	tcp_end(list_entry(table->embryonic.next, struct tcp_conn, all), NET_ECONNABORTED);
}

struct tcp_conn *tcp_new(struct net *net, const struct net_endpoint *local,
			 const struct net_endpoint *remote)
{
	struct tcp_table *table = net->tcp;
	struct tcp_conn *conn;

	if (table->embryonic_count >= net->limits.tcp_embryonic || table->count >= net->limits.tcp_conns)
		drop_embryonic(net);
	if (table->count >= net->limits.tcp_conns) {
		net->stats.no_memory++;
		return NULL;
	}
	conn = net_alloc_zero(net, sizeof(*conn));
	if (!conn)
		return NULL;
	if (!timer_init(net, &conn->timer, tcp_timer)) {
		net_free(net, conn, sizeof(*conn));
		return NULL;
	}
	conn->net = net;
	conn->local = *local;
	conn->remote = *remote;
	conn->heard_at = net->now;
	list_init(&conn->all);
	list_init(&conn->work);
	list_append(&table->embryonic, &conn->all);
	table->embryonic_count++;
	if (++table->count > table->mask)
		grow_hash(net);
	link_hash(conn);
	return conn;
}

void tcp_established(struct tcp_conn *conn)
{
	struct tcp_table *table = conn->net->tcp;

	conn->state = conn->fin_queued ? TCP_FIN_WAIT_1 : TCP_ESTABLISHED;
	conn->end_due = 0;
	table->embryonic_count--;
	list_append(&table->established, &conn->all);
	conn->tune_at = conn->net->now;
	if (conn->keep_idle_ms)
		conn->keep_due = conn->net->now + conn->keep_idle_ms * MS;
	if (conn->peer_asked)
		conn->net->stats.tcp_accepted++;
	else
		conn->net->stats.tcp_opened++;
	if (conn->ops && conn->ops->connected)
		conn->ops->connected(conn);
}

void tcp_end(struct tcp_conn *conn, enum net_result reason)
{
	struct tcp_table *table = conn->net->tcp;

	if (conn->dead)
		return;
	conn->dead = true;
	if (conn->state < TCP_ESTABLISHED)
		table->embryonic_count--;
	conn->state = TCP_CLOSED;
	table->count--;
	unlink_hash(conn);
	list_remove(&conn->work);
	list_append(&table->dead, &conn->all);
	timer_finish(conn->net, &conn->timer);
	if (conn->ops && conn->ops->closed)
		conn->ops->closed(conn, reason);
}

static void free_conn(struct tcp_conn *conn)
{
	struct net *net = conn->net;

	list_remove(&conn->all);
	chunks_clear(net, &conn->send);
	chunks_clear(net, &conn->kept);
	tcp_free_early(conn);
	sack_clear(conn);
	net_free(net, conn, sizeof(*conn));
}

void tcp_enter(struct net *net)
{
	net->tcp->depth++;
}

void tcp_leave(struct net *net)
{
	struct tcp_table *table = net->tcp;

	if (--table->depth)
		return;
	while (!list_empty(&table->dead))
		free_conn(list_entry(table->dead.next, struct tcp_conn, all));
}

/* TIME_WAIT (RFC 9293, 3.6.1), in little memory and without the owner. */

static struct time_wait **wait_bucket(const struct net *net, const struct net_endpoint *local,
				      const struct net_endpoint *remote)
{
	return &net->tcp->wait_hash[hash_of(net, local, remote) & net->tcp->wait_mask];
}

struct time_wait *tcp_find_waiting(const struct net *net, const struct net_endpoint *local,
				   const struct net_endpoint *remote)
{
	struct time_wait *wait = *wait_bucket(net, local, remote);

	while (wait && !same_ends(&wait->local, &wait->remote, local, remote))
		wait = wait->hash_next;
	return wait;
}

void tcp_forget_waiting(struct net *net, struct time_wait *wait)
{
	struct time_wait **link = wait_bucket(net, &wait->local, &wait->remote);

	while (*link != wait)
		link = &(*link)->hash_next;
	*link = wait->hash_next;
	list_remove(&wait->all);
	net->tcp->wait_count--;
	net_free(net, wait, sizeof(*wait));
}

static struct time_wait *oldest_waiting(const struct net *net)
{
	return list_entry(net->tcp->waiting.next, struct time_wait, all);
}

void tcp_wait_again(struct net *net, struct time_wait *wait)
{
	wait->ends_at = net->now + WAIT_TIME;
	list_append(&net->tcp->waiting, &wait->all);
}

static void wait_expired(struct net *net, struct timer *timer)
{
	struct tcp_table *table = net->tcp;

	while (!list_empty(&table->waiting) && oldest_waiting(net)->ends_at <= net->now)
		tcp_forget_waiting(net, oldest_waiting(net));
	if (!list_empty(&table->waiting))
		timer_set(net, &table->wait_timer, oldest_waiting(net)->ends_at);
}

static void begin_waiting(const struct tcp_conn *conn)
{
	struct net *net = conn->net;
	struct tcp_table *table = net->tcp;
	struct time_wait *wait, **link;

	if (table->wait_count >= net->limits.tcp_time_wait)
		tcp_forget_waiting(net, oldest_waiting(net));
	wait = net_alloc(net, sizeof(*wait));
	if (!wait)
		return;
	*wait = (struct time_wait){ .local = conn->local, .remote = conn->remote,
				    .snd_nxt = conn->snd_nxt, .rcv_nxt = conn->rcv_nxt,
				    .ts_recent = conn->ts_recent, .ts_offset = conn->ts_offset,
				    .timestamps = conn->timestamps };
	list_init(&wait->all);
	link = wait_bucket(net, &conn->local, &conn->remote);
	wait->hash_next = *link;
	*link = wait;
	table->wait_count++;
	tcp_wait_again(net, wait);
	if (!table->wait_timer.due)
		timer_set(net, &table->wait_timer, wait->ends_at);
}

void tcp_end_if_done(struct tcp_conn *conn)
{
	bool acked = conn->fin_sent && conn->snd_una == conn->snd_nxt;

	if (conn->dead || !acked || !conn->fin_seen || (conn->ops && !conn->fin_told))
		return;
	if (conn->ack_now)
		tcp_output(conn);
	if (conn->state != TCP_LAST_ACK)	/* we ended first */
		begin_waiting(conn);
	tcp_end(conn, NET_OK);
}

/* Listeners and requests. */

static struct tcp_listener *find_listener(const struct net *net, const struct net_endpoint *local)
{
	struct tcp_listener *any = NULL;

	for (struct tcp_listener *at = net->tcp->listeners; at; at = at->next) {
		if (at->local.port != local->port)
			continue;
		if (net_addr_equal(&at->local.addr, &local->addr))
			return at;
		if (net_addr_is_zero(&at->local.addr) && net_is_own(net, &local->addr))
			any = at;
	}
	return any;
}

int tcp_listen(struct net *net, struct tcp_listener *listener)
{
	for (struct tcp_listener *at = net->tcp->listeners; at; at = at->next)
		if (at->local.port == listener->local.port &&
		    net_addr_equal(&at->local.addr, &listener->local.addr))
			return NET_EADDRINUSE;
	listener->next = net->tcp->listeners;
	net->tcp->listeners = listener;
	return NET_OK;
}

void tcp_unlisten(struct net *net, struct tcp_listener *listener)
{
	struct tcp_listener **link = &net->tcp->listeners;

	while (*link && *link != listener)
		link = &(*link)->next;
	if (*link)
		*link = listener->next;
}

void tcp_asked(struct net *net, struct tcp_conn *conn)
{
	struct tcp_listener *listener = find_listener(net, &conn->local);

	conn->end_due = net->now + REQUEST_TIME;
	tcp_arm(conn);
	if (listener)
		listener->request(listener, conn);
	else if (net->proxy && net->ops->tcp_request)
		net->ops->tcp_request(net->ctx, conn);
	else
		tcp_refuse(conn);
}

/* What owners call. */

void tcp_set_owner(struct tcp_conn *conn, const struct tcp_ops *ops, void *user)
{
	conn->ops = ops;
	conn->user = user;
}

void *tcp_user(const struct tcp_conn *conn)
{
	return conn->user;
}

struct net *tcp_net(const struct tcp_conn *conn)
{
	return conn->net;
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

uint32_t tcp_send_limit(const struct tcp_conn *conn)
{
	/* Twice what may be in flight, so that the next flight is ready when this is acknowledged. */
	uint32_t limit = max_of(SEND_FIRST, min_of(conn->cwnd, UINT32_MAX / 2) * 2);

	return min_of(limit, conn->net->limits.tcp_send_max);
}

size_t tcp_reserve(struct tcp_conn *conn, size_t want, struct net_room *rooms, unsigned max,
		   unsigned *ret_count)
{
	uint32_t limit = tcp_send_limit(conn), used = conn->send.len;
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
	uint32_t limit = tcp_send_limit(conn);

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
		.mss = (uint16_t)(conn->mss - (conn->timestamps ? 12 : 0)), .sack = conn->sack,
		.timestamps = conn->timestamps, .window_scaling = conn->scaling,
	};
}

static void each_of(struct list *list, void (*each)(struct tcp_conn *conn, void *arg), void *arg)
{
	for (struct list *at = list->next, *next; at != list; at = next) {
		next = at->next;
		each(list_entry(at, struct tcp_conn, all), arg);
	}
}

void tcp_for_each(struct net *net, void (*each)(struct tcp_conn *conn, void *arg), void *arg)
{
	tcp_enter(net);
	each_of(&net->tcp->embryonic, each, arg);
	each_of(&net->tcp->established, each, arg);
	tcp_leave(net);
}

/* What the rest of net/ calls. */

void tcp_output_ready(struct net *net)
{
	struct list *blocked = &net->tcp->blocked;

	/* In turn: one that is blocked again goes to the end, and all that follow would be too. */
	while (!list_empty(blocked)) {
		struct tcp_conn *conn = list_entry(blocked->next, struct tcp_conn, work);

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

void tcp_count(const struct net *net, uint32_t *ret_conns, uint32_t *ret_time_wait)
{
	*ret_conns = net->tcp->count;
	*ret_time_wait = net->tcp->wait_count;
}

bool tcp_must_flush(const struct net *net)
{
	return !list_empty(&net->tcp->flush);
}

bool tcp_init(struct net *net)
{
	struct tcp_table *table = net_alloc_zero(net, sizeof(*table));
	uint32_t waits = HASH_FIRST;

	if (!table)
		return false;
	net->tcp = table;
	list_init(&table->embryonic);
	list_init(&table->established);
	list_init(&table->dead);
	list_init(&table->flush);
	list_init(&table->blocked);
	list_init(&table->waiting);
	while (waits < net->limits.tcp_time_wait && waits < 16384)
		waits *= 2;
	table->mask = HASH_FIRST - 1;
	table->wait_mask = waits - 1;
	table->hash = net_alloc_zero(net, HASH_FIRST * sizeof(struct tcp_conn *));
	table->wait_hash = net_alloc_zero(net, waits * sizeof(struct time_wait *));
	return table->hash && table->wait_hash && timer_init(net, &table->wait_timer, wait_expired);
}

static void bury(struct tcp_conn *conn, void *arg)
{
	conn->ops = NULL;
	tcp_end(conn, NET_ECONNABORTED);
}

void tcp_destroy(struct net *net)
{
	struct tcp_table *table = net->tcp;

	if (!table)
		return;
	if (table->hash)
		tcp_for_each(net, bury, NULL);
	while (!list_empty(&table->waiting))
		tcp_forget_waiting(net, oldest_waiting(net));
	if (table->wait_timer.fire)
		timer_finish(net, &table->wait_timer);
	if (table->hash)
		net_free(net, table->hash, (table->mask + 1) * sizeof(struct tcp_conn *));
	if (table->wait_hash)
		net_free(net, table->wait_hash, (table->wait_mask + 1) * sizeof(struct time_wait *));
	net_free(net, table, sizeof(*table));
}
