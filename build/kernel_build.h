/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Builds minimal guest kernels from Debian's linux-source, with the host's compiler and
 * without root:
 *
 *   apt (verifies) -> <cache>/kernels/linux-source/<package_version>.tar.xz
 *   features -> configuration (build/kernel_config.h)
 *   version, configuration, compiler -> ID -> there already? then done
 *   unpack -> make allnoconfig -> make vmlinux -> <cache>/kernels/roux-<digits>/
 *
 * One build at a time, under a lock; each in a folder of its own name, so that compilers
 * that outlive a killed one disturb nobody.
 */
#ifndef BUILD_KERNEL_BUILD_H
#define BUILD_KERNEL_BUILD_H

#include "build/kernel_built.h"

#include <stdbool.h>

struct err;

struct kernel_build_options {
	const char *features;	/* as kernel_config_make(); NULL: the defaults */
	unsigned jobs;	/* of make at once; 0: one a processor */
	bool refresh;	/* the newest source instead of the one that is here */
	const volatile int *cancel;	/* NULL, or gives up soon after this gets nonzero */
	void (*say)(void *ctx, const char *line);	/* progress for people, or NULL */
	void *ctx;
};

/*
 * Builds a kernel, or finds it built; it becomes the default.
 *
 * Returns 0 and its ID; -EINVAL for wrong features; -ENOENT when programs that it needs
 * are not there (the sentence says what to install); -EHOSTUNREACH and the like from
 * fetching; -EBADMSG for a source that is none; -EIO when compiling failed; -EINTR after
 * cancel; or another negative errno.
 */
int kernel_build(const struct kernel_build_options *options, char ret_id[KERNEL_ID_SIZE], struct err *err);

#endif /* BUILD_KERNEL_BUILD_H */
