/* SPDX-License-Identifier: Apache-2.0 */
/* The roux command: one table of verbs. */
#include "cli/cli.h"

#include "roux/roux.h"

#include <malloc.h>
#include <stdio.h>
#include <string.h>

const struct verb verbs[] = {
	{ "run", "Run a command in a new micro-VM", verb_run, VERB_COMMON },
	{ "exec", "Run another command in a running VM", verb_exec, VERB_COMMON },
	{ "ps", "List VMs", verb_ps, VERB_COMMON },
	{ "logs", "Show what a VM's command has written", verb_logs, VERB_COMMON },
	{ "pull", "Fetch an image from a registry", verb_pull, VERB_COMMON },
	{ "images", "List images", verb_images, VERB_COMMON },
	{ "attach", "Attach to a VM's command", verb_attach, VERB_LIFE },
	{ "checkpoint", "Save a running VM with its command", verb_checkpoint, VERB_LIFE },
	{ "cp", "Copy files between a VM and the host", verb_cp, VERB_LIFE },
	{ "create", "Create a VM without starting it", verb_create, VERB_LIFE },
	{ "events", "Show what happens to VMs", verb_events, VERB_LIFE },
	{ "inspect", "Show all that is known of VMs and images", verb_inspect, VERB_LIFE },
	{ "kill", "Send a signal to the commands of VMs", verb_kill, VERB_LIFE },
	{ "pause", "Stop the processors of VMs", verb_pause, VERB_LIFE },
	{ "port", "Show the ports that a VM publishes", verb_port, VERB_LIFE },
	{ "rename", "Give a VM another name", verb_rename, VERB_LIFE },
	{ "restart", "Stop VMs and start them again", verb_restart, VERB_LIFE },
	{ "restore", "Make a VM that goes on from where one was saved", verb_restore, VERB_LIFE },
	{ "rm", "Remove VMs", verb_rm, VERB_LIFE },
	{ "start", "Start VMs that do not run", verb_start, VERB_LIFE },
	{ "stats", "Show what VMs use", verb_stats, VERB_LIFE },
	{ "stop", "Stop VMs", verb_stop, VERB_LIFE },
	{ "top", "Show the processes in a VM", verb_top, VERB_LIFE },
	{ "unpause", "Let paused VMs go on", verb_unpause, VERB_LIFE },
	{ "update", "Change VMs that exist", verb_update, VERB_LIFE },
	{ "wait", "Wait until VMs have ended and print their exit statuses", verb_wait, VERB_LIFE },
	{ "import", "Make an image from a tar, a folder or Debian's packages", verb_import, VERB_IMAGES },
	{ "load", "Read images from a tar", verb_load, VERB_IMAGES },
	{ "login", "Keep a user and password for a registry", verb_login, VERB_IMAGES },
	{ "logout", "Forget them", verb_logout, VERB_IMAGES },
	{ "push", "Send an image to a registry", verb_push, VERB_IMAGES },
	{ "rmi", "Remove images", verb_rmi, VERB_IMAGES },
	{ "save", "Write images to a tar", verb_save, VERB_IMAGES },
	{ "store", "Look after the store of images", verb_store, VERB_IMAGES },
	{ "tag", "Give an image another name", verb_tag, VERB_IMAGES },
	{ "kernel", "Build small kernels for VMs and choose among them", verb_kernel, VERB_OTHER },
	{ "network", "Look after networks that join VMs", verb_network, VERB_OTHER },
	{ "snapshot", "Look after VMs that were saved", verb_snapshot, VERB_OTHER },
	{ "template", "Look after machines saved when they had booted", verb_template, VERB_OTHER },
	{ "doctor", "Check what this host offers and what to do about problems", verb_doctor, VERB_OTHER },
	{ "completion", "Print a script that completes commands in a shell", verb_completion, VERB_OTHER },
	{ "version", "Print the version", verb_version, VERB_OTHER },
	{ "complete", NULL, verb_complete, VERB_OTHER },
	{ "standby", NULL, verb_standby, VERB_OTHER },
	{ "vmm", NULL, verb_vmm, VERB_OTHER },
	{ "switch", NULL, verb_switch, VERB_OTHER },
	{ NULL, NULL, NULL, VERB_OTHER },
};

static void usage(FILE *out)
{
	static const char *const titles[] = { [VERB_COMMON] = "Common commands", [VERB_LIFE] = "Commands for VMs",
					      [VERB_IMAGES] = "Commands for images",
					      [VERB_OTHER] = "Other commands" };

	(void)fputs("Usage: roux COMMAND [OPTIONS] [ARGUMENTS]\n\nRuns programs in micro-VMs.\n", out);
	for (unsigned group = 0; group < sizeof(titles) / sizeof(titles[0]); group++) {
		(void)fprintf(out, "\n%s:\n", titles[group]);
		for (size_t i = 0; verbs[i].name; i++)
			if (verbs[i].summary && verbs[i].group == group)
				(void)fprintf(out, "  %-11s %s\n", verbs[i].name, verbs[i].summary);
	}
	(void)fputs("\n'roux COMMAND --help' tells more about one.\n", out);
}

int verb_version(int argc, char **argv)
{
	static const char help[] = "Usage: roux version [--json]\n\nPrints the version.\n\n      --json                Print it as JSON\n";

	if (argc == 2 && strcmp(argv[1], "--help") == 0)
		(void)fputs(help, stdout);
	else if (argc == 2 && strcmp(argv[1], "--json") == 0)
		(void)printf("{\"Version\": \"%s\"}\n", roux_version());
	else if (argc == 1)
		(void)printf("roux %s\n", roux_version());
	else
		return complain(EXIT_ROUX, "version takes no arguments but --json");
	return 0;
}

int main(int argc, char **argv)
{
	(void)mallopt(M_ARENA_MAX, 1);	/* threads are few and short; an arena of each would stay with every monitor */
	if (argc < 2) {
		usage(stderr);
		return EXIT_ROUX;
	}
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
		usage(stdout);
		return 0;
	}
	if (strcmp(argv[1], "--version") == 0)
		return verb_version(1, argv);
	for (size_t i = 0; verbs[i].name; i++)
		if (strcmp(argv[1], verbs[i].name) == 0)
			return verbs[i].run(argc - 1, argv + 1);
	return complain(EXIT_ROUX, "there is no verb '%s'; 'roux --help' lists them", argv[1]);
}
