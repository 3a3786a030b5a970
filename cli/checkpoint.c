/* SPDX-License-Identifier: Apache-2.0 */
/* roux checkpoint, restore, snapshot: running VMs in files, and back. */
#include "cli/attached.h"
#include "cli/cli.h"
#include "cli/create.h"
#include "cli/image.h"
#include "cli/pick.h"
#include "life/client.h"
#include "life/events.h"
#include "life/monitor.h"
#include "life/snapshots.h"
#include "life/when.h"
#include "os/err.h"

#include <cjson/cJSON.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---------------------------------------------------------------- checkpoint */

static const struct option checkpoint_options[] = { { "stop", no_argument, NULL, 's' },
						    { "help", no_argument, NULL, PICK_HELP },
						    { NULL, 0, NULL, 0 } };

static int take(const struct vms *vms, const struct vm_record *record, const char *to, bool stop)
{
	cJSON *body = cJSON_CreateObject();
	char path[PATH_MAX];
	struct err err = { 0 };
	int status;

	if (snapshot_path(vms, to ? to : record->name, true, path, &err) < 0) {
		cJSON_Delete(body);
		return complain(EXIT_VERB, "%s", err.msg);
	}
	(void)cJSON_AddStringToObject(body, "Path", path);
	(void)cJSON_AddBoolToObject(body, "Stop", stop);
	status = pick_ask(vms, record, "POST", "/v1/checkpoint", body, NULL);
	if (status == 0)
		(void)puts(to ? to : record->name);
	return status;
}

int verb_checkpoint(int argc, char **argv)
{
	static const char help[] =
		"Usage: roux checkpoint [--stop] VM [SNAPSHOT]\n\n"
		"Saves a running VM, with the command that runs in it, and lets it go on.  SNAPSHOT is the path of\n"
		"a file, with a '/', or a name for 'roux snapshot ls' (default: the VM's).  One that is there is\n"
		"replaced when the new one is complete.\n\n"
		"      --stop                End the VM at the moment that was saved\n";
	struct vm_record record;
	struct vms vms;
	bool stop = false;
	int c, status;

	optind = 0;
	while ((c = getopt_long(argc, argv, "", checkpoint_options, NULL)) != -1) {
		if (c != 's')
			return pick_usage("checkpoint", help, c);
		stop = true;
	}
	if (argc - optind < 1 || argc - optind > 2)
		return complain(EXIT_ROUX, "checkpoint needs a VM, and perhaps the name of a snapshot");
	status = pick_open(&vms);
	if (status)
		return status;
	status = pick_running(&vms, argv[optind], &record);
	if (status == 0)
		status = take(&vms, &record, argv[optind + 1], stop);
	record_finish(&record);
	return status;
}

/* ------------------------------------------------------------------- restore */

struct restore_options {
	const char *name;
	bool detach, remove, input;
};

static const struct option restore_options[] = { { "detach", no_argument, NULL, 'd' },
						 { "interactive", no_argument, NULL, 'i' },
						 { "name", required_argument, NULL, 'n' },
						 { "rm", no_argument, NULL, 'r' },
						 { "help", no_argument, NULL, PICK_HELP },
						 { NULL, 0, NULL, 0 } };

/* A VM like the one that was saved, whose name it has if that is free. */
static int make(const struct vms *vms, const struct restore_options *o, struct vm_record *record, struct vm_owned *ret_owned)
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
	if (vms_create(vms, record, ret_owned, &err) < 0)
		return complain(EXIT_ROUX, "%s", err.msg);
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
	how.tty = record.config.tty && !o->detach;
	how.input = how.input && record.config.open_stdin;
	attached_signals();
	status = make(&vms, o, &record, &owned);
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
		"  -i, --interactive         Pass standard input, if the saved VM took it\n"
		"      --name NAME           Call it so (default: as the saved one, if that is gone)\n"
		"      --rm                  Remove it when it has ended\n";
	struct restore_options o = { .name = NULL };
	int c;

	optind = 0;
	while ((c = getopt_long(argc, argv, "di", restore_options, NULL)) != -1) {
		switch (c) {
		case 'd': o.detach = true; break;
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

/* ------------------------------------------------------------------ snapshot */

static const char snapshot_help[] =
	"Usage: roux snapshot COMMAND\n\n"
	"VMs that 'roux checkpoint' has saved.\n\n"
	"  ls [--json]               List them, the newest first\n"
	"  rm SNAPSHOT...            Remove them; VMs restored from them go on\n";

static int list(bool json)
{
	struct snapshot_info *infos;
	struct err err = { 0 };
	struct vms vms;
	char size[16], when[WHEN_SIZE];
	size_t n;
	int status = pick_open(&vms);

	if (status == 0 && snapshots_list(&vms, &infos, &n, &err) < 0)
		status = complain(EXIT_VERB, "%s", err.msg);
	if (status)
		return status;
	if (!json && n)
		(void)printf("%-24s  %-24s  %8s  %s\n", "SNAPSHOT", "VM", "DISK", "CREATED");
	for (size_t i = 0; i < n; i++) {
		when_format(infos[i].created_s * 1000000000ll, when);
		if (json)
			(void)printf("{\"Name\": \"%s\", \"VM\": \"%s\", \"DiskBytes\": %" PRIu64 ", \"Created\": \"%s\"}\n",
				     infos[i].name, infos[i].vm, infos[i].bytes, when);
		else
			(void)printf("%-24s  %-24s  %8s  %s\n", infos[i].name, infos[i].vm, image_size(infos[i].bytes, size), when);
	}
	free(infos);
	return 0;
}

static int rm(char **names, int n)
{
	struct err err = { 0 };
	struct vms vms;
	int status = pick_open(&vms);

	for (int i = 0; i < n && status != EXIT_ROUX; i++) {
		if (snapshot_remove(&vms, names[i], &err) < 0)
			status = complain(EXIT_VERB, "%s", err.msg);
		else
			(void)puts(names[i]);
	}
	return status;
}

int verb_snapshot(int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		if (strcmp(argv[i], "--help") == 0)
			return verb_help(snapshot_help);
	if (argc == 2 && (strcmp(argv[1], "ls") == 0 || strcmp(argv[1], "list") == 0))
		return list(false);
	if (argc == 3 && (strcmp(argv[1], "ls") == 0 || strcmp(argv[1], "list") == 0) && strcmp(argv[2], "--json") == 0)
		return list(true);
	if (argc >= 3 && strcmp(argv[1], "rm") == 0 && argv[2][0] != '-')
		return rm(argv + 2, argc - 2);
	return verb_misused("snapshot", argc < 2 ? "snapshot needs a command" : "there is no such command, or it takes other words");
}
