/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disk back ends: what a disk device reads from and writes to.
 *
 *   file     a raw image, optionally O_DIRECT
 *   overlay  a read-only base below a sparse layer that takes the writes
 *   ram      bytes in memory
 *   concat   others one after the other, read-only
 *
 * Callers use the block_*() functions, which check arguments once for every
 * back end.  Back ends fill in struct block_ops and embed struct block first.
 *
 * Threads: one caller at a time; all calls block until done.
 */
#ifndef BLOCK_BLOCK_H
#define BLOCK_BLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct block;
struct err;

#define BLOCK_SECTOR 512u	/* bytes; sizes of disks are multiples of it */
#define BLOCK_IOV_MAX 1024u	/* entries a vector may have */
#define BLOCK_PIECE 65536ull	/* bytes that a bit of block_watch() stands for */

/* Ranges and vectors are already checked.  All return 0 or a negative errno. */
struct block_ops {
	const char *name;	/* shown to people */

	/* Required.  Fills all of @iov from byte @off. */
	int (*readv)(struct block *blk, uint64_t off, const struct iovec *iov, unsigned niov);
	/* Required unless read_only.  Writes all of @iov. */
	int (*writev)(struct block *blk, uint64_t off, const struct iovec *iov, unsigned niov);
	/* NULL when writes are durable at once. */
	int (*flush)(struct block *blk);
	/* NULL: a hint that is ignored.  The bytes may read as anything afterwards. */
	int (*discard)(struct block *blk, uint64_t off, uint64_t len);
	/* NULL: zeroes are written.  @unmap: storage may be given back. */
	int (*write_zeroes)(struct block *blk, uint64_t off, uint64_t len, bool unmap);
	/* NULL: there is no such file.  As block_file_of(). */
	int (*file_of)(struct block *blk, int *ret_fd, uint64_t *ret_at);
	/* Required.  Accepts a half-built object. */
	void (*destroy)(struct block *blk);
};

/* First member of every back end's own struct. */
struct block {
	const struct block_ops *ops;
	uint64_t size;	/* bytes, fixed for the object's life */
	uint32_t best_io;	/* bytes; the granularity that is cheapest, a power of two */
	bool read_only;
	uint8_t *changed;	/* of block_watch(), borrowed; NULL: nobody wants to know */
};

/*
 * Moves the bytes of @iov (borrowed) from or to byte offset @off.  Returns 0,
 * -ERANGE when they leave the disk, -EINVAL for more than BLOCK_IOV_MAX
 * entries, -EROFS for a write to a read-only back end, or the back end's own
 * negative errno; on failure any part may have been moved.
 */
int block_readv(struct block *blk, uint64_t off, const struct iovec *iov, unsigned niov);
int block_writev(struct block *blk, uint64_t off, const struct iovec *iov, unsigned niov);

/* The same for one buffer. */
int block_read(struct block *blk, uint64_t off, void *buf, size_t len);
int block_write(struct block *blk, uint64_t off, const void *buf, size_t len);

/* Makes all completed writes durable.  0 or a negative errno. */
int block_flush(struct block *blk);

/*
 * Says that bytes [@off, @off + @len) are no longer needed.  0, -ERANGE, -EROFS
 * or the back end's errno.
 */
int block_discard(struct block *blk, uint64_t off, uint64_t len);

/* Makes [@off, @off + @len) read as zeroes; @unmap lets storage go.  As above. */
int block_write_zeroes(struct block *blk, uint64_t off, uint64_t len, bool unmap);

/*
 * From here on bit N of @bitmap (bit 0 of byte 0 first; borrowed, block_watch_bytes() long) is set when bytes
 * [N * BLOCK_PIECE, (N + 1) * BLOCK_PIECE) were changed; NULL: no longer.
 */
void block_watch(struct block *blk, uint8_t *bitmap);

static inline uint64_t block_watch_bytes(uint64_t size)
{
	return (size + 8 * BLOCK_PIECE - 1) / (8 * BLOCK_PIECE);
}

/*
 * The file that, with a base below it if it is an overlay's, holds all of a writable disk, as of now: *@ret_fd
 * (borrowed) has the disk's first byte at offset *@ret_at; what is before is the layer's own.  Need not be durable.
 * 0, -EOPNOTSUPP when there is none, or another negative errno.
 */
int block_file_of(struct block *blk, int *ret_fd, uint64_t *ret_at);

/* Flushes nothing, frees @blk and what it holds.  NULL is fine. */
void block_destroy(struct block *blk);

/*
 * A disk of @size zero bytes in memory.  Returns 0 and passes ownership in
 * @ret_blk, -EINVAL when @size is no multiple of BLOCK_SECTOR, or -ENOMEM.
 */
int block_ram_create(uint64_t size, struct block **ret_blk, struct err *err);

struct block_file_options {
	bool read_only;
	bool direct;	/* bypass the host's page cache where alignment allows */
};

/*
 * The raw image or block device at @path.  A writable image is locked against
 * other users for the object's life.  A tail shorter than a sector is not part
 * of the disk.  Returns 0 and passes ownership in @ret_blk, -EBUSY when another
 * process writes it, or the errno of opening it.
 */
int block_file_open(const char *path, const struct block_file_options *opt, struct block **ret_blk,
		    struct err *err);

/*
 * A writable disk of @size bytes (0: as large as @base) that shows @base where
 * it was not written; past the end of @base it shows zeroes.
 *
 * @path NULL keeps the writes in anonymous memory, gone on destroy.  Otherwise
 * they are kept in the sparse file at @path, which is created when absent and
 * must have been made with the same sizes when present; block_flush() makes
 * them durable.
 *
 * Returns 0, passes ownership of the overlay in @ret_blk and takes over @base;
 * on failure @base still belongs to the caller: -EINVAL for a bad size or a
 * file that is no overlay of this base, -EBUSY when another process uses it, or
 * an errno of opening it.
 */
int block_overlay_create(struct block *base, const char *path, uint64_t size,
			 struct block **ret_blk, struct err *err);

/*
 * A read-only disk of @parts one after the other, none of which may be empty.
 * Returns 0, passes ownership of the whole in @ret_blk and takes over the parts;
 * on failure they still belong to the caller: -EINVAL or -ENOMEM.
 */
int block_concat_create(struct block *const *parts, unsigned nparts, struct block **ret_blk, struct err *err);

#endif /* BLOCK_BLOCK_H */
