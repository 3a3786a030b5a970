/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writer of cpio archives in the "newc" form that Linux unpacks as initramfs
 * (Linux documentation, initramfs buffer format).  Archives may follow each
 * other: the kernel unpacks them in order, and later files replace earlier ones.
 *
 * Output depends on the arguments alone: times are 0, owners root.
 */
#ifndef BASE_CPIO_H
#define BASE_CPIO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cpio {
	uint8_t *buf;	/* borrowed; NULL: only count */
	size_t cap, len;	/* bytes */
	uint32_t ino;	/* of the last entry */
	bool full;	/* something did not fit; cpio_end() will say so */
};

/* Starts an archive in @buf of @cap bytes; with @buf NULL nothing is written. */
void cpio_begin(struct cpio *cpio, void *buf, size_t cap);

/* Entries.  @name has no leading slash; its folders come first.  @mode: permissions. */
void cpio_dir(struct cpio *cpio, const char *name, uint32_t mode);
void cpio_file(struct cpio *cpio, const char *name, uint32_t mode, const void *data, uint32_t len);
void cpio_char_device(struct cpio *cpio, const char *name, uint32_t mode, uint32_t major,
		      uint32_t minor);

/*
 * Ends the archive, padded to 4 bytes so that another may follow.  Returns its
 * size in bytes, or 0 when it did not fit.
 */
size_t cpio_end(struct cpio *cpio);

#endif /* BASE_CPIO_H */
