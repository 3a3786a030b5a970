/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Images in the store: references of kind "images" from full names to manifests
 * or indexes, which lead to configurations and layers.
 */
#ifndef OCI_LOCAL_H
#define OCI_LOCAL_H

#include "oci/manifest.h"
#include "oci/reference.h"
#include "store/store.h"

#define LOCAL_KIND "images"
#define LOCAL_PLATFORM "linux/amd64"
#define LOCAL_JSON_MAX (4u * 1024u * 1024u) /* bytes of one document */

/* What an object leads to; for the collection of the store. */
int local_children(struct store *store, const char *digest, store_add_fn add, void *add_ctx,
		   struct err *err);

/*
 * Finds the image that a person calls @name: a reference, "sha256:..." or at least
 * 4 digits of the digest of its configuration or manifest.  0, -ENOENT with a
 * sentence, -EINVAL when it means several or nothing can be called so, or another
 * negative errno.
 */
int local_find(struct store *store, const char *name, struct store_ref *ret_ref, struct err *err);

/*
 * From @digest, a manifest or an index, to the manifest for @platform: 0,
 * -ENOEXEC when there is none for it, -ENOENT when the object is missing, or
 * another negative errno.
 */
int local_manifest(struct store *store, const char *digest, const char *platform,
		   struct manifest *ret_manifest, struct err *err);

/*
 * The same for whatever platform the store has: LOCAL_PLATFORM, else the first
 * whose manifest is there.  @ret_desc (may be NULL): its digest, size and type.
 */
int local_any_manifest(struct store *store, const char *digest, struct manifest *ret_manifest,
		       struct descriptor *ret_desc, struct err *err);

/*
 * local_find(), and leases the image: it is complete, for one platform at least, and
 * stays so until the lease ends.  -ENOENT also when it is incomplete.
 */
int local_find_leased(struct store *store, struct store_lease *lease, const char *name,
		      struct store_ref *ret_ref, struct err *err);

/* Records @name for the object @desc. */
int local_set(struct store *store, const char *name, const struct descriptor *desc, struct err *err);

/*
 * Whether all that the manifest leads to is there.  0, -ENOENT naming what is
 * missing, or another negative errno.
 */
int local_complete(struct store *store, const struct manifest *manifest, struct err *err);

#endif /* OCI_LOCAL_H */
