/* SPDX-License-Identifier: Apache-2.0 */
#include "build/archive_file.h"

#include "os/err.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <stdlib.h>

#define STEP (256u * 1024u) /* bytes read at once */

int archive_err(struct err *err, struct archive *a, const char *path)
{
	const char *why = archive_error_string(a);
	int e = archive_errno(a);

	/* libarchive has errors of its own below zero and EFTYPE, which is not ours. */
	return err_set(err, e == ENOSPC || e == ENOMEM || e == ENOENT || e == EACCES ? -e : -EBADMSG,
		       "%s: %s", path, why ? why : "not an archive");
}

static int read_entry(struct archive *a, const char *path, size_t max, char **data, size_t *len,
		      struct err *err)
{
	size_t cap = 0;

	for (;;) {
		la_ssize_t n;

		if (cap - *len < STEP) {
			char *more = realloc(*data, cap * 2 + STEP + 1);

			if (!more)
				return err_set(err, -ENOMEM, "%s: out of memory", path);
			*data = more;
			cap = cap * 2 + STEP;
		}
		n = archive_read_data(a, *data + *len, cap - *len);
		if (n < 0)
			return archive_err(err, a, path);
		if (n == 0)
			break;
		*len += (size_t)n;
		if (*len > max)
			return err_set(err, -EFBIG, "%s: larger than %zu bytes", path, max);
	}
	(*data)[*len] = '\0';
	return 0;
}

int archive_read_file(const char *path, size_t max, char **ret_data, size_t *ret_len,
		      struct err *err)
{
	struct archive *a = archive_read_new();
	struct archive_entry *entry;
	char *data = NULL;
	size_t len = 0;
	int r;

	if (!a)
		return err_set(err, -ENOMEM, "%s: out of memory", path);
	archive_read_support_filter_gzip(a);
	archive_read_support_filter_xz(a);
	archive_read_support_filter_zstd(a);
	archive_read_support_format_raw(a);
	if (archive_read_open_filename(a, path, STEP) != ARCHIVE_OK ||
	    archive_read_next_header(a, &entry) != ARCHIVE_OK)
		r = archive_err(err, a, path);
	else
		r = read_entry(a, path, max, &data, &len, err);
	archive_read_free(a);
	if (r < 0) {
		free(data);
		return r;
	}
	*ret_data = data;
	*ret_len = len;
	return 0;
}

/* ---- archives in archives ---- */

static la_ssize_t read_member(struct archive *inner, void *ctx, const void **ret_buf)
{
	struct archive *outer = ctx;
	la_int64_t off;
	size_t len;
	int r = archive_read_data_block(outer, ret_buf, &len, &off);

	if (r == ARCHIVE_EOF)
		return 0;
	if (r != ARCHIVE_OK) {
		archive_set_error(inner, archive_errno(outer), "%s", archive_error_string(outer));
		return -1;
	}
	return (la_ssize_t)len;
}

struct archive *archive_open_inner(struct archive *outer, const char *path, struct err *err)
{
	struct archive *a = archive_read_new();

	if (!a) {
		err_set(err, -ENOMEM, "out of memory for %s", path);
		return NULL;
	}
	archive_read_support_filter_gzip(a);
	archive_read_support_filter_xz(a);
	archive_read_support_filter_zstd(a);
	archive_read_support_format_tar(a);
	if (archive_read_open(a, outer, NULL, read_member, NULL) == ARCHIVE_OK)
		return a;
	archive_err(err, a, path);
	archive_read_free(a);
	return NULL;
}
