/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes the metadata of an EROFS image.  Equal trees give equal bytes.
 *
 * A disk is made of parts, files put one after the other, which data of the
 * tree's files lie in (erofs_node.device).  The image itself is part 0:
 *
 *   superblock | data of part 0, if any | metadata | part 1 | part 2 | ...
 */
#ifndef EROFS_WRITE_H
#define EROFS_WRITE_H

#include "erofs/tree.h"

#include <stdint.h>

struct erofs_write_options {
	int fd;	/* of part 0, borrowed */
	uint32_t meta_block;	/* where metadata may begin: behind the superblock and part 0's data */
	const uint32_t *part_blocks;	/* blocks of the parts 1, 2, ...; borrowed */
	unsigned nparts;	/* of them */
};

/*
 * Writes superblock and metadata of @tree, and lets the file end with them.
 * Returns 0 and the number of blocks of the whole disk, -EFBIG when they are
 * more than EROFS can number, -ENOMEM, or the errno of writing.
 */
int erofs_write(struct erofs_tree *tree, const struct erofs_write_options *opt, uint64_t *ret_blocks,
		struct err *err);

#endif /* EROFS_WRITE_H */
