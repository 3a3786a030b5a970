/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Entries are applied in order to a tree in memory; later ones replace earlier
 * ones of the same name.  Lower layers are not known here: what a whiteout, an
 * opaque folder or a missing parent means is recorded for the merge.
 */
#include "oci/layer_image.h"

#include "erofs/format.h"
#include "erofs/write.h"
#include "oci/layer.h"
#include "oci/source.h"
#include "oci/tree_path.h"
#include "os/err.h"
#include "os/file.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#define DATA_BLOCK 1u	/* behind the superblock */

struct adder {
	struct layer *layer;
	struct erofs_tree tree;
	struct oci_limits left;
	int fd;
	uint64_t block;	/* where the next file's data go */
	struct err *err;
};

/* An entry's place. */
struct place {
	char path[PATH_MAX];	/* cleaned, for messages */
	struct erofs_node *dir;	/* borrowed */
	const char *name;	/* last component, in path; "" for the root */
	struct erofs_entry *there;	/* what has the name already, or NULL */
};

bool layer_is_whiteout(const struct erofs_node *node)
{
	return S_ISCHR(node->mode) && node->rdev == 0;
}

static int hostile(const struct adder *a, const char *what, const char *path)
{
	return err_set(a->err, -EBADMSG, "the image has %s: %.100s", what, path);
}

/* ---- places ---- */

static int find_place(struct adder *a, const char *name, struct place *ret)
{
	const char *slash;
	int r;

	if (!name || !source_clean_name(name, ret->path))
		return hostile(a, "a file name that leaves its root", name ? name : "(none)");
	slash = strrchr(ret->path, '/');
	ret->name = slash ? slash + 1 : ret->path;
	r = tree_find_dir(&a->tree, a->tree.root, ret->path, slash ? (size_t)(slash - ret->path) : 0, true,
			  &ret->dir, a->err);
	if (r == -ENOTDIR)
		return hostile(a, "a file in what is no folder", ret->path);
	if (r == -ELOOP)
		return hostile(a, "a file in a loop of symbolic links", ret->path);
	if (r < 0)
		return r;
	ret->there = ret->name[0] ? erofs_find(ret->dir, ret->name, strlen(ret->name)) : NULL;
	return 0;
}

/* ---- metadata ---- */

static int set_xattrs(struct adder *a, struct erofs_node *node, struct archive_entry *e)
{
	const char *name;
	const void *value;
	size_t len;
	int r = 0;

	(void)archive_entry_xattr_reset(e);
	while (r == 0 && archive_entry_xattr_next(e, &name, &value, &len) == ARCHIVE_OK)
		if (name && layer_xattr_allowed(name))
			r = erofs_set_xattr(&a->tree, node, name, value, len, a->err);
	return r == -ERANGE ? hostile(a, "an attribute that is too large", archive_entry_pathname(e)) : r;
}

/* Owner, mode, time and attributes; of a folder that is there already, instead of those it has. */
static int set_stat(struct adder *a, struct erofs_node *node, struct archive_entry *e)
{
	int64_t uid = archive_entry_uid(e), gid = archive_entry_gid(e);
	bool opaque = erofs_get_xattr(node, LAYER_OPAQUE_XATTR);
	int r;

	if (uid < 0 || uid > UINT32_MAX || gid < 0 || gid > UINT32_MAX)
		return hostile(a, "an owner that cannot be", archive_entry_pathname(e));
	node->mode = (node->mode & S_IFMT) | (S_ISLNK(node->mode) ? 0777 : archive_entry_mode(e) & 07777);
	node->uid = (uint32_t)uid;
	node->gid = (uint32_t)gid;
	node->mtime = archive_entry_mtime(e);
	node->mtime_ns = (uint32_t)archive_entry_mtime_nsec(e);
	erofs_drop_xattrs(node);
	r = opaque ? erofs_set_xattr(&a->tree, node, LAYER_OPAQUE_XATTR, "y", 1, a->err) : 0;
	return r < 0 ? r : set_xattrs(a, node, e);
}

/* ---- whiteouts ---- */

static int set_opaque(struct adder *a, struct erofs_node *dir)
{
	return erofs_set_xattr(&a->tree, dir, LAYER_OPAQUE_XATTR, "y", 1, a->err);
}

/* Gives @node its first name; frees it when that fails. */
static int link_new(struct adder *a, const struct place *at, struct erofs_node *node)
{
	int r = erofs_link(&a->tree, at->dir, at->name, strlen(at->name), node, a->err);

	if (r < 0)
		erofs_node_free(node);
	return r;
}

static int add_whiteout(struct adder *a, const struct place *at)
{
	const char *hidden = at->name + strlen(LAYER_WHITEOUT);
	struct erofs_entry *there;
	struct place place = *at;
	struct erofs_node *node;
	int r;

	if (strcmp(at->name, LAYER_OPAQUE_NAME) == 0)
		return set_opaque(a, at->dir);
	if (strncmp(hidden, LAYER_WHITEOUT, strlen(LAYER_WHITEOUT)) == 0)
		return 0;	/* notes of an old storage driver */
	if (!hidden[0] || strcmp(hidden, ".") == 0 || strcmp(hidden, "..") == 0)
		return hostile(a, "a malformed whiteout", at->path);
	/*
	 * A file of the layer itself stays; as a folder it is not merged with the hidden
	 * one, nor is it whatever a link that is hidden leads to.
	 */
	there = erofs_find(at->dir, hidden, strlen(hidden));
	if (there && !S_ISDIR(there->node->mode))
		return 0;
	if (there) {
		erofs_drop_xattr(there->node, TREE_IMPLICIT_XATTR);
		return set_opaque(a, there->node);
	}
	place.name = hidden;
	r = erofs_node_new(&a->tree, S_IFCHR, &node, a->err);
	return r < 0 ? r : link_new(a, &place, node);
}

/* ---- files ---- */

static int check_cancel(const struct adder *a)
{
	return a->left.cancel && *a->left.cancel ? err_set(a->err, -EINTR, "interrupted") : 0;
}

static int write_data(struct adder *a, const struct erofs_node *node)
{
	uint64_t start = a->block * EROFS_BLOCK;
	const void *data;
	la_int64_t off;
	size_t len;

	/* Holes stay holes: nothing was written behind the last file yet. */
	for (;;) {
		int r = archive_read_data_block(a->layer->tar, &data, &len, &off);

		if (r == ARCHIVE_EOF)
			return 0;
		if (r != ARCHIVE_OK)
			return layer_error(a->layer, a->err);
		if (off < 0 || (uint64_t)off > node->size || len > node->size - (uint64_t)off)
			return err_set(a->err, -EBADMSG, "the image is damaged: a file is larger than it says");
		r = file_write_at(a->fd, data, len, start + (uint64_t)off);
		if (r < 0)
			return err_set(a->err, r, "cannot write a layer of the image: %s", strerror(-r));
		r = check_cancel(a);
		if (r < 0)
			return r;
	}
}

static int add_data(struct adder *a, struct erofs_node *node, struct archive_entry *e)
{
	int64_t size = archive_entry_size(e);
	int r;

	if (size < 0 || (uint64_t)size > a->left.bytes)
		return err_set(a->err, -EFBIG, "the image unpacks to more than the limit");
	a->left.bytes -= (uint64_t)size;
	node->size = (uint64_t)size;
	node->block = (uint32_t)a->block;
	r = write_data(a, node);
	a->block += (node->size + EROFS_BLOCK - 1) / EROFS_BLOCK;
	if (r == 0 && a->block >= UINT32_MAX)
		return err_set(a->err, -EFBIG, "a layer of the image has more than 16 TiB");
	return r;
}

static int fill_node(struct adder *a, struct erofs_node *node, struct archive_entry *e)
{
	const char *target;
	int r;

	switch (node->mode & S_IFMT) {
	case S_IFREG:
		return add_data(a, node, e);
	case S_IFLNK:
		target = archive_entry_symlink(e);
		r = erofs_set_target(&a->tree, node, target ? target : "", target ? strlen(target) : 0, a->err);
		return r == -EINVAL ? hostile(a, "a malformed symbolic link", archive_entry_pathname(e)) : r;
	case S_IFCHR:
	case S_IFBLK:
		if (!erofs_rdev((uint64_t)archive_entry_rdevmajor(e), (uint64_t)archive_entry_rdevminor(e),
				&node->rdev))
			return hostile(a, "a device number that cannot be", archive_entry_pathname(e));
		return 0;
	case S_IFIFO:
	case S_IFDIR:
		return 0;
	default:
		return hostile(a, "a file of unknown type", archive_entry_pathname(e));
	}
}

static int add_file(struct adder *a, struct place *at, struct archive_entry *e)
{
	uint32_t type = archive_entry_filetype(e);
	bool was_other = at->there;	/* then a folder is not merged with one of a lower layer */
	struct erofs_node *node;
	int r;

	if (at->there)
		erofs_remove(&a->tree, at->dir, at->there);
	at->there = NULL;
	r = erofs_node_new(&a->tree, type, &node, a->err);
	if (r < 0)
		return r;
	r = fill_node(a, node, e);
	if (r == 0 && type == S_IFDIR && was_other)
		r = set_opaque(a, node);
	if (r == 0)
		r = set_stat(a, node, e);
	if (r < 0) {
		erofs_node_free(node);
		return r;
	}
	return link_new(a, at, node);
}

/* ---- hard links ---- */

/* The file that a hard link names; NULL when this layer has none there. */
static struct erofs_node *find_target(struct adder *a, const char *path)
{
	const char *slash = strrchr(path, '/');
	const char *name = slash ? slash + 1 : path;
	struct erofs_entry *entry;
	struct erofs_node *dir;

	if (tree_find_dir(&a->tree, a->tree.root, path, slash ? (size_t)(slash - path) : 0, false, &dir, NULL) < 0)
		return NULL;
	entry = erofs_find(dir, name, strlen(name));
	return entry && !layer_is_whiteout(entry->node) ? entry->node : NULL;
}

static int add_link(struct adder *a, struct place *at, const char *target)
{
	struct erofs_node *node;
	char path[PATH_MAX];
	int r;

	if (!source_clean_name(target, path) || !path[0])
		return hostile(a, "a link that leaves its root", target);
	node = find_target(a, path);
	if (node && S_ISDIR(node->mode))
		return hostile(a, "a hard link to a folder", at->path);
	if (node && at->there && at->there->node == node)
		return 0;
	if (node)
		node->nlink++;	/* lest it go with the name that it may replace */
	if (at->there)
		erofs_remove(&a->tree, at->dir, at->there);
	if (node) {
		node->nlink--;
		if (node->nlink == 0)
			return link_new(a, at, node);
		return erofs_link(&a->tree, at->dir, at->name, strlen(at->name), node, a->err);
	}
	r = erofs_node_new(&a->tree, S_IFREG, &node, a->err);
	if (r < 0)
		return r;
	r = erofs_set_xattr(&a->tree, node, LAYER_LINK_XATTR, path, strlen(path), a->err);
	if (r < 0) {
		erofs_node_free(node);
		return r;
	}
	return link_new(a, at, node);
}

/* ---- entries ---- */

static int add_entry(struct adder *a, struct archive_entry *e)
{
	const char *link = archive_entry_hardlink(e);
	bool dir = archive_entry_filetype(e) == AE_IFDIR && !link;
	struct place at;
	int r = find_place(a, archive_entry_pathname(e), &at);

	if (r < 0)
		return r;
	if (!at.name[0])
		return dir ? set_stat(a, a->tree.root, e)
			   : err_set(a->err, -EBADMSG, "the image's root is not a folder");
	if (strncmp(at.name, LAYER_WHITEOUT, strlen(LAYER_WHITEOUT)) == 0)
		return add_whiteout(a, &at);
	if (dir && at.there && S_ISDIR(at.there->node->mode))
		return set_stat(a, at.there->node, e);
	return link ? add_link(a, &at, link) : add_file(a, &at, e);
}

static int add_entries(struct adder *a)
{
	struct archive_entry *e;
	int r;

	for (;;) {
		r = archive_read_next_header(a->layer->tar, &e);
		if (r == ARCHIVE_EOF)
			return 0;
		/* A warning is about text that cannot be converted: names are bytes here. */
		if (r != ARCHIVE_OK && r != ARCHIVE_WARN)
			return layer_error(a->layer, a->err);
		if (a->left.entries == 0)
			return err_set(a->err, -EFBIG, "the image has more files than the limit");
		a->left.entries--;
		r = check_cancel(a);
		if (r == 0)
			r = add_entry(a, e);
		if (r < 0)
			return r;
	}
}

int layer_image_write(struct layer *layer, int fd, const struct oci_limits *limits, struct err *err)
{
	const struct erofs_limits memory = { .entries = limits->entries, .bytes = LAYER_MEMORY_MAX };
	struct adder a = { .layer = layer, .left = *limits, .fd = fd, .block = DATA_BLOCK, .err = err };
	uint64_t blocks;
	int r = erofs_tree_init(&a.tree, &memory, err);

	if (r == 0)
		r = erofs_set_xattr(&a.tree, a.tree.root, TREE_IMPLICIT_XATTR, NULL, 0, err);
	if (r == 0)
		r = add_entries(&a);
	if (r == 0) {
		const struct erofs_write_options opt = { .fd = fd, .meta_block = (uint32_t)a.block };

		r = erofs_write(&a.tree, &opt, &blocks, err);
	}
	erofs_tree_finish(&a.tree);
	return r;
}
