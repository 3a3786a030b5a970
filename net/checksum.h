/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For net/ and link/: the Internet checksum (RFC 1071).
 *
 * A sum is kept as one's complement sum of 16-bit words in memory order, in 64
 * bits; sum_fold() makes 16 bits of it, which are stored in memory order as they are.
 */
#ifndef NET_CHECKSUM_H
#define NET_CHECKSUM_H

#include "net/types.h"

/* Adds @len bytes that start at an even offset of what is summed. */
uint64_t sum_bytes(const void *data, size_t len, uint64_t sum);

/* Adds bytes in pieces of any length; the first starts at an even offset. */
uint64_t sum_spans(const struct net_span *spans, unsigned count, uint64_t sum);

/* The pseudo header of IPv4 and IPv6 (RFC 9293, 3.1; RFC 8200, 8.1). */
uint64_t sum_pseudo(const struct net_addr *src, const struct net_addr *dst, uint8_t proto,
		    uint32_t len);

static inline uint16_t sum_fold(uint64_t sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

/* Stores 16 bits of a sum, as they are, at any alignment. */
static inline void sum_store(void *at, uint16_t sum)
{
	__builtin_memcpy(at, &sum, sizeof(sum));
}

#endif /* NET_CHECKSUM_H */
