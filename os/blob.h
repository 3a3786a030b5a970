/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Byte strings for saved state: written by appending, read by a cursor.
 * Integers are little-endian.  Both sides keep a failure in themselves, so that
 * callers put or take a whole record and ask once at the end.
 */
#ifndef OS_BLOB_H
#define OS_BLOB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A growing byte string.  Start with { 0 }; release with blob_finish(). */
struct blob {
	uint8_t *bytes;	/* owned */
	size_t len, room;	/* bytes used and allocated */
	bool failed;	/* memory ran out: the contents are useless */
};

void blob_finish(struct blob *blob);
void blob_put(struct blob *blob, const void *bytes, size_t len);
void blob_put_u16(struct blob *blob, uint16_t v);
void blob_put_u32(struct blob *blob, uint32_t v);
void blob_put_u64(struct blob *blob, uint64_t v);

/* Cursor over borrowed bytes, which may come from a damaged or hostile file. */
struct blob_reader {
	const uint8_t *at;
	size_t left;	/* bytes */
	bool failed;	/* something asked for lay past the end; takes then give 0 */
};

/* Returns @len borrowed bytes, or NULL past the end. */
const void *blob_take(struct blob_reader *in, size_t len);
uint16_t blob_take_u16(struct blob_reader *in);
uint32_t blob_take_u32(struct blob_reader *in);
uint64_t blob_take_u64(struct blob_reader *in);

#endif /* OS_BLOB_H */
