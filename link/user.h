/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The user network: roux's own TCP/IP is the gateway of the guest and the other end
 * of all its connections, and carries them in ordinary sockets of the host.  No
 * privileges, no device.
 *
 *   guest 10.0.2.15 --- link --- net/ (proxy) --- sockets of the host
 *                                gateway 10.0.2.2, names 10.0.2.3
 *
 * A guest's connection is answered when the host's was: refused and unreachable
 * ones look as they are.  Published ports are listened to on the host; the guest
 * sees the client's real address, or the gateway's for clients on the host itself.
 * Names are looked up by forwarding to the host's name servers.
 *
 * It is also the gateway of a guest on a named network (link/port.h): every guest has its own,
 * with the same addresses.
 */
#ifndef LINK_USER_H
#define LINK_USER_H

#include "link/link.h"
#include "net/types.h"

struct policy;

#define LINK_NAMESERVERS_MAX 4u

/* Where sockets come from: the process may not be able to make any itself (link/broker.h). */
struct link_host {
	/* As socket(2), close-on-exec and non-blocking.  A descriptor or a negative errno. */
	int (*socket)(void *ctx, int domain, int type, int protocol);
	void *ctx;
};

/* A port of the host that leads to the guest. */
struct link_publish {
	bool udp;
	struct net_endpoint host;	/* zero address: all; port 0: any */
	uint16_t guest_port;
};

/* "[ADDRESS:]HOST:GUEST[/tcp|/udp]" or "GUEST[/...]": 0, or -EINVAL with a sentence. */
int link_publish_parse(const char *text, struct link_publish *ret_publish, struct err *err);

struct link_user_address {
	struct net_addr guest, gateway, dns;	/* all of one prefix; zero guest: none of this family */
	uint8_t prefix;
};

struct link_user_config {
	uint8_t mac[6];	/* the guest's */
	uint16_t mtu;
	struct link_user_address ip4, ip6;
	const char *hostname;	/* the guest's; what DHCP tells it */
	const char *domain;	/* searched for names without dots, or NULL */
	struct net_endpoint nameserver[LINK_NAMESERVERS_MAX];	/* of the host */
	unsigned nnameservers;
	struct policy *policy;	/* taken over on success; NULL: everything is allowed */
	/* The gateway's address stands for 127.0.0.1 and ::1 of the host. */
	bool host_loopback;
	bool internal;	/* nothing goes out, and the guest is told of no router */
	const struct link_host *host;	/* borrowed for the link's life; not used when internal */
};

/* The gateway's own, the same on every link. */
extern const uint8_t link_user_mac[NET_MAC_SIZE];

/* Another guest, on a named network.  Several may have one name. */
struct link_user_peer {
	const char *name;	/* lower case */
	struct net_addr ip4, ip6;
};

/* 0 with ownership in @ret_link, or a negative errno. */
int link_user_create(struct loop *loop, const struct link_user_config *config, struct link **ret_link,
		     struct err *err);

/*
 * Publishes a port from now on; @ret_port gets the host's (of interest when any
 * would do).  0, -EADDRINUSE, -EACCES and others with a sentence.
 */
int link_user_publish(struct link *link, const struct link_publish *publish, uint16_t *ret_port,
		      struct err *err);

/* Look-ups find these from now on, in place of those given before.  0 or -ENOMEM: as before. */
int link_user_peers(struct link *link, const struct link_user_peer *peers, unsigned n);

#endif /* LINK_USER_H */
