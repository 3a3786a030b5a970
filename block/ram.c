/* SPDX-License-Identifier: Apache-2.0 */
/* A disk in anonymous memory: host pages appear when first written. */
#include "block/block.h"
#include "os/err.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct ram {
	struct block blk;	/* first: see ram_of() */
	uint8_t *bytes;	/* owned mapping, blk.size long */
};

static struct ram *ram_of(struct block *blk)
{
	return (struct ram *)blk;
}

static int ram_readv(struct block *blk, uint64_t off, const struct iovec *iov, unsigned niov)
{
	for (unsigned i = 0; i < niov; off += iov[i++].iov_len)
		memcpy(iov[i].iov_base, ram_of(blk)->bytes + off, iov[i].iov_len);
	return 0;
}

static int ram_writev(struct block *blk, uint64_t off, const struct iovec *iov, unsigned niov)
{
	for (unsigned i = 0; i < niov; off += iov[i++].iov_len)
		memcpy(ram_of(blk)->bytes + off, iov[i].iov_base, iov[i].iov_len);
	return 0;
}

static int ram_write_zeroes(struct block *blk, uint64_t off, uint64_t len, bool unmap)
{
	memset(ram_of(blk)->bytes + off, 0, len);
	return 0;
}

static void ram_destroy(struct block *blk)
{
	if (ram_of(blk)->bytes)
		(void)munmap(ram_of(blk)->bytes, blk->size);
	free(blk);
}

static const struct block_ops ram_ops = {
	.name = "ram",
	.readv = ram_readv,
	.writev = ram_writev,
	.write_zeroes = ram_write_zeroes,
	.destroy = ram_destroy,
};

int block_ram_create(uint64_t size, struct block **ret_blk, struct err *err)
{
	struct ram *ram;
	void *bytes;

	if (size == 0 || size % BLOCK_SECTOR)
		return err_set(err, -EINVAL, "ram disk: size must be a multiple of %u bytes, not %llu",
			       BLOCK_SECTOR, (unsigned long long)size);
	ram = calloc(1, sizeof(*ram));
	bytes = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
		     -1, 0);
	if (!ram || bytes == MAP_FAILED)
		goto no_memory;
	ram->blk = (struct block){ .ops = &ram_ops, .size = size, .best_io = 4096 };
	ram->bytes = bytes;
	*ret_blk = &ram->blk;
	return 0;

no_memory:
	if (bytes != MAP_FAILED)
		(void)munmap(bytes, size);
	free(ram);
	return err_set(err, -ENOMEM, "ram disk: cannot allocate %llu bytes", (unsigned long long)size);
}
