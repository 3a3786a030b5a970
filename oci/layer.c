/* SPDX-License-Identifier: Apache-2.0 */
#include "oci/layer.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define STEP (256u * 1024u) /* bytes of tar at once */

/* For the decompressor: bytes as they are stored. */
static la_ssize_t read_blob(struct archive *a, void *ctx, const void **ret_data)
{
	struct layer *layer = ctx;
	ssize_t n = source_next(&layer->file, ret_data, &layer->err);

	if (n > 0)
		sha256_add(&layer->blob_hash, *ret_data, (size_t)n);
	if (n < 0)
		archive_set_error(a, EIO, "cannot read");
	return n;
}

/* For the tar reader: decompressed bytes. */
static la_ssize_t read_tar(struct archive *a, void *ctx, const void **ret_data)
{
	struct layer *layer = ctx;
	la_ssize_t n = archive_read_data(layer->raw, layer->buf, STEP);

	if (n < 0 && !layer->err.code)
		err_set(&layer->err, -EBADMSG, "the image is damaged: a layer cannot be decompressed: %s",
			archive_error_string(layer->raw));
	if (n > 0 && layer->diff_hash.bytes + (uint64_t)n > layer->max)
		n = err_set(&layer->err, -EFBIG, "a layer of the image has more than %llu bytes "
			    "uncompressed", (unsigned long long)layer->max);
	if (n < 0) {
		archive_set_error(a, EIO, "cannot read");
		return -1;
	}
	sha256_add(&layer->diff_hash, layer->buf, (size_t)n);
	*ret_data = layer->buf;
	return n;
}

ssize_t layer_next_raw(struct layer *layer, const void **ret_data)
{
	return read_tar(layer->raw, layer, ret_data);
}

int layer_error(const struct layer *layer, struct err *err)
{
	const char *why = archive_error_string(layer->tar ? layer->tar : layer->raw);

	if (layer->err.code)
		return err_set(err, layer->err.code, "%s", layer->err.msg);
	return err_set(err, -EBADMSG, "the image is damaged: a layer is not a tar: %s",
		       why ? why : "unknown form");
}

static int open_raw(struct layer *layer)
{
	struct archive_entry *entry;

	layer->raw = archive_read_new();
	if (!layer->raw)
		return -1;
	archive_read_support_filter_gzip(layer->raw);
	archive_read_support_filter_zstd(layer->raw);
	archive_read_support_format_raw(layer->raw);
	archive_read_support_format_empty(layer->raw);
	return archive_read_open(layer->raw, layer, NULL, read_blob, NULL) == ARCHIVE_OK &&
	       archive_read_next_header(layer->raw, &entry) >= ARCHIVE_OK ? 0 : -1;
}

static int open_tar(struct layer *layer)
{
	layer->tar = archive_read_new();
	if (!layer->tar)
		return -1;
	archive_read_support_format_tar(layer->tar);
	archive_read_support_format_empty(layer->tar);
	return archive_read_open(layer->tar, layer, NULL, read_tar, NULL) == ARCHIVE_OK ? 0 : -1;
}

int layer_open_raw(struct layer *layer, const struct source *source, const char *name, uint64_t max,
		   struct err *err)
{
	int r;

	*layer = (struct layer){ .max = max, .file = { .fd = -1 } };
	sha256_init(&layer->blob_hash);
	sha256_init(&layer->diff_hash);
	r = source_open(source, name, &layer->file, err);
	if (r < 0)
		return r;
	layer->buf = malloc(STEP);
	if (!layer->buf) {
		layer_close(layer);
		return err_set(err, -ENOMEM, "out of memory for a layer");
	}
	if (open_raw(layer) < 0) {
		r = layer->raw ? layer_error(layer, err) : err_set(err, -ENOMEM, "out of memory for a layer");
		layer_close(layer);
		return r;
	}
	return 0;
}

int layer_open(struct layer *layer, const struct source *source, const char *name, uint64_t max,
	       struct err *err)
{
	int r = layer_open_raw(layer, source, name, max, err);

	if (r == 0 && open_tar(layer) < 0) {
		r = layer_error(layer, err);
		layer_close(layer);
	}
	return r;
}

static int compare(struct sha256 *hash, const char *digest, const char *what, struct err *err)
{
	char hex[SHA256_HEX_SIZE];

	sha256_finish_hex(hash, hex);
	if (!digest[0] || strcmp(digest + strlen("sha256:"), hex) == 0)
		return 0;
	return err_set(err, -EBADMSG, "the image is damaged: %s should have digest %.19s... but has "
		       "sha256:%.12s...; get it again", what, digest, hex);
}

int layer_finish(struct layer *layer, const char *blob_digest, const char *diff_digest,
		 struct err *err)
{
	const void *data;
	ssize_t n;
	int r;

	/* After the last entry come zeros, which count; after the tar, perhaps padding. */
	while ((n = read_tar(layer->raw, layer, &data)) > 0)
		;
	while (n == 0 && (n = source_next(&layer->file, &data, &layer->err)) > 0) {
		sha256_add(&layer->blob_hash, data, (size_t)n);
		n = 0;
	}
	if (n < 0)
		return layer_error(layer, err);
	r = compare(&layer->blob_hash, blob_digest, "a layer", err);
	return r < 0 ? r : compare(&layer->diff_hash, diff_digest, "an uncompressed layer", err);
}

void layer_close(struct layer *layer)
{
	if (layer->tar)
		archive_read_free(layer->tar);
	if (layer->raw)
		archive_read_free(layer->raw);
	source_close(&layer->file);
	free(layer->buf);
	layer->tar = layer->raw = NULL;
	layer->buf = NULL;
}

bool layer_xattr_allowed(const char *name)
{
	if (strncmp(name, "user.", 5) == 0)
		return strncmp(name, "user.roux.", 10) != 0 && strncmp(name, "user.overlay.", 13) != 0;
	return strcmp(name, "security.capability") == 0 ||
	       strncmp(name, "system.posix_acl_", 17) == 0;
}
