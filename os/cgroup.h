/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A control group for the processes of one VM: what they may use of the host
 * together.  cgroups(7), version 2 and 1.
 *
 * Version 2: the group is made beside the one that we are in, because a group with
 * processes of its own can have none below it with limits; where ours has limits that
 * somebody set, VMs stay in it and under those.  Version 1: below ours, by controller.
 * An ordinary user has rights to make one where the system has delegated it to them.
 *
 * Threads: none of this is safe to call for one group from several at once.
 */
#ifndef OS_CGROUP_H
#define OS_CGROUP_H

#include <stdint.h>
#include <sys/types.h>

struct cgroup;
struct err;

struct cgroup_limits {
	uint64_t memory;	/* bytes, page cache included; 0: none */
	uint32_t tasks;	/* processes and threads; 0: none */
};

enum {
	CGROUP_MEMORY = 1,
	CGROUP_PIDS = 2,
	CGROUP_CPU = 4,
};

/*
 * Makes a group with @limits, owned by the caller, and removes those whose maker ended without doing so.
 * Returns which of CGROUP_* it can limit, at least one; or a negative errno with a sentence on why
 * there is none.
 */
int cgroup_create(const struct cgroup_limits *limits, struct cgroup **ret_cgroup, struct err *err);

/* Moves process @pid into the group; its children to come follow.  0 or a negative errno. */
int cgroup_add(const struct cgroup *cgroup, pid_t pid);

/*
 * The group's part of the CPUs when they are short: @shares from 2 to 262144, where 1024 is everybody's.
 * 0, or a negative errno: -ENOTSUP without that controller.
 */
int cgroup_set_shares(const struct cgroup *cgroup, uint32_t shares);

/* Removes the group; one that still has processes is left to a later cgroup_create().  NULL is fine. */
void cgroup_destroy(struct cgroup *cgroup);

#endif /* OS_CGROUP_H */
