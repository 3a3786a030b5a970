/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a guest may reach outside: a list of rules of which the first that fits
 * decides.  Without one that fits everything is allowed.
 *
 *   rule   = ("allow" | "deny") target [protocol] [port ["-" port]]
 *   target = "any" | address ["/" prefix] | name | "*." name
 *
 *   deny 10.0.0.0/8
 *   allow *.debian.org tcp 80-443
 *   deny any
 *
 * protocol is tcp, udp or icmp.  A rule with a name fits the addresses that the
 * guest's own look-ups of that name gave, for as long as their records last and
 * connections that began meanwhile: see policy_learn().
 */
#ifndef LINK_POLICY_H
#define LINK_POLICY_H

#include "net/types.h"

#include <stdbool.h>
#include <stdint.h>

struct err;
struct policy;

#define POLICY_RULES_MAX 256u
#define POLICY_LEARNED_MAX 4096u	/* addresses of names; more displace the oldest */

enum policy_proto { POLICY_TCP = 1, POLICY_UDP = 2, POLICY_ICMP = 4 };

/* Rules are added in order.  NULL when out of memory. */
struct policy *policy_create(void);
void policy_destroy(struct policy *policy);	/* NULL is fine */

/* Adds the rule that @text is.  0, -EINVAL with a sentence, -ENOMEM, -E2BIG. */
int policy_add(struct policy *policy, const char *text, struct err *err);

/* True when there are rules with names, so that look-ups must be watched. */
bool policy_has_names(const struct policy *policy);

/*
 * The guest looked up @name (lower case, no dot at the end) and was told @addr, good
 * for @ttl_s seconds from @now_ns.
 */
void policy_learn(struct policy *policy, const char *name, const struct net_addr *addr, uint32_t ttl_s,
		  uint64_t now_ns);

/* May the guest send to @to?  The port of ICMP is 0. */
bool policy_allows(const struct policy *policy, enum policy_proto proto, const struct net_endpoint *to,
		   uint64_t now_ns);

#endif /* LINK_POLICY_H */
