/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A raw image.  With O_DIRECT the kernel wants offset, length and addresses
 * aligned; a guest promises only 512-byte sectors and byte-aligned buffers.  So
 * there are two descriptors of the same file, and requests that do not fit go
 * through the page cache; the kernel keeps the two views coherent.
 */
#include "block/block.h"
#include "block/file_io.h"
#include "os/err.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define DIRECT_ALIGN 4096u	/* enough for every disk we meet */

struct file {
	struct block blk;	/* first: see file_of() */
	int fd;	/* owned, through the page cache */
	int direct_fd;	/* owned, O_DIRECT; -1 when not asked for */
};

static struct file *file_of(struct block *blk)
{
	return (struct file *)blk;
}

static int pick_fd(const struct file *f, uint64_t off, const struct iovec *iov, unsigned niov)
{
	uint64_t bits = off;

	if (f->direct_fd < 0)
		return f->fd;
	for (unsigned i = 0; i < niov; i++)
		bits |= (uintptr_t)iov[i].iov_base | iov[i].iov_len;
	return bits % DIRECT_ALIGN ? f->fd : f->direct_fd;
}

static int f_readv(struct block *blk, uint64_t off, const struct iovec *iov, unsigned niov)
{
	return block_file_readv(pick_fd(file_of(blk), off, iov, niov), off, iov, niov);
}

static int f_writev(struct block *blk, uint64_t off, const struct iovec *iov, unsigned niov)
{
	return block_file_writev(pick_fd(file_of(blk), off, iov, niov), off, iov, niov);
}

static int f_flush(struct block *blk)
{
	return fdatasync(file_of(blk)->fd) < 0 ? -errno : 0;
}

static int f_discard(struct block *blk, uint64_t off, uint64_t len)
{
	int r = block_file_punch(file_of(blk)->fd, off, len);

	return r == -EOPNOTSUPP ? 0 : r;	/* discard is a hint */
}

static int f_write_zeroes(struct block *blk, uint64_t off, uint64_t len, bool unmap)
{
	int mode = FALLOC_FL_KEEP_SIZE | (unmap ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE);

	return fallocate(file_of(blk)->fd, mode, (off_t)off, (off_t)len) < 0 ? -errno : 0;
}

static int f_file_of(struct block *blk, int *ret_fd, uint64_t *ret_at)
{
	*ret_fd = file_of(blk)->fd;
	*ret_at = 0;
	return 0;
}

static void f_destroy(struct block *blk)
{
	struct file *f = file_of(blk);

	if (f->direct_fd >= 0)
		(void)close(f->direct_fd);
	if (f->fd >= 0)
		(void)close(f->fd);
	free(f);
}

static const struct block_ops file_ops = {
	.name = "file",
	.readv = f_readv,
	.writev = f_writev,
	.flush = f_flush,
	.discard = f_discard,
	.file_of = f_file_of,
	.write_zeroes = f_write_zeroes,
	.destroy = f_destroy,
};

static int size_of(int fd, uint64_t *ret_size)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (S_ISREG(st.st_mode)) {
		*ret_size = (uint64_t)st.st_size;
		return 0;
	}
	if (S_ISBLK(st.st_mode))
		return ioctl(fd, BLKGETSIZE64, ret_size) < 0 ? -errno : 0;
	return S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL;
}

int block_file_open(const char *path, const struct block_file_options *opt, struct block **ret_blk,
		    struct err *err)
{
	int flags = (opt->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC;
	struct file *f = calloc(1, sizeof(*f));
	int r;

	if (!f)
		return err_set(err, -ENOMEM, "disk image '%s': out of memory", path);
	f->blk = (struct block){ .ops = &file_ops, .best_io = 4096, .read_only = opt->read_only };
	f->direct_fd = -1;
	f->fd = open(path, flags | O_NONBLOCK);	/* a FIFO must not hang us; size_of() refuses it */
	if (f->fd < 0) {
		r = -errno;
		goto fail;
	}
	r = size_of(f->fd, &f->blk.size);
	if (r < 0)
		goto fail;
	f->blk.size -= f->blk.size % BLOCK_SECTOR;
	r = block_file_lock(f->fd, !opt->read_only);
	if (r < 0)
		goto fail;
	if (opt->direct) {
		f->direct_fd = open(path, flags | O_DIRECT);
		if (f->direct_fd < 0 && errno != EINVAL) {	/* EINVAL: tmpfs and the like cannot */
			r = -errno;
			goto fail;
		}
	}
	*ret_blk = &f->blk;
	return 0;

fail:
	f_destroy(&f->blk);
	return err_set(err, r, "disk image '%s': %s", path,
		       r == -EBUSY ? "in use by another process" : strerror(-r));
}
