/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small integer ids for objects, starting at 1, as the guest uses them.
 * Private to virtio/fs/; the caller locks.
 */
#ifndef VIRTIO_FS_TABLE_H
#define VIRTIO_FS_TABLE_H

#include "virtio/fs/share.h"

/* Gives @object an id and how often that id was given before.  0 or -ENOMEM. */
int table_add(struct table *table, void *object, uint64_t *ret_id, uint64_t *ret_generation);
/* The object, or NULL. */
void *table_find(const struct table *table, uint64_t id);
/*
 * For restoring a table that holds nothing: begin, place objects (NULL: nothing
 * yet) at chosen ids, end.  Of the first @n ids those with 0 in @is_taken, and
 * all after them, become free.  table_place() returns 0 or -ENOMEM.
 */
void table_place_begin(struct table *table);
int table_place(struct table *table, uint64_t id, void *object, uint32_t generation);
void table_place_end(struct table *table, const uint8_t *is_taken, uint32_t n);
void table_remove(struct table *table, uint64_t id);
void table_finish(struct table *table);

#endif /* VIRTIO_FS_TABLE_H */
