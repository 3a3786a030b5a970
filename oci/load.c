/* SPDX-License-Identifier: Apache-2.0 */
/* Images from files into the store. */
#include "oci/bundle.h"

#include "oci/layer.h"
#include "oci/local.h"
#include "oci/pack.h"
#include "oci/source.h"
#include "os/err.h"
#include "os/file.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define BUSY_MS 50 /* between looks at what another process writes */

struct load {
	struct store *store;
	struct store_lease *lease;
	struct source source;
	const char *name;	/* for images without one, or NULL */
	bundle_loaded_fn loaded;
	void *ctx;
};

/* ---- objects ---- */

static int fill(struct load *l, struct store_writer *w, const char *name, struct err *err)
{
	struct source_file file;
	const void *data;
	ssize_t n = 0;
	int r = source_open(&l->source, name, &file, err);

	if (r < 0)
		return r;
	r = store_write_restart(w, err);
	while (r == 0 && (n = source_next(&file, &data, err)) > 0)
		r = store_write(w, data, (size_t)n, err);
	source_close(&file);
	return n < 0 ? (int)n : r;
}

/* Copies the blob of @desc.  -ENOENT without message when the source lacks it. */
static int copy_blob(struct load *l, const struct descriptor *desc, struct err *err)
{
	const struct timespec busy = { .tv_nsec = BUSY_MS * 1000000L };
	char name[MANIFEST_NAME_MAX];
	struct store_writer w;
	uint64_t size;
	int r;

	manifest_blob_name(desc->digest, name);
	r = store_lease_add(l->lease, desc->digest, err);
	if (r == 0 && store_size(l->store, desc->digest, &size, NULL) == 0)
		return 0;
	if (r == 0)
		r = store_lease_reserve(l->lease, desc->size, err);
	if (r < 0)
		return r;
	while ((r = store_write_resume(l->lease, desc->digest, desc->size, &w, err)) == -EWOULDBLOCK)
		(void)nanosleep(&busy, NULL);
	if (r == -EEXIST)
		return 0;
	if (r < 0)
		return r;
	r = fill(l, &w, name, err);
	if (r < 0) {
		store_write_abort(&w);
		return r == -EFBIG ? err_set(err, -EBADMSG, "the image is damaged: %.19s... is larger than it says", desc->digest) : r;
	}
	r = store_write_commit(&w, NULL, err);
	return r == -EBADMSG ? err_prefix(err, r, "the image is damaged") : r;
}

/* ---- OCI layout ---- */

static int missing(struct err *err, const char *digest)
{
	return err_set(err, -EBADMSG, "the image is incomplete: %.19s... is missing; get it again", digest);
}

static int load_manifest(struct load *l, const char *json, size_t len, struct err *err)
{
	struct manifest *m = calloc(1, sizeof(*m));
	int r = m ? manifest_parse(json, len, m, err) : err_set(err, -ENOMEM, "out of memory for the image");

	if (r == 0) {
		r = copy_blob(l, &m->config, err);
		if (r == -ENOENT)
			r = missing(err, m->config.digest);
	}
	for (size_t i = 0; r == 0 && i < m->nlayers; i++) {
		r = copy_blob(l, &m->layer[i], err);
		if (r == -ENOENT)
			r = missing(err, m->layer[i].digest);
	}
	free(m);
	return r;
}

/* A manifest or index and what it leads to.  -ENOENT without message when it is not there. */
static int load_document(struct load *l, const struct descriptor *desc, int depth, struct err *err)
{
	enum manifest_kind kind;
	struct index index;
	char *json;
	size_t len;
	unsigned got = 0;
	int r = depth > 3 ? err_set(err, -EBADMSG, "the image is damaged: indexes within indexes") : 0;

	if (r == 0 && desc->size > LOCAL_JSON_MAX)
		r = err_set(err, -EBADMSG, "the image is damaged: a manifest of more than 4 MiB");
	if (r == 0)
		r = copy_blob(l, desc, err);
	if (r == 0)
		r = store_read(l->store, desc->digest, LOCAL_JSON_MAX, &json, &len, err);
	if (r < 0)
		return r;
	r = manifest_kind(json, len, &kind, NULL, err);
	if (r == 0 && kind == MANIFEST_IS_IMAGE)
		r = load_manifest(l, json, len, err);
	else if (r == 0 && (r = manifest_parse_index(json, len, &index, err)) == 0) {
		/* An index may name images for platforms that were not saved. */
		for (size_t i = 0; r == 0 && i < index.count; i++) {
			r = load_document(l, &index.entry[i].desc, depth + 1, err);
			got += r == 0;
			if (r == -ENOENT)
				r = 0;
		}
		if (r == 0 && !got)
			r = missing(err, index.entry[0].desc.digest);
		manifest_free_index(&index);
	}
	free(json);
	return r;
}

static int name_it(struct load *l, const char *name, const char *tag, const struct descriptor *desc, struct err *err)
{
	char full[STORE_NAME_MAX];
	struct reference ref;
	struct store_ref stored;
	int r;

	/* "v1" alone is a tag of something, not a name. */
	if (!name && tag && strpbrk(tag, ":/"))
		name = tag;
	if (!name)
		name = l->name;
	if (!name)
		return err_set(err, -EINVAL, "the archive has an image without a name%s%.40s: give it one with 'roux load -i FILE NAME'",
			       tag ? ", but tag " : "", tag ? tag : "");
	r = reference_parse(name, &ref, err);
	if (r < 0)
		return r;
	reference_name(&ref, full);
	r = local_set(l->store, full, desc, err);
	if (r == 0)
		r = store_ref_get(l->store, LOCAL_KIND, full, &stored, err);
	if (r == 0 && l->loaded)
		l->loaded(l->ctx, &stored);
	return r;
}

static int load_layout(struct load *l, const char *json, size_t len, struct err *err)
{
	struct index index;
	int r = manifest_parse_index(json, len, &index, err);

	if (r < 0)
		return r;
	for (size_t i = 0; r == 0 && i < index.count; i++) {
		struct index_entry *e = &index.entry[i];

		if (!e->desc.type[0])
			memcpy(e->desc.type, MEDIA_OCI_MANIFEST, sizeof(MEDIA_OCI_MANIFEST));
		r = load_document(l, &e->desc, 0, err);
		if (r == -ENOENT)
			r = missing(err, e->desc.digest);
		if (r == 0)
			r = name_it(l, e->full_name[0] ? e->full_name : NULL, e->name[0] ? e->name : NULL, &e->desc, err);
	}
	manifest_free_index(&index);
	return r;
}

/* ---- docker-archive ---- */

/* A tar, compressed or not, becomes a layer of our own making with the same uncompressed bytes. */
static int repack(struct load *l, const char *name, struct pack_layer *ret_layer, struct err *err)
{
	struct layer layer;
	struct pack pack;
	const void *data;
	ssize_t n = 0;
	int r = layer_open_raw(&layer, &l->source, name, oci_limits_default.bytes, err);

	if (r < 0)
		return r;
	r = pack_begin(l->lease, &pack, err);
	if (r < 0) {
		layer_close(&layer);
		return r;
	}
	while (r == 0 && (n = layer_next_raw(&layer, &data)) > 0)
		r = pack_write(&pack, data, (size_t)n, err);
	if (n < 0)
		r = layer_error(&layer, err);
	layer_close(&layer);
	if (r == 0)
		return pack_finish(&pack, ret_layer, err);
	pack_abort(&pack);
	return r;
}

static int load_archive_image(struct load *l, const struct archive_manifest *m, struct descriptor *ret_desc, struct err *err)
{
	struct pack_layer *layers = calloc(m->nlayers + 1, sizeof(*layers));
	struct config_facts *facts = calloc(1, sizeof(*facts));
	struct descriptor config = { .type = MEDIA_OCI_CONFIG };
	struct oci_config parsed;
	char clean[PATH_MAX], *json;
	size_t len;
	int r = layers && facts ? 0 : err_set(err, -ENOMEM, "out of memory for the image");

	if (r == 0 && !source_clean_name(m->config, clean))
		r = err_set(err, -EBADMSG, "the image is damaged: configuration %.80s", m->config);
	if (r == 0)
		r = source_read(&l->source, clean, LOCAL_JSON_MAX, &json, &len, err);
	if (r == -ENOENT)
		r = err_set(err, -EBADMSG, "the image is incomplete: %.80s is missing; get it again", m->config);
	if (r < 0)
		goto finish;
	r = manifest_parse_config(json, len, &parsed, facts, err);
	if (r == 0) {
		manifest_free_config(&parsed);
		config.size = len;
		r = store_put(l->lease, json, len, config.digest, err);
	}
	free(json);
	if (r == 0 && facts->nlayers != m->nlayers)
		r = err_set(err, -EBADMSG, "the image is damaged: %zu layers, but digests of %zu", m->nlayers, facts->nlayers);
	for (size_t i = 0; r == 0 && i < m->nlayers; i++) {
		r = source_clean_name(m->layer[i], clean) ? repack(l, clean, &layers[i], err) : -ENOENT;
		if (r == -ENOENT)
			r = err_set(err, -EBADMSG, "the image is incomplete: layer %.80s is missing; get it again", m->layer[i]);
		if (r == 0 && strcmp(layers[i].diff_id, facts->diff_id[i]) != 0)
			r = err_set(err, -EBADMSG, "the image is damaged: layer %.80s does not have its digest; get it again", m->layer[i]);
	}
	if (r == 0)
		r = pack_manifest(l->lease, &config, layers, m->nlayers, ret_desc, err);
finish:
	free(layers);
	free(facts);
	return r;
}

static int load_archive(struct load *l, const char *json, size_t len, struct err *err)
{
	struct archive_manifest *m = calloc(1, sizeof(*m));
	cJSON *doc = cJSON_ParseWithLength(json, len);
	const cJSON *image;
	int r = m ? 0 : err_set(err, -ENOMEM, "out of memory for the image");

	if (r == 0 && (!cJSON_IsArray(doc) || !cJSON_GetArraySize(doc)))
		r = err_set(err, -EBADMSG, "the image is damaged: its manifest.json is not a list of images");
	cJSON_ArrayForEach(image, doc) {
		const cJSON *tags = cJSON_GetObjectItemCaseSensitive(image, "RepoTags"), *tag;
		struct descriptor desc;
		bool named = false;
		char *one = r == 0 ? cJSON_PrintUnformatted(image) : NULL, *list = NULL;

		if (r < 0)
			break;
		/* The parser wants a list of one image. */
		if (!one || asprintf(&list, "[%s]", one) < 0)
			r = err_set(err, -ENOMEM, "out of memory for the image");
		if (r == 0)
			r = manifest_parse_archive(list, strlen(list), NULL, m, err);
		free(one);
		free(list);
		if (r == 0)
			r = load_archive_image(l, m, &desc, err);
		cJSON_ArrayForEach(tag, tags)
			if (r == 0 && cJSON_IsString(tag)) {
				r = name_it(l, tag->valuestring, NULL, &desc, err);
				named = true;
			}
		if (r == 0 && !named)
			r = name_it(l, NULL, NULL, &desc, err);
	}
	cJSON_Delete(doc);
	free(m);
	return r;
}

int bundle_load(struct store *store, struct store_lease *lease, const char *path, const char *name,
		 bundle_loaded_fn loaded, void *ctx, struct err *err)
{
	struct load l = { .store = store, .lease = lease, .name = name, .loaded = loaded, .ctx = ctx };
	struct stat st;
	char *json;
	size_t len;
	int r = file_path(l.source.path, err, path, NULL);

	if (r < 0)
		return r;
	if (stat(path, &st) < 0)
		return err_set(err, -errno, "cannot open %.120s: %s", path, strerror(errno));
	l.source.is_tar = !S_ISDIR(st.st_mode);
	r = source_read(&l.source, "index.json", LOCAL_JSON_MAX, &json, &len, err);
	if (r == 0) {
		r = load_layout(&l, json, len, err);
		free(json);
	} else if (r == -ENOENT && (r = source_read(&l.source, "manifest.json", LOCAL_JSON_MAX, &json, &len, err)) == 0) {
		r = load_archive(&l, json, len, err);
		free(json);
	}
	if (r == -ENOENT)
		r = err_set(err, -EBADMSG, "neither index.json nor manifest.json in it: a root file system is read by 'roux import'");
	return r < 0 ? err_prefix(err, r, "%.60s", path) : 0;
}
