/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One layer as a stream of tar entries, hashed on the way:
 *
 *   blob --sha256--> gunzip/unzstd --sha256, count--> tar entries
 *
 * Nothing read is trustworthy until layer_finish() has compared the digests.
 */
#ifndef OCI_LAYER_H
#define OCI_LAYER_H

#include "base/sha256.h"
#include "oci/source.h"
#include "os/err.h"

#include <stdbool.h>
#include <stdint.h>

/* Names that hide what lower layers have: a file, or all that is in a folder. */
#define LAYER_WHITEOUT ".wh."
#define LAYER_OPAQUE_NAME ".wh..wh..opq"

struct layer {
	struct archive *tar;	/* use with archive_read_next_header() and the like */
	/* private to layer.c */
	struct archive *raw;
	struct source_file file;
	struct sha256 blob_hash, diff_hash;
	uint64_t max;	/* bytes of tar */
	struct err err;	/* why a callback failed, when not libarchive itself did */
	void *buf;
};

/*
 * Opens the layer @name, whose tar may have @max bytes.  The struct must stay
 * where it is until layer_close().  0 or a negative errno; -ENOENT without
 * message.
 */
int layer_open(struct layer *layer, const struct source *source, const char *name, uint64_t max,
	       struct err *err);

/*
 * The same for the bytes of the tar itself, in place of layer->tar.  layer_next_raw()
 * gives the next ones, borrowed until its next call: their number, 0 at the end, or
 * negative: layer_error() tells.
 */
int layer_open_raw(struct layer *layer, const struct source *source, const char *name, uint64_t max,
		   struct err *err);
ssize_t layer_next_raw(struct layer *layer, const void **ret_data);

/* Turns a failure of layer->tar into a negative errno with a sentence. */
int layer_error(const struct layer *layer, struct err *err);

/*
 * Reads what is left and compares: @blob_digest ("": not known) of the bytes
 * stored, @diff_digest of the tar.  Returns 0, -EBADMSG when one differs, or
 * another negative errno.
 */
int layer_finish(struct layer *layer, const char *blob_digest, const char *diff_digest,
		 struct err *err);
void layer_close(struct layer *layer);

/* Whether an image may bring attribute @name: not ours, nor what steers overlayfs. */
bool layer_xattr_allowed(const char *name);

#endif /* OCI_LAYER_H */
