/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every part of net/ speaks of: results, bytes in pieces, addresses, and
 * frames with the offloads of a virtio-net header (VIRTIO 1.2, 5.1.6).
 */
#ifndef NET_TYPES_H
#define NET_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Results are 0 or one of these: Linux's errno values, negated, without its header. */
enum net_result {
	NET_OK = 0,
	NET_EAGAIN = -11,
	NET_ENOMEM = -12,	/* a limit of struct net_limits, or the allocator, said no */
	NET_EINVAL = -22,
	NET_EPIPE = -32,
	NET_EMSGSIZE = -90,
	NET_EADDRINUSE = -98,
	NET_ENETUNREACH = -101,
	NET_ECONNABORTED = -103,
	NET_ECONNRESET = -104,
	NET_ETIMEDOUT = -110,
	NET_ECONNREFUSED = -111,
	NET_EHOSTUNREACH = -113,
};

/*
 * Bytes to read, borrowed, and bytes to fill.  Both have the layout of struct
 * iovec where there is one, so that arrays of them can be given to readv() and
 * writev() as they are (the user asserts it).
 */
struct net_span {
	const void *data;
	size_t len;	/* bytes */
};

struct net_room {
	void *data;
	size_t len;	/* bytes */
};

#define NET_SPANS_MAX 64u	/* spans of a frame or of payload that a function takes */

/* An IPv6 address, or an IPv4 one in its mapped form ::ffff:a.b.c.d (RFC 4291, 2.5.5.2). */
struct net_addr {
	union {
		uint8_t b[16];	/* network order */
		uint32_t w[4];	/* as they lie in memory */
		uint64_t q[2];
	};
};

struct net_endpoint {
	struct net_addr addr;
	uint16_t port;	/* host order */
};

#define NET_MAC_SIZE 6u

static inline struct net_addr net_addr4(uint8_t a, uint8_t b, uint8_t c, uint8_t d)
{
	return (struct net_addr){ .b = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d } };
}

/* @bytes: 4 in network order, at any alignment. */
static inline struct net_addr net_addr4_from(const void *bytes)
{
	const uint8_t *b = (const uint8_t *)bytes;

	return net_addr4(b[0], b[1], b[2], b[3]);
}

/* @bytes: 16 in network order, at any alignment. */
static inline struct net_addr net_addr6_from(const void *bytes)
{
	struct net_addr addr;

	__builtin_memcpy(addr.b, bytes, sizeof(addr.b));
	return addr;
}

static inline bool net_addr_is4(const struct net_addr *addr)
{
	const struct net_addr zero = net_addr4(0, 0, 0, 0);

	return addr->q[0] == zero.q[0] && addr->w[2] == zero.w[2];
}

static inline bool net_addr_equal(const struct net_addr *a, const struct net_addr *b)
{
	return a->q[0] == b->q[0] && a->q[1] == b->q[1];
}

enum net_gso {	/* values of VIRTIO_NET_HDR_GSO_* */
	NET_GSO_NONE = 0,
	NET_GSO_TCP4 = 1,
	NET_GSO_TCP6 = 4,
	NET_GSO_UDP = 5,	/* UDP_L4: a train of datagrams of gso_size */
};

/*
 * An Ethernet frame, header included, check sequence not.  Spans and the bytes
 * they name are borrowed for the call that takes the frame.  The bytes may be
 * memory that a guest writes meanwhile: net/ copies headers once before it looks
 * at them, and never looks at payload other than to sum or move it.
 *
 * The offload fields have the meaning of struct virtio_net_hdr.
 */
struct net_frame {
	const struct net_span *spans;
	unsigned count;	/* of spans, at most NET_SPANS_MAX */
	uint32_t len;	/* bytes of all spans together */
	bool csum_partial;	/* bytes from csum_start on must still be summed */
	bool csum_good;	/* the transport checksum needs no look (virtio: DATA_VALID) */
	enum net_gso gso;
	uint16_t csum_start, csum_offset;	/* with csum_partial */
	uint16_t gso_size, hdr_len;	/* with gso */
};

#endif /* NET_TYPES_H */
