/* SPDX-License-Identifier: Apache-2.0 */
/* The roux command: one table of verbs. */
#include "cli/cli.h"

#include "roux/roux.h"

#include <stdio.h>
#include <string.h>

static const struct verb verbs[] = {
	{ "run", "Run a command in a new micro-VM", verb_run },
	{ "pull", "Fetch an image from a registry", verb_pull },
	{ "push", "Send an image to a registry", verb_push },
	{ "images", "List images", verb_images },
	{ "rmi", "Remove images", verb_rmi },
	{ "tag", "Give an image another name", verb_tag },
	{ "inspect", "Print what is known about images", verb_inspect },
	{ "save", "Write images to a tar", verb_save },
	{ "load", "Read images from a tar", verb_load },
	{ "import", "Make an image from a tar, a folder or Debian's packages", verb_import },
	{ "login", "Keep a user and password for a registry", verb_login },
	{ "logout", "Forget them", verb_logout },
	{ "store", "Look after the store of images", verb_store },
	{ "doctor", "Check what this host offers and what to do about problems", verb_doctor },
	{ "version", "Print the version", verb_version },
	{ "vmm", NULL, verb_vmm },
};

#define NVERBS (sizeof(verbs) / sizeof(verbs[0]))

static void usage(FILE *out)
{
	(void)fputs("Usage: roux VERB [OPTIONS] [ARGUMENTS]\n\nRuns programs in micro-VMs.\n\nVerbs:\n", out);
	for (size_t i = 0; i < NVERBS; i++)
		if (verbs[i].summary)
			(void)fprintf(out, "  %-10s %s\n", verbs[i].name, verbs[i].summary);
	(void)fputs("\n'roux VERB --help' tells more about one.\n", out);
}

int verb_version(int argc, char **argv)
{
	(void)argv;
	if (argc > 1)
		return complain(EXIT_ROUX, "version takes no arguments");
	(void)printf("roux %s\n", roux_version());
	return 0;
}

int main(int argc, char **argv)
{
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
	for (size_t i = 0; i < NVERBS; i++)
		if (strcmp(argv[1], verbs[i].name) == 0)
			return verbs[i].run(argc - 1, argv + 1);
	return complain(EXIT_ROUX, "there is no verb '%s'; 'roux --help' lists them", argv[1]);
}
