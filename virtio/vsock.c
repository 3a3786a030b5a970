/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streams over virtio.  The table of states is in the header.
 *
 * What the device has to say waits in two places: resets for ports without a
 * connection in a small ring, everything else in connections on the `ready`
 * list.  pump() turns both into packets as long as the driver offers receive
 * buffers.  Data is read from the host socket straight into those buffers, so
 * a connection on the list may turn out to have nothing.
 *
 * Reset may come on a vCPU thread, where loop sources must not be touched: it
 * moves connections to `doomed`, and an eventfd has the loop's thread bury them.
 */
#include "virtio/vsock.h"

#include "base/checked.h"
#include "os/blob.h"
#include "os/err.h"
#include "os/loop.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_vsock.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { QUEUE_RX, QUEUE_TX, QUEUE_EVENT };

#define HEADER sizeof(struct virtio_vsock_hdr)
#define HASH_SIZE 1024u
#define RESETS_MAX 256u
#define SAVED_MAX 64u	/* more connections are not saved, but reset in the restored guest */
#define TO_GUEST_MAX (1u << 20)	/* bytes: more than a Unix socket holds */
#define FIRST_HOST_PORT (1u << 30)	/* of connections we open; listeners are below */
#define SHUT_BOTH (VIRTIO_VSOCK_SHUTDOWN_RCV | VIRTIO_VSOCK_SHUTDOWN_SEND)

enum conn_state { CONNECTING, ESTABLISHED };

/* Packets a connection wants to send, as bits by operation. */
#define WANT(op) (1u << (op))

struct vsock;

struct conn {
	struct vsock *vsock;
	struct conn *hash_next;
	struct conn *prev, *next;	/* in ready or doomed; NULL next: in neither */
	uint32_t guest_port, host_port;
	enum conn_state state;
	bool doomed;
	int fd;	/* owned, non-blocking */
	struct loop_source *source;
	uint32_t watched;	/* events asked for */

	uint32_t want;	/* WANT() bits */
	uint32_t shutdown_sent;	/* flags the guest was told, or will be by WANT(SHUTDOWN) */
	uint32_t guest_shutdown;	/* flags the guest told */
	bool host_eof;
	bool host_shut;	/* shutdown(SHUT_WR) done */

	/* Credit, 5.10.6.3; counters run modulo 2^32. */
	uint32_t peer_buf_alloc, peer_fwd_cnt, tx_cnt;	/* towards the guest */
	uint32_t fwd_cnt, fwd_cnt_sent;	/* from the guest */

	uint8_t *out;	/* owned ring of VSOCK_BUFFER bytes while out_len > 0 */
	uint32_t out_at, out_len;

	vsock_result_fn result;	/* NULL once called or not wanted */
	void *result_ctx;
};

struct listener {
	struct listener *next;
	uint32_t port;
	vsock_accept_fn fn;
	void *ctx;
};

/* A connection of the guest when it was saved: its new host socket is yet to come. */
struct saved {
	struct saved *next;
	uint32_t guest_port, host_port;
	uint32_t peer_buf_alloc, peer_fwd_cnt, tx_cnt, fwd_cnt, fwd_cnt_sent;
	uint32_t to_host, to_guest;	/* of bytes[]: what was on its way */
	uint8_t bytes[];
};

struct result {	/* to be told without the lock */
	struct result *next;
	vsock_result_fn fn;
	void *ctx;
	int code;
};

struct vsock {
	struct virtio_device dev;	/* first */
	struct virtio_vsock_config config;
	uint64_t guest_cid;
	struct listener *listeners;
	struct conn *hash[HASH_SIZE];
	unsigned nconns;
	struct conn ready, doomed;	/* list heads */
	struct {
		uint32_t host_port, guest_port;
	} resets[RESETS_MAX];	/* a ring */
	unsigned resets_at, resets_len;
	struct saved *saved;	/* owned */
	bool held;	/* bytes for host sockets wait for the end of a pause */
	uint32_t next_port;
	bool event_pending;	/* the driver is to be told that connections are gone */
	int bury_fd;	/* owned eventfd */
	struct loop_source *bury;
	struct result *results, **results_end;
	struct chain chain;	/* being read or filled */
	struct iovec iov[CHAIN_SEGS_MAX];
};

static struct vsock *vsock_of(struct virtio_device *dev)
{
	return (struct vsock *)dev;
}

/* Lists: circular, the head's next is the first. */

static void list_init(struct conn *head)
{
	head->next = head->prev = head;
}

static bool list_empty(const struct conn *head)
{
	return head->next == head;
}

static void list_remove(struct conn *c)
{
	if (!c->next)
		return;
	c->prev->next = c->next;
	c->next->prev = c->prev;
	c->next = c->prev = NULL;
}

static void list_append(struct conn *head, struct conn *c)
{
	c->prev = head->prev;
	c->next = head;
	head->prev->next = c;
	head->prev = c;
}

static struct conn **bucket(struct vsock *v, uint32_t guest_port, uint32_t host_port)
{
	return &v->hash[((guest_port * 2654435761u) ^ host_port) % HASH_SIZE];
}

static struct conn *find_conn(struct vsock *v, uint32_t guest_port, uint32_t host_port)
{
	struct conn *c = *bucket(v, guest_port, host_port);

	while (c && (c->guest_port != guest_port || c->host_port != host_port))
		c = c->hash_next;
	return c;
}

/* Remembers what to tell a caller; when memory is short the caller waits in vain. */
static void queue_result(struct conn *c, int code)
{
	struct vsock *v = c->vsock;
	struct result *r = c->result ? malloc(sizeof(*r)) : NULL;

	if (r) {
		*r = (struct result){ .fn = c->result, .ctx = c->result_ctx, .code = code };
		*v->results_end = r;
		v->results_end = &r->next;
	}
	c->result = NULL;
}

/* Calls back without the lock.  Lock held, dropped meanwhile; loop thread. */
static void tell_results(struct vsock *v)
{
	struct result *r;

	while ((r = v->results)) {
		v->results = r->next;
		if (!v->results)
			v->results_end = &v->results;
		virtio_unlock(&v->dev);
		r->fn(r->ctx, r->code);
		free(r);
		virtio_lock(&v->dev);
	}
}

static void unhash(struct conn *c)
{
	struct conn **at = bucket(c->vsock, c->guest_port, c->host_port);

	while (*at != c)
		at = &(*at)->hash_next;
	*at = c->hash_next;
	c->vsock->nconns--;
}

static void free_conn(struct conn *c)
{
	loop_remove(c->source);
	(void)close(c->fd);
	free(c->out);
	free(c);
}

/* Ends a connection.  Loop thread. */
static void drop(struct conn *c, int result)
{
	list_remove(c);
	unhash(c);
	queue_result(c, result);
	free_conn(c);
}

/* Queues a reset for ports; false when the ring is full. */
static bool queue_reset_packet(struct vsock *v, uint32_t host_port, uint32_t guest_port)
{
	unsigned at = (v->resets_at + v->resets_len) % RESETS_MAX;

	if (v->resets_len == RESETS_MAX)
		return false;
	v->resets[at].host_port = host_port;
	v->resets[at].guest_port = guest_port;
	v->resets_len++;
	return true;
}

/* Ends a connection and tells the guest; when the ring is full the guest finds out later. */
static void abort_conn(struct conn *c, int result)
{
	(void)queue_reset_packet(c->vsock, c->host_port, c->guest_port);
	drop(c, result);
}

static void make_ready(struct conn *c)
{
	if (!c->next)
		list_append(&c->vsock->ready, c);
}

static void want(struct conn *c, unsigned op)
{
	c->want |= WANT(op);
	make_ready(c);
}

/* Bytes the guest has room for. */
static uint32_t credit(const struct conn *c)
{
	uint32_t in_flight = c->tx_cnt - c->peer_fwd_cnt;

	return in_flight < c->peer_buf_alloc ? c->peer_buf_alloc - in_flight : 0;
}

static bool may_read(const struct conn *c)
{
	return c->state == ESTABLISHED && !c->host_eof &&
	       !(c->guest_shutdown & VIRTIO_VSOCK_SHUTDOWN_RCV) && credit(c) > 0;
}

/* Watches for what we can act on; while nothing, for the end alone, without spinning. */
static void update_watch(struct conn *c)
{
	uint32_t events = 0;

	if (may_read(c) && !c->next)	/* on the ready list it will be read anyway */
		events |= EPOLLIN;
	/* A device that was saved with these bytes may not bring them to the host as well. */
	if (c->out_len && c->vsock->dev.paused)
		c->vsock->held = true;
	else if (c->out_len)
		events |= EPOLLOUT;
	if (!events)
		events = EPOLLET;
	if (events != c->watched && loop_set_events(c->source, events) == 0)
		c->watched = events;
}

static struct virtio_vsock_hdr header(const struct vsock *v, uint32_t host_port, uint32_t guest_port,
				      uint16_t op)
{
	return (struct virtio_vsock_hdr){
		.src_cid = htole64(VSOCK_CID_HOST),
		.dst_cid = htole64(v->guest_cid),
		.src_port = htole32(host_port),
		.dst_port = htole32(guest_port),
		.type = htole16(VIRTIO_VSOCK_TYPE_STREAM),
		.op = htole16(op),
	};
}

static void put_packet(struct vsock *v, const struct virtio_vsock_hdr *h)
{
	(void)chain_write(&v->chain, 0, h, HEADER);
	queue_push(&v->dev.queue[QUEUE_RX], &v->chain, (uint32_t)(HEADER + le32toh(h->len)));
}

static void put_conn_packet(struct conn *c, uint16_t op, uint32_t len, uint32_t flags)
{
	struct virtio_vsock_hdr h = header(c->vsock, c->host_port, c->guest_port, op);

	h.len = htole32(len);
	h.flags = htole32(flags);
	h.buf_alloc = htole32(VSOCK_BUFFER);
	h.fwd_cnt = htole32(c->fwd_cnt);
	c->fwd_cnt_sent = c->fwd_cnt;
	c->want &= ~WANT(VIRTIO_VSOCK_OP_CREDIT_UPDATE);	/* every packet carries the credit */
	put_packet(c->vsock, &h);
}

static void send_shutdown(struct conn *c, uint32_t flags)
{
	if ((c->shutdown_sent | flags) == c->shutdown_sent)
		return;
	c->shutdown_sent |= flags;
	want(c, VIRTIO_VSOCK_OP_SHUTDOWN);
}

/* Moves bytes from the host socket into the receive buffer.  True when a packet was made. */
static bool put_data(struct conn *c)
{
	struct vsock *v = c->vsock;
	size_t room = v->chain.write_len - HEADER;
	ssize_t n;
	unsigned niov;

	if (!may_read(c))
		return false;
	niov = chain_slice_write(&v->chain, HEADER, room < credit(c) ? room : credit(c), v->iov);
	if (!niov)
		return false;
	do
		n = readv(c->fd, v->iov, (int)niov);
	while (n < 0 && errno == EINTR);
	if (n > 0) {
		c->tx_cnt += (uint32_t)n;
		put_conn_packet(c, VIRTIO_VSOCK_OP_RW, (uint32_t)n, 0);
		return true;
	}
	if (n < 0 && errno == EAGAIN)
		return false;
	c->host_eof = true;	/* an error shows again when the guest writes */
	c->watched = 0;	/* watch anew: the hang-up may have been reported already */
	send_shutdown(c, VIRTIO_VSOCK_SHUTDOWN_SEND);
	return false;
}

/* Makes one packet of what the connection wants most.  False when it wants nothing. */
static bool put_next(struct conn *c)
{
	static const uint16_t order[] = { VIRTIO_VSOCK_OP_REQUEST, VIRTIO_VSOCK_OP_RESPONSE };

	for (size_t i = 0; i < ARRAY_SIZE(order); i++)
		if (c->want & WANT(order[i])) {
			c->want &= ~WANT(order[i]);
			put_conn_packet(c, order[i], 0, 0);
			return true;
		}
	if (put_data(c))
		return true;
	if (c->want & WANT(VIRTIO_VSOCK_OP_SHUTDOWN)) {	/* after the data before it */
		c->want &= ~WANT(VIRTIO_VSOCK_OP_SHUTDOWN);
		put_conn_packet(c, VIRTIO_VSOCK_OP_SHUTDOWN, 0, c->shutdown_sent);
		return true;
	}
	if (c->want & WANT(VIRTIO_VSOCK_OP_CREDIT_UPDATE)) {
		put_conn_packet(c, VIRTIO_VSOCK_OP_CREDIT_UPDATE, 0, 0);
		return true;
	}
	return false;
}

static void put_reset(struct vsock *v)
{
	struct virtio_vsock_hdr h = header(v, v->resets[v->resets_at].host_port,
					   v->resets[v->resets_at].guest_port, VIRTIO_VSOCK_OP_RST);

	v->resets_at = (v->resets_at + 1) % RESETS_MAX;
	v->resets_len--;
	put_packet(v, &h);
}

/* The first ready connection gets a packet and goes to the end, or leaves the list. */
static void serve_ready(struct vsock *v)
{
	struct conn *c = v->ready.next;

	list_remove(c);
	if (put_next(c)) {
		make_ready(c);	/* which put_next() may have done itself */
		return;
	}
	queue_unpop(&v->dev.queue[QUEUE_RX]);
	update_watch(c);
}

/* Sends as much as the driver has receive buffers for. */
static void pump(struct vsock *v)
{
	struct virtio_device *dev = &v->dev;

	while ((v->resets_len || !list_empty(&v->ready)) && virtio_pop(dev, QUEUE_RX, &v->chain)) {
		if (v->chain.write_len < HEADER) {
			virtio_broken(dev, "a receive buffer is smaller than a packet header");
			return;
		}
		if (v->resets_len)
			put_reset(v);
		else
			serve_ready(v);
	}
	virtio_interrupt(dev, QUEUE_RX);
	/* Those left wait for buffers, and must not be woken by their sockets. */
	for (struct conn *c = v->ready.next; c != &v->ready; c = c->next)
		update_watch(c);
}

static void count_forwarded(struct conn *c, uint32_t n)
{
	c->fwd_cnt += n;
	/* Early enough that the guest need not stop, rarely enough to be cheap. */
	if (c->fwd_cnt - c->fwd_cnt_sent >= VSOCK_BUFFER / 4)
		want(c, VIRTIO_VSOCK_OP_CREDIT_UPDATE);
}

/*
 * All that the guest sent is with the host: half-closes that waited for it can
 * go on.  False when the connection ended.
 */
static bool after_flush(struct conn *c)
{
	if (c->guest_shutdown == SHUT_BOTH) {
		abort_conn(c, 0);	/* 5.10.6.5: RST confirms a clean end */
		return false;
	}
	if (c->guest_shutdown & VIRTIO_VSOCK_SHUTDOWN_SEND && !c->host_shut) {
		c->host_shut = true;
		(void)shutdown(c->fd, SHUT_WR);
	}
	return true;
}

/* Writes waiting bytes to the host.  False when the connection ended. */
static bool flush_out(struct conn *c)
{
	while (c->out_len) {
		uint32_t run = VSOCK_BUFFER - c->out_at;
		ssize_t n = send(c->fd, c->out + c->out_at, run < c->out_len ? run : c->out_len,
				 MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return true;
		if (n < 0) {
			abort_conn(c, -ECONNRESET);
			return false;
		}
		c->out_at = (c->out_at + (uint32_t)n) % VSOCK_BUFFER;
		c->out_len -= (uint32_t)n;
		count_forwarded(c, (uint32_t)n);
	}
	free(c->out);
	c->out = NULL;
	return after_flush(c);
}

static void on_socket(void *ctx, uint32_t events)
{
	struct conn *c = ctx;
	struct vsock *v = c->vsock;

	virtio_lock(&v->dev);
	if (c->doomed)
		goto out;
	if (c->state == CONNECTING) {
		if (events & (EPOLLHUP | EPOLLERR))
			abort_conn(c, -ECANCELED);
		pump(v);
		goto out;
	}
	if (events & EPOLLOUT && !v->dev.paused && !flush_out(c))
		goto pump_out;
	if (events & EPOLLHUP && c->host_eof)
		send_shutdown(c, SHUT_BOTH);	/* nobody is there to read either */
	if (may_read(c))
		make_ready(c);
	update_watch(c);
pump_out:
	pump(v);
out:
	tell_results(v);
	virtio_unlock(&v->dev);
}

/* Makes a connection; takes @fd on success. */
static int add_conn(struct vsock *v, uint32_t guest_port, uint32_t host_port, int fd,
		    enum conn_state state, struct conn **ret_conn)
{
	struct conn **head = bucket(v, guest_port, host_port), *c;
	int r, flags = fcntl(fd, F_GETFL);

	if (v->nconns >= VSOCK_CONNECTIONS_MAX)
		return -EMFILE;
	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return -errno;
	c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	c->vsock = v;
	c->guest_port = guest_port;
	c->host_port = host_port;
	c->fd = fd;
	c->state = state;
	c->watched = EPOLLET;
	r = loop_add_fd(v->dev.loop, fd, EPOLLET, on_socket, c, &c->source, NULL);
	if (r < 0) {
		free(c);
		return r;
	}
	c->hash_next = *head;
	*head = c;
	v->nconns++;
	*ret_conn = c;
	return 0;
}

static const struct listener *find_listener(const struct vsock *v, uint32_t port)
{
	const struct listener *l = v->listeners;

	while (l && l->port != port)
		l = l->next;
	return l;
}

static void take_credit(struct conn *c, const struct virtio_vsock_hdr *h)
{
	c->peer_buf_alloc = le32toh(h->buf_alloc);
	c->peer_fwd_cnt = le32toh(h->fwd_cnt);
}

/* The guest asks for a connection.  False when it is to be refused. */
static bool on_request(struct vsock *v, const struct virtio_vsock_hdr *h)
{
	uint32_t guest_port = le32toh(h->src_port), host_port = le32toh(h->dst_port);
	const struct listener *l = find_listener(v, host_port);
	struct conn *c;
	int fd;

	if (!l)
		return false;
	fd = l->fn(l->ctx, guest_port);
	if (fd < 0)
		return false;
	if (add_conn(v, guest_port, host_port, fd, ESTABLISHED, &c) < 0) {
		(void)close(fd);
		return false;
	}
	take_credit(c, h);
	want(c, VIRTIO_VSOCK_OP_RESPONSE);
	return true;
}

/* Keeps what the host does not take now: there is room, as the guest kept to its credit. */
static bool buffer_rest(struct conn *c, size_t off, uint32_t len)
{
	uint32_t end = (c->out_at + c->out_len) % VSOCK_BUFFER;
	uint32_t run = VSOCK_BUFFER - end < len ? VSOCK_BUFFER - end : len;

	if (!c->out) {
		c->out = malloc(VSOCK_BUFFER);
		if (!c->out)
			return false;
		c->out_at = end = 0;
		run = len;
	}
	(void)chain_read(&c->vsock->chain, off, c->out + end, run);
	(void)chain_read(&c->vsock->chain, off + run, c->out, len - run);
	c->out_len += len;
	return true;
}

/* Data from the guest.  False when the connection is to be aborted. */
static bool on_data(struct conn *c, uint32_t len)
{
	struct vsock *v = c->vsock;
	struct msghdr msg = { .msg_iov = v->iov };
	ssize_t n = 0;

	if (c->state != ESTABLISHED || len > VSOCK_BUFFER - c->out_len ||
	    c->guest_shutdown & VIRTIO_VSOCK_SHUTDOWN_SEND)
		return false;
	if (!len)
		return true;
	if (!c->out_len) {
		msg.msg_iovlen = chain_slice_read(&v->chain, HEADER, len, v->iov);
		do
			n = sendmsg(c->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
		while (n < 0 && errno == EINTR);
		if (n < 0 && errno != EAGAIN)
			return false;
		if (n < 0)
			n = 0;
		count_forwarded(c, (uint32_t)n);
	}
	return (uint32_t)n == len || buffer_rest(c, HEADER + (size_t)n, len - (uint32_t)n);
}

/* A packet for a connection that exists. */
static void on_conn_packet(struct conn *c, const struct virtio_vsock_hdr *h)
{
	take_credit(c, h);
	switch (le16toh(h->op)) {
	case VIRTIO_VSOCK_OP_RESPONSE:
		if (c->state != CONNECTING) {
			abort_conn(c, -ECONNRESET);
			return;
		}
		c->state = ESTABLISHED;
		queue_result(c, 0);
		break;
	case VIRTIO_VSOCK_OP_RST:
		drop(c, c->state == CONNECTING ? -ECONNREFUSED : -ECONNRESET);
		return;
	case VIRTIO_VSOCK_OP_SHUTDOWN:
		c->guest_shutdown |= le32toh(h->flags) & SHUT_BOTH;
		if (!c->out_len && !after_flush(c))
			return;
		break;
	case VIRTIO_VSOCK_OP_RW:
		if (!on_data(c, le32toh(h->len))) {
			abort_conn(c, -ECONNRESET);
			return;
		}
		break;
	case VIRTIO_VSOCK_OP_CREDIT_UPDATE:
		break;
	case VIRTIO_VSOCK_OP_CREDIT_REQUEST:
		want(c, VIRTIO_VSOCK_OP_CREDIT_UPDATE);
		break;
	default:	/* REQUEST for ports in use, or nonsense */
		abort_conn(c, -ECONNRESET);
		return;
	}
	if (may_read(c) && !(c->watched & EPOLLIN))
		make_ready(c);
	update_watch(c);
}

static void on_packet(struct vsock *v, const struct virtio_vsock_hdr *h)
{
	uint32_t guest_port = le32toh(h->src_port), host_port = le32toh(h->dst_port);
	struct conn *c;

	/* Packets that do not come from this guest or go to nobody: 5.10.6.4.1. */
	if (le64toh(h->src_cid) != v->guest_cid || le64toh(h->dst_cid) != VSOCK_CID_HOST ||
	    le16toh(h->type) != VIRTIO_VSOCK_TYPE_STREAM) {
		if (le16toh(h->op) != VIRTIO_VSOCK_OP_RST)
			(void)queue_reset_packet(v, host_port, guest_port);
		return;
	}
	c = find_conn(v, guest_port, host_port);
	if (c)
		on_conn_packet(c, h);
	else if (le16toh(h->op) == VIRTIO_VSOCK_OP_REQUEST && on_request(v, h))
		return;
	else if (le16toh(h->op) != VIRTIO_VSOCK_OP_RST)
		(void)queue_reset_packet(v, host_port, guest_port);
}

/* Takes packets while there is room for the resets they may cause. */
static void take_packets(struct vsock *v)
{
	struct virtio_device *dev = &v->dev;
	struct virtio_vsock_hdr h;

	while (v->resets_len < RESETS_MAX && virtio_pop(dev, QUEUE_TX, &v->chain)) {
		if (chain_read(&v->chain, 0, &h, HEADER) < HEADER ||
		    le32toh(h.len) > v->chain.read_len - HEADER) {
			virtio_broken(dev, "a packet is shorter than its header says");
			return;
		}
		on_packet(v, &h);
		queue_push(&dev->queue[QUEUE_TX], &v->chain, 0);
	}
	virtio_interrupt(dev, QUEUE_TX);
}

static void put_event(struct vsock *v)
{
	const struct virtio_vsock_event event = { .id = htole32(VIRTIO_VSOCK_EVENT_TRANSPORT_RESET) };
	size_t n;

	if (!v->event_pending || !virtio_pop(&v->dev, QUEUE_EVENT, &v->chain))
		return;
	v->event_pending = false;
	n = chain_write(&v->chain, 0, &event, sizeof(event));
	virtio_push(&v->dev, QUEUE_EVENT, &v->chain, (uint32_t)n);
}

/* The first thing after a pause is that the queues are looked at. */
static void let_go(struct vsock *v)
{
	v->held = false;
	for (unsigned i = 0; i < HASH_SIZE; i++)
		for (struct conn *c = v->hash[i]; c; c = c->hash_next)
			if (c->out_len)
				update_watch(c);
}

static void vsock_notified(struct virtio_device *dev, unsigned index)
{
	struct vsock *v = vsock_of(dev);
	bool was_full = v->resets_len == RESETS_MAX;

	if (v->held && !dev->paused)
		let_go(v);
	if (index == QUEUE_EVENT) {
		put_event(v);
		return;
	}
	if (index == QUEUE_TX)
		take_packets(v);
	pump(v);
	/* Packets may have been left in the ring for want of room for resets. */
	if (was_full && v->resets_len < RESETS_MAX) {
		take_packets(v);
		pump(v);
	}
	tell_results(v);
}

static void drop_saved(struct vsock *v)
{
	struct saved *s;

	while ((s = v->saved)) {
		v->saved = s->next;
		free(s);
	}
}

static void vsock_reset(struct virtio_device *dev)
{
	struct vsock *v = vsock_of(dev);
	uint64_t one = 1;

	for (unsigned i = 0; i < HASH_SIZE; i++)
		while (v->hash[i]) {
			struct conn *c = v->hash[i];

			v->hash[i] = c->hash_next;
			v->nconns--;
			list_remove(c);
			c->doomed = true;
			list_append(&v->doomed, c);
		}
	v->resets_len = 0;
	drop_saved(v);
	v->event_pending = false;
	/* Fails only when the counter is full, and then the loop wakes anyway. */
	if (write(v->bury_fd, &one, sizeof(one)) < 0)
		return;
}

static void bury_doomed(struct vsock *v)
{
	while (!list_empty(&v->doomed)) {
		struct conn *c = v->doomed.next;

		list_remove(c);
		queue_result(c, -ECONNRESET);
		free_conn(c);
	}
}

static void on_bury(void *ctx, uint32_t events)
{
	struct vsock *v = ctx;
	uint64_t count;

	if (read(v->bury_fd, &count, sizeof(count)) < 0)
		return;
	virtio_lock(&v->dev);
	bury_doomed(v);
	tell_results(v);
	virtio_unlock(&v->dev);
}

/* Bytes that the guest is still to read from its host socket; more than @max: it cannot be saved. */
static size_t peek_host(const struct conn *c, uint8_t *to, size_t max)
{
	ssize_t n = recv(c->fd, to, max, MSG_PEEK | MSG_DONTWAIT);
	int there = 0;

	if (ioctl(c->fd, FIONREAD, &there) < 0 || there < 0)
		return SIZE_MAX;
	return n < 0 && !there ? 0 : n == there ? (size_t)n : SIZE_MAX;
}

static void save_conn(const struct conn *c, uint8_t *buffer, struct blob *out)
{
	bool whole = c->state == ESTABLISHED && !(c->want & ~WANT(VIRTIO_VSOCK_OP_CREDIT_UPDATE)) && !c->guest_shutdown &&
		     !c->shutdown_sent && !c->host_eof && buffer;
	size_t to_guest = whole ? peek_host(c, buffer, TO_GUEST_MAX) : SIZE_MAX;
	uint32_t run = VSOCK_BUFFER - c->out_at < c->out_len ? VSOCK_BUFFER - c->out_at : c->out_len;

	blob_put_u32(out, c->guest_port);
	blob_put_u32(out, c->host_port);
	blob_put_u32(out, to_guest != SIZE_MAX);
	if (to_guest == SIZE_MAX)
		return;
	blob_put_u32(out, c->peer_buf_alloc);
	blob_put_u32(out, c->peer_fwd_cnt);
	blob_put_u32(out, c->tx_cnt);
	blob_put_u32(out, c->fwd_cnt);
	blob_put_u32(out, c->fwd_cnt_sent);
	blob_put_u32(out, c->out_len);
	blob_put_u32(out, (uint32_t)to_guest);
	if (c->out_len) {
		blob_put(out, c->out + c->out_at, run);
		blob_put(out, c->out, c->out_len - run);
	}
	blob_put(out, buffer, to_guest);
}

static void vsock_save(struct virtio_device *dev, struct blob *out)
{
	const struct vsock *v = vsock_of(dev);
	unsigned n = v->nconns < SAVED_MAX ? v->nconns : SAVED_MAX, left = n;
	uint8_t *buffer = n ? malloc(TO_GUEST_MAX) : NULL;

	blob_put_u32(out, v->next_port);	/* those before it may be in the guest's memory still, of connections that ended */
	blob_put_u32(out, v->nconns - n);
	blob_put_u32(out, n);
	for (unsigned i = 0; i < HASH_SIZE && left; i++)
		for (const struct conn *c = v->hash[i]; c && left; c = c->hash_next, left--)
			save_conn(c, buffer, out);
	free(buffer);
}

static int restore_conn(struct vsock *v, struct blob_reader *in)
{
	uint32_t guest_port = blob_take_u32(in), host_port = blob_take_u32(in), field[7];
	const void *bytes;
	struct saved *s;

	if (!blob_take_u32(in))	/* not whole */
		return queue_reset_packet(v, host_port, guest_port) && !in->failed ? 0 : -EINVAL;
	for (unsigned i = 0; i < ARRAY_SIZE(field); i++)
		field[i] = blob_take_u32(in);
	if (in->failed || field[5] > VSOCK_BUFFER || field[6] > TO_GUEST_MAX)
		return -EINVAL;
	bytes = blob_take(in, (size_t)field[5] + field[6]);
	s = malloc(sizeof(*s) + field[5] + field[6]);
	if (!s || in->failed) {
		free(s);
		return s ? -EINVAL : -ENOMEM;
	}
	*s = (struct saved){ v->saved, guest_port, host_port, field[0], field[1], field[2], field[3], field[4], field[5], field[6] };
	if (field[5] + field[6])
		memcpy(s->bytes, bytes, (size_t)field[5] + field[6]);
	v->saved = s;
	return 0;
}

/* Host sockets do not travel: virtio_vsock_take() brings new ones, and virtio_vsock_abandon() gives up the others. */
static int vsock_restore(struct virtio_device *dev, struct blob_reader *in)
{
	struct vsock *v = vsock_of(dev);
	uint32_t next_port = blob_take_u32(in), others = blob_take_u32(in), n = blob_take_u32(in);
	int r = n > SAVED_MAX || next_port < FIRST_HOST_PORT || next_port == UINT32_MAX ? -EINVAL : 0;

	drop_saved(v);
	v->resets_len = 0;
	if (r == 0)
		v->next_port = next_port;
	for (unsigned i = 0; i < n && r == 0; i++)
		r = restore_conn(v, in);
	v->event_pending = others != 0;	/* the driver resets all it has */
	if (others || r < 0)
		drop_saved(v);
	return r;
}

static void vsock_destroy(struct virtio_device *dev)
{
	struct vsock *v = vsock_of(dev);
	struct listener *l;
	struct result *r;

	vsock_reset(dev);
	bury_doomed(v);
	while ((r = v->results)) {	/* the program is going: nobody wants to know */
		v->results = r->next;
		free(r);
	}
	while ((l = v->listeners)) {
		v->listeners = l->next;
		free(l);
	}
	drop_saved(v);
	loop_remove(v->bury);
	if (v->bury_fd >= 0)
		(void)close(v->bury_fd);
	virtio_device_finish(dev);
	free(v);
}

static const struct virtio_device_ops vsock_ops = {
	.name = "virtio-vsock",
	.id = 19,
	.nqueues = 3,
	.queue_size = { 256, 256, 8 },
	.notified = vsock_notified,
	.reset = vsock_reset,
	.save = vsock_save,
	.restore = vsock_restore,
	.destroy = vsock_destroy,
};

int virtio_vsock_create(struct loop *loop, uint64_t guest_cid, struct virtio_device **ret_dev,
			struct err *err)
{
	struct vsock *v;
	int r;

	if (guest_cid < VSOCK_CID_GUEST_MIN || guest_cid >= UINT32_MAX)	/* 5.10.4 */
		return err_set(err, -EINVAL, "virtio-vsock: %llu cannot be a guest's context id",
			       (unsigned long long)guest_cid);
	v = calloc(1, sizeof(*v));
	if (!v)
		return err_set(err, -ENOMEM, "virtio-vsock: out of memory");
	virtio_device_init(&v->dev, &vsock_ops, loop, 0);
	v->dev.config = &v->config;
	v->dev.config_len = sizeof(v->config);
	v->config.guest_cid = htole64(guest_cid);
	v->guest_cid = guest_cid;
	v->next_port = FIRST_HOST_PORT;
	v->results_end = &v->results;
	list_init(&v->ready);
	list_init(&v->doomed);
	v->bury_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (v->bury_fd < 0)
		r = err_set(err, -errno, "virtio-vsock: eventfd: %s", strerror(errno));
	else
		r = loop_add_fd(loop, v->bury_fd, EPOLLIN, on_bury, v, &v->bury, err);
	if (r < 0) {
		vsock_destroy(&v->dev);
		return r;
	}
	*ret_dev = &v->dev;
	return 0;
}

/* A host port not used with this guest port; at most VSOCK_CONNECTIONS_MAX are. */
static uint32_t choose_port(struct vsock *v, uint32_t guest_port)
{
	uint32_t port;

	do {
		port = v->next_port++;
		if (v->next_port == UINT32_MAX)
			v->next_port = FIRST_HOST_PORT;
	} while (find_conn(v, guest_port, port));
	return port;
}

int virtio_vsock_connect(struct virtio_device *dev, uint32_t guest_port, int fd, vsock_result_fn fn,
			 void *ctx, uint32_t *ret_host_port)
{
	struct vsock *v = vsock_of(dev);
	struct conn *c;
	int r = -ENOTCONN;

	virtio_lock(dev);
	if (dev->running)
		r = add_conn(v, guest_port, choose_port(v, guest_port), fd, CONNECTING, &c);
	if (r == 0) {
		c->result = fn;
		c->result_ctx = ctx;
		if (ret_host_port)
			*ret_host_port = c->host_port;
		want(c, VIRTIO_VSOCK_OP_REQUEST);
		pump(v);
	}
	virtio_unlock(dev);
	return r;
}

int virtio_vsock_listen(struct virtio_device *dev, uint32_t host_port, vsock_accept_fn fn, void *ctx)
{
	struct vsock *v = vsock_of(dev);
	struct listener *l = malloc(sizeof(*l));
	int r = 0;

	if (!l)
		return -ENOMEM;
	virtio_lock(dev);
	if (find_listener(v, host_port)) {
		free(l);
		r = -EADDRINUSE;
	} else {
		*l = (struct listener){ .next = v->listeners, .port = host_port, .fn = fn, .ctx = ctx };
		v->listeners = l;
	}
	virtio_unlock(dev);
	return r;
}

void virtio_vsock_unlisten(struct virtio_device *dev, uint32_t host_port)
{
	struct vsock *v = vsock_of(dev);

	virtio_lock(dev);
	for (struct listener **at = &v->listeners; *at; at = &(*at)->next) {
		struct listener *l = *at;

		if (l->port != host_port)
			continue;
		*at = l->next;
		free(l);
		break;
	}
	virtio_unlock(dev);
}

static bool is_quiet(const struct conn *c)
{
	uint8_t byte;

	return c->state == ESTABLISHED && !c->want && !c->out_len && !c->guest_shutdown && !c->shutdown_sent && !c->host_eof &&
	       recv(c->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EAGAIN;
}

bool virtio_vsock_quiet(struct virtio_device *dev)
{
	const struct vsock *v = vsock_of(dev);
	bool quiet = true;

	virtio_lock(dev);
	for (unsigned i = 0; i < HASH_SIZE && quiet; i++)
		for (const struct conn *c = v->hash[i]; c && quiet; c = c->hash_next)
			quiet = is_quiet(c);
	virtio_unlock(dev);
	return quiet;
}

/* What was on its way goes on.  The caller's end of the socket is @peer. */
static int refill(struct conn *c, const struct saved *s, int peer)
{
	if (s->to_guest && write(peer, s->bytes + s->to_host, s->to_guest) != (ssize_t)s->to_guest)
		return -EIO;
	if (!s->to_host)
		return 0;
	c->out = malloc(VSOCK_BUFFER);
	if (!c->out)
		return -ENOMEM;
	memcpy(c->out, s->bytes, s->to_host);
	c->out_len = s->to_host;
	return 0;
}

/* The first saved connection of that name; @host_port 0: any. */
static struct saved *take_saved(struct vsock *v, uint32_t guest_port, uint32_t host_port)
{
	for (struct saved **at = &v->saved; *at; at = &(*at)->next) {
		struct saved *s = *at;

		if (s->guest_port != guest_port || (host_port && s->host_port != host_port))
			continue;
		*at = s->next;
		return s;
	}
	return NULL;
}

int virtio_vsock_take(struct virtio_device *dev, uint32_t guest_port, uint32_t *host_port, int fd, int peer)
{
	struct vsock *v = vsock_of(dev);
	struct saved *s;
	struct conn *c = NULL;
	int r;

	virtio_lock(dev);
	s = take_saved(v, guest_port, *host_port);
	r = !s ? -ENOENT : find_conn(v, s->guest_port, s->host_port) ? -EEXIST :
		add_conn(v, s->guest_port, s->host_port, fd, ESTABLISHED, &c);
	if (r == 0)
		r = refill(c, s, peer);
	if (r == 0) {
		*host_port = s->host_port;
		c->peer_buf_alloc = s->peer_buf_alloc;
		c->peer_fwd_cnt = s->peer_fwd_cnt;
		c->tx_cnt = s->tx_cnt;
		c->fwd_cnt = s->fwd_cnt;
		c->fwd_cnt_sent = s->fwd_cnt_sent;
		if (c->fwd_cnt != c->fwd_cnt_sent)	/* the guest may be waiting for one that was due */
			want(c, VIRTIO_VSOCK_OP_CREDIT_UPDATE);
		if (dev->running)
			pump(v);
		update_watch(c);
	} else if (c) {
		c->fd = -1;	/* it stays the caller's */
		abort_conn(c, r);
	}
	free(s);
	virtio_unlock(dev);
	return r;
}

void virtio_vsock_abandon(struct virtio_device *dev)
{
	struct vsock *v = vsock_of(dev);

	virtio_lock(dev);
	for (const struct saved *s = v->saved; s; s = s->next)
		(void)queue_reset_packet(v, s->host_port, s->guest_port);
	drop_saved(v);
	if (dev->running)
		pump(v);
	virtio_unlock(dev);
}

unsigned virtio_vsock_connections(struct virtio_device *dev)
{
	unsigned n;

	virtio_lock(dev);
	n = vsock_of(dev)->nconns;
	virtio_unlock(dev);
	return n;
}
