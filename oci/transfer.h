/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Images between a registry and the store.
 *
 * Pull: manifest (or index, and in it the manifest for the platform), then the
 * configuration, then layers, several at once; each byte is hashed on its way in
 * and an object appears only when its digest is right.  The name is set last.
 * What a pull that failed has fetched stays for the next one, until a collection.
 */
#ifndef OCI_TRANSFER_H
#define OCI_TRANSFER_H

#include "oci/reference.h"
#include "store/store.h"

#include <stdbool.h>
#include <stdint.h>

enum oci_step {
	OCI_STEP_HAVE,	/* it is there already */
	OCI_STEP_WAIT,	/* somebody else is fetching it, or there is a pause before the next try */
	OCI_STEP_MOVE,	/* bytes are moving */
	OCI_STEP_DONE,
};

/* What became of one object. */
struct oci_progress {
	const char *digest;
	enum oci_step step;
	uint64_t done, total;	/* bytes */
	unsigned index, count;	/* which object of how many */
};

typedef void (*oci_progress_fn)(void *ctx, const struct oci_progress *progress);

struct oci_transfer {
	const char *platform;	/* "os/architecture[/variant]"; NULL: linux/amd64 */
	bool all_platforms;	/* whole indexes */
	bool insecure;	/* see oci/registry.h */
	const volatile int *cancel;	/* NULL, or gives up soon after this gets nonzero */
	oci_progress_fn progress;	/* NULL: nobody listens */
	void *ctx;
};

/*
 * Fetches @ref into the store under its full name.  @lease keeps what comes in
 * until the caller ends it.  0 and the reference set; -ENOENT, -EACCES,
 * -ECONNREFUSED and the like for the registry, -ENOEXEC when it has no image for
 * the platform, -EBADMSG for wrong bytes, -EDQUOT, -ENOSPC, -EINTR.
 */
int oci_pull(struct store *store, struct store_lease *lease, const struct reference *ref,
	     const struct oci_transfer *transfer, struct store_ref *ret_ref, struct err *err);

/*
 * Sends @image of the store to the registry of @ref, blobs that it does not
 * have first.  Of an index with manifests that are not here only the one for
 * this platform goes.  @ret_digest: of what the name means in the registry now.
 */
int oci_push(struct store *store, const struct store_ref *image, const struct reference *ref,
	     const struct oci_transfer *transfer, char ret_digest[STORE_DIGEST_SIZE], struct err *err);

enum oci_policy { OCI_PULL_MISSING, OCI_PULL_ALWAYS, OCI_PULL_NEVER };

/*
 * The image @name for a machine of this platform, pulled as @policy says, complete
 * and leased.  0, or as local_find() and oci_pull().
 */
int oci_obtain(struct store *store, struct store_lease *lease, const char *name, enum oci_policy policy,
	       const struct oci_transfer *transfer, struct store_ref *ret_ref, struct err *err);

#endif /* OCI_TRANSFER_H */
