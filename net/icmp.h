/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ICMP (RFC 792) and ICMPv6 (RFC 4443) under one face: echo, and errors.  What TCP
 * needs of it is done inside net/.
 */
#ifndef NET_ICMP_H
#define NET_ICMP_H

#include "net/types.h"

struct net;

struct icmp_echo {
	struct net_addr from, to;
	bool reply;	/* else request */
	uint16_t id, seq;
	uint8_t hop_limit;	/* sent with 0: 64 */
	const struct net_span *spans;	/* payload after id and seq, borrowed */
	unsigned count;
	size_t len;	/* bytes */
};

/* Results as udp_send(). */
int icmp_send_echo(struct net *net, const struct icmp_echo *echo);

enum icmp_kind {
	ICMP_NET_UNREACHABLE,	/* IPv6: no route */
	ICMP_HOST_UNREACHABLE,	/* IPv6: address unreachable */
	ICMP_PROTOCOL_UNREACHABLE,	/* IPv6: unrecognized next header */
	ICMP_PORT_UNREACHABLE,
	ICMP_PROHIBITED,	/* communication administratively prohibited */
	ICMP_TOO_BIG,
	ICMP_HOPS_EXCEEDED,
	ICMP_REASSEMBLY_EXCEEDED,
};

#define ICMP_PROTO_ICMP 1u
#define ICMP_PROTO_TCP 6u
#define ICMP_PROTO_UDP 17u
#define ICMP_PROTO_ICMP6 58u

/* An error about a packet which @sender sent to @target. */
struct icmp_error {
	enum icmp_kind kind;
	struct net_addr from;	/* who says so; sent with zero: one of our addresses */
	uint8_t proto;	/* of the packet: ICMP_PROTO_* */
	struct net_endpoint sender, target;	/* echo: sender.port is the id, target.port seq */
	uint32_t mtu;	/* with ICMP_TOO_BIG, bytes */
};

/*
 * Tells @error->sender.  The packet quoted is made from the numbers in @error; that
 * is enough for the socket to be found.  At most 1000 a second leave in the mean
 * (RFC 4443, 2.4 f); others are dropped, which is no error.
 */
int icmp_send_error(struct net *net, const struct icmp_error *error);

#endif /* NET_ICMP_H */
