/* SPDX-License-Identifier: Apache-2.0 */
/* From the command line of run and create to a VM's record. */
#ifndef CLI_CREATE_H
#define CLI_CREATE_H

#include "cli/options.h"
#include "life/vms.h"

/*
 * Makes the VM that @options ask for, VM_CREATED or, where run_vm() follows at once, VM_STARTING; their life passes to the
 * record.  0, with the lock and the record (the caller finishes both), or an exit status after a complaint.
 */
int create_vm(const struct vms *vms, struct run_options *options, enum vm_status begins, struct vm_record *ret_record,
	      struct vm_owned *ret_owned);

struct attached;
struct monitor_options;

/*
 * Starts the VM whose lock is held and stays with it as @how says.  The lock goes to its
 * monitor.  Returns the exit status after complaining where needed.
 */
int run_vm(const struct vms *vms, struct vm_owned *owned, const struct vm_record *record,
	   const struct monitor_options *options, struct attached *how);

/* Path of this program, which also serves as a VM's process; NULL when it cannot be told. */
const char *own_path(void);

/* Sees to it that the image is here, unless that is not wanted.  0, or an exit status after a complaint. */
int fetch_image(struct run_options *r);

#endif /* CLI_CREATE_H */
