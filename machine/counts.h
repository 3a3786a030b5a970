/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a VM's networks have carried, in memory that its process shares with its
 * owner: reading it asks nobody, so it works whatever the VM does.
 */
#ifndef MACHINE_COUNTS_H
#define MACHINE_COUNTS_H

#include "link/link.h"
#include "machine/spec.h"

struct counts {
	struct link_counts net[SPEC_NETS_MAX];
};

/* In the VM's process: 0 with the mapping and its descriptor, or a negative errno. */
int counts_create(struct counts **ret_counts, int *ret_fd);

/*
 * In its owner: maps what came as @fd, which stays the caller's.  The other side may
 * lie in it, but not take it away: -EPERM for memory that could shrink.
 */
int counts_map(int fd, const struct counts **ret_counts);

/* NULL is fine. */
void counts_unmap(const struct counts *counts);

#endif /* MACHINE_COUNTS_H */
