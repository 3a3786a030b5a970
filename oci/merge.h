/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Puts the tree of a layer (oci/layer_image.h) over the tree of those below it
 * (OCI image specification, "Image Layer Filesystem Changeset").
 */
#ifndef OCI_MERGE_H
#define OCI_MERGE_H

#include "erofs/tree.h"

/*
 * Applies @layer to @image: first all whiteouts, then files.  Files become common
 * to both trees; finish @layer afterwards.
 *
 * Returns 0, -EBADMSG when the layer does not fit what is below it, -EFBIG above
 * the limits of @image, or -ENOMEM.
 */
int merge_layer(struct erofs_tree *image, const struct erofs_tree *layer, struct err *err);

#endif /* OCI_MERGE_H */
