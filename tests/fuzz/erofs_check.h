/* SPDX-License-Identifier: Apache-2.0 */
/* What must hold for every tree of files, whatever it was made of.  All abort when it does not. */
#ifndef TESTS_EROFS_CHECK_H
#define TESTS_EROFS_CHECK_H

#include "erofs/tree.h"

#include <stdbool.h>
#include <stdint.h>

/* Counts, parents, depths and numbers of links fit what is there. */
void erofs_check_tree(const struct erofs_tree *tree);

/* Both have the same files, but for where the data are. */
void erofs_check_same(const struct erofs_node *a, const struct erofs_node *b);

/*
 * Written to an image with these parts (see erofs_write_options), the tree is read
 * as it was, however large files are.  A tree that is too large to write is fine.
 */
void erofs_check_writable(struct erofs_tree *tree, const uint32_t *part_blocks, unsigned nparts);

#endif /* TESTS_EROFS_CHECK_H */
