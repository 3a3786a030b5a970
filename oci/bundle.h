/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Images between the store and files.
 *
 * What is saved is one tar that is an OCI image layout and, by manifest.json, also
 * what "docker load" and docker-archive readers take.  Manifests, configurations
 * and layers keep their bytes, therefore their digests.
 */
#ifndef OCI_BUNDLE_H
#define OCI_BUNDLE_H

#include "store/store.h"

#include <stddef.h>

struct err;
struct cJSON;

/* Writes the images @refs, which the caller has leased, to @fd.  0 or a negative errno. */
int bundle_save(struct store *store, const struct store_ref *refs, size_t count, int fd,
		 struct err *err);

/* Told of each image loaded. */
typedef void (*bundle_loaded_fn)(void *ctx, const struct store_ref *ref);

/*
 * Reads all images of the layout or docker-archive at @path.  @name: what to call an
 * image that has no full name there, or NULL.  0, -EINVAL when a name is needed,
 * -EBADMSG for damage, or another negative errno.
 */
int bundle_load(struct store *store, struct store_lease *lease, const char *path, const char *name,
		 bundle_loaded_fn loaded, void *ctx, struct err *err);

/*
 * Makes an image of one layer called @name from a tar (compressed or not; "-":
 * standard input) or from a folder with a root file system.  @config: the "config"
 * object of its configuration or NULL, borrowed.  0 and the reference, or a negative errno.
 */
int bundle_import(struct store *store, struct store_lease *lease, const char *path, const char *name,
		   const struct cJSON *config, struct store_ref *ret_ref, struct err *err);

#endif /* OCI_BUNDLE_H */
