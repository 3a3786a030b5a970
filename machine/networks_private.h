/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of named networks share.
 *
 *   networks.c        definitions
 *   networks_join.c   who asks switches
 *   networks_serve.c  who is one
 */
#ifndef MACHINE_NETWORKS_PRIVATE_H
#define MACHINE_NETWORKS_PRIVATE_H

#include "link/switch.h"
#include "machine/networks.h"

#include <limits.h>

struct network_paths {
	char definition[PATH_MAX], socket[PATH_MAX], leases[PATH_MAX], lock[PATH_MAX];
};

/* Of network @name, whose folders are made when they are missing; @socket is short enough for its purpose. */
int network_paths_get(const char *name, struct network_paths *ret_paths, struct err *err);

/* As network_paths_get(), and keeps others from all networks: a descriptor to close, or a negative errno. */
int networks_lock(const char *name, struct network_paths *ret_paths, struct err *err);

/* network_read() of the definition at @path. */
int network_read_at(const char *name, const char *path, struct network *ret_network, struct err *err);

/* "ADDRESS/BITS"; with negative @bits "ADDRESS". */
void network_put_addr(char text[NETWORK_ADDR_SIZE], const struct net_addr *addr, int bits);

/* The addresses and limits of the switch of @network. */
void network_describe(const struct network *network, struct switch_config *ret_config);

#endif /* MACHINE_NETWORKS_PRIVATE_H */
