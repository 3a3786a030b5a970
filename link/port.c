/* SPDX-License-Identifier: Apache-2.0 */
#include "link/port.h"

#include "link/segment.h"
#include "link/switch_client.h"
#include "os/err.h"
#include "os/log.h"
#include "os/loop.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BATCH 16u	/* packets of the switch before others have their turn */

struct port {
	struct link link;	/* first */
	struct link *gateway;
	int fd;	/* -1: the switch is gone */
	struct loop_source *source;
	void (*lost)(void *ctx);	/* NULL: nobody wants to know */
	void *lost_ctx;
	bool want_write;	/* the device waits for link_writable() */
	unsigned offloads;	/* of the guest */
	/* Packets of a batch: in[at] is next; its frame number @segment when @begun. */
	unsigned at, n, segment;
	bool begun;
	struct segments segments;
	uint32_t len[BATCH];
	union {
		struct switch_packet frame;
		struct switch_names names;
	} in[BATCH];
};

static void watch(struct port *p)
{
	if (p->source)
		(void)loop_set_events(p->source, (p->at < p->n ? 0u : EPOLLIN) | (p->want_write ? EPOLLOUT : 0u));
}

/* Other guests are out of reach from now on; the gateway is not. */
static void lose_switch(struct port *p)
{
	log_msg(LOG_LEVEL_WARN, "port", "the switch of the network has ended");
	loop_remove(p->source);
	p->source = NULL;
	(void)close(p->fd);
	p->fd = -1;
	p->at = p->n = 0;
	(void)link_user_peers(p->gateway, NULL, 0);
	if (p->want_write) {
		p->want_write = false;
		link_writable(&p->link);
	}
	if (p->lost)
		p->lost(p->lost_ctx);
}

/* ------------------------------------------------------------ from the guest */

static int to_switch(struct port *p, const struct link_frame *frame)
{
	struct switch_frame head = { .type = SWITCH_FRAME, .hdr = frame->hdr };
	struct iovec iov[LINK_IOV_MAX + 1];
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = frame->niov + 1 };

	if (p->fd < 0)
		return -ENETDOWN;
	if (frame->niov > LINK_IOV_MAX || frame->len > LINK_FRAME_MAX)
		return -EMSGSIZE;
	iov[0] = (struct iovec){ .iov_base = &head, .iov_len = sizeof(head) };
	memcpy(&iov[1], frame->iov, frame->niov * sizeof(iov[0]));
	if (sendmsg(p->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
		return 0;
	if (errno != EAGAIN && errno != ENOBUFS)
		return -errno;
	p->want_write = true;
	watch(p);
	return -EAGAIN;
}

/* The destination; what the rest of the frame says is for the switch and the gateway to see. */
static bool read_mac(const struct link_frame *frame, uint8_t mac[NET_MAC_SIZE])
{
	unsigned have = 0;

	for (unsigned i = 0; i < frame->niov && have < NET_MAC_SIZE; i++) {
		size_t n = frame->iov[i].iov_len < NET_MAC_SIZE - have ? frame->iov[i].iov_len : NET_MAC_SIZE - have;

		memcpy(mac + have, frame->iov[i].iov_base, n);
		have += (unsigned)n;
	}
	return have == NET_MAC_SIZE;
}

static int port_send(struct link *link, const struct link_frame *frame)
{
	struct port *p = (struct port *)link;
	uint8_t mac[NET_MAC_SIZE];
	int r;

	if (!read_mac(frame, mac))
		return -EINVAL;
	if (memcmp(mac, link_user_mac, sizeof(mac)) == 0)
		return link_send(p->gateway, frame);
	r = to_switch(p, frame);
	/* The gateway has no limits of its own: it takes all there is. */
	if (mac[0] & 1 && r != -EAGAIN)
		r = link_send(p->gateway, frame);
	return r;
}

static void port_flush(struct link *link)
{
	link_flush(((struct port *)link)->gateway);
}

/* -------------------------------------------------------------- to the guest */

/* Hands on what is left of frame in[at].  False when the guest has no room. */
static bool hand_on(struct port *p)
{
	struct switch_packet *packet = &p->in[p->at].frame;
	uint32_t len = p->len[p->at] - (uint32_t)sizeof(packet->head);
	struct link_frame frame;
	struct iovec iov;

	if (!p->begun) {
		segments_begin(&p->segments, &packet->head.hdr, packet->bytes, len, p->offloads);
		p->segment = 0;
		p->begun = true;
	}
	for (; p->segment < p->segments.count; p->segment++) {
		segments_get(&p->segments, p->segment, &frame, &iov);
		if (link_deliver(&p->link, &frame) == -EAGAIN)
			return false;
	}
	p->begun = false;
	return true;
}

static void take_names(struct port *p, struct switch_names *m, size_t len)
{
	struct link_user_peer peer[SWITCH_NAMES_MAX];

	if (len < offsetof(struct switch_names, entry) || m->count > SWITCH_NAMES_MAX ||
	    len != offsetof(struct switch_names, entry[m->count]))
		return;
	for (unsigned i = 0; i < m->count; i++) {
		m->entry[i].name[SWITCH_NAME_SIZE - 1] = '\0';
		peer[i] = (struct link_user_peer){ m->entry[i].name, m->entry[i].ip4, m->entry[i].ip6 };
	}
	if (link_user_peers(p->gateway, peer, m->count) < 0)
		log_msg(LOG_LEVEL_WARN, "port", "no memory for the names of the network");
}

/* False when the guest has no room. */
static bool take_batch(struct port *p)
{
	while (p->at < p->n) {
		uint32_t type = p->len[p->at] < sizeof(type) ? 0 : p->in[p->at].names.type;

		if (type == SWITCH_NAMES)
			take_names(p, &p->in[p->at].names, p->len[p->at]);
		if (type == SWITCH_FRAME && p->len[p->at] > sizeof(struct switch_frame) && !hand_on(p))
			return false;
		p->at++;
	}
	return true;
}

/* False when the switch is gone. */
static bool receive(struct port *p)
{
	struct mmsghdr msg[BATCH] = { 0 };
	struct iovec iov[BATCH];
	bool alive = true;
	int n;

	for (unsigned i = 0; i < BATCH; i++) {
		iov[i] = (struct iovec){ &p->in[i], sizeof(p->in[i]) };
		msg[i].msg_hdr = (struct msghdr){ .msg_iov = &iov[i], .msg_iovlen = 1 };
	}
	n = recvmmsg(p->fd, msg, BATCH, MSG_DONTWAIT, NULL);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR;
	p->at = p->n = 0;
	for (; alive && p->n < (unsigned)n; p->n++) {
		p->len[p->n] = msg[p->n].msg_len;
		alive = msg[p->n].msg_len;
	}
	return alive;
}

static void on_switch(void *ctx, uint32_t events)
{
	struct port *p = ctx;

	if (events & EPOLLOUT && p->want_write) {
		p->want_write = false;
		watch(p);
		link_writable(&p->link);
	}
	if (p->at < p->n || !(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		return;
	if (!receive(p)) {
		lose_switch(p);
		return;
	}
	if (!take_batch(p))
		watch(p);
}

static void port_ready(struct link *link)
{
	struct port *p = (struct port *)link;

	if (p->at < p->n && !take_batch(p))
		return;
	watch(p);
	link_ready(p->gateway);
}

static int from_gateway(void *ctx, const struct link_frame *frame)
{
	struct port *p = ctx;

	return link_deliver(&p->link, frame);
}

static void gateway_writable(void *ctx)
{
	link_writable(ctx);
}

static void port_offloads(struct link *link, unsigned offloads)
{
	struct port *p = (struct port *)link;

	p->offloads = offloads;
	link_offloads(p->gateway, offloads);
}

/* ----------------------------------------------------------------- life time */

static void port_destroy(struct link *link)
{
	struct port *p = (struct port *)link;

	link_destroy(p->gateway);
	loop_remove(p->source);
	if (p->fd >= 0)
		(void)close(p->fd);
	link_finish(link);
	free(p);
}

static const struct link_ops port_ops = {
	.name = "named",
	.send = port_send,
	.flush = port_flush,
	.ready = port_ready,
	.offloads = port_offloads,
	.destroy = port_destroy,
};

/* Takes over @fd on success. */
static int join(struct port *p, int fd, struct err *err)
{
	int r = loop_add_fd(p->link.loop, fd, EPOLLIN, on_switch, p, &p->source, err);

	if (r < 0)
		return r;
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &(int){ SWITCH_SOCKET_BUFFER }, sizeof(int));
	p->fd = fd;
	return 0;
}

void link_port_on_lost(struct link *link, void (*lost)(void *ctx), void *ctx)
{
	struct port *p = (struct port *)link;

	p->lost = lost;
	p->lost_ctx = ctx;
}

int link_port_renew(struct link *link, int fd)
{
	struct port *p = (struct port *)link;

	return p->fd >= 0 ? -EISCONN : join(p, fd, NULL);
}

int link_port_create(struct loop *loop, int fd, struct link *gateway, struct link **ret_link, struct err *err)
{
	struct port *p = calloc(1, sizeof(*p));
	const struct link_sink sink = { .deliver = from_gateway, .writable = gateway_writable, .ctx = p };
	int r;

	if (!p)
		return err_set(err, -ENOMEM, "out of host memory");
	link_init(&p->link, &port_ops, loop, gateway->mac, gateway->mtu);
	r = join(p, fd, err);
	if (r < 0) {
		free(p);
		return r;
	}
	p->gateway = gateway;
	link_attach(gateway, &sink);
	*ret_link = &p->link;
	return 0;
}

int link_port_open(const char *path, const uint8_t token[SWITCH_TOKEN_SIZE], struct err *err)
{
	struct switch_claim m = { .type = SWITCH_CLAIM };
	struct switch_answer a;
	int fd = switch_connect(path);
	ssize_t r = fd;

	memcpy(m.token, token, sizeof(m.token));
	if (fd >= 0)
		r = switch_ask(fd, &m, sizeof(m), SWITCH_CLAIMED, &a, sizeof(a));
	if (r >= 0)
		return fd;
	if (fd >= 0)
		(void)close(fd);
	return err_set(err, (int)r, "cannot join the network: its switch at %s: %s", path, strerror((int)-r));
}
