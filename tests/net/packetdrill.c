/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sockets on net/ in simulated time, in the form that packetdrill loads: see packetdrill.h.
 * Our own runner (pkt.c) calls the same functions.
 *
 *   script > socket calls     > struct sock > net/tcp.h
 *          > netdev_send      > Ethernet header added   > net_input
 *          < netdev_receive   < Ethernet header removed < output() (ARP and NDP are answered here)
 *          > usleep           > time passes, net_timers
 *
 * Nothing blocks: what would have to wait fails with EAGAIN.  A socket takes data off net/
 * when it comes, as the owners in link/ do; after setsockopt(SO_RCVBUF) only when it is read,
 * so that net/ keeps it and its window closes.  On a listener or before the first packet,
 * SO_RCVBUF is also the largest window (bytes).
 *
 * Addresses: the first one that bind() or a packet names is ours, everybody else is on the
 * link.  The MTU leaves 1460 bytes of payload to either kind of IP, so that scripts serve
 * both.  --so_flags=host: net/ as a host, else as a proxy.
 *
 * packetdrill closes with close(2) what a script left open: each socket has a descriptor of
 * the process.  It does not tell when packets are left over; we end the process then.
 */
#include "packetdrill.h"

#include "net/checksum.h"
#include "net/net.h"
#include "net/tcp.h"
#include "net/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define START 1000000000ull	/* ns */
#define PATIENCE 600000000000ull	/* ns to wait for a packet */

/* Options of SOL_TCP as Linux numbers them: <netinet/tcp.h> has other names in common with net/tcp.h. */
enum { TCP_NODELAY = 1, TCP_KEEPIDLE = 4, TCP_KEEPINTVL = 5, TCP_KEEPCNT = 6 };

#define NA_SIZE 32u	/* bytes of a neighbour advertisement with its option */

struct sent {	/* an IP packet of ours */
	struct sent *next;
	uint64_t at;	/* ns */
	uint32_t call;	/* of netdev_send during which it was sent */
	size_t len;
	uint8_t bytes[];
};

struct sock {
	struct sock *next;
	struct stack *stack;
	struct sock *listener;	/* whose request it was, until it is accepted */
	struct tcp_conn *conn;
	struct tcp_listener listen;
	struct net_endpoint local;
	int fd, flags, error;
	int failed;	/* of a listener: error of a request */
	bool v6, listening, deferred;
	bool waiting;	/* request without answer */
	bool connected, peer_closed, closed, shut;
	bool lazy;	/* takes data only when it is read */
	bool reset_at_close;	/* SO_LINGER with 0 */
	bool nagle, keepalive;
	unsigned keep_idle, keep_interval, keep_count;	/* s, s, probes */
	uint8_t *taken;	/* data that was taken and not read yet */
	size_t taken_len;
	uint8_t *want;	/* a read() is under way: where to, and how much */
	size_t want_len, got;
};

struct stack {
	struct net_config config;
	struct net *net;	/* NULL before there is something to do */
	uint64_t now;	/* ns */
	struct sock *socks;
	struct sent *first, **end;
	unsigned pending;	/* packets in the list */
	uint32_t calls;	/* of netdev_send */
	struct net_addr own, asked;	/* asked: for whose MAC address; zero: none */
	uint32_t random;
};

static const uint8_t our_mac[6] = { 2, 0, 0, 0, 0, 1 }, peer_mac[6] = { 2, 0, 0, 0, 0, 2 };

static int fail(int error)
{
	errno = error;
	return -1;
}

/* --- The link ------------------------------------------------------------------------------ */

static void *stack_alloc(void *ctx, size_t size)
{
	return malloc(size);
}

static void stack_dealloc(void *ctx, void *ptr, size_t size)
{
	free(ptr);
}

/* The same numbers each time: what fails once fails again. */
static void stack_random(void *ctx, void *buf, size_t len)
{
	struct stack *stack = ctx;

	for (size_t i = 0; i < len; i++) {
		stack->random = stack->random * 1103515245 + 12345;
		((uint8_t *)buf)[i] = (uint8_t)(stack->random >> 16);
	}
}

/* Takes what is between net/ and its neighbours alone; false: it is for the script. */
static bool take_query(struct stack *stack, uint16_t type, const uint8_t *packet, size_t len)
{
	if (type == ETH_ARP) {
		stack->asked = net_addr4_from(packet + 24);
		return true;
	}
	if (type != ETH_IP6 || packet[6] != PROTO_ICMP6 || packet[IP6_SIZE] < 128)
		return false;
	if (packet[IP6_SIZE] == 135 && len >= IP6_SIZE + 24)	/* neighbour solicitation */
		stack->asked = net_addr6_from(packet + IP6_SIZE + 8);
	return true;
}

static bool stack_output(void *ctx, const struct net_frame *frame)
{
	struct stack *stack = ctx;
	uint8_t *bytes = malloc(frame->len);
	size_t at = 0;
	struct sent *sent;

	if (!bytes)
		abort();
	for (unsigned i = 0; i < frame->count; i++) {
		memcpy(bytes + at, frame->spans[i].data, frame->spans[i].len);
		at += frame->spans[i].len;
	}
	if (frame->csum_partial)
		sum_store(bytes + frame->csum_start + frame->csum_offset,
			  (uint16_t)~sum_fold(sum_bytes(bytes + frame->csum_start,
							at - frame->csum_start, 0)));
	at -= ETH_SIZE;
	if (!take_query(stack, get16(bytes + 12), bytes + ETH_SIZE, at)) {
		sent = malloc(sizeof(*sent) + at);
		if (!sent)
			abort();
		*sent = (struct sent){ .at = stack->now, .call = stack->calls, .len = at };
		memcpy(sent->bytes, bytes + ETH_SIZE, at);
		*stack->end = sent;
		stack->end = &sent->next;
		stack->pending++;
	}
	free(bytes);
	return true;
}

static const struct net_ops net_ops = {
	.alloc = stack_alloc, .free = stack_dealloc, .random = stack_random, .output = stack_output,
};

static void input(struct stack *stack, uint16_t type, const void *packet, size_t len)
{
	uint8_t head[ETH_SIZE];
	struct net_span spans[2] = { { head, sizeof(head) }, { packet, len } };
	struct net_frame frame = { .spans = spans, .count = 2, .len = (uint32_t)(ETH_SIZE + len) };

	memcpy(head, our_mac, 6);
	memcpy(head + 6, peer_mac, 6);
	put16(head + 12, type);
	net_input(stack->net, &frame, stack->now);
	net_flush(stack->net, stack->now);
}

/* ARP reply of the peer, whatever its address. */
static void answer_arp(struct stack *stack, const struct net_addr *who)
{
	uint8_t arp[28] = { 0, 1, 8, 0, 6, 4, 0, 2 };

	memcpy(arp + 8, peer_mac, 6);
	memcpy(arp + 14, who->b + 12, 4);
	memcpy(arp + 18, our_mac, 6);
	memcpy(arp + 24, stack->own.b + 12, 4);
	input(stack, ETH_ARP, arp, sizeof(arp));
}

/* Neighbour advertisement (RFC 4861, 4.4), solicited, with the MAC address. */
static void answer_ndp(struct stack *stack, const struct net_addr *who)
{
	uint8_t packet[IP6_SIZE + NA_SIZE] = { 0x60 }, *icmp = packet + IP6_SIZE;

	put16(packet + 4, NA_SIZE);
	packet[6] = PROTO_ICMP6;
	packet[7] = 255;
	memcpy(packet + 8, who->b, 16);
	memcpy(packet + 24, stack->own.b, 16);
	icmp[0] = 136;
	icmp[4] = 0x60;
	memcpy(icmp + 8, who->b, 16);
	icmp[24] = 2;
	icmp[25] = 1;
	memcpy(icmp + 26, peer_mac, 6);
	sum_store(icmp + 2, (uint16_t)~sum_fold(sum_bytes(
				   icmp, NA_SIZE, sum_pseudo(who, &stack->own, PROTO_ICMP6, NA_SIZE))));
	input(stack, ETH_IP6, packet, sizeof(packet));
}

/* Says who the neighbour is that net/ asks for; a duplicate of ourselves there is not. */
static void answer_query(struct stack *stack)
{
	struct net_addr who = stack->asked;

	stack->asked = (struct net_addr){ 0 };
	if ((!who.q[0] && !who.q[1]) || net_is_own(stack->net, &who))
		return;
	if (net_addr_is4(&who))
		answer_arp(stack, &who);
	else
		answer_ndp(stack, &who);
}

/* Lets time pass up to @until. */
static void advance(struct stack *stack, uint64_t until)
{
	uint64_t due;

	while (stack->net && (due = net_deadline(stack->net)) && due <= until) {
		stack->now = max_of(stack->now, due);
		net_timers(stack->net, stack->now);
		answer_query(stack);
	}
	stack->now = max_of(stack->now, until);
	if (stack->net)
		net_clock(stack->net, stack->now);
}

/* Begins, with @own as our address, when that has not happened. */
static void start(struct stack *stack, const struct net_addr *own)
{
	if (stack->net)
		return;
	stack->own = *own;
	memcpy(stack->config.mac, our_mac, 6);
	stack->config.mtu = net_addr_is4(own) ? 1500 : 1520;
	stack->config.addrs[0].addr = *own;
	stack->config.addr_count = 1;
	stack->config.ops = &net_ops;
	stack->config.ctx = stack;
	stack->net = net_create(&stack->config, stack->now);
	if (!stack->net)
		abort();
}

static int stack_netdev_send(void *ctx, const void *packet, size_t len)
{
	struct stack *stack = ctx;
	const uint8_t *bytes = packet;
	bool v4 = len && bytes[0] >> 4 == 4;
	struct net_addr to;

	if (len < (v4 ? IP4_SIZE : IP6_SIZE))
		return fail(EINVAL);
	to = v4 ? net_addr4_from(bytes + 16) : net_addr6_from(bytes + 24);
	start(stack, &to);
	stack->calls++;
	input(stack, v4 ? ETH_IP4 : ETH_IP6, packet, len);
	answer_query(stack);
	return 0;
}

static int stack_netdev_receive(void *ctx, void *buf, size_t *len, long long *time_us)
{
	struct stack *stack = ctx;
	uint64_t patience = stack->now + PATIENCE, due;
	struct sent *sent;

	while (!stack->first && stack->net && (due = net_deadline(stack->net)) && due <= patience)
		advance(stack, due);
	sent = stack->first;
	if (!sent) {
		*len = 0;
		return 0;
	}
	stack->first = sent->next;
	if (!stack->first)
		stack->end = &stack->first;
	stack->pending--;
	*len = min_of(*len, sent->len);
	memcpy(buf, sent->bytes, *len);
	*time_us = (long long)(sent->at / 1000);
	free(sent);
	return 0;
}

static int stack_usleep(void *ctx, useconds_t us)
{
	struct stack *stack = ctx;

	advance(stack, stack->now + us * 1000ull);
	return 0;
}

/* A caller that waits for a time without sleeping gets there too: each look takes 1 us. */
static int stack_gettimeofday(void *ctx, struct timeval *time, struct timezone *zone)
{
	struct stack *stack = ctx;

	advance(stack, stack->now + 1000);
	time->tv_sec = (time_t)(stack->now / 1000000000);
	time->tv_usec = (suseconds_t)(stack->now / 1000 % 1000000);
	return 0;
}

/* --- Events of connections ----------------------------------------------------------------- */

static void on_connected(struct tcp_conn *conn)
{
	struct sock *sock = tcp_user(conn);

	sock->connected = true;
}

static size_t take_what_is_wanted(struct sock *sock, const struct net_span *spans, unsigned count)
{
	size_t taken = 0;

	for (unsigned i = 0; i < count; i++) {
		size_t len = min_of(spans[i].len, sock->want_len - sock->got);

		if (!len)
			break;
		memcpy(sock->want + sock->got, spans[i].data, len);
		sock->got += len;
		taken += len;
	}
	return taken;
}

static size_t on_data(struct tcp_conn *conn, const struct net_span *spans, unsigned count, size_t len)
{
	struct sock *sock = tcp_user(conn);

	if (sock->lazy)
		return take_what_is_wanted(sock, spans, count);
	sock->taken = realloc(sock->taken, sock->taken_len + len);
	if (!sock->taken)
		abort();
	for (unsigned i = 0; i < count; i++) {
		memcpy(sock->taken + sock->taken_len, spans[i].data, spans[i].len);
		sock->taken_len += spans[i].len;
	}
	return len;
}

static void on_peer_closed(struct tcp_conn *conn)
{
	struct sock *sock = tcp_user(conn);

	sock->peer_closed = true;
}

static void on_closed(struct tcp_conn *conn, enum net_result reason)
{
	struct sock *sock = tcp_user(conn);

	sock->conn = NULL;
	sock->closed = true;
	sock->waiting = false;
	sock->error = -reason;
	if (sock->listener)
		sock->listener->failed = -reason;
}

static const struct tcp_ops conn_ops = {
	.connected = on_connected, .data = on_data, .peer_closed = on_peer_closed, .closed = on_closed,
};

static struct sock *sock_new(struct stack *stack)
{
	struct sock *sock = calloc(1, sizeof(*sock)), **end = &stack->socks;

	if (!sock)
		abort();
	sock->stack = stack;
	sock->fd = -1;
	sock->flags = O_RDWR;
	while (*end)
		end = &(*end)->next;
	*end = sock;
	return sock;
}

static void on_request(struct tcp_listener *listener, struct tcp_conn *conn)
{
	struct sock *of = listener->user, *sock = sock_new(of->stack);

	sock->listener = of;
	sock->conn = conn;
	sock->lazy = of->lazy;
	tcp_set_owner(conn, &conn_ops, sock);
	sock->waiting = of->deferred;
	if (!sock->waiting)
		tcp_accept(conn);
}

/* --- Sockets ------------------------------------------------------------------------------- */

static struct sock *sock_of(struct stack *stack, int fd)
{
	struct sock *sock = stack->socks;

	while (sock && (fd < 0 || sock->fd != fd))
		sock = sock->next;
	if (!sock)
		errno = EBADF;
	return sock;
}

/* A number for the socket; the process really has it (see the top). */
static int sock_open(struct sock *sock)
{
	sock->fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	return sock->fd;
}

static bool endpoint_from(const struct sockaddr *addr, struct net_endpoint *ret_endpoint)
{
	struct sockaddr_in in;
	struct sockaddr_in6 in6;

	if (addr->sa_family == AF_INET) {
		memcpy(&in, addr, sizeof(in));
		*ret_endpoint = (struct net_endpoint){ net_addr4_from(&in.sin_addr), ntohs(in.sin_port) };
		return true;
	}
	memcpy(&in6, addr, sizeof(in6));
	*ret_endpoint = (struct net_endpoint){ net_addr6_from(&in6.sin6_addr), ntohs(in6.sin6_port) };
	return addr->sa_family == AF_INET6;
}

static void endpoint_to(const struct net_endpoint *endpoint, bool v6, struct sockaddr *addr,
			socklen_t *len)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(endpoint->port) };
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6, .sin6_port = htons(endpoint->port) };
	socklen_t size = v6 ? sizeof(in6) : sizeof(in);

	memcpy(&in.sin_addr, endpoint->addr.b + 12, 4);
	memcpy(&in6.sin6_addr, endpoint->addr.b, 16);
	memcpy(addr, v6 ? (const void *)&in6 : &in, min_of(*len, size));
	*len = size;
}

static int stack_socket(void *ctx, int domain, int type, int protocol)
{
	struct sock *sock;

	if (type != SOCK_STREAM || (protocol != 0 && protocol != IPPROTO_TCP))
		return fail(EPROTONOSUPPORT);
	sock = sock_new(ctx);
	sock->v6 = domain == AF_INET6;
	return sock_open(sock);
}

static int stack_bind(void *ctx, int fd, const struct sockaddr *addr, socklen_t len)
{
	struct sock *sock = sock_of(ctx, fd);

	if (!sock)
		return -1;
	return endpoint_from(addr, &sock->local) ? 0 : fail(EAFNOSUPPORT);
}

static int stack_listen(void *ctx, int fd, int backlog)
{
	struct stack *stack = ctx;
	struct sock *sock = sock_of(ctx, fd);
	int error;

	if (!sock)
		return -1;
	start(stack, &sock->local.addr);
	sock->listen = (struct tcp_listener){ .local = sock->local, .request = on_request, .user = sock };
	error = tcp_listen(stack->net, &sock->listen);
	if (error)
		return fail(-error);
	sock->listening = true;
	return 0;
}

static struct sock *first_child(struct sock *listener)
{
	for (struct sock *sock = listener->stack->socks; sock; sock = sock->next)
		if (sock->listener == listener && sock->connected)
			return sock;
	return NULL;
}

static int stack_accept(void *ctx, int fd, struct sockaddr *addr, socklen_t *len)
{
	struct sock *listener = sock_of(ctx, fd), *sock;

	if (!listener)
		return -1;
	sock = first_child(listener);
	if (!sock)
		return fail(EAGAIN);
	sock->listener = NULL;
	sock->v6 = listener->v6;
	if (addr && sock->conn)
		endpoint_to(tcp_remote(sock->conn), sock->v6, addr, len);
	return sock_open(sock);
}

/* Options of the socket to its connection; off until a script says otherwise, as net/ has them. */
static void apply_options(const struct sock *sock)
{
	if (!sock->conn)
		return;
	tcp_set_nagle(sock->conn, sock->nagle);
	tcp_set_keepalive(sock->conn, sock->keepalive ? sock->keep_idle * 1000000000ull : 0,
			  sock->keep_interval * 1000000000ull, sock->keep_count);
}

static int stack_connect(void *ctx, int fd, const struct sockaddr *addr, socklen_t len)
{
	struct stack *stack = ctx;
	struct sock *sock = sock_of(ctx, fd);
	struct net_endpoint remote;
	int error;

	if (!sock)
		return -1;
	if (sock->connected || sock->conn)
		return fail(sock->connected ? EISCONN : EALREADY);
	if (!endpoint_from(addr, &remote))
		return fail(EAFNOSUPPORT);
	if (!sock->local.addr.q[0] && !sock->local.addr.q[1])
		sock->local.addr = packetdrill_own(!net_addr_is4(&remote.addr));
	start(stack, &sock->local.addr);
	error = tcp_connect(stack->net, &sock->local, &remote, &conn_ops, sock, &sock->conn);
	apply_options(sock);
	answer_query(stack);
	return fail(error ? -error : EINPROGRESS);
}

/* The error that an event left behind, once. */
static int take_error(struct sock *sock)
{
	int error = sock->error;

	sock->error = 0;
	return error;
}

static ssize_t stack_read(void *ctx, int fd, void *buf, size_t size)
{
	struct sock *sock = sock_of(ctx, fd);

	if (!sock)
		return -1;
	if (!sock->connected && !sock->closed)
		return fail(sock->conn ? EAGAIN : ENOTCONN);
	sock->want = buf;
	sock->want_len = size;
	sock->got = min_of(size, sock->taken_len);
	if (sock->got)
		memcpy(buf, sock->taken, sock->got);
	sock->taken_len -= sock->got;
	if (sock->taken_len)
		memmove(sock->taken, sock->taken + sock->got, sock->taken_len);
	if (sock->conn && sock->lazy)
		tcp_resume(sock->conn);
	sock->want_len = 0;
	if (sock->got)
		return (ssize_t)sock->got;
	if (sock->error)
		return fail(take_error(sock));
	return sock->peer_closed || sock->closed ? 0 : fail(EAGAIN);
}

static ssize_t stack_recv(void *ctx, int fd, void *buf, size_t size, int flags)
{
	return flags & ~MSG_DONTWAIT ? fail(EOPNOTSUPP) : stack_read(ctx, fd, buf, size);
}

static ssize_t stack_write(void *ctx, int fd, const void *buf, size_t len)
{
	struct sock *sock = sock_of(ctx, fd);
	size_t done;

	if (!sock)
		return -1;
	if (sock->error)
		return fail(take_error(sock));
	if (!sock->connected || sock->closed || sock->shut)
		return fail(sock->connected || sock->closed ? EPIPE : ENOTCONN);
	done = tcp_send(sock->conn, buf, len);
	return done || !len ? (ssize_t)done : fail(EAGAIN);
}

static ssize_t stack_send(void *ctx, int fd, const void *buf, size_t len, int flags)
{
	return flags & ~(MSG_DONTWAIT | MSG_NOSIGNAL) ? fail(EOPNOTSUPP) : stack_write(ctx, fd, buf, len);
}

static int stack_fcntl(void *ctx, int fd, int command, ...)
{
	struct sock *sock = sock_of(ctx, fd);
	va_list args;

	if (!sock)
		return -1;
	if (command == F_GETFL)
		return sock->flags;
	if (command != F_SETFL)
		return fail(EINVAL);
	va_start(args, command);
	sock->flags = O_RDWR | (va_arg(args, int) & O_NONBLOCK);
	va_end(args);
	return 0;
}

static int stack_ioctl(void *ctx, int fd, unsigned long request, ...)
{
	struct sock *sock = sock_of(ctx, fd);
	struct tcp_info info = { 0 };
	va_list args;

	if (!sock)
		return -1;
	if (request != FIONREAD)
		return fail(ENOTTY);
	if (sock->conn)
		tcp_info(sock->conn, &info);
	va_start(args, request);
	*va_arg(args, int *) = (int)(sock->taken_len + info.kept);
	va_end(args);
	return 0;
}

static void sock_free(struct sock *sock)
{
	struct sock **link = &sock->stack->socks;

	while (*link != sock)
		link = &(*link)->next;
	*link = sock->next;
	free(sock->taken);
	free(sock);
}

/* Resets what nobody accepted. */
static void end_listener(struct sock *listener)
{
	struct sock *next;

	tcp_unlisten(listener->stack->net, &listener->listen);
	for (struct sock *sock = listener->stack->socks; sock; sock = next) {
		next = sock->next;
		if (sock->listener != listener)
			continue;
		if (sock->conn)
			tcp_abort(sock->conn);
		sock_free(sock);
	}
}

static int stack_close(void *ctx, int fd)
{
	struct sock *sock = sock_of(ctx, fd);

	if (!sock)
		return -1;
	if (sock->listening)
		end_listener(sock);
	else if (sock->conn && sock->reset_at_close)
		tcp_abort(sock->conn);
	else if (sock->conn)
		tcp_close(sock->conn);
	sock_free(sock);
	return close(fd);
}

static int stack_shutdown(void *ctx, int fd, int how)
{
	struct sock *sock = sock_of(ctx, fd);

	if (!sock)
		return -1;
	if (how != SHUT_WR)	/* net/ has no other */
		return fail(EINVAL);
	if (!sock->conn)
		return fail(ENOTCONN);
	sock->shut = true;
	tcp_shutdown(sock->conn);
	return 0;
}

/* --- Options ------------------------------------------------------------------------------- */

static int count_requests(const struct sock *listener)
{
	int count = 0;

	for (const struct sock *sock = listener->stack->socks; sock; sock = sock->next)
		count += sock->listener == listener && sock->waiting;
	return count;
}

static int answer_request(struct sock *listener, int how)
{
	struct sock *sock = listener->stack->socks;

	while (sock && (sock->listener != listener || !sock->waiting))
		sock = sock->next;
	if (!sock || how > 2)
		return fail(EINVAL);
	sock->waiting = false;
	if (how == 0) {
		tcp_accept(sock->conn);
		return 0;
	}
	if (how == 1)
		tcp_refuse(sock->conn);
	else
		tcp_unreachable(sock->conn, ICMP_HOST_UNREACHABLE);
	sock_free(sock);
	return 0;
}

static int set_socket_option(struct sock *sock, int name, int value)
{
	switch (name) {
	case SO_REUSEADDR:
		return 0;
	case SO_RCVBUF:
		sock->lazy = true;
		if (!sock->stack->net)
			sock->stack->config.limits.tcp_recv_max = (uint32_t)value;
		return 0;
	case SO_KEEPALIVE:
		sock->keepalive = value;
		apply_options(sock);
		return 0;
	default:
		return fail(ENOPROTOOPT);
	}
}

static int set_tcp_option(struct sock *sock, int name, int value)
{
	switch (name) {
	case TCP_NODELAY:
		sock->nagle = !value;
		break;
	case TCP_KEEPIDLE:
		sock->keep_idle = (unsigned)value;
		break;
	case TCP_KEEPINTVL:
		sock->keep_interval = (unsigned)value;
		break;
	case TCP_KEEPCNT:
		sock->keep_count = (unsigned)value;
		break;
	default:
		return fail(ENOPROTOOPT);
	}
	apply_options(sock);
	return 0;
}

static int set_roux_option(struct sock *sock, int name, int value)
{
	switch (name) {
	case ROUX_DEFER:
		sock->deferred = value;
		return 0;
	case ROUX_ANSWER:
		return answer_request(sock, value);
	case ROUX_TSO:
		net_set_offloads(sock->stack->net,
				 value ? NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4 | NET_OFFLOAD_TSO6 : 0);
		return 0;
	default:
		return fail(ENOPROTOOPT);
	}
}

static int stack_setsockopt(void *ctx, int fd, int level, int name, const void *value, socklen_t len)
{
	struct sock *sock = sock_of(ctx, fd);
	struct linger linger;
	int number;

	if (!sock)
		return -1;
	if (level == SOL_SOCKET && name == SO_LINGER && len >= sizeof(linger)) {
		memcpy(&linger, value, sizeof(linger));
		sock->reset_at_close = linger.l_onoff && !linger.l_linger;
		return 0;
	}
	if (len < sizeof(number))
		return fail(EINVAL);
	memcpy(&number, value, sizeof(number));
	switch (level) {
	case SOL_SOCKET:
		return set_socket_option(sock, name, number);
	case IPPROTO_TCP:
		return set_tcp_option(sock, name, number);
	case SOL_ROUX:
		return set_roux_option(sock, name, number);
	default:
		return fail(ENOPROTOOPT);
	}
}

static int stack_getsockopt(void *ctx, int fd, int level, int name, void *value, socklen_t *len)
{
	struct sock *sock = sock_of(ctx, fd);
	int number;

	if (!sock)
		return -1;
	if (level == SOL_SOCKET && name == SO_ERROR)
		number = take_error(sock);
	else if (level == SOL_ROUX && name == ROUX_REQUESTS)
		number = count_requests(sock);
	else if (level == SOL_ROUX && name == ROUX_FAILED)
		number = sock->failed;
	else
		return fail(ENOPROTOOPT);
	if (*len < sizeof(number))
		return fail(EINVAL);
	memcpy(value, &number, sizeof(number));
	*len = sizeof(number);
	return 0;
}

/* As Linux's tcp_poll() has it, except that POLLHUP comes with the end of the connection only. */
static short ready(struct sock *sock)
{
	struct tcp_info info = { 0 };
	short events = 0;

	if (sock->listening)
		return first_child(sock) ? POLLIN : 0;
	if (sock->conn)
		tcp_info(sock->conn, &info);
	if (sock->taken_len || info.kept || sock->peer_closed || sock->closed)
		events |= POLLIN;
	if (sock->connected || sock->closed)
		events |= POLLOUT;
	if (sock->closed)
		events |= POLLHUP;
	if (sock->error)
		events |= POLLERR;
	return events;
}

static int stack_poll(void *ctx, struct pollfd *fds, nfds_t count, int timeout_ms)
{
	int found = 0;

	for (nfds_t i = 0; i < count; i++) {
		struct sock *sock = sock_of(ctx, fds[i].fd);

		fds[i].revents = POLLNVAL;
		if (sock)
			fds[i].revents = (short)(ready(sock) & (fds[i].events | POLLERR | POLLHUP));
		found += fds[i].revents != 0;
	}
	return found;
}

static long not_here(void)
{
	return fail(ENOSYS);
}

/* --- Beginning and end --------------------------------------------------------------------- */

/*
 * Ends the stack.  packetdrill resets the connection at last, which is a netdev_send of its
 * own: what was sent before that and not received, the script did not expect.
 */
static void stack_free(void *ctx)
{
	struct stack *stack = ctx;
	unsigned unexpected = 0;
	struct sent *next;

	for (struct sent *sent = stack->first; sent; sent = next) {
		next = sent->next;
		unexpected += sent->call < stack->calls;
		free(sent);
	}
	if (stack->net)
		net_destroy(stack->net);
	while (stack->socks)
		sock_free(stack->socks);
	free(stack);
	if (unexpected) {
		(void)fprintf(stderr, "%u packets were sent that the script did not expect\n", unexpected);
		(void)fflush(stdout);
		_exit(1);
	}
}

struct net_addr packetdrill_own(bool v6)
{
	return v6 ? (struct net_addr){ .b = { 0xfd, 0x3d, [15] = 2 } } : net_addr4(192, 168, 0, 2);
}

unsigned packetdrill_pending(const struct packetdrill_interface *interface)
{
	return ((const struct stack *)interface->userdata)->pending;
}

void packetdrill_interface_init(const char *flags, struct packetdrill_interface *ret_interface)
{
	struct stack *stack = calloc(1, sizeof(*stack));

	if (!stack)
		abort();
	stack->now = START;
	stack->end = &stack->first;
	stack->config.proxy = !flags || !strstr(flags, "host");
	*ret_interface = (struct packetdrill_interface){
		.userdata = stack, .free = stack_free,
		.socket = stack_socket, .bind = stack_bind, .listen = stack_listen,
		.accept = stack_accept, .connect = stack_connect,
		.read = stack_read, .readv = not_here, .recv = stack_recv, .recvfrom = not_here,
		.recvmsg = not_here, .write = stack_write, .writev = not_here, .send = stack_send,
		.sendto = not_here, .sendmsg = not_here, .fcntl = stack_fcntl, .ioctl = stack_ioctl,
		.close = stack_close, .shutdown = stack_shutdown, .getsockopt = stack_getsockopt,
		.setsockopt = stack_setsockopt, .poll = stack_poll,
		.netdev_send = stack_netdev_send, .netdev_receive = stack_netdev_receive,
		.usleep = stack_usleep, .gettimeofday = stack_gettimeofday,
		.epoll_create = not_here, .epoll_ctl = not_here, .epoll_wait = not_here,
		.pipe = not_here, .splice = not_here,
	};
}
