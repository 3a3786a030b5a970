/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ports of the host that lead to the guest: their listening sockets.  What comes is for
 * user_tcp.c and user_datagram.c to carry.
 */
#include "link/user_private.h"

#include "os/err.h"
#include "os/publish.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BACKLOG 1024

struct publisher {
	struct user *user;
	struct publisher *next;
	int fd;
	struct loop_source *source;
	bool udp;
	bool resting;	/* until the next second: its clients cannot be taken now */
	uint16_t guest_port;
};

static void on_client(void *ctx, uint32_t events)
{
	struct publisher *p = ctx;
	struct user *u = p->user;

	(void)events;
	user_enter(u);
	if (p->udp)
		user_datagram_receive(u, p->fd, p->guest_port);
	else
		p->resting = !user_tcp_accept(u, p->fd, p->guest_port);
	if (p->resting) {
		(void)loop_set_events(p->source, 0);
		user_want_seconds(u);
	}
	user_leave(u);
}

/* A bound socket, for both families where no address is given and the host has both. */
static int bind_socket(struct user *u, const struct link_publish *publish)
{
	const int on = 1, off = 0;
	struct net_endpoint at = publish->host;
	int type = publish->udp ? SOCK_DGRAM : SOCK_STREAM, fd = -EAFNOSUPPORT, r;
	union host_addr addr;
	socklen_t len;

	fd = user_socket(u, &at.addr, type, 0);
	if (fd == -EAFNOSUPPORT && !(at.addr.q[0] | at.addr.q[1])) {
		at.addr = net_addr4(0, 0, 0, 0);
		fd = user_socket(u, &at.addr, type, 0);
	}
	if (fd < 0)
		return fd;
	len = host_addr_make(&at, &addr);
	if (!publish->udp)
		(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (!net_addr_is4(&at.addr))
		(void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, at.addr.q[0] | at.addr.q[1] ? &on : &off, sizeof(on));
	if (bind(fd, &addr.any, len) == 0 && (publish->udp || listen(fd, BACKLOG) == 0))
		return fd;
	r = -errno;
	(void)close(fd);
	return r;
}

int link_user_publish(struct link *link, const struct link_publish *publish, uint16_t *ret_port, struct err *err)
{
	struct user *u = (struct user *)link;
	struct publisher *p = calloc(1, sizeof(*p));
	union host_addr addr;
	socklen_t len = sizeof(addr);
	int r = p ? bind_socket(u, publish) : -ENOMEM;

	if (r == -EADDRINUSE)
		(void)err_set(err, r, "port %u of the host is in use; publish another one", publish->host.port);
	else if (r == -EACCES)
		(void)err_set(err, r, "port %u of the host is for root only; publish one from 1024 on",
			      publish->host.port);
	else if (r < 0)
		(void)err_set(err, r, "cannot publish port %u: %s", publish->host.port, strerror(-r));
	if (r < 0) {
		free(p);
		return r;
	}
	*p = (struct publisher){ .user = u, .next = u->publishers, .fd = r, .udp = publish->udp,
				 .guest_port = publish->guest_port };
	if (getsockname(p->fd, &addr.any, &len) < 0)
		r = err_set(err, -errno, "cannot publish port %u: %s", publish->host.port, strerror(errno));
	else
		r = loop_add_fd(u->loop, p->fd, EPOLLIN, on_client, p, &p->source, err);
	if (r < 0) {
		(void)close(p->fd);
		free(p);
		return r;
	}
	*ret_port = host_addr_read(&addr).port;
	u->publishers = p;
	return 0;
}

int link_publish_parse(const char *text, struct link_publish *ret_publish, struct err *err)
{
	struct publish p;

	*ret_publish = (struct link_publish){ 0 };
	if (!publish_parse(text, &p) || (p.address[0] && !net_addr_parse(p.address, &ret_publish->host.addr)))
		return err_set(err, -EINVAL, "a published port is [ADDRESS:]HOST:GUEST[/tcp|/udp], not '%s'", text);
	ret_publish->host.port = p.host;
	ret_publish->guest_port = p.guest;
	ret_publish->udp = p.udp;
	return 0;
}

bool user_publish_tick(struct user *u)
{
	bool any = false;

	for (struct publisher *p = u->publishers; p; p = p->next) {
		if (p->resting && loop_set_events(p->source, EPOLLIN) == 0)
			p->resting = false;
		any |= p->resting;
	}
	return any;
}

void user_publish_destroy(struct user *u)
{
	while (u->publishers) {
		struct publisher *p = u->publishers;

		u->publishers = p->next;
		loop_remove(p->source);
		(void)close(p->fd);
		free(p);
	}
}
