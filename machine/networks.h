/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Named networks of a user: what they are called and made of, and the processes that are their
 * switches (link/switch.h).
 *
 *   DATA/networks/NAME         definition, lines "key value"; there until it is removed
 *   STATE/networks/NAME.sock   where the switch listens, while there is one
 *   STATE/networks/NAME.leases which VM had which address
 *   STATE/networks/lock        held to create, join and remove
 *
 * DATA and STATE are those of os/folders.h.
 *
 * There is no daemon: who joins starts the switch when there is none, and it ends by itself some
 * seconds after the last VM has left.  It takes the lock for that, so that nobody is just
 * joining.  One that was killed leaves a socket that refuses, and the next to join starts
 * another.
 */
#ifndef MACHINE_NETWORKS_H
#define MACHINE_NETWORKS_H

#include <stdbool.h>
#include <stdint.h>

struct err;

#define NETWORK_NAME_SIZE 33u	/* bytes of a network's name with its NUL */
#define NETWORK_ADDR_SIZE 50u	/* bytes of "ADDRESS/BITS" with its NUL */
#define NETWORK_VM_NAME_SIZE 64u
#define NETWORKS_MAX 254u
#define NETWORK_FAMILIES 2u	/* index 0: IPv4, 1: IPv6 */

struct network {
	char name[NETWORK_NAME_SIZE];
	char subnet[NETWORK_FAMILIES][NETWORK_ADDR_SIZE];	/* "10.89.1.0/24"; to create: "" where it is to be chosen */
	bool internal;
	int64_t created_s;	/* seconds since 1970 */
	/* Of the definition; not given to create. */
	char gateway[NETWORK_FAMILIES][NETWORK_ADDR_SIZE], dns[NETWORK_FAMILIES][NETWORK_ADDR_SIZE];
};

/* A VM on a network. */
struct network_vm {
	char name[NETWORK_VM_NAME_SIZE], hostname[NETWORK_VM_NAME_SIZE];	/* "": it has none */
	char addr[NETWORK_FAMILIES][NETWORK_ADDR_SIZE];
	uint8_t mac[6];
	bool connected;	/* it runs; else it is about to */
	struct {
		uint64_t frames, bytes, dropped;
	} sent, received;	/* by the VM */
	uint64_t forged, refused, unknown;	/* frames it sent: with false addresses, not carried, to nobody */
};

/* How a VM is found, as strings of the caller's; NULL: not. */
struct network_guest {
	const char *name, *hostname;
	const char *addr;	/* the IPv4 address it has to get, "ADDRESS/BITS" */
	bool keep;	/* the address is kept for the name after it has left */
};

/* A place on a network for a VM that is about to be. */
struct network_seat {
	struct network network;
	int fd;	/* owned; the place is kept while it or the VM's connection is open */
	char socket[108], token[33];	/* for the machine spec */
	uint8_t mac[6];
	char addr[NETWORK_FAMILIES][NETWORK_ADDR_SIZE];	/* with the bits of the prefix */
};

/* The guest's addresses on the user network, "ADDRESS/BITS"; no named network may have a part of it. */
extern const char *const network_user_guest[NETWORK_FAMILIES];

/* A letter or digit, then those, "_", "." and "-"; and none of the words of --network. */
bool network_name_valid(const char *name);

/* Makes network @network->name and fills in the rest.  0, -EEXIST, -EINVAL and others with a sentence. */
int network_define(struct network *network, struct err *err);

/* 0, -ENOENT or another negative errno with a sentence. */
int network_read(const char *name, struct network *ret_network, struct err *err);

/* All networks by name, at most NETWORKS_MAX.  Their number, with ownership of the array; or a negative errno. */
int network_list(struct network **ret_networks, struct err *err);

/* The VMs on a network.  Their number, with ownership of the array; or a negative errno. */
int network_vms(const char *name, struct network_vm **ret_vms, struct err *err);

/* -EBUSY while a VM is on it, -ENOENT, or another negative errno with a sentence. */
int network_remove(const char *name, struct err *err);

/*
 * Reserves a place for VM @vm, on a switch that is started by program @roux ("roux switch NAME")
 * when there is none.  0 with ownership in @ret_seat, or a negative errno with a sentence.
 */
int network_join(const char *name, const struct network_guest *vm, const char *roux, struct network_seat *ret_seat,
		 struct err *err);

/* True when the switch that gave the place has ended; waits a moment for that. */
bool network_seat_lost(int seat_fd);

/* Takes the place: the descriptor of the VM's connection (link/port.h), or a negative errno with a sentence. */
int network_claim(const struct network_seat *seat, struct err *err);

/*
 * Makes the switch of network @name, a process in the background; returns when it listens.  The
 * caller holds the networks' lock, or rather who waits for it.  The calling process is to end
 * soon.  0 or a negative errno with a sentence.
 */
int network_serve(const char *name, struct err *err);

#endif /* MACHINE_NETWORKS_H */
