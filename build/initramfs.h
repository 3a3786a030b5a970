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

/* What a machine has that modules are needed for. */
enum initramfs_part {
	INITRAMFS_SHARE = 1,	/* shared folders */
	INITRAMFS_IMAGE = 2,	/* a root on a disk with EROFS */
	INITRAMFS_NET = 4,
	INITRAMFS_DISK = 8,	/* disks of the user's, and the usual file systems on them */
	INITRAMFS_OTHER = 16,	/* serial ports, PCI, random numbers */
	INITRAMFS_ALL = 31,
};

/*
 * Path of an initramfs with the modules of @kernel for @parts (enum initramfs_part
 * bits); NULL kernel: without modules, for kernels that have everything built in.
 * Made when it is not in the cache.  The file is a multiple of 4 bytes long, so
 * that an archive can follow.
 *
 * Returns 0 and fills @ret_path, or a negative errno.
 */
int initramfs_get(const struct kernel_package *kernel, unsigned parts, char ret_path[PATH_MAX],
		  struct err *err);

#endif /* BUILD_INITRAMFS_H */
