/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the user network share.
 *
 *   user.c           the link, time, DHCP and router advertisements
 *   user_tcp.c       connections, of the guest and to published ports
 *   user_datagram.c  UDP flows and echo requests, of the guest and to published ports
 *   user_publish.c   the sockets of published ports
 *   user_dns.c       look-ups
 *
 * Every callback of the loop begins with user_enter() and ends with user_leave().
 */
#ifndef LINK_USER_PRIVATE_H
#define LINK_USER_PRIVATE_H

#include "link/user.h"
#include "net/dns.h"
#include "net/icmp.h"
#include "net/net.h"
#include "net/tcp.h"
#include "net/udp.h"
#include "os/loop.h"

#include <sys/socket.h>
#include <netinet/in.h>

#define S_NS 1000000000ull
#define FLOW_BUCKETS 1024u
#define LOOKUPS_MAX 256u

/* A socket address of either family. */
union host_addr {
	struct sockaddr any;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
};

struct flow;	/* TCP: user_tcp.c */
struct datagram_flow;
struct lookup;
struct publisher;	/* user_publish.c */

struct datagram_flows {
	struct datagram_flow *bucket[FLOW_BUCKETS];
	struct datagram_flow *oldest, *newest;	/* by last use */
	unsigned count;
};

struct dns_server {
	struct udp_service service;	/* first */
	struct user *user;
};

struct user {
	struct link link;	/* first */
	struct loop *loop;
	const struct link_host *host;
	struct net *net;
	struct policy *policy;	/* NULL: everything is allowed */
	struct loop_source *timer;	/* what net/ waits for */
	struct loop_source *idle;	/* sets the timer */
	uint64_t armed_ns;	/* when it fires, 0: not set */
	struct loop_source *seconds;	/* fires every second while there is something for user_*_tick() */
	bool seconds_on;
	uint64_t now_ns;
	struct link_user_address ip4, ip6;
	bool host_loopback, internal;
	struct flow *flows;	/* a list */
	unsigned nflows;
	struct datagram_flows datagrams;
	struct publisher *publishers;	/* a list */
	struct dhcp4_server *dhcp4;
	struct dhcp6_server *dhcp6;
	struct ra_sender *ra;

	struct dns_server dns4, dns6;
	struct dns_table names;
	struct dns_host *hosts;	/* of @names, with what they name; owned */
	struct net_endpoint nameserver[LINK_NAMESERVERS_MAX];
	unsigned nnameservers;
	struct lookup *lookup[LOOKUPS_MAX];
	char *domain, *hostname;	/* NULL: none */
	/* Datagrams on their way from a socket to the guest. */
	uint8_t buffer[65536];
};

static inline bool user_has(const struct link_user_address *family)
{
	return family->guest.q[0] | family->guest.q[1];
}

/* The time is now. */
void user_enter(struct user *u);
/* Sends what waits and sets the timer. */
void user_leave(struct user *u);

/* Makes the functions user_*_tick() be called every second until none finds anything to do. */
void user_want_seconds(struct user *u);

/*
 * Where a guest's packet to @to goes on the host.  False when it goes nowhere: our
 * own addresses without host_loopback, and other addresses of the guest's network.
 */
bool user_outside(const struct user *u, const struct net_endpoint *to, struct net_endpoint *ret_to);

/* What the guest sees of a host's client: its address, or the gateway's for local ones. */
struct net_addr user_inside(const struct user *u, const struct net_addr *from);

/* The guest's address of the family of @like. */
const struct net_addr *user_guest(const struct user *u, const struct net_addr *like);

socklen_t host_addr_make(const struct net_endpoint *ep, union host_addr *ret_addr);
struct net_endpoint host_addr_read(const union host_addr *addr);
int user_socket(struct user *u, const struct net_addr *like, int type, int protocol);

/* True for the address that answers look-ups. */
bool user_is_dns(const struct user *u, const struct net_addr *addr);

/* From the error of a host's socket to what the guest is told. */
enum icmp_kind user_icmp_kind(int error);

/* net_ops.tcp_request */
void user_tcp_request(void *ctx, struct tcp_conn *conn);
void user_tcp_destroy(struct user *u);
/* A client is at the listening socket @fd.  False when the host is too short of something to take it now. */
bool user_tcp_accept(struct user *u, int fd, uint16_t guest_port);

/* net_ops.udp_input, echo_input */
bool user_udp_input(void *ctx, const struct udp_datagram *datagram);
void user_echo_input(void *ctx, const struct icmp_echo *echo);
/* Ends flows that are idle; true while there are others. */
bool user_datagram_tick(struct user *u);
void user_datagram_destroy(struct user *u);
/* Datagrams are at the published socket @fd. */
void user_datagram_receive(struct user *u, int fd, uint16_t guest_port);

/* Ports whose clients could not be taken are tried again; true while there are others. */
bool user_publish_tick(struct user *u);
void user_publish_destroy(struct user *u);

int user_dns_create(struct user *u, struct err *err);
bool user_dns_tick(struct user *u);
void user_dns_destroy(struct user *u);

#endif /* LINK_USER_PRIVATE_H */
