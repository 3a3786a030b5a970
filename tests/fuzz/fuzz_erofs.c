/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as an EROFS image.  What is read from it must be a tree that can be
 * written and gives the same tree again.
 */
#include "erofs/format.h"
#include "erofs/read.h"
#include "os/err.h"
#include "tests/fuzz/erofs_check.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static const struct erofs_limits limits = { .entries = 500, .bytes = 1 << 18 };
	/* The 1024 bytes that nobody reads are not part of the input. */
	uint8_t *image = calloc(1, EROFS_SUPER_OFF + len);
	struct erofs_tree tree;
	struct err err;	/* sentences are made, too */

	if (!image)
		return 0;
	memcpy(image + EROFS_SUPER_OFF, data, len);
	(void)erofs_read_blocks(image, EROFS_SUPER_OFF + len);
	if (erofs_read(image, EROFS_SUPER_OFF + len, 0, &limits, &tree, &err) == 0) {
		erofs_check_tree(&tree);
		erofs_check_writable(&tree, NULL, 0);
		erofs_tree_finish(&tree);
	}
	free(image);
	return 0;
}
