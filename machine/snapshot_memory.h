/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory of a snapshot (machine/snapshot.h) as the guest had it, with that of the snapshots that it is on top of: mapped
 * privately from their files, one over another, or decompressed.  Its bases are open.  The files must not change
 * while it is used.
 */
#ifndef MACHINE_SNAPSHOT_MEMORY_H
#define MACHINE_SNAPSHOT_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct mem;
struct snapshot;

/* Makes guest RAM of it.  0 and passes ownership, -EBADMSG when it is damaged, or another negative errno with a sentence. */
int snapshot_memory(const struct snapshot *snapshot, struct mem **ret_mem, struct err *err);

/* All of it in one piece, to be read. */
struct snapshot_view {
	uint8_t *memory;	/* owned mapping of @bytes */
	uint64_t bytes;
	uint64_t *there;	/* owned: no bit for a page that is surely zero; that costs nothing if it is not touched */
};

/* 0, or as snapshot_memory(). */
int snapshot_view(const struct snapshot *snapshot, struct snapshot_view *ret_view, struct err *err);
void snapshot_view_finish(struct snapshot_view *view);

static inline bool snapshot_view_there(const struct snapshot_view *view, uint64_t page)
{
	return view->there[page / 64] >> page % 64 & 1;
}

#endif /* MACHINE_SNAPSHOT_MEMORY_H */
