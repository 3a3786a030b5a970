/* SPDX-License-Identifier: Apache-2.0 */
/* Open files: data, space, durability, locks. */
#include "virtio/fs/fuse.h"
#include "virtio/fs/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

/* A single copy is cut here, so that a reset need not wait long for it. */
#define COPY_BYTES_MAX (64ull << 20)

/* The guest's open flags that mean something to our descriptor. */
static int host_flags(const struct share *s, uint32_t flags)
{
	int access = (int)flags & O_ACCMODE;
	int keep = (int)flags & (O_APPEND | O_TRUNC | O_SYNC | O_DSYNC);

	/* O_DIRECT means the guest's cache, which it has passed by when it asks us;
	 * our page cache below it keeps requests of any alignment possible. */
	if (s->writeback) {
		/* The guest reads to fill pages it writes in part, and places appends itself. */
		if (access == O_WRONLY)
			access = O_RDWR;
		keep &= ~O_APPEND;
	}
	return access | keep;
}

/* True when the data has not changed since the guest opened the file last. */
static bool is_unchanged(struct share *s, struct node *node, int fd)
{
	struct statx stx;
	struct stamp now;
	bool same;

	if (share_stat(fd, "", &stx) < 0)
		return false;
	now = stamp_of(&stx);
	(void)pthread_mutex_lock(&s->lock);
	same = stamp_same(&node->cached, &now);
	node->cached = now;
	(void)pthread_mutex_unlock(&s->lock);
	return same;
}

static uint32_t cache_flags(struct share *s, struct node *node, int fd)
{
	switch (s->cache) {
	case VIRTIO_FS_CACHE_NONE:
		return FOPEN_DIRECT_IO;
	case VIRTIO_FS_CACHE_ALWAYS:
		return FOPEN_KEEP_CACHE;
	case VIRTIO_FS_CACHE_AUTO:
	default:
		return is_unchanged(s, node, fd) ? FOPEN_KEEP_CACHE : 0;
	}
}

int open_node(struct request *req, struct node *node, uint32_t flags, uint32_t fuse_flags,
	      struct fuse_open_out *ret_open)
{
	struct share *s = req->share;
	int fd, r, want = host_flags(s, flags);
	struct handle *h;

	if (node->type != S_IFREG)
		return node->type == S_IFDIR ? -EISDIR : node->type == S_IFLNK ? -ELOOP : -ENXIO;
	if (s->read_only && ((want & O_ACCMODE) != O_RDONLY || want & O_TRUNC))
		return -EROFS;
	fd = node_open(s, node, want);
	if (fd < 0)
		return fd;
	r = handle_create(s, node, fd, want, &h);
	if (r < 0) {
		(void)close(fd);
		return r;
	}
	if (want & O_TRUNC && fuse_flags & FUSE_OPEN_KILL_SUIDGID)
		(void)kill_set_id(req, node);	/* the file is open: failing now would lose the handle */
	*ret_open = (struct fuse_open_out){ .fh = h->id, .open_flags = cache_flags(s, node, fd) };
	return 0;
}

int op_open(struct request *req, struct node *node)
{
	size_t pos = 0;
	const struct fuse_open_in *in = arg(req, &pos, sizeof(*in));
	struct fuse_open_out out;
	int r;

	if (!in)
		return -EINVAL;
	if (req->share->no_open && (in->flags & (O_ACCMODE | O_TRUNC)) == O_RDONLY)
		return -ENOSYS;	/* agreed on in INIT: from now on it does not ask */
	r = open_node(req, node, in->flags, in->open_flags, &out);
	if (r < 0)
		return r;
	r = reply(req, &out, sizeof(out));
	if (r < 0)
		handle_close(req->share, out.fh);
	return r;
}

static int read_cached(int fd, const struct iovec *iov, unsigned n, size_t size, uint64_t off)
{
	ssize_t got = preadv2(fd, iov, (int)n, (off_t)off, RWF_NOWAIT);
	struct statx stx;

	if (got < 0)
		return errno == EAGAIN ? OP_NEEDS_WAIT : -errno;
	if ((size_t)got == size)
		return (int)got;
	/* Short because of the end of the file, or of what is cached?  The guest
	 * takes every short read for the end. */
	if (share_stat(fd, "", &stx) == 0 && off + (uint64_t)got >= stx.stx_size)
		return (int)got;
	return OP_NEEDS_WAIT;
}

int op_read(struct request *req, struct node *node)
{
	size_t pos = 0;
	const struct fuse_read_in *in = arg(req, &pos, sizeof(*in));
	struct iovec iov[CHAIN_SEGS_MAX];
	struct handle *h;
	unsigned n;
	int r;

	if (!in || in->size > reply_room(req) || in->size > INT32_MAX)
		return -EINVAL;
	if (node->type != S_IFREG)
		return -EISDIR;
	if (in->offset > INT64_MAX)
		return -EINVAL;
	r = handle_get(req->share, node, in->fh, &h);
	if (r < 0)
		return r;
	n = chain_slice_write(req->chain, sizeof(struct fuse_out_header), in->size, iov);
	r = req->may_wait ? -EOPNOTSUPP : read_cached(h->fd, iov, n, in->size, in->offset);
	if (r == -EOPNOTSUPP) {	/* waiting is fine, or the file system cannot say whether it would */
		ssize_t got = preadv(h->fd, iov, (int)n, (off_t)in->offset);

		r = got < 0 ? -errno : (int)got;
	}
	handle_put(req->share, h);
	if (r > 0)
		node_was_read(req->share, node, in->offset, (uint64_t)r);
	return r;
}

int op_write(struct request *req, struct node *node)
{
	size_t pos = 0;
	const struct fuse_write_in *in = arg(req, &pos, sizeof(*in));
	const size_t data = sizeof(req->in) + sizeof(*in);
	struct fuse_write_out out = { 0 };
	struct iovec iov[CHAIN_SEGS_MAX];
	struct handle *h;
	ssize_t got;
	unsigned n;
	int r;

	if (!in || in->fh == 0 || in->size > INT32_MAX || req->chain->read_len < data + in->size ||
	    in->offset > INT64_MAX)
		return -EINVAL;
	if (node->type != S_IFREG)
		return -EISDIR;
	r = handle_get(req->share, node, in->fh, &h);
	if (r < 0)
		return r;
	if (h->flags & (O_SYNC | O_DSYNC) && !req->may_wait) {	/* waits for the disk */
		handle_put(req->share, h);
		return OP_NEEDS_WAIT;
	}
	n = chain_slice_read(req->chain, data, in->size, iov);
	got = pwritev(h->fd, iov, (int)n, (off_t)in->offset);
	r = got < 0 ? -errno : 0;
	handle_put(req->share, h);
	if (r == 0 && in->write_flags & FUSE_WRITE_KILL_SUIDGID)
		r = kill_set_id(req, node);
	if (r < 0)
		return r;
	out.size = (uint32_t)got;
	return reply(req, &out, sizeof(out));
}

int op_flush(struct request *req, struct node *node)
{
	size_t pos = 0;
	const struct fuse_flush_in *in = arg(req, &pos, sizeof(*in));

	if (!in)
		return -EINVAL;
	if (req->share->no_open)
		return -ENOSYS;	/* nothing to do, ever */
	lock_drop_owner(req->share, node, in->lock_owner);
	return 0;
}

int op_release(struct request *req, struct node *node)
{
	size_t pos = 0;
	const struct fuse_release_in *in = arg(req, &pos, sizeof(*in));

	if (!in)
		return -EINVAL;
	handle_close(req->share, in->fh);	/* flock() locks go with the descriptor */
	return 0;
}

int op_fsync(struct request *req, struct node *node)
{
	size_t pos = 0;
	const struct fuse_fsync_in *in = arg(req, &pos, sizeof(*in));
	struct handle *h;
	int r;

	if (!in)
		return -EINVAL;
	if (req->share->read_only)
		return 0;
	r = handle_get(req->share, node, in->fh, &h);
	if (r < 0)
		return r;
	r = in->fsync_flags & FUSE_FSYNC_FDATASYNC ? fdatasync(h->fd) : fsync(h->fd);
	r = r < 0 ? -errno : 0;
	handle_put(req->share, h);
	return r;
}

int op_syncfs(struct request *req, struct node *node)
{
	int fd, r;

	if (req->share->read_only)
		return 0;
	fd = node_open(req->share, node, O_RDONLY);
	if (fd < 0)
		return fd;
	r = syncfs(fd) < 0 ? -errno : 0;
	(void)close(fd);
	return r;
}

int op_fallocate(struct request *req, struct node *node)
{
	size_t pos = 0;
	const struct fuse_fallocate_in *in = arg(req, &pos, sizeof(*in));
	struct handle *h;
	int r;

	if (!in || in->offset > INT64_MAX || in->length > INT64_MAX)
		return -EINVAL;
	if (in->mode & ~(uint32_t)(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
		return -EOPNOTSUPP;
	r = handle_get(req->share, node, in->fh, &h);
	if (r < 0)
		return r;
	r = fallocate(h->fd, (int)in->mode, (off_t)in->offset, (off_t)in->length) < 0 ? -errno : 0;
	handle_put(req->share, h);
	return r;
}

int op_lseek(struct request *req, struct node *node)
{
	size_t pos = 0;
	const struct fuse_lseek_in *in = arg(req, &pos, sizeof(*in));
	struct fuse_lseek_out out = { 0 };
	struct handle *h;
	off_t at;
	int r;

	/* Others need no server; on folders the position is readdir's. */
	if (!in || (in->whence != SEEK_DATA && in->whence != SEEK_HOLE) || node->type != S_IFREG)
		return -EINVAL;
	r = handle_get(req->share, node, in->fh, &h);
	if (r < 0)
		return r;
	at = lseek(h->fd, (off_t)in->offset, (int)in->whence);
	r = at < 0 ? -errno : 0;
	handle_put(req->share, h);
	out.offset = (uint64_t)at;
	return r < 0 ? r : reply(req, &out, sizeof(out));
}

int op_copy_file_range(struct request *req, struct node *from)
{
	size_t pos = 0;
	const struct fuse_copy_file_range_in *in = arg(req, &pos, sizeof(*in));
	struct fuse_write_out out = { 0 };
	struct handle *src = NULL, *dst = NULL;
	struct node *to = NULL;
	off_t off_in, off_out;
	ssize_t n;
	int r;

	if (!in || in->flags || in->off_in > INT64_MAX || in->off_out > INT64_MAX)
		return -EINVAL;
	off_in = (off_t)in->off_in;
	off_out = (off_t)in->off_out;
	r = node_get(req->share, in->nodeid_out, &to);
	if (r == 0)
		r = handle_get(req->share, from, in->fh_in, &src);
	if (r == 0)
		r = handle_get(req->share, to, in->fh_out, &dst);
	if (r == 0) {
		n = copy_file_range(src->fd, &off_in, dst->fd, &off_out,
				    in->len < COPY_BYTES_MAX ? in->len : COPY_BYTES_MAX, 0);
		r = n < 0 ? -errno : 0;
		out.size = (uint32_t)n;
	}
	handle_put(req->share, dst);
	handle_put(req->share, src);
	node_put(req->share, to);
	return r < 0 ? r : reply(req, &out, sizeof(out));
}

static int set_lock(struct request *req, struct node *node)
{
	size_t pos = 0;
	const struct fuse_lk_in *in = arg(req, &pos, sizeof(*in));
	struct handle *h;
	int r;

	if (!in)
		return -EINVAL;
	if (!(in->lk_flags & FUSE_LK_FLOCK))
		return lock_set(req->share, node, in->owner, &in->lk);
	r = handle_get(req->share, node, in->fh, &h);
	if (r < 0)
		return r;
	r = lock_flock(h->fd, in->lk.type);
	handle_put(req->share, h);
	return r;
}

int op_setlk(struct request *req, struct node *node)
{
	return set_lock(req, node);
}

int op_setlkw(struct request *req, struct node *node)
{
	int r = set_lock(req, node);

	return r == -EAGAIN ? OP_LOCK_BUSY : r;
}

int op_getlk(struct request *req, struct node *node)
{
	size_t pos = 0;
	const struct fuse_lk_in *in = arg(req, &pos, sizeof(*in));
	struct fuse_lk_out out;
	int r;

	if (!in)
		return -EINVAL;
	r = lock_get(req->share, node, in->owner, &in->lk, &out.lk);
	return r < 0 ? r : reply(req, &out, sizeof(out));
}
