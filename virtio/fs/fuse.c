/* SPDX-License-Identifier: Apache-2.0 */
/* Requests and replies, and the table of operations. */
#include "virtio/fs/fuse.h"

#include "base/checked.h"

#include <errno.h>
#include <string.h>

#define HEADER sizeof(struct fuse_out_header)
#define MINOR_MIN 31u	/* older kernels never spoke virtio-fs */

#define FLAGS_ALWAYS (FUSE_ASYNC_READ | FUSE_ATOMIC_O_TRUNC | FUSE_BIG_WRITES | FUSE_DO_READDIRPLUS | \
		      FUSE_READDIRPLUS_AUTO | FUSE_ASYNC_DIO | FUSE_PARALLEL_DIROPS | FUSE_HANDLE_KILLPRIV_V2 | \
		      FUSE_MAX_PAGES | FUSE_INIT_EXT)

int reply(struct request *req, const void *bytes, size_t len)
{
	return chain_write(req->chain, HEADER, bytes, len) == len ? (int)len : -EINVAL;
}

size_t reply_room(const struct request *req)
{
	return req->chain->write_len > HEADER ? req->chain->write_len - HEADER : 0;
}

const void *arg(const struct request *req, size_t *pos, size_t len)
{
	const void *at = req->args + *pos;

	if (!range_ok(*pos, len, req->args_len))
		return NULL;
	*pos += len;
	return at;
}

const char *arg_string(const struct request *req, size_t *pos)
{
	const char *at = (const char *)req->args + *pos;
	const char *nul = *pos < req->args_len ? memchr(at, '\0', req->args_len - *pos) : NULL;

	if (!nul)
		return NULL;
	*pos += (size_t)(nul - at) + 1;
	return at;
}

int arg_name(const struct request *req, size_t *pos, const char **ret_name)
{
	const char *name = arg_string(req, pos);

	if (!name || !*name || strchr(name, '/') || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return -EINVAL;
	if (strlen(name) > NAME_BYTES_MAX)
		return -ENAMETOOLONG;
	*ret_name = name;
	return 0;
}

int request_read(struct request *req, struct share *share, const struct chain *chain)
{
	size_t args_max = sizeof(req->args);

	if (chain_read(chain, 0, &req->in, sizeof(req->in)) != sizeof(req->in))
		return -EINVAL;
	if (req->in.opcode == FUSE_WRITE)
		args_max = sizeof(struct fuse_write_in);	/* the data stays where it is */
	req->share = share;
	req->chain = chain;
	req->may_wait = false;
	req->args_len = chain_read(chain, sizeof(req->in), req->args, args_max);
	return 0;
}

static int op_init(struct request *req, struct node *node)
{
	struct share *s = req->share;
	size_t pos = 0;
	const struct fuse_init_in *in = arg(req, &pos, offsetof(struct fuse_init_in, flags2));
	struct fuse_init_out out = {
		.major = FUSE_KERNEL_VERSION,
		.minor = FUSE_KERNEL_MINOR_VERSION,
		.max_background = 64,
		.congestion_threshold = 48,
		.max_write = FUSE_DATA_MAX,
		.time_gran = 1,
		.max_pages = FUSE_PAGES_MAX,
	};
	uint32_t want = FLAGS_ALWAYS;

	if (!in)
		return -EINVAL;
	if (in->major > FUSE_KERNEL_VERSION)	/* the guest will ask again with ours */
		return reply(req, &out, sizeof(out));
	if (in->major < FUSE_KERNEL_VERSION || in->minor < MINOR_MIN)
		return -EPROTO;
	if (s->writeback)
		want |= FUSE_WRITEBACK_CACHE;
	want |= s->cache == VIRTIO_FS_CACHE_ALWAYS ? FUSE_CACHE_SYMLINKS : FUSE_AUTO_INVAL_DATA;
	/* Where nobody writes, opens and closes need not be sent; but closing is
	 * what drops locks, so the guest then keeps those to itself. */
	if (s->cache == VIRTIO_FS_CACHE_ALWAYS && s->read_only)
		want |= FUSE_NO_OPEN_SUPPORT | FUSE_NO_OPENDIR_SUPPORT;
	else
		want |= FUSE_POSIX_LOCKS | FUSE_FLOCK_LOCKS;
	out.flags = in->flags & want;
	out.max_readahead = in->max_readahead < FUSE_DATA_MAX ? in->max_readahead : FUSE_DATA_MAX;
	s->no_open = out.flags & FUSE_NO_OPEN_SUPPORT;
	s->no_opendir = out.flags & FUSE_NO_OPENDIR_SUPPORT;
	s->minor = in->minor < FUSE_KERNEL_MINOR_VERSION ? in->minor : FUSE_KERNEL_MINOR_VERSION;
	return reply(req, &out, sizeof(out));
}

static int op_destroy(struct request *req, struct node *node)
{
	share_reset(req->share);	/* the guest unmounted: it sends no FORGETs for what it knew */
	return 0;
}

static int op_forget(struct request *req, struct node *node)
{
	size_t pos = 0;
	const struct fuse_forget_in *in = arg(req, &pos, sizeof(*in));

	if (in)
		node_forget(req->share, req->in.nodeid, in->nlookup);
	return OP_NO_REPLY;
}

static int op_batch_forget(struct request *req, struct node *node)
{
	size_t pos = 0, off = sizeof(req->in) + sizeof(struct fuse_batch_forget_in);
	const struct fuse_batch_forget_in *in = arg(req, &pos, sizeof(*in));
	struct fuse_forget_one one;

	/* Longer than what was copied, so each record is read from the chain, once. */
	for (uint32_t i = 0; in && i < in->count; i++, off += sizeof(one)) {
		if (chain_read(req->chain, off, &one, sizeof(one)) != sizeof(one))
			break;
		node_forget(req->share, one.nodeid, one.nlookup);
	}
	return OP_NO_REPLY;
}

static int op_none(struct request *req, struct node *node)
{
	return -ENOTTY;
}

enum {
	NO_NODE = 1,	/* the header's node means nothing or need not exist */
	CHANGES = 2,	/* EROFS on read-only shares */
	WAITS = 4,	/* belongs on the pool */
	XATTR = 8,	/* ENOSYS without extended attributes: the guest then stops asking */
};

static const struct op {
	op_fn fn;
	unsigned flags;
} ops[] = {
	[FUSE_LOOKUP] = { op_lookup, 0 },
	[FUSE_FORGET] = { op_forget, NO_NODE },
	[FUSE_GETATTR] = { op_getattr, 0 },
	[FUSE_SETATTR] = { op_setattr, CHANGES },
	[FUSE_READLINK] = { op_readlink, 0 },
	[FUSE_SYMLINK] = { op_symlink, CHANGES },
	[FUSE_MKNOD] = { op_mknod, CHANGES },
	[FUSE_MKDIR] = { op_mkdir, CHANGES },
	[FUSE_UNLINK] = { op_unlink, CHANGES },
	[FUSE_RMDIR] = { op_rmdir, CHANGES },
	[FUSE_RENAME] = { op_rename, CHANGES },
	[FUSE_LINK] = { op_link, CHANGES },
	[FUSE_OPEN] = { op_open, 0 },
	[FUSE_READ] = { op_read, 0 },
	[FUSE_WRITE] = { op_write, CHANGES },
	[FUSE_STATFS] = { op_statfs, 0 },
	[FUSE_RELEASE] = { op_release, NO_NODE },
	[FUSE_FSYNC] = { op_fsync, WAITS },
	[FUSE_SETXATTR] = { op_setxattr, CHANGES | XATTR },
	[FUSE_GETXATTR] = { op_getxattr, XATTR },
	[FUSE_LISTXATTR] = { op_listxattr, XATTR },
	[FUSE_REMOVEXATTR] = { op_removexattr, CHANGES | XATTR },
	[FUSE_FLUSH] = { op_flush, 0 },
	[FUSE_INIT] = { op_init, NO_NODE },
	[FUSE_OPENDIR] = { op_opendir, 0 },
	[FUSE_READDIR] = { op_readdir, 0 },
	[FUSE_RELEASEDIR] = { op_release, NO_NODE },
	[FUSE_FSYNCDIR] = { op_fsync, WAITS },
	[FUSE_GETLK] = { op_getlk, 0 },
	[FUSE_SETLK] = { op_setlk, 0 },
	[FUSE_SETLKW] = { op_setlkw, 0 },
	[FUSE_ACCESS] = { op_access, 0 },
	[FUSE_CREATE] = { op_create, CHANGES },
	[FUSE_DESTROY] = { op_destroy, NO_NODE },
	[FUSE_IOCTL] = { op_none, NO_NODE },
	[FUSE_BATCH_FORGET] = { op_batch_forget, NO_NODE },
	[FUSE_FALLOCATE] = { op_fallocate, CHANGES | WAITS },
	[FUSE_READDIRPLUS] = { op_readdirplus, 0 },
	[FUSE_RENAME2] = { op_rename2, CHANGES },
	[FUSE_LSEEK] = { op_lseek, 0 },
	[FUSE_COPY_FILE_RANGE] = { op_copy_file_range, CHANGES | WAITS },
	[FUSE_SYNCFS] = { op_syncfs, WAITS },
	[FUSE_TMPFILE] = { op_tmpfile, CHANGES },
};

static int perform(struct request *req)
{
	struct share *s = req->share;
	const struct op *op = req->in.opcode < ARRAY_SIZE(ops) ? &ops[req->in.opcode] : NULL;
	struct node *node = NULL;
	int r;

	if (!op || !op->fn || (op->flags & XATTR && s->no_xattr))
		return -ENOSYS;
	if (!s->minor && req->in.opcode != FUSE_INIT)
		return -EPROTO;
	if (op->flags & CHANGES && s->read_only)
		return -EROFS;
	if (op->flags & WAITS && !req->may_wait)
		return OP_NEEDS_WAIT;
	if (!(op->flags & NO_NODE)) {
		r = node_get(s, req->in.nodeid, &node);
		if (r < 0)
			return r;
	}
	r = op->fn(req, node);
	node_put(s, node);
	return r;
}

static int64_t finish(struct request *req, int error, size_t len)
{
	struct fuse_out_header out = { .len = (uint32_t)(HEADER + len), .error = error,
				       .unique = req->in.unique };

	/* Without room for even a header there is nobody to tell. */
	if (chain_write(req->chain, 0, &out, sizeof(out)) < sizeof(out))
		return 0;
	return out.len;
}

int64_t request_fail(struct request *req, int error)
{
	return finish(req, error, 0);
}

static bool has_no_reply(uint32_t opcode)
{
	return opcode == FUSE_FORGET || opcode == FUSE_BATCH_FORGET || opcode == FUSE_INTERRUPT;
}

int64_t request_perform(struct request *req)
{
	int r = perform(req);

	switch (r) {
	case OP_NEEDS_WAIT:
		return REQUEST_NEEDS_WAIT;
	case OP_LOCK_BUSY:
		return REQUEST_LOCK_BUSY;
	case OP_NO_REPLY:
		return 0;
	default:
		if (has_no_reply(req->in.opcode))
			return 0;
		return r < 0 ? finish(req, r, 0) : finish(req, 0, (size_t)r);
	}
}

bool request_may_unlock(const struct request *req)
{
	switch (req->in.opcode) {
	case FUSE_SETLK:
	case FUSE_SETLKW:
	case FUSE_FLUSH:
	case FUSE_RELEASE:
	case FUSE_DESTROY:
		return true;
	default:
		return false;
	}
}
