/* SPDX-License-Identifier: Apache-2.0 */
/*
 * File locks of the guest as locks of the host.  Private to virtio/fs/.
 *
 * A POSIX lock belongs to a process (the request's owner), of which we are many
 * in one; so each owner gets its own open file description of the file and
 * open-file-description locks on it (fcntl(2), F_OFD_SETLK).  A flock() lock
 * belongs to the open file, and so to our handle's descriptor.
 *
 * No call waits.  Two guest processes that wait for each other are not told
 * EDEADLK.
 */
#ifndef VIRTIO_FS_LOCK_H
#define VIRTIO_FS_LOCK_H

#include <stdint.h>

struct fuse_file_lock;
struct node;
struct share;

/* Sets or drops the POSIX lock @lk for @owner.  0, -EAGAIN when another holds it, -errno. */
int lock_set(struct share *share, struct node *node, uint64_t owner, const struct fuse_file_lock *lk);

/* Finds a lock that stands in the way of @lk; type F_UNLCK when there is none. */
int lock_get(struct share *share, struct node *node, uint64_t owner,
	     const struct fuse_file_lock *lk, struct fuse_file_lock *ret_lk);

/* Sets or drops a flock() lock on an open file.  0, -EAGAIN, -errno. */
int lock_flock(int fd, uint32_t type);

/* The process closed the file: all its POSIX locks on it go. */
void lock_drop_owner(struct share *share, struct node *node, uint64_t owner);

/* Drops all POSIX locks on @node; share->lock held. */
void lock_forget_node(struct node *node);

#endif /* VIRTIO_FS_LOCK_H */
