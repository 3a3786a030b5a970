/* SPDX-License-Identifier: Apache-2.0 */
/* For net/ and for link/, which looks into frames too: numbers in network order at any alignment, sizes of headers. */
#ifndef NET_WIRE_H
#define NET_WIRE_H

#include "net/types.h"

#define ETH_SIZE 14u
#define ETH_IP4 0x0800u
#define ETH_ARP 0x0806u
#define ETH_IP6 0x86ddu
#define IP4_SIZE 20u	/* without options */
#define IP6_SIZE 40u
#define IP6_FRAGMENT_SIZE 8u
#define UDP_SIZE 8u
#define TCP_SIZE 20u	/* without options */
#define ICMP_SIZE 8u
#define DEFAULT_HOPS 64u

enum ip_proto {
	PROTO_HOPOPTS = 0,
	PROTO_ICMP = 1,
	PROTO_TCP = 6,
	PROTO_UDP = 17,
	PROTO_ROUTING = 43,
	PROTO_FRAGMENT = 44,
	PROTO_ICMP6 = 58,
	PROTO_NONE = 59,
	PROTO_DSTOPTS = 60,
};

static inline uint16_t get16(const void *at)
{
	const uint8_t *b = (const uint8_t *)at;

	return (uint16_t)(b[0] << 8 | b[1]);
}

static inline uint32_t get32(const void *at)
{
	const uint8_t *b = (const uint8_t *)at;

	return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

static inline void put16(void *at, uint16_t v)
{
	uint8_t *b = (uint8_t *)at;

	b[0] = (uint8_t)(v >> 8);
	b[1] = (uint8_t)v;
}

static inline void put32(void *at, uint32_t v)
{
	uint8_t *b = (uint8_t *)at;

	b[0] = (uint8_t)(v >> 24);
	b[1] = (uint8_t)(v >> 16);
	b[2] = (uint8_t)(v >> 8);
	b[3] = (uint8_t)v;
}

static inline uint64_t min_of(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline uint64_t max_of(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

#endif /* NET_WIRE_H */
