/* SPDX-License-Identifier: Apache-2.0 */
/* Files out of a Debian package (.deb): an ar with a compressed tar in it (deb(5)). */
#ifndef BUILD_DEB_H
#define BUILD_DEB_H

#include <limits.h>
#include <stdbool.h>

struct err;

/*
 * Where regular file @name of the package goes below the folder, in @ret_rel; false
 * when it is not wanted.
 */
typedef bool (*deb_choose_fn)(void *ctx, const char *name, char ret_rel[PATH_MAX]);

/*
 * Writes the files of package @deb that @choose wants below folder @into, which must
 * exist; each is sealed (file_seal()).  Returns 0, -EBADMSG for what is no package or
 * is damaged, or another negative errno.
 */
int deb_unpack(const char *deb, const char *into, deb_choose_fn choose, void *ctx, struct err *err);

#endif /* BUILD_DEB_H */
