/* SPDX-License-Identifier: Apache-2.0 */
/* roux import. */
#include "cli/cli.h"
#include "cli/image.h"

#include "build/debian.h"
#include "oci/bundle.h"

#include <cjson/cJSON.h>
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

static const char help[] =
	"Usage: roux import [OPTIONS] FILE|FOLDER|- NAME[:TAG]\n"
	"       roux import [OPTIONS] debian:SUITE [NAME[:TAG]]\n"
	"\n"
	"Makes an image from a tar (\"-\": standard input) or folder with a root file system, or\n"
	"from the packages of a Debian suite such as bookworm, without root and registry.\n"
	"\n"
	"Options:\n"
	"  -c, --change TEXT     Set part of the configuration, as in a Dockerfile: CMD,\n"
	"                        ENTRYPOINT, ENV, WORKDIR, USER, EXPOSE, VOLUME, LABEL, STOPSIGNAL\n"
	"      --include A,B     More Debian packages\n"
	"      --mirror URL      Debian's mirror (default http://deb.debian.org/debian)\n"
	"  -q, --quiet           Print no progress\n"
	"      --json            Print name and digest as JSON\n"
	"      --help            Print this text\n"
	"\n"
	"A Debian image has its packages unpacked, not configured: 'dpkg --configure -a' in the\n"
	"guest does that.  Its Release file is checked with gpgv where the host has it.\n";

enum { OPT_INCLUDE = 256, OPT_MIRROR, OPT_JSON, OPT_HELP };

/* ---- changes of the configuration ---- */

/* ["a", "b"], or text for a shell. */
static cJSON *command_of(const char *text)
{
	cJSON *list = text[0] == '[' ? cJSON_Parse(text) : cJSON_CreateArray();

	if (text[0] != '[') {
		cJSON_AddItemToArray(list, cJSON_CreateString("/bin/sh"));
		cJSON_AddItemToArray(list, cJSON_CreateString("-c"));
		cJSON_AddItemToArray(list, cJSON_CreateString(text));
	}
	return list;
}

static cJSON *member(cJSON *config, const char *name, bool list)
{
	cJSON *item = cJSON_GetObjectItemCaseSensitive(config, name);

	if (!item)
		item = list ? cJSON_AddArrayToObject(config, name) : cJSON_AddObjectToObject(config, name);
	return item;
}

static bool change(cJSON *config, const char *text)
{
	static const struct { const char *word, *name; } words[] = {
		{ "CMD", "Cmd" }, { "ENTRYPOINT", "Entrypoint" }, { "ENV", "Env" }, { "WORKDIR", "WorkingDir" },
		{ "USER", "User" }, { "EXPOSE", "ExposedPorts" }, { "VOLUME", "Volumes" }, { "LABEL", "Labels" },
		{ "STOPSIGNAL", "StopSignal" } };
	size_t len = strcspn(text, " \t"), i = 0;
	const char *rest = text + len + strspn(text + len, " \t");
	char *eq;

	while (i < sizeof(words) / sizeof(words[0]) && (strlen(words[i].word) != len || strncasecmp(text, words[i].word, len) != 0))
		i++;
	if (i == sizeof(words) / sizeof(words[0]) || !*rest)
		return false;
	switch (i) {
	case 0:
	case 1: {
		cJSON *list = command_of(rest);

		cJSON_DeleteItemFromObjectCaseSensitive(config, words[i].name);
		return cJSON_IsArray(list) && cJSON_AddItemToObject(config, words[i].name, list);
	}
	case 2:
		return strchr(rest, '=') && cJSON_AddItemToArray(member(config, "Env", true), cJSON_CreateString(rest));
	case 5:
	case 6:
		return cJSON_AddObjectToObject(member(config, words[i].name, false), rest) != NULL;
	case 7: {
		char *pair = strdup(rest);
		bool ok = pair && (eq = strchr(pair, '='));

		if (ok) {
			*eq = '\0';
			ok = cJSON_AddStringToObject(member(config, "Labels", false), pair, eq + 1) != NULL;
		}
		free(pair);
		return ok;
	}
	default:
		cJSON_DeleteItemFromObjectCaseSensitive(config, words[i].name);
		return cJSON_AddStringToObject(config, words[i].name, rest) != NULL;
	}
}

/* ---- the verb ---- */

struct command {
	cJSON *config;	/* owned */
	struct debian_options debian;
	bool quiet, json;
	const char *from, *name;
};

static void say(void *ctx, const char *line)
{
	const struct command *c = ctx;

	if (!c->quiet && !c->json)
		(void)fprintf(stderr, "%s\n", line);
}

/* -1: go on; else the exit status. */
static int parse(struct command *c, int argc, char **argv)
{
	static const struct option options[] = {
		{ "change", required_argument, NULL, 'c' }, { "include", required_argument, NULL, OPT_INCLUDE },
		{ "mirror", required_argument, NULL, OPT_MIRROR }, { "quiet", no_argument, NULL, 'q' },
		{ "json", no_argument, NULL, OPT_JSON }, { "help", no_argument, NULL, OPT_HELP }, { NULL, 0, NULL, 0 } };
	int opt;

	optind = 0;
	while ((opt = getopt_long(argc, argv, "c:q", options, NULL)) != -1)
		switch (opt) {
		case 'c':
			if (!change(c->config, optarg))
				return complain(EXIT_ROUX, "-c does not understand '%s'; see 'roux import --help'", optarg);
			break;
		case OPT_INCLUDE: c->debian.include = optarg; break;
		case OPT_MIRROR: c->debian.mirror = optarg; break;
		case 'q': c->quiet = true; break;
		case OPT_JSON: c->json = true; break;
		case OPT_HELP: return verb_help(help);
		default: return verb_misused("import", "that is not one of its options");
		}
	c->from = argv[optind];
	c->name = optind + 1 < argc ? argv[optind + 1] : NULL;
	if (!c->from || optind + 2 < argc)
		return verb_misused("import", "import needs a file or folder, and a name");
	return -1;
}

static int import(struct store *store, struct store_lease *lease, struct command *c, struct store_ref *ret_ref, struct err *err)
{
	struct stat st;

	if (strncmp(c->from, "debian:", 7) == 0 && stat(c->from, &st) < 0) {
		c->debian.suite = c->from + 7;
		c->debian.cancel = &image_stop;
		c->debian.say = say;
		c->debian.ctx = c;
		return debian_import(store, lease, &c->debian, c->name ? c->name : c->from, c->config, ret_ref, err);
	}
	if (!c->name)
		return err_set(err, -EINVAL, "import needs a name for the image: roux import %.60s NAME", c->from);
	return bundle_import(store, lease, c->from, c->name, c->config, ret_ref, err);
}

int verb_import(int argc, char **argv)
{
	struct command c = { .config = cJSON_CreateObject() };
	struct store_lease *lease = NULL;
	struct store *store = NULL;
	struct store_ref ref;
	struct err err = { 0 };
	int r, status = parse(&c, argc, argv);

	if (status < 0 && !image_open_store(&store))
		status = EXIT_FAILED;
	if (status >= 0) {
		cJSON_Delete(c.config);
		return status;
	}
	image_catch_signals();
	r = store_lease_begin(store, &lease, &err);
	if (r == 0)
		r = import(store, lease, &c, &ref, &err);
	if (r == 0 && c.json) {
		(void)printf("{\"name\": ");
		json_string(stdout, ref.name);
		(void)printf(", \"digest\": \"%s\"}\n", ref.digest);
	} else if (r == 0) {
		(void)printf("%s\n", ref.digest);
	}
	store_lease_end(lease);
	store_close(store);
	cJSON_Delete(c.config);
	return r < 0 ? image_failed(&err) : 0;
}
