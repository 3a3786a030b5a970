/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operations on names in folders.  Every name was checked to be one plain
 * component (arg_name()), and no call here follows a link.
 */
#include "virtio/fs/fuse.h"
#include "virtio/fs/owner.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#ifndef RENAME_WHITEOUT
#define RENAME_WHITEOUT (1u << 2)
#endif

void fill_entry(const struct share *s, const struct node *node, const struct statx *stx,
		struct fuse_entry_out *e)
{
	*e = (struct fuse_entry_out){
		.nodeid = node->id,
		.generation = node->generation,
		.entry_valid = s->valid_sec,
		.attr_valid = s->valid_sec,
	};
	share_attr(s, node, stx, &e->attr);
}

int reply_entry(struct request *req, struct node *node, const struct statx *stx)
{
	struct fuse_entry_out e;
	int r;

	fill_entry(req->share, node, stx, &e);
	r = reply(req, &e, sizeof(e));
	if (r < 0)	/* the guest will never know of it */
		node_forget(req->share, node->id, 1);
	node_put(req->share, node);
	return r;
}

int enter_fd(struct share *s, struct node *parent, const char *name, int fd,
	     struct node **ret_node, struct statx *ret_stx)
{
	int r = share_stat(fd, "", ret_stx);

	if (r < 0) {
		(void)close(fd);
		return r;
	}
	*ret_node = node_enter(s, parent, name, fd, ret_stx);
	return *ret_node ? 0 : -ENOMEM;
}

int lookup(struct share *s, struct node *parent, const char *name, struct node **ret_node,
	   struct statx *ret_stx)
{
	int fd = openat(parent->fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);

	return fd < 0 ? -errno : enter_fd(s, parent, name, fd, ret_node, ret_stx);
}

int op_lookup(struct request *req, struct node *parent)
{
	struct node *node;
	struct statx stx;
	const char *name;
	size_t pos = 0;
	int r = arg_name(req, &pos, &name);

	if (r == 0)
		r = lookup(req->share, parent, name, &node, &stx);
	if (r == -ENOENT && req->share->cache == VIRTIO_FS_CACHE_ALWAYS) {
		/* Node 0 with a validity: the guest may remember that it is absent. */
		const struct fuse_entry_out none = { .entry_valid = req->share->valid_sec };

		return reply(req, &none, sizeof(none));
	}
	return r < 0 ? r : reply_entry(req, node, &stx);
}

int chmod_fd(const struct share *s, int fd, uint32_t mode)
{
	char name[16];

	(void)snprintf(name, sizeof(name), "%d", fd);
	return fchmodat(s->proc_fd, name, mode & 07777, 0) < 0 ? -errno : 0;
}

/* As root: the ids of the caller, except the group in set-group-id folders. */
static int adopt_as_host(struct request *req, const struct node *parent, int fd, uint32_t mode)
{
	struct statx dir, stx;
	gid_t gid = req->in.gid;
	int r = share_stat(parent->fd, "", &dir);

	if (r < 0)
		return r;
	if (dir.stx_mode & S_ISGID)
		gid = (gid_t)-1;	/* inherited already */
	if (fchownat(fd, "", req->in.uid, gid, AT_EMPTY_PATH) < 0)
		return -errno;
	if (S_ISLNK(mode))
		return 0;
	r = share_stat(fd, "", &stx);
	/* Our own umask took bits away, and so did the change of owner. */
	if (r == 0 && mode & 07777 & ~(uint32_t)stx.stx_mode)
		r = chmod_fd(req->share, fd, mode | (stx.stx_mode & S_ISGID));
	return r;
}

static int adopt_as_squash(struct request *req, const struct node *parent, int fd, uint32_t mode,
			   uint32_t rdev)
{
	struct owner o = { .uid = req->in.uid, .gid = req->in.gid, .mode = mode,
			   .rdev_major = major(rdev), .rdev_minor = minor(rdev) };
	struct node node = { .fd = fd, .type = S_ISDIR(mode) ? S_IFDIR : S_IFREG };
	struct fuse_attr dir;
	struct statx stx;
	int real, r;

	if (S_ISLNK(mode))
		return 0;
	r = share_stat(parent->fd, "", &stx);
	if (r < 0)
		return r;
	share_attr(req->share, parent, &stx, &dir);
	if (dir.mode & S_ISGID) {
		o.gid = dir.gid;
		o.mode |= S_ISDIR(mode) ? S_ISGID : 0;
	}
	real = node_open(req->share, &node, O_RDONLY);
	if (real < 0)
		return real;
	r = owner_store(real, &o);
	(void)close(real);
	return r;
}

int adopt(struct request *req, const struct node *parent, int fd, uint32_t mode, uint32_t rdev)
{
	return req->share->squash ? adopt_as_squash(req, parent, fd, mode, rdev) :
				    adopt_as_host(req, parent, fd, mode);
}

/* Adopts what was just made as @name, enters and replies; unmakes it on failure. */
static int finish_new(struct request *req, struct node *parent, const char *name, uint32_t mode,
		      uint32_t rdev)
{
	int fd = openat(parent->fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	struct node *node;
	struct statx stx;
	int r;

	if (fd < 0)
		return -errno;
	r = adopt(req, parent, fd, mode, rdev);
	if (r < 0) {
		(void)close(fd);
		(void)unlinkat(parent->fd, name, S_ISDIR(mode) ? AT_REMOVEDIR : 0);
		return r;
	}
	r = enter_fd(req->share, parent, name, fd, &node, &stx);
	return r < 0 ? r : reply_entry(req, node, &stx);
}

int op_symlink(struct request *req, struct node *parent)
{
	const char *name, *target;
	size_t pos = 0;
	int r = arg_name(req, &pos, &name);

	if (r < 0)
		return r;
	target = arg_string(req, &pos);
	if (!target)
		return -EINVAL;
	if (symlinkat(target, parent->fd, name) < 0)
		return -errno;
	return finish_new(req, parent, name, S_IFLNK | 0777, 0);
}

int op_mknod(struct request *req, struct node *parent)
{
	size_t pos = 0;
	const struct fuse_mknod_in *in = arg(req, &pos, sizeof(*in));
	const char *name;
	mode_t real;
	int r;

	if (!in)
		return -EINVAL;
	r = arg_name(req, &pos, &name);
	if (r < 0)
		return r;
	/* Squashed special files are regular ones with the type in the attribute. */
	real = req->share->squash ? S_IFREG | 0600 : in->mode;
	if (S_ISDIR(in->mode) || S_ISLNK(in->mode))
		return -EINVAL;
	if (mknodat(parent->fd, name, real, req->share->squash ? 0 : in->rdev) < 0)
		return -errno;
	return finish_new(req, parent, name, in->mode & S_IFMT ? in->mode : in->mode | S_IFREG, in->rdev);
}

int op_mkdir(struct request *req, struct node *parent)
{
	size_t pos = 0;
	const struct fuse_mkdir_in *in = arg(req, &pos, sizeof(*in));
	const char *name;
	int r;

	if (!in)
		return -EINVAL;
	r = arg_name(req, &pos, &name);
	if (r < 0)
		return r;
	if (mkdirat(parent->fd, name, req->share->squash ? 0700 : in->mode & 07777) < 0)
		return -errno;
	return finish_new(req, parent, name, S_IFDIR | (in->mode & 07777), 0);
}

/* The node at a name that is about to change, in use, or NULL when the guest knows none. */
static struct node *known_at(struct share *s, struct node *parent, const char *name)
{
	struct statx stx;

	return share_stat(parent->fd, name, &stx) == 0 ? node_known(s, &stx) : NULL;
}

static int remove_name(struct request *req, struct node *parent, int flags)
{
	struct node *node;
	const char *name;
	size_t pos = 0;
	int r = arg_name(req, &pos, &name);

	if (r < 0)
		return r;
	node = known_at(req->share, parent, name);
	if (unlinkat(parent->fd, name, flags) < 0)
		r = -errno;
	else if (node)
		node_unlinked(req->share, node);
	node_put(req->share, node);
	return r;
}

int op_unlink(struct request *req, struct node *parent)
{
	return remove_name(req, parent, 0);
}

int op_rmdir(struct request *req, struct node *parent)
{
	return remove_name(req, parent, AT_REMOVEDIR);
}

static int do_rename(struct request *req, struct node *from, uint64_t to_id, size_t pos,
		     unsigned flags)
{
	struct share *s = req->share;
	struct node *to, *moved, *target;
	const char *old, *new;
	int r = arg_name(req, &pos, &old);

	if (r == 0)
		r = arg_name(req, &pos, &new);
	if (r == 0)
		r = node_get(s, to_id, &to);
	if (r < 0)
		return r;
	moved = known_at(s, from, old);
	target = known_at(s, to, new);
	if (renameat2(from->fd, old, to->fd, new, flags) < 0) {
		r = -errno;
	} else {
		if (moved)
			node_renamed(s, moved, to, new);
		if (target && target != moved && flags & RENAME_EXCHANGE)
			node_renamed(s, target, from, old);
		else if (target && target != moved)
			node_unlinked(s, target);
	}
	node_put(s, target);
	node_put(s, moved);
	node_put(s, to);
	return r;
}

int op_rename(struct request *req, struct node *from)
{
	size_t pos = 0;
	const struct fuse_rename_in *in = arg(req, &pos, sizeof(*in));

	return in ? do_rename(req, from, in->newdir, pos, 0) : -EINVAL;
}

int op_rename2(struct request *req, struct node *from)
{
	size_t pos = 0;
	const struct fuse_rename2_in *in = arg(req, &pos, sizeof(*in));

	if (!in || in->flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT))
		return -EINVAL;
	if (in->flags & RENAME_WHITEOUT && req->share->squash)
		return -EINVAL;	/* a whiteout is a device node: ours to make only as root */
	return do_rename(req, from, in->newdir, pos, in->flags);
}

int op_link(struct request *req, struct node *parent)
{
	size_t pos = 0;
	const struct fuse_link_in *in = arg(req, &pos, sizeof(*in));
	struct node *old, *node;
	struct statx stx;
	char fd_name[16];
	const char *name;
	int r;

	if (!in)
		return -EINVAL;
	r = arg_name(req, &pos, &name);
	if (r == 0)
		r = node_get(req->share, in->oldnodeid, &old);
	if (r < 0)
		return r;
	/* Following /proc/self/fd/N ends at the inode itself, a symbolic link too. */
	(void)snprintf(fd_name, sizeof(fd_name), "%d", old->fd);
	if (linkat(req->share->proc_fd, fd_name, parent->fd, name, AT_SYMLINK_FOLLOW) < 0)
		r = -errno;
	node_put(req->share, old);
	if (r == 0)
		r = lookup(req->share, parent, name, &node, &stx);
	return r < 0 ? r : reply_entry(req, node, &stx);
}

int op_readlink(struct request *req, struct node *node)
{
	char text[PATH_MAX];
	ssize_t n = readlinkat(node->fd, "", text, sizeof(text));

	return n < 0 ? -errno : reply(req, text, (size_t)n);
}

/* Entry and open part of a new open file; gives up the use of @node. */
static int reply_created(struct request *req, struct node *node, const struct statx *stx,
			 uint32_t flags)
{
	struct {
		struct fuse_entry_out entry;
		struct fuse_open_out open;
	} out = { 0 };
	int r = open_node(req, node, flags, 0, &out.open);

	if (r < 0)
		goto fail;
	fill_entry(req->share, node, stx, &out.entry);
	r = reply(req, &out, sizeof(out));
	if (r >= 0) {
		node_put(req->share, node);
		return r;
	}
	handle_close(req->share, out.open.fh);
fail:
	node_forget(req->share, node->id, 1);
	node_put(req->share, node);
	return r;
}

int op_create(struct request *req, struct node *parent)
{
	size_t pos = 0;
	const struct fuse_create_in *in = arg(req, &pos, sizeof(*in));
	struct node *node = NULL;
	struct statx stx;
	const char *name;
	int fd, r;

	if (!in)
		return -EINVAL;
	r = arg_name(req, &pos, &name);
	if (r < 0)
		return r;
	/* Ours alone when it succeeds: a file that exists is looked up, not opened. */
	fd = openat(parent->fd, name, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC | O_NOFOLLOW,
		    req->share->squash ? 0600 : in->mode & 07777);
	if (fd < 0 && errno == EEXIST && !(in->flags & O_EXCL)) {
		r = lookup(req->share, parent, name, &node, &stx);
		return r < 0 ? r : reply_created(req, node, &stx, in->flags);
	}
	if (fd < 0)
		return -errno;
	r = adopt(req, parent, fd, S_IFREG | (in->mode & 07777), 0);
	(void)close(fd);
	if (r < 0)
		(void)unlinkat(parent->fd, name, 0);
	else
		r = lookup(req->share, parent, name, &node, &stx);
	return r < 0 ? r : reply_created(req, node, &stx, in->flags & ~(uint32_t)O_TRUNC);
}

int op_tmpfile(struct request *req, struct node *parent)
{
	size_t pos = 0;
	const struct fuse_create_in *in = arg(req, &pos, sizeof(*in));
	struct node *node = NULL;
	struct statx stx;
	int fd, path_fd, r;
	char fd_name[16];

	if (!in)
		return -EINVAL;
	fd = openat(parent->fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC,
		    req->share->squash ? 0600 : in->mode & 07777);
	if (fd < 0)
		return -errno;
	r = adopt(req, parent, fd, S_IFREG | (in->mode & 07777), 0);
	(void)snprintf(fd_name, sizeof(fd_name), "%d", fd);
	path_fd = r < 0 ? -1 : openat(req->share->proc_fd, fd_name, O_PATH | O_CLOEXEC);
	if (r == 0 && path_fd < 0)
		r = -errno;
	if (r == 0)
		r = enter_fd(req->share, NULL, NULL, path_fd, &node, &stx);
	(void)close(fd);
	return r < 0 ? r : reply_created(req, node, &stx, in->flags & ~(uint32_t)O_TRUNC);
}
