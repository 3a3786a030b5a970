/* SPDX-License-Identifier: Apache-2.0 */
/* The guest's network as the host has decided it: interfaces, routes, names. */
#ifndef GUEST_NETWORK_H
#define GUEST_NETWORK_H

#include "guest/conf.h"

/*
 * Raises the loopback and configured interfaces with their addresses and routes.
 * What fails is said on the console: a guest without network still runs.
 */
void network_up(const struct conf *conf);

/*
 * Writes /etc/hostname, /etc/hosts and /etc/resolv.conf of the root at "/" when the
 * configuration has a network.  A root that cannot be written to keeps its own.
 */
void network_files(const struct conf *conf);

#endif /* GUEST_NETWORK_H */
