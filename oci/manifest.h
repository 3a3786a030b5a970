/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The JSON documents of an image (OCI image specification: image index, image
 * manifest, image configuration; docker-archive's manifest.json).  Text in,
 * structs out: no I/O.  All text may be hostile.
 */
#ifndef OCI_MANIFEST_H
#define OCI_MANIFEST_H

#include "oci/image.h"
#include "store/store.h"

#include <stdbool.h>
#include <stddef.h>

#define MANIFEST_LAYERS_MAX 256
#define MANIFEST_ENTRIES_MAX 256 /* images in one index */
#define MANIFEST_NAME_MAX 256 /* bytes of names and references, NUL included */
#define MEDIA_TYPE_MAX STORE_TYPE_MAX

#define MEDIA_OCI_INDEX "application/vnd.oci.image.index.v1+json"
#define MEDIA_OCI_MANIFEST "application/vnd.oci.image.manifest.v1+json"
#define MEDIA_OCI_CONFIG "application/vnd.oci.image.config.v1+json"
#define MEDIA_OCI_LAYER "application/vnd.oci.image.layer.v1.tar"
#define MEDIA_DOCKER_LIST "application/vnd.docker.distribution.manifest.list.v2+json"
#define MEDIA_DOCKER_MANIFEST "application/vnd.docker.distribution.manifest.v2+json"

struct descriptor {
	char digest[STORE_DIGEST_SIZE];
	uint64_t size;	/* bytes */
	char type[MEDIA_TYPE_MAX];	/* "" when not given */
};

struct index_entry {
	struct descriptor desc;
	char name[MANIFEST_NAME_MAX];	/* reference or tag, "" when unnamed */
	char full_name[MANIFEST_NAME_MAX];	/* with registry and repository, "" when not given */
	char platform[64];	/* "os/architecture", "" when not given */
	char variant[32];	/* such as "v8", "" when not given */
	bool is_index;
};

struct index {
	struct index_entry *entry;	/* owned; manifest_free_index() */
	size_t count;
};

struct manifest {
	char type[MEDIA_TYPE_MAX];	/* "mediaType" of the document, "" when not given */
	struct descriptor config;
	struct descriptor layer[MANIFEST_LAYERS_MAX];
	size_t nlayers;
};

/* One image of a docker-archive: names of entries in the tar. */
struct archive_manifest {
	char config[MANIFEST_NAME_MAX];
	char layer[MANIFEST_LAYERS_MAX][MANIFEST_NAME_MAX];
	size_t nlayers;
};

/* What the configuration says beyond struct oci_config. */
struct config_facts {
	char platform[64];	/* "os/architecture" */
	char diff_id[MANIFEST_LAYERS_MAX][STORE_DIGEST_SIZE];	/* of the uncompressed layers */
	size_t nlayers;
};

/*
 * What a document is, by its members; @ret_type (may be NULL): its media type, OCI's
 * when it does not say.  0, or -EBADMSG when it is neither or both.
 */
enum manifest_kind { MANIFEST_IS_IMAGE, MANIFEST_IS_INDEX };
int manifest_kind(const char *json, size_t len, enum manifest_kind *ret_kind, char ret_type[MEDIA_TYPE_MAX],
		  struct err *err);

/*
 * The one entry of @index for @platform ("os/architecture[/variant]"), named @name
 * ("": any).  NULL with a sentence in @err and its code in @ret_code.
 */
const struct index_entry *manifest_choose(const struct index *index, const char *name, const char *platform,
					  int *ret_code, struct err *err);

/* Where layouts, and the store, keep a blob: "sha256:abc" is blobs/sha256/abc. */
void manifest_blob_name(const char *digest, char ret_name[MANIFEST_NAME_MAX]);

/* All return 0, or -EBADMSG (-ENOTSUP, -ENOENT, -ENOMEM where it fits better) with a sentence. */
int manifest_parse_index(const char *json, size_t len, struct index *ret_index, struct err *err);
void manifest_free_index(struct index *index);
int manifest_parse(const char *json, size_t len, struct manifest *ret_manifest, struct err *err);
/* @name: which image, NULL when there is only one. */
int manifest_parse_archive(const char *json, size_t len, const char *name,
			   struct archive_manifest *ret_manifest, struct err *err);
int manifest_parse_config(const char *json, size_t len, struct oci_config *ret_config,
			  struct config_facts *ret_facts, struct err *err);

/* An empty configuration: all lists empty.  0 or -ENOMEM. */
int manifest_empty_config(struct oci_config *ret_config, struct err *err);
void manifest_free_config(struct oci_config *config);

#endif /* OCI_MANIFEST_H */
