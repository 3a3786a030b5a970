/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest on a named network: other guests by way of the switch, all else by a user network of
 * its own, which is the gateway.
 *
 *   guest --- port --- frames for the gateway ----- link/user.h
 *                 \--- frames for others --------- switch (link/switch.h)
 *
 * The gateway's address means another gateway to each guest: what one may reach, what it
 * publishes and how much it holds is its own affair, in its own process.
 */
#ifndef LINK_PORT_H
#define LINK_PORT_H

#include "link/switch_wire.h"
#include "link/user.h"

/*
 * Connects to the switch at @path and claims the port that @token reserved.  A descriptor, or a
 * negative errno with a sentence.
 */
int link_port_open(const char *path, const uint8_t token[SWITCH_TOKEN_SIZE], struct err *err);

/*
 * @fd: from link_port_open(), or the other end of switch_adopt(); taken over on success, as is
 * @gateway, made by link_user_create() and not attached.  0 with ownership in @ret_link, or a
 * negative errno.
 */
int link_port_create(struct loop *loop, int fd, struct link *gateway, struct link **ret_link, struct err *err);

/*
 * Calls @lost on the loop's thread when the switch has ended.  Other guests are out of reach from
 * then on, until link_port_renew().
 */
void link_port_on_lost(struct link *link, void (*lost)(void *ctx), void *ctx);

/* Goes on with a new switch at @fd (as for create), which has given the same addresses.  0 or a negative errno. */
int link_port_renew(struct link *link, int fd);

#endif /* LINK_PORT_H */
