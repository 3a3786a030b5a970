/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two passes over the tree.  The first gives every inode its place: folders name
 * inodes by place, and data may be named by how long all metadata is.  The
 * second writes from front to back.
 *
 *   inodes, each folder's together, with attributes and inline tails
 *   whole blocks of folders and of links that are not inline
 *   attributes that several inodes have
 */
#include "erofs/write.h"

#include "erofs/format.h"
#include "os/err.h"
#include "os/file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define BUF_SIZE (256u * 1024u)
#define SHARED_MAX 255u	/* shared attributes an inode can name */
#define FIRST_SLOT 2u	/* number 0 would look like no file at all to readdir() */

/* A line of a folder. */
struct line {
	const char *name;
	size_t len;
	const struct erofs_node *node;
};

struct writer {
	const struct erofs_write_options *opt;
	struct erofs_tree *tree;
	struct err *err;
	struct erofs_node **node;	/* in the order of their places, owned */
	size_t nnodes;
	struct line *line;	/* of the folder at hand, owned */
	size_t nlines, line_cap;
	struct erofs_xattr **shared;	/* one of each kind, owned */
	size_t nshared;
	uint64_t meta_size;	/* bytes */
	uint64_t data_block, xattr_block, end_block;	/* where the other regions begin */
	uint64_t disk_blocks;
	/* writing */
	uint8_t *buf;	/* owned */
	size_t filled;
	uint64_t pos;	/* in the file, of the end of @buf's contents */
};

static uint64_t blocks_of(uint64_t bytes)
{
	return bytes / EROFS_BLOCK + (bytes % EROFS_BLOCK != 0);
}

static uint64_t align(uint64_t v, uint64_t to)
{
	return (v + to - 1) / to * to;
}

static int no_memory(const struct writer *w)
{
	return err_set(w->err, -ENOMEM, "out of memory for an image");
}

/* ---- order ---- */

/* All files of a folder, then those of the folders in it. */
static int place_entry(void *ctx, struct erofs_entry *entry)
{
	struct writer *w = ctx;

	if (!entry->node->placed) {	/* not another name of a file */
		entry->node->placed = true;
		w->node[w->nnodes++] = entry->node;
	}
	return 0;
}

static int descend(void *ctx, struct erofs_entry *entry)
{
	if (S_ISDIR(entry->node->mode)) {
		(void)erofs_for_each(entry->node, place_entry, ctx);
		(void)erofs_for_each(entry->node, descend, ctx);
	}
	return 0;
}

static int order_nodes(struct writer *w)
{
	w->node = calloc(w->tree->entries + 1, sizeof(struct erofs_node *));
	if (!w->node)
		return no_memory(w);
	w->node[w->nnodes++] = w->tree->root;
	(void)erofs_for_each(w->tree->root, place_entry, w);
	(void)erofs_for_each(w->tree->root, descend, w);
	for (size_t i = 0; i < w->nnodes; i++)
		w->node[i]->placed = false;	/* for the next time */
	return 0;
}

/* ---- folders ---- */

static void add_line(struct writer *w, const char *name, size_t len, const struct erofs_node *node)
{
	w->line[w->nlines++] = (struct line){ .name = name, .len = len, .node = node };
}

struct adding {
	struct writer *w;
	const struct erofs_node *dir;
	unsigned dots;	/* of "." and "..", those already there */
};

static void add_dots(struct adding *a, const struct erofs_entry *before)
{
	static const char dots[] = "..";

	for (; a->dots < 2; a->dots++) {
		size_t len = a->dots + 1;
		int d = before ? memcmp(dots, before->name, len < before->name_len ? len : before->name_len) : -1;

		if (d > 0 || (d == 0 && len > before->name_len))
			break;
		add_line(a->w, dots, len, a->dots ? a->dir->parent : a->dir);
	}
}

static int add_entry(void *ctx, struct erofs_entry *entry)
{
	struct adding *a = ctx;

	add_dots(a, entry);
	add_line(a->w, entry->name, entry->name_len, entry->node);
	return 0;
}

/* Fills w->line with the folder's entries in order. */
static int list_dir(struct writer *w, const struct erofs_node *dir)
{
	struct adding a = { .w = w, .dir = dir };

	if (w->line_cap < dir->count + (size_t)2) {
		free(w->line);
		w->line_cap = dir->count + (size_t)2;
		w->line = calloc(w->line_cap, sizeof(*w->line));
		if (!w->line)
			w->line_cap = 0;
	}
	if (!w->line)
		return no_memory(w);
	w->nlines = 0;
	(void)erofs_for_each(dir, add_entry, &a);
	add_dots(&a, NULL);
	return 0;
}

/* How many lines from @first on fit in one block, and in how many bytes. */
static size_t fill_block(const struct writer *w, size_t first, uint32_t *ret_bytes)
{
	size_t i = first;

	for (*ret_bytes = 0; i < w->nlines; i++) {
		uint32_t more = (uint32_t)(sizeof(struct erofs_dirent) + w->line[i].len);

		if (*ret_bytes + more > EROFS_BLOCK)
			break;
		*ret_bytes += more;
	}
	return i - first;
}

static int measure_dir(struct writer *w, struct erofs_node *dir)
{
	uint64_t size = 0;
	uint32_t bytes = 0;
	int r = list_dir(w, dir);

	if (r < 0)
		return r;
	for (size_t i = 0; i < w->nlines;) {
		size = align(size, EROFS_BLOCK);
		i += fill_block(w, i, &bytes);
		size += bytes;
	}
	if (size > UINT32_MAX)
		return err_set(w->err, -EFBIG, "a folder of the image has too many entries");
	dir->dir_size = (uint32_t)size;
	return 0;
}

static uint8_t type_of(uint32_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFDIR:
		return EROFS_FT_DIR;
	case S_IFCHR:
		return EROFS_FT_CHAR;
	case S_IFBLK:
		return EROFS_FT_BLOCK;
	case S_IFIFO:
		return EROFS_FT_FIFO;
	case S_IFSOCK:
		return EROFS_FT_SOCKET;
	case S_IFLNK:
		return EROFS_FT_SYMLINK;
	default:
		return EROFS_FT_FILE;
	}
}

static void put_lines(const struct writer *w, size_t first, size_t n, uint8_t block[EROFS_BLOCK])
{
	size_t off = n * sizeof(struct erofs_dirent);

	for (size_t i = 0; i < n; i++) {
		const struct line *l = &w->line[first + i];
		const struct erofs_dirent d = { .nid = l->node->nid, .name_off = (uint16_t)off,
						.type = type_of(l->node->mode) };

		memcpy(block + i * sizeof(d), &d, sizeof(d));
		memcpy(block + off, l->name, l->len);
		off += l->len;
	}
}

/* ---- attributes ---- */

static uint32_t xattr_bytes(const struct erofs_xattr *x)
{
	return (uint32_t)align(sizeof(struct erofs_xattr_entry) + x->name_len + x->value_len, 4);
}

static int compare_xattrs(const void *a, const void *b)
{
	const struct erofs_xattr *x = *(struct erofs_xattr *const *)a, *y = *(struct erofs_xattr *const *)b;

	if (x->index != y->index)
		return x->index - y->index;
	if (x->name_len != y->name_len)
		return x->name_len - y->name_len;
	if (x->value_len != y->value_len)
		return x->value_len - y->value_len;
	return memcmp(x->bytes, y->bytes, (size_t)x->name_len + x->value_len);
}

/* Attributes that are there more than once get an id, and one of them a place in w->shared. */
static void share_equal(struct writer *w, struct erofs_xattr **all, size_t n)
{
	uint64_t off = 0;	/* bytes, in the region */

	for (size_t i = 0, next; i < n; i = next) {
		for (next = i + 1; next < n && compare_xattrs(&all[i], &all[next]) == 0; next++)
			;
		for (size_t k = i; k < next; k++)
			all[k]->shared_id = next - i > 1 && off / 4 < UINT32_MAX ? (uint32_t)(off / 4 + 1) : 0;
		if (all[i]->shared_id) {
			off += xattr_bytes(all[i]);
			all[w->nshared++] = all[i];	/* never past i */
		}
	}
}

static int share_xattrs(struct writer *w)
{
	size_t n = 0, i = 0;

	for (size_t k = 0; k < w->nnodes; k++)
		for (const struct erofs_xattr *x = w->node[k]->xattrs; x; x = x->next)
			n++;
	if (n == 0)
		return 0;
	w->shared = calloc(n, sizeof(struct erofs_xattr *));
	if (!w->shared)
		return no_memory(w);
	for (size_t k = 0; k < w->nnodes; k++)
		for (struct erofs_xattr *x = w->node[k]->xattrs; x; x = x->next)
			w->shared[i++] = x;
	qsort(w->shared, n, sizeof(struct erofs_xattr *), compare_xattrs);
	share_equal(w, w->shared, n);
	return 0;
}

/* Bytes of the attributes behind the inode; returns how many of them are shared. */
static unsigned measure_xattrs(const struct erofs_node *node, uint32_t *ret_bytes)
{
	unsigned shared = 0;

	*ret_bytes = node->xattrs ? sizeof(struct erofs_xattr_header) : 0;
	for (const struct erofs_xattr *x = node->xattrs; x; x = x->next) {
		bool share = x->shared_id && shared < SHARED_MAX;

		shared += share;
		*ret_bytes += share ? 4 : xattr_bytes(x);
	}
	return shared;
}

static uint16_t xattr_count(uint32_t bytes)
{
	return bytes ? (uint16_t)((bytes - sizeof(struct erofs_xattr_header)) / 4 + 1) : 0;
}

/* ---- places ---- */

/* Bytes of data that lie in the image's own metadata: of folders and links. */
static uint64_t own_size(const struct erofs_node *node)
{
	return S_ISDIR(node->mode) ? node->dir_size : S_ISLNK(node->mode) ? node->size : 0;
}

/* An inode, its attributes and its inline data lie in one block, if one is enough for them. */
static int place_node(struct writer *w, struct erofs_node *node)
{
	uint64_t tail = own_size(node) % EROFS_BLOCK, need;

	(void)measure_xattrs(node, &node->xattr_size);
	if (node->xattr_size > (UINT16_MAX - 1) * 4u)
		return err_set(w->err, -EFBIG, "a file of the image has too many attributes");
	need = sizeof(struct erofs_inode) + node->xattr_size;
	node->layout = tail && need + tail <= EROFS_BLOCK ? EROFS_LAYOUT_INLINE : EROFS_LAYOUT_PLAIN;
	if (node->layout == EROFS_LAYOUT_INLINE)
		need += tail;
	w->meta_size = align(w->meta_size, EROFS_SLOT);
	if (w->meta_size % EROFS_BLOCK + need > EROFS_BLOCK)
		w->meta_size = align(w->meta_size, EROFS_BLOCK);
	node->nid = w->meta_size / EROFS_SLOT;
	w->meta_size += need;
	return 0;
}

/* Whole blocks of folders and links outside the inodes. */
static uint64_t own_blocks(const struct erofs_node *node)
{
	uint64_t size = own_size(node);

	return node->layout == EROFS_LAYOUT_INLINE ? size / EROFS_BLOCK : blocks_of(size);
}

static int lay_out(struct writer *w)
{
	uint64_t at, shared = 0;
	int r = 0;

	w->meta_size = FIRST_SLOT * EROFS_SLOT;
	for (size_t i = 0; i < w->nnodes && r == 0; i++) {
		if (S_ISDIR(w->node[i]->mode))
			r = measure_dir(w, w->node[i]);
		if (r == 0)
			r = place_node(w, w->node[i]);
	}
	if (r < 0)
		return r;
	at = w->data_block = w->opt->meta_block + blocks_of(w->meta_size);
	for (size_t i = 0; i < w->nnodes; i++) {
		w->node[i]->data_block = (uint32_t)at;	/* checked with the whole */
		at += own_blocks(w->node[i]);
	}
	for (size_t i = 0; i < w->nshared; i++)
		shared += xattr_bytes(w->shared[i]);
	w->xattr_block = at;
	w->disk_blocks = w->end_block = at + blocks_of(shared);
	for (unsigned i = 0; i < w->opt->nparts; i++)
		w->disk_blocks += w->opt->part_blocks[i];
	if (w->disk_blocks >= UINT32_MAX)
		return err_set(w->err, -EFBIG, "the image has more than 16 TiB");
	return 0;
}

/* ---- writing ---- */

static int flush(struct writer *w)
{
	int r = file_write_at(w->opt->fd, w->buf, w->filled, w->pos - w->filled);

	if (r < 0)
		return err_set(w->err, r, "cannot write an image: %s", strerror(-r));
	w->filled = 0;
	return 0;
}

/* Appends @len bytes; NULL: zeroes. */
static int put(struct writer *w, const void *data, uint64_t len)
{
	while (len) {
		size_t part = BUF_SIZE - w->filled;
		int r;

		if (part > len)
			part = (size_t)len;
		if (data) {
			memcpy(w->buf + w->filled, data, part);
			data = (const uint8_t *)data + part;
		} else {
			memset(w->buf + w->filled, 0, part);
		}
		w->filled += part;
		w->pos += part;
		len -= part;
		r = w->filled == BUF_SIZE ? flush(w) : 0;
		if (r < 0)
			return r;
	}
	return 0;
}

static int pad_to(struct writer *w, uint64_t pos)
{
	return put(w, NULL, pos - w->pos);
}

static int put_xattr(struct writer *w, const struct erofs_xattr *x)
{
	const struct erofs_xattr_entry e = { .name_len = x->name_len, .index = x->index, .value_len = x->value_len };
	int r = put(w, &e, sizeof(e));

	if (r == 0)
		r = put(w, x->bytes, (size_t)x->name_len + x->value_len);
	return r < 0 ? r : pad_to(w, align(w->pos, 4));
}

static int put_xattrs(struct writer *w, const struct erofs_node *node)
{
	uint32_t bytes;
	unsigned nshared = measure_xattrs(node, &bytes), left = nshared;
	const struct erofs_xattr_header h = { .shared = (uint8_t)nshared };
	int r = bytes ? put(w, &h, sizeof(h)) : 0;

	for (const struct erofs_xattr *x = node->xattrs; x && left && r == 0; x = x->next)
		if (x->shared_id) {
			uint32_t id = x->shared_id - 1;

			r = put(w, &id, sizeof(id));
			left--;
		}
	left = nshared;
	for (const struct erofs_xattr *x = node->xattrs; x && r == 0; x = x->next) {
		if (x->shared_id && left)
			left--;
		else
			r = put_xattr(w, x);
	}
	return r;
}

/* Writes blocks [@from, @to) of a folder, of the last only what is filled. */
static int put_dir(struct writer *w, const struct erofs_node *dir, uint64_t from, uint64_t to)
{
	uint8_t block[EROFS_BLOCK];
	uint32_t bytes;
	size_t n, i = 0;
	int r = from < to ? list_dir(w, dir) : 0;

	for (uint64_t b = 0; b < to && r == 0; b++, i += n) {
		n = fill_block(w, i, &bytes);
		if (b < from)
			continue;
		memset(block, 0, sizeof(block));
		put_lines(w, i, n, block);
		r = put(w, block, i + n < w->nlines ? EROFS_BLOCK : bytes);
	}
	return r;
}

/* Data of folders and links: blocks outside the inode, or what is inline. */
static int put_own(struct writer *w, const struct erofs_node *node, bool inlined)
{
	uint64_t outside = own_blocks(node), from = inlined ? outside : 0;
	uint64_t to = inlined ? blocks_of(own_size(node)) : outside;

	if (S_ISDIR(node->mode))
		return put_dir(w, node, from, to);
	return from < to ? put(w, node->target, node->size) : 0;	/* links are shorter than a block */
}

static uint64_t first_block(const struct writer *w, const struct erofs_node *node)
{
	uint64_t block = node->block;

	if (!S_ISREG(node->mode))
		return node->data_block;
	if (node->device > 0)
		block += w->end_block;
	for (uint32_t i = 1; i < node->device; i++)
		block += w->opt->part_blocks[i - 1];
	return node->size ? block : 0;
}

static int put_inode(struct writer *w, const struct erofs_node *node, uint32_t number)
{
	bool device = S_ISCHR(node->mode) || S_ISBLK(node->mode);
	const struct erofs_inode inode = {
		.format = (uint16_t)EROFS_FORMAT(node->layout),
		.xattr_count = xattr_count(node->xattr_size),
		.mode = (uint16_t)node->mode,
		.size = S_ISREG(node->mode) ? node->size : own_size(node),
		.block = device ? node->rdev : (uint32_t)first_block(w, node),
		.ino = number,
		.uid = node->uid,
		.gid = node->gid,
		.mtime = (uint64_t)node->mtime,
		.mtime_ns = node->mtime_ns,
		.nlink = S_ISDIR(node->mode) ? node->subdirs + 2 : node->nlink,
	};
	int r = pad_to(w, (uint64_t)w->opt->meta_block * EROFS_BLOCK + node->nid * EROFS_SLOT);

	if (r == 0)
		r = put(w, &inode, sizeof(inode));
	if (r == 0)
		r = put_xattrs(w, node);
	if (r == 0 && node->layout == EROFS_LAYOUT_INLINE)
		r = put_own(w, node, true);
	return r;
}

static int put_super(struct writer *w)
{
	const struct erofs_super super = {
		.magic = EROFS_MAGIC,
		.block_bits = EROFS_BLOCK_BITS,
		.root_nid = (uint16_t)w->tree->root->nid,
		.inodes = w->nnodes,
		.blocks = (uint32_t)w->disk_blocks,
		.meta_block = w->opt->meta_block,
		.xattr_block = (uint32_t)w->xattr_block,
	};
	int r;

	w->pos = 0;
	r = put(w, NULL, EROFS_SUPER_OFF);
	if (r == 0)
		r = put(w, &super, sizeof(super));
	if (r == 0)
		r = pad_to(w, EROFS_BLOCK);
	return r < 0 ? r : flush(w);
}

static int write_all(struct writer *w)
{
	int r = 0;

	w->buf = malloc(BUF_SIZE);
	if (!w->buf)
		return no_memory(w);
	w->pos = (uint64_t)w->opt->meta_block * EROFS_BLOCK;
	for (size_t i = 0; i < w->nnodes && r == 0; i++)
		r = put_inode(w, w->node[i], (uint32_t)(i + 1));
	for (size_t i = 0; i < w->nnodes && r == 0; i++) {
		if (own_blocks(w->node[i]) == 0)
			continue;
		r = pad_to(w, (uint64_t)w->node[i]->data_block * EROFS_BLOCK);
		if (r == 0)
			r = put_own(w, w->node[i], false);
	}
	if (r == 0)
		r = pad_to(w, w->xattr_block * EROFS_BLOCK);
	for (size_t i = 0; i < w->nshared && r == 0; i++)
		r = put_xattr(w, w->shared[i]);
	if (r == 0)
		r = pad_to(w, w->end_block * EROFS_BLOCK);
	if (r == 0)
		r = flush(w);
	return r < 0 ? r : put_super(w);
}

int erofs_write(struct erofs_tree *tree, const struct erofs_write_options *opt, uint64_t *ret_blocks,
		struct err *err)
{
	struct writer w = { .opt = opt, .tree = tree, .err = err };
	int r = order_nodes(&w);

	if (r == 0)
		r = share_xattrs(&w);
	if (r == 0)
		r = lay_out(&w);
	if (r == 0)
		r = write_all(&w);
	if (r == 0)
		*ret_blocks = w.disk_blocks;
	free(w.node);
	free(w.line);
	free(w.shared);
	free(w.buf);
	return r;
}
