/* SPDX-License-Identifier: Apache-2.0 */
/* Nodes: see share.h for what they are and how long they live. */
#include "virtio/fs/share.h"

#include "os/err.h"
#include "os/jail.h"
#include "virtio/fs/lock.h"
#include "virtio/fs/owner.h"
#include "virtio/fs/table.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define HASH_MIN 256u
#define FD_BUDGET_MAX 16384u	/* default; a lower RLIMIT_NOFILE lowers it */
#define DAY_S 86400u

#ifndef STATX_MNT_ID
#define STATX_MNT_ID 0x1000u
#endif

int share_stat(int fd, const char *name, struct statx *ret_stx)
{
	int flags = AT_SYMLINK_NOFOLLOW | AT_STATX_SYNC_AS_STAT | (*name ? 0 : AT_EMPTY_PATH);

	return statx(fd, name, flags, STATX_BASIC_STATS | STATX_BTIME | STATX_MNT_ID, ret_stx) < 0 ? -errno : 0;
}

static uint64_t dev_of(const struct statx *stx)
{
	return makedev(stx->stx_dev_major, stx->stx_dev_minor);
}

static uint32_t hash_of(const struct share *s, uint64_t dev, uint64_t ino)
{
	uint64_t h = (ino ^ dev << 40) * 0x9e3779b97f4a7c15ull;

	return (uint32_t)(h >> 32) & (s->hash_size - 1);
}

static bool is_same(const struct node *n, const struct statx *stx)
{
	return n->ino == stx->stx_ino && n->dev == dev_of(stx) && n->mnt == stx->stx_mnt_id &&
	       n->type == (stx->stx_mode & S_IFMT) && n->born_sec == stx->stx_btime.tv_sec &&
	       n->born_nsec == stx->stx_btime.tv_nsec;
}

static struct node *hash_find(const struct share *s, const struct statx *stx)
{
	struct node *n = s->hash[hash_of(s, dev_of(stx), stx->stx_ino)];

	while (n && !is_same(n, stx))
		n = n->hash_next;
	return n;
}

static void hash_add(struct share *s, struct node *n)
{
	struct node **head = &s->hash[hash_of(s, n->dev, n->ino)];

	n->hash_next = *head;
	*head = n;
	s->hash_used++;
}

static void hash_remove(struct share *s, const struct node *n)
{
	struct node **at = &s->hash[hash_of(s, n->dev, n->ino)];

	while (*at != n)
		at = &(*at)->hash_next;
	*at = n->hash_next;
	s->hash_used--;
}

/* Doubles the table when it is full; when memory is short it merely gets slower. */
static void hash_grow(struct share *s)
{
	uint32_t old_size = s->hash_size;
	struct node **old = s->hash, **bigger;

	if (s->hash_used < s->hash_size)
		return;
	bigger = calloc((size_t)old_size * 2, sizeof(struct node *));
	if (!bigger)
		return;
	s->hash = bigger;
	s->hash_size = old_size * 2;
	s->hash_used = 0;
	for (uint32_t i = 0; i < old_size; i++) {
		struct node *next;

		for (struct node *n = old[i]; n; n = next) {
			next = n->hash_next;
			hash_add(s, n);
		}
	}
	free(old);
}

static void lru_remove(struct share *s, struct node *n)
{
	if (!n->lru_next)
		return;
	n->lru_prev->lru_next = n->lru_next;
	n->lru_next->lru_prev = n->lru_prev;
	n->lru_prev = n->lru_next = NULL;
	s->idle_fds--;
}

static void drop_implicit(struct share *s, struct node *n);

/* Closes descriptors of the longest idle nodes until the budget is kept. */
static void evict(struct share *s)
{
	while (s->idle_fds > s->fd_budget) {
		struct node *n = s->lru.lru_prev;

		lru_remove(s, n);
		drop_implicit(s, n);
		(void)close(n->fd);
		n->fd = -1;
	}
}

/* An idle node with a descriptor that can be opened again is up for eviction. */
static void lru_add(struct share *s, struct node *n)
{
	if (n->uses || n->fd < 0 || n->keep_fd || !n->parent || n->lru_next)
		return;
	n->lru_next = s->lru.lru_next;
	n->lru_prev = &s->lru;
	n->lru_next->lru_prev = n;
	s->lru.lru_next = n;
	s->idle_fds++;
	evict(s);
}

/* Frees nodes nobody counts on any more, up along the parents. */
static void free_unused(struct share *s, struct node *n)
{
	while (n && !n->nlookup && !n->uses && !n->holds) {
		struct node *parent = n->parent;

		lru_remove(s, n);
		hash_remove(s, n);
		table_remove(&s->nodes, n->id);
		drop_implicit(s, n);
		lock_forget_node(n);
		if (n->fd >= 0)
			(void)close(n->fd);
		free(n->name);
		free(n);
		if (parent)
			parent->holds--;
		n = parent;
	}
}

/* True when @n is @of or above it: making it a child would close a ring. */
static bool is_above(const struct node *n, const struct node *of)
{
	for (; of; of = of->parent)
		if (of == n)
			return true;
	return false;
}

/* Records where the node can be reopened.  When memory is short the old place stays. */
static void set_name(struct share *s, struct node *n, struct node *parent, const char *name)
{
	struct node *old = n->parent;
	char *copy;

	if (n == s->root || (old == parent && strcmp(n->name, name) == 0))
		return;
	if (is_above(n, parent))
		return;	/* the host moved folders about: do not believe it */
	copy = strdup(name);
	if (!copy)
		return;
	parent->holds++;
	free(n->name);
	n->name = copy;
	n->parent = parent;
	if (old) {
		old->holds--;
		free_unused(s, old);
	}
}

/* Opens an evicted node beneath its parent, whose descriptor is open. */
static int reopen_one(struct node *n)
{
	struct statx stx;
	int fd = openat(n->parent->fd, n->name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	int r;

	if (fd < 0)
		return errno == ENOENT || errno == ENOTDIR ? -ESTALE : -errno;
	r = share_stat(fd, "", &stx);
	if (r == 0 && !is_same(n, &stx))
		r = -ESTALE;
	if (r < 0) {
		(void)close(fd);
		return r;
	}
	n->fd = fd;
	return 0;
}

/* Opens @n and the evicted folders above it, from the top down. */
static int reopen(struct share *s, struct node *n)
{
	struct node *down = NULL, *top;
	int r = 0;

	for (top = n; top->fd < 0; top = top->parent) {
		if (!top->parent)
			return -ESTALE;
		top->walk = down;
		down = top;
	}
	for (; down && r == 0; down = down->walk)
		r = reopen_one(down);
	/* Only now: nothing on the way may be evicted before its child is open. */
	for (struct node *up = n->parent; up && up != top; up = up->parent)
		lru_add(s, up);
	return r;
}

static int use(struct share *s, struct node *n)
{
	if (n->fd < 0) {
		int r = reopen(s, n);

		if (r < 0)
			return r;
	}
	lru_remove(s, n);
	n->uses++;
	return 0;
}

int node_get(struct share *s, uint64_t id, struct node **ret_node)
{
	struct node *n;
	int r;

	(void)pthread_mutex_lock(&s->lock);
	n = table_find(&s->nodes, id);
	r = n ? use(s, n) : -ESTALE;
	(void)pthread_mutex_unlock(&s->lock);
	if (r == 0)
		*ret_node = n;
	return r;
}

static void unuse(struct share *s, struct node *n)
{
	n->uses--;
	lru_add(s, n);
	free_unused(s, n);
}

void node_put(struct share *s, struct node *n)
{
	if (!n)
		return;
	(void)pthread_mutex_lock(&s->lock);
	unuse(s, n);
	(void)pthread_mutex_unlock(&s->lock);
}

static void identify(struct share *s, struct node *n, int fd, const struct statx *stx)
{
	n->fd = fd;
	n->dev = dev_of(stx);
	n->ino = stx->stx_ino;
	n->mnt = stx->stx_mnt_id;
	n->born_sec = stx->stx_btime.tv_sec;
	n->born_nsec = stx->stx_btime.tv_nsec;
	n->type = stx->stx_mode & S_IFMT;
	hash_grow(s);
	hash_add(s, n);
}

static struct node *new_node(struct share *s, int fd, const struct statx *stx)
{
	struct node *n = calloc(1, sizeof(*n));

	if (!n || table_add(&s->nodes, n, &n->id, &n->generation) < 0) {
		free(n);
		return NULL;
	}
	identify(s, n, fd, stx);
	return n;
}

struct node *node_place(struct share *s, uint64_t id, uint32_t generation, uint64_t nlookup,
			const struct statx *stx)
{
	struct node *n = calloc(1, sizeof(*n));

	/* The table keeps the generation of the next use. */
	if (!n || table_place(&s->nodes, id, n, generation) < 0) {
		free(n);
		return NULL;
	}
	n->id = id;
	n->generation = generation - 1;
	n->nlookup = nlookup;
	identify(s, n, -1, stx);
	return n;
}

struct node *node_enter(struct share *s, struct node *parent, const char *name, int fd,
			const struct statx *stx)
{
	struct node *n;

	(void)pthread_mutex_lock(&s->lock);
	n = hash_find(s, stx);
	if (!n) {
		n = new_node(s, fd, stx);
	} else if (n->fd < 0) {
		n->fd = fd;
	} else {
		(void)close(fd);
	}
	if (!n) {
		(void)close(fd);
	} else {
		lru_remove(s, n);
		n->uses++;
		n->nlookup++;
		if (name)
			set_name(s, n, parent, name);
		else
			n->keep_fd = true;
	}
	(void)pthread_mutex_unlock(&s->lock);
	return n;
}

void node_forget(struct share *s, uint64_t id, uint64_t count)
{
	struct node *n;

	(void)pthread_mutex_lock(&s->lock);
	n = table_find(&s->nodes, id);
	if (n && n != s->root) {
		n->nlookup -= count < n->nlookup ? count : n->nlookup;
		free_unused(s, n);
	}
	(void)pthread_mutex_unlock(&s->lock);
}

struct node *node_known(struct share *s, const struct statx *stx)
{
	struct node *n;

	(void)pthread_mutex_lock(&s->lock);
	n = hash_find(s, stx);
	if (n && use(s, n) < 0)
		n = NULL;
	(void)pthread_mutex_unlock(&s->lock);
	return n;
}

void node_renamed(struct share *s, struct node *n, struct node *parent, const char *name)
{
	(void)pthread_mutex_lock(&s->lock);
	set_name(s, n, parent, name);
	(void)pthread_mutex_unlock(&s->lock);
}

void node_unlinked(struct share *s, struct node *n)
{
	(void)pthread_mutex_lock(&s->lock);
	n->keep_fd = true;
	(void)pthread_mutex_unlock(&s->lock);
}

const char *node_path(const struct share *s, const struct node *n, char buf[PATH_MAX])
{
	char *at = buf + PATH_MAX - 1;

	*at = '\0';
	for (; n != s->root; n = n->parent) {
		size_t len = n->name ? strlen(n->name) : 0;

		if (!n->parent || n->keep_fd || len + 1 > (size_t)(at - buf))
			return NULL;
		if (*at)
			*--at = '/';
		at -= len;
		memcpy(at, n->name, len);
	}
	return at;
}

int node_open(const struct share *s, const struct node *n, int flags)
{
	char name[16];
	int fd;

	/* Anything else could block us or do something on open. */
	if (n->type != S_IFREG && n->type != S_IFDIR)
		return n->type == S_IFLNK ? -ELOOP : -ENXIO;
	(void)snprintf(name, sizeof(name), "%d", n->fd);
	fd = openat(s->proc_fd, name, flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	return fd < 0 ? -errno : fd;
}

static void show_owner(const struct share *s, const struct node *node, const struct statx *stx,
		       struct fuse_attr *a)
{
	struct owner o = owner_default(stx);

	if (S_ISREG(stx->stx_mode) || S_ISDIR(stx->stx_mode)) {
		int fd = node_open(s, node, O_RDONLY);

		if (fd >= 0) {
			owner_load(fd, &o);
			(void)close(fd);
		}
	}
	a->uid = o.uid;
	a->gid = o.gid;
	a->mode = o.mode;
	a->rdev = (uint32_t)makedev(o.rdev_major, o.rdev_minor);
}

void share_attr(const struct share *s, const struct node *node, const struct statx *stx,
		struct fuse_attr *a)
{
	*a = (struct fuse_attr){
		.ino = stx->stx_ino,
		.size = stx->stx_size,
		.blocks = stx->stx_blocks,
		.atime = (uint64_t)stx->stx_atime.tv_sec,
		.mtime = (uint64_t)stx->stx_mtime.tv_sec,
		.ctime = (uint64_t)stx->stx_ctime.tv_sec,
		.atimensec = stx->stx_atime.tv_nsec,
		.mtimensec = stx->stx_mtime.tv_nsec,
		.ctimensec = stx->stx_ctime.tv_nsec,
		.mode = stx->stx_mode,
		.nlink = stx->stx_nlink,
		.uid = stx->stx_uid,
		.gid = stx->stx_gid,
		.rdev = (uint32_t)makedev(stx->stx_rdev_major, stx->stx_rdev_minor),
		.blksize = stx->stx_blksize,
	};
	/* One share is one device to the guest, but may span several here:
	 * programs that compare inode numbers must not take two files for one. */
	if (dev_of(stx) != s->root->dev)
		a->ino ^= dev_of(stx) << 40;
	if (s->squash)
		show_owner(s, node, stx, a);
}

static void free_handle(struct share *s, struct handle *h)
{
	if (h->fd >= 0)
		(void)close(h->fd);
	free(h->entries);
	(void)pthread_mutex_destroy(&h->lock);
	s->open_handles--;
	free(h);
}

static void drop_implicit(struct share *s, struct node *n)
{
	if (n->implicit)
		free_handle(s, n->implicit);
	n->implicit = NULL;
}

static struct handle *new_handle(struct share *s, struct node *n, int fd, int flags)
{
	struct handle *h = calloc(1, sizeof(*h));

	if (!h)
		return NULL;
	h->fd = fd;
	h->node = n;
	h->flags = flags & (O_ACCMODE | O_APPEND | O_SYNC | O_DSYNC);
	h->refs = 1;
	(void)pthread_mutex_init(&h->lock, NULL);
	s->open_handles++;
	return h;
}

int handle_create(struct share *s, struct node *n, int fd, int flags, struct handle **ret_handle)
{
	uint64_t generation;
	struct handle *h;
	int r = 0;

	(void)pthread_mutex_lock(&s->lock);
	h = s->open_handles < s->fd_budget ? new_handle(s, n, fd, flags) : NULL;
	if (!h) {
		r = s->open_handles < s->fd_budget ? -ENOMEM : -ENFILE;
	} else if (table_add(&s->handles, h, &h->id, &generation) < 0) {
		h->fd = -1;	/* stays with the caller */
		free_handle(s, h);
		r = -ENOMEM;
	} else {
		n->holds++;
		*ret_handle = h;
	}
	(void)pthread_mutex_unlock(&s->lock);
	return r;
}

int handle_place(struct share *s, uint64_t id, uint32_t generation, struct node *n, int fd, int flags)
{
	struct handle *h = s->open_handles < s->fd_budget ? new_handle(s, n, fd, flags) : NULL;

	if (!h)
		return -ENFILE;
	if (table_place(&s->handles, id, h, generation) < 0) {
		h->fd = -1;	/* stays with the caller */
		free_handle(s, h);
		return -ENOMEM;
	}
	h->id = id;
	n->holds++;
	return 0;
}

/* The implicit handle lives and dies with the node's descriptor. */
static int get_implicit(struct share *s, struct node *n, struct handle **ret_handle)
{
	if (!n->implicit) {
		int fd = node_open(s, n, O_RDONLY);

		if (fd < 0)
			return fd;
		n->implicit = new_handle(s, n, fd, O_RDONLY);
		if (!n->implicit) {
			(void)close(fd);
			return -ENOMEM;
		}
	}
	*ret_handle = n->implicit;	/* the caller's use of the node keeps it */
	return 0;
}

int handle_get(struct share *s, struct node *n, uint64_t id, struct handle **ret_handle)
{
	struct handle *h;
	int r = 0;

	(void)pthread_mutex_lock(&s->lock);
	if (id == 0) {
		r = get_implicit(s, n, ret_handle);
	} else {
		h = table_find(&s->handles, id);
		if (h && h->node == n) {
			h->refs++;
			*ret_handle = h;
		} else {
			r = -EBADF;
		}
	}
	(void)pthread_mutex_unlock(&s->lock);
	return r;
}

static void unref_handle(struct share *s, struct handle *h)
{
	struct node *n = h->node;

	if (--h->refs)
		return;
	free_handle(s, h);
	n->holds--;
	free_unused(s, n);
}

void handle_put(struct share *s, struct handle *h)
{
	if (!h || h->id == 0)
		return;
	(void)pthread_mutex_lock(&s->lock);
	unref_handle(s, h);
	(void)pthread_mutex_unlock(&s->lock);
}

static void close_locked(struct share *s, uint64_t id)
{
	struct handle *h = table_find(&s->handles, id);

	if (h) {
		table_remove(&s->handles, id);
		unref_handle(s, h);
	}
}

void handle_close(struct share *s, uint64_t id)
{
	(void)pthread_mutex_lock(&s->lock);
	close_locked(s, id);
	(void)pthread_mutex_unlock(&s->lock);
}

void share_reset(struct share *s)
{
	(void)pthread_mutex_lock(&s->lock);
	s->bytes_read = 0;
	for (uint32_t id = 1; id <= s->handles.used; id++)
		close_locked(s, id);
	/* In any order: a node held by its children goes with the last of them. */
	for (uint32_t id = 1; id <= s->nodes.used; id++) {
		struct node *n = table_find(&s->nodes, id);

		if (n && n != s->root) {
			n->nlookup = 0;
			free_unused(s, n);
		}
	}
	lock_forget_node(s->root);
	if (!s->root->uses)
		drop_implicit(s, s->root);
	s->minor = 0;
	(void)pthread_mutex_unlock(&s->lock);
}

static unsigned default_budget(void)
{
	struct rlimit lim;
	rlim_t n = FD_BUDGET_MAX;

	/* A third each for nodes and open files; the rest is the program's. */
	if (getrlimit(RLIMIT_NOFILE, &lim) == 0 && lim.rlim_cur / 3 < n)
		n = lim.rlim_cur / 3;
	return n < 16 ? 16 : (unsigned)n;
}

static uint64_t valid_seconds(enum virtio_fs_cache cache)
{
	if (cache == VIRTIO_FS_CACHE_NONE)
		return 0;
	return cache == VIRTIO_FS_CACHE_ALWAYS ? DAY_S : 1;
}

static int add_root(struct share *s)
{
	struct statx stx;
	int r = share_stat(s->root_fd, "", &stx);
	int fd;

	if (r < 0)
		return r;
	fd = dup(s->root_fd);
	if (fd < 0)
		return -errno;
	s->root = new_node(s, fd, &stx);
	if (!s->root) {
		(void)close(fd);
		return -ENOMEM;
	}
	s->root->nlookup = 1;	/* for ever; its id is 1, as FUSE wants */
	return 0;
}

/* A kernel without detached trees serves the folder where it is. */
static int open_folder(const char *path, bool detach, bool read_only, int *ret_fd)
{
	int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC), tree;

	if (fd < 0)
		return -errno;
	tree = detach ? jail_detach(fd, read_only) : -ENOSYS;
	if (tree >= 0) {
		(void)close(fd);
		fd = tree;
	} else if (tree != -ENOSYS) {
		(void)close(fd);
		return tree;
	}
	*ret_fd = fd;
	return 0;
}

int share_create(const struct virtio_fs_options *opt, struct share **ret_share, struct err *err)
{
	struct share *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return err_set(err, -ENOMEM, "share '%s': out of memory", opt->path);
	s->root_fd = s->proc_fd = -1;
	(void)pthread_mutex_init(&s->lock, NULL);
	s->lru.lru_next = s->lru.lru_prev = &s->lru;
	s->read_only = opt->read_only;
	s->cache = opt->cache;
	s->valid_sec = valid_seconds(opt->cache);
	s->writeback = opt->writeback && !opt->read_only;
	s->no_xattr = opt->no_xattr;
	s->squash = opt->owner == VIRTIO_FS_OWNER_SQUASH ||
		    (opt->owner == VIRTIO_FS_OWNER_AUTO && geteuid() != 0);
	s->fd_budget = opt->fd_budget ? opt->fd_budget : default_budget();
	s->hash_size = HASH_MIN;
	s->hash = calloc(s->hash_size, sizeof(struct node *));
	if (!s->hash) {
		r = -ENOMEM;
		goto fail;
	}
	r = open_folder(opt->path, opt->detach, opt->read_only, &s->root_fd);
	if (r < 0)
		goto fail;
	r = open_folder("/proc/self/fd", opt->detach, false, &s->proc_fd);
	if (r < 0) {
		share_destroy(s);
		return err_set(err, r, "share '%s': /proc is needed: %s", opt->path, strerror(-r));
	}
	r = add_root(s);
	if (r < 0)
		goto fail;
	*ret_share = s;
	return 0;

fail:
	share_destroy(s);
	return err_set(err, r, "share '%s': %s", opt->path, strerror(-r));
}

void share_destroy(struct share *s)
{
	if (!s)
		return;
	if (s->root) {
		share_reset(s);
		s->root->nlookup = 0;
		free_unused(s, s->root);
	}
	table_finish(&s->nodes);
	table_finish(&s->handles);
	free(s->hash);
	if (s->proc_fd >= 0)
		(void)close(s->proc_fd);
	if (s->root_fd >= 0)
		(void)close(s->root_fd);
	(void)pthread_mutex_destroy(&s->lock);
	free(s);
}
