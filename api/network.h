/* SPDX-License-Identifier: Apache-2.0 */
/* Networks of struct roux_options: to the machine spec and to the guest's configuration. */
#ifndef API_NETWORK_H
#define API_NETWORK_H

struct conf_text;
struct err;
struct roux_machine;
struct roux_options;

/*
 * Adds them all, with places on named ones, which the machine keeps until
 * leave_networks().  0 or a negative errno with a sentence.
 */
int add_networks(struct roux_machine *machine, const struct roux_options *options, struct conf_text *conf,
		 struct err *err);

void leave_networks(struct roux_machine *machine);

/* The switch of network @index has ended: takes the same place with a new one, as far as possible. */
void rejoin_network(struct roux_machine *machine, unsigned index);

#endif /* API_NETWORK_H */
