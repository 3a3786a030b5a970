/* SPDX-License-Identifier: Apache-2.0 */
#include "link/link.h"

#include "link/capture.h"
#include "link/limiter.h"
#include "os/err.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SENT, RECEIVED };

void link_init(struct link *link, const struct link_ops *ops, struct loop *loop, const uint8_t mac[6],
	       uint16_t mtu)
{
	link->ops = ops;
	link->loop = loop;
	link->mtu = mtu;
	link->counts = &link->own_counts;
	memcpy(link->mac, mac, sizeof(link->mac));
}

void link_finish(struct link *link)
{
	limiter_destroy(link->limiter[SENT]);
	limiter_destroy(link->limiter[RECEIVED]);
	capture_destroy(link->capture);
}

void link_destroy(struct link *link)
{
	if (link)
		link->ops->destroy(link);
}

static void may_send(void *ctx)
{
	link_writable(ctx);
}

static void may_deliver(void *ctx)
{
	link_ready(ctx);
}

int link_limit(struct link *link, const struct link_limits *sent, const struct link_limits *received,
	       struct err *err)
{
	const struct link_limits *limits[] = { sent, received };
	int r = 0;

	for (unsigned i = SENT; i <= RECEIVED && r == 0; i++) {
		if (limits[i]->bytes_per_s || limits[i]->frames_per_s)
			r = limiter_create(link->loop, limits[i], i == SENT ? may_send : may_deliver, link,
					   &link->limiter[i], err);
	}
	return r;
}

void link_count_at(struct link *link, struct link_counts *counts)
{
	link->counts = counts;
}

int link_capture(struct link *link, int fd, struct err *err)
{
	return capture_create(fd, &link->capture, err);
}

void link_attach(struct link *link, const struct link_sink *sink)
{
	link->sink = *sink;
}

void link_offloads(struct link *link, unsigned offloads)
{
	if (link->ops->offloads)
		link->ops->offloads(link, offloads);
}

/* Statistics are written by one thread and read by others. */
static void count(uint64_t *counter, uint64_t n)
{
	__atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED);
}

/* Frames that TCP cuts later count as what they become: a limit of frames would be none otherwise. */
static uint32_t frames_in(const struct link_frame *frame)
{
	uint32_t payload = frame->len > frame->hdr.hdr_len ? frame->len - frame->hdr.hdr_len : 0;

	if (frame->hdr.gso_type == VIRTIO_NET_HDR_GSO_NONE || !frame->hdr.gso_size)
		return 1;
	return (payload + frame->hdr.gso_size - 1) / frame->hdr.gso_size;
}

/* Hands a frame on in direction @way by @hand. */
static int pass(struct link *link, unsigned way, struct link_direction *dir, const struct link_frame *frame,
		int r)
{
	if (r == -EAGAIN)
		return r;
	if (r < 0) {
		count(&dir->dropped, 1);
		return 0;
	}
	count(&dir->frames, frames_in(frame));
	count(&dir->bytes, frame->len);
	if (link->limiter[way])
		limiter_take(link->limiter[way], frame->len, frames_in(frame));
	if (link->capture)
		capture_frame(link->capture, frame);
	return 0;
}

int link_send(struct link *link, const struct link_frame *frame)
{
	if (link->limiter[SENT] && !limiter_open(link->limiter[SENT]))
		return -EAGAIN;
	return pass(link, SENT, &link->counts->sent, frame, link->ops->send(link, frame));
}

int link_deliver(struct link *link, const struct link_frame *frame)
{
	if (link->limiter[RECEIVED] && !limiter_open(link->limiter[RECEIVED]))
		return -EAGAIN;
	if (!link->sink.deliver)
		return 0;
	return pass(link, RECEIVED, &link->counts->received, frame, link->sink.deliver(link->sink.ctx, frame));
}

void link_ready(struct link *link)
{
	link->ops->ready(link);
}

void link_writable(struct link *link)
{
	if (link->sink.writable)
		link->sink.writable(link->sink.ctx);
}

void link_flush(struct link *link)
{
	if (link->ops->flush)
		link->ops->flush(link);
}
