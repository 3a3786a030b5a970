/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is said on the sockets (SOCK_SEQPACKET) of a named network's switch.  One message is one
 * packet and begins with its type.
 *
 *   who starts a VM                  switch                        process of the VM
 *     RESERVE (names) --------------->
 *     <---------- RESERVED (addresses, token)
 *                                        <------------------- CLAIM (token)
 *                                        CLAIMED -------------------->
 *                                        NAMES ---------------------->   whenever they change
 *                                        <------------------- FRAME* ->
 *
 * Instead of RESERVE: LIST, answered by LISTED; QUIT, answered by QUITTING when nobody is on the
 * network.  What cannot be done is answered by REFUSED.
 *
 * A port exists while one of its two sockets is open.  Both ends are of one user and one
 * version of roux, hence structures in host order; the VM's end may have been taken over by its
 * guest all the same.
 */
#ifndef LINK_SWITCH_WIRE_H
#define LINK_SWITCH_WIRE_H

#include "link/link.h"
#include "net/types.h"

#define SWITCH_VERSION 1u
#define SWITCH_PORTS_MAX 250u
#define SWITCH_NAME_SIZE 64u	/* bytes of a VM's name with its NUL; "" for none */
#define SWITCH_TOKEN_SIZE 16u
#define SWITCH_SOCKET_BUFFER (4 << 20)	/* bytes that are asked for; the host may give less */

enum switch_type {
	SWITCH_FRAME = 1,

	SWITCH_RESERVE = 16,
	SWITCH_CLAIM,
	SWITCH_LIST,
	SWITCH_QUIT,

	SWITCH_RESERVED = 64,
	SWITCH_CLAIMED,
	SWITCH_NAMES,
	SWITCH_LISTED,
	SWITCH_QUITTING,
	SWITCH_REFUSED,
};

/* FRAME: the Ethernet frame follows. */
struct switch_frame {
	uint32_t type;
	struct virtio_net_hdr_v1 hdr;
};

/* Room for the longest. */
struct switch_packet {
	struct switch_frame head;
	uint8_t bytes[LINK_FRAME_MAX];
};

struct switch_reserve {
	uint32_t type, version;	/* SWITCH_VERSION */
	char name[SWITCH_NAME_SIZE], alias[SWITCH_NAME_SIZE];	/* lower case */
	struct net_addr ip4;	/* wanted, zero: any; with it comes the IPv6 address */
	uint32_t keep;	/* the address is kept for the name when it has left */
};

struct switch_reserved {
	uint32_t type;
	uint8_t mac[NET_MAC_SIZE];
	uint8_t unused[6];
	struct net_addr ip4, ip6;
	uint8_t token[SWITCH_TOKEN_SIZE];
};

struct switch_claim {
	uint32_t type;
	uint8_t token[SWITCH_TOKEN_SIZE];
};

#define SWITCH_NAMES_MAX (2u * SWITCH_PORTS_MAX)

/* NAMES: of the VMs that are connected; a name may come several times. */
struct switch_name {
	char name[SWITCH_NAME_SIZE];
	struct net_addr ip4, ip6;
};

struct switch_names {
	uint32_t type, count;
	struct switch_name entry[SWITCH_NAMES_MAX];	/* @count of them are sent */
};

struct switch_counters {
	/* By the guest; dropped are its frames that nobody got, and frames for it that it did not take. */
	struct link_direction sent, received;
	uint64_t forged;	/* with addresses that are not its own */
	uint64_t refused;	/* of kinds that are not carried, or malformed */
	uint64_t unknown;	/* to nobody on the network */
};

struct switch_port_info {
	struct switch_name name;
	char alias[SWITCH_NAME_SIZE];
	uint8_t mac[NET_MAC_SIZE];
	bool connected;	/* the VM's process is there */
	struct switch_counters counters;
};

struct switch_listed {
	uint32_t type, count;
	struct switch_port_info port[SWITCH_PORTS_MAX];
};

/* CLAIMED, QUITTING, REFUSED */
struct switch_answer {
	uint32_t type;
	int32_t error;	/* negative errno with REFUSED, else 0 */
};

/* Address number @index of a network's prefix, of either family. */
static inline struct net_addr switch_address(const struct net_addr *prefix, uint32_t index)
{
	struct net_addr addr = *prefix;

	for (int i = 15; i >= 12 && index; i--) {
		index += addr.b[i];
		addr.b[i] = (uint8_t)index;
		index >>= 8;
	}
	return addr;
}

#endif /* LINK_SWITCH_WIRE_H */
