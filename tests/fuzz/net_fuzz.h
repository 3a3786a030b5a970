/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A struct net whose peer is a fuzzer.  Everything it sends is checked against what
 * headers promise: lengths, sums, the MTU, the offloads that were allowed.
 */
#ifndef TESTS_FUZZ_NET_FUZZ_H
#define TESTS_FUZZ_NET_FUZZ_H

#include "check.h"
#include "net/net.h"
#include "net/tcp.h"
#include "net/udp.h"
#include "net/wire.h"

#include <string.h>

struct fuzz_peer {
	struct net *net;
	uint64_t now;	/* ns */
	size_t memory;	/* bytes that it holds */
	uint16_t mtu;
	unsigned offloads;
	bool full;	/* the link takes nothing */
	uint32_t fail_in;	/* so many allocations later one fails; 0: none does */
	uint32_t random;
	void (*sent)(const uint8_t *frame, size_t len);	/* optional: sees what was sent */
};
extern struct fuzz_peer peer;

extern const uint8_t our_mac[NET_MAC_SIZE];

/* The addresses of the two ends: 10.0.0.1 and .2, fd00::1 and ::2. */
struct net_addr fuzz_addr(unsigned which, bool v4);

/* Makes peer.net with the slots of @callbacks, and the rest of its configuration as in @config. */
void fuzz_begin(struct net_config config, const struct net_ops *callbacks);
/* Destroys it: every byte must have been given back. */
void fuzz_end(void);

/* Puts the sums right that would keep a frame from being looked at. */
void fuzz_fix_sums(uint8_t *bytes, size_t len);

/* Gives net/ a frame of two spans, cut at @cut, in memory of their own; @frame says the rest of it. */
void fuzz_input(const uint8_t *bytes, size_t len, size_t cut, struct net_frame frame);

/* Writes Ethernet and IP headers from the peer to @dst before @len bytes; returns their size. */
size_t fuzz_put_ip(uint8_t *bytes, bool v4, const struct net_addr *src, const struct net_addr *dst,
		   uint8_t proto, size_t len);

/* Gives net/ a datagram with @len bytes of payload. */
void fuzz_datagram(bool v4, struct net_endpoint from, struct net_endpoint to, const uint8_t *data, size_t len);

#endif /* TESTS_FUZZ_NET_FUZZ_H */
