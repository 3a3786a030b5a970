/* SPDX-License-Identifier: Apache-2.0 */
/* roux store: the objects that images are made of. */
#include "cli/cli.h"
#include "cli/image.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define PARTIAL_AGE_S (7u * 86400u) /* after which gc takes an unfinished download for given up */

static const char help[] =
	"Usage: roux store COMMAND [OPTIONS]\n"
	"\n"
	"  df [--json]               Space in use, and what 'gc' would free\n"
	"  ls [--json]               All objects\n"
	"  verify [--remove] [--json]\n"
	"                            Read everything again and compare with its digest; --remove\n"
	"                            removes what is damaged, so that a pull fetches it again\n"
	"  gc [--dry-run] [--all] [--json]\n"
	"                            Remove what no image leads to and no machine or pull uses;\n"
	"                            --all: unfinished downloads of the last week as well\n"
	"  quota [SIZE|none]         Show or set the limit of the store's size\n"
	"  path                      Print where the store is (ROUX_STORE changes it)\n"
	"\n"
	"Exit status: 1 when verify finds damage or when something failed.\n";

struct flags {
	bool json, remove, dry_run, all;
	const char *argument;
};

static int df(struct store *store, const struct flags *f)
{
	struct store_usage u;
	struct err err = { 0 };
	char a[16], b[16];

	if (store_usage(store, local_children, &u, &err) < 0)
		return image_failed(&err);
	if (f->json) {
		(void)printf("{\"path\": ");
		json_string(stdout, store_path(store));
		(void)printf(", \"objects\": %" PRIu64 ", \"bytes\": %" PRIu64 ", \"reclaimable_objects\": %" PRIu64
			     ", \"reclaimable_bytes\": %" PRIu64 ", \"partial\": %" PRIu64 ", \"partial_bytes\": %" PRIu64
			     ", \"quota_bytes\": %" PRIu64 "}\n", u.objects, u.bytes, u.objects - u.live_objects,
			     u.bytes - u.live_bytes, u.partial, u.partial_bytes, u.quota);
		return 0;
	}
	(void)printf("%-22s %8s %10s %12s\n", "TYPE", "TOTAL", "SIZE", "RECLAIMABLE");
	(void)printf("%-22s %8" PRIu64 " %10s %12s\n", "Objects", u.objects, image_size(u.bytes, a),
		     image_size(u.bytes - u.live_bytes, b));
	(void)printf("%-22s %8" PRIu64 " %10s %12s\n", "Unfinished downloads", u.partial, image_size(u.partial_bytes, a), a);
	(void)printf("%-22s %8s %10s\n", "Quota", "", u.quota ? image_size(u.quota, a) : "none");
	return 0;
}

static int ls(struct store *store, const struct flags *f)
{
	struct store_object *list;
	struct err err = { 0 };
	size_t n;

	if (store_list(store, local_children, &list, &n, &err) < 0)
		return image_failed(&err);
	if (f->json)
		(void)printf("[");
	for (size_t i = 0; i < n; i++)
		(void)printf(f->json ? "%s\n  {\"digest\": \"%s\", \"size_bytes\": %" PRIu64 ", \"used\": %s}" : "%s%s %12" PRIu64 " %s\n",
			     f->json && i ? "," : "", list[i].digest, list[i].size,
			     f->json ? (list[i].live ? "true" : "false") : (list[i].live ? "used" : "unused"));
	if (f->json)
		(void)printf("\n]\n");
	free(list);
	return 0;
}

/* Images that lack something, which is no damage of the store but needs a pull. */
static unsigned count_incomplete(struct store *store, bool print)
{
	struct manifest *m = malloc(sizeof(*m));
	struct store_ref *refs;
	unsigned bad = 0;
	size_t n;

	if (!m || store_ref_list(store, LOCAL_KIND, &refs, &n, NULL) < 0) {
		free(m);
		return 0;
	}
	for (size_t i = 0; i < n; i++) {
		struct err err = { 0 };
		int r = local_any_manifest(store, refs[i].digest, m, NULL, &err);

		if (r == 0)
			r = local_complete(store, m, &err);
		bad += r < 0;
		if (r < 0 && print)
			(void)complain(0, "%s: %s", refs[i].name, err.msg);
	}
	free(refs);
	free(m);
	return bad;
}

static int verify(struct store *store, const struct flags *f)
{
	struct store_object *list;
	struct err err = { 0 };
	uint64_t bytes = 0, damaged = 0;
	unsigned incomplete;
	char size[16];
	size_t n;
	/* Damage must not keep damage from being found: nothing is followed here. */
	int r = store_list(store, NULL, &list, &n, &err);

	if (r < 0)
		return image_failed(&err);
	for (size_t i = 0; i < n; i++) {
		struct err one = { 0 };

		r = store_verify(store, list[i].digest, f->remove, &one);
		if (r == -ENOENT)	/* collected meanwhile */
			continue;
		bytes += list[i].size;
		damaged += r < 0;
		if (r < 0)
			(void)complain(0, "%s: %s%s", list[i].digest, one.msg, f->remove ? " (removed)" : "");
	}
	free(list);
	incomplete = count_incomplete(store, !f->json);
	if (f->json)
		(void)printf("{\"objects\": %zu, \"bytes\": %" PRIu64 ", \"damaged\": %" PRIu64 ", \"incomplete_images\": %u}\n", n,
			     bytes, damaged, incomplete);
	else
		(void)printf("%zu objects, %s: %" PRIu64 " damaged; %u images incomplete\n", n, image_size(bytes, size), damaged,
			     incomplete);
	return damaged || incomplete ? EXIT_FAILED : 0;
}

static void print_digest(void *ctx, const char *digest, uint64_t size)
{
	(void)ctx;
	(void)size;
	(void)printf("%s\n", digest);
}

static int gc(struct store *store, const struct flags *f)
{
	struct store_collected c;
	struct err err = { 0 };
	char a[16];

	if (store_collect(store, local_children, f->dry_run, f->all ? 0 : PARTIAL_AGE_S, f->json ? NULL : print_digest, NULL,
			  &c, &err) < 0)
		return image_failed(&err);
	if (f->json)
		(void)printf("{\"objects\": %" PRIu64 ", \"bytes\": %" PRIu64 ", \"partial\": %" PRIu64 ", \"partial_bytes\": %" PRIu64
			     "}\n", c.objects, c.bytes, c.partial, c.partial_bytes);
	else
		(void)printf("Total reclaimed space: %s\n", image_size(c.bytes + c.partial_bytes, a));
	return 0;
}

static int quota(struct store *store, const struct flags *f)
{
	struct err err = { 0 };
	uint64_t bytes = 0;
	char size[16];
	int r;

	if (!f->argument) {
		if (store_quota_get(store, &bytes, &err) < 0)
			return image_failed(&err);
		if (f->json)
			(void)printf("{\"quota_bytes\": %" PRIu64 "}\n", bytes);
		else
			(void)printf("%s\n", bytes ? image_size(bytes, size) : "none");
		return 0;
	}
	if (strcmp(f->argument, "none") != 0 && !parse_size(f->argument, &bytes))
		return complain(EXIT_ROUX, "quota needs a size such as 20G, or none, not '%s'", f->argument);
	r = store_quota_set(store, bytes, &err);
	return r < 0 ? image_failed(&err) : 0;
}

static int path(struct store *store, const struct flags *f)
{
	if (f->json) {
		(void)printf("{\"path\": ");
		json_string(stdout, store_path(store));
		(void)printf("}\n");
	} else {
		(void)printf("%s\n", store_path(store));
	}
	return 0;
}

int verb_store(int argc, char **argv)
{
	static const struct { const char *name; int (*run)(struct store *store, const struct flags *f); bool argument; } commands[] = {
		{ "df", df, false }, { "ls", ls, false }, { "verify", verify, false }, { "gc", gc, false },
		{ "quota", quota, true }, { "path", path, false } };
	struct store *store = NULL;
	struct flags f = { .json = false };
	int status;

	for (int i = 1; i < argc; i++)
		if (strcmp(argv[i], "--help") == 0)
			return verb_help(help);
	for (size_t c = 0; argc > 1 && c < sizeof(commands) / sizeof(commands[0]); c++) {
		if (strcmp(argv[1], commands[c].name) != 0)
			continue;
		for (int i = 2; i < argc; i++) {
			if (strcmp(argv[i], "--json") == 0)
				f.json = true;
			else if (strcmp(argv[i], "--remove") == 0 && commands[c].run == verify)
				f.remove = true;
			else if (strcmp(argv[i], "--dry-run") == 0 && commands[c].run == gc)
				f.dry_run = true;
			else if (strcmp(argv[i], "--all") == 0 && commands[c].run == gc)
				f.all = true;
			else if (argv[i][0] != '-' && commands[c].argument && !f.argument)
				f.argument = argv[i];
			else
				return verb_misused("store", "that command does not take this");
		}
		if (!image_open_store(&store))
			return EXIT_FAILED;
		status = commands[c].run(store, &f);
		store_close(store);
		return status;
	}
	return verb_misused("store", argc > 1 ? "there is no such command" : "store needs a command");
}
