/* SPDX-License-Identifier: Apache-2.0 */
/* The command line of roux run. */
#ifndef CLI_OPTIONS_H
#define CLI_OPTIONS_H

#include "life/record.h"
#include "roux/roux.h"

#include <stdbool.h>

#define RUN_SHARES_MAX 14
#define RUN_ENV_MAX 256	/* with the NULL that ends them */
#define RUN_DISKS_MAX 8
#define RUN_ARGS_MAX 1024	/* likewise */

struct run_options {
	struct roux_options machine;
	struct roux_exec_options exec;
	struct roux_share shares[RUN_SHARES_MAX];
	struct roux_disk disks[RUN_DISKS_MAX];
	struct roux_network network;	/* the only one; machine.nnetworks is 0 or 1 */
	const char *env[RUN_ENV_MAX];
	unsigned nenv;
	const char *argv[RUN_ARGS_MAX];
	bool interactive, json, console, stats;
	unsigned timeout_s;	/* 0: none */
	bool detach;
	const char *name, *cidfile, *detach_keys;	/* NULL: not given */
	/* The life of the VM, as in the record; what it owns is there too. */
	struct vm_config life;
	char *owned[RUN_SHARES_MAX + RUN_DISKS_MAX + RUN_ENV_MAX + 1];	/* strings made while parsing */
	unsigned nowned;
};

/*
 * Fills @ret_options, which points into itself and into @argv (argv[0] is the
 * verb).  Returns 0, a negative number when help was printed, or an exit status
 * after a complaint.  run_options_finish() follows in every case.
 */
int run_options_parse(struct run_options *ret_options, int argc, char **argv);
void run_options_finish(struct run_options *options);

#endif /* CLI_OPTIONS_H */
