/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Machines that wait for their VMs: the live form of a template.
 *
 * A machine made of a template does nothing before it is told who it is.  So one can be there ahead of its VM: while a
 * VM made of a template runs, its monitor sees to it that another machine of that kind waits, in a process of its own
 * with whatever a monitor needs.  The next VM of the kind starts in there: nobody has to start processes, read files or
 * close a jail for it any more.  Machines that nobody wants end after a while.
 *
 *   roux run          monitor of a VM              roux standby
 *                     standby_prepare() ---------> standby_main(): makes the machine, listens
 *   standby_start() ---- id, lock, client -------> becomes the VM's monitor
 *
 * Two VMs are of a kind when their machines are made of the same and who starts them has the same context (os/context.h);
 * a digest of that names the socket.  The machine's own spec is compared once more in the end, because files may have
 * changed; a VM whose spec is another gets a machine of its own.
 *
 * ROUX_STANDBY tells how many seconds a machine waits, 60 if it is not set; with 0 there are none.
 */
#ifndef LIFE_STANDBY_H
#define LIFE_STANDBY_H

#include "life/monitor.h"

#include <stdbool.h>

struct err;
struct monitor;

/*
 * Has a waiting process become the monitor of the VM in @record, which the caller owns by @owned.  @client is the
 * monitor's end of the connection to the command, and stays the caller's as the lock does.  False when there is no such process.
 */
bool standby_start(const struct vms *vms, const struct vm_owned *owned, const struct vm_record *record,
		   const struct monitor_options *options, int client);

/* Sees to it that there is soon a machine for the next VM like this one, which has begun to run. */
void standby_prepare(struct monitor *m);

/*
 * The same at the end of a monitor, whose process becomes the one with the machine.  Returns when that is not needed.  @anew:
 * a machine that waits ends first, because the template has got better since.
 */
void standby_instead(struct monitor *m, bool anew);

/*
 * The process: @fd has the record of a VM like those to come, @vmm is the path of the roux command.  Returns when
 * nobody wanted the machine, 0, or when it cannot be made, or is not needed: a negative errno with a sentence.
 */
int standby_main(int fd, const char *vmm, struct err *err);

/* Whether a VM like that has nothing that only one can have at a time: ports, disks, a place in a network, a file to write to. */
bool standby_holds_nothing(const struct vm_config *config);

/* How many machines made of template @id wait, NULL: of any; ends them too if @end. */
unsigned standby_count(const struct vms *vms, const char *id, bool end);

#endif /* LIFE_STANDBY_H */
