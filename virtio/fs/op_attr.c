/* SPDX-License-Identifier: Apache-2.0 */
/* Attributes, extended attributes, and facts about the file system. */
#include "virtio/fs/fuse.h"
#include "virtio/fs/owner.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#define XATTR_BYTES_MAX 65536u	/* xattr(7): of a value, and of a list */

static int reply_attr(struct request *req, const struct node *node, int fd)
{
	struct fuse_attr_out out = { .attr_valid = req->share->valid_sec };
	struct statx stx;
	int r = share_stat(fd, "", &stx);

	if (r < 0)
		return r;
	share_attr(req->share, node, &stx, &out.attr);
	return reply(req, &out, sizeof(out));
}

int op_getattr(struct request *req, struct node *node)
{
	return reply_attr(req, node, node->fd);
}

/* The view of the guest, for a change of parts of it. */
static int change_squashed(struct request *req, struct node *node, const struct fuse_setattr_in *in)
{
	struct statx stx;
	struct owner o;
	int fd, r;

	if (node->type == S_IFLNK)
		return 0;	/* nowhere to keep it, and archives unpacked by root must not fail */
	fd = node_open(req->share, node, O_RDONLY);
	if (fd < 0)
		return fd;
	r = share_stat(fd, "", &stx);
	if (r == 0) {
		o = owner_default(&stx);
		owner_load(fd, &o);
		if (in->valid & (FATTR_UID | FATTR_GID) && !S_ISDIR(o.mode))
			o.mode &= ~(uint32_t)(S_ISUID | S_ISGID);	/* as chown(2) does */
		if (in->valid & FATTR_MODE)
			o.mode = (o.mode & S_IFMT) | (in->mode & 07777);
		if (in->valid & FATTR_UID)
			o.uid = in->uid;
		if (in->valid & FATTR_GID)
			o.gid = in->gid;
		r = owner_store(fd, &o);
	}
	(void)close(fd);
	return r;
}

static int change_owner_and_mode(struct request *req, struct node *node,
				 const struct fuse_setattr_in *in)
{
	if (!(in->valid & (FATTR_UID | FATTR_GID | FATTR_MODE)))
		return 0;
	if (req->share->squash)
		return change_squashed(req, node, in);
	if (in->valid & (FATTR_UID | FATTR_GID)) {
		uid_t uid = in->valid & FATTR_UID ? in->uid : (uid_t)-1;
		gid_t gid = in->valid & FATTR_GID ? in->gid : (gid_t)-1;

		if (fchownat(node->fd, "", uid, gid, AT_EMPTY_PATH) < 0)
			return -errno;
	}
	if (in->valid & FATTR_MODE) {
		if (node->type == S_IFLNK)
			return -EOPNOTSUPP;
		return chmod_fd(req->share, node->fd, in->mode);
	}
	return 0;
}

int kill_set_id(struct request *req, struct node *node)
{
	struct fuse_setattr_in in = { .valid = FATTR_MODE };
	struct statx stx;
	struct fuse_attr attr;
	int r = share_stat(node->fd, "", &stx);

	if (r < 0)
		return r;
	share_attr(req->share, node, &stx, &attr);
	in.mode = attr.mode & ~(uint32_t)S_ISUID;
	if (attr.mode & S_IXGRP)	/* without it the bit means mandatory locking */
		in.mode &= ~(uint32_t)S_ISGID;
	return in.mode == attr.mode ? 0 : change_owner_and_mode(req, node, &in);
}

static int change_size(struct request *req, struct node *node, const struct fuse_setattr_in *in)
{
	struct handle *h = NULL;
	int fd, r;

	if (!(in->valid & FATTR_SIZE))
		return 0;
	if (in->size > INT64_MAX)
		return -EFBIG;
	if (in->valid & FATTR_FH) {
		r = handle_get(req->share, node, in->fh, &h);
		if (r < 0)
			return r;
		fd = h->fd;
	} else {
		fd = node_open(req->share, node, O_WRONLY);
		if (fd < 0)
			return fd;
	}
	r = ftruncate(fd, (off_t)in->size) < 0 ? -errno : 0;
	if (h)
		handle_put(req->share, h);
	else
		(void)close(fd);
	if (r == 0 && in->valid & FATTR_KILL_SUIDGID)
		r = kill_set_id(req, node);
	return r;
}

static struct timespec time_of(uint32_t valid, uint32_t set, uint32_t now, uint64_t sec, uint32_t nsec)
{
	if (!(valid & set))
		return (struct timespec){ .tv_nsec = UTIME_OMIT };
	if (valid & now)
		return (struct timespec){ .tv_nsec = UTIME_NOW };
	return (struct timespec){ .tv_sec = (time_t)sec, .tv_nsec = nsec };
}

static int change_times(struct node *node, const struct fuse_setattr_in *in)
{
	const struct timespec ts[2] = {
		time_of(in->valid, FATTR_ATIME, FATTR_ATIME_NOW, in->atime, in->atimensec),
		time_of(in->valid, FATTR_MTIME, FATTR_MTIME_NOW, in->mtime, in->mtimensec),
	};

	if (!(in->valid & (FATTR_ATIME | FATTR_MTIME)))
		return 0;
	return utimensat(node->fd, "", ts, AT_EMPTY_PATH) < 0 ? -errno : 0;
}

int op_setattr(struct request *req, struct node *node)
{
	size_t pos = 0;
	const struct fuse_setattr_in *in = arg(req, &pos, sizeof(*in));
	int r;

	if (!in)
		return -EINVAL;
	/* Size before times, as a change of size is a change of times. */
	r = change_owner_and_mode(req, node, in);
	if (r == 0)
		r = change_size(req, node, in);
	if (r == 0)
		r = change_times(node, in);
	return r < 0 ? r : reply_attr(req, node, node->fd);
}

int op_statfs(struct request *req, struct node *node)
{
	struct fuse_statfs_out out = { 0 };
	struct statfs st;

	if (fstatfs(node->fd, &st) < 0)
		return -errno;
	out.st = (struct fuse_kstatfs){
		.blocks = st.f_blocks,
		.bfree = st.f_bfree,
		.bavail = st.f_bavail,
		.files = st.f_files,
		.ffree = st.f_ffree,
		.bsize = (uint32_t)st.f_bsize,
		.namelen = NAME_BYTES_MAX,
		.frsize = (uint32_t)st.f_frsize,
	};
	return reply(req, &out, sizeof(out));
}

int op_access(struct request *req, struct node *node)
{
	size_t pos = 0;
	const struct fuse_access_in *in = arg(req, &pos, sizeof(*in));
	struct fuse_attr attr;
	struct statx stx;
	uint32_t granted;
	int r;

	if (!in || in->mask & ~7u)
		return -EINVAL;
	if (in->mask & W_OK && req->share->read_only)
		return -EROFS;
	r = share_stat(node->fd, "", &stx);
	if (r < 0)
		return r;
	share_attr(req->share, node, &stx, &attr);
	if (req->in.uid == 0)
		granted = R_OK | W_OK | (S_ISDIR(attr.mode) || attr.mode & 0111 ? X_OK : 0);
	else if (req->in.uid == attr.uid)
		granted = attr.mode >> 6;
	else
		granted = req->in.gid == attr.gid ? attr.mode >> 3 : attr.mode;
	return in->mask & ~granted ? -EACCES : 0;
}

/* Attributes the guest may see and set; 0 or the reason why not. */
static int check_xattr_name(const char *name)
{
	if (!name || !*name)
		return -EINVAL;
	if (strlen(name) > NAME_BYTES_MAX)
		return -ERANGE;
	if (strncmp(name, OWNER_XATTR_PREFIX, sizeof(OWNER_XATTR_PREFIX) - 1) == 0)
		return -EPERM;
	/* Nobody would enforce them: the guest's kernel checks modes only. */
	if (strncmp(name, "system.", 7) == 0)
		return -EOPNOTSUPP;
	return 0;
}

/* A real descriptor: the calls on attributes refuse O_PATH ones. */
static int open_for_xattr(struct request *req, struct node *node)
{
	int fd = node_open(req->share, node, O_RDONLY);

	return fd == -ELOOP || fd == -ENXIO ? -EOPNOTSUPP : fd;	/* links and special files */
}

int op_setxattr(struct request *req, struct node *node)
{
	/* The long form needs SETXATTR_EXT, which we do not ask for. */
	size_t pos = 0, value_off;
	const struct fuse_setxattr_in *in = arg(req, &pos, FUSE_COMPAT_SETXATTR_IN_SIZE);
	const char *name = in ? arg_string(req, &pos) : NULL;
	uint8_t *value;
	int fd, r = check_xattr_name(name);

	if (r < 0)
		return r;
	if (in->size > XATTR_BYTES_MAX)
		return -E2BIG;
	value = malloc(in->size ? in->size : 1);
	if (!value)
		return -ENOMEM;
	value_off = sizeof(req->in) + pos;
	if (chain_read(req->chain, value_off, value, in->size) != in->size) {
		free(value);
		return -EINVAL;
	}
	fd = open_for_xattr(req, node);
	r = fd < 0 ? fd : fsetxattr(fd, name, value, in->size, (int)in->flags) < 0 ? -errno : 0;
	if (fd >= 0)
		(void)close(fd);
	free(value);
	return r;
}

/* Replies with @n bytes of @value, or with their number when the guest only asks for that. */
static int reply_xattr(struct request *req, uint32_t asked, const void *value, size_t n)
{
	const struct fuse_getxattr_out out = { .size = (uint32_t)n };

	if (asked == 0)
		return reply(req, &out, sizeof(out));
	return n > asked ? -ERANGE : reply(req, value, n);
}

int op_getxattr(struct request *req, struct node *node)
{
	size_t pos = 0;
	const struct fuse_getxattr_in *in = arg(req, &pos, sizeof(*in));
	const char *name = in ? arg_string(req, &pos) : NULL;
	int fd, r = check_xattr_name(name);
	uint8_t *value;
	ssize_t n;

	if (r < 0)
		return r == -EPERM ? -ENODATA : r;
	fd = open_for_xattr(req, node);
	if (fd < 0)
		return fd == -EOPNOTSUPP ? -ENODATA : fd;
	value = malloc(XATTR_BYTES_MAX);
	n = value ? fgetxattr(fd, name, value, XATTR_BYTES_MAX) : -1;
	if (n < 0)
		r = value ? -errno : -ENOMEM;
	else
		r = reply_xattr(req, in->size, value, (size_t)n);
	free(value);
	(void)close(fd);
	return r;
}

/* Takes names the guest must not see out of a list; returns the bytes left. */
static size_t filter_names(char *list, size_t len)
{
	size_t kept = 0;

	for (size_t at = 0, n; at < len; at += n) {
		n = strnlen(list + at, len - at) + 1;
		if (n > len - at || check_xattr_name(list + at) < 0)
			continue;
		memmove(list + kept, list + at, n);
		kept += n;
	}
	return kept;
}

int op_listxattr(struct request *req, struct node *node)
{
	size_t pos = 0;
	const struct fuse_getxattr_in *in = arg(req, &pos, sizeof(*in));
	char *list;
	ssize_t n;
	int fd, r;

	if (!in)
		return -EINVAL;
	fd = open_for_xattr(req, node);
	if (fd < 0)
		return fd == -EOPNOTSUPP ? reply_xattr(req, in->size, "", 0) : fd;
	list = malloc(XATTR_BYTES_MAX);
	n = list ? flistxattr(fd, list, XATTR_BYTES_MAX) : -1;
	if (n < 0)
		r = list ? -errno : -ENOMEM;
	else
		r = reply_xattr(req, in->size, list, filter_names(list, (size_t)n));
	free(list);
	(void)close(fd);
	return r;
}

int op_removexattr(struct request *req, struct node *node)
{
	size_t pos = 0;
	const char *name = arg_string(req, &pos);
	int fd, r = check_xattr_name(name);

	if (r < 0)
		return r;
	fd = open_for_xattr(req, node);
	if (fd < 0)
		return fd;
	r = fremovexattr(fd, name) < 0 ? -errno : 0;
	(void)close(fd);
	return r;
}
