/* SPDX-License-Identifier: Apache-2.0 */
/* DHCPv6 server (RFC 8415): information requests, and addresses one per client. */
#ifndef NET_DHCP6_H
#define NET_DHCP6_H

#include "net/types.h"

struct net;
struct dhcp6_server;

#define DHCP6_DNS_MAX 4u

struct dhcp6_server_config {
	struct net_addr dns[DHCP6_DNS_MAX];
	unsigned dns_count;
	const char *search;	/* NULL: none; names with spaces between; copied */
	/*
	 * Addresses: @pool with the client's MAC in its last 48 bits, or what @reserved says.
	 * A zero pool and no @reserved: information only.
	 */
	struct net_addr pool;
	uint32_t lease_s;	/* seconds: valid; preferred is half of it */
	bool (*reserved)(void *ctx, const uint8_t mac[NET_MAC_SIZE], struct net_addr *ret_addr);
	void (*leased)(void *ctx, const uint8_t mac[NET_MAC_SIZE], const struct net_addr *addr);
	void *ctx;
};

/* Serves on port 547 of @net, until destroyed.  NULL: out of memory, or port in use. */
struct dhcp6_server *dhcp6_server_create(struct net *net, const struct dhcp6_server_config *config);
void dhcp6_server_destroy(struct dhcp6_server *server);

#endif /* NET_DHCP6_H */
