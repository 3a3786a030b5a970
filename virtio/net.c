/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Queues: receive and transmit of pair 0, of pair 1, ..., then control; without
 * VIRTIO_NET_F_MQ there is one pair (5.1.2).
 *
 * Everything runs on the loop's thread, resets apart, and under the device's lock.
 * A link may answer a frame before it has taken it: net_deliver() is then called
 * with the lock held already, which `inside` tells.
 */
#include "virtio/net.h"

#include "link/link.h"
#include "os/blob.h"
#include "os/err.h"
#include "os/loop.h"

#include <endian.h>
#include <errno.h>
#include <linux/virtio_net.h>
#include <stdlib.h>
#include <string.h>

#define HEADER ((uint32_t)sizeof(struct virtio_net_hdr_v1))
#define QUEUE_SIZE 1024
#define FLOWS 256u	/* entries of the table of flows */
#define OWED_FRAMES_MAX 16u	/* frames and bytes whose sending may stay untold until the loop is idle */
#define OWED_BYTES_MAX 16384u
#define CONTROL_MAX 64u	/* bytes of a command that are looked at */

#define F(bit) (1ull << VIRTIO_NET_F_##bit)
#define GUEST_OFFLOADS (F(GUEST_CSUM) | F(GUEST_TSO4) | F(GUEST_TSO6))

struct net {
	struct virtio_device dev;	/* first */
	struct link *link;	/* owned */
	struct loop_source *idle;
	struct virtio_net_config config;
	unsigned npairs;	/* in use; set by the driver */
	uint64_t offloads;	/* GUEST_OFFLOADS in force */
	bool started;	/* the link knows what the driver wants */
	bool offloads_set;	/* by a command; else those negotiated are in force */
	bool inside;	/* the loop's thread holds the lock */
	bool hungry;	/* the link waits for receive buffers */
	bool blocked;	/* the link takes no frames for now */
	/*
	 * What was sent and is not told yet.  A short frame is often answered at once,
	 * and one interrupt does for both.
	 */
	uint32_t owed_queues;	/* a bit each */
	uint32_t owed_frames;
	size_t owed_bytes;
	uint8_t pair_of[FLOWS];	/* by flow_of() */
	struct chain sent, received;	/* being worked on */
	struct queue_done done[QUEUE_SIZE_MAX];	/* buffers that the present frame has filled */
};

static void lock(struct net *n)
{
	virtio_lock(&n->dev);
	n->inside = true;
}

static void unlock(struct net *n)
{
	n->inside = false;
	virtio_unlock(&n->dev);
}

static void tell_sent(struct net *n)
{
	for (unsigned i = 0; n->owed_queues >> i; i++)
		if (n->owed_queues >> i & 1)
			virtio_interrupt(&n->dev, i);
	n->owed_queues = n->owed_frames = 0;
	n->owed_bytes = 0;
}

static void on_idle(void *ctx)
{
	struct net *n = ctx;

	lock(n);
	tell_sent(n);
	unlock(n);
}

static unsigned control_queue(const struct net *n)
{
	return n->dev.acked & F(MQ) ? n->dev.nqueues - 1 : 2;
}

/* ------------------------------------------------------------------- flows */

/* Copies the first bytes of a frame; returns how many there are. */
static size_t front(const struct iovec *iov, unsigned niov, uint8_t *buf, size_t len)
{
	size_t done = 0;

	for (unsigned i = 0; i < niov && done < len; i++) {
		size_t part = iov[i].iov_len < len - done ? iov[i].iov_len : len - done;

		memcpy(buf + done, iov[i].iov_base, part);
		done += part;
	}
	return done;
}

static uint32_t load32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

/* A hash that is the same for both directions of a TCP or UDP flow; 0 for anything else. */
static unsigned flow_of(const struct link_frame *frame)
{
	enum { ETHER = 14, TCP = 6, UDP = 17 };
	uint8_t b[ETHER + 60 + 4];
	size_t n = front(frame->iov, frame->niov, b, sizeof(b)), ports;
	uint32_t h = 0;
	uint8_t proto;

	if (n < ETHER + 40 + 4)
		return 0;
	if (b[12] == 0x08 && b[13] == 0x00) {
		ports = ETHER + (b[ETHER] & 15) * 4u;
		proto = b[ETHER + 9];
		h = load32(b + ETHER + 12) ^ load32(b + ETHER + 16);
	} else if (b[12] == 0x86 && b[13] == 0xdd) {
		ports = ETHER + 40;
		proto = b[ETHER + 6];
		for (unsigned i = 8; i < 40; i += 4)
			h ^= load32(b + ETHER + i);
	} else {
		return 0;
	}
	if ((proto != TCP && proto != UDP) || ports + 4 > n)
		return 0;
	h ^= (uint32_t)(b[ports] ^ b[ports + 2]) << 8 | (b[ports + 1] ^ b[ports + 3]);
	h *= 0x9e3779b1u;
	return h >> 24;
}

/* ---------------------------------------------------------------- to guest */

/* A place in the bytes of a frame. */
struct cursor {
	const struct iovec *iov;
	size_t off;	/* of iov[0] */
};

static void take(struct cursor *from, uint8_t *to, size_t len)
{
	while (len) {
		size_t part = from->iov->iov_len - from->off;

		if (part > len)
			part = len;
		/* The guest may have given the bytes it sends as a buffer to receive into. */
		memmove(to, (const uint8_t *)from->iov->iov_base + from->off, part);
		to += part;
		len -= part;
		from->off += part;
		if (from->off == from->iov->iov_len) {
			from->iov++;
			from->off = 0;
		}
	}
}

/* Fills the writable part of @c behind its first @skip bytes; returns the bytes put there. */
static uint32_t put(const struct chain *c, uint32_t skip, struct cursor *from, uint32_t len)
{
	uint32_t done = 0;

	for (unsigned i = c->nread; i < c->nread + c->nwrite && done < len; i++) {
		uint32_t part = (uint32_t)c->iov[i].iov_len, gap = skip < part ? skip : part;

		skip -= gap;
		part -= gap;
		if (part > len - done)
			part = len - done;
		take(from, (uint8_t *)c->iov[i].iov_base + gap, part);
		done += part;
	}
	return done;
}

/* The guest address of byte @off of the writable part, which is that long. */
static gpa_t address_of(const struct chain *c, size_t off)
{
	unsigned i = c->nread;

	for (; off >= c->iov[i].iov_len; i++)
		off -= c->iov[i].iov_len;
	return c->gpa[i] + off;
}

/*
 * Puts header and frame into receive buffers.  Returns how many, 0 when the driver
 * has not offered enough (then it keeps those it has), -EPROTO when it broke the rules.
 */
static int fill(struct net *n, unsigned index, const struct link_frame *frame)
{
	const size_t count_off = offsetof(struct virtio_net_hdr_v1, num_buffers);
	struct queue *q = &n->dev.queue[index];
	struct cursor from = { .iov = frame->iov };
	struct virtio_net_hdr_v1 hdr = frame->hdr;
	uint32_t left = frame->len;
	gpa_t count_at[2] = { 0 };
	unsigned filled = 0;

	do {
		uint32_t head = filled ? 0 : HEADER, part;

		if (filled == q->size || !virtio_pop(&n->dev, index, &n->received)) {
			for (; filled; filled--)
				queue_unpop(q);
			return 0;
		}
		if (n->received.write_len <= head || (filled && !(n->dev.acked & F(MRG_RXBUF)))) {
			virtio_broken(&n->dev, "a receive buffer is too small");
			return -EPROTO;
		}
		if (!filled) {
			/* Set here for one, and below for more. */
			hdr.num_buffers = htole16(1);
			(void)chain_write(&n->received, 0, &hdr, HEADER);
			count_at[0] = address_of(&n->received, count_off);
			count_at[1] = address_of(&n->received, count_off + 1);
		}
		part = put(&n->received, head, &from, left);
		left -= part;
		n->done[filled] = (struct queue_done){ .head = n->received.head, .written = head + part };
		queue_wrote(q, &n->received, head + part);
		filled++;
	} while (left);
	if (filled > 1) {
		const uint8_t count[2] = { (uint8_t)filled, (uint8_t)(filled >> 8) };

		/* Inside guest memory: they were written before. */
		(void)mem_write(q->mem, count_at[0], &count[0], 1);
		(void)mem_write(q->mem, count_at[1], &count[1], 1);
	}
	return (int)filled;
}

/* What the guest cannot finish must be finished already: the link knows it from link_offloads(). */
static bool fits(const struct net *n, const struct link_frame *frame)
{
	uint8_t gso = frame->hdr.gso_type & (uint8_t)~VIRTIO_NET_HDR_GSO_ECN;

	if (!frame->len || frame->len > LINK_FRAME_MAX)
		return false;
	if (frame->hdr.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM && !(n->offloads & F(GUEST_CSUM)))
		return false;
	return gso == VIRTIO_NET_HDR_GSO_NONE ||
	       (gso == VIRTIO_NET_HDR_GSO_TCPV4 && n->offloads & F(GUEST_TSO4)) ||
	       (gso == VIRTIO_NET_HDR_GSO_TCPV6 && n->offloads & F(GUEST_TSO6));
}

static int deliver_locked(struct net *n, const struct link_frame *frame)
{
	unsigned index = 2u * (n->pair_of[flow_of(frame)] % n->npairs);
	int r;

	if (!n->dev.running || !n->started)
		return -ENETDOWN;
	if (!fits(n, frame))
		return -EPROTO;
	n->dev.turn = VIRTIO_TURN;	/* what bounds the work here is the frames that come */
	r = fill(n, index, frame);
	if (r < 0)
		return r;
	if (r == 0) {
		n->hungry = true;
		return -EAGAIN;
	}
	queue_push_all(&n->dev.queue[index], n->done, (unsigned)r);
	virtio_interrupt(&n->dev, index);
	tell_sent(n);
	return 0;
}

static int net_deliver(void *ctx, const struct link_frame *frame)
{
	struct net *n = ctx;
	int r;

	if (n->inside)
		return deliver_locked(n, frame);
	lock(n);
	r = deliver_locked(n, frame);
	unlock(n);
	return r;
}

/* -------------------------------------------------------------- from guest */

/* Sends one chain.  False when the link is full. */
static bool transmit(struct net *n, unsigned pair)
{
	const struct chain *c = &n->sent;
	struct iovec iov[CHAIN_SEGS_MAX];
	struct link_frame frame = { .iov = iov };

	if (c->read_len <= HEADER || c->read_len - HEADER > LINK_FRAME_MAX)
		return true;	/* no frame: dropped */
	(void)chain_read(c, 0, &frame.hdr, HEADER);
	frame.len = c->read_len - HEADER;
	frame.niov = chain_slice_read(c, HEADER, frame.len, iov);
	n->pair_of[flow_of(&frame)] = (uint8_t)pair;
	return link_send(n->link, &frame) != -EAGAIN;
}

static void transmit_all(struct net *n, unsigned index)
{
	while (!n->blocked && virtio_pop(&n->dev, index, &n->sent)) {
		if (!transmit(n, index / 2)) {
			queue_unpop(&n->dev.queue[index]);
			n->blocked = true;
			break;
		}
		queue_push(&n->dev.queue[index], &n->sent, 0);
		n->owed_queues |= 1u << index;
		n->owed_frames++;
		n->owed_bytes += n->sent.read_len;
	}
	link_flush(n->link);
	if (n->owed_frames > OWED_FRAMES_MAX || n->owed_bytes > OWED_BYTES_MAX || n->blocked)
		tell_sent(n);
	else if (n->owed_queues)
		loop_set_idle(n->idle);
}

static void net_writable(void *ctx)
{
	struct net *n = ctx;
	bool was_inside = n->inside;

	if (!was_inside)
		lock(n);
	n->blocked = false;
	for (unsigned i = 0; i < n->npairs && n->dev.running && !n->blocked && !was_inside; i++) {
		n->dev.turn = VIRTIO_TURN;
		transmit_all(n, 2 * i + 1);
	}
	if (!was_inside)
		unlock(n);
}

static void net_carrier(void *ctx, bool up)
{
	struct net *n = ctx;
	bool was_inside = n->inside;

	if (!was_inside)
		lock(n);
	n->config.status = htole16(up ? VIRTIO_NET_S_LINK_UP : 0);
	virtio_config_changed(&n->dev);
	if (!was_inside)
		unlock(n);
}

/* ----------------------------------------------------------------- control */

static void set_offloads(struct net *n, uint64_t offloads)
{
	n->offloads = offloads;
	link_offloads(n->link, (offloads & F(GUEST_CSUM) ? LINK_CSUM : 0u) |
			       (offloads & F(GUEST_TSO4) ? LINK_TSO4 : 0u) |
			       (offloads & F(GUEST_TSO6) ? LINK_TSO6 : 0u));
}

/* One command (5.1.6.5): 0 or a negative errno. */
static int control(struct net *n, const uint8_t *bytes, size_t len)
{
	struct virtio_net_ctrl_hdr hdr;
	uint64_t offloads;
	uint16_t pairs;

	if (len < sizeof(hdr))
		return -EINVAL;
	memcpy(&hdr, bytes, sizeof(hdr));
	bytes += sizeof(hdr);
	len -= sizeof(hdr);
	switch (hdr.class) {
	case VIRTIO_NET_CTRL_RX:	/* nothing is filtered here: every mode is the one asked for */
	case VIRTIO_NET_CTRL_MAC:
		return 0;
	case VIRTIO_NET_CTRL_MQ:
		if (hdr.cmd != VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET || len < sizeof(pairs))
			return -EINVAL;
		memcpy(&pairs, bytes, sizeof(pairs));
		pairs = le16toh(pairs);
		if (!(n->dev.acked & F(MQ)) || pairs < 1 || pairs > (n->dev.nqueues - 1) / 2)
			return -EINVAL;
		n->npairs = pairs;
		return 0;
	case VIRTIO_NET_CTRL_GUEST_OFFLOADS:
		if (hdr.cmd != VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET || len < sizeof(offloads))
			return -EINVAL;
		memcpy(&offloads, bytes, sizeof(offloads));
		offloads = le64toh(offloads);
		if (offloads & ~(n->dev.acked & GUEST_OFFLOADS))
			return -EINVAL;
		n->offloads_set = true;
		set_offloads(n, offloads);
		return 0;
	default:
		return -EINVAL;
	}
}

static void control_all(struct net *n, unsigned index)
{
	uint8_t bytes[CONTROL_MAX], ack;

	while (virtio_pop(&n->dev, index, &n->sent)) {
		size_t len = chain_read(&n->sent, 0, bytes, sizeof(bytes));

		ack = control(n, bytes, len) < 0 ? VIRTIO_NET_ERR : VIRTIO_NET_OK;
		(void)chain_write(&n->sent, 0, &ack, 1);
		queue_push(&n->dev.queue[index], &n->sent, n->sent.write_len ? 1 : 0);
	}
	virtio_interrupt(&n->dev, index);
}

/* --------------------------------------------------------------- life time */

/* The first bell after DRIVER_OK, which rings all queues. */
static void start(struct net *n)
{
	n->started = true;
	set_offloads(n, n->offloads_set ? n->offloads : n->dev.acked & GUEST_OFFLOADS);
}

static void net_notified(struct virtio_device *dev, unsigned index)
{
	struct net *n = (struct net *)dev;

	n->inside = true;
	if (!n->started)
		start(n);
	if (index == control_queue(n)) {
		control_all(n, index);
	} else if (index % 2) {
		transmit_all(n, index);
	} else if (n->hungry) {
		n->hungry = false;
		link_ready(n->link);
	}
	n->inside = false;
}

/* Nothing of the link is touched: this may be another thread. */
static void net_reset(struct virtio_device *dev)
{
	struct net *n = (struct net *)dev;

	n->started = n->offloads_set = false;
	n->hungry = n->blocked = false;
	n->owed_queues = n->owed_frames = 0;
	n->owed_bytes = 0;
	n->npairs = 1;
	n->offloads = 0;
	memset(n->pair_of, 0, sizeof(n->pair_of));
}

static void net_save(struct virtio_device *dev, struct blob *out)
{
	struct net *n = (struct net *)dev;

	tell_sent(n);
	blob_put_u32(out, n->npairs);
	blob_put_u32(out, n->offloads_set);
	blob_put_u64(out, n->offloads);
}

static int net_restore(struct virtio_device *dev, struct blob_reader *in)
{
	struct net *n = (struct net *)dev;
	uint32_t npairs = blob_take_u32(in);
	bool offloads_set = blob_take_u32(in);
	uint64_t offloads = blob_take_u64(in);

	if (in->failed || npairs < 1 || npairs > (dev->nqueues - 1) / 2 ||
	    (npairs > 1 && !(dev->acked & F(MQ))) || offloads & ~(dev->acked & GUEST_OFFLOADS))
		return -EINVAL;
	n->npairs = npairs;
	n->offloads_set = offloads_set;
	n->offloads = offloads;
	return 0;
}

static void net_destroy(struct virtio_device *dev)
{
	struct net *n = (struct net *)dev;

	link_destroy(n->link);
	loop_remove(n->idle);
	virtio_device_finish(dev);
	free(n);
}

static const struct virtio_device_ops net_ops = {
	.name = "virtio-net",
	.id = 1,
	.nqueues = 2 * VIRTIO_NET_PAIRS_MAX + 1,
	.queue_size = { [0 ... 2 * VIRTIO_NET_PAIRS_MAX - 1] = QUEUE_SIZE, [2 * VIRTIO_NET_PAIRS_MAX] = 64 },
	.notified = net_notified,
	.reset = net_reset,
	.save = net_save,
	.restore = net_restore,
	.destroy = net_destroy,
};

int virtio_net_create(struct loop *loop, struct link *link, unsigned npairs, struct virtio_device **ret_dev,
		      struct err *err)
{
	struct net *n = calloc(1, sizeof(*n));
	uint64_t features = F(CSUM) | GUEST_OFFLOADS | F(CTRL_GUEST_OFFLOADS) | F(MTU) | F(MAC) | F(HOST_TSO4) |
			    F(HOST_TSO6) | F(MRG_RXBUF) | F(STATUS) | F(CTRL_VQ) | F(CTRL_RX);
	int r;

	if (!n)
		return err_set(err, -ENOMEM, "virtio-net: out of memory");
	r = loop_add_idle(loop, on_idle, n, &n->idle, err);
	if (r < 0) {
		free(n);
		return r;
	}
	virtio_device_init(&n->dev, &net_ops, loop, features | (npairs > 1 ? F(MQ) : 0));
	n->dev.nqueues = 2 * npairs + 1;
	n->dev.config = &n->config;
	n->dev.config_len = offsetof(struct virtio_net_config, speed);
	memcpy(n->config.mac, link->mac, sizeof(n->config.mac));
	n->config.status = htole16(VIRTIO_NET_S_LINK_UP);
	n->config.max_virtqueue_pairs = htole16((uint16_t)npairs);
	n->config.mtu = htole16(link->mtu);
	n->npairs = 1;
	n->link = link;
	link_attach(link, &(struct link_sink){ .deliver = net_deliver, .writable = net_writable,
					       .carrier = net_carrier, .ctx = n });
	*ret_dev = &n->dev;
	return 0;
}
