/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Paths in a tree of files, as the system that has the tree as its root would
 * resolve them: symbolic links are followed, ".." stops at the root.
 */
#ifndef OCI_TREE_PATH_H
#define OCI_TREE_PATH_H

#include "erofs/tree.h"

/* On folders of a layer that the layer names files in, but not themselves. */
#define TREE_IMPLICIT_XATTR "trusted.roux.implicit"

/*
 * Finds folder @path (@len bytes) from @start, or the root when it begins with
 * '/'.  With @make, in the tree of a layer, missing folders are made, with
 * TREE_IMPLICIT_XATTR, and opaque ones in place of whiteouts.
 *
 * Returns 0, -ENOENT, -ENOTDIR, -ELOOP (these without a sentence), -EBADMSG for
 * a path that links make too long, or what making folders returned.
 */
int tree_find_dir(struct erofs_tree *tree, struct erofs_node *start, const char *path, size_t len, bool make,
		  struct erofs_node **ret_dir, struct err *err);

/* Puts an empty folder with TREE_IMPLICIT_XATTR into @dir, where @name must be free.  0 or -errno. */
int tree_make_dir(struct erofs_tree *tree, struct erofs_node *dir, const char *name, size_t len,
		  struct erofs_node **ret_dir, struct err *err);

#endif /* OCI_TREE_PATH_H */
