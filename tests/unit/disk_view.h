/* SPDX-License-Identifier: Apache-2.0 */
/* Looks into a disk with an EROFS file system, as the parts that it is made of. */
#ifndef TESTS_DISK_VIEW_H
#define TESTS_DISK_VIEW_H

#include "erofs/tree.h"

#include <stddef.h>
#include <stdint.h>

struct disk_view {
	uint8_t *bytes;	/* of all parts, owned */
	size_t size;
	struct erofs_tree tree;
};

/* Reads the @count files @paths, one after the other.  Fails the test on error. */
void disk_view_open(struct disk_view *view, char *const *paths, size_t count);
void disk_view_close(struct disk_view *view);	/* a zeroed one is fine */

/* What has this name, without following links; NULL: nothing. */
const struct erofs_node *disk_view_find(const struct disk_view *view, const char *path);

/* The data of regular file @node, node->size bytes.  Borrowed. */
const void *disk_view_data(const struct disk_view *view, const struct erofs_node *node);

/*
 * All files in order of names, a line each, which the caller frees:
 *
 *   d 755 0:0 etc
 *   f 644 0:0 etc/one *2 {user.note=hi} = content
 *   l etc/link -> target
 *   c 666 0:5 1:3 null
 *
 * *N: it has N names.
 */
char *disk_view_list(const struct disk_view *view);

#endif /* TESTS_DISK_VIEW_H */
