/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An image of Debian's packages, made without root and without running anything of
 * them:
 *
 *   InRelease --gpgv--> SHA256 of Packages.xz --> which packages --> SHA256 of each .deb
 *
 * The essential and required packages, apt, what they depend on and what was asked for
 * go into one layer with owners, modes and links as Debian ships them.  dpkg's database
 * in the image says "unpacked"; maintainer scripts are left to "dpkg --configure -a" in
 * the guest, but for the users and groups of base-passwd, which are copied.
 */
#ifndef BUILD_DEBIAN_H
#define BUILD_DEBIAN_H

#include "store/store.h"

struct err;
struct cJSON;

#define DEBIAN_MIRROR "http://deb.debian.org/debian"

struct debian_options {
	const char *suite;	/* "bookworm" */
	const char *mirror;	/* NULL: DEBIAN_MIRROR */
	const char *include;	/* more packages, separated by commas, or NULL */
	const volatile int *cancel;	/* NULL, or gives up soon after this gets nonzero */
	void (*say)(void *ctx, const char *line);	/* progress for people, or NULL */
	void *ctx;
};

/*
 * Makes the image called @name.  @config as bundle_import().  0 and the reference,
 * -ENOENT for a suite or package that does not exist, -EBADMSG for digests or
 * signatures that are wrong, -EHOSTUNREACH and the like, or another negative errno.
 */
int debian_import(struct store *store, struct store_lease *lease, const struct debian_options *options,
		  const char *name, const struct cJSON *config, struct store_ref *ret_ref, struct err *err);

#endif /* BUILD_DEBIAN_H */
