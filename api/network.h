/* SPDX-License-Identifier: Apache-2.0 */
/* Networks of struct roux_options: to the machine spec and to the guest's configuration. */
#ifndef API_NETWORK_H
#define API_NETWORK_H

struct conf_text;
struct err;
struct machine_spec;
struct roux_options;

/* Adds them all.  0, -EINVAL with a sentence, -ENOMEM. */
int add_networks(struct machine_spec *spec, const struct roux_options *options, struct conf_text *conf,
		 struct err *err);

#endif /* API_NETWORK_H */
