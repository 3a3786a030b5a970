/* SPDX-License-Identifier: Apache-2.0 */
/* roux pull and roux push. */
#include "cli/cli.h"
#include "cli/image.h"
#include "cli/progress.h"

#include <errno.h>
#include <getopt.h>
#include <string.h>

static const char pull_help[] =
	"Usage: roux pull [OPTIONS] NAME[:TAG|@DIGEST]\n"
	"\n"
	"Fetches an image from its registry into the store.\n"
	"\n"
	"Options:\n"
	"      --platform OS/ARCH[/VARIANT]\n"
	"                       Image for another platform (default linux/amd64)\n"
	"      --all-platforms  All images of an index, and the index whole\n"
	"      --insecure       Allow plain HTTP and certificates that cannot be checked\n"
	"  -q, --quiet          Print only the full name\n"
	"      --json           Print name, digest and whether it is new as JSON\n"
	"      --help           Print this text\n";

static const char push_help[] =
	"Usage: roux push [OPTIONS] NAME[:TAG]\n"
	"\n"
	"Sends an image to the registry that its name says ('roux tag' gives names).\n"
	"\n"
	"Options:\n"
	"      --insecure       Allow plain HTTP and certificates that cannot be checked\n"
	"  -q, --quiet          Print only the full name\n"
	"      --json           Print name and digest as JSON\n"
	"      --help           Print this text\n";

enum { OPT_PLATFORM = 256, OPT_ALL, OPT_INSECURE, OPT_JSON, OPT_HELP };

static const struct option options[] = {
	{ "platform", required_argument, NULL, OPT_PLATFORM },
	{ "all-platforms", no_argument, NULL, OPT_ALL },
	{ "insecure", no_argument, NULL, OPT_INSECURE },
	{ "quiet", no_argument, NULL, 'q' },
	{ "json", no_argument, NULL, OPT_JSON },
	{ "help", no_argument, NULL, OPT_HELP },
	{ NULL, 0, NULL, 0 },
};

struct command {
	struct oci_transfer transfer;
	bool quiet, json;
	struct reference ref;
	char name[STORE_NAME_MAX];	/* full */
	char familiar[STORE_NAME_MAX];
};

static bool platform_ok(const char *text)
{
	const char *slash = strchr(text, '/');

	return slash && slash != text && slash[1] && strlen(text) < 64;
}

/* -1: go on; else the exit status. */
static int parse(struct command *c, int argc, char **argv, const char *verb, const char *help)
{
	struct err err = { 0 };
	bool pull = strcmp(verb, "pull") == 0;
	int opt;

	*c = (struct command){ .transfer.cancel = &image_stop };
	optind = 0;
	while ((opt = getopt_long(argc, argv, "q", options, NULL)) != -1) {
		if (opt == OPT_HELP)
			return verb_help(help);
		if (opt == 'q')
			c->quiet = true;
		else if (opt == OPT_JSON)
			c->json = true;
		else if (opt == OPT_INSECURE)
			c->transfer.insecure = true;
		else if (opt == OPT_ALL && pull)
			c->transfer.all_platforms = true;
		else if (opt == OPT_PLATFORM && pull && platform_ok(optarg))
			c->transfer.platform = optarg;
		else
			return verb_misused(verb, opt == OPT_PLATFORM && pull ? "--platform needs OS/ARCHITECTURE such as linux/amd64"
									    : "that is not one of its options");
	}
	if (optind + 1 != argc)
		return verb_misused(verb, pull ? "pull needs the name of one image" : "push needs the name of one image");
	if (reference_parse(argv[optind], &c->ref, &err) < 0)
		return image_failed(&err);
	reference_name(&c->ref, c->name);
	reference_familiar(&c->ref, c->familiar);
	return -1;
}

static void print_pulled(const struct command *c, const struct store_ref *ref, bool is_new)
{
	if (c->json) {
		(void)printf("{\"name\": ");
		json_string(stdout, ref->name);
		(void)printf(", \"digest\": \"%s\", \"new\": %s}\n", ref->digest, is_new ? "true" : "false");
		return;
	}
	if (!c->quiet)
		(void)printf("Digest: %s\nStatus: %s for %s\n", ref->digest, is_new ? "Downloaded newer image" : "Image is up to date",
			     c->familiar);
	(void)printf("%s\n", ref->name);
}

int verb_pull(int argc, char **argv)
{
	static struct progress progress;
	struct store_lease *lease = NULL;
	struct store *store = NULL;
	struct store_ref ref, old;
	struct err err = { 0 };
	struct command c;
	bool known;
	int r, status = parse(&c, argc, argv, "pull", pull_help);

	if (status >= 0)
		return status;
	if (!image_open_store(&store))
		return EXIT_FAILED;
	image_catch_signals();
	progress_begin(&progress, "Pull", c.quiet || c.json);
	c.transfer.progress = progress_show;
	c.transfer.ctx = &progress;
	known = store_ref_get(store, LOCAL_KIND, c.name, &old, NULL) == 0;
	if (!c.quiet && !c.json)
		(void)fprintf(stderr, "%s: Pulling from %s\n", c.ref.digest[0] ? c.ref.digest : c.ref.tag, c.ref.path);
	r = store_lease_begin(store, &lease, &err);
	if (r == 0)
		r = oci_pull(store, lease, &c.ref, &c.transfer, &ref, &err);
	if (r == 0)
		print_pulled(&c, &ref, !known || strcmp(old.digest, ref.digest) != 0);
	store_lease_end(lease);
	store_close(store);
	return r < 0 ? image_failed(&err) : 0;
}

int verb_push(int argc, char **argv)
{
	static struct progress progress;
	char digest[STORE_DIGEST_SIZE], repository[STORE_NAME_MAX];
	struct store_lease *lease = NULL;
	struct store *store = NULL;
	struct store_ref image;
	struct err err = { 0 };
	struct command c;
	int r, status = parse(&c, argc, argv, "push", push_help);

	if (status >= 0)
		return status;
	if (!image_open_store(&store))
		return EXIT_FAILED;
	image_catch_signals();
	progress_begin(&progress, "Push", c.quiet || c.json);
	c.transfer.progress = progress_show;
	c.transfer.ctx = &progress;
	reference_repository(&c.ref, repository);
	r = store_lease_begin(store, &lease, &err);
	if (r == 0)
		r = local_find_leased(store, lease, c.name, &image, &err);
	if (r == 0 && !c.quiet && !c.json)
		(void)fprintf(stderr, "The push refers to repository [%s/%s]\n", c.ref.host, c.ref.path);
	if (r == 0)
		r = oci_push(store, &image, &c.ref, &c.transfer, digest, &err);
	if (r == 0 && c.json) {
		(void)printf("{\"name\": ");
		json_string(stdout, c.name);
		(void)printf(", \"digest\": \"%s\"}\n", digest);
	} else if (r == 0) {
		if (!c.quiet)
			(void)printf("%s: digest: %s\n", c.ref.digest[0] ? c.ref.digest : c.ref.tag, digest);
		(void)printf("%s\n", c.name);
		if (!c.quiet && strcmp(digest, image.digest) != 0)
			(void)fprintf(stderr, "roux: the index names images that are not here, so only the one for " LOCAL_PLATFORM
				      " was sent; 'roux pull --all-platforms' gets all\n");
	}
	store_lease_end(lease);
	store_close(store);
	return r < 0 ? image_failed(&err) : 0;
}
