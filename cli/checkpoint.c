/* SPDX-License-Identifier: Apache-2.0 */
/* roux checkpoint, restore: running VMs in files, and back. */
#include "cli/attached.h"
#include "cli/cli.h"
#include "cli/create.h"
#include "cli/pick.h"
#include "life/client.h"
#include "life/events.h"
#include "life/monitor.h"
#include "life/snapshots.h"
#include "os/err.h"

#include <cjson/cJSON.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---------------------------------------------------------------- checkpoint */

struct checkpoint_options {
	const char *base;
	bool compress, stop, keep_disks;
};

static const struct option checkpoint_options[] = { { "base", required_argument, NULL, 'b' },
						    { "compress", no_argument, NULL, 'c' },
						    { "disks", required_argument, NULL, 'd' },
						    { "stop", no_argument, NULL, 's' },
						    { "help", no_argument, NULL, PICK_HELP },
						    { NULL, 0, NULL, 0 } };

static int take(const struct vms *vms, const struct vm_record *record, const char *to, const struct checkpoint_options *o)
{
	cJSON *body = cJSON_CreateObject();
	char path[PATH_MAX], base[PATH_MAX];
	struct err err = { 0 };
	int status;

	if (snapshot_path(vms, to ? to : record->name, true, path, &err) < 0 ||
	    (o->base && snapshot_path(vms, o->base, false, base, &err) < 0)) {
		cJSON_Delete(body);
		return complain(EXIT_VERB, "%s", err.msg);
	}
	(void)cJSON_AddStringToObject(body, "Path", path);
	if (o->base)
		(void)cJSON_AddStringToObject(body, "Base", base);
	(void)cJSON_AddBoolToObject(body, "Compress", o->compress);
	(void)cJSON_AddBoolToObject(body, "Stop", o->stop);
	(void)cJSON_AddBoolToObject(body, "KeepDisks", o->keep_disks);
	status = pick_ask(vms, record, "POST", "/v1/checkpoint", body, NULL);
	if (status == 0)
		(void)puts(to ? to : record->name);
	return status;
}

int verb_checkpoint(int argc, char **argv)
{
	static const char help[] =
		"Usage: roux checkpoint [OPTIONS] VM [SNAPSHOT]\n\n"
		"Saves a running VM, with the command that runs in it, and lets it go on.  SNAPSHOT is the path of\n"
		"a file, with a '/', or a name for 'roux snapshot ls' (default: the VM's).  One that is there is\n"
		"replaced when the new one is complete.\n\n"
		"      --base SNAPSHOT       Save only the pages of memory that are not as in SNAPSHOT, which 'roux restore'\n"
		"                            then needs too\n"
		"      --compress            Compress memory (Zstandard): a smaller file, slower to restore\n"
		"      --disks copy|keep     Save the disks that it writes to beside the snapshot (copy, the default), or\n"
		"                            rely on their files being the same when it is restored (keep)\n"
		"      --stop                End the VM at the moment that was saved\n";
	struct vm_record record;
	struct vms vms;
	struct checkpoint_options o = { .base = NULL };
	int c, status;

	optind = 0;
	while ((c = getopt_long(argc, argv, "", checkpoint_options, NULL)) != -1) {
		switch (c) {
		case 'b': o.base = optarg; break;
		case 'c': o.compress = true; break;
		case 's': o.stop = true; break;
		case 'd':
			o.keep_disks = strcmp(optarg, "keep") == 0;
			if (!o.keep_disks && strcmp(optarg, "copy") != 0)
				return complain(EXIT_ROUX, "--disks is copy or keep, not '%s'", optarg);
			break;
		default: return pick_usage("checkpoint", help, c);
		}
	}
	if (argc - optind < 1 || argc - optind > 2)
		return complain(EXIT_ROUX, "checkpoint needs a VM, and perhaps the name of a snapshot");
	status = pick_open(&vms);
	if (status)
		return status;
	status = pick_running(&vms, argv[optind], &record);
	if (status == 0)
		status = take(&vms, &record, argv[optind + 1], &o);
	record_finish(&record);
	return status;
}

/* ------------------------------------------------------------------- restore */

struct restore_options {
	const char *name, *engine;
	bool detach, remove, input;
};

static const struct option restore_options[] = { { "detach", no_argument, NULL, 'd' },
						 { "engine", required_argument, NULL, 'e' },
						 { "interactive", no_argument, NULL, 'i' },
						 { "name", required_argument, NULL, 'n' },
						 { "rm", no_argument, NULL, 'r' },
						 { "help", no_argument, NULL, PICK_HELP },
						 { NULL, 0, NULL, 0 } };

/* A VM like the one that was saved, whose name it has if that is free. */
static int make(const struct vms *vms, const struct restore_options *o, const char *path, struct vm_record *record,
		struct vm_owned *ret_owned)
{
	char id[VM_ID_SIZE];
	struct err err = { 0 };

	if (o->name && strlen(o->name) >= VM_NAME_MAX)
		return complain(EXIT_ROUX, "a name has at most %d characters", VM_NAME_MAX - 1);
	if (o->name)
		(void)snprintf(record->name, sizeof(record->name), "%s", o->name);
	else if (vms_find(vms, record->name, id, NULL) == 0)
		record->name[0] = '\0';
	record->id[0] = '\0';
	record->config.auto_remove = o->remove;
	record_forget(record);
	record->state.status = VM_STARTING;
	if (vms_create(vms, record, ret_owned, &err) < 0)
		return complain(EXIT_ROUX, "%s", err.msg);
	if (snapshot_restore_disks(path, ret_owned, record, &err) < 0) {
		(void)vm_remove(vms, ret_owned, record->name, NULL);
		vm_release(ret_owned);
		return complain(EXIT_ROUX, "%s", err.msg);
	}
	events_add(vms, record, "create", NULL);
	return 0;
}

static int restore(const struct restore_options *o, const char *what)
{
	struct attached how = { .input = o->input, .output = !o->detach, .signals = true, .until_started = o->detach };
	struct monitor_options options = { .vmm = own_path(), .fresh = true };
	struct vm_owned owned = { .lock_fd = -1 };
	struct vm_record record;
	char path[PATH_MAX];
	struct err err = { 0 };
	struct vms vms;
	int status = pick_open(&vms);

	if (status)
		return status;
	record_init(&record);
	if (snapshot_path(&vms, what, false, path, &err) < 0 || snapshot_record(path, &record, &err) < 0) {
		status = complain(EXIT_ROUX, "%s", err.msg);
		goto out;
	}
	options.restore = path;
	if (o->engine) {
		free(record.config.engine);
		record.config.engine = strdup(o->engine);
	}
	how.tty = record.config.tty && !o->detach;
	how.input = how.input && record.config.open_stdin;
	attached_signals();
	status = make(&vms, o, path, &record, &owned);
	how.name = record.name;
	if (status == 0)
		status = run_vm(&vms, &owned, &record, &options, &how);
	if (status == 0 && o->detach)
		(void)puts(record.id);
out:
	record_finish(&record);
	return status;
}

int verb_restore(int argc, char **argv)
{
	static const char help[] =
		"Usage: roux restore [OPTIONS] SNAPSHOT\n\n"
		"Makes a VM that goes on from where 'roux checkpoint' saved one, shows what its command writes\n"
		"from then on, and exits with its status.\n\n"
		"  -d, --detach              Leave it running and print its id\n"
		"      --engine NAME         auto, kvm or dbt (default: the one that it ran on, where that works)\n"
		"  -i, --interactive         Pass standard input, if the saved VM took it\n"
		"      --name NAME           Call it so (default: as the saved one, if that is gone)\n"
		"      --rm                  Remove it when it has ended\n";
	struct restore_options o = { .name = NULL };
	int c;

	optind = 0;
	while ((c = getopt_long(argc, argv, "di", restore_options, NULL)) != -1) {
		switch (c) {
		case 'd': o.detach = true; break;
		case 'e': o.engine = optarg; break;
		case 'i': o.input = true; break;
		case 'n': o.name = optarg; break;
		case 'r': o.remove = true; break;
		default: return pick_usage("restore", help, c);
		}
	}
	if (argc - optind != 1)
		return complain(EXIT_ROUX, "restore needs one snapshot; 'roux snapshot ls' lists them");
	return restore(&o, argv[optind]);
}
