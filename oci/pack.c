/* SPDX-License-Identifier: Apache-2.0 */
#include "oci/pack.h"

#include <archive.h>
#include <cjson/cJSON.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#define STEP (256u * 1024u) /* bytes compressed at once */
#define LEVEL 4 /* a third of the time of zlib's default for a few percent of size */
#define GZIP_WINDOW (15 + 16) /* largest window, gzip header without name and time */

static int no_memory(struct err *err)
{
	return err_set(err, -ENOMEM, "out of memory for a layer");
}

int pack_begin(struct store_lease *lease, struct pack *ret_pack, struct err *err)
{
	z_stream *z = calloc(1, sizeof(*z));
	int r;

	*ret_pack = (struct pack){ .w.fd = -1, .z = z, .out = malloc(STEP) };
	sha256_init(&ret_pack->diff_hash);
	if (!z || !ret_pack->out || deflateInit2(z, LEVEL, Z_DEFLATED, GZIP_WINDOW, 9, Z_DEFAULT_STRATEGY) != Z_OK) {
		free(z);
		free(ret_pack->out);
		return no_memory(err);
	}
	r = store_write_begin(lease, UINT64_MAX, &ret_pack->w, err);
	if (r < 0) {
		ret_pack->w.fd = -1;
		pack_abort(ret_pack);
	}
	return r;
}

/* Compresses what is in the stream's input. */
static int squeeze(struct pack *p, int flush, struct err *err)
{
	z_stream *z = p->z;

	do {
		int r;

		z->next_out = p->out;
		z->avail_out = STEP;
		(void)deflate(z, flush);	/* fails only for a stream that was not initialised */
		r = store_write(&p->w, p->out, STEP - z->avail_out, err);
		if (r < 0)
			return r;
	} while (z->avail_out == 0);
	return 0;
}

int pack_write(struct pack *pack, const void *data, size_t len, struct err *err)
{
	z_stream *z = pack->z;
	const uint8_t *at = data;

	sha256_add(&pack->diff_hash, data, len);
	while (len) {
		size_t n = len < STEP ? len : STEP;
		int r;

		z->next_in = (z_const Bytef *)(uintptr_t)at;
		z->avail_in = (uInt)n;
		r = squeeze(pack, Z_NO_FLUSH, err);
		if (r < 0)
			return r;
		at += n;
		len -= n;
	}
	return 0;
}

void pack_abort(struct pack *pack)
{
	store_write_abort(&pack->w);
	(void)deflateEnd(pack->z);
	free(pack->z);
	free(pack->out);
}

int pack_finish(struct pack *pack, struct pack_layer *ret_layer, struct err *err)
{
	z_stream *z = pack->z;
	int r;

	z->avail_in = 0;
	r = squeeze(pack, Z_FINISH, err);
	if (r == 0) {
		ret_layer->desc.size = pack->w.size;
		r = store_write_commit(&pack->w, ret_layer->desc.digest, err);
		memcpy(ret_layer->desc.type, MEDIA_OCI_LAYER "+gzip", sizeof(MEDIA_OCI_LAYER "+gzip"));
		store_digest_finish(&pack->diff_hash, ret_layer->diff_id);
		pack->w.fd = -1;
	}
	pack_abort(pack);
	return r;
}

static la_ssize_t give(struct archive *a, void *ctx, const void *data, size_t len)
{
	struct pack *pack = ctx;

	(void)a;
	return pack_write(pack, data, len, &pack->err) < 0 ? -1 : (la_ssize_t)len;
}

int pack_archive(struct pack *pack, struct archive **ret_tar, struct err *err)
{
	struct archive *tar = archive_write_new();
	int r;

	if (!tar)
		return no_memory(err);
	archive_write_set_format_pax_restricted(tar);
	archive_write_set_bytes_per_block(tar, 0);
	archive_write_set_bytes_in_last_block(tar, 1);
	if (archive_write_open(tar, pack, NULL, give, NULL) == ARCHIVE_OK) {
		*ret_tar = tar;
		return 0;
	}
	r = pack_archive_error(pack, tar, "the layer", err);
	archive_write_free(tar);
	return r;
}

int pack_archive_error(const struct pack *pack, struct archive *tar, const char *name, struct err *err)
{
	const char *why = archive_error_string(tar);

	if (pack->err.code)
		return err_set(err, pack->err.code, "%s", pack->err.msg);
	return err_set(err, -EIO, "cannot pack %.100s: %.100s", name, why ? why : "unknown reason");
}

time_t pack_time(void)
{
	const char *text = getenv("SOURCE_DATE_EPOCH");
	char *end;
	long long t = text ? strtoll(text, &end, 10) : -1;

	return text && end != text && *end == '\0' && t >= 0 ? (time_t)t : time(NULL);
}

/* ---- documents ---- */

/* Stores @doc, which is freed, as compact JSON. */
static int put_json(struct store_lease *lease, cJSON *doc, const char *type, struct descriptor *ret_desc, struct err *err)
{
	char *text = doc ? cJSON_PrintUnformatted(doc) : NULL;
	int r;

	cJSON_Delete(doc);
	if (!text)
		return no_memory(err);
	r = store_put(lease, text, strlen(text), ret_desc->digest, err);
	ret_desc->size = strlen(text);
	(void)snprintf(ret_desc->type, sizeof(ret_desc->type), "%s", type);
	free(text);
	return r;
}

static cJSON *descriptor_json(const struct descriptor *desc)
{
	cJSON *o = cJSON_CreateObject();

	cJSON_AddStringToObject(o, "mediaType", desc->type);
	cJSON_AddStringToObject(o, "digest", desc->digest);
	cJSON_AddNumberToObject(o, "size", (double)desc->size);
	return o;
}

int pack_manifest(struct store_lease *lease, const struct descriptor *config,
		  const struct pack_layer *layers, size_t count, struct descriptor *ret_desc,
		  struct err *err)
{
	cJSON *doc = cJSON_CreateObject(), *list;

	cJSON_AddNumberToObject(doc, "schemaVersion", 2);
	cJSON_AddStringToObject(doc, "mediaType", MEDIA_OCI_MANIFEST);
	cJSON_AddItemToObject(doc, "config", descriptor_json(config));
	list = cJSON_AddArrayToObject(doc, "layers");
	for (size_t i = 0; i < count; i++)
		cJSON_AddItemToArray(list, descriptor_json(&layers[i].desc));
	return put_json(lease, doc, MEDIA_OCI_MANIFEST, ret_desc, err);
}

int pack_image(struct store_lease *lease, const struct pack_layer *layers, size_t count,
	       const struct cJSON *config, time_t created, const char *comment,
	       struct descriptor *ret_desc, struct err *err)
{
	cJSON *doc = cJSON_CreateObject(), *rootfs, *list, *step;
	struct descriptor desc;
	char when[32];
	struct tm tm;
	int r;

	(void)strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&created, &tm));
	cJSON_AddStringToObject(doc, "created", when);
	cJSON_AddStringToObject(doc, "architecture", "amd64");
	cJSON_AddStringToObject(doc, "os", "linux");
	cJSON_AddItemToObject(doc, "config", config ? cJSON_Duplicate(config, true) : cJSON_CreateObject());
	rootfs = cJSON_AddObjectToObject(doc, "rootfs");
	cJSON_AddStringToObject(rootfs, "type", "layers");
	list = cJSON_AddArrayToObject(rootfs, "diff_ids");
	for (size_t i = 0; i < count; i++)
		cJSON_AddItemToArray(list, cJSON_CreateString(layers[i].diff_id));
	list = cJSON_AddArrayToObject(doc, "history");
	step = cJSON_CreateObject();
	cJSON_AddStringToObject(step, "created", when);
	cJSON_AddStringToObject(step, "created_by", "roux import");
	cJSON_AddStringToObject(step, "comment", comment);
	cJSON_AddItemToArray(list, step);
	r = put_json(lease, doc, MEDIA_OCI_CONFIG, &desc, err);
	return r < 0 ? r : pack_manifest(lease, &desc, layers, count, ret_desc, err);
}
