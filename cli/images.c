/* SPDX-License-Identifier: Apache-2.0 */
/* roux images, rmi, tag and inspect: what is in the store by name. */
#include "cli/cli.h"
#include "cli/image.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { OPT_JSON = 256, OPT_HELP, OPT_NO_TRUNC, OPT_DIGESTS };

/* ---- images ---- */

static const char images_help[] =
	"Usage: roux images [OPTIONS] [REPOSITORY[:TAG]]\n"
	"\n"
	"Lists the images in the store.\n"
	"\n"
	"Options:\n"
	"      --digests   Show digests of manifests too\n"
	"      --no-trunc  Show whole identifiers\n"
	"  -q, --quiet     Print only identifiers\n"
	"      --json      Print as JSON\n"
	"      --help      Print this text\n"
	"\n"
	"SIZE is that of the layers as they are stored, compressed.\n";

struct listing {
	bool digests, whole, quiet, json, first;
};

static void print_image(const struct image_facts *f, struct listing *l)
{
	const char *id = f->id[0] ? f->id : f->ref.digest;
	char repository[STORE_NAME_MAX], age[32], size[16], cut[13];

	reference_repository(&f->name, repository);
	if (l->json) {
		(void)printf("%s\n  {\"name\": ", l->first ? "" : ",");
		json_string(stdout, f->ref.name);
		(void)printf(", \"repository\": ");
		json_string(stdout, repository);
		(void)printf(", \"tag\": ");
		json_string(stdout, f->name.tag);
		(void)printf(", \"digest\": \"%s\", \"id\": \"%s\", \"platform\": ", f->ref.digest, f->id);
		json_string(stdout, f->platform);
		(void)printf(", \"created\": ");
		json_string(stdout, f->created);
		(void)printf(", \"size_bytes\": %llu, \"pulled_s\": %lld}", (unsigned long long)f->size, (long long)f->ref.changed);
		l->first = false;
		return;
	}
	(void)snprintf(cut, sizeof(cut), "%.12s", id + strlen("sha256:"));
	if (l->quiet) {
		(void)printf("%s\n", l->whole ? id : cut);
		return;
	}
	image_age(f->created, age, sizeof(age));
	(void)printf("%-30s %-16s ", repository, f->name.tag[0] ? f->name.tag : "<none>");
	if (l->digests)
		(void)printf("%-71s ", f->ref.digest);
	(void)printf("%-12s %-14s %s\n", l->whole ? id : cut, age, image_size(f->size, size));
}

/* Whether the image is what the argument of images asks for. */
static bool wanted(const struct image_facts *f, const char *filter)
{
	struct reference ref;

	if (!filter)
		return true;
	return reference_parse(filter, &ref, NULL) == 0 && strcmp(ref.host, f->name.host) == 0 &&
	       strcmp(ref.path, f->name.path) == 0 &&
	       (!strchr(strrchr(filter, '/') ? strrchr(filter, '/') : filter, ':') || strcmp(ref.tag, f->name.tag) == 0);
}

static int list_images(struct store *store, const char *filter, struct listing *l)
{
	struct image_facts facts;
	struct store_ref *refs;
	struct err err = { 0 };
	size_t n;

	if (store_ref_list(store, LOCAL_KIND, &refs, &n, &err) < 0)
		return image_failed(&err);
	if (l->json)
		(void)printf("[");
	else if (!l->quiet)
		(void)printf(l->digests ? "%-30s %-16s %-71s %-12s %-14s %s\n" : "%-30s %-16s %s%-12s %-14s %s\n", "REPOSITORY", "TAG",
			     l->digests ? "DIGEST" : "", "IMAGE ID", "CREATED", "SIZE");
	for (size_t i = 0; i < n; i++) {
		image_facts(store, &refs[i], &facts);
		if (wanted(&facts, filter))
			print_image(&facts, l);
	}
	if (l->json)
		(void)printf("\n]\n");
	free(refs);
	return 0;
}

int verb_images(int argc, char **argv)
{
	static const struct option options[] = {
		{ "digests", no_argument, NULL, OPT_DIGESTS }, { "no-trunc", no_argument, NULL, OPT_NO_TRUNC },
		{ "quiet", no_argument, NULL, 'q' }, { "json", no_argument, NULL, OPT_JSON },
		{ "help", no_argument, NULL, OPT_HELP }, { NULL, 0, NULL, 0 } };
	struct listing l = { .first = true };
	struct store *store = NULL;
	int opt, status;

	optind = 0;
	while ((opt = getopt_long(argc, argv, "q", options, NULL)) != -1)
		switch (opt) {
		case 'q': l.quiet = true; break;
		case OPT_DIGESTS: l.digests = true; break;
		case OPT_NO_TRUNC: l.whole = true; break;
		case OPT_JSON: l.json = true; break;
		case OPT_HELP: return verb_help(images_help);
		default: return verb_misused("images", "that is not one of its options");
		}
	if (optind + 1 < argc)
		return verb_misused("images", "images takes one name at most");
	if (!image_open_store(&store))
		return EXIT_FAILED;
	status = list_images(store, argv[optind], &l);
	store_close(store);
	return status;
}

/* ---- rmi ---- */

static const char rmi_help[] =
	"Usage: roux rmi [OPTIONS] IMAGE...\n"
	"\n"
	"Removes names of images, and what no other name leads to and no machine uses.\n"
	"\n"
	"Options:\n"
	"      --no-prune  Leave removing objects to 'roux store gc'\n"
	"      --json      Print what was removed as JSON\n"
	"      --help      Print this text\n";

struct removal {
	bool json, first;
};

static void print_removed(struct removal *r, const char *what, const char *name)
{
	if (r->json) {
		(void)printf("%s\n  {\"%s\": ", r->first ? "" : ",", what);
		json_string(stdout, name);
		(void)printf("}");
		r->first = false;
	} else {
		(void)printf("%s: %s\n", what[0] == 'u' ? "Untagged" : "Deleted", name);
	}
}

static void on_removed(void *ctx, const char *digest, uint64_t size)
{
	(void)size;
	print_removed(ctx, "deleted", digest);
}

/* A name goes; an identifier takes all names of its image with it. */
static int untag(struct store *store, const char *name, struct removal *rm, struct err *err)
{
	struct store_ref ref, *refs;
	struct reference parsed;
	char full[STORE_NAME_MAX];
	size_t n;
	int r = local_find(store, name, &ref, err);

	if (r < 0)
		return r;
	if (reference_parse(name, &parsed, NULL) == 0) {
		reference_name(&parsed, full);
		if (strcmp(full, ref.name) == 0) {
			r = store_ref_remove(store, LOCAL_KIND, full, err);
			if (r == 0)
				print_removed(rm, "untagged", full);
			return r == -ENOENT ? 0 : r;	/* another roux was quicker */
		}
	}
	r = store_ref_list(store, LOCAL_KIND, &refs, &n, err);
	if (r < 0)
		return r;
	for (size_t i = 0; r == 0 && i < n; i++) {
		if (strcmp(refs[i].digest, ref.digest) != 0)
			continue;
		r = store_ref_remove(store, LOCAL_KIND, refs[i].name, err);
		if (r == 0)
			print_removed(rm, "untagged", refs[i].name);
		else if (r == -ENOENT)
			r = 0;
	}
	free(refs);
	return r;
}

int verb_rmi(int argc, char **argv)
{
	static const struct option options[] = {
		{ "no-prune", no_argument, NULL, OPT_NO_TRUNC }, { "json", no_argument, NULL, OPT_JSON },
		{ "force", no_argument, NULL, 'f' }, { "help", no_argument, NULL, OPT_HELP }, { NULL, 0, NULL, 0 } };
	struct removal rm = { .first = true };
	struct store_collected gone;
	struct store *store = NULL;
	bool prune = true, any = false;
	int opt, status = 0;

	optind = 0;
	while ((opt = getopt_long(argc, argv, "f", options, NULL)) != -1)
		switch (opt) {
		case 'f': break;	/* docker's; a machine that runs keeps its layers anyway */
		case OPT_NO_TRUNC: prune = false; break;
		case OPT_JSON: rm.json = true; break;
		case OPT_HELP: return verb_help(rmi_help);
		default: return verb_misused("rmi", "that is not one of its options");
		}
	if (optind == argc)
		return verb_misused("rmi", "rmi needs the name of an image");
	if (!image_open_store(&store))
		return EXIT_FAILED;
	if (rm.json)
		(void)printf("[");
	for (; optind < argc; optind++) {
		struct err err = { 0 };

		if (untag(store, argv[optind], &rm, &err) < 0)
			status = image_failed(&err);
		else
			any = true;
	}
	if (prune && any) {
		struct err err = { 0 };

		if (store_collect(store, local_children, false, INT_MAX, on_removed, &rm, &gone, &err) < 0)
			status = image_failed(&err);
	}
	if (rm.json)
		(void)printf("\n]\n");
	store_close(store);
	return status;
}

/* ---- tag ---- */

static const char tag_help[] =
	"Usage: roux tag IMAGE NAME[:TAG]\n"
	"\n"
	"Gives an image another name; a name that was taken means the image from now on.\n";

static int set_tag(struct store *store, const char *from, const char *to, struct err *err)
{
	struct store_lease *lease = NULL;
	struct reference ref;
	struct store_ref image;
	int r = reference_parse(to, &ref, err);

	if (r == 0 && ref.digest[0])
		r = err_set(err, -EINVAL, "a name with a digest cannot be given: write NAME:TAG");
	if (r == 0)
		r = store_lease_begin(store, &lease, err);
	if (r == 0)
		r = local_find_leased(store, lease, from, &image, err);
	if (r == 0) {
		reference_name(&ref, image.name);
		r = store_ref_set(store, LOCAL_KIND, &image, err);
	}
	store_lease_end(lease);
	return r;
}

int verb_tag(int argc, char **argv)
{
	struct store *store = NULL;
	struct err err = { 0 };
	int r;

	if (argc > 1 && strcmp(argv[1], "--help") == 0)
		return verb_help(tag_help);
	if (argc != 3 || argv[1][0] == '-')
		return verb_misused("tag", "tag needs an image and a name");
	if (!image_open_store(&store))
		return EXIT_FAILED;
	r = set_tag(store, argv[1], argv[2], &err);
	store_close(store);
	return r < 0 ? image_failed(&err) : 0;
}

/* ---- inspect ---- */

static cJSON *parse_object(struct store *store, const char *digest)
{
	cJSON *doc = NULL;
	char *json;
	size_t len;

	if (store_read(store, digest, LOCAL_JSON_MAX, &json, &len, NULL) == 0) {
		doc = cJSON_ParseWithLength(json, len);
		free(json);
	}
	return doc;
}

static void move_item(cJSON *to, const char *name, cJSON *from, const char *key)
{
	cJSON *item = cJSON_DetachItemFromObjectCaseSensitive(from, key);

	if (item)
		cJSON_AddItemToObject(to, name, item);
}

static void add_layers(cJSON *to, const struct manifest *m)
{
	cJSON *list = cJSON_AddArrayToObject(to, "Layers");

	for (size_t i = 0; i < m->nlayers; i++) {
		cJSON *layer = cJSON_CreateObject();

		cJSON_AddStringToObject(layer, "MediaType", m->layer[i].type);
		cJSON_AddStringToObject(layer, "Digest", m->layer[i].digest);
		cJSON_AddNumberToObject(layer, "Size", (double)m->layer[i].size);
		cJSON_AddItemToArray(list, layer);
	}
}

/* Other names of the same image. */
static void add_names(struct store *store, cJSON *to, const char *digest)
{
	cJSON *tags = cJSON_AddArrayToObject(to, "RepoTags"), *digests = cJSON_AddArrayToObject(to, "RepoDigests");
	struct store_ref *refs;
	size_t n;

	if (store_ref_list(store, LOCAL_KIND, &refs, &n, NULL) < 0)
		return;
	for (size_t i = 0; i < n; i++) {
		char name[STORE_NAME_MAX], pinned[STORE_NAME_MAX + STORE_DIGEST_SIZE];
		struct reference ref;

		if (strcmp(refs[i].digest, digest) != 0 || reference_parse(refs[i].name, &ref, NULL) < 0)
			continue;
		reference_familiar(&ref, name);
		if (!ref.digest[0])
			cJSON_AddItemToArray(tags, cJSON_CreateString(name));
		reference_repository(&ref, name);
		(void)snprintf(pinned, sizeof(pinned), "%s@%s", name, digest);
		cJSON_AddItemToArray(digests, cJSON_CreateString(pinned));
	}
	free(refs);
}

int image_inspect(struct store *store, const char *name, cJSON *list, struct err *err)
{
	struct manifest *m = calloc(1, sizeof(*m));
	struct image_facts f;
	struct store_ref ref;
	cJSON *to, *config;
	int r = m ? local_find(store, name, &ref, err) : err_set(err, -ENOMEM, "out of memory");

	if (r == 0)
		r = local_any_manifest(store, ref.digest, m, NULL, err);
	if (r < 0) {
		free(m);
		return r;
	}
	image_facts(store, &ref, &f);
	to = cJSON_CreateObject();
	cJSON_AddItemToArray(list, to);
	cJSON_AddStringToObject(to, "Id", m->config.digest);
	add_names(store, to, ref.digest);
	cJSON_AddStringToObject(to, "Digest", ref.digest);
	cJSON_AddStringToObject(to, "MediaType", ref.type);
	config = parse_object(store, m->config.digest);
	move_item(to, "Created", config, "created");
	move_item(to, "Author", config, "author");
	move_item(to, "Architecture", config, "architecture");
	move_item(to, "Variant", config, "variant");
	move_item(to, "Os", config, "os");
	move_item(to, "Config", config, "config");
	cJSON_AddNumberToObject(to, "Size", (double)f.size);
	move_item(to, "RootFS", config, "rootfs");
	move_item(to, "History", config, "history");
	add_layers(to, m);
	cJSON_Delete(config);
	free(m);
	return 0;
}
