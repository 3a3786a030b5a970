/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kernel images: from a file a user names to bytes at their place in guest
 * memory.
 *
 *   vmlinux (ELF) ---------------------------\
 *                                             +--> kernel_open() --> boot_load()
 *   bzImage --unpack once--> cache/<digest> -/
 *
 * The host unpacks a compressed kernel, once: the result is kept under the
 * SHA-256 of the bzImage.  KASLR is the guest's decompressor's work, so a kernel
 * started this way runs at its link address.
 */
#ifndef VMM_LOAD_H
#define VMM_LOAD_H

#include "vmm/guest_mem.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;

/* An ELF image in memory, read-only. */
struct kernel {
	const uint8_t *image;	/* owned */
	size_t size;	/* bytes */
	size_t mapped;	/* bytes to unmap; 0 when on the heap */
};

/* What elf_load() found. */
struct elf_info {
	gpa_t entry;
	gpa_t start, end;	/* lowest and highest guest address used */
};

#define KERNEL_SIZE_MAX (1ull << 30)	/* bytes, of an unpacked kernel */
#define KERNEL_LOAD_MIN 0x100000ull	/* kernels lie above the first MiB */

/*
 * Opens the kernel at @path, an ELF file or a bzImage, and finds or makes its
 * unpacked form in the existing folder @cache_dir (NULL: keep nothing).  A cache
 * that cannot be written is not an error.
 *
 * Returns 0 and fills @ret_kernel (free with kernel_close()); -ENOENT and the like
 * from opening; -ENOEXEC for what is not a 64-bit x86 kernel, or is truncated or
 * corrupt.
 */
int kernel_open(const char *path, const char *cache_dir, struct kernel *ret_kernel,
		struct err *err);
void kernel_close(struct kernel *kernel);

/*
 * Copies the loadable segments of the ELF @image to their physical addresses,
 * which must lie in RAM at or above KERNEL_LOAD_MIN.  Returns 0, -ENOEXEC for a
 * malformed or foreign file, -ENOMEM when guest memory has no room for it.
 * Source: System V ABI, chapter 5, and its AMD64 supplement.
 */
int elf_load(struct mem *mem, const uint8_t *image, size_t size, struct elf_info *ret_info,
	     struct err *err);

/* True when @image begins like an ELF file, or like a bzImage. */
bool elf_is(const uint8_t *image, size_t size);
bool bzimage_is(const uint8_t *image, size_t size);

/*
 * Unpacks the kernel inside a bzImage: gzip, bzip2, LZMA, XZ, LZ4 (legacy frame)
 * or Zstandard.  Returns 0 and passes a malloc()ed ELF image, -ENOEXEC for a
 * malformed file or an unknown compression, -ENOMEM.
 */
int bzimage_unpack(const uint8_t *image, size_t size, uint8_t **ret_elf, size_t *ret_size,
		   struct err *err);

#endif /* VMM_LOAD_H */
