/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The switch of a named network: frames go from port to port, one port for each VM
 * (link/switch_wire.h).
 *
 *   VM --- link/port.c === socket === port \
 *   VM --- link/port.c === socket === port -- switch
 *
 * A port's addresses come from the switch, so that there is nothing to learn: each frame is
 * held against them (link/guard.h), and goes to the port whose MAC address it names or, when it
 * is for a group, to all others.  There is no gateway here: each VM has its own (link/port.h),
 * and the switch neither has sockets of the host nor parses more than link/guard.h does.
 *
 * A VM that does not take its frames has a queue of SWITCH_QUEUE_MAX bytes, of which each sender
 * may fill as much as it leaves free: nobody waits for a slow receiver, and a flood of one leaves
 * room for others.
 *
 * Threads: all functions on the loop's thread, or before it runs.
 */
#ifndef LINK_SWITCH_H
#define LINK_SWITCH_H

#include "link/switch_wire.h"

struct err;
struct loop;
struct net_switch;

#define SWITCH_QUEUE_MAX (1u << 20)	/* bytes that wait for one port */
#define SWITCH_CONNS_MAX (SWITCH_PORTS_MAX * 2u + 16u)

struct switch_config {
	struct net_addr prefix4, prefix6;	/* addresses of hosts are all zero */
	uint32_t first;	/* index (switch_address()) of the first port's addresses */
	uint32_t ports;	/* 1 to SWITCH_PORTS_MAX */
	uint16_t mtu;
	/*
	 * A file that remembers which name had which address, borrowed, -1: none.  For each index a
	 * record of SWITCH_NAME_SIZE bytes, "-" for a port that keeps none.
	 */
	int leases;
	uint64_t linger_ns;	/* with nobody on the network, until @may_end is asked */
	/* True: the loop ends.  False: asked again after @linger_ns. */
	bool (*may_end)(void *ctx);
	void *ctx;
};

/* 0 with ownership in @ret_switch, or -ENOMEM or another negative errno. */
int switch_create(struct loop *loop, const struct switch_config *config, struct net_switch **ret_switch,
		  struct err *err);
void switch_destroy(struct net_switch *sw);	/* NULL is fine */

/* Takes clients of our own user at @fd (borrowed), which listens.  0 or a negative errno. */
int switch_listen(struct net_switch *sw, int fd, struct err *err);

/* A client on @fd, taken over also on failure.  0, -EMFILE (too many) or another negative errno. */
int switch_adopt(struct net_switch *sw, int fd);

#endif /* LINK_SWITCH_H */
