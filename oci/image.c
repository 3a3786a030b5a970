/* SPDX-License-Identifier: Apache-2.0 */
#include "oci/image.h"

#include "oci/disk.h"
#include "oci/layer.h"
#include "oci/local.h"
#include "oci/manifest.h"
#include "oci/source.h"
#include "os/err.h"
#include "os/file.h"
#include "os/signame.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define INDEX_DEPTH_MAX 4 /* indexes in indexes */

const struct oci_limits oci_limits_default = {
	.bytes = 64ull << 30,
	.entries = 4u << 20,
};

struct image_layer {
	char name[MANIFEST_NAME_MAX];	/* in the source */
	char digest[STORE_DIGEST_SIZE];	/* of the stored bytes; "" when not known */
	char diff_id[STORE_DIGEST_SIZE];	/* of the tar */
};

struct oci_image {
	struct source source;
	char name[MANIFEST_NAME_MAX];	/* which of several; "" when not given */
	struct oci_config config;
	char digest[STORE_DIGEST_SIZE];	/* of the configuration; "": plain folder */
	struct image_layer layer[MANIFEST_LAYERS_MAX];
	size_t nlayers;
	char folder[PATH_MAX];	/* absolute, of a plain folder */
	char **disk;	/* paths of nlayers + 1 parts, owned; NULL until known */
};

/* ---- blobs ---- */

/* Reads a document by digest, and checks it. */
static int read_blob(const struct source *source, const struct descriptor *desc, char **ret_data,
		     size_t *ret_len, struct err *err)
{
	char name[MANIFEST_NAME_MAX], have[STORE_DIGEST_SIZE];
	int r;

	manifest_blob_name(desc->digest, name);
	r = source_read(source, name, LOCAL_JSON_MAX, ret_data, ret_len, err);
	if (r == -ENOENT)
		return err_set(err, -EBADMSG, "the image is incomplete: %s is missing; get it again", name);
	if (r < 0)
		return r;
	store_digest(*ret_data, *ret_len, have);
	if (*ret_len == desc->size && strcmp(have, desc->digest) == 0)
		return 0;
	free(*ret_data);
	return err_set(err, -EBADMSG, "the image is damaged: %s does not have the digest it is named "
		       "after; get it again", name);
}

/* ---- configuration ---- */

/* Takes over the configuration, and the layers' digests from it. */
static int use_config(struct oci_image *image, const char *json, size_t len, struct err *err)
{
	static const char wrong[] = "the image is for %s, but guests here are " LOCAL_PLATFORM
				    ": get it with --platform " LOCAL_PLATFORM;
	struct config_facts *facts = calloc(1, sizeof(*facts));
	int r = facts ? manifest_parse_config(json, len, &image->config, facts, err)
		      : err_set(err, -ENOMEM, "out of memory for the image");

	if (r < 0)
		goto finish;
	store_digest(json, len, image->digest);
	if (strcmp(facts->platform, LOCAL_PLATFORM) != 0)
		r = facts->platform[0] ? err_set(err, -ENOEXEC, wrong, facts->platform)
				       : err_set(err, -EBADMSG, "the image is damaged: its configuration "
						 "names no platform");
	else if (facts->nlayers != image->nlayers)
		r = err_set(err, -EBADMSG, "the image is damaged: %zu layers, but digests of %zu",
			    image->nlayers, facts->nlayers);
	else
		for (size_t i = 0; i < image->nlayers; i++)
			memcpy(image->layer[i].diff_id, facts->diff_id[i], STORE_DIGEST_SIZE);
finish:
	free(facts);
	return r;
}

/* ---- OCI layout ---- */

static int use_manifest(struct oci_image *image, const struct manifest *m, struct err *err)
{
	char *config;
	size_t len;
	int r;

	for (size_t i = 0; i < m->nlayers; i++) {
		memcpy(image->layer[i].digest, m->layer[i].digest, STORE_DIGEST_SIZE);
		manifest_blob_name(m->layer[i].digest, image->layer[i].name);
	}
	image->nlayers = m->nlayers;
	r = read_blob(&image->source, &m->config, &config, &len, err);
	if (r < 0)
		return r;
	r = use_config(image, config, len, err);
	free(config);
	return r;
}

static int read_manifest(struct oci_image *image, const struct descriptor *desc, struct err *err)
{
	struct manifest *m = calloc(1, sizeof(*m));
	char *json;
	size_t len;
	int r = m ? read_blob(&image->source, desc, &json, &len, err)
		  : err_set(err, -ENOMEM, "out of memory for the image");

	if (r == 0) {
		r = manifest_parse(json, len, m, err);
		free(json);
	}
	if (r == 0)
		r = use_manifest(image, m, err);
	free(m);
	return r;
}

/* Walks from one index to the next until it meets a manifest. */
static int use_index(struct oci_image *image, struct err *err)
{
	const char *name = image->name;
	const struct index_entry *entry;
	struct index_entry now;
	struct index index;
	char *json;
	size_t len;
	int r = source_read(&image->source, "index.json", LOCAL_JSON_MAX, &json, &len, err);

	if (r == -ENOENT)
		return err_set(err, -EBADMSG, "the image is incomplete: index.json is missing; get it again");
	for (int depth = 0; r == 0 && depth < INDEX_DEPTH_MAX; depth++) {
		r = manifest_parse_index(json, len, &index, err);
		free(json);
		if (r < 0)
			return r;
		entry = manifest_choose(&index, name, LOCAL_PLATFORM, &r, err);
		if (entry)
			now = *entry;
		manifest_free_index(&index);
		if (!entry)
			return r;
		if (!now.is_index)
			return read_manifest(image, &now.desc, err);
		name = "";	/* only the outermost index has names */
		r = read_blob(&image->source, &now.desc, &json, &len, err);
	}
	if (r == 0) {
		free(json);
		r = err_set(err, -EBADMSG, "the image is damaged: indexes within indexes");
	}
	return r;
}

/* ---- docker-archive ---- */

/* A configuration named after its digest must have it. */
static int check_name(const char *name, const char *json, size_t len, struct err *err)
{
	const char *slash = strrchr(name, '/');
	const char *hex = slash ? slash + 1 : name;
	char have[STORE_DIGEST_SIZE];

	if (strspn(hex, "0123456789abcdef") != SHA256_HEX_SIZE - 1)
		return 0;
	store_digest(json, len, have);
	if (strncmp(have + 7, hex, SHA256_HEX_SIZE - 1) == 0)
		return 0;
	return err_set(err, -EBADMSG, "the image is damaged: %.80s does not have the digest it is named "
		       "after; get it again", name);
}

static int use_archive_manifest(struct oci_image *image, struct archive_manifest *m,
				struct err *err)
{
	char clean[PATH_MAX], *json;
	size_t len;
	int r;

	for (size_t i = 0; i < m->nlayers; i++) {
		if (!source_clean_name(m->layer[i], clean))
			return err_set(err, -EBADMSG, "the image is damaged: layer %.80s", m->layer[i]);
		memcpy(image->layer[i].name, clean, strlen(clean) + 1);
		image->layer[i].digest[0] = '\0';
		image->nlayers = i + 1;
	}
	if (!source_clean_name(m->config, clean))
		return err_set(err, -EBADMSG, "the image is damaged: configuration %.80s", m->config);
	r = source_read(&image->source, clean, LOCAL_JSON_MAX, &json, &len, err);
	if (r == -ENOENT)
		return err_set(err, -EBADMSG, "the image is incomplete: %.80s is missing; get it again",
			       clean);
	if (r < 0)
		return r;
	r = check_name(clean, json, len, err);
	if (r == 0)
		r = use_config(image, json, len, err);
	free(json);
	return r;
}

static int use_archive(struct oci_image *image, const char *json, size_t len, struct err *err)
{
	struct archive_manifest *m = calloc(1, sizeof(*m));
	int r = m ? manifest_parse_archive(json, len, image->name[0] ? image->name : NULL, m, err)
		  : err_set(err, -ENOMEM, "out of memory for the image");

	if (r == 0)
		r = use_archive_manifest(image, m, err);
	free(m);
	return r;
}

/* ---- opening ---- */

/* Splits "path:name" when there is no file of the whole name. */
static int find_path(struct oci_image *image, const char *path, struct stat *ret_st,
		     struct err *err)
{
	const char *colon = strrchr(path, ':'), *slash = strrchr(path, '/');
	int r = file_path(image->source.path, err, path, NULL);

	if (r < 0 || stat(path, ret_st) == 0)
		return r;
	if (errno != ENOENT && errno != ENOTDIR)
		return err_set(err, -errno, "cannot open image %s: %s", path, strerror(errno));
	/* The name may itself be "repository:tag". */
	if (!slash || strchr(slash, ':'))
		colon = strchr(slash ? slash : path, ':');
	if (colon && strlen(colon + 1) < sizeof(image->name)) {
		image->source.path[colon - path] = '\0';
		memcpy(image->name, colon + 1, strlen(colon + 1) + 1);
		if (stat(image->source.path, ret_st) == 0)
			return 0;
	}
	return err_set(err, -ENOENT, "no image at %.120s: give the path of a folder or tar, or the "
		       "name of an image without leading '/' or '.'", path);
}

bool oci_image_is_path(const char *path)
{
	struct oci_image *image = path[0] == '/' || path[0] == '.' ? NULL : calloc(1, sizeof(*image));
	struct stat st;
	bool found = !image || find_path(image, path, &st, NULL) == 0;

	free(image);
	return found;
}

static int use_plain_folder(struct oci_image *image, struct err *err)
{
	if (!realpath(image->source.path, image->folder))
		return err_set(err, -errno, "cannot open %s: %s", image->source.path, strerror(errno));
	return manifest_empty_config(&image->config, err);
}

static int open_any(struct oci_image *image, const struct stat *st, struct err *err)
{
	char *json;
	size_t len;
	int r;

	if (!S_ISDIR(st->st_mode) && !S_ISREG(st->st_mode))
		return err_set(err, -EINVAL, "%s is neither a folder nor a file", image->source.path);
	image->source.is_tar = S_ISREG(st->st_mode);
	r = source_read(&image->source, "oci-layout", LOCAL_JSON_MAX, &json, &len, err);
	if (r == 0) {
		free(json);
		return use_index(image, err);
	}
	if (r != -ENOENT)
		return r;
	if (!image->source.is_tar)
		return use_plain_folder(image, err);
	r = source_read(&image->source, "manifest.json", LOCAL_JSON_MAX, &json, &len, err);
	if (r == -ENOENT)
		return err_set(err, -EBADMSG, "neither oci-layout nor manifest.json in it: not an image; a "
			       "root file system must be unpacked to a folder");
	if (r < 0)
		return r;
	r = use_archive(image, json, len, err);
	free(json);
	return r;
}

int oci_image_open(const char *path, struct oci_image **ret_image, struct err *err)
{
	struct oci_image *image = calloc(1, sizeof(*image));
	struct stat st;
	int r;

	if (!image)
		return err_set(err, -ENOMEM, "out of memory for image %s", path);
	r = find_path(image, path, &st, err);
	if (r == 0) {
		r = open_any(image, &st, err);
		if (r < 0)
			r = err_prefix(err, r, "%.60s", image->source.path);
	}
	if (r < 0) {
		oci_image_close(image);
		return r;
	}
	*ret_image = image;
	return 0;
}

int oci_image_open_stored(struct store *store, const char *digest, const char *name,
			  struct oci_image **ret_image, struct err *err)
{
	struct oci_image *image = calloc(1, sizeof(*image));
	struct manifest *m = calloc(1, sizeof(*m));
	int r = image && m ? 0 : err_set(err, -ENOMEM, "out of memory for image %s", name);

	/* The store keeps its objects where an image layout has its blobs. */
	if (r == 0)
		r = file_path(image->source.path, err, store_path(store), NULL);
	if (r == 0)
		r = local_manifest(store, digest, LOCAL_PLATFORM, m, err);
	if (r == 0)
		r = use_manifest(image, m, err);
	free(m);
	if (r < 0) {
		oci_image_close(image);
		return err_prefix(err, r, "%.60s", name);
	}
	*ret_image = image;
	return 0;
}

void oci_image_close(struct oci_image *image)
{
	if (!image)
		return;
	manifest_free_config(&image->config);
	for (size_t i = 0; image->disk && i <= image->nlayers; i++)
		free(image->disk[i]);
	free(image->disk);
	free(image);
}

const struct oci_config *oci_image_config(const struct oci_image *image)
{
	return &image->config;
}

int oci_stop_signal(const struct oci_config *config)
{
	return config->stop_signal[0] ? signal_by_name(config->stop_signal) : SIGTERM;
}

const char *oci_image_digest(const struct oci_image *image)
{
	return image->digest;
}

/* ---- files ---- */

const char *oci_image_folder(const struct oci_image *image)
{
	return image->digest[0] ? NULL : image->folder;
}

static int open_source(void *ctx, size_t i, struct layer *layer, uint64_t max, struct err *err)
{
	const struct oci_image *image = ctx;
	int r = layer_open(layer, &image->source, image->layer[i].name, max, err);

	if (r == -ENOENT)
		return err_set(err, -EBADMSG, "the image is incomplete: %.100s is missing; get it again",
			       image->layer[i].name);
	return r;
}

static int verify_source(void *ctx, size_t i, struct layer *layer, struct err *err)
{
	const struct oci_image *image = ctx;

	return layer_finish(layer, image->layer[i].digest, image->layer[i].diff_id, err);
}

static int make_disk(struct oci_image *image, char **paths, const struct oci_limits *limits, struct err *err)
{
	const char *key[MANIFEST_LAYERS_MAX];
	const struct disk_source source = { .open = open_source, .verify = verify_source, .ctx = image,
					    .nlayers = image->nlayers, .layer_key = key,
					    .image_key = image->digest + strlen("sha256:") };
	char dir[PATH_MAX];
	int r = file_cache_dir("disks-v1", dir, err);

	for (size_t i = 0; i < image->nlayers; i++)
		key[i] = image->layer[i].diff_id + strlen("sha256:");
	return r < 0 ? r : disk_make(dir, &source, limits, paths, err);
}

int oci_image_disk(struct oci_image *image, const struct oci_limits *limits, char *const **ret_paths,
		   size_t *ret_count, struct err *err)
{
	int r = 0;

	if (!image->digest[0])
		return err_set(err, -EINVAL, "%.60s is a folder, not an image of layers", image->source.path);
	if (!image->disk) {
		char **paths = calloc(image->nlayers + 1, sizeof(*paths));

		r = paths ? make_disk(image, paths, limits ? limits : &oci_limits_default, err)
			  : err_set(err, -ENOMEM, "out of memory for the image");
		if (r < 0) {
			free(paths);
			return err_prefix(err, r, "%.60s", image->source.path);
		}
		image->disk = paths;
	}
	*ret_paths = image->disk;
	*ret_count = image->nlayers + 1;
	return 0;
}
