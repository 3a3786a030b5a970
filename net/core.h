/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to net/: struct net, packets on their way in and out, and the functions
 * of one layer that the others call.
 */
#ifndef NET_CORE_H
#define NET_CORE_H

#include "net/chunks.h"
#include "net/icmp.h"
#include "net/net.h"
#include "net/tcp.h"
#include "net/timer.h"
#include "net/udp.h"
#include "net/wire.h"

/* The struct whose @member @ptr points to. */
#define container_of(ptr, type, member) ((type *)(void *)((char *)(ptr) - offsetof(type, member)))

#define MS 1000000ull	/* ns */
#define SECOND 1000000000ull	/* ns */

#define HEAD_MAX 256u	/* bytes of a frame that are copied to be looked at */
#define OUT_ROOM 64u	/* bytes before a transport header: Ethernet, IPv6, fragment header */
#define OUT_PAYLOAD_SPANS (NET_SPANS_MAX - 2)	/* of what may become fragments: two headers lie before it */
#define OUT_HEADER_MAX 192u	/* bytes of a transport header with what is built beside it */

struct neighbour;
struct reassembly;
struct tcp_table;
struct ra_sender;

struct own_addr {
	struct net_addr addr;
	uint8_t prefix;
};

struct net {
	const struct net_ops *ops;
	void *ctx;
	uint64_t now;	/* ns */
	uint8_t mac[NET_MAC_SIZE];
	uint16_t mtu;
	uint16_t ip4_id;	/* of the last IPv4 packet sent that was in fragments */
	uint32_t ip6_id;	/* of the last IPv6 one */
	bool proxy, forward_own_echo;
	unsigned offloads;	/* NET_OFFLOAD_* */
	struct own_addr addrs[NET_ADDRS_MAX];
	unsigned addr_count;
	struct net_addr router4, router6;
	struct net_limits limits;
	struct net_stats stats;	/* of those "now", memory only */
	uint64_t key[2];	/* of hashes */
	struct chunk_cache cache;
	struct timers timers;

	/* neighbour.c */
	struct neighbour **neigh_hash;	/* neigh_mask + 1 lists */
	uint32_t neigh_mask, neigh_count;
	struct neighbour *neigh_first, *neigh_last;	/* most recently used first */
	size_t neigh_waiting;	/* bytes of packets that wait for an answer */
	struct net_addr learned;	/* the last neighbour seen, which needs no look-up */
	uint8_t learned_mac[NET_MAC_SIZE];
	uint64_t learned_at;

	/* fragment.c */
	struct reassembly *frag_first, *frag_last;	/* oldest first */
	size_t frag_bytes;
	uint32_t frag_count;	/* of packets */

	/* icmp.c: a token bucket */
	uint64_t icmp_at;
	uint32_t icmp_tokens;

	struct udp_service *services;
	struct ra_sender *ra;	/* NULL: nobody answers solicitations */
	struct tcp_table *tcp;
};

/* Memory within limits.memory, or NULL. */
void *net_alloc(struct net *net, size_t size);
void *net_alloc_zero(struct net *net, size_t size);
void net_free(struct net *net, void *ptr, size_t size);
uint32_t net_random32(struct net *net);

/*
 * A packet being received.  Layers look at @head only: it is a copy, the frame
 * may change under us.
 */
struct packet {
	const struct net_frame *frame;
	const uint8_t *head;	/* the first head_len bytes of the frame */
	uint32_t head_len;
	uint32_t at;	/* offset in the frame of the header to look at next */
	uint32_t ip_at;	/* offset of the IP header */
	uint32_t end;	/* offset after the last byte of the IP packet */
	uint8_t src_mac[NET_MAC_SIZE];
	bool v4;
	bool group;	/* destination is multicast or broadcast */
	bool reassembled;
	struct net_addr src, dst;
	uint8_t proto, hop_limit, traffic_class;
};

/*
 * Names the bytes [from, from + len) of @count @spans in @out, which has room for @count
 * and may be @spans itself; returns how many spans that makes.
 */
unsigned spans_cut(const struct net_span *spans, unsigned count, size_t from, size_t len,
		   struct net_span *out);

/* Copies the bytes that @spans name, as far as they fit; returns how many. */
size_t spans_copy(const struct net_span *spans, unsigned count, void *out, size_t cap);

/* The bytes [from, to) of the packet's frame as spans; returns how many (at most NET_SPANS_MAX). */
unsigned packet_spans(const struct packet *packet, uint32_t from, uint32_t to,
		      struct net_span *spans);

/* Copies bytes of the frame out. */
void packet_copy(const struct packet *packet, uint32_t from, uint32_t len, void *out);

/* True when header bytes [at, at + len) are in the packet and were copied. */
static inline bool packet_has(const struct packet *packet, uint32_t at, uint32_t len)
{
	uint32_t end = min_of(packet->head_len, packet->end);

	return at <= end && len <= end - at;
}

/*
 * Checks the sum of [packet->at, end) with the pseudo header; @offset is where the
 * checksum is in it.  Trusts the frame's offload fields where they cover it.
 */
bool packet_checksum_ok(const struct packet *packet, uint8_t proto, uint32_t offset);

/* A packet to send.  The transport header is in room[] from OUT_ROOM on. */
struct out {
	struct net_addr src, dst;
	uint8_t proto;
	uint8_t hop_limit;	/* 0: the default */
	uint8_t traffic_class;
	bool dont_fragment;
	enum net_gso gso;
	uint16_t gso_size;
	uint16_t header_len;	/* of the transport header */
	int16_t checksum_at;	/* offset in it; -1: none */
	const uint8_t *mac;	/* of the receiver, when known; else NULL */
	unsigned count;	/* of spans, with spans[0] */
	size_t len;	/* bytes of payload: spans[1] and on */
	struct net_span spans[NET_SPANS_MAX];	/* [0] is for the headers */
	uint8_t room[OUT_ROOM + OUT_HEADER_MAX];
};

/* Prepares an empty one with a header of @header_len bytes, zeroed; returns the header. */
uint8_t *out_init(struct out *out, const struct net_addr *src, const struct net_addr *dst,
		  uint8_t proto, uint16_t header_len);

/* The bytes [from, from + len) of transport header and payload as @spans[1...]; returns 1 + how many. */
unsigned out_cut(struct out *out, size_t from, size_t len, struct net_span *spans);

/*
 * Sums, puts IP and Ethernet headers in front and sends, in fragments when it
 * must.  NET_EAGAIN: the link is full; NET_EMSGSIZE; NET_ENETUNREACH; NET_ENOMEM.
 */
int ip_output(struct net *net, struct out *out);
int ip4_send(struct net *net, struct out *out);
int ip6_send(struct net *net, struct out *out);

/* Sends an Ethernet frame whose header is filled in but for the addresses. */
int eth_output(struct net *net, const struct net_addr *next_hop, const uint8_t *mac,
	       struct net_frame *frame, uint8_t *header);
/* Sends a frame as it is. */
int eth_transmit(struct net *net, const struct net_frame *frame);

void ip4_input(struct net *net, struct packet *packet);
void ip6_input(struct net *net, struct packet *packet);
/* Follows extension headers from packet->at on, the first being of kind packet->proto. */
void ip6_walk(struct net *net, struct packet *packet);
/* A whole packet with packet->at at the transport header. */
void ip_deliver(struct net *net, struct packet *packet);

/*
 * A fragment: payload [packet->at, end) at @offset of the packet that @id names.  Calls
 * ip_deliver() or ip6_walk() when it was the last one missing.
 */
void fragment_input(struct net *net, struct packet *packet, uint32_t id, uint32_t offset, bool more);
void fragment_destroy(struct net *net);

void arp_input(struct net *net, struct packet *packet);
void arp_request(struct net *net, const struct net_addr *target, const uint8_t *mac);

void ndp_input(struct net *net, struct packet *packet, uint8_t type);
void ndp_solicit(struct net *net, const struct net_addr *target, const uint8_t *mac);
/* Answers a router solicitation.  In ra.c. */
void ra_solicited(struct ra_sender *ra);

bool neighbour_init(struct net *net);
void neighbour_destroy(struct net *net);
/* Packets that wait may be in a form that the link no longer takes: the sender must repeat them. */
void neighbour_drop_waiting(struct net *net);
/* What an ARP or NDP message says.  @create: make an entry when there is none. */
void neighbour_update(struct net *net, const struct net_addr *addr, const uint8_t *mac, bool create);
/* What a packet shows (proxy only): cheap when nothing changed. */
void neighbour_learn(struct net *net, const struct net_addr *addr, const uint8_t *mac);
/*
 * The MAC address of @addr; NULL: unknown, it is being asked for, and @frame (with
 * @header as its Ethernet header) is kept until there is an answer, or dropped.
 */
const uint8_t *neighbour_resolve(struct net *net, const struct net_addr *addr,
				 const struct net_frame *frame);

void icmp4_input(struct net *net, struct packet *packet);
void icmp6_input(struct net *net, struct packet *packet);
/* Tells the sender of @packet, within the rate and the rules of RFC 1122, 3.2.2. */
void icmp_error_about(struct net *net, const struct packet *packet, enum icmp_kind kind,
		      uint32_t mtu);

/* icmp_send_error() with the first 8 bytes of the transport header to quote. */
int icmp_send_quoting(struct net *net, const struct icmp_error *error, const uint8_t transport[8]);

void udp_input(struct net *net, struct packet *packet);

bool tcp_init(struct net *net);
void tcp_destroy(struct net *net);
void tcp_input(struct net *net, struct packet *packet);
void tcp_flush(struct net *net);
void tcp_output_ready(struct net *net);
void tcp_enter(struct net *net);	/* callbacks may come: nothing is freed before tcp_leave() */
void tcp_leave(struct net *net);
/* An ICMP error about a segment of ours with sequence number @seq. */
void tcp_icmp_error(struct net *net, const struct icmp_error *error, uint32_t seq);
void tcp_count(const struct net *net, uint32_t *ret_conns, uint32_t *ret_time_wait);
bool tcp_must_flush(const struct net *net);

/* True when the address is in the prefix of an own one, or of a kind that is always on the link. */
bool net_on_link(const struct net *net, const struct net_addr *addr);
bool net_addr_is_multicast(const struct net_addr *addr);
bool net_addr_is_broadcast(const struct net *net, const struct net_addr *addr);
bool net_addr_is_zero(const struct net_addr *addr);	/* :: or 0.0.0.0 */
bool net_addr_is_link_local(const struct net_addr *addr);
void net_link_local(const uint8_t mac[NET_MAC_SIZE], struct net_addr *ret_addr);
/* The Ethernet address of a multicast or broadcast address. */
void net_group_mac(const struct net_addr *addr, uint8_t ret_mac[NET_MAC_SIZE]);

#endif /* NET_CORE_H */
