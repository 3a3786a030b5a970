/* SPDX-License-Identifier: Apache-2.0 */
/* UDP (RFC 768): datagrams from and to any address. */
#ifndef NET_UDP_H
#define NET_UDP_H

#include "net/types.h"

struct net;

/*
 * A datagram, or with @gso_size a train of datagrams of that size of which the last
 * may be shorter.  Everything is borrowed for the call that it is an argument of.
 */
struct udp_datagram {
	struct net_endpoint from, to;
	const struct net_span *spans;	/* payload */
	unsigned count;	/* of spans, at most NET_SPANS_MAX */
	size_t len;	/* bytes of payload */
	uint16_t gso_size;	/* 0: one datagram */
	uint8_t hop_limit;	/* sent with 0: 64 */
	uint8_t traffic_class;	/* with the ECN bits */
};

/*
 * Sends from any address.  A train goes as one frame where the peer can take it
 * (NET_OFFLOAD_USO), else one by one.  What exceeds the MTU leaves in fragments.
 * NET_EMSGSIZE: more than 65507 (65527 over IPv6) bytes, or 62 spans;
 * NET_ENETUNREACH: nobody there; NET_EAGAIN: the link is full, it was dropped.
 */
int udp_send(struct net *net, const struct udp_datagram *datagram);

/*
 * A service of our own: asked before net_ops.udp_input.  The struct is the
 * caller's and must stay until udp_unserve().
 */
struct udp_service {
	struct net_endpoint local;	/* zero address: any, broadcast and multicast too */
	void (*input)(struct udp_service *service, struct net *net,
		      const struct udp_datagram *datagram, const uint8_t from_mac[NET_MAC_SIZE]);
	struct udp_service *next;	/* private */
};
int udp_serve(struct net *net, struct udp_service *service);	/* NET_EADDRINUSE */
void udp_unserve(struct net *net, struct udp_service *service);

#endif /* NET_UDP_H */
