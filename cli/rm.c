/* SPDX-License-Identifier: Apache-2.0 */
/* roux rm: removes VMs that do not run. */
#include "cli/cli.h"
#include "cli/pick.h"
#include "life/client.h"
#include "life/events.h"
#include "os/err.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

static int remove_owned(const struct vms *vms, const char *what, const char *id, const struct vm_record *record)
{
	struct vm_owned owned;
	struct err err = { 0 };
	int r = vms_own(vms, id, PICK_JUST_ENDED_MS, &owned, &err);

	if (r == 0) {
		r = vm_remove(vms, &owned, record->name, &err);
		vm_release(&owned);
	}
	if (r == 0 && record->id[0])
		events_add(vms, record, "destroy", NULL);
	if (r < 0 && r != -ENOENT)	/* --rm may have been faster */
		return complain(EXIT_VERB, "%s", err.msg);
	(void)puts(what);
	return 0;
}

static int remove_one(const struct vms *vms, const char *what, const void *ctx)
{
	const bool *force = ctx;
	struct vm_record record;
	struct err err = { 0 };
	char id[VM_ID_SIZE];
	bool alive = false;
	int r = vms_find(vms, what, id, &err), status = 0;

	record_init(&record);
	if (r == 0)
		r = client_load(vms, id, &record, &alive, &err);
	if (r < 0 && !(r == -EBADMSG && *force))
		status = *force && r == -ENOENT ? 0 : complain(EXIT_VERB, "%s", err.msg);
	else if (alive && !*force)
		status = complain(EXIT_VERB, "VM %s is %s: stop it first ('roux stop %s'), or use 'roux rm -f'", record.name,
				  vm_status_name(record.state.status), what);
	else if (alive)
		(void)client_ask(vms, id, "POST", "/v1/stop", "{\"TimeoutMs\":0}", -1, NULL, &err);	/* or it is gone already */
	if (status == 0 && (r == 0 || r == -EBADMSG))
		status = remove_owned(vms, what, id, &record);
	record_finish(&record);
	return status;
}

int verb_rm(int argc, char **argv)
{
	static const char help[] =
		"Usage: roux rm [-f] VM...\n\n"
		"Removes VMs with all that is kept of them.\n\n"
		"  -f, --force               Kill those that run\n";
	static const struct option options[] = { { "force", no_argument, NULL, 'f' },
						 { "volumes", no_argument, NULL, 'v' },
						 { "help", no_argument, NULL, PICK_HELP },
						 { NULL, 0, NULL, 0 } };
	bool force = false;
	int c;

	optind = 0;
	while ((c = getopt_long(argc, argv, "fv", options, NULL)) != -1) {
		if (c == 'f')
			force = true;
		else if (c != 'v')	/* there are no anonymous volumes to remove */
			return pick_usage("rm", help, c);
	}
	return pick_each(argc, argv, "rm", remove_one, &force);
}
