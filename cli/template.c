/* SPDX-License-Identifier: Apache-2.0 */
/* roux template: machines that were saved when they had booted. */
#include "cli/cli.h"
#include "cli/create.h"
#include "cli/image.h"
#include "cli/options.h"
#include "cli/pick.h"

#include "api/handle.h"
#include "api/template.h"
#include "life/standby.h"
#include "life/when.h"
#include "os/err.h"
#include "os/jail.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define RECORD_FD 3

static const char help[] =
	"Usage: roux template COMMAND\n"
	"\n"
	"The first machine of its kind boots and leaves a template, a copy of itself at the moment when\n"
	"it is ready; later ones go on from there.  A template is live while a machine made of it waits\n"
	"for the next VM, a minute at most (ROUX_STANDBY: other seconds, 0: never).\n"
	"\n"
	"  build [OPTIONS] IMAGE     Make the template of machines that 'roux run OPTIONS IMAGE' starts\n"
	"  ls [--json]               List templates, the one used last first\n"
	"  rm ID... | --all          Remove templates; VMs that came from them go on\n"
	"  stop ID... | --all        End machines that wait\n"
	"\n"
	"Exit status: 1 when something failed.\n";

/* How many machines of template @id, NULL: of any, wait; ends them if @end. */
static unsigned waiting(const char *id, bool end)
{
	struct vms vms;

	return vms_open(&vms, NULL) < 0 ? 0 : standby_count(&vms, id, end);
}

static int ls(bool json)
{
	struct template_info *infos;
	struct err err = { 0 };
	char size[16], when[WHEN_SIZE];
	bool live;
	size_t n;

	if (template_list(&infos, &n, &err) < 0)
		return image_failed(&err);
	if (!json && n)
		(void)printf("%-32s  %8s  %8s  %-4s  %s\n", "TEMPLATE", "MEMORY", "DISK", "LIVE", "USED");
	for (size_t i = 0; i < n; i++) {
		when_format(infos[i].used_s * 1000000000ll, when);
		live = waiting(infos[i].id, false) > 0;
		if (json)
			(void)printf("{\"Id\": \"%s\", \"MemoryBytes\": %" PRIu64 ", \"DiskBytes\": %" PRIu64 ", \"Live\": %s, \"Used\": \"%s\"}\n",
				     infos[i].id, infos[i].memory, infos[i].bytes, live ? "true" : "false", when);
		else
			(void)printf("%s  %5" PRIu64 " MiB  %8s  %-4s  %s\n", infos[i].id, infos[i].memory >> 20,
				     image_size(infos[i].bytes, size), live ? "yes" : "no", when);
	}
	free(infos);
	return 0;
}

static int rm_all(void)
{
	struct template_info *infos;
	struct err err = { 0 };
	size_t n;

	if (template_remove_all(&infos, &n, &err) < 0)
		return image_failed(&err);
	(void)waiting(NULL, true);
	for (size_t i = 0; i < n; i++)
		(void)puts(infos[i].id);
	free(infos);
	return 0;
}

static int rm(char **ids, int n)
{
	struct err err = { 0 };
	int status = 0;

	for (int i = 0; i < n; i++)
		if (template_remove(ids[i], &err) < 0) {
			status = image_failed(&err);
		} else {
			(void)waiting(ids[i], true);
			(void)puts(ids[i]);
		}
	return status;
}

static const char *id_of(const char *path, char ret_id[NAME_MAX + 1])
{
	const char *name = strrchr(path, '/');

	(void)snprintf(ret_id, NAME_MAX + 1, "%.*s", (int)strcspn(name ? name + 1 : path, "."), name ? name + 1 : path);
	return ret_id;
}

/* Boots a machine, which leaves the template, unless there is one. */
static int make(struct run_options *r)
{
	struct roux_machine *machine;
	struct roux_error error = { 0 };
	char path[PATH_MAX], id[NAME_MAX + 1];

	r->machine.vmm = own_path();
	if (roux_machine_create(&r->machine, &machine, &error) < 0)
		return complain(EXIT_VERB, "%s", error.message);
	if (!machine->template) {
		roux_machine_destroy(machine);
		return complain(EXIT_VERB, "machines like this have no template: they may write to a disk, or are on a network of their own");
	}
	(void)snprintf(path, sizeof(path), "%s", machine->template);
	if (!template_is_there(path) && roux_machine_start(machine, &error) < 0) {
		roux_machine_destroy(machine);
		return complain(EXIT_VERB, "%s", error.message);
	}
	roux_machine_destroy(machine);	/* not before the template is written */
	if (!template_is_there(path))
		return complain(EXIT_VERB, "the machine has booted, but its template could not be saved; is there room on the disk of %s?",
				path);
	(void)puts(id_of(path, id));
	return 0;
}

static int build(int argc, char **argv)
{
	static struct run_options r;
	int status = run_options_parse(&r, argc, argv);

	if (status == 0 && r.exec.argv && r.exec.argv[0])
		status = verb_misused("template", "build takes no command: it is for all of them");
	if (status == 0)
		status = fetch_image(&r);
	if (status == 0)
		status = make(&r);
	run_options_finish(&r);
	return status < 0 ? 0 : status;
}

static int stop(char **ids, int n)
{
	for (int i = 0; i < n; i++)
		(void)waiting(strcmp(ids[i], "--all") == 0 ? NULL : ids[i], true);
	return 0;
}

int verb_template(int argc, char **argv)
{
	for (int i = 1; i < argc && (i == 1 || strcmp(argv[1], "build") != 0); i++)
		if (strcmp(argv[i], "--help") == 0)
			return verb_help(help);
	if (argc == 2 && (strcmp(argv[1], "ls") == 0 || strcmp(argv[1], "list") == 0))
		return ls(false);
	if (argc == 3 && (strcmp(argv[1], "ls") == 0 || strcmp(argv[1], "list") == 0) && strcmp(argv[2], "--json") == 0)
		return ls(true);
	if (argc == 3 && strcmp(argv[1], "rm") == 0 && strcmp(argv[2], "--all") == 0)
		return rm_all();
	if (argc >= 3 && strcmp(argv[1], "rm") == 0 && argv[2][0] != '-')
		return rm(argv + 2, argc - 2);
	if (argc >= 2 && strcmp(argv[1], "build") == 0)
		return build(argc - 1, argv + 1);
	if (argc >= 3 && strcmp(argv[1], "stop") == 0)
		return stop(argv + 2, argc - 2);
	return verb_misused("template", argc < 2 ? "template needs a command" : "there is no such command, or it takes other words");
}

/* A machine of a template that waits for its VM: started by roux itself, with a VM's record as descriptor 3. */
int verb_standby(int argc, char **argv)
{
	struct err err = { 0 };

	(void)argv;
	if (argc != 1 || fcntl(RECORD_FD, F_SETFD, FD_CLOEXEC) < 0)
		return complain(EXIT_ROUX, "standby is started by roux itself; use 'roux run'");
	jail_close_from(RECORD_FD + 1);
	return standby_main(RECORD_FD, own_path(), &err) < 0 ? complain(EXIT_ROUX, "%s", err.msg) : 0;
}
