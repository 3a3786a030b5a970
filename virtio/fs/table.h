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
void table_remove(struct table *table, uint64_t id);
void table_finish(struct table *table);

#endif /* VIRTIO_FS_TABLE_H */
