/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads the metadata of an EROFS image of the kind that erofs_write() makes:
 * extended inodes, no compression, one part.  The file may be damaged or
 * hostile.
 */
#ifndef EROFS_READ_H
#define EROFS_READ_H

#include "erofs/tree.h"

#include <stddef.h>

/*
 * Makes a tree of the image of @size bytes at @image (borrowed, not needed
 * afterwards).  Data of files are said to be in part @device.
 *
 * Returns 0 and a tree for erofs_tree_finish(), -EBADMSG when the image is
 * damaged, -EFBIG above @limits, or -ENOMEM.
 */
int erofs_read(const void *image, size_t size, uint32_t device, const struct erofs_limits *limits,
	       struct erofs_tree *ret_tree, struct err *err);

/*
 * The same for the first part of a disk of several, which has the metadata of all; data of files are said to be in part 0
 * and have their block's number on the disk, which is checked against its size as the superblock has it.
 */
int erofs_read_first_part(const void *image, size_t size, const struct erofs_limits *limits, struct erofs_tree *ret_tree,
			  struct err *err);

/* Number of blocks that the superblock of @image names; 0 when it has none of ours. */
uint32_t erofs_read_blocks(const void *image, size_t size);

#endif /* EROFS_READ_H */
