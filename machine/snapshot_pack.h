/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Compressed memory of snapshots (machine/snapshot.h): chunks, each a frame of its own, so that several threads work
 * at them.
 */
#ifndef MACHINE_SNAPSHOT_PACK_H
#define MACHINE_SNAPSHOT_PACK_H

#include <stdint.h>

struct snapshot;
struct snapshot_file;

/*
 * Compresses those pages of file->pages of @scratch, where page 0 is at byte 0, to the memory of the file; fills in sums, packed
 * and stored.  0 or a negative errno.
 */
int snapshot_pack(int scratch, struct snapshot_file *file);

/* Compresses the @bytes of code at @code behind that; the same. */
int snapshot_pack_code(const uint8_t *code, uint64_t bytes, struct snapshot_file *file);

/* Decompresses all code of a snapshot into the empty file @fd.  0, -EBADMSG when it is damaged, or another negative errno. */
int snapshot_unpack_code(const struct snapshot *snapshot, int fd);

/*
 * Decompresses what a snapshot has of bytes [@offset, @offset + @len) of memory, whole chunks, to where they belong from
 * @to on.  0, -EBADMSG when they are damaged, or another negative errno.
 */
int snapshot_unpack(const struct snapshot *snapshot, uint64_t offset, uint64_t len, uint8_t *to);

#endif /* MACHINE_SNAPSHOT_PACK_H */
