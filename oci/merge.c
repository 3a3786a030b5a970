/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Folders that the layer only passes through keep what they have below, and may
 * be links there: an image whose /lib is a link to usr/lib gets the lib/x of a
 * layer as usr/lib/x.  Folders that are not there are made when a file needs
 * them, so that a whiteout alone makes none.
 */
#include "oci/merge.h"

#include "oci/layer_image.h"
#include "oci/tree_path.h"
#include "os/err.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

/* A folder of the image, and the layer's folder that is put over it. */
struct level {
	struct erofs_tree *image;
	struct err *err;
	struct level *up;	/* NULL: the root */
	struct erofs_node *dir;	/* NULL: not made yet */
	const char *name;	/* in up->dir */
	size_t name_len;
};

static bool is_implicit(const struct erofs_node *dir)
{
	return erofs_get_xattr(dir, TREE_IMPLICIT_XATTR);
}

static int misfit(const struct level *l, const char *what, const struct erofs_entry *entry)
{
	return err_set(l->err, -EBADMSG, "a layer of the image has %s: .../%.*s", what,
		       (int)(entry->name_len < 100 ? entry->name_len : 100), entry->name);
}

static struct erofs_entry *find_below(const struct level *l, const struct erofs_entry *entry)
{
	return l->dir ? erofs_find(l->dir, entry->name, entry->name_len) : NULL;
}

/* The image's folder for the layer's folder @entry: NULL when there is none.  0 or -errno of following links. */
static int find_dir(const struct level *l, const struct erofs_entry *entry, struct erofs_node **ret_dir)
{
	const struct erofs_entry *there = find_below(l, entry);

	*ret_dir = there && S_ISDIR(there->node->mode) ? there->node : NULL;
	if (!there || *ret_dir || !is_implicit(entry->node))
		return 0;
	return S_ISLNK(there->node->mode) ? tree_find_dir(l->image, l->dir, entry->name, entry->name_len, false,
							  ret_dir, l->err) : -ENOTDIR;
}

/* ---- whiteouts ---- */

static int hide_entry(void *ctx, struct erofs_entry *entry);

static void hide(struct erofs_tree *image, struct erofs_node *dir, const struct erofs_node *layer)
{
	struct level l = { .image = image, .dir = dir };

	if (erofs_get_xattr(layer, LAYER_OPAQUE_XATTR))
		erofs_clear(image, dir);
	(void)erofs_for_each(layer, hide_entry, &l);
}

static int hide_entry(void *ctx, struct erofs_entry *entry)
{
	struct level *l = ctx;
	struct erofs_entry *there;
	struct erofs_node *dir;

	if (layer_is_whiteout(entry->node)) {
		there = find_below(l, entry);
		if (there)
			erofs_remove(l->image, l->dir, there);
	} else if (S_ISDIR(entry->node->mode) && find_dir(l, entry, &dir) == 0 && dir) {
		hide(l->image, dir, entry->node);
	}
	return 0;
}

/* ---- files ---- */

static int add_entry(void *ctx, struct erofs_entry *entry);

/* Makes the folder of @l if it is not there. */
static int need_dir(struct level *l)
{
	int r;

	if (l->dir)
		return 0;
	r = need_dir(l->up);
	if (r == 0)
		r = tree_make_dir(l->image, l->up->dir, l->name, l->name_len, &l->dir, l->err);
	if (r == 0)
		erofs_drop_xattrs(l->dir);
	return r;
}

static void copy_stat(struct erofs_node *dir, struct erofs_node *from)
{
	dir->mode = from->mode;
	dir->uid = from->uid;
	dir->gid = from->gid;
	dir->mtime = from->mtime;
	dir->mtime_ns = from->mtime_ns;
	erofs_drop_xattrs(dir);
	dir->xattrs = from->xattrs;	/* the layer's tree is only thrown away afterwards */
	from->xattrs = NULL;
	erofs_drop_xattr(dir, LAYER_OPAQUE_XATTR);
}

static int replace(struct level *l, const struct erofs_entry *entry, struct erofs_node *node)
{
	struct erofs_entry *there = find_below(l, entry);
	int r = need_dir(l);

	if (r < 0 || (there && there->node == node))
		return r;
	node->nlink++;	/* lest it go with what it replaces */
	if (there)
		erofs_remove(l->image, l->dir, there);
	node->nlink--;
	r = erofs_link(l->image, l->dir, entry->name, entry->name_len, node, l->err);
	if (r < 0 && node->nlink == 0)
		erofs_node_free(node);
	return r;
}

static int add_dir(struct level *l, const struct erofs_entry *entry)
{
	struct level inner = { .image = l->image, .err = l->err, .up = l, .name = entry->name,
			       .name_len = entry->name_len };
	bool implicit = is_implicit(entry->node);
	struct erofs_entry *there = find_below(l, entry);
	int r = find_dir(l, entry, &inner.dir);

	if (r < 0)
		return misfit(l, "a file in what is no folder below it", entry);
	if (!implicit && there && !inner.dir)
		erofs_remove(l->image, l->dir, there);
	if (!implicit) {
		r = need_dir(&inner);
		if (r == 0)
			copy_stat(inner.dir, entry->node);
	}
	return r < 0 ? r : erofs_for_each(entry->node, add_entry, &inner);
}

/* A hard link to a file of a lower layer. */
static int add_link(struct level *l, const struct erofs_entry *entry, const struct erofs_xattr *link)
{
	const char *path = erofs_xattr_value(link);
	const char *slash = memrchr(path, '/', link->value_len);
	const char *name = slash ? slash + 1 : path;
	struct erofs_entry *target = NULL;
	struct erofs_node *dir;

	if (tree_find_dir(l->image, l->image->root, path, slash ? (size_t)(slash - path) : 0, false, &dir, NULL) == 0)
		target = erofs_find(dir, name, link->value_len - (size_t)(name - path));
	if (!target || S_ISDIR(target->node->mode))
		return misfit(l, "a hard link to a file that is not there", entry);
	return replace(l, entry, target->node);
}

static int add_entry(void *ctx, struct erofs_entry *entry)
{
	const struct erofs_xattr *link;

	if (layer_is_whiteout(entry->node))
		return 0;
	if (S_ISDIR(entry->node->mode))
		return add_dir(ctx, entry);
	link = erofs_get_xattr(entry->node, LAYER_LINK_XATTR);
	return link ? add_link(ctx, entry, link) : replace(ctx, entry, entry->node);
}

int merge_layer(struct erofs_tree *image, const struct erofs_tree *layer, struct err *err)
{
	struct level root = { .image = image, .err = err, .dir = image->root };
	int r;

	hide(image, image->root, layer->root);
	if (!is_implicit(layer->root))
		copy_stat(image->root, layer->root);
	r = erofs_for_each(layer->root, add_entry, &root);
	/* A link in the image can lead from a folder to what removes it: not before now. */
	erofs_sweep(image);
	return r;
}
