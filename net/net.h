/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TCP/IP without I/O: one Ethernet link, any number of peers on it.
 *
 *               +------------------- struct net -------------------+
 *   net_input --> Ethernet > ARP, IPv4, IPv6 > ICMP, UDP, TCP       +--> events (callbacks)
 *   net_timers -> whatever is due                                   |
 *   output()  <-- frames, with the offloads the peer can take       <--- tcp_*, udp_*, icmp_*
 *               +---------------------------------------------------+
 *
 * Two ways of life, chosen by net_config.proxy:
 *  - proxy: the gateway and, whatever their destination, the other end of all TCP
 *    connections, UDP datagrams and echo requests that are sent to our MAC address.
 *    ARP and NDP answer for everything that is not on the link.
 *  - host: only packets to our own addresses, with listeners and services.
 *
 * Threads: none, no globals; calls for one struct net must not overlap.  Time is
 * an argument: nanoseconds of a monotonic clock, never 0.  Functions without a
 * time argument use the last one given, so tell the clock when the loop wakes up
 * (net_clock).  Any function may be called from within a callback, except
 * net_input, net_timers, net_flush, net_output_ready and net_destroy.
 *
 * Memory comes from ops->alloc alone and is bounded by net_limits.  Nothing is
 * owed to a hostile peer: when a bound is met something is dropped and counted.
 */
#ifndef NET_NET_H
#define NET_NET_H

#include "net/types.h"

struct net;
struct tcp_conn;
struct udp_datagram;
struct icmp_echo;
struct icmp_error;

#define NET_ADDRS_MAX 16u	/* own addresses */

/*
 * What the owner of a struct net provides.  @ctx is net_config.ctx.  Slots are
 * optional unless they say "required".
 */
struct net_ops {
	/* Required.  @size bytes aligned to 16, not cleared, or NULL. */
	void *(*alloc)(void *ctx, size_t size);
	/* Required.  @size is what alloc was called with. */
	void (*free)(void *ctx, void *ptr, size_t size);
	/* Required.  Fills @buf with bytes that a peer cannot predict. */
	void (*random)(void *ctx, void *buf, size_t len);
	/*
	 * Required.  Sends a frame; everything @frame names is borrowed for the call.
	 * It must not call back into net/.  False: there is no room now.  Then TCP waits
	 * until net_output_ready(); other packets are dropped and counted.
	 */
	bool (*output)(void *ctx, const struct net_frame *frame);

	/*
	 * A connection request of a peer to an address and port without a listener
	 * (proxy only; NULL: refused).  @conn's addresses can be read (tcp.h).  The owner
	 * calls tcp_accept(), tcp_refuse() or tcp_unreachable() for it, now or later; the
	 * peer learns nothing before.  Until then it is embryonic, and may be dropped.
	 */
	void (*tcp_request)(void *ctx, struct tcp_conn *conn);
	/* A datagram for which there is no service (udp.h).  NULL or false: port unreachable. */
	bool (*udp_input)(void *ctx, const struct udp_datagram *datagram);
	/*
	 * An echo request or reply to an address that is not ours; requests to our own are
	 * answered by net/ unless net_config.forward_own_echo.  NULL: requests are not answered.
	 */
	void (*echo_input)(void *ctx, const struct icmp_echo *echo);
	/* An ICMP error about a datagram or an echo request which we sent. */
	void (*icmp_error)(void *ctx, const struct icmp_error *error);
};

/*
 * Bounds; a 0 stands for the default in parentheses.  @memory bounds everything, the others
 * keep one kind of thing from using up what another needs.  A connection at rest takes about
 * 700 bytes; one in use also what was committed and not acknowledged (tcp_send_max; 256 KiB
 * until the congestion window has grown), what its owner did not take (tcp_recv_max) and what
 * came out of order, in at most 4096 pieces.  At most 256 packets are being reassembled.  Up
 * to 4 MiB of freed buffers are kept for reuse.
 */
struct net_limits {
	uint32_t tcp_conns;	/* all states but TIME_WAIT; a SYN beyond is ignored (16384) */
	uint32_t tcp_embryonic;	/* of them not yet established; the oldest makes room (1024) */
	uint32_t tcp_time_wait;	/* the oldest is forgotten (4096) */
	uint32_t tcp_send_max;	/* bytes, of one connection's send buffer (4 MiB) */
	uint32_t tcp_recv_max;	/* bytes, largest receive window (4 MiB) */
	uint32_t neighbours;	/* (1024) */
	uint32_t fragments;	/* bytes of packets being reassembled (1 MiB) */
	size_t memory;	/* bytes of everything together (1 GiB) */
};

struct net_config {
	uint8_t mac[NET_MAC_SIZE];
	uint16_t mtu;	/* bytes of an IP packet, 1280 to 65535 (1500) */
	bool proxy;
	bool forward_own_echo;	/* give echo requests to own addresses to ops->echo_input too */
	/* Own addresses: see net_add_addr for later ones.  A link-local one is derived from mac. */
	struct {
		struct net_addr addr;
		uint8_t prefix;	/* of an IPv4 address: 0 to 32; of IPv6: 0 to 128 */
	} addrs[NET_ADDRS_MAX];
	unsigned addr_count;
	struct net_addr router4, router6;	/* host: next hops off the link; zero: none */
	struct net_limits limits;
	const struct net_ops *ops;	/* borrowed for the life of the net */
	void *ctx;
};

/* NULL when the configuration is not as said above or memory is refused. */
struct net *net_create(const struct net_config *config, uint64_t now_ns);

/* Ends everything.  Connections get no event; nothing is sent. */
void net_destroy(struct net *net);

/*
 * Takes a frame from the link.  Acknowledgements may wait for net_flush(), which
 * must follow the last frame of a batch (a batch of one as well).
 */
void net_input(struct net *net, const struct net_frame *frame, uint64_t now_ns);
void net_flush(struct net *net, uint64_t now_ns);

/* Does what is due.  Call it at net_deadline(); earlier or later does no harm. */
void net_timers(struct net *net, uint64_t now_ns);

/* The time at which net_timers() has something to do; 0: nothing is waited for. */
uint64_t net_deadline(const struct net *net);

/* Tells the time; once each time the loop wakes up will do. */
void net_clock(struct net *net, uint64_t now_ns);

/* The link has room again after output() returned false. */
void net_output_ready(struct net *net, uint64_t now_ns);

/* What the peer takes (the GUEST_* features of its driver); none at first.  At any time. */
enum net_offload {
	NET_OFFLOAD_CSUM = 1,	/* partial checksums */
	NET_OFFLOAD_TSO4 = 2,	/* TCP segments of up to 64 KiB; need CSUM */
	NET_OFFLOAD_TSO6 = 4,
	NET_OFFLOAD_USO = 8,	/* trains of UDP datagrams; need CSUM */
};
void net_set_offloads(struct net *net, unsigned offloads);

/* Own addresses.  NET_EINVAL, NET_ENOMEM (too many), NET_EADDRINUSE (there already). */
int net_add_addr(struct net *net, const struct net_addr *addr, uint8_t prefix);
void net_remove_addr(struct net *net, const struct net_addr *addr);
bool net_is_own(const struct net *net, const struct net_addr *addr);

/* The address of ours to talk to @peer from (RFC 6724 in so far as it matters here). */
bool net_source_for(const struct net *net, const struct net_addr *peer, struct net_addr *ret_addr);

/* Host: next hops off the link.  A zero address: none. */
void net_set_router(struct net *net, const struct net_addr *router4, const struct net_addr *router6);

/* The MAC address known for an address on the link; false: none. */
bool net_neighbour(const struct net *net, const struct net_addr *addr, uint8_t ret_mac[NET_MAC_SIZE]);

/* Counters since net_create(); they only grow, except those of "now". */
struct net_stats {
	uint64_t in_frames, in_bytes, out_frames, out_bytes;
	uint64_t out_full;	/* output() said no */
	uint64_t bad_frame;	/* too short, too many spans, a lie in the offload fields */
	uint64_t not_for_us;	/* Ethernet or IP destination */
	uint64_t bad_ip, bad_checksum, bad_transport, bad_arp, bad_ndp;	/* malformed */
	uint64_t no_neighbour;	/* nobody answered, or too many packets waited */
	uint64_t no_memory;	/* a limit or the allocator said no */
	uint64_t fragments_in, fragments_dropped, reassembled;
	uint64_t icmp_limited;	/* errors that we did not send because of their rate */
	uint64_t tcp_opened, tcp_accepted, tcp_refused, tcp_embryonic_dropped, tcp_resets_out;
	uint64_t tcp_retransmits, tcp_timeouts, tcp_fast_retransmits, tcp_out_of_order, tcp_challenges;
	uint64_t udp_in, udp_out, udp_no_port;
	size_t memory;	/* now, bytes */
	uint32_t tcp_conns, tcp_time_wait, neighbours;	/* now */
};
void net_stats(const struct net *net, struct net_stats *ret_stats);

/*
 * Text of an address ("10.0.2.2", "fe80::1" as RFC 5952 wants it) and back.  @text
 * needs NET_ADDR_TEXT bytes.  net_addr_parse() takes the NUL-terminated whole of @text.
 */
#define NET_ADDR_TEXT 46u
void net_addr_text(const struct net_addr *addr, char text[NET_ADDR_TEXT]);
bool net_addr_parse(const char *text, struct net_addr *ret_addr);

/* Likewise "ADDRESS/BITS", with as many bits as the family has at most; the rest of the address may be anything. */
bool net_prefix_parse(const char *text, struct net_addr *ret_addr, uint8_t *ret_prefix);

/* Clears what follows the first @prefix bits (of its family). */
void net_addr_cut(struct net_addr *addr, unsigned prefix);

/* True when @a and @b are of one family and share their first @prefix bits (of that family). */
bool net_addr_same_prefix(const struct net_addr *a, const struct net_addr *b, unsigned prefix);

#endif /* NET_NET_H */
