/* SPDX-License-Identifier: Apache-2.0 */
/* The process that runs one VM on behalf of an owner (machine/control.h). */
#ifndef MACHINE_PROCESS_H
#define MACHINE_PROCESS_H

/*
 * Serves the owner on @sock until the guest ends or the owner goes.  Returns the
 * exit status of the process: 0, or 1 when the VM could not be made.
 */
int machine_process(int sock, const char *cache_dir);

#endif /* MACHINE_PROCESS_H */
