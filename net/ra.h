/* SPDX-License-Identifier: Apache-2.0 */
/* Router advertisements (RFC 4861, 6.2; RFC 8106 for DNS): we are the IPv6 router of the link. */
#ifndef NET_RA_H
#define NET_RA_H

#include "net/types.h"

struct net;
struct ra_sender;

#define RA_DNS_MAX 4u

struct ra_config {
	struct net_addr prefix;	/* zero: none */
	uint8_t prefix_len;	/* 64 for autoconfiguration */
	bool autonomous;	/* hosts make addresses from the prefix (SLAAC) */
	bool managed, other;	/* there is DHCPv6 for addresses; for the rest */
	uint32_t lifetime_s;	/* of prefix and DNS, seconds */
	uint16_t router_lifetime_s;	/* 0: not a default router */
	struct net_addr dns[RA_DNS_MAX];
	unsigned dns_count;
	const char *search;	/* NULL: none; names with spaces between; copied */
	uint32_t mtu;	/* 0: not told */
	uint32_t interval_s;	/* between unsolicited ones; 0: only when asked */
};

/* Advertises on @net, until destroyed.  NULL: out of memory, or there is one already. */
struct ra_sender *ra_create(struct net *net, const struct ra_config *config);
void ra_destroy(struct ra_sender *ra);

#endif /* NET_RA_H */
