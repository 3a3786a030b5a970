/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LIFE_SIGNAME_H
#define LIFE_SIGNAME_H

/* Number of the signal called "KILL", "SIGKILL", "sigkill" or "9"; -EINVAL when there is none. */
int signal_by_name(const char *name);

#endif /* LIFE_SIGNAME_H */
