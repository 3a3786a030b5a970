/* SPDX-License-Identifier: Apache-2.0 */
/* From the networks of a machine spec to links. */
#ifndef MACHINE_NETWORK_H
#define MACHINE_NETWORK_H

#include <stdbool.h>
#include <stdint.h>

struct err;
struct link;
struct link_host;
struct loop;
struct spec_net;

/* Is @text "ADDRESS/BITS", or without bits "ADDRESS"? */
bool network_address_valid(const char *text, bool with_bits);

/* What can be said about @net without making it.  0 or -EINVAL with a sentence. */
int network_check(const struct spec_net *net, struct err *err);

/* Makes the link; @host, borrowed for its life, gives a user network its sockets.  0 with ownership in @ret_link, or a negative errno with a sentence. */
int network_create(struct loop *loop, const struct spec_net *net, const struct link_host *host, struct link **ret_link,
		   struct err *err);

/* The token of a place on a named network, from its hexadecimal text; @text may be NULL. */
bool network_token_parse(const char *text, uint8_t ret_token[16]);

#endif /* MACHINE_NETWORK_H */
