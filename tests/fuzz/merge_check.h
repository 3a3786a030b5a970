/* SPDX-License-Identifier: Apache-2.0 */
/* What must hold for merged layers. */
#ifndef TESTS_MERGE_CHECK_H
#define TESTS_MERGE_CHECK_H

#include "erofs/tree.h"

/* The tree is sound and has no mark of a layer left.  Aborts when not. */
void merge_check(const struct erofs_tree *image);

#endif /* TESTS_MERGE_CHECK_H */
