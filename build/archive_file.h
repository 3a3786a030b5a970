/* SPDX-License-Identifier: Apache-2.0 */
/* Helpers over libarchive that more than one file here needs. */
#ifndef BUILD_ARCHIVE_FILE_H
#define BUILD_ARCHIVE_FILE_H

#include <stddef.h>

struct archive;
struct err;

/* Records libarchive's own message about @path.  Returns -EBADMSG or its errno. */
int archive_err(struct err *err, struct archive *a, const char *path);

/*
 * Reads the file at @path into fresh memory, decompressed if it is .gz, .xz or
 * .zst (told by its content).  Returns 0, -EFBIG above @max bytes, or another
 * negative errno.
 */
int archive_read_file(const char *path, size_t max, char **ret_data, size_t *ret_len,
		      struct err *err);

/*
 * A reader of the tar (compressed or not) that is the member @outer stands at; @outer
 * must outlive it.  NULL with a sentence about @path when it is none.
 */
struct archive *archive_open_inner(struct archive *outer, const char *path, struct err *err);

#endif /* BUILD_ARCHIVE_FILE_H */
