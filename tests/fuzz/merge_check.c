/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fuzz/merge_check.h"

#include "oci/layer_image.h"
#include "oci/tree_path.h"
#include "tests/fuzz/check.h"
#include "tests/fuzz/erofs_check.h"

#include <sys/stat.h>

static int check_marks(void *ctx, struct erofs_entry *entry)
{
	const struct erofs_node *node = entry->node;

	want(!layer_is_whiteout(node));
	want(!erofs_get_xattr(node, LAYER_OPAQUE_XATTR) && !erofs_get_xattr(node, LAYER_LINK_XATTR) &&
	     !erofs_get_xattr(node, TREE_IMPLICIT_XATTR));
	return S_ISDIR(node->mode) ? erofs_for_each(node, check_marks, NULL) : 0;
}

void merge_check(const struct erofs_tree *image)
{
	erofs_check_tree(image);
	(void)erofs_for_each(image->root, check_marks, NULL);
}
