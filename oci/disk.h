/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files of an image as a disk: parts that are put one after the other.
 *
 *   DIR/images/KEY.erofs   superblock and metadata of all files, merged
 *   DIR/layers/KEY.erofs   a layer, oci/layer_image.h; one part for each, lowest first
 *
 * The first names data in the others by the block they come to lie on, so the
 * whole is one EROFS file system.  Parts are read-only, made once, and the same
 * bytes whoever makes them: machines and images share them.
 *
 * Files are complete or absent at any time, and safe against other processes.
 */
#ifndef OCI_DISK_H
#define OCI_DISK_H

#include "oci/image.h"

#include <limits.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct layer;

/* Where the layers come from. */
struct disk_source {
	/* Opens layer @i, lowest is 0.  0 or a negative errno with a sentence. */
	int (*open)(void *ctx, size_t i, struct layer *layer, uint64_t max, struct err *err);
	/* Ends reading layer @i, and says whether it is what it should be.  As layer_finish(). */
	int (*verify)(void *ctx, size_t i, struct layer *layer, struct err *err);
	void *ctx;
	size_t nlayers;
	const char *const *layer_key;	/* of each its name in DIR/layers: the digest of its tar */
	const char *image_key;	/* name in DIR/images; pins all layers and their order */
};

/*
 * Makes the parts that are not in folder @dir yet and fills @ret_path[0 .. nlayers]
 * with their paths, which the caller frees.  Returns 0, -EBADMSG for damaged or
 * hostile layers, -EFBIG beyond @limits, -ENOSPC, -EINTR, or another -errno.
 */
int disk_make(const char *dir, const struct disk_source *source, const struct oci_limits *limits,
	      char *ret_path[], struct err *err);

/*
 * Calls @fn for each file with data of the image whose first part is at @path: its own path, and where its @size bytes
 * begin on the disk, until it returns nonzero, which is returned.  0, -EBADMSG when the part is damaged, or another -errno.
 */
typedef int (*disk_file_fn)(void *ctx, const char *path, uint64_t at, uint64_t size);
int disk_each_file(const char *path, disk_file_fn fn, void *ctx, struct err *err);

#endif /* OCI_DISK_H */
