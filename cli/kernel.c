/* SPDX-License-Identifier: Apache-2.0 */
/* roux kernel: guest kernels built for machines, and which kernel is the default. */
#include "cli/cli.h"
#include "cli/image.h"

#include "build/kernel_build.h"
#include "build/kernel_built.h"
#include "build/kernel_config.h"
#include "life/when.h"
#include "os/err.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#define JOBS_MAX 1024

static const char help_head[] =
	"Usage: roux kernel COMMAND\n"
	"\n"
	"Machines run Debian's packaged kernel, or a smaller one that was built here from Debian's\n"
	"linux-source and starts in a fraction of the time.\n"
	"\n"
	"  build [OPTIONS]           Build a kernel, or find it built, and use it\n"
	"  ls [--json]               List kernels that were built, the newest first\n"
	"  rm ID...                  Remove some; machines that run go on\n"
	"  use ID | debian           Use another one for new machines, or Debian's own\n"
	"\n"
	"Options of build:\n"
	"      --features LIST       What it can do, of the names below, separated by commas; 'default'\n"
	"                            and 'all' stand for many, a '-' before a name takes it away\n"
	"      --jobs N              How many compilers at once (default: one a processor)\n"
	"      --refresh             Fetch the newest source first\n"
	"\n"
	"Features, with * those of 'default':\n";

static const char help_tail[] = "\nExit status: 1 when something failed.\n";

static volatile int stop;	/* the signal that ends a build */

static void on_signal(int sig)
{
	stop = sig;
}

static void show_help(void)
{
	(void)fputs(help_head, stdout);
	for (const struct kernel_feature *f = kernel_features; f->name; f++)
		(void)printf("  %c %-12s %s\n", f->on ? '*' : ' ', f->name, f->summary);
	(void)fputs(help_tail, stdout);
}

static void say(void *ctx, const char *line)
{
	(void)fprintf(stderr, "%s\n", line);
}

static int build(int argc, char **argv)
{
	struct kernel_build_options o = { .cancel = &stop, .say = say };
	const struct sigaction catch = { .sa_handler = on_signal };
	char id[KERNEL_ID_SIZE];
	struct err err = { 0 };

	for (int i = 0; i < argc; i++) {
		const char *value = i + 1 < argc ? argv[i + 1] : NULL;
		char *end;

		if (strcmp(argv[i], "--refresh") == 0) {
			o.refresh = true;
			continue;
		}
		if (!value || (strcmp(argv[i], "--features") != 0 && strcmp(argv[i], "--jobs") != 0))
			return verb_misused("kernel", "build knows no such option, or it needs a value");
		i++;
		if (strcmp(argv[i - 1], "--features") == 0) {
			o.features = value;
			continue;
		}
		o.jobs = (unsigned)strtoul(value, &end, 10);
		if (*value < '1' || *value > '9' || *end || o.jobs > JOBS_MAX)
			return verb_misused("kernel", "--jobs needs a number from 1 to 1024");
	}
	(void)sigaction(SIGINT, &catch, NULL);
	(void)sigaction(SIGTERM, &catch, NULL);
	(void)sigaction(SIGHUP, &catch, NULL);
	if (kernel_build(&o, id, &err) < 0)
		return stop ? 128 + stop : image_failed(&err);
	(void)puts(id);
	return 0;
}

static void print_json(const struct kernel_built *k, const char *when)
{
	(void)printf("{\"Id\": \"%s\", \"Current\": %s, \"Bytes\": %" PRIu64 ", \"Built\": \"%s\", \"Release\": ", k->id,
		     k->current ? "true" : "false", k->bytes, when);
	json_string(stdout, k->release);
	(void)fputs(", \"Source\": ", stdout);
	json_string(stdout, k->source);
	(void)fputs(", \"Compiler\": ", stdout);
	json_string(stdout, k->compiler);
	(void)fputs(", \"Features\": ", stdout);
	json_string(stdout, k->features);
	(void)puts("}");
}

static int ls(bool json)
{
	struct kernel_built *all;
	struct err err = { 0 };
	char size[16], when[WHEN_SIZE];
	size_t n;

	if (kernel_built_list(&all, &n, &err) < 0)
		return image_failed(&err);
	if (!json && n)
		(void)printf("  %-17s  %-16s  %8s  %-20s  %s\n", "KERNEL", "RELEASE", "SIZE", "BUILT", "FEATURES");
	for (size_t i = 0; i < n; i++) {
		when_format(all[i].made_s * 1000000000ll, when);
		if (json)
			print_json(&all[i], when);
		else
			(void)printf("%c %-17s  %-16s  %8s  %-20s  %s\n", all[i].current ? '*' : ' ', all[i].id, all[i].release,
				     image_size(all[i].bytes, size), when, all[i].features);
	}
	free(all);
	return 0;
}

static int rm(char **ids, int n)
{
	struct err err = { 0 };
	int status = 0;

	for (int i = 0; i < n; i++)
		if (kernel_built_remove(ids[i], &err) < 0)
			status = image_failed(&err);
		else
			(void)puts(ids[i]);
	return status;
}

static int use(const char *id)
{
	struct err err = { 0 };

	if (kernel_built_use(strcmp(id, "debian") == 0 ? NULL : id, &err) < 0)
		return image_failed(&err);
	(void)puts(id);
	return 0;
}

int verb_kernel(int argc, char **argv)
{
	bool list = argc >= 2 && (strcmp(argv[1], "ls") == 0 || strcmp(argv[1], "list") == 0);

	for (int i = 1; i < argc; i++)
		if (strcmp(argv[i], "--help") == 0) {
			show_help();
			return 0;
		}
	if (argc >= 2 && strcmp(argv[1], "build") == 0)
		return build(argc - 2, argv + 2);
	if (list && argc == 2)
		return ls(false);
	if (list && argc == 3 && strcmp(argv[2], "--json") == 0)
		return ls(true);
	if (argc >= 3 && strcmp(argv[1], "rm") == 0 && argv[2][0] != '-')
		return rm(argv + 2, argc - 2);
	if (argc == 3 && strcmp(argv[1], "use") == 0 && argv[2][0] != '-')
		return use(argv[2]);
	return verb_misused("kernel", argc < 2 ? "kernel needs a command" : "there is no such command, or it takes other words");
}
