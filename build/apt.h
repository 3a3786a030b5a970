/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packages fetched by the host's apt, which verifies them, without root and without
 * touching the host's own packages.  Tried in this order:
 *
 *   1. apt's package lists as the host has them;
 *   2. lists of our own in the cache, after "apt-get update" into it: when the
 *      host never updated, or so long ago that the package is gone.
 */
#ifndef BUILD_APT_H
#define BUILD_APT_H

#include <limits.h>
#include <stdbool.h>

struct err;

struct apt_want {
	const char *package;	/* the one that depends on the versioned package */
	const char *prefix;	/* how the name of that begins */
	const char *what;	/* for a person: "default kernel" */
	const char *otherwise;	/* what a person can do without apt: "name a kernel with --kernel" */
};

/*
 * Downloads the versioned package that @want->package depends on into folder @dir, which
 * has no other; with @refresh the newest there is.  @cancel: NULL, or it ends soon after
 * this gets nonzero.
 *
 * Returns 0 and fills the file's path and @ret_id, its name without ".deb" (package,
 * version, architecture); -ENOENT when there is no apt, -EHOSTUNREACH when it cannot
 * download, -EINTR after @cancel, or another negative errno.
 */
int apt_fetch(const struct apt_want *want, bool refresh, const volatile int *cancel, const char *dir,
	      char ret_path[PATH_MAX], char ret_id[256], struct err *err);

#endif /* BUILD_APT_H */
