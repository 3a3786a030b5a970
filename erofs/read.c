/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Everything is taken from the image through at(), which gives a pointer to bytes
 * inside it or NULL.  Folders that contain themselves end at the limits of depth
 * and entries.
 */
#include "erofs/read.h"

#include "base/checked.h"
#include "erofs/format.h"
#include "os/err.h"

#include <errno.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* An inode that has several names. */
struct linked {
	uint64_t nid;
	struct erofs_node *node;
};

struct reader {
	const uint8_t *image;
	size_t size;	/* bytes */
	uint64_t data_size;	/* bytes that have the data of files */
	uint32_t device;
	struct erofs_super super;
	struct erofs_tree *tree;
	void *linked;	/* tsearch() tree of struct linked, owned */
	struct err *err;
};

static int damaged(const struct reader *r)
{
	return err_set(r->err, -EBADMSG, "a file system image is damaged");
}

static const void *at(const struct reader *r, uint64_t off, uint64_t len)
{
	return range_ok(off, len, r->size) ? r->image + off : NULL;
}

/* ---- attributes ---- */

static int add_xattr(struct reader *r, struct erofs_node *node, uint64_t off, uint64_t *ret_end)
{
	const struct erofs_xattr_entry *found = at(r, off, sizeof(*found));
	struct erofs_xattr_entry e;
	char name[64 + UINT8_MAX];
	const char *prefix, *rest;
	int n;

	if (!found)
		return damaged(r);
	memcpy(&e, found, sizeof(e));
	prefix = erofs_xattr_prefix(e.index);
	rest = at(r, off + sizeof(e), (uint64_t)e.name_len + e.value_len);
	if (!prefix || !rest || memchr(rest, '\0', e.name_len))
		return damaged(r);
	n = snprintf(name, sizeof(name), "%s%.*s", prefix, e.name_len, rest);
	if (n < 0 || (size_t)n >= sizeof(name))
		return damaged(r);
	*ret_end = (off + sizeof(e) + e.name_len + e.value_len + 3) & ~3ull;
	n = erofs_set_xattr(r->tree, node, name, rest + e.name_len, e.value_len, r->err);
	return n == -ENOTSUP ? damaged(r) : n;
}

/* The attributes in @bytes bytes at @off. */
static int add_xattrs(struct reader *r, struct erofs_node *node, uint64_t off, uint64_t bytes)
{
	const struct erofs_xattr_header *h = at(r, off, bytes);
	uint64_t end = off + bytes, ignored;
	int result = 0;

	if (!h || bytes < sizeof(*h) || bytes - sizeof(*h) < h->shared * 4u)
		return damaged(r);
	off += sizeof(*h);
	for (unsigned i = 0; i < h->shared && result == 0; i++, off += 4) {
		uint32_t id;

		memcpy(&id, r->image + off, sizeof(id));
		result = add_xattr(r, node, (uint64_t)r->super.xattr_block * EROFS_BLOCK + id * 4ull, &ignored);
	}
	while (off < end && result == 0)
		result = add_xattr(r, node, off, &off);
	return result;
}

/* ---- inodes ---- */

/* Where an inode and what belongs to it are, after checks. */
struct place {
	struct erofs_inode inode;
	uint64_t xattrs, xattr_bytes;
	uint64_t tail;	/* of inline data */
};

static bool known_type(uint32_t mode)
{
	return S_ISREG(mode) || S_ISDIR(mode) || S_ISLNK(mode) || S_ISCHR(mode) || S_ISBLK(mode) ||
	       S_ISFIFO(mode) || S_ISSOCK(mode);
}

static int find_inode(const struct reader *r, uint64_t nid, struct place *ret)
{
	uint64_t off = (uint64_t)r->super.meta_block * EROFS_BLOCK + nid * EROFS_SLOT;
	const void *found = nid > UINT32_MAX ? NULL : at(r, off, sizeof(ret->inode));

	if (!found)
		return damaged(r);
	memcpy(&ret->inode, found, sizeof(ret->inode));
	if (ret->inode.format != EROFS_FORMAT(EROFS_LAYOUT_PLAIN) &&
	    ret->inode.format != EROFS_FORMAT(EROFS_LAYOUT_INLINE))
		return damaged(r);
	if (!known_type(ret->inode.mode))
		return damaged(r);
	ret->xattrs = off + sizeof(ret->inode);
	ret->xattr_bytes = ret->inode.xattr_count ?
		sizeof(struct erofs_xattr_header) + 4ull * (ret->inode.xattr_count - 1u) : 0;
	ret->tail = ret->xattrs + ret->xattr_bytes;
	return 0;
}

/* Block @b of a folder's or link's data: a pointer to it, and how much of it there is. */
static const uint8_t *own_block(const struct reader *r, const struct place *p, uint64_t b, uint32_t *ret_len)
{
	uint64_t left = p->inode.size - b * EROFS_BLOCK;
	bool last = left <= EROFS_BLOCK;
	bool inlined = last && p->inode.format == EROFS_FORMAT(EROFS_LAYOUT_INLINE);

	*ret_len = last ? (uint32_t)left : EROFS_BLOCK;
	return at(r, inlined ? p->tail : (p->inode.block + b) * EROFS_BLOCK, *ret_len);
}

static int fill_node(struct reader *r, const struct place *p, struct erofs_node *node)
{
	const struct erofs_inode *inode = &p->inode;
	const uint8_t *target;
	uint32_t len;
	int result = 0;

	node->uid = inode->uid;
	node->gid = inode->gid;
	node->mtime = (int64_t)inode->mtime;
	node->mtime_ns = inode->mtime_ns;
	if (S_ISCHR(inode->mode) || S_ISBLK(inode->mode))
		node->rdev = inode->block;
	if (S_ISREG(inode->mode)) {
		if (inode->size && (inode->format != EROFS_FORMAT(EROFS_LAYOUT_PLAIN) ||
				    !range_ok((uint64_t)inode->block * EROFS_BLOCK, inode->size, r->data_size)))
			return damaged(r);
		node->size = inode->size;
		node->device = r->device;
		node->block = inode->block;
	}
	if (S_ISLNK(inode->mode)) {
		target = inode->size && inode->size < EROFS_BLOCK ? own_block(r, p, 0, &len) : NULL;
		if (!target || memchr(target, '\0', len))
			return damaged(r);
		result = erofs_set_target(r->tree, node, (const char *)target, len, r->err);
	}
	return result == 0 && p->xattr_bytes ? add_xattrs(r, node, p->xattrs, p->xattr_bytes) : result;
}

/* ---- folders ---- */

static int compare_linked(const void *a, const void *b)
{
	const struct linked *x = a, *y = b;

	return x->nid < y->nid ? -1 : x->nid > y->nid;
}

static int remember(struct reader *r, uint64_t nid, struct erofs_node *node)
{
	struct linked *l = malloc(sizeof(*l));

	if (l)
		*l = (struct linked){ .nid = nid, .node = node };
	if (l && tsearch(l, &r->linked, compare_linked))
		return 0;
	free(l);
	return err_set(r->err, -ENOMEM, "out of memory for an image");
}

static int read_dir(struct reader *r, const struct place *p, struct erofs_node *dir);

static int add_file(struct reader *r, struct erofs_node *dir, const char *name, size_t len, uint64_t nid)
{
	const struct linked key = { .nid = nid };
	struct linked **known = tfind(&key, &r->linked, compare_linked);
	struct erofs_node *node;
	struct place p;
	int result;

	if (known)
		return erofs_link(r->tree, dir, name, len, (*known)->node, r->err);
	result = find_inode(r, nid, &p);
	if (result < 0)
		return result;
	result = erofs_node_new(r->tree, p.inode.mode, &node, r->err);
	if (result < 0)
		return result;
	result = fill_node(r, &p, node);
	if (result == 0)
		result = erofs_link(r->tree, dir, name, len, node, r->err);
	if (result < 0) {
		erofs_node_free(node);
		return result;
	}
	if (S_ISDIR(node->mode))
		return read_dir(r, &p, node);
	return p.inode.nlink > 1 ? remember(r, nid, node) : 0;
}

static int read_dir_block(struct reader *r, const uint8_t *block, uint32_t len, struct erofs_node *dir)
{
	struct erofs_dirent d, next;
	unsigned n;
	int result = 0;

	if (len < sizeof(d))
		return damaged(r);
	memcpy(&d, block, sizeof(d));
	n = d.name_off / sizeof(d);
	if (n == 0 || d.name_off % sizeof(d) || d.name_off > len)
		return damaged(r);
	for (unsigned i = 0; i < n && result == 0; i++, d = next) {
		const char *name = (const char *)block + d.name_off;
		size_t end = len, name_len;

		if (i + 1 < n) {
			memcpy(&next, block + (i + 1) * sizeof(next), sizeof(next));
			end = next.name_off;
		}
		if (end > len || d.name_off > end)
			return damaged(r);
		name_len = strnlen(name, end - d.name_off);
		if ((name_len == 1 && name[0] == '.') || (name_len == 2 && memcmp(name, "..", 2) == 0))
			continue;
		result = add_file(r, dir, name, name_len, d.nid);
		if (result == -EEXIST || result == -EINVAL || result == -EMLINK)
			result = damaged(r);
	}
	return result;
}

static int read_dir(struct reader *r, const struct place *p, struct erofs_node *dir)
{
	int result = 0;

	for (uint64_t b = 0; b * EROFS_BLOCK < p->inode.size && result == 0; b++) {
		uint32_t len;
		const uint8_t *block = own_block(r, p, b, &len);

		result = block ? read_dir_block(r, block, len, dir) : damaged(r);
	}
	return result;
}

/* ---- images ---- */

static bool read_super(const void *image, size_t size, struct erofs_super *ret)
{
	if (!range_ok(EROFS_SUPER_OFF, sizeof(*ret), size))
		return false;
	memcpy(ret, (const uint8_t *)image + EROFS_SUPER_OFF, sizeof(*ret));
	return ret->magic == EROFS_MAGIC && ret->block_bits == EROFS_BLOCK_BITS && ret->feature_incompat == 0;
}

uint32_t erofs_read_blocks(const void *image, size_t size)
{
	struct erofs_super super;

	return read_super(image, size, &super) ? super.blocks : 0;
}

/* With the superblock in @r. */
static int read_tree(struct reader *r, const struct erofs_limits *limits)
{
	struct place p;
	int result;

	if (find_inode(r, r->super.root_nid, &p) < 0 || !S_ISDIR(p.inode.mode))
		return damaged(r);
	result = erofs_tree_init(r->tree, limits, r->err);
	if (result < 0)
		return result;
	r->tree->root->mode = p.inode.mode;
	result = fill_node(r, &p, r->tree->root);
	if (result == 0)
		result = read_dir(r, &p, r->tree->root);
	tdestroy(r->linked, free);
	if (result < 0)
		erofs_tree_finish(r->tree);
	return result;
}

int erofs_read(const void *image, size_t size, uint32_t device, const struct erofs_limits *limits,
	       struct erofs_tree *ret_tree, struct err *err)
{
	struct reader r = { .image = image, .size = size, .data_size = size, .device = device, .tree = ret_tree, .err = err };

	return read_super(image, size, &r.super) ? read_tree(&r, limits) : damaged(&r);
}

int erofs_read_first_part(const void *image, size_t size, const struct erofs_limits *limits, struct erofs_tree *ret_tree,
			  struct err *err)
{
	struct reader r = { .image = image, .size = size, .tree = ret_tree, .err = err };

	if (!read_super(image, size, &r.super))
		return damaged(&r);
	r.data_size = (uint64_t)r.super.blocks * EROFS_BLOCK;
	return read_tree(&r, limits);
}
