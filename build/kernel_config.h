/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Configurations of guest kernels: from a list of features to the options of Linux's
 * own configuration system.  Text in, text out: no I/O.
 *
 * The base is what every machine of roux has: its devices, its root, and the system
 * calls that Debian's programs use.  There are no modules: all is built in.
 */
#ifndef BUILD_KERNEL_CONFIG_H
#define BUILD_KERNEL_CONFIG_H

#include <stdbool.h>
#include <stddef.h>

struct err;

struct kernel_feature {
	const char *name;
	const char *summary;	/* what one gets with it */
	bool on;	/* among the defaults */
	const char *needs;	/* another feature, or NULL */
	const char *options;	/* OPTION or OPTION=value, separated by blanks */
};

/* All of them; the last has no name. */
extern const struct kernel_feature kernel_features[];

/*
 * Makes a configuration for "make allnoconfig" (KCONFIG_ALLCONFIG).  @features: names
 * separated by commas, taken from left to right; "default" and "all" stand for many, a
 * "-" before a name takes it away.  NULL: the defaults; "": none.
 *
 * Returns 0 and passes the lines OPTION=value and the features chosen, in the table's
 * order and separated by commas (free() both); -EINVAL for an unknown feature or one
 * without what it needs, or -ENOMEM.
 */
int kernel_config_make(const char *features, char **ret_config, char **ret_features, struct err *err);

/*
 * The first line of @wanted that the text @got (a .config) lacks: what this source does
 * not have.  NULL when there is none; otherwise into @wanted, up to the end of its line.
 */
const char *kernel_config_missing(const char *wanted, const char *got);

#endif /* BUILD_KERNEL_CONFIG_H */
