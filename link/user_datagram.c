/* SPDX-License-Identifier: Apache-2.0 */
/*
 * UDP and echo requests: a flow for each pair of ends, with a connected socket of
 * the host, so that answers come from there only and its errors reach the guest.
 * Clients of published ports have flows too, which use the port's own socket.
 *
 * Idle flows end as in Linux's connection tracking: soon when nothing ever
 * answered, later when something did.
 */
#include "link/user_private.h"

#include "link/policy.h"

#include <errno.h>
#include <netinet/ip_icmp.h>
#include <netinet/icmp6.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FLOWS_MAX 4096u
#define IDLE_NS (30 * S_NS)
#define IDLE_ANSWERED_NS (180 * S_NS)
#define BATCH 32	/* datagrams of one socket before others have their turn */

struct datagram_flow {
	struct user *user;
	struct datagram_flow *next, **at;	/* in its bucket */
	struct datagram_flow *older, *newer;
	struct net_endpoint guest, remote;	/* as the guest sees them; echo: ports are the id, twice */
	bool echo;
	bool answered;
	bool published;	/* @fd is the publisher's */
	int fd;
	struct loop_source *source;
	union host_addr client;	/* published: where answers go */
	socklen_t client_len;
	uint64_t used_ns;
};

static unsigned hash(const struct net_endpoint *a, const struct net_endpoint *b, bool echo)
{
	uint64_t h = a->addr.q[1] ^ a->addr.q[0] * 3 ^ b->addr.q[0] * 5 ^ b->addr.q[1] * 7;

	h ^= (uint64_t)a->port << 32 ^ (uint64_t)b->port << 16 ^ echo;
	h *= 0x9e3779b97f4a7c15ull;
	return (unsigned)(h >> 54) % FLOW_BUCKETS;
}

static bool same(const struct net_endpoint *a, const struct net_endpoint *b)
{
	return a->port == b->port && net_addr_equal(&a->addr, &b->addr);
}

static void unlink_age(struct datagram_flows *all, struct datagram_flow *f)
{
	*(f->older ? &f->older->newer : &all->oldest) = f->newer;
	*(f->newer ? &f->newer->older : &all->newest) = f->older;
}

static void link_age(struct datagram_flows *all, struct datagram_flow *f)
{
	f->older = all->newest;
	f->newer = NULL;
	*(all->newest ? &all->newest->newer : &all->oldest) = f;
	all->newest = f;
}

static void used(struct datagram_flow *f)
{
	f->used_ns = f->user->now_ns;
	unlink_age(&f->user->datagrams, f);
	link_age(&f->user->datagrams, f);
}

static void flow_free(struct datagram_flow *f)
{
	struct datagram_flows *all = &f->user->datagrams;

	*f->at = f->next;
	if (f->next)
		f->next->at = f->at;
	unlink_age(all, f);
	all->count--;
	loop_remove(f->source);
	if (!f->published)
		(void)close(f->fd);
	free(f);
}

static struct datagram_flow *find(const struct user *u, const struct net_endpoint *guest,
				  const struct net_endpoint *remote, bool echo)
{
	struct datagram_flow *f = u->datagrams.bucket[hash(guest, remote, echo)];

	while (f && !(f->echo == echo && same(&f->guest, guest) && same(&f->remote, remote)))
		f = f->next;
	return f;
}

/* A new flow on @fd, which stays the caller's on failure. */
static struct datagram_flow *flow_create(struct user *u, const struct net_endpoint *guest,
					 const struct net_endpoint *remote, bool echo, int fd)
{
	struct datagram_flows *all = &u->datagrams;
	struct datagram_flow *f, **bucket = &all->bucket[hash(guest, remote, echo)];

	if (all->count == FLOWS_MAX)
		flow_free(all->oldest);
	f = calloc(1, sizeof(*f));
	if (!f)
		return NULL;
	*f = (struct datagram_flow){ .user = u, .guest = *guest, .remote = *remote, .echo = echo, .fd = fd,
				     .next = *bucket, .at = bucket, .used_ns = u->now_ns };
	if (f->next)
		f->next->at = &f->next;
	*bucket = f;
	link_age(all, f);
	all->count++;
	user_want_seconds(u);
	return f;
}

bool user_datagram_tick(struct user *u)
{
	struct datagram_flow *f = u->datagrams.oldest, *newer;

	/* Oldest first; those that were answered live longer and are passed over. */
	for (; f && f->used_ns + IDLE_NS < u->now_ns; f = newer) {
		newer = f->newer;
		if (!f->answered || f->used_ns + IDLE_ANSWERED_NS < u->now_ns)
			flow_free(f);
	}
	return u->datagrams.count;
}

void user_datagram_destroy(struct user *u)
{
	while (u->datagrams.oldest)
		flow_free(u->datagrams.oldest);
}

/* ------------------------------------------------------------ host to guest */

static void tell_error(const struct datagram_flow *f, int error)
{
	const struct icmp_error e = { .kind = error == ECONNREFUSED ? ICMP_PORT_UNREACHABLE : user_icmp_kind(error),
				      .proto = f->echo ? (net_addr_is4(&f->guest.addr) ? ICMP_PROTO_ICMP :
									       ICMP_PROTO_ICMP6) :
							 ICMP_PROTO_UDP,
				      .sender = f->guest, .target = f->remote };

	(void)icmp_send_error(f->user->net, &e);
}

static void give_echo(const struct datagram_flow *f, const uint8_t *bytes, size_t len)
{
	bool v4 = net_addr_is4(&f->guest.addr);
	struct icmp_echo echo = { .from = f->remote.addr, .to = f->guest.addr, .reply = true,
				  .id = f->guest.port, .count = 1 };
	struct net_span span;

	/* Both headers have type, code, checksum, id and sequence number in eight bytes. */
	if (len < sizeof(struct icmphdr) || bytes[0] != (v4 ? ICMP_ECHOREPLY : ICMP6_ECHO_REPLY))
		return;
	echo.seq = (uint16_t)(bytes[6] << 8 | bytes[7]);
	span = (struct net_span){ bytes + sizeof(struct icmphdr), len - sizeof(struct icmphdr) };
	echo.spans = &span;
	echo.len = span.len;
	(void)icmp_send_echo(f->user->net, &echo);
}

static void give_datagram(struct user *u, const struct net_endpoint *from, const struct net_endpoint *to,
			  size_t len)
{
	const struct net_span span = { u->buffer, len };
	const struct udp_datagram d = { .from = *from, .to = *to, .spans = &span, .count = 1, .len = len };

	(void)udp_send(u->net, &d);
}

static void on_host(void *ctx, uint32_t events)
{
	struct datagram_flow *f = ctx;
	struct user *u = f->user;

	(void)events;
	user_enter(u);
	for (unsigned i = 0; i < BATCH; i++) {
		ssize_t n = recv(f->fd, u->buffer, sizeof(u->buffer), MSG_DONTWAIT);

		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0) {
			tell_error(f, errno);
			continue;
		}
		f->answered = true;
		used(f);
		if (f->echo)
			give_echo(f, u->buffer, (size_t)n);
		else
			give_datagram(u, &f->remote, &f->guest, (size_t)n);
	}
	user_leave(u);
}

/* ------------------------------------------------------------ guest to host */

/* A flow of the guest's own, with a connected socket.  NULL: the guest was told why not. */
static struct datagram_flow *open_flow(struct user *u, const struct net_endpoint *guest,
				       const struct net_endpoint *remote, bool echo)
{
	struct net_endpoint to;
	struct datagram_flow *f;
	union host_addr addr;
	socklen_t len;
	int fd, error;

	if (!user_outside(u, remote, &to))
		return NULL;
	if (echo)
		to.port = 0;
	fd = user_socket(u, &to.addr, SOCK_DGRAM,
			 !echo ? 0 : net_addr_is4(&to.addr) ? (int)IPPROTO_ICMP : (int)IPPROTO_ICMPV6);
	if (fd < 0)
		return NULL;
	f = flow_create(u, guest, remote, echo, fd);
	if (!f) {
		(void)close(fd);
		return NULL;
	}
	len = host_addr_make(&to, &addr);
	error = connect(fd, &addr.any, len) < 0 ? errno : 0;
	if (!error && loop_add_fd(u->loop, fd, EPOLLIN, on_host, f, &f->source, NULL) < 0)
		error = ENOMEM;
	if (error) {
		tell_error(f, error);
		flow_free(f);
		return NULL;
	}
	return f;
}

static void send_out(struct datagram_flow *f, const struct iovec *iov, unsigned n)
{
	struct msghdr msg = { .msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = n };

	if (f->published) {
		msg.msg_name = &f->client;
		msg.msg_namelen = f->client_len;
	}
	used(f);
	if (sendmsg(f->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && errno != EAGAIN && errno != EINTR)
		tell_error(f, errno);
}

static bool allowed(const struct user *u, enum policy_proto proto, const struct net_endpoint *to)
{
	return !u->policy || policy_allows(u->policy, proto, to, u->now_ns);
}

bool user_udp_input(void *ctx, const struct udp_datagram *d)
{
	struct user *u = ctx;
	struct datagram_flow *f = find(u, &d->from, &d->to, false);

	if (!f && !allowed(u, POLICY_UDP, &d->to)) {
		(void)icmp_send_error(u->net, &(struct icmp_error){ .kind = ICMP_PROHIBITED, .proto = ICMP_PROTO_UDP,
								    .sender = d->from, .target = d->to });
		return true;
	}
	if (!f)
		f = open_flow(u, &d->from, &d->to, false);
	if (!f)
		return false;
	send_out(f, (const struct iovec *)(const void *)d->spans, d->count);
	return true;
}

void user_echo_input(void *ctx, const struct icmp_echo *echo)
{
	struct user *u = ctx;
	struct net_endpoint guest = { .addr = echo->from, .port = echo->id };
	struct net_endpoint remote = { .addr = echo->to, .port = echo->id };
	struct net_endpoint portless = { .addr = echo->to };
	struct iovec iov[NET_SPANS_MAX + 1];
	uint8_t header[sizeof(struct icmphdr)] = { 0 };
	struct datagram_flow *f;

	if (echo->reply || !allowed(u, POLICY_ICMP, &portless))
		return;
	f = find(u, &guest, &remote, true);
	if (!f)
		f = open_flow(u, &guest, &remote, true);
	if (!f)
		return;
	header[0] = net_addr_is4(&echo->to) ? ICMP_ECHO : ICMP6_ECHO_REQUEST;
	header[6] = (uint8_t)(echo->seq >> 8);
	header[7] = (uint8_t)echo->seq;
	iov[0] = (struct iovec){ header, sizeof(header) };
	memcpy(&iov[1], echo->spans, echo->count * sizeof(iov[0]));
	send_out(f, iov, echo->count + 1);
}

/* --------------------------------------------------------------- published */

void user_datagram_receive(struct user *u, int fd, uint16_t guest_port)
{
	for (unsigned i = 0; i < BATCH; i++) {
		union host_addr addr;
		socklen_t len = sizeof(addr);
		ssize_t n = recvfrom(fd, u->buffer, sizeof(u->buffer), MSG_DONTWAIT, &addr.any, &len);
		struct net_endpoint from, to;
		struct datagram_flow *f;

		if (n < 0)
			return;
		from = host_addr_read(&addr);
		to = (struct net_endpoint){ .addr = *user_guest(u, &from.addr), .port = guest_port };
		from.addr = user_inside(u, &from.addr);
		f = find(u, &to, &from, false);
		if (!f)
			f = flow_create(u, &to, &from, false, fd);
		if (!f)
			continue;
		f->published = f->answered = true;
		f->client = addr;
		f->client_len = len;
		used(f);
		give_datagram(u, &from, &to, (size_t)n);
	}
}
