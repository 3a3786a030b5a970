/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Network back ends: where the frames of a network device go.
 *
 *   tap      a TAP device of the host
 *   user     roux's own TCP/IP; connections leave as ordinary host sockets: link/user.h
 *
 *   device --- link_send() ----> counted, limited, captured ----> ops->send
 *   device <-- sink->deliver --- counted, limited, captured <---- link_deliver()
 *
 * Frames are Ethernet frames with the header that says what is left to do about
 * checksums and segmentation (VIRTIO 1.2, 5.1.6).  Both directions push back: a
 * side that cannot take a frame says -EAGAIN, keeps nothing of it, and calls when
 * it can take more.
 *
 * Threads: a link, its back end and its device work on one loop's thread.  A link
 * may deliver from within link_send().
 */
#ifndef LINK_LINK_H
#define LINK_LINK_H

#include <linux/virtio_net.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct err;
struct link;
struct link_capture;
struct link_limiter;
struct loop;

#define LINK_MTU_DEFAULT 1500u
#define LINK_MTU_MIN 1280u	/* of IPv6: RFC 8200, 5 */
#define LINK_MTU_MAX 65520u
#define LINK_HEADER_MAX 18u	/* Ethernet with one VLAN tag */
#define LINK_FRAME_MAX (65535u + LINK_HEADER_MAX)	/* bytes; segmentation offload makes them so long */
#define LINK_IOV_MAX 512u

/* What a side can do with frames it receives. */
enum link_offload {
	LINK_CSUM = 1,	/* finish checksums */
	LINK_TSO4 = 2,	/* take TCP segments longer than the MTU; needs LINK_CSUM */
	LINK_TSO6 = 4,
};

/* @hdr is checked by nobody yet, @iov may lie in guest memory and change while it is read. */
struct link_frame {
	struct virtio_net_hdr_v1 hdr;	/* num_buffers is of no meaning here */
	const struct iovec *iov;	/* borrowed for the call */
	unsigned niov;
	uint32_t len;	/* bytes of @iov */
};

/* The device's side. */
struct link_sink {
	/* 0, or -EAGAIN when the guest has no buffers: link_ready() follows. */
	int (*deliver)(void *ctx, const struct link_frame *frame);
	/* The link takes frames again, after link_send() said -EAGAIN. */
	void (*writable)(void *ctx);
	/* The carrier came or went. */
	void (*carrier)(void *ctx, bool up);
	void *ctx;
};

struct link_ops {
	const char *name;
	/* Required.  0, -EAGAIN (then link_writable() follows), or another negative errno: dropped. */
	int (*send)(struct link *link, const struct link_frame *frame);
	/* Optional.  The last frame of a batch was sent. */
	void (*flush)(struct link *link);
	/* Required.  After link_deliver() said -EAGAIN: it may be tried again. */
	void (*ready)(struct link *link);
	/* Optional.  The guest takes these enum link_offload from now on. */
	void (*offloads)(struct link *link, unsigned offloads);
	/* Required.  Accepts a half-built object. */
	void (*destroy)(struct link *link);
};

struct link_direction {
	uint64_t frames, bytes;	/* handed on */
	uint64_t dropped;	/* frames */
};

/* By the guest; readable from any thread. */
struct link_counts {
	struct link_direction sent, received;
};

/* Frames and bytes may pass at these rates; 0: no limit. */
struct link_limits {
	uint64_t bytes_per_s, frames_per_s;
};

/* First member of every back end's own struct. */
struct link {
	const struct link_ops *ops;
	struct loop *loop;	/* borrowed */
	uint16_t mtu;
	uint8_t mac[6];	/* the guest's */
	struct link_sink sink;	/* all NULL before link_attach() */
	struct link_counts *counts;	/* its own, unless link_count_at() */
	struct link_counts own_counts;
	struct link_limiter *limiter[2];	/* NULL: no limit; sent, received */
	struct link_capture *capture;	/* NULL: none */
};

/* Fills the common part: called by back ends. */
void link_init(struct link *link, const struct link_ops *ops, struct loop *loop, const uint8_t mac[6],
	       uint16_t mtu);
/* Ends what link_init() and the functions below began: called by back ends. */
void link_finish(struct link *link);

/* Frees a link of any kind.  NULL is fine. */
void link_destroy(struct link *link);

/* Counts in @counts from now on, borrowed for the link's life.  Before link_attach(). */
void link_count_at(struct link *link, struct link_counts *counts);

/* Limits each direction.  Before link_attach().  0 or a negative errno. */
int link_limit(struct link *link, const struct link_limits *sent, const struct link_limits *received,
	       struct err *err);

/*
 * Writes what passes to @fd (taken over, also on failure) as a pcap file of
 * nanosecond resolution.  Frames are shown as they pass: not segmented, checksums perhaps not
 * filled in.  0 or a negative errno.
 */
int link_capture(struct link *link, int fd, struct err *err);

/* Joins the device.  @offloads: as ops->offloads. */
void link_attach(struct link *link, const struct link_sink *sink);
void link_offloads(struct link *link, unsigned offloads);

/* From the guest.  0, or -EAGAIN: nothing was taken, sink->writable() follows. */
int link_send(struct link *link, const struct link_frame *frame);

/* Ends a batch of link_send(): what the link put off until then is done. */
void link_flush(struct link *link);

/* The device has buffers again. */
void link_ready(struct link *link);

/* To the guest: called by back ends.  0, or -EAGAIN: nothing was taken, ops->ready() follows. */
int link_deliver(struct link *link, const struct link_frame *frame);

/* ops->send() can take frames again: called by back ends. */
void link_writable(struct link *link);

/* A TAP device: see tap.c.  @fd is one that TUNSETIFF made with IFF_VNET_HDR, taken over on success. */
int link_tap_create(struct loop *loop, int fd, const uint8_t mac[6], uint16_t mtu, struct link **ret_link,
		    struct err *err);
/* Opens TAP device @name, which is made when the caller may.  A descriptor or a negative errno. */
int link_tap_open(const char *name, struct err *err);

#endif /* LINK_LINK_H */
