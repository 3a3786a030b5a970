/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The FUSE server: one request in, one reply out, independent of queues and
 * threads.  Private to virtio/fs/.
 *
 * The fixed part of a request is copied out of guest memory once, checked, and
 * only the copy is used; data of READ and WRITE stays in the guest's buffers.
 */
#ifndef VIRTIO_FS_FUSE_H
#define VIRTIO_FS_FUSE_H

#include "virtio/fs/share.h"

#include <linux/fuse.h>

/* Enough for a symbolic link: its name, its text (PATH_MAX) and two NULs. */
#define REQUEST_ARGS_MAX 4608u

#define FUSE_PAGES_MAX 256u	/* a request moves at most 1 MiB of data */
#define FUSE_DATA_MAX (FUSE_PAGES_MAX * 4096u)

struct request {
	struct share *share;	/* borrowed */
	const struct chain *chain;	/* borrowed */
	bool may_wait;	/* on a thread of the pool */
	struct fuse_in_header in;
	size_t args_len;	/* bytes of args: what follows the header, cut at the maximum */
	uint8_t args[REQUEST_ARGS_MAX];
};

/* What became of a request, beside a number of bytes to give back to the queue. */
enum {
	REQUEST_NEEDS_WAIT = -1,	/* nothing was done: try again with may_wait */
	REQUEST_LOCK_BUSY = -2,	/* SETLKW: nothing was done: try again later */
};

/* Copies header and arguments of @chain.  0, or -EINVAL when there is no header. */
int request_read(struct request *req, struct share *share, const struct chain *chain);

/*
 * Performs the request and writes the reply.  Returns the bytes written (0 for
 * requests without reply) or one of the numbers above.
 */
int64_t request_perform(struct request *req);

/* Writes a bare reply with @error (0 or negative errno).  Returns the bytes written. */
int64_t request_fail(struct request *req, int error);

/* True for requests after which a lock may have become free. */
bool request_may_unlock(const struct request *req);

/* For the handlers in op_*.c.  A handler returns the bytes of its reply, -errno, or: */
enum {
	OP_NO_REPLY = -5001,
	OP_NEEDS_WAIT = -5002,
	OP_LOCK_BUSY = -5003,
};

/* Puts @len bytes after the reply's header.  Returns @len, or -EINVAL without room. */
int reply(struct request *req, const void *bytes, size_t len);
/* Room for data after the reply's header, bytes. */
size_t reply_room(const struct request *req);

/*
 * Takes the next argument: @len bytes, or a NUL-terminated string, from *@pos.
 * NULL when the request is too short.
 */
const void *arg(const struct request *req, size_t *pos, size_t len);
const char *arg_string(const struct request *req, size_t *pos);

/* Takes a name that may name an entry of a folder.  0, -EINVAL or -ENAMETOOLONG. */
int arg_name(const struct request *req, size_t *pos, const char **ret_name);

/* Replies with an entry and gives up the use of @node, which node_enter() counted. */
int reply_entry(struct request *req, struct node *node, const struct statx *stx);
void fill_entry(const struct share *share, const struct node *node, const struct statx *stx,
		struct fuse_entry_out *ret_entry);

/* Looks @name up in @parent.  0 with a use, or -errno. */
int lookup(struct share *share, struct node *parent, const char *name, struct node **ret_node,
	   struct statx *ret_stx);

/* The same for an O_PATH descriptor (ownership passes) of a new object. */
int enter_fd(struct share *share, struct node *parent, const char *name, int fd,
	     struct node **ret_node, struct statx *ret_stx);

/*
 * Gives a new object, just made by us, the owner and mode the guest asked for.
 * @fd is O_PATH.  0 or -errno.
 */
int adopt(struct request *req, const struct node *parent, int fd, uint32_t mode, uint32_t rdev);

/* Changes the mode of what O_PATH descriptor @fd holds. */
int chmod_fd(const struct share *share, int fd, uint32_t mode);

/* Takes set-id bits away, for a change by somebody without CAP_FSETID.  0 or -errno. */
int kill_set_id(struct request *req, struct node *node);

/*
 * Opens a file for the guest's open(2) @flags and FUSE_OPEN_* @fuse_flags.  0 with
 * a handle in @ret_open, or -errno.
 */
int open_node(struct request *req, struct node *node, uint32_t flags, uint32_t fuse_flags,
	      struct fuse_open_out *ret_open);

typedef int (*op_fn)(struct request *req, struct node *node);

/* The operations: @node is the one the header names, in use. */
int op_lookup(struct request *req, struct node *node);
int op_symlink(struct request *req, struct node *node);
int op_mknod(struct request *req, struct node *node);
int op_mkdir(struct request *req, struct node *node);
int op_unlink(struct request *req, struct node *node);
int op_rmdir(struct request *req, struct node *node);
int op_rename(struct request *req, struct node *node);
int op_rename2(struct request *req, struct node *node);
int op_link(struct request *req, struct node *node);
int op_create(struct request *req, struct node *node);
int op_tmpfile(struct request *req, struct node *node);
int op_readlink(struct request *req, struct node *node);
int op_getattr(struct request *req, struct node *node);
int op_setattr(struct request *req, struct node *node);
int op_statfs(struct request *req, struct node *node);
int op_access(struct request *req, struct node *node);
int op_setxattr(struct request *req, struct node *node);
int op_getxattr(struct request *req, struct node *node);
int op_listxattr(struct request *req, struct node *node);
int op_removexattr(struct request *req, struct node *node);
int op_open(struct request *req, struct node *node);
int op_opendir(struct request *req, struct node *node);
int op_read(struct request *req, struct node *node);
int op_write(struct request *req, struct node *node);
int op_flush(struct request *req, struct node *node);
int op_release(struct request *req, struct node *node);
int op_fsync(struct request *req, struct node *node);
int op_syncfs(struct request *req, struct node *node);
int op_fallocate(struct request *req, struct node *node);
int op_lseek(struct request *req, struct node *node);
int op_copy_file_range(struct request *req, struct node *node);
int op_readdir(struct request *req, struct node *node);
int op_readdirplus(struct request *req, struct node *node);
int op_getlk(struct request *req, struct node *node);
int op_setlk(struct request *req, struct node *node);
int op_setlkw(struct request *req, struct node *node);

#endif /* VIRTIO_FS_FUSE_H */
