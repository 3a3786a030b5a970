/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The default guest kernel: Debian's packaged cloud kernel with its modules,
 * fetched by apt (which verifies it) into roux's cache, without root and
 * without touching the host's own packages or /boot.
 *
 *   <cache>/kernels/debian-cloud-amd64/current         name of the folder in use
 *                                     /<package>_<version>/{vmlinuz,config,modules/}
 *
 * A fetched kernel is used until a refresh is asked for, so that the network is
 * needed once.
 */
#ifndef BUILD_KERNEL_H
#define BUILD_KERNEL_H

#include <limits.h>
#include <stdbool.h>

struct err;

struct kernel_package {
	char id[256];	/* package and version: changes whenever the files do */
	char release[128];	/* as uname -r in the guest */
	char vmlinuz[PATH_MAX];	/* the compressed bzImage */
	char modules[PATH_MAX];	/* folder with the tree of .ko files and modules.builtin */
};

/*
 * Finds the kernel in the cache, or fetches it; with @refresh asks for the
 * newest.  Safe against other processes that do the same.  @cancel: NULL, or
 * fetching ends soon after this gets nonzero.
 *
 * Returns 0 and fills @ret_kernel, -ENOENT when there is no apt, -EHOSTUNREACH
 * when it cannot download, -EBADMSG when the package is not as expected,
 * -EINTR after @cancel, or another negative errno.
 */
int kernel_package_get(bool refresh, const volatile int *cancel, struct kernel_package *ret_kernel,
		       struct err *err);

/*
 * Unpacks kernel and modules of a Debian package file (.deb) into folder @into,
 * which must exist.  Returns 0 and fills @ret_release, or a negative errno.
 */
int kernel_unpack_deb(const char *deb, const char *into, char ret_release[128], struct err *err);

#endif /* BUILD_KERNEL_H */
