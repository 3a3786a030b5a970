/* SPDX-License-Identifier: Apache-2.0 */
/* The process that runs one VM on behalf of an owner (machine/control.h). */
#ifndef MACHINE_PROCESS_H
#define MACHINE_PROCESS_H

struct jail;

/*
 * Serves the owner on @sock until the guest ends or the owner goes.  @jail: begun
 * by jail_fork(), closed before the guest runs; NULL: none.  Returns the exit status
 * of the process: 0, or 1 when the VM could not be made.
 */
int machine_process(int sock, const char *cache_dir, struct jail *jail);

/*
 * The same in a jail of its own.  Splits the process: the child serves the owner,
 * the caller helps it from outside the jail and tells the owner who that child is.
 * Returns the exit status in both; close-on-exec or not, every descriptor but @sock
 * is better closed before.
 */
int machine_process_jailed(int sock, const char *cache_dir);

#endif /* MACHINE_PROCESS_H */
