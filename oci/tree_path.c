/* SPDX-License-Identifier: Apache-2.0 */
#include "oci/tree_path.h"

#include "oci/layer_image.h"
#include "os/err.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

#define LINKS_MAX 40	/* followed in one path, as in Linux */

/* What is left of a path; links are put in front of it. */
struct rest {
	char text[2 * PATH_MAX];
	size_t at, len;
	unsigned links;	/* followed */
};

static int too_long(struct err *err)
{
	return err_set(err, -EBADMSG, "the image has a path that is too long with the links in it");
}

static int push_link(struct rest *rest, const struct erofs_node *link, struct err *err)
{
	size_t tail = rest->len - rest->at, target = (size_t)link->size;

	if (++rest->links > LINKS_MAX)
		return -ELOOP;
	if (target + 1 + tail > sizeof(rest->text))
		return too_long(err);
	memmove(rest->text + target + 1, rest->text + rest->at, tail);
	memcpy(rest->text, link->target, target);
	rest->text[target] = '/';
	rest->at = 0;
	rest->len = target + 1 + tail;
	return 0;
}

int tree_make_dir(struct erofs_tree *tree, struct erofs_node *dir, const char *name, size_t len,
		  struct erofs_node **ret_dir, struct err *err)
{
	struct erofs_node *made;
	int r = erofs_node_new(tree, S_IFDIR | 0755, &made, err);

	if (r < 0)
		return r;
	r = erofs_set_xattr(tree, made, TREE_IMPLICIT_XATTR, NULL, 0, err);
	if (r == 0)
		r = erofs_link(tree, dir, name, len, made, err);
	if (r < 0)
		erofs_node_free(made);
	else
		*ret_dir = made;
	return r;
}

/* A folder in place of whiteout @entry: it has nothing of what is hidden. */
static int replace_whiteout(struct erofs_tree *tree, struct erofs_node *dir, struct erofs_entry *entry,
			    const char *name, size_t len, struct erofs_node **ret_dir, struct err *err)
{
	int r;

	erofs_remove(tree, dir, entry);
	r = tree_make_dir(tree, dir, name, len, ret_dir, err);
	if (r < 0)
		return r;
	erofs_drop_xattr(*ret_dir, TREE_IMPLICIT_XATTR);
	return erofs_set_xattr(tree, *ret_dir, LAYER_OPAQUE_XATTR, "y", 1, err);
}

/* One component: moves *dir, or pushes a link. */
static int step(struct erofs_tree *tree, struct rest *rest, const char *name, size_t len, bool make,
		struct erofs_node **dir, struct err *err)
{
	struct erofs_entry *entry;

	if (len == 0 || (len == 1 && name[0] == '.'))
		return 0;
	if (len == 2 && memcmp(name, "..", 2) == 0) {
		*dir = (*dir)->parent;
		return 0;
	}
	entry = erofs_find(*dir, name, len);
	if (!entry)
		return make ? tree_make_dir(tree, *dir, name, len, dir, err) : -ENOENT;
	if (make && layer_is_whiteout(entry->node))
		return replace_whiteout(tree, *dir, entry, name, len, dir, err);
	if (S_ISLNK(entry->node->mode)) {
		if (entry->node->target[0] == '/')
			*dir = tree->root;
		return push_link(rest, entry->node, err);
	}
	*dir = entry->node;
	return S_ISDIR(entry->node->mode) ? 0 : -ENOTDIR;
}

int tree_find_dir(struct erofs_tree *tree, struct erofs_node *start, const char *path, size_t len, bool make,
		  struct erofs_node **ret_dir, struct err *err)
{
	struct erofs_node *dir = len && path[0] == '/' ? tree->root : start;
	struct rest rest = { .len = len };
	int r = 0;

	if (len > sizeof(rest.text))
		return too_long(err);
	memcpy(rest.text, path, len);
	while (rest.at < rest.len && r == 0) {
		const char *name = rest.text + rest.at;
		const char *slash = memchr(name, '/', rest.len - rest.at);
		size_t n = slash ? (size_t)(slash - name) : rest.len - rest.at;

		rest.at += slash ? n + 1 : n;
		r = step(tree, &rest, name, n, make, &dir, err);
	}
	if (r == 0)
		*ret_dir = dir;
	return r;
}
