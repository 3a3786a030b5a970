/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The shared folder as the FUSE server sees it: nodes the guest knows, files it
 * has open.  Private to virtio/fs/.
 *
 * A node is one inode, held by an O_PATH descriptor and known to the guest by
 * an id.  Descriptors of idle nodes are bounded: the least recently used are
 * closed and reopened by name beneath the parent node, and must then still be
 * the same inode (else ESTALE).  A node without a name (unlinked while known)
 * keeps its descriptor.
 *
 *   guest's count     node->nlookup   LOOKUP and its like +1, FORGET -n
 *   threads' count    node->uses      between node_get() and node_put(); pins fd
 *   internal count    node->holds     child nodes and open files
 *
 * A node goes when all three are zero.
 *
 * Threads: share->lock guards both tables and the fields of nodes said to be
 * under it; handlers run on several threads and hold it only for a moment.
 */
#ifndef VIRTIO_FS_SHARE_H
#define VIRTIO_FS_SHARE_H

#include "virtio/fs/fs.h"

#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

struct blob;
struct blob_reader;
struct fuse_attr;
struct fuse_entry_out;
struct lock_owner;

#define NAME_BYTES_MAX 255u

/* By which the data of a file show that they have changed. */
struct stamp {
	bool valid;
	uint64_t size;	/* bytes */
	int64_t sec;	/* of the last change */
	uint32_t nsec;
};

static inline struct stamp stamp_of(const struct statx *stx)
{
	return (struct stamp){ .valid = true, .size = stx->stx_size, .sec = stx->stx_mtime.tv_sec,
			       .nsec = stx->stx_mtime.tv_nsec };
}

static inline bool stamp_same(const struct stamp *a, const struct stamp *b)
{
	return a->valid && b->valid && a->size == b->size && a->sec == b->sec && a->nsec == b->nsec;
}

struct node {
	uint64_t id, generation;
	uint64_t dev, ino, mnt;	/* what it is on the host: the key */
	int64_t born_sec;	/* part of it, as inode numbers are used again; 0 when */
	uint32_t born_nsec;	/* the file system does not record it */
	uint32_t type;	/* S_IFMT part of the host's mode; never changes */

	/* Under share->lock. */
	int fd;	/* O_PATH, owned; -1 when evicted.  Stable while uses > 0 */
	uint64_t nlookup;
	unsigned uses, holds;
	bool keep_fd;	/* has lost its name: cannot be reopened */
	bool other;	/* restored: another object has its name by now */
	struct node *parent;	/* held; NULL for the root and for nameless nodes */
	char *name;	/* owned, beneath parent */
	struct node *hash_next;
	struct node *lru_prev, *lru_next;	/* in share->lru while idle with an fd */
	struct node *walk;	/* scratch of reopening */
	struct lock_owner *locks;	/* owned; see lock.c */
	struct handle *implicit;	/* owned; used when the guest sends no open */
	struct stamp cached;	/* the data the guest may have cached */
	uint64_t pieces;	/* of its data, that the guest has read: reads.c */
	unsigned piece_shift;
};

/* An open file or folder. */
struct handle {
	uint64_t id;	/* 0 for implicit ones */
	struct node *node;	/* held */
	int fd;	/* owned */
	int flags;	/* open(2): access mode, O_APPEND, O_SYNC, O_DSYNC */
	unsigned refs;	/* under share->lock */

	/* Folders only. */
	pthread_mutex_t lock;	/* guards all below */
	uint8_t *entries;	/* owned, DIR_BYTES, allocated at the first read */
	size_t at, len;	/* bytes of it used up and valid */
	uint64_t next_off;	/* directory offset of entries + at */
};

/* Slots by id; ids of freed slots are used again with another generation. */
struct table {
	void **slot;	/* owned */
	uint32_t *generation;	/* owned; how often the slot was used */
	uint32_t *free_list;	/* owned; a stack of free ids */
	uint32_t room, nfree, used;
};

struct share {
	/* Fixed after share_create(). */
	bool read_only, squash, writeback, no_xattr;
	enum virtio_fs_cache cache;
	uint64_t valid_sec;	/* how long names and attributes may be cached */
	int root_fd;	/* owned, O_PATH */
	int proc_fd;	/* owned, /proc/self/fd: opens for real what O_PATH holds */
	unsigned fd_budget;

	char lost[PATH_MAX];	/* below the root: of what share_restore() has not found again; "": none */
	pthread_mutex_t lock;	/* guards all below */
	struct table nodes, handles;
	struct node **hash;	/* owned, hash_size heads */
	uint32_t hash_size, hash_used;
	struct node lru;	/* list head: lru_next is the most recent */
	unsigned idle_fds, open_handles;
	struct node *root;
	uint64_t bytes_read;	/* as far as pieces know */
	_Atomic uint32_t minor;	/* without the lock: protocol minor agreed in INIT, 0 before */
	_Atomic bool no_open, no_opendir;	/* without the lock: the guest can do without opening */
};

int share_create(const struct virtio_fs_options *opt, struct share **ret_share, struct err *err);
void share_destroy(struct share *share);

/*
 * Forgets all the guest knew, but the root.  Objects in use by requests under
 * way go when those are done.
 */
void share_reset(struct share *share);

/* Finds a node the guest names and pins its descriptor.  0, -ESTALE or another errno. */
int node_get(struct share *share, uint64_t id, struct node **ret_node);
void node_put(struct share *share, struct node *node);

/*
 * The node for the inode behind O_PATH descriptor @fd (ownership passes), found
 * under @name in @parent; NULL for a nameless one.  Counts one lookup and
 * returns it with a use, or NULL when memory runs out.
 */
struct node *node_enter(struct share *share, struct node *parent, const char *name, int fd,
			const struct statx *stx);

/* The guest forgets @n lookups. */
void node_forget(struct share *share, uint64_t id, uint64_t n);

/*
 * Finds the node of an inode that is known already; returns it with a use or
 * NULL.  For changes of names: node_renamed() records the new one,
 * node_unlinked() that there may be none.
 */
struct node *node_known(struct share *share, const struct statx *stx);
void node_renamed(struct share *share, struct node *node, struct node *parent, const char *name);
void node_unlinked(struct share *share, struct node *node);

/* The path of @node beneath the root, at the end of @buf; NULL when it has none.  Under share->lock, or while nothing runs. */
const char *node_path(const struct share *share, const struct node *node, char buf[PATH_MAX]);

/* The guest has read @len bytes at @off of @node, for share_reads(). */
void node_was_read(struct share *share, struct node *node, uint64_t off, uint64_t len);
/* As virtio_fs_reads() and virtio_fs_forget_reads(). */
void share_reads(struct share *share, virtio_fs_read_fn fn, void *ctx);
void share_forget_reads(struct share *share);

/* Opens @node for real; it must be a regular file or a folder.  fd or -errno. */
int node_open(const struct share *share, const struct node *node, int flags);

/* Attributes of a host object as the guest is to see them. */
int share_stat(int fd, const char *name, struct statx *ret_stx);
void share_attr(const struct share *share, const struct node *node, const struct statx *stx,
		struct fuse_attr *ret_attr);

/* A new open file on @node; takes @fd on success.  0, -ENFILE or -ENOMEM. */
int handle_create(struct share *share, struct node *node, int fd, int flags,
		  struct handle **ret_handle);
/* Finds an open file with a reference; @id 0 stands for the implicit one of @node. */
int handle_get(struct share *share, struct node *node, uint64_t id, struct handle **ret_handle);
void handle_put(struct share *share, struct handle *handle);
/* Removes it from the table; it goes with its last reference. */
void handle_close(struct share *share, uint64_t id);

/*
 * Appends what share_restore() needs: nodes by path, open files by node.  What
 * has no name is lost (the guest gets ESTALE or EBADF for it), and so are locks.
 * No request may be under way.
 */
void share_save(struct share *share, struct blob *out);

/*
 * Takes that over on a share just reset.  0; 1 when something has changed, as it may at any time; 2 when it is gone or
 * another and the guest has it open, or keeps what it knows of it for good; -EINVAL for bad bytes, -ENOMEM.
 */
int share_restore(struct share *share, struct blob_reader *in);

/* For state.c: places restored objects.  The node gets no descriptor yet. */
struct node *node_place(struct share *share, uint64_t id, uint32_t generation, uint64_t nlookup,
			const struct statx *stx);
int handle_place(struct share *share, uint64_t id, uint32_t generation, struct node *node, int fd,
		 int flags);

#endif /* VIRTIO_FS_SHARE_H */
