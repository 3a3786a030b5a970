/* SPDX-License-Identifier: Apache-2.0 */
/* From the networks of a machine spec to links. */
#ifndef MACHINE_NETWORK_H
#define MACHINE_NETWORK_H

struct err;
struct link;
struct loop;
struct spec_net;

/* Makes the link.  0 with ownership in @ret_link, or a negative errno with a sentence. */
int network_create(struct loop *loop, const struct spec_net *net, struct link **ret_link, struct err *err);

#endif /* MACHINE_NETWORK_H */
