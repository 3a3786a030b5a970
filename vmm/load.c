/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hashing ten megabytes costs as much as booting the first tenth of the kernel,
 * so the digest of a file is remembered beside the unpacked kernels, by the
 * file's identity and times (stamp).  A file changed within the clock's
 * granularity of being stamped could fool that; such young files get no stamp.
 */
#include "vmm/load.h"

#include "base/sha256.h"
#include "os/file.h"
#include "os/err.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define STAMP_MIN_AGE_S 2

static int map_file(const char *path, struct kernel *ret, struct stat *ret_st, struct err *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	void *p;
	int r = 0;

	if (fd < 0) {
		r = -errno;
		return err_set(err, r, "cannot open kernel %s: %s", path, strerror(-r));
	}
	if (fstat(fd, ret_st) < 0) {
		r = -errno;
		err_set(err, r, "cannot read kernel %s: %s", path, strerror(-r));
	} else if (!S_ISREG(ret_st->st_mode) || ret_st->st_size == 0 ||
		   (uint64_t)ret_st->st_size > KERNEL_SIZE_MAX) {
		r = err_set(err, -ENOEXEC, "%s is not a kernel: %s", path,
			    !S_ISREG(ret_st->st_mode) ? "not a regular file"
			    : ret_st->st_size ? "larger than 1 GiB" : "empty");
	}
	if (r == 0) {
		p = mmap(NULL, (size_t)ret_st->st_size, PROT_READ, MAP_PRIVATE, fd, 0);
		r = p == MAP_FAILED ? -errno : 0;
		if (r < 0)
			err_set(err, r, "cannot map kernel %s: %s", path, strerror(-r));
		else
			*ret = (struct kernel){ .image = p, .size = (size_t)ret_st->st_size,
						.mapped = (size_t)ret_st->st_size };
	}
	(void)close(fd);
	return r;
}

static void stamp_path(char out[PATH_MAX], const char *dir, const struct stat *st)
{
	(void)snprintf(out, PATH_MAX, "%s/stamp-%llx-%llx-%llx-%llx.%lx-%llx.%lx", dir,
		       (unsigned long long)st->st_dev, (unsigned long long)st->st_ino,
		       (unsigned long long)st->st_size, (unsigned long long)st->st_mtim.tv_sec,
		       (unsigned long)st->st_mtim.tv_nsec, (unsigned long long)st->st_ctim.tv_sec,
		       (unsigned long)st->st_ctim.tv_nsec);
}

/* A stamp is a symbolic link whose target is the digest: one atomic system call. */
static bool read_stamp(const char *path, char hex[SHA256_HEX_SIZE])
{
	ssize_t n = readlink(path, hex, SHA256_HEX_SIZE);

	if (n != SHA256_HEX_SIZE - 1)
		return false;
	hex[n] = '\0';
	return strspn(hex, "0123456789abcdef") == (size_t)n;
}

static void digest_of(const struct kernel *packed, const char *dir, const struct stat *st,
		      char hex[SHA256_HEX_SIZE])
{
	char stamp[PATH_MAX];
	struct sha256 sha;

	stamp_path(stamp, dir, st);
	if (read_stamp(stamp, hex))
		return;
	sha256_init(&sha);
	sha256_add(&sha, packed->image, packed->size);
	sha256_finish_hex(&sha, hex);
	if (time(NULL) - st->st_ctim.tv_sec >= STAMP_MIN_AGE_S)
		(void)symlink(hex, stamp);	/* only saves time next time */
}

static int unpack(const struct kernel *packed, const char *cached, struct kernel *ret,
		  struct err *err)
{
	uint8_t *elf;
	size_t size;
	int r = bzimage_unpack(packed->image, packed->size, &elf, &size, err);

	if (r < 0)
		return r;
	if (cached)
		(void)file_write_sealed(cached, elf, size, 0444, NULL);
	*ret = (struct kernel){ .image = elf, .size = size };
	return 0;
}

static int open_packed(const struct kernel *packed, const struct stat *packed_st,
		       const char *cache_dir, struct kernel *ret, struct err *err)
{
	char cached[PATH_MAX], hex[SHA256_HEX_SIZE];
	struct stat st;

	if (!cache_dir)
		return unpack(packed, NULL, ret, err);
	digest_of(packed, cache_dir, packed_st, hex);
	if (snprintf(cached, sizeof(cached), "%s/%s.elf", cache_dir, hex) >= (int)sizeof(cached))
		return err_set(err, -ENAMETOOLONG, "%s: name too long", cache_dir);
	if (map_file(cached, ret, &st, NULL) == 0) {
		if (file_is_sealed(&st) && elf_is(ret->image, ret->size))
			return 0;
		kernel_close(ret);
	}
	return unpack(packed, cached, ret, err);
}

int kernel_open(const char *path, const char *cache_dir, struct kernel *ret_kernel,
		struct err *err)
{
	struct kernel file, elf;
	struct stat st;
	int r = map_file(path, &file, &st, err);

	if (r < 0)
		return r;
	if (elf_is(file.image, file.size)) {
		*ret_kernel = file;
		return 0;
	}
	if (bzimage_is(file.image, file.size))
		r = open_packed(&file, &st, cache_dir, &elf, err);
	else
		r = err_set(err, -ENOEXEC, "not a Linux kernel: neither an ELF file nor a bzImage");
	kernel_close(&file);
	if (r < 0)
		return err_prefix(err, r, "%s", path);
	*ret_kernel = elf;
	return 0;
}

void kernel_close(struct kernel *kernel)
{
	/* The image was ours and writable, or mapped, before it became const. */
	void *image = (void *)(uintptr_t)kernel->image;

	if (kernel->mapped)
		(void)munmap(image, kernel->mapped);
	else
		free(image);
	*kernel = (struct kernel){ 0 };
}
