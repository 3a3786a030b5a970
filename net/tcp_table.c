/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of connections and their beginning and end: who listens, who is asked, what
 * remains as TIME_WAIT.
 *
 * Callbacks may end any connection, also the one they are about.  So nothing is
 * freed while a call is under way that may still look at it: it is marked dead, and
 * freed when the outermost call leaves (tcp_leave).
 */
#include "net/siphash.h"
#include "net/tcp_conn.h"

#define HASH_FIRST 64u	/* lists; doubled as connections come */
#define REQUEST_TIME (180 * SECOND)	/* by then every peer has given up asking */

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
	tcp_end(container_of(table->embryonic.next, struct tcp_conn, all), NET_ECONNABORTED);
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
		free_conn(container_of(table->dead.next, struct tcp_conn, all));
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
	return container_of(net->tcp->waiting.next, struct time_wait, all);
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

static void each_of(struct list *list, void (*each)(struct tcp_conn *conn, void *arg), void *arg)
{
	for (struct list *at = list->next, *next; at != list; at = next) {
		next = at->next;
		each(container_of(at, struct tcp_conn, all), arg);
	}
}

void tcp_for_each(struct net *net, void (*each)(struct tcp_conn *conn, void *arg), void *arg)
{
	tcp_enter(net);
	each_of(&net->tcp->embryonic, each, arg);
	each_of(&net->tcp->established, each, arg);
	tcp_leave(net);
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
