/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The monitor: the process that owns a VM from its start to its end, through all its
 * restarts.  It is forked off by the command that starts the VM and outlives it.
 */
#ifndef LIFE_MONITOR_H
#define LIFE_MONITOR_H

#include "life/vms.h"

#include <stdint.h>

/* What only the command that starts a VM wants, and not its later lives. */
struct monitor_options {
	const char *vmm;	/* path of the roux command */
	bool fresh;	/* just created: a VM that cannot even boot is not kept */
	bool console;	/* show the serial console to the first client */
	bool phases;	/* tell it how long the start took, as JSON */
	bool counters;	/* tell it what the engine counted */
	uint16_t rows, cols;	/* of its terminal, 0: unknown */
	const char *restore;	/* file of a snapshot that it goes on from, or NULL; absolute */
	bool gdb, gdb_wait;	/* see struct roux_options */
	uint16_t gdb_port;
};

/*
 * Forks a monitor for the VM in @record, which starts it.  The lock in @owned goes to
 * the monitor, in success only.  *ret_fd is a connection to its control socket, over
 * which the VM is attached to, and with that its first life begins: whoever closes it
 * before STARTED or ERROR has come calls the start off.  The caller has no threads, and its signals are as it wants
 * them: the monitor resets its own.
 *
 * 0, or a negative errno with a sentence.
 */
int monitor_fork(const struct vms *vms, struct vm_owned *owned, const struct vm_record *record,
		 const struct monitor_options *options, int *ret_fd, struct err *err);

#endif /* LIFE_MONITOR_H */
