/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest kernels that were built here (build/kernel_build.h), and which of them is the
 * default.
 *
 *   <cache>/kernels/built                      ID of the default; absent: Debian's own
 *                  /roux-<digits>/{vmlinux,config,about}
 *
 * A folder has its name only when it is complete, and vmlinux is sealed (os/file.h).
 */
#ifndef BUILD_KERNEL_BUILT_H
#define BUILD_KERNEL_BUILT_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;

#define KERNEL_ID_SIZE 24 /* of an ID, NUL included */
#define KERNEL_ID_PREFIX "roux-"

struct kernel_built {
	char id[KERNEL_ID_SIZE];
	char source[256];	/* package, version, architecture */
	char features[512];	/* separated by commas */
	char compiler[128];
	char release[128];	/* as uname -r in the guest */
	uint64_t bytes;	/* of vmlinux */
	int64_t made_s;	/* seconds since 1970 */
	bool current;	/* the default */
};

/*
 * The kernel that is the default.  Returns 0 and fills the path of its vmlinux, -ENOENT
 * when Debian's own is, or another negative errno.
 */
int kernel_built_current(char ret_path[PATH_MAX], struct err *err);

/*
 * What there is, the newest first; free() it.  0 or a negative errno.
 */
int kernel_built_list(struct kernel_built **ret_kernels, size_t *ret_n, struct err *err);

/* One of them.  0, -ENOENT when there is none, or damaged, or another negative errno. */
int kernel_built_find(const char *id, struct kernel_built *ret_kernel, struct err *err);

/* Makes it the default; NULL: Debian's own.  0, -ENOENT when there is no such kernel, or another negative errno. */
int kernel_built_use(const char *id, struct err *err);

/*
 * Removes it; the default is Debian's own when it was that.  Machines that have started
 * go on.  0, -ENOENT when there is no such kernel, or another negative errno.
 */
int kernel_built_remove(const char *id, struct err *err);

/*
 * Puts folder @dir in its place: with vmlinux, config, and about for @kernel's text.
 * For the holder of the builder's lock.  0 or a negative errno.
 */
int kernel_built_put(const char *dir, const struct kernel_built *kernel, struct err *err);

#endif /* BUILD_KERNEL_BUILT_H */
