/* SPDX-License-Identifier: Apache-2.0 */
/*
 * On-disk layout of a persistent overlay (block/overlay.c).
 *
 *   0            header, in one page
 *   4096         allocation bitmap, one bit a cluster, bit 0 of byte 0 first
 *   data_off     cluster i of the disk, at data_off + i * cluster (sparse)
 *
 * All integers are little-endian.  A cluster whose bit is clear shows the base.
 */
#ifndef BLOCK_OVERLAY_HEADER_H
#define BLOCK_OVERLAY_HEADER_H

#include <stddef.h>
#include <stdint.h>

#define OVERLAY_MAGIC "rouxcow"	/* with its NUL: 8 bytes */
#define OVERLAY_VERSION 1u
#define OVERLAY_HEADER_BYTES 4096u
#define OVERLAY_CLUSTER_BITS 16u	/* 64 KiB */
#define OVERLAY_SIZE_MAX (1ull << 50)	/* bytes */

struct overlay_header {
	char magic[8];
	uint32_t version;
	uint32_t cluster_bits;
	uint64_t size;	/* bytes of the disk */
	uint64_t base_size;	/* bytes of the base it was made for */
	uint64_t data_off;	/* bytes */
	uint32_t reserved;	/* 0 */
	uint32_t crc;	/* CRC-32 (IEEE 802.3) of the bytes before it */
};
_Static_assert(sizeof(struct overlay_header) == 48, "on-disk layout");

/* Fills the header, checksum included, for a disk of @size over @base_size bytes. */
void overlay_header_make(struct overlay_header *ret_header, uint64_t size, uint64_t base_size);

/*
 * Checks @len bytes read from the start of a file.  Returns 0 and a header in
 * host byte order whose fields are consistent, -EINVAL when it is not an
 * overlay, -EPROTONOSUPPORT for another version, -EBADMSG for a wrong checksum
 * or impossible fields.
 */
int overlay_header_parse(const void *bytes, size_t len, struct overlay_header *ret_header);

#endif /* BLOCK_OVERLAY_HEADER_H */
