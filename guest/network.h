/* SPDX-License-Identifier: Apache-2.0 */
/* The guest's network as the host has decided it: interfaces and routes. */
#ifndef GUEST_NETWORK_H
#define GUEST_NETWORK_H

#include "guest/conf.h"
#include "guest/request.h"

/*
 * Raises the loopback and configured interfaces with their addresses and routes.
 * What fails is said on the console: a guest without network still runs.
 */
void network_up(const struct conf *conf);

/* Gives the first interface the addresses of @id, in @booted too (NULL: there is none).  0, or -1 with errno. */
int network_move(const struct identity_request *id, struct conf *booted);

#endif /* GUEST_NETWORK_H */
