/* SPDX-License-Identifier: Apache-2.0 */
#include "virtio/fs/lock.h"

#include "virtio/fs/share.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>

/* One owner's locks on one node; in node->locks, under share->lock. */
struct lock_owner {
	struct lock_owner *next;
	uint64_t owner;
	int fd;	/* owned; closing it drops the locks */
};

static int to_flock(const struct fuse_file_lock *lk, struct flock *ret)
{
	/* The guest gives both ends inclusive; the largest offset means "to the end". */
	if (lk->start > INT64_MAX || lk->end > INT64_MAX || lk->start > lk->end)
		return -EINVAL;
	if (lk->type != F_RDLCK && lk->type != F_WRLCK && lk->type != F_UNLCK)
		return -EINVAL;
	*ret = (struct flock){
		.l_type = (short)lk->type,
		.l_whence = SEEK_SET,
		.l_start = (off_t)lk->start,
		.l_len = lk->end == INT64_MAX ? 0 : (off_t)(lk->end - lk->start + 1),
	};
	return 0;
}

static struct lock_owner *find(const struct node *node, uint64_t owner)
{
	struct lock_owner *o = node->locks;

	while (o && o->owner != owner)
		o = o->next;
	return o;
}

static int open_for_lock(const struct share *share, const struct node *node)
{
	int fd = share->read_only ? -EACCES : node_open(share, node, O_RDWR);

	/* A read lock is possible without write access. */
	return fd == -EACCES || fd == -EROFS ? node_open(share, node, O_RDONLY) : fd;
}

static int find_or_add(struct share *share, struct node *node, uint64_t owner,
		       struct lock_owner **ret_owner)
{
	struct lock_owner *o = find(node, owner);

	if (!o) {
		if (share->open_handles >= share->fd_budget)
			return -ENOLCK;
		o = malloc(sizeof(*o));
		if (!o)
			return -ENOLCK;
		*o = (struct lock_owner){ .owner = owner, .fd = open_for_lock(share, node) };
		if (o->fd < 0) {
			int r = o->fd;

			free(o);
			return r;
		}
		o->next = node->locks;
		node->locks = o;
	}
	*ret_owner = o;
	return 0;
}

int lock_set(struct share *share, struct node *node, uint64_t owner, const struct fuse_file_lock *lk)
{
	struct lock_owner *o;
	struct flock fl;
	int r = to_flock(lk, &fl);

	if (r < 0)
		return r;
	(void)pthread_mutex_lock(&share->lock);
	o = find(node, owner);
	if (o || fl.l_type != F_UNLCK)	/* nothing to drop otherwise */
		r = find_or_add(share, node, owner, &o);
	if (r == 0 && o && fcntl(o->fd, F_OFD_SETLK, &fl) < 0)
		r = errno == EACCES ? -EAGAIN : -errno;
	(void)pthread_mutex_unlock(&share->lock);
	return r;
}

int lock_get(struct share *share, struct node *node, uint64_t owner,
	     const struct fuse_file_lock *lk, struct fuse_file_lock *ret_lk)
{
	struct lock_owner *o;
	struct flock fl;
	int fd = -1, r = to_flock(lk, &fl);

	if (r < 0)
		return r;
	(void)pthread_mutex_lock(&share->lock);
	o = find(node, owner);
	if (!o)
		fd = open_for_lock(share, node);
	if (!o && fd < 0)
		r = fd;
	else if (fcntl(o ? o->fd : fd, F_OFD_GETLK, &fl) < 0)
		r = -errno;
	(void)pthread_mutex_unlock(&share->lock);
	if (fd >= 0)
		(void)close(fd);
	if (r < 0)
		return r;
	*ret_lk = (struct fuse_file_lock){ .type = (uint32_t)fl.l_type };
	if (fl.l_type != F_UNLCK) {
		ret_lk->start = (uint64_t)fl.l_start;
		ret_lk->end = fl.l_len ? (uint64_t)(fl.l_start + fl.l_len - 1) : INT64_MAX;
		ret_lk->pid = fl.l_pid > 0 ? (uint32_t)fl.l_pid : 0;	/* -1: no one process */
	}
	return 0;
}

int lock_flock(int fd, uint32_t type)
{
	int op = type == F_UNLCK ? LOCK_UN : (type == F_WRLCK ? LOCK_EX : LOCK_SH) | LOCK_NB;

	return flock(fd, op) < 0 ? -errno : 0;
}

void lock_drop_owner(struct share *share, struct node *node, uint64_t owner)
{
	(void)pthread_mutex_lock(&share->lock);
	for (struct lock_owner **at = &node->locks; *at; at = &(*at)->next) {
		struct lock_owner *o = *at;

		if (o->owner != owner)
			continue;
		*at = o->next;
		(void)close(o->fd);
		free(o);
		break;
	}
	(void)pthread_mutex_unlock(&share->lock);
}

void lock_forget_node(struct node *node)
{
	struct lock_owner *o;

	while ((o = node->locks)) {
		node->locks = o->next;
		(void)close(o->fd);
		free(o);
	}
}
