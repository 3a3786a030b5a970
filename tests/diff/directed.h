/* SPDX-License-Identifier: Apache-2.0 */
/* Items written by hand, for what chance would take long to find. */
#ifndef TESTS_DIFF_DIRECTED_H
#define TESTS_DIFF_DIRECTED_H

#include "tests/diff/diff.h"

/* Fills in item number @index and returns its name, or NULL behind the last. */
const char *directed_item(unsigned index, struct item *ret_item);

#endif /* TESTS_DIFF_DIRECTED_H */
