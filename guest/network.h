/* SPDX-License-Identifier: Apache-2.0 */
/* The guest's network as the host has decided it: interfaces, routes, names. */
#ifndef GUEST_NETWORK_H
#define GUEST_NETWORK_H

#include "guest/conf.h"
#include "guest/request.h"

/*
 * Raises the loopback and configured interfaces with their addresses and routes.
 * What fails is said on the console: a guest without network still runs.
 */
void network_up(const struct conf *conf);

/*
 * Gives the first interface the addresses of @id, in @booted too (NULL: there is none), and rewrites /etc/hosts with
 * them.  0, or -1 with errno.
 */
int network_move(const struct identity_request *id, struct conf *booted);

/*
 * Writes /etc/hostname, /etc/hosts and /etc/resolv.conf of the root at "/" when the
 * configuration has a network.  A root that cannot be written to keeps its own.
 */
void network_files(const struct conf *conf);

#endif /* GUEST_NETWORK_H */
