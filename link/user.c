/* SPDX-License-Identifier: Apache-2.0 */
#include "link/user_private.h"

#include "link/policy.h"
#include "net/dhcp4.h"
#include "net/dhcp6.h"
#include "net/ra.h"
#include "os/err.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#define LEASE_S 86400u
#define MEMORY_MAX (256u << 20)	/* bytes of all buffers of a guest's connections */

const uint8_t link_user_mac[NET_MAC_SIZE] = { 0x02, 'r', 'o', 'u', 'x', 0x01 };

/* ------------------------------------------------------------------- host */

socklen_t host_addr_make(const struct net_endpoint *ep, union host_addr *ret_addr)
{
	memset(ret_addr, 0, sizeof(*ret_addr));
	if (net_addr_is4(&ep->addr)) {
		ret_addr->in.sin_family = AF_INET;
		ret_addr->in.sin_port = htons(ep->port);
		memcpy(&ret_addr->in.sin_addr, &ep->addr.b[12], 4);
		return sizeof(ret_addr->in);
	}
	ret_addr->in6.sin6_family = AF_INET6;
	ret_addr->in6.sin6_port = htons(ep->port);
	memcpy(&ret_addr->in6.sin6_addr, ep->addr.b, 16);
	return sizeof(ret_addr->in6);
}

struct net_endpoint host_addr_read(const union host_addr *addr)
{
	if (addr->any.sa_family == AF_INET)
		return (struct net_endpoint){ net_addr4_from(&addr->in.sin_addr), ntohs(addr->in.sin_port) };
	return (struct net_endpoint){ net_addr6_from(&addr->in6.sin6_addr), ntohs(addr->in6.sin6_port) };
}

int user_socket(struct user *u, const struct net_addr *like, int type, int protocol)
{
	return u->host->socket(u->host->ctx, net_addr_is4(like) ? AF_INET : AF_INET6, type, protocol);
}

enum icmp_kind user_icmp_kind(int error)
{
	switch (error) {
	case ENETUNREACH:
	case EAFNOSUPPORT:
		return ICMP_NET_UNREACHABLE;
	case EACCES:
	case EPERM:
		return ICMP_PROHIBITED;
	case ECONNREFUSED:
		return ICMP_PORT_UNREACHABLE;
	default:
		return ICMP_HOST_UNREACHABLE;
	}
}

/* --------------------------------------------------------------- addresses */

static const struct link_user_address *family(const struct user *u, const struct net_addr *addr)
{
	return net_addr_is4(addr) ? &u->ip4 : &u->ip6;
}

bool user_is_dns(const struct user *u, const struct net_addr *addr)
{
	return net_addr_equal(&family(u, addr)->dns, addr);
}

static bool is_loopback(const struct net_addr *addr)
{
	static const struct net_addr six = { .b = { [15] = 1 } };

	return net_addr_is4(addr) ? addr->b[12] == 127 : net_addr_equal(addr, &six);
}

/* Addresses that no router sends on (RFC 1122, 3.2.1.3; RFC 3927, 2.6.2; RFC 4291, 2.5). */
static bool is_local(const struct net_addr *addr)
{
	static const struct net_addr none;

	if (is_loopback(addr) || net_addr_equal(addr, &none))
		return true;
	if (net_addr_is4(addr))
		return addr->b[12] == 0 || addr->b[12] >= 224 || (addr->b[12] == 169 && addr->b[13] == 254);
	return addr->b[0] == 0xff || (addr->b[0] == 0xfe && (addr->b[1] & 0xc0) == 0x80);
}

bool user_outside(const struct user *u, const struct net_endpoint *to, struct net_endpoint *ret_to)
{
	const struct link_user_address *own = family(u, &to->addr);

	*ret_to = *to;
	if (u->internal)
		return false;
	if (net_addr_equal(&own->dns, &to->addr)) {
		*ret_to = u->nameserver[0];
		return to->port == DNS_PORT && u->nnameservers;
	}
	if (net_addr_equal(&own->gateway, &to->addr)) {
		ret_to->addr = net_addr_is4(&to->addr) ? net_addr4(127, 0, 0, 1) : (struct net_addr){ .b = { [15] = 1 } };
		return u->host_loopback;
	}
	return !is_local(&to->addr) && !(user_has(own) && net_addr_same_prefix(&own->guest, &to->addr, own->prefix));
}

struct net_addr user_inside(const struct user *u, const struct net_addr *from)
{
	const struct link_user_address *own = user_has(family(u, from)) ? family(u, from) : &u->ip4;

	if (own != family(u, from) || is_local(from) || net_addr_same_prefix(&own->guest, from, own->prefix))
		return own->gateway;
	return *from;
}

const struct net_addr *user_guest(const struct user *u, const struct net_addr *like)
{
	return user_has(family(u, like)) ? &family(u, like)->guest : &u->ip4.guest;
}

/* -------------------------------------------------------------------- time */

static void user_now(struct user *u)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	u->now_ns = (uint64_t)t.tv_sec * S_NS + (uint64_t)t.tv_nsec;
}

void user_enter(struct user *u)
{
	user_now(u);
	net_clock(u->net, u->now_ns);
}

/* A timer that fires early does no harm, and setting it costs a system call. */
static bool needs_timer(const struct user *u)
{
	uint64_t due = net_deadline(u->net);

	return due && (!u->armed_ns || u->armed_ns > due);
}

void user_leave(struct user *u)
{
	uint64_t due = net_deadline(u->net);

	/* A busy loop may not get round to its timers for long. */
	if (due && due <= u->now_ns)
		net_timers(u->net, u->now_ns);
	net_flush(u->net, u->now_ns);
	if (needs_timer(u))
		loop_set_idle(u->idle);
}

/* What comes while the loop still looks for events may have made the timer needless. */
static void on_idle(void *ctx)
{
	struct user *u = ctx;
	uint64_t due = net_deadline(u->net);

	if (!needs_timer(u))
		return;
	user_now(u);
	if (loop_set_timer(u->timer, due > u->now_ns ? due - u->now_ns : 1, 0) == 0)
		u->armed_ns = due;
}

static void on_timer(void *ctx)
{
	struct user *u = ctx;

	u->armed_ns = 0;
	user_enter(u);
	net_timers(u->net, u->now_ns);
	user_leave(u);
}

void user_want_seconds(struct user *u)
{
	if (!u->seconds_on)
		u->seconds_on = loop_set_timer(u->seconds, S_NS, S_NS) == 0;
}

static void on_second(void *ctx)
{
	struct user *u = ctx;
	bool more;

	user_enter(u);
	more = user_datagram_tick(u);
	more |= user_dns_tick(u);
	more |= user_publish_tick(u);
	if (!more) {
		(void)loop_set_timer(u->seconds, 0, 0);
		u->seconds_on = false;
	}
	user_leave(u);
}

/* -------------------------------------------------------------------- link */

static int user_send(struct link *link, const struct link_frame *frame)
{
	struct user *u = (struct user *)link;
	struct net_frame f = {
		.spans = (const struct net_span *)(const void *)frame->iov,
		.count = frame->niov,
		.len = frame->len,
		.csum_partial = frame->hdr.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM,
		.csum_good = frame->hdr.flags & VIRTIO_NET_HDR_F_DATA_VALID,
		.gso = (enum net_gso)(frame->hdr.gso_type & ~VIRTIO_NET_HDR_GSO_ECN),
		.csum_start = frame->hdr.csum_start,
		.csum_offset = frame->hdr.csum_offset,
		.gso_size = frame->hdr.gso_size,
		.hdr_len = frame->hdr.hdr_len,
	};

	if (frame->niov > NET_SPANS_MAX)
		return -EMSGSIZE;
	user_enter(u);
	net_input(u->net, &f, u->now_ns);
	return 0;
}

static void user_flush(struct link *link)
{
	user_leave((struct user *)link);
}

static void user_ready(struct link *link)
{
	struct user *u = (struct user *)link;

	user_enter(u);
	net_output_ready(u->net, u->now_ns);
	user_leave(u);
}

static void user_offloads(struct link *link, unsigned offloads)
{
	struct user *u = (struct user *)link;

	net_set_offloads(u->net, (offloads & LINK_CSUM ? NET_OFFLOAD_CSUM : 0u) |
				 (offloads & LINK_TSO4 ? NET_OFFLOAD_TSO4 : 0u) |
				 (offloads & LINK_TSO6 ? NET_OFFLOAD_TSO6 : 0u));
}

static bool net_out(void *ctx, const struct net_frame *frame)
{
	struct user *u = ctx;
	struct link_frame f = {
		.iov = (const struct iovec *)(const void *)frame->spans,
		.niov = frame->count,
		.len = frame->len,
		.hdr = {
			.flags = (uint8_t)((frame->csum_partial ? VIRTIO_NET_HDR_F_NEEDS_CSUM : 0) |
					   (frame->csum_good ? VIRTIO_NET_HDR_F_DATA_VALID : 0)),
			.gso_type = (uint8_t)frame->gso,
			.hdr_len = frame->hdr_len,
			.gso_size = frame->gso_size,
			.csum_start = frame->csum_start,
			.csum_offset = frame->csum_offset,
		},
	};

	return link_deliver(&u->link, &f) != -EAGAIN;
}

static void *net_alloc(void *ctx, size_t size)
{
	(void)ctx;
	return malloc(size);
}

static void net_free(void *ctx, void *ptr, size_t size)
{
	(void)ctx;
	(void)size;
	free(ptr);
}

static void net_random(void *ctx, void *buf, size_t len)
{
	(void)ctx;
	while (len) {
		ssize_t n = getrandom(buf, len, 0);

		if (n > 0) {
			buf = (uint8_t *)buf + n;
			len -= (size_t)n;
		}
	}
}

static const struct net_ops user_net_ops = {
	.alloc = net_alloc,
	.free = net_free,
	.random = net_random,
	.output = net_out,
	.tcp_request = user_tcp_request,
	.udp_input = user_udp_input,
	.echo_input = user_echo_input,
};

/* --------------------------------------------------------------- life time */

static void user_destroy(struct link *link)
{
	struct user *u = (struct user *)link;

	user_publish_destroy(u);
	user_tcp_destroy(u);
	user_datagram_destroy(u);
	user_dns_destroy(u);
	if (u->dhcp4)
		dhcp4_server_destroy(u->dhcp4);
	if (u->dhcp6)
		dhcp6_server_destroy(u->dhcp6);
	if (u->ra)
		ra_destroy(u->ra);
	if (u->net)
		net_destroy(u->net);
	loop_remove(u->timer);
	loop_remove(u->seconds);
	loop_remove(u->idle);
	policy_destroy(u->policy);
	link_finish(link);
	free(u->domain);
	free(u->hostname);
	free(u);
}

static const struct link_ops user_ops = {
	.name = "user",
	.send = user_send,
	.flush = user_flush,
	.ready = user_ready,
	.offloads = user_offloads,
	.destroy = user_destroy,
};

static bool reserved4(void *ctx, const uint8_t mac[NET_MAC_SIZE], struct net_addr *ret_addr,
		      char ret_name[DHCP4_NAME_MAX])
{
	const struct user *u = ctx;

	*ret_addr = u->ip4.guest;
	(void)snprintf(ret_name, DHCP4_NAME_MAX, "%s", u->hostname ? u->hostname : "");
	return memcmp(mac, u->link.mac, NET_MAC_SIZE) == 0;
}

static bool reserved6(void *ctx, const uint8_t mac[NET_MAC_SIZE], struct net_addr *ret_addr)
{
	const struct user *u = ctx;

	*ret_addr = u->ip6.guest;
	return memcmp(mac, u->link.mac, NET_MAC_SIZE) == 0;
}

/* For guests that are not told their addresses by roux's own init. */
static bool start_services(struct user *u, const struct link_user_config *c)
{
	if (user_has(&c->ip4)) {
		static const struct net_addr none;
		const struct dhcp4_server_config d = {
			.server = c->ip4.gateway, .prefix = c->ip4.prefix, .router = c->internal ? none : c->ip4.gateway,
			.dns = { c->ip4.dns }, .dns_count = 1, .domain = c->domain, .mtu = c->mtu,
			.lease_s = LEASE_S, .first = c->ip4.guest, .last = c->ip4.guest,
			.reserved = reserved4, .ctx = u,
		};

		u->dhcp4 = dhcp4_server_create(u->net, &d);
		if (!u->dhcp4)
			return false;
	}
	if (user_has(&c->ip6)) {
		const struct dhcp6_server_config d = { .dns = { c->ip6.dns }, .dns_count = 1, .search = c->domain,
						       .lease_s = LEASE_S, .reserved = reserved6, .ctx = u };
		const struct ra_config r = { .prefix = c->ip6.gateway, .prefix_len = c->ip6.prefix, .managed = true,
					     .other = true, .lifetime_s = LEASE_S, .router_lifetime_s = c->internal ? 0 : 9000,
					     .dns = { c->ip6.dns }, .dns_count = 1, .search = c->domain,
					     .mtu = c->mtu };

		u->dhcp6 = dhcp6_server_create(u->net, &d);
		u->ra = u->dhcp6 ? ra_create(u->net, &r) : NULL;
		return u->ra;
	}
	return true;
}

static int start_net(struct user *u, const struct link_user_config *c, struct err *err)
{
	const struct link_user_address *families[] = { &c->ip4, &c->ip6 };
	struct net_config n = { .mtu = c->mtu, .proxy = true, .limits = { .memory = MEMORY_MAX },
				.ops = &user_net_ops, .ctx = u };

	memcpy(n.mac, link_user_mac, sizeof(n.mac));
	for (unsigned i = 0; i < 2; i++) {
		if (!user_has(families[i]))
			continue;
		n.addrs[n.addr_count].addr = families[i]->gateway;
		n.addrs[n.addr_count++].prefix = families[i]->prefix;
		n.addrs[n.addr_count].addr = families[i]->dns;
		n.addrs[n.addr_count++].prefix = families[i]->prefix;
	}
	user_now(u);
	u->net = net_create(&n, u->now_ns);
	if (!u->net || !start_services(u, c))
		return err_set(err, -ENOMEM, "cannot start the user network: out of memory");
	return user_dns_create(u, err);
}

int link_user_create(struct loop *loop, const struct link_user_config *c, struct link **ret_link, struct err *err)
{
	struct user *u = calloc(1, sizeof(*u));
	int r;

	if (!u)
		return err_set(err, -ENOMEM, "out of host memory");
	link_init(&u->link, &user_ops, loop, c->mac, c->mtu);
	u->loop = loop;
	u->host = c->host;
	u->ip4 = c->ip4;
	u->ip6 = c->ip6;
	u->host_loopback = c->host_loopback;
	u->internal = c->internal;
	u->nnameservers = c->internal ? 0 : c->nnameservers;
	memcpy(u->nameserver, c->nameserver, sizeof(u->nameserver));
	u->domain = c->domain ? strdup(c->domain) : NULL;
	u->hostname = c->hostname ? strdup(c->hostname) : NULL;
	r = loop_add_timer(loop, on_timer, u, &u->timer, err);
	if (r == 0)
		r = loop_add_idle(loop, on_idle, u, &u->idle, err);
	if (r == 0)
		r = loop_add_timer(loop, on_second, u, &u->seconds, err);
	if (r == 0)
		r = start_net(u, c, err);
	if (r < 0) {
		user_destroy(&u->link);
		return r;
	}
	user_leave(u);
	u->policy = c->policy;
	*ret_link = &u->link;
	return 0;
}
