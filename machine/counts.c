/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/counts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int counts_create(struct counts **ret_counts, int *ret_fd)
{
	int fd = memfd_create("roux-counts", MFD_CLOEXEC | MFD_ALLOW_SEALING), r;
	void *at;

	if (fd < 0)
		return -errno;
	if (ftruncate(fd, sizeof(struct counts)) < 0 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		goto fail;
	at = mmap(NULL, sizeof(struct counts), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (at == MAP_FAILED)
		goto fail;
	*ret_counts = at;
	*ret_fd = fd;
	return 0;

fail:
	r = -errno;
	(void)close(fd);
	return r;
}

int counts_map(int fd, const struct counts **ret_counts)
{
	int seals = fcntl(fd, F_GET_SEALS);
	struct stat st;
	void *at;

	if (seals < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (!(seals & F_SEAL_SHRINK) || st.st_size < (off_t)sizeof(struct counts))
		return -EPERM;
	at = mmap(NULL, sizeof(struct counts), PROT_READ, MAP_SHARED, fd, 0);
	if (at == MAP_FAILED)
		return -errno;
	*ret_counts = at;
	return 0;
}

void counts_unmap(const struct counts *counts)
{
	if (counts)
		(void)munmap((void *)(uintptr_t)counts, sizeof(*counts));
}
