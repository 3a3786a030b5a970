/* SPDX-License-Identifier: Apache-2.0 */
/* By the kernel's socket diagnostics: sock_diag(7). */
#include "guest/streams.h"

#include "guest/text.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define TCP_LISTEN_STATE 10	/* enum of net/tcp_states.h of the kernel */
#define TCP_TIME_WAIT_STATE 6

struct destroy {
	struct nlmsghdr header;
	struct inet_diag_req_v2 diag;
};

/* Both families as 16 bytes: IPv4 as ::ffff:a.b.c.d. */
struct addr {
	uint8_t b[16];
};

static struct addr map4(const void *bytes)
{
	struct addr a = { .b = { [10] = 0xff, [11] = 0xff } };

	memcpy(a.b + 12, bytes, 4);
	return a;
}

static bool parse(const char *text, size_t len, struct addr *ret, bool *ret_is4)
{
	char word[INET6_ADDRSTRLEN];
	uint8_t bytes[4];

	if (len >= sizeof(word))
		return false;
	memcpy(word, text, len);
	word[len] = '\0';
	*ret_is4 = inet_pton(AF_INET, word, bytes) == 1;
	if (*ret_is4)
		*ret = map4(bytes);
	return *ret_is4 || inet_pton(AF_INET6, word, ret->b) == 1;
}

/* Whether @a is in "ADDRESS/BITS", or is ADDRESS. */
static bool is_in(const char *network, const struct addr *a)
{
	const char *slash = strchr(network, '/');
	size_t len = slash ? (size_t)(slash - network) : strlen(network);
	uint64_t bits = 128;
	struct addr n;
	bool is4;

	if (!parse(network, len, &n, &is4) || (slash && text_to_num(slash + 1, strlen(slash + 1), is4 ? 32 : 128, &bits) < 0))
		return false;
	bits += slash && is4 ? 96 : 0;
	return memcmp(n.b, a->b, bits / 8) == 0 && (bits % 8 == 0 || !((n.b[bits / 8] ^ a->b[bits / 8]) >> (8 - bits % 8)));
}

static bool is_loopback(const struct addr *a)
{
	static const struct addr six = { .b = { [15] = 1 } };

	return memcmp(a, &six, sizeof(six)) == 0 || is_in("127.0.0.0/8", a);
}

static bool stays(const struct identity_request *id, const struct addr *from, const struct addr *to)
{
	if (is_loopback(to) || (!id->nleft && memcmp(from, to, sizeof(*to)) == 0))
		return true;
	for (unsigned i = 0; i < id->noutside; i++)
		if (is_in(id->outside[i], to))
			return false;
	for (unsigned i = 0; i < id->nkept; i++)
		if (is_in(id->kept[i], to))
			return true;
	return false;
}

/* The kernel's answer is of no interest: the connection may have ended by itself. */
static void destroy(int fd, const struct inet_diag_msg *m)
{
	struct destroy rq = { .header = { .nlmsg_len = sizeof(rq), .nlmsg_type = SOCK_DESTROY, .nlmsg_flags = NLM_F_REQUEST },
			      .diag = { .sdiag_family = m->idiag_family, .sdiag_protocol = IPPROTO_TCP, .id = m->id } };

	(void)send(fd, &rq, sizeof(rq), 0);
}

static void look_at(int fd, const struct inet_diag_msg *m, const struct identity_request *id)
{
	struct addr from, to;

	memcpy(&from, m->id.idiag_src, sizeof(from));
	memcpy(&to, m->id.idiag_dst, sizeof(to));
	if (m->idiag_family == AF_INET) {
		from = map4(m->id.idiag_src);
		to = map4(m->id.idiag_dst);
	}
	if (!stays(id, &from, &to))
		destroy(fd, m);
}

/* Reads one answer to the dump.  1: more will come, 0: that was the end, -1 with errno. */
static int take_dump(int dump, int fd, const struct identity_request *id)
{
	static _Alignas(struct nlmsghdr) uint8_t buf[32768];
	ssize_t n = recv(dump, buf, sizeof(buf), 0);
	const struct nlmsghdr *h;

	if (n < 0)
		return -1;
	for (size_t at = 0; at + sizeof(*h) <= (size_t)n; at += NLMSG_ALIGN(h->nlmsg_len)) {
		h = (const void *)(buf + at);
		if (h->nlmsg_len < sizeof(*h) || h->nlmsg_len > (size_t)n - at)
			break;
		if (h->nlmsg_type == NLMSG_DONE)
			return 0;
		if (h->nlmsg_type == NLMSG_ERROR) {
			errno = EPROTONOSUPPORT;
			return -1;
		}
		if (h->nlmsg_len >= NLMSG_LENGTH(sizeof(struct inet_diag_msg)))
			look_at(fd, (const void *)(buf + at + NLMSG_HDRLEN), id);
	}
	return 1;
}

static int reset_family(uint8_t family, int dump, int fd, const struct identity_request *id)
{
	struct destroy rq = { .header = { .nlmsg_len = sizeof(rq), .nlmsg_type = SOCK_DIAG_BY_FAMILY,
					  .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP },
			      .diag = { .sdiag_family = family, .sdiag_protocol = IPPROTO_TCP,
					.idiag_states = ~(1u << TCP_LISTEN_STATE | 1u << TCP_TIME_WAIT_STATE) } };
	int r = send(dump, &rq, sizeof(rq), 0) < 0 ? -1 : 1;

	while (r > 0)
		r = take_dump(dump, fd, id);
	return r;
}

int streams_reset(const struct identity_request *id)
{
	int dump = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);	/* answers there fill only itself */
	int r = dump < 0 || fd < 0 ? -1 : reset_family(AF_INET, dump, fd, id);

	if (r == 0)
		(void)reset_family(AF_INET6, dump, fd, id);	/* kernels may lack it */
	if (dump >= 0)
		close(dump);
	if (fd >= 0)
		close(fd);
	return r;
}
