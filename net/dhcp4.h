/* SPDX-License-Identifier: Apache-2.0 */
/* DHCP server for IPv4 (RFC 2131, options RFC 2132). */
#ifndef NET_DHCP4_H
#define NET_DHCP4_H

#include "net/types.h"

struct net;
struct dhcp4_server;

#define DHCP4_DNS_MAX 4u
#define DHCP4_NAME_MAX 64u	/* bytes of a name with its NUL */

struct dhcp4_server_config {
	struct net_addr server;	/* an own address */
	uint8_t prefix;
	struct net_addr router;	/* zero: none */
	struct net_addr dns[DHCP4_DNS_MAX];
	unsigned dns_count;
	const char *domain;	/* NULL: none; copied */
	const char *search;	/* NULL: none; names with spaces between (RFC 3397); copied */
	uint16_t mtu;	/* 0: not told */
	uint32_t lease_s;	/* seconds */
	struct net_addr first, last;	/* pool; may be one address */
	/*
	 * Optional: the address (and host name, or "") that is reserved for @mac; false: one
	 * of the pool.
	 */
	bool (*reserved)(void *ctx, const uint8_t mac[NET_MAC_SIZE], struct net_addr *ret_addr,
			 char ret_name[DHCP4_NAME_MAX]);
	/* Optional: a lease was given.  @name is what the client calls itself, or "". */
	void (*leased)(void *ctx, const uint8_t mac[NET_MAC_SIZE], const struct net_addr *addr,
		       const char *name);
	void *ctx;
};

/* Serves on port 67 of @net, until destroyed.  NULL: out of memory, or port in use. */
struct dhcp4_server *dhcp4_server_create(struct net *net, const struct dhcp4_server_config *config);
void dhcp4_server_destroy(struct dhcp4_server *server);

#endif /* NET_DHCP4_H */
