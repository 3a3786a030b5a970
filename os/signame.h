/* SPDX-License-Identifier: Apache-2.0 */
#ifndef OS_SIGNAME_H
#define OS_SIGNAME_H

/*
 * Number of the signal called "KILL", "SIGKILL", "sigkill" or "9", or counted from the ends of
 * those without a name: "SIGRTMIN+3", "RTMAX-1".  -EINVAL when there is none.
 */
int signal_by_name(const char *name);

#endif /* OS_SIGNAME_H */
