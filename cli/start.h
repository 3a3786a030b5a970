/* SPDX-License-Identifier: Apache-2.0 */
/* Starting a VM that exists. */
#ifndef CLI_START_H
#define CLI_START_H

#include "cli/terminal.h"
#include "life/vms.h"

/*
 * Starts a VM that does not run.  With @attach stays as its window (with @input passing
 * standard input, and leaving on @keys unless NULL); otherwise prints @what when its
 * command runs.  Returns the exit status after complaining where needed.
 */
int start_vm(const struct vms *vms, const char *what, const struct vm_record *record, bool attach, bool input,
	     const struct detach_keys *keys);

#endif /* CLI_START_H */
