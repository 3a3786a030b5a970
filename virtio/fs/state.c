/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Saved state of a share.
 *
 *   u32 version, u32 minor, u32 no_open | no_opendir << 1
 *   u32 nodes, per id:   u32 generation, u16 state; when PRESENT:
 *                        u64 nlookup, u64 parent,
 *                        u64 inode, u64 seconds and u32 nanoseconds of its birth,
 *                        stamp of the file at this time, stamp of what the guest may
 *                        have cached of it, u16 name length, name, u16 path length,
 *                        path from the root
 *   u32 handles, per id: u32 generation, u16 state; when PRESENT:
 *                        u64 node, u32 flags
 *   stamp:               u16 valid, u64 size, u64 seconds and u32 nanoseconds of
 *                        the last change
 *
 * Inode numbers only tell whether something has changed: the folder may have been copied.  A path that
 * does not lead to anything on restore makes its node LOST.  The generation of
 * an id is that of its next use.
 */
#include "os/blob.h"
#include "virtio/fs/share.h"
#include "virtio/fs/table.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define STATE_VERSION 2u

enum { STATE_FREE, STATE_PRESENT, STATE_LOST };

static void put_string(struct blob *out, const char *s)
{
	blob_put_u16(out, (uint16_t)strlen(s));
	blob_put(out, s, strlen(s));
}

static int stat_beneath(const struct share *s, const char *path, struct statx *ret_stx)
{
	struct open_how how = { .flags = O_PATH | O_NOFOLLOW | O_CLOEXEC,
				.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS };
	int fd = (int)syscall(SYS_openat2, s->root_fd, path, &how, sizeof(how));
	int r;

	if (fd < 0)
		return -errno;
	r = share_stat(fd, "", ret_stx);
	(void)close(fd);
	return r;
}

static void put_stamp(struct blob *out, const struct stamp *stamp)
{
	blob_put_u16(out, stamp->valid);
	blob_put_u64(out, stamp->size);
	blob_put_u64(out, (uint64_t)stamp->sec);
	blob_put_u32(out, stamp->nsec);
}

static struct stamp take_stamp(struct blob_reader *in)
{
	struct stamp stamp = { .valid = blob_take_u16(in) };

	stamp.size = blob_take_u64(in);
	stamp.sec = (int64_t)blob_take_u64(in);
	stamp.nsec = blob_take_u32(in);
	return stamp;
}

static void save_node(const struct share *s, const struct node *n, struct blob *out)
{
	char buf[PATH_MAX];
	const char *path = node_path(s, n, buf);
	struct stamp now = { .valid = false };
	struct statx stx;

	blob_put_u16(out, path ? STATE_PRESENT : STATE_LOST);
	if (!path)
		return;
	if (n->type == S_IFREG && n->fd >= 0 && share_stat(n->fd, "", &stx) == 0)
		now = stamp_of(&stx);
	blob_put_u64(out, n->nlookup);
	blob_put_u64(out, n->parent ? n->parent->id : 0);
	blob_put_u64(out, n->ino);
	blob_put_u64(out, (uint64_t)n->born_sec);
	blob_put_u32(out, n->born_nsec);
	put_stamp(out, &now);
	put_stamp(out, &n->cached);
	put_string(out, n->name ? n->name : "");
	put_string(out, path);
}

void share_save(struct share *s, struct blob *out)
{
	blob_put_u32(out, STATE_VERSION);
	blob_put_u32(out, s->minor);
	blob_put_u32(out, (uint32_t)s->no_open | (uint32_t)s->no_opendir << 1);
	blob_put_u32(out, s->nodes.used);
	for (uint32_t i = 0; i < s->nodes.used; i++) {
		blob_put_u32(out, s->nodes.generation[i]);
		if (s->nodes.slot[i])
			save_node(s, s->nodes.slot[i], out);
		else
			blob_put_u16(out, STATE_FREE);
	}
	blob_put_u32(out, s->handles.used);
	for (uint32_t i = 0; i < s->handles.used; i++) {
		const struct handle *h = s->handles.slot[i];

		blob_put_u32(out, s->handles.generation[i]);
		blob_put_u16(out, h ? STATE_PRESENT : STATE_FREE);
		if (h) {
			blob_put_u64(out, h->node->id);
			blob_put_u32(out, (uint32_t)h->flags);
		}
	}
}

/* Takes a string into @buf; false when it is longer than fits or holds a NUL. */
static bool take_string(struct blob_reader *in, char *buf, size_t size)
{
	size_t len = blob_take_u16(in);
	const char *bytes = len < size ? blob_take(in, len) : NULL;

	if (!bytes || memchr(bytes, '\0', len))
		return false;
	memcpy(buf, bytes, len);
	buf[len] = '\0';
	return true;
}

/* What the second pass needs to know of a node. */
struct place {
	uint64_t parent;
	char name[NAME_BYTES_MAX + 1];
};

/* What has become of the folder since. */
struct fate {
	bool changed;	/* a path leads to something else by now, or nowhere */
	bool lost;	/* and it is open in the guest */
	char **gone;	/* owned, as what it points to; per node: the path that leads nowhere, or NULL */
	uint32_t n;
};

/* The first is told. */
static void note_lost(struct share *s, struct fate *fate, const char *path)
{
	fate->lost = true;
	if (path && !s->lost[0] && strlen(path) < sizeof(s->lost))
		memcpy(s->lost, path, strlen(path) + 1);
}

static int restore_node(struct share *s, uint64_t id, uint32_t generation, struct place *place,
			struct blob_reader *in, struct fate *fate)
{
	uint64_t nlookup = blob_take_u64(in), ino;
	struct stamp saved, cached, now;
	char path[PATH_MAX];
	struct node *node;
	struct statx stx;
	int64_t born_sec;
	uint32_t born_nsec;

	place->parent = blob_take_u64(in);
	ino = blob_take_u64(in);
	born_sec = (int64_t)blob_take_u64(in);
	born_nsec = blob_take_u32(in);
	saved = take_stamp(in);
	cached = take_stamp(in);
	if (!take_string(in, place->name, sizeof(place->name)) || !take_string(in, path, sizeof(path)))
		return -EINVAL;
	if (id == s->root->id)
		return 0;	/* made with the share */
	if (stat_beneath(s, path, &stx) < 0) {
		place->parent = 0;
		fate->changed = true;
		fate->gone[id - 1] = strdup(path);
		return fate->gone[id - 1] ? table_place(&s->nodes, id, NULL, generation) : -ENOMEM;
	}
	node = node_place(s, id, generation, nlookup, &stx);
	if (!node)
		return -ENOMEM;
	node->cached = cached;
	now = stamp_of(&stx);
	node->other = node->ino != ino || node->born_sec != born_sec || node->born_nsec != born_nsec;
	fate->changed |= node->other;
	/* The guest may go on believing what it has read of a file for a second of its own time. */
	if (saved.valid && !stamp_same(&saved, &now))
		fate->changed = true;
	return 0;
}

static int restore_nodes(struct share *s, struct blob_reader *in, struct fate *fate)
{
	uint32_t n = blob_take_u32(in);
	struct place *place;
	uint8_t *taken;
	int r = 0;

	if (n == 0 || n > in->left / 6)	/* each takes six bytes at least */
		return -EINVAL;
	place = calloc(n, sizeof(*place));
	taken = calloc(n, 1);
	fate->gone = calloc(n, sizeof(*fate->gone));
	fate->n = n;
	if (!place || !taken || !fate->gone)
		r = -ENOMEM;
	table_place_begin(&s->nodes);
	for (uint32_t i = 0; i < n && r == 0; i++) {
		uint32_t generation = blob_take_u32(in);
		uint16_t state = blob_take_u16(in);

		taken[i] = i == 0 || state != STATE_FREE;
		if (state == STATE_PRESENT)
			r = restore_node(s, i + 1ull, generation, &place[i], in, fate);
		else if (i > 0)
			r = table_place(&s->nodes, i + 1ull, NULL, generation);
	}
	/* Parents may have larger ids than their children. */
	for (uint32_t i = 1; i < n && r == 0; i++) {
		struct node *node = table_find(&s->nodes, i + 1ull);
		struct node *parent = table_find(&s->nodes, place[i].parent);

		if (node && parent && *place[i].name && !strchr(place[i].name, '/'))
			node_renamed(s, node, parent, place[i].name);
	}
	if (r == 0)
		table_place_end(&s->nodes, taken, n);
	free(place);
	free(taken);
	return r;
}

/* Opens what a handle stood for.  What had no name when it was saved is lost to the guest, as it knows then. */
static int restore_handle(struct share *s, uint64_t id, uint32_t generation, struct blob_reader *in, struct fate *fate)
{
	uint64_t node_id = blob_take_u64(in);
	int flags = (int)blob_take_u32(in) & (O_ACCMODE | O_APPEND | O_SYNC | O_DSYNC);
	char path[PATH_MAX];
	struct node *node;
	int fd = -1, r;

	if (s->read_only)
		flags = O_RDONLY;
	if (node_get(s, node_id, &node) == 0) {
		if (node->other)
			note_lost(s, fate, node_path(s, node, path));
		fd = node_open(s, node, flags);
		if (fd >= 0 && handle_place(s, id, generation, node, fd, flags) < 0) {
			(void)close(fd);
			fd = -1;
		}
		node_put(s, node);
	}
	if (node_id >= 1 && node_id <= fate->n && fate->gone[node_id - 1])
		note_lost(s, fate, fate->gone[node_id - 1]);
	r = fd < 0 ? table_place(&s->handles, id, NULL, generation) : 0;
	return r;
}

static int restore_handles(struct share *s, struct blob_reader *in, struct fate *fate)
{
	uint32_t n = blob_take_u32(in);
	uint8_t *taken;
	int r = 0;

	if (n > in->left / 6)
		return -EINVAL;
	taken = calloc(n ? n : 1, 1);
	if (!taken)
		return -ENOMEM;
	table_place_begin(&s->handles);
	for (uint32_t i = 0; i < n && r == 0; i++) {
		uint32_t generation = blob_take_u32(in);

		taken[i] = blob_take_u16(in) == STATE_PRESENT;
		r = taken[i] ? restore_handle(s, i + 1ull, generation, in, fate) :
			       table_place(&s->handles, i + 1ull, NULL, generation);
	}
	if (r == 0)
		table_place_end(&s->handles, taken, n);
	free(taken);
	return r;
}

int share_restore(struct share *s, struct blob_reader *in)
{
	struct fate fate = { .n = 0 };
	uint32_t bits;
	int r;

	if (blob_take_u32(in) != STATE_VERSION)
		return -EINVAL;
	s->lost[0] = '\0';
	s->minor = blob_take_u32(in);
	bits = blob_take_u32(in);
	s->no_open = bits & 1 && s->read_only;
	s->no_opendir = bits & 2 && s->read_only;
	r = restore_nodes(s, in, &fate);
	if (r == 0)
		r = restore_handles(s, in, &fate);
	if (r == 0 && in->failed)
		r = -EINVAL;
	fate.lost |= fate.changed && s->cache == VIRTIO_FS_CACHE_ALWAYS;
	for (uint32_t i = 0; fate.gone && i < fate.n; i++)
		free(fate.gone[i]);
	free(fate.gone);
	return r < 0 ? r : fate.lost ? 2 : fate.changed;
}
