/* SPDX-License-Identifier: Apache-2.0 */
/* Builds small images for tests, right ones and wrong ones. */
#ifndef TESTS_IMAGE_MAKER_H
#define TESTS_IMAGE_MAKER_H

#include "base/sha256.h"

#include <stddef.h>
#include <stdint.h>

/* One entry of a layer; the list ends with name NULL. */
struct maker_entry {
	const char *name;
	char type;	/* f file, d folder, l symlink, h hard link, c or b device, p fifo */
	const char *data;	/* content, link target, or "major:minor" (NULL: 1:3) */
	unsigned mode, uid, gid;
	const char *xattr;	/* "name=value" or NULL */
};

struct maker_blob {
	char *data;	/* owned */
	size_t len;
	char hex[SHA256_HEX_SIZE];	/* of data */
	char diff_hex[SHA256_HEX_SIZE];	/* of the tar, for layers */
};

enum maker_filter { MAKER_NONE, MAKER_GZIP, MAKER_ZSTD };

/* A tar of @entries.  Fails the test on error. */
struct maker_blob maker_layer(const struct maker_entry *entries, enum maker_filter filter);
void maker_free(struct maker_blob *blob);

/* How an image differs from a right one. */
struct maker_faults {
	const char *arch;	/* NULL: amd64 */
	int wrong_layer_digest, wrong_diff_id, missing_layer, cut_layer, flip_layer;
};

/* Writes an OCI layout folder @path of @layers with @config (JSON of "config", or NULL). */
void maker_layout(const char *path, const struct maker_blob *layers, size_t count,
		  const char *config, const struct maker_faults *faults);

/* Writes a tar of the folder @dir (entries below it) to @path. */
void maker_tar_of(const char *dir, const char *path, enum maker_filter filter);

/* Writes a docker-archive to @path; layer i > 0 may be a link to layer 0's entry. */
void maker_docker_archive(const char *path, const struct maker_blob *layers, size_t count,
			  int linked);

/* Writes a file.  Fails the test on error. */
void maker_write(const char *path, const void *data, size_t len);

#endif /* TESTS_IMAGE_MAKER_H */
