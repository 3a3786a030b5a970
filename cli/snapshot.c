/* SPDX-License-Identifier: Apache-2.0 */
/* roux snapshot: looks after the files that 'roux checkpoint' makes. */
#include "cli/cli.h"
#include "cli/image.h"
#include "cli/pick.h"
#include "life/snapshot_diff.h"
#include "life/snapshots.h"
#include "life/when.h"
#include "os/err.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char snapshot_help[] =
	"Usage: roux snapshot COMMAND\n\n"
	"VMs that 'roux checkpoint' has saved.\n\n"
	"  diff [--json] A B         Tell in what two of them differ: memory, devices, machine\n"
	"  ls [--json]               List them, the newest first\n"
	"  rm [--force] SNAPSHOT...  Remove them, also (--force) if others are on top of them; VMs restored\n"
	"                            from them go on\n";

/* A line of it. */
static void list_json(const struct snapshot_info *s, const char *when)
{
	cJSON *json = cJSON_CreateObject();
	char *text;

	(void)cJSON_AddStringToObject(json, "Name", s->name);
	(void)cJSON_AddStringToObject(json, "VM", s->vm);
	(void)cJSON_AddStringToObject(json, "Base", s->base);
	(void)cJSON_AddBoolToObject(json, "Compressed", s->compressed);
	(void)cJSON_AddNumberToObject(json, "DiskBytes", (double)s->bytes);
	(void)cJSON_AddStringToObject(json, "Created", when);
	text = cJSON_PrintUnformatted(json);
	if (text)
		(void)puts(text);
	free(text);
	cJSON_Delete(json);
}

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
		(void)printf("%-24s  %-24s  %-24s  %8s  %s\n", "SNAPSHOT", "VM", "BASE", "DISK", "CREATED");
	for (size_t i = 0; i < n; i++) {
		when_format(infos[i].created_s * 1000000000ll, when);
		if (json)
			list_json(&infos[i], when);
		else
			(void)printf("%-24s  %-24s  %-24s  %8s  %s\n", infos[i].name, infos[i].vm, infos[i].base[0] ? infos[i].base : "-",
				     image_size(infos[i].bytes, size), when);
	}
	free(infos);
	return 0;
}

static int rm(char **names, int n, bool force)
{
	struct err err = { 0 };
	struct vms vms;
	int status = pick_open(&vms);

	for (int i = 0; i < n && status != EXIT_ROUX; i++) {
		if (snapshot_remove(&vms, names[i], force, &err) < 0)
			status = complain(EXIT_VERB, "%s", err.msg);
		else
			(void)puts(names[i]);
	}
	return status;
}

/* ------------------------------------------------------------------------ diff */

static void print_text_diff(const struct snapshot_diff *d, const char *a, const char *b)
{
	char size[5][16];

	(void)printf("Memory at                     zero     equal   changed     only A     only B\n");
	for (size_t i = 0; i < d->nregions; i++) {
		const struct snapshot_region *r = &d->region[i];

		(void)printf("%-24s %9s %9s %9s  %9s  %9s\n", r->name, image_size(r->zero, size[0]), image_size(r->equal, size[1]),
			     image_size(r->changed, size[2]), image_size(r->only_a, size[3]), image_size(r->only_b, size[4]));
	}
	(void)printf("\nState of                  bytes   other\n");
	for (size_t i = 0; i < d->nparts; i++)
		if (d->part[i].differ)
			(void)printf("%-22s %8zu %7zu%s\n", d->part[i].name, d->part[i].bytes, d->part[i].differ,
				     d->part[i].only ? d->part[i].only == 'A' ? "  only in A" : "  only in B" : "");
	(void)printf("\nMachine                A: %s | B: %s\n", a, b);
	for (size_t i = 0; i < d->nkeys; i++)
		(void)printf("%-22s %s | %s\n", d->key[i].name, d->key[i].a, d->key[i].b);
}

static void print_json_diff(const struct snapshot_diff *d, const char *a, const char *b)
{
	cJSON *json = cJSON_CreateObject(), *list, *one;
	char *text;

	(void)cJSON_AddStringToObject(json, "A", a);
	(void)cJSON_AddStringToObject(json, "B", b);
	list = cJSON_AddArrayToObject(json, "Memory");
	for (size_t i = 0; i < d->nregions; i++) {
		const struct snapshot_region *r = &d->region[i];

		cJSON_AddItemToArray(list, one = cJSON_CreateObject());
		(void)cJSON_AddStringToObject(one, "Region", r->name);
		(void)cJSON_AddNumberToObject(one, "ZeroBytes", (double)r->zero);
		(void)cJSON_AddNumberToObject(one, "EqualBytes", (double)r->equal);
		(void)cJSON_AddNumberToObject(one, "ChangedBytes", (double)r->changed);
		(void)cJSON_AddNumberToObject(one, "OnlyABytes", (double)r->only_a);
		(void)cJSON_AddNumberToObject(one, "OnlyBBytes", (double)r->only_b);
	}
	list = cJSON_AddArrayToObject(json, "State");
	for (size_t i = 0; i < d->nparts; i++) {
		cJSON_AddItemToArray(list, one = cJSON_CreateObject());
		(void)cJSON_AddStringToObject(one, "Part", d->part[i].name);
		(void)cJSON_AddNumberToObject(one, "Bytes", (double)d->part[i].bytes);
		(void)cJSON_AddNumberToObject(one, "OtherBytes", (double)d->part[i].differ);
		if (d->part[i].only)
			(void)cJSON_AddStringToObject(one, "OnlyIn", d->part[i].only == 'A' ? "A" : "B");
	}
	list = cJSON_AddArrayToObject(json, "Machine");
	for (size_t i = 0; i < d->nkeys; i++) {
		cJSON_AddItemToArray(list, one = cJSON_CreateObject());
		(void)cJSON_AddStringToObject(one, "Key", d->key[i].name);
		(void)cJSON_AddStringToObject(one, "A", d->key[i].a);
		(void)cJSON_AddStringToObject(one, "B", d->key[i].b);
	}
	text = cJSON_PrintUnformatted(json);
	if (text)
		(void)puts(text);
	free(text);
	cJSON_Delete(json);
}

static int diff(const char *a, const char *b, bool json)
{
	char path_a[PATH_MAX], path_b[PATH_MAX];
	struct snapshot_diff d = { .nregions = 0 };
	struct err err = { 0 };
	struct vms vms;
	int status = pick_open(&vms);

	if (status)
		return status;
	if (snapshot_path(&vms, a, false, path_a, &err) < 0 || snapshot_path(&vms, b, false, path_b, &err) < 0 ||
	    snapshot_diff(path_a, path_b, &d, &err) < 0)
		status = complain(EXIT_VERB, "%s", err.msg);
	else if (json)
		print_json_diff(&d, a, b);
	else
		print_text_diff(&d, a, b);
	snapshot_diff_finish(&d);
	return status;
}

/* Takes option @name, or @brief, out of @argv. */
static bool take_flag(int *argc, char **argv, const char *name, const char *brief)
{
	for (int i = 2; i < *argc; i++) {
		if (strcmp(argv[i], name) != 0 && strcmp(argv[i], brief) != 0)
			continue;
		memmove(argv + i, argv + i + 1, (size_t)(*argc - i) * sizeof(*argv));
		--*argc;
		return true;
	}
	return false;
}

int verb_snapshot(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	bool json, force;

	for (int i = 1; i < argc; i++)
		if (strcmp(argv[i], "--help") == 0)
			return verb_help(snapshot_help);
	json = strcmp(what, "rm") != 0 && take_flag(&argc, argv, "--json", "--json");
	force = strcmp(what, "rm") == 0 && take_flag(&argc, argv, "--force", "-f");
	if (argc > 2 && argv[2][0] == '-')
		return verb_misused("snapshot", "there is no such option");
	if (argc == 2 && (strcmp(what, "ls") == 0 || strcmp(what, "list") == 0))
		return list(json);
	if (argc == 4 && strcmp(what, "diff") == 0)
		return diff(argv[2], argv[3], json);
	if (argc >= 3 && strcmp(what, "rm") == 0)
		return rm(argv + 2, argc - 2, force);
	return verb_misused("snapshot", argc < 2 ? "snapshot needs a command" : "there is no such command, or it takes other words");
}
