/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading folders.  The host's directory offsets are passed to the guest as
 * they are, so that it may go on anywhere; entries read ahead of what fitted in
 * a reply wait in the handle.
 */
#include "virtio/fs/fuse.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DIR_BYTES 32768u	/* read from the host at once */

/* The largest record: READDIRPLUS with the longest name. */
#define RECORD_MAX (FUSE_NAME_OFFSET_DIRENTPLUS + NAME_BYTES_MAX + 8)

int op_opendir(struct request *req, struct node *node)
{
	size_t pos = 0;
	struct share *s = req->share;
	struct fuse_open_out out = { 0 };
	struct handle *h;
	int fd, r;

	if (!arg(req, &pos, sizeof(struct fuse_open_in)))
		return -EINVAL;
	if (node->type != S_IFDIR)
		return -ENOTDIR;
	if (s->no_opendir)
		return -ENOSYS;	/* agreed on in INIT: from now on it does not ask */
	fd = node_open(s, node, O_RDONLY | O_DIRECTORY);
	if (fd < 0)
		return fd;
	r = handle_create(s, node, fd, O_RDONLY, &h);
	if (r < 0) {
		(void)close(fd);
		return r;
	}
	out.fh = h->id;
	if (s->cache == VIRTIO_FS_CACHE_ALWAYS)
		out.open_flags = FOPEN_KEEP_CACHE | FOPEN_CACHE_DIR;
	r = reply(req, &out, sizeof(out));
	if (r < 0)
		handle_close(s, out.fh);
	return r;
}

/* Makes entries + at the entry after @off.  1, 0 at the end, or -errno.  h->lock held. */
static int next_entry(struct handle *h, uint64_t off, const struct dirent64 **ret_entry)
{
	ssize_t n;

	if (!h->entries) {
		h->entries = malloc(DIR_BYTES);
		if (!h->entries)
			return -ENOMEM;
		h->next_off = 0;
	}
	if (off != h->next_off) {
		if (lseek(h->fd, (off_t)off, SEEK_SET) < 0)
			return -errno;
		h->at = h->len = 0;
		h->next_off = off;
	}
	if (h->at == h->len) {
		n = getdents64(h->fd, h->entries, DIR_BYTES);
		if (n <= 0)
			return n < 0 ? -errno : 0;
		h->at = 0;
		h->len = (size_t)n;
	}
	*ret_entry = (const struct dirent64 *)(const void *)(h->entries + h->at);
	return 1;
}

static void skip_entry(struct handle *h, const struct dirent64 *e)
{
	h->at += e->d_reclen;
	h->next_off = (uint64_t)e->d_off;
}

static bool is_dots(const char *name)
{
	return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

static struct fuse_dirent dirent_of(const struct share *s, const struct dirent64 *e, size_t namelen)
{
	return (struct fuse_dirent){
		.ino = e->d_ino,
		.off = (uint64_t)e->d_off,
		.namelen = (uint32_t)namelen,
		/* When squashed, a regular file may stand for something else. */
		.type = s->squash && e->d_type == DT_REG ? DT_UNKNOWN : e->d_type,
	};
}

/*
 * Puts the entry part of a READDIRPLUS record at @record and counts a lookup.
 * The guest looks the entry up itself when it says node 0.
 */
static int look_up_entry(struct request *req, struct node *dir, const struct dirent64 *e,
			 struct fuse_direntplus *record)
{
	struct node *node;
	struct statx stx;
	int r;

	if (is_dots(e->d_name))
		return 0;
	r = lookup(req->share, dir, e->d_name, &node, &stx);
	if (r == -ENOENT)
		return r;	/* gone since it was listed */
	if (r < 0)
		return 0;
	fill_entry(req->share, node, &stx, &record->entry_out);
	record->dirent.type = (record->entry_out.attr.mode & S_IFMT) >> 12;
	node_put(req->share, node);
	return 0;
}

/*
 * Appends one record at byte @at of the reply.  Returns its size, 0 when it has
 * no room, -ENOENT when the entry is to be left out.
 */
static int put_record(struct request *req, struct node *dir, const struct dirent64 *e, bool plus,
		      size_t at, size_t room)
{
	union {
		struct fuse_direntplus plus;
		uint8_t bytes[RECORD_MAX];
	} record = { 0 };
	size_t namelen = strnlen(e->d_name, NAME_BYTES_MAX);
	size_t skip = plus ? 0 : offsetof(struct fuse_direntplus, dirent);
	size_t size = FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET_DIRENTPLUS - skip + namelen);
	int r;

	if (size > room - at)
		return 0;
	record.plus.dirent = dirent_of(req->share, e, namelen);
	if (plus) {
		r = look_up_entry(req, dir, e, &record.plus);
		if (r < 0)
			return r;
	}
	memcpy(record.bytes + FUSE_NAME_OFFSET_DIRENTPLUS, e->d_name, namelen);
	(void)chain_write(req->chain, sizeof(struct fuse_out_header) + at, record.bytes + skip, size);
	return (int)size;
}

static int list(struct request *req, struct node *dir, struct handle *h, uint64_t off, size_t room,
		bool plus)
{
	const struct dirent64 *e = NULL;
	size_t at = 0;
	int r;

	while ((r = next_entry(h, off, &e)) > 0) {
		int size = put_record(req, dir, e, plus, at, room);

		if (size == 0)
			return at ? (int)at : -EINVAL;
		skip_entry(h, e);
		off = h->next_off;
		if (size > 0)
			at += (size_t)size;
	}
	/* An error after some entries shows again at the next call. */
	return r < 0 && at == 0 ? r : (int)at;
}

static int read_folder(struct request *req, struct node *dir, bool plus)
{
	size_t pos = 0, room;
	const struct fuse_read_in *in = arg(req, &pos, sizeof(*in));
	struct handle *h;
	int r;

	if (!in)
		return -EINVAL;
	if (dir->type != S_IFDIR)
		return -ENOTDIR;
	r = handle_get(req->share, dir, in->fh, &h);
	if (r < 0)
		return r;
	room = reply_room(req);
	if (room > in->size)
		room = in->size;
	if (room > FUSE_DATA_MAX)
		room = FUSE_DATA_MAX;
	(void)pthread_mutex_lock(&h->lock);
	r = list(req, dir, h, in->offset, room, plus);
	(void)pthread_mutex_unlock(&h->lock);
	handle_put(req->share, h);
	return r;
}

int op_readdir(struct request *req, struct node *node)
{
	return read_folder(req, node, false);
}

int op_readdirplus(struct request *req, struct node *node)
{
	return read_folder(req, node, true);
}
