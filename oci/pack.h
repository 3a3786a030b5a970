/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making images: a layer from tar bytes, and manifest and configuration around
 * layers (OCI image specification 1.1, "Image Manifest", "Image Configuration").
 */
#ifndef OCI_PACK_H
#define OCI_PACK_H

#include "oci/manifest.h"
#include "os/err.h"
#include "store/store.h"

#include <time.h>

struct archive;
struct cJSON;

/* tar bytes --sha256--> gzip --sha256--> store */
struct pack {
	struct store_writer w;
	struct sha256 diff_hash;
	void *z;	/* private */
	uint8_t *out;	/* owned */
	struct err err;	/* why writing pack_archive()'s failed, when not libarchive itself did */
};

struct pack_layer {
	struct descriptor desc;
	char diff_id[STORE_DIGEST_SIZE];	/* of the tar */
};

/* Begins a layer.  0 or a negative errno; pack_finish() or pack_abort() follow on 0. */
int pack_begin(struct store_lease *lease, struct pack *ret_pack, struct err *err);
int pack_write(struct pack *pack, const void *data, size_t len, struct err *err);
/*
 * An archive whose bytes go to @pack, for archive_write_header() and the like.  The
 * struct must stay where it is until archive_write_free(), which comes before
 * pack_finish() or pack_abort().  0 or a negative errno.
 */
int pack_archive(struct pack *pack, struct archive **ret_tar, struct err *err);
/* Turns a failure of that archive @tar into a negative errno with a sentence about @name. */
int pack_archive_error(const struct pack *pack, struct archive *tar, const char *name, struct err *err);
/* Ends the layer and stores it.  0 and ret_layer filled, or a negative errno. */
int pack_finish(struct pack *pack, struct pack_layer *ret_layer, struct err *err);
void pack_abort(struct pack *pack);

/*
 * Stores a configuration for @layers, linux/amd64, made at @created, and the
 * manifest.  @config: the "config" object, borrowed; NULL: an empty one.
 * @comment goes to the history.  0 and @ret_desc of the manifest, or a negative errno.
 */
int pack_image(struct store_lease *lease, const struct pack_layer *layers, size_t count,
	       const struct cJSON *config, time_t created, const char *comment,
	       struct descriptor *ret_desc, struct err *err);

/* Only the manifest, around a configuration that is in the store. */
int pack_manifest(struct store_lease *lease, const struct descriptor *config,
		  const struct pack_layer *layers, size_t count, struct descriptor *ret_desc,
		  struct err *err);

/* Now, or what $SOURCE_DATE_EPOCH says, so that images can be made again alike. */
time_t pack_time(void);

#endif /* OCI_PACK_H */
