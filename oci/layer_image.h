/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One layer as an EROFS image, which says all that the layer says:
 *
 *   whiteout                    character device 0:0, as overlayfs has it
 *   opaque folder               LAYER_OPAQUE_XATTR, as overlayfs has it
 *   folder that files are in, but that the layer itself does not describe
 *                               TREE_IMPLICIT_XATTR (oci/tree_path.h)
 *   hard link to a lower layer  an empty file with the path in LAYER_LINK_XATTR
 *
 * Attributes "trusted." cannot come from the layer, so these marks are genuine.
 * Only oci/merge.h gives the last two their meaning.
 */
#ifndef OCI_LAYER_IMAGE_H
#define OCI_LAYER_IMAGE_H

#include "erofs/tree.h"
#include "oci/image.h"

#include <stdbool.h>

struct layer;

#define LAYER_OPAQUE_XATTR "trusted.overlay.opaque"	/* value "y" */
#define LAYER_LINK_XATTR "trusted.roux.link"

/* Memory for the names of one layer, and of one image. */
#define LAYER_MEMORY_MAX (1ull << 30)	/* bytes */

bool layer_is_whiteout(const struct erofs_node *node);

/*
 * Writes the image of the entries of @layer (just opened) to the empty file @fd.
 * The same layer always gives the same bytes.  Data go to the file as they come;
 * only names and attributes are kept in memory.
 *
 * Returns 0, -EBADMSG for a damaged or hostile layer, -EFBIG beyond @limits,
 * -ENOSPC, -EINTR or another -errno.  The file is worth something only after
 * layer_finish() too.
 */
int layer_image_write(struct layer *layer, int fd, const struct oci_limits *limits, struct err *err);

#endif /* OCI_LAYER_IMAGE_H */
