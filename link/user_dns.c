/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Look-ups of the guest: answered from the table of names, else asked of the
 * host's name servers, one after the other, from a new socket each time, so that
 * port and id cannot be guessed (RFC 5452, 9.2).
 */
#include "link/user_private.h"

#include "link/policy.h"
#include "os/err.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define TRY_NS (2 * S_NS)	/* for one server to answer */
#define TRIES 4u	/* in all: servers in turns */

struct lookup {
	struct user *user;
	unsigned index;	/* of user.lookup[] */
	int fd;	/* to the server asked last, -1 */
	struct loop_source *source;
	struct net_endpoint client, server;	/* the guest's program; our address it asked */
	struct dns_query query;
	uint16_t id;	/* what we ask with */
	unsigned tries;
	uint64_t until_ns;
	size_t len;
	uint8_t message[];	/* the guest's query */
};

static void close_socket(struct lookup *l)
{
	loop_remove(l->source);
	l->source = NULL;
	if (l->fd >= 0)
		(void)close(l->fd);
	l->fd = -1;
}

static void lookup_free(struct lookup *l)
{
	close_socket(l);
	l->user->lookup[l->index] = NULL;
	free(l);
}

static void answer(struct user *u, const struct net_endpoint *server, const struct net_endpoint *client,
		   const void *message, size_t len)
{
	const struct net_span span = { message, len };
	const struct udp_datagram d = { .from = *server, .to = *client, .spans = &span, .count = 1, .len = len };

	(void)udp_send(u->net, &d);
}

static void fail(struct lookup *l)
{
	uint8_t out[DNS_UDP_MIN];
	size_t len = dns_error(&l->query, l->message, l->len, DNS_SERVFAIL, out, sizeof(out));

	if (len)
		answer(l->user, &l->server, &l->client, out, len);
	lookup_free(l);
}

static void learn(struct lookup *l, const uint8_t *message, size_t len)
{
	struct dns_reader reader;
	struct dns_record record;

	if (!l->user->policy || !policy_has_names(l->user->policy) || !dns_read_answers(&reader, message, len))
		return;
	while (dns_next_answer(&reader, &record) > 0)
		if (record.type == DNS_A || record.type == DNS_AAAA)
			policy_learn(l->user->policy, l->query.name, &record.addr, record.ttl_s, l->user->now_ns);
}

static void on_server(void *ctx, uint32_t events);

/* Asks the next server; gives up after the last try. */
static void ask(struct lookup *l)
{
	struct user *u = l->user;

	while (l->tries < TRIES && u->nnameservers) {
		const struct net_endpoint *server = &u->nameserver[l->tries++ % u->nnameservers];
		union host_addr addr;
		socklen_t len = host_addr_make(server, &addr);

		close_socket(l);
		l->fd = user_socket(u, &server->addr, SOCK_DGRAM, 0);
		if (l->fd < 0 || getrandom(&l->id, sizeof(l->id), 0) < 0 || connect(l->fd, &addr.any, len) < 0 ||
		    loop_add_fd(u->loop, l->fd, EPOLLIN, on_server, l, &l->source, NULL) < 0)
			continue;
		dns_set_id(l->message, l->id);
		if (send(l->fd, l->message, l->len, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
			continue;
		l->until_ns = u->now_ns + TRY_NS;
		return;
	}
	fail(l);
}

static void on_server(void *ctx, uint32_t events)
{
	struct lookup *l = ctx;
	struct user *u = l->user;
	ssize_t n;
	size_t len;

	(void)events;
	user_enter(u);
	n = recv(l->fd, u->buffer, sizeof(u->buffer), MSG_DONTWAIT);
	if (n < 0 && errno != EAGAIN) {
		ask(l);	/* nobody is there */
	} else if (n > 0 && dns_is_response(u->buffer, (size_t)n, &l->query, l->id)) {
		learn(l, u->buffer, (size_t)n);
		dns_set_id(u->buffer, l->query.id);
		len = dns_truncate(u->buffer, (size_t)n, l->query.udp_size);
		answer(u, &l->server, &l->client, u->buffer, len);
		lookup_free(l);
	}
	user_leave(u);
}

/* Starts a look-up.  Without room the guest's program asks again by itself. */
static void forward(struct user *u, const struct net_endpoint *server, const struct net_endpoint *client,
		    const struct dns_query *query, const uint8_t *message, size_t len)
{
	struct lookup *l;
	unsigned i = 0;

	while (i < LOOKUPS_MAX && u->lookup[i])
		i++;
	l = i < LOOKUPS_MAX ? calloc(1, sizeof(*l) + len) : NULL;
	if (!l)
		return;
	*l = (struct lookup){ .user = u, .index = i, .fd = -1, .client = *client, .server = *server,
			      .query = *query, .len = len };
	memcpy(l->message, message, len);
	u->lookup[i] = l;
	user_want_seconds(u);
	ask(l);
}

static void on_query(struct udp_service *service, struct net *net, const struct udp_datagram *d,
		     const uint8_t from_mac[NET_MAC_SIZE])
{
	struct user *u = ((struct dns_server *)service)->user;
	uint8_t message[DNS_UDP_MIN * 4], out[DNS_UDP_MIN * 8];
	struct dns_query query;
	size_t len = 0;
	int n;

	(void)net;
	(void)from_mac;
	if (d->len > sizeof(message) || d->gso_size)
		return;	/* no question is that long */
	for (unsigned i = 0; i < d->count; i++) {
		memcpy(message + len, d->spans[i].data, d->spans[i].len);
		len += d->spans[i].len;
	}
	if (dns_parse_query(message, len, &query) != NET_OK) {
		len = dns_error(NULL, message, len, DNS_FORMERR, out, sizeof(out));
		if (len)
			answer(u, &d->to, &d->from, out, len);
		return;
	}
	n = dns_answer(&u->names, &query, message, len, query.udp_size, out, sizeof(out));
	if (n > 0)
		answer(u, &d->to, &d->from, out, (size_t)n);
	else
		forward(u, &d->to, &d->from, &query, message, len);
}

bool user_dns_tick(struct user *u)
{
	bool any = false;

	for (unsigned i = 0; i < LOOKUPS_MAX; i++) {
		if (u->lookup[i] && u->lookup[i]->until_ns < u->now_ns)
			ask(u->lookup[i]);
		any |= u->lookup[i] != NULL;
	}
	return any;
}

static int serve(struct user *u, struct dns_server *server, const struct net_addr *dns, struct err *err)
{
	*server = (struct dns_server){ .user = u, .service = { .local = { .addr = *dns, .port = DNS_PORT },
								.input = on_query } };
	return udp_serve(u->net, &server->service) == NET_OK ? 0 : err_set(err, -ENOMEM, "out of host memory");
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct link_user_peer *)a)->name, ((const struct link_user_peer *)b)->name);
}

/* One entry for each name, with the addresses of all that have it.  @peers is sorted.  Returns how many. */
static unsigned fill_table(struct dns_host *hosts, struct net_addr *addrs, char *text, const struct link_user_peer *peers,
			   unsigned n)
{
	unsigned count = 0;

	for (unsigned i = 0; i < n; i++) {
		struct dns_host *h = count ? &hosts[count - 1] : NULL;

		if (!h || strcmp(h->name, peers[i].name) != 0) {
			h = &hosts[count++];
			*h = (struct dns_host){ .name = text, .addrs = addrs };
			text = stpcpy(text, peers[i].name) + 1;
		}
		*addrs++ = peers[i].ip4;
		*addrs++ = peers[i].ip6;
		h->count += 2;
	}
	return count;
}

int link_user_peers(struct link *link, const struct link_user_peer *peers, unsigned n)
{
	struct user *u = (struct user *)link;
	struct link_user_peer *sorted = calloc(n + 1, sizeof(*sorted));
	struct dns_host *hosts;
	struct net_addr *addrs;
	size_t text = 0;

	for (unsigned i = 0; i < n; i++)
		text += strlen(peers[i].name) + 1;
	/* The table, the addresses and the names, in one piece. */
	hosts = calloc(1, (n + 1) * sizeof(*hosts) + 2ul * n * sizeof(*addrs) + text);
	if (!sorted || !hosts) {
		free(sorted);
		free(hosts);
		return -ENOMEM;
	}
	if (n)
		memcpy(sorted, peers, n * sizeof(*sorted));
	qsort(sorted, n, sizeof(*sorted), by_name);
	/* Servers on 127.0.0.1 are many, on ::1 alone few, and simple programs try the first address only. */
	hosts[0] = (struct dns_host){
		.name = "host", .addrs = user_has(&u->ip4) ? &u->ip4.gateway : &u->ip6.gateway, .count = 1 };
	addrs = (struct net_addr *)(void *)(hosts + n + 1);
	n = fill_table(hosts + 1, addrs, (char *)(addrs + 2ul * n), sorted, n);
	free(sorted);
	free(u->hosts);
	u->hosts = hosts;
	u->names = (struct dns_table){ .hosts = hosts, .count = n + 1, .domain = u->domain, .ttl_s = 5 };
	return 0;
}

int user_dns_create(struct user *u, struct err *err)
{
	int r = link_user_peers(&u->link, NULL, 0);

	if (r < 0)
		return err_set(err, r, "out of host memory");
	if (user_has(&u->ip4))
		r = serve(u, &u->dns4, &u->ip4.dns, err);
	if (r == 0 && user_has(&u->ip6))
		r = serve(u, &u->dns6, &u->ip6.dns, err);
	return r;
}

void user_dns_destroy(struct user *u)
{
	for (unsigned i = 0; i < LOOKUPS_MAX; i++)
		if (u->lookup[i])
			lookup_free(u->lookup[i]);
	free(u->hosts);
}
