/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TCP connections: one of net/ and one of the host each, joined.
 *
 *   guest's:    request -> connect() -> accepted or refused -> joined
 *   published:  accept() -> tcp_connect() -> connected or refused -> joined
 *
 * Joined, bytes go from the guest's frame straight into the host's socket, and from
 * there straight into the send buffer.  What a full socket does not take stays in
 * net/, whose window closes; a full send buffer leaves bytes in the host's socket.
 * The end of either direction is passed on by itself.
 */
#include "link/user_private.h"

#include "link/policy.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

#define READ_MAX (256u * 1024u)	/* bytes that one connection may read before others have their turn */
#define PIECES 16u
#define NODELAY 1	/* TCP_NODELAY: the names in netinet/tcp.h are also those of net/tcp.h */

struct flow {
	struct user *user;
	struct flow *next, **at;
	struct tcp_conn *conn;
	int fd;
	struct loop_source *source;
	bool connecting;	/* the host's connect() is under way */
	bool joined;
	bool full;	/* the host's socket takes no more: wait for EPOLLOUT */
	bool no_room;	/* the send buffer takes no more: wait for writable() */
	bool ended;	/* the host's side has sent all it will */
};

static void watch(const struct flow *f)
{
	uint32_t events = 0;

	if (f->connecting || f->full)
		events |= EPOLLOUT;
	if (f->joined && !f->ended && !f->no_room)
		events |= EPOLLIN;
	(void)loop_set_events(f->source, events);
}

/* The connection of net/ is gone already, or is given up by the caller. */
static void flow_free(struct flow *f, bool reset)
{
	const struct linger now = { .l_onoff = 1 };

	*f->at = f->next;
	if (f->next)
		f->next->at = f->at;
	f->user->nflows--;
	loop_remove(f->source);
	if (reset)	/* so that the other end learns it as it was */
		(void)setsockopt(f->fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	(void)close(f->fd);
	free(f);
}

static void flow_abort(struct flow *f)
{
	tcp_abort(f->conn);
	flow_free(f, true);
}

/* ------------------------------------------------------------ guest to host */

_Static_assert(sizeof(struct net_span) == sizeof(struct iovec) &&
	       offsetof(struct net_span, len) == offsetof(struct iovec, iov_len), "spans are vectors");
_Static_assert(sizeof(struct net_room) == sizeof(struct iovec) &&
	       offsetof(struct net_room, len) == offsetof(struct iovec, iov_len), "rooms are vectors");

static size_t on_data(struct tcp_conn *conn, const struct net_span *spans, unsigned count, size_t len)
{
	struct flow *f = tcp_user(conn);
	struct msghdr msg = { .msg_iov = (struct iovec *)(uintptr_t)spans, .msg_iovlen = count };
	ssize_t n;

	if (!f->joined)
		return 0;
	do
		n = sendmsg(f->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n < 0 && errno != EAGAIN) {
		flow_abort(f);
		return len;
	}
	if (n < 0)
		n = 0;
	if ((size_t)n < len) {
		f->full = true;
		watch(f);
	}
	return (size_t)n;
}

static void on_peer_closed(struct tcp_conn *conn)
{
	const struct flow *f = tcp_user(conn);

	(void)shutdown(f->fd, SHUT_WR);
}

/* ------------------------------------------------------------ host to guest */

static void read_host(struct flow *f)
{
	struct net_room rooms[PIECES];
	unsigned count;
	size_t room = tcp_reserve(f->conn, READ_MAX, rooms, PIECES, &count);
	ssize_t n;

	if (!room) {
		f->no_room = true;
		watch(f);
		return;
	}
	do
		n = readv(f->fd, (const struct iovec *)(const void *)rooms, (int)count);
	while (n < 0 && errno == EINTR);
	if (n > 0) {
		tcp_commit(f->conn, (size_t)n);
	} else if (n == 0) {
		f->ended = true;
		watch(f);
		tcp_shutdown(f->conn);
	} else if (errno != EAGAIN) {
		flow_abort(f);
	}
}

static void on_writable(struct tcp_conn *conn)
{
	struct flow *f = tcp_user(conn);

	f->no_room = false;
	watch(f);
}

static void on_closed(struct tcp_conn *conn, enum net_result reason)
{
	flow_free(tcp_user(conn), reason != NET_OK);
}

static void on_connected(struct tcp_conn *conn)
{
	struct flow *f = tcp_user(conn);

	f->joined = true;
	watch(f);
}

static const struct tcp_ops flow_ops = {
	.connected = on_connected,
	.data = on_data,
	.peer_closed = on_peer_closed,
	.writable = on_writable,
	.closed = on_closed,
};

/* The host's connect() has ended. */
static void finish_connect(struct flow *f)
{
	socklen_t len = sizeof(int);
	int error = 0;

	if (getsockopt(f->fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
		error = errno;
	f->connecting = false;
	if (!error) {
		watch(f);
		tcp_accept(f->conn);
		return;
	}
	if (error == ECONNREFUSED || error == ECONNRESET)
		tcp_refuse(f->conn);
	else
		tcp_unreachable(f->conn, user_icmp_kind(error));
	flow_free(f, false);
}

static void on_host(void *ctx, uint32_t events)
{
	struct flow *f = ctx;
	struct user *u = f->user;
	struct tcp_conn *conn = f->conn;

	user_enter(u);
	if (f->connecting) {
		finish_connect(f);
	} else if (f->full && events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) {
		f->full = false;
		watch(f);
		tcp_resume(conn);	/* may end the flow: what waits to be read is for another turn */
	} else if (events & (EPOLLIN | EPOLLERR | EPOLLHUP)) {
		read_host(f);
	}
	user_leave(u);
}

/* Takes over @fd, also on failure.  NULL when out of memory. */
static struct flow *flow_create(struct user *u, int fd)
{
	const int on = 1;
	struct flow *f = calloc(1, sizeof(*f));

	if (!f || loop_add_fd(u->loop, fd, 0, on_host, f, &f->source, NULL) < 0) {
		free(f);
		(void)close(fd);
		return NULL;
	}
	/* The guest's own TCP, or the client's, has decided when to send. */
	(void)setsockopt(fd, IPPROTO_TCP, NODELAY, &on, sizeof(on));
	f->user = u;
	f->fd = fd;
	f->next = u->flows;
	f->at = &u->flows;
	if (f->next)
		f->next->at = &f->next;
	u->flows = f;
	u->nflows++;
	return f;
}

void user_tcp_request(void *ctx, struct tcp_conn *conn)
{
	struct user *u = ctx;
	struct net_endpoint to;
	union host_addr addr;
	struct flow *f;
	socklen_t len;
	int fd;

	if (u->policy && !user_is_dns(u, &tcp_local(conn)->addr) &&
	    !policy_allows(u->policy, POLICY_TCP, tcp_local(conn), u->now_ns)) {
		tcp_unreachable(conn, ICMP_PROHIBITED);
		return;
	}
	if (!user_outside(u, tcp_local(conn), &to)) {
		tcp_refuse(conn);
		return;
	}
	fd = user_socket(u, &to.addr, SOCK_STREAM, 0);
	f = fd < 0 ? NULL : flow_create(u, fd);
	if (!f) {
		/* Of descriptors, or of a family that the host lacks. */
		tcp_unreachable(conn, fd == -EAFNOSUPPORT ? ICMP_NET_UNREACHABLE : ICMP_HOST_UNREACHABLE);
		return;
	}
	f->conn = conn;
	f->connecting = true;
	tcp_set_owner(conn, &flow_ops, f);
	len = host_addr_make(&to, &addr);
	if (connect(fd, &addr.any, len) < 0 && errno != EINPROGRESS) {
		int error = errno;

		if (error == ECONNREFUSED)
			tcp_refuse(conn);
		else
			tcp_unreachable(conn, user_icmp_kind(error));
		flow_free(f, false);
		return;
	}
	watch(f);
}

bool user_tcp_accept(struct user *u, int fd, uint16_t guest_port)
{
	union host_addr addr;
	socklen_t len = sizeof(addr);
	int client = accept4(fd, &addr.any, &len, SOCK_NONBLOCK | SOCK_CLOEXEC), r;
	struct net_endpoint from, to;
	struct flow *f = client < 0 ? NULL : flow_create(u, client);

	if (!f)
		return client >= 0 || (errno != EMFILE && errno != ENFILE && errno != ENOBUFS && errno != ENOMEM);
	from = host_addr_read(&addr);
	to = (struct net_endpoint){ .addr = *user_guest(u, &from.addr), .port = guest_port };
	from.addr = user_inside(u, &from.addr);
	r = tcp_connect(u->net, &from, &to, &flow_ops, f, &f->conn);
	if (r == NET_EADDRINUSE) {	/* two clients with one port, seen as the gateway */
		from.port = 0;
		r = tcp_connect(u->net, &from, &to, &flow_ops, f, &f->conn);
	}
	if (r < 0)
		flow_free(f, true);
	return true;
}

void user_tcp_destroy(struct user *u)
{
	while (u->flows)
		flow_abort(u->flows);
}
