/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The initramfs of a Linux guest: roux's init, the modules needed before the
 * root is mounted, and their order.  It is the same for every machine with the
 * same kernel, so it is made once and cached by what went into it.
 *
 * What differs between machines is one file, /roux.conf (abi/guest_conf.h): the
 * machine puts it in a second archive behind this one (base/cpio.h):
 *
 *   cpio_begin(&c, buf, cap);
 *   cpio_file(&c, "roux.conf", 0600, text, len);
 *   size = cpio_end(&c);
 */
#ifndef BUILD_INITRAMFS_H
#define BUILD_INITRAMFS_H

#include <limits.h>

struct err;
struct kernel_package;

/*
 * NULL-ended lists of module names.  The first is enough for a virtio-fs root
 * and vsock; the second has a network device besides; the third all that, block
 * devices, serial ports and local file systems on them.
 */
extern const char *const initramfs_modules_minimal[];
extern const char *const initramfs_modules_net[];
extern const char *const initramfs_modules_all[];

/*
 * Path of an initramfs with @modules of @kernel; NULL kernel: without modules,
 * for kernels that have everything built in.  Made when it is not in the cache.
 * The file is a multiple of 4 bytes long, so that an archive can follow.
 *
 * Returns 0 and fills @ret_path, or a negative errno.
 */
int initramfs_get(const struct kernel_package *kernel, const char *const modules[],
		  char ret_path[PATH_MAX], struct err *err);

#endif /* BUILD_INITRAMFS_H */
