/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of named networks share: networks.c, which asks switches, and networks_serve.c, which is one. */
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

/* The addresses and limits of the switch of @network. */
void network_describe(const struct network *network, struct switch_config *ret_config);

#endif /* MACHINE_NETWORKS_PRIVATE_H */
