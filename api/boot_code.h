/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What boots translated (machine/code_file.h), so that the next boot of the kernel need not.
 *
 *   <cache>/boots/<key>.code	sealed (os/file.h); its time of access is when it was used last; made anew when a boot
 *				translated much more
 *
 * The key is that of the program, the kernel and the number of processors.  It only has to find
 * something that fits: the engine compares what code was made of with what the guest runs.
 */
#ifndef API_BOOT_CODE_H
#define API_BOOT_CODE_H

#include <limits.h>
#include <stdbool.h>

#define BOOT_CODES_MAX 6u	/* more are removed, those first that were not used for longest */

struct machine_spec;

/* Fills @ret_path for a machine of @spec, which boots, that program @vmm runs.  False: there is no place for it. */
bool boot_code_path(const struct machine_spec *spec, const char *vmm, char ret_path[PATH_MAX]);

/* Removes those that are too many, or all. */
void boot_code_remove_old(bool all);

#endif /* API_BOOT_CODE_H */
