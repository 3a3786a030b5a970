/* SPDX-License-Identifier: Apache-2.0 */
#include "link/broker.h"

#include "base/checked.h"
#include "os/jail.h"
#include "os/seccomp.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <netinet/in.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define BATCH_MAX 32u	/* descriptors of one answer */

static const struct kind {
	int domain, type, protocol;
} kinds[] = {
	{ AF_INET, SOCK_STREAM, 0 },
	{ AF_INET6, SOCK_STREAM, 0 },
	{ AF_INET, SOCK_DGRAM, 0 },
	{ AF_INET6, SOCK_DGRAM, 0 },
	{ AF_INET, SOCK_DGRAM, IPPROTO_ICMP },
	{ AF_INET6, SOCK_DGRAM, IPPROTO_ICMPV6 },
};

#define KINDS ARRAY_SIZE(kinds)

struct request {
	uint8_t kind;	/* index of @kinds */
	uint8_t count;
};

struct answer {
	int32_t error;	/* of the first socket that could not be made, else 0; with it come those that could */
};

/* Room for the descriptors of a message. */
union rights {
	struct cmsghdr head;
	uint8_t space[CMSG_SPACE(BATCH_MAX * sizeof(int))];
};

struct broker {
	struct link_host host;
	int server;	/* -1: not yet, socket(2) it is */
	struct pool {
		int fd[BATCH_MAX];
		uint8_t n;
		uint8_t batch;	/* of the last request */
	} pool[KINDS];
};

static int make_socket(const struct kind *kind)
{
	int fd = socket(kind->domain, kind->type | SOCK_NONBLOCK | SOCK_CLOEXEC, kind->protocol);

	return fd < 0 ? -errno : fd;
}

/* ------------------------------------------------------------------ client */

static int receive(int server, struct pool *pool)
{
	struct answer answer;
	union rights rights;
	struct iovec iov = { &answer, sizeof(answer) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &rights,
			      .msg_controllen = sizeof(rights) };
	struct cmsghdr *head;
	ssize_t n;

	do
		n = recvmsg(server, &msg, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	head = CMSG_FIRSTHDR(&msg);
	if (n == sizeof(answer) && head && head->cmsg_type == SCM_RIGHTS) {
		pool->n = (uint8_t)((head->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(pool->fd, CMSG_DATA(head), pool->n * sizeof(int));
	}
	if (n != sizeof(answer))
		return -EPIPE;
	return pool->n ? 0 : answer.error < 0 ? answer.error : -EPROTO;
}

static int refill(const struct broker *b, struct pool *pool, unsigned kind)
{
	struct request request = { .kind = (uint8_t)kind };

	/* Who needs one after the other gets more at a time. */
	pool->batch = pool->batch ? pool->batch * 2 : 1;
	if (pool->batch > BATCH_MAX)
		pool->batch = BATCH_MAX;
	request.count = pool->batch;
	if (send(b->server, &request, sizeof(request), MSG_NOSIGNAL) < 0)
		return -errno;
	return receive(b->server, pool);
}

static int broker_socket(void *ctx, int domain, int type, int protocol)
{
	struct broker *b = ctx;

	for (unsigned i = 0; i < KINDS; i++) {
		struct pool *pool = &b->pool[i];
		int r;

		if (kinds[i].domain != domain || kinds[i].type != type || kinds[i].protocol != protocol)
			continue;
		if (b->server < 0)
			return make_socket(&kinds[i]);
		r = pool->n ? 0 : refill(b, pool, i);
		return r < 0 ? r : pool->fd[--pool->n];
	}
	return -EPROTONOSUPPORT;
}

int broker_create(struct broker **ret_broker)
{
	struct broker *b = calloc(1, sizeof(*b));

	if (!b)
		return -ENOMEM;
	b->host = (struct link_host){ .socket = broker_socket, .ctx = b };
	b->server = -1;
	*ret_broker = b;
	return 0;
}

void broker_attach(struct broker *b, int fd)
{
	b->server = fd;
}

void broker_destroy(struct broker *b)
{
	if (!b)
		return;
	for (unsigned i = 0; i < KINDS; i++)
		while (b->pool[i].n)
			(void)close(b->pool[i].fd[--b->pool[i].n]);
	free(b);
}

const struct link_host *broker_host(const struct broker *b)
{
	return &b->host;
}

/* ------------------------------------------------------------------ server */

static int reply(int fd, const struct request *request)
{
	struct answer answer = { 0 };
	union rights rights = { 0 };
	struct iovec iov = { &answer, sizeof(answer) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	int made[BATCH_MAX], n = 0;
	ssize_t sent;

	while (n < request->count && answer.error == 0) {
		made[n] = make_socket(&kinds[request->kind]);
		if (made[n] < 0)
			answer.error = made[n];
		else
			n++;
	}
	if (n) {
		size_t size = (size_t)n * sizeof(int);

		rights.head = (struct cmsghdr){ .cmsg_len = CMSG_LEN(size), .cmsg_level = SOL_SOCKET,
						.cmsg_type = SCM_RIGHTS };
		memcpy(CMSG_DATA(&rights.head), made, size);
		msg.msg_control = &rights;
		msg.msg_controllen = CMSG_SPACE(size);
	}
	do
		sent = sendmsg(fd, &msg, MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	while (n)
		(void)close(made[--n]);
	return sent < 0 ? -errno : 0;
}

static int drop_rights(void)
{
	static const struct seccomp_rule rule[] = {
		{ .nr = SYS_recvfrom }, { .nr = SYS_sendmsg }, { .nr = SYS_close }, { .nr = SYS_exit_group },
		{ .nr = SYS_rt_sigreturn }, { .nr = SYS_restart_syscall },
		{ .nr = SYS_socket, .cond = { { 0, ~0u, AF_INET } } },
		{ .nr = SYS_socket, .cond = { { 0, ~0u, AF_INET6 } } },
	};
	const struct seccomp_list list[] = { { rule, ARRAY_SIZE(rule) }, seccomp_sanitizers };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -errno;
	return jail_thread(0, list, ARRAY_SIZE(list));
}

int broker_serve(int fd)
{
	struct request request;
	ssize_t n;
	int r = drop_rights();

	while (r == 0) {
		n = recv(fd, &request, sizeof(request), MSG_TRUNC);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : 0;
		/* The other end may have been taken over by its guest. */
		if (n != sizeof(request) || request.kind >= KINDS || !request.count || request.count > BATCH_MAX)
			return -EPROTO;
		r = reply(fd, &request);
	}
	return r;
}
