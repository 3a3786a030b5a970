/* SPDX-License-Identifier: Apache-2.0 */
#include "block/overlay_header.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

static uint32_t crc32_ieee(const uint8_t *p, size_t len)
{
	uint32_t crc = 0xffffffffu;

	while (len--) {
		crc ^= *p++;
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
	}
	return ~crc;
}

/* First byte after the bitmap, rounded up to a cluster. */
static uint64_t data_offset(uint64_t size)
{
	uint64_t cluster = 1ull << OVERLAY_CLUSTER_BITS;
	uint64_t clusters = (size + cluster - 1) >> OVERLAY_CLUSTER_BITS;
	uint64_t end = OVERLAY_HEADER_BYTES + (clusters + 7) / 8;

	return (end + cluster - 1) & ~(cluster - 1);
}

void overlay_header_make(struct overlay_header *ret_header, uint64_t size, uint64_t base_size)
{
	struct overlay_header h = {
		.magic = OVERLAY_MAGIC,
		.version = htole32(OVERLAY_VERSION),
		.cluster_bits = htole32(OVERLAY_CLUSTER_BITS),
		.size = htole64(size),
		.base_size = htole64(base_size),
		.data_off = htole64(data_offset(size)),
	};

	h.crc = htole32(crc32_ieee((const uint8_t *)&h, offsetof(struct overlay_header, crc)));
	*ret_header = h;
}

int overlay_header_parse(const void *bytes, size_t len, struct overlay_header *ret_header)
{
	struct overlay_header h;

	if (len < sizeof(h))
		return -EINVAL;
	memcpy(&h, bytes, sizeof(h));
	if (memcmp(h.magic, OVERLAY_MAGIC, sizeof(h.magic)) != 0)
		return -EINVAL;
	if (le32toh(h.crc) != crc32_ieee(bytes, offsetof(struct overlay_header, crc)))
		return -EBADMSG;
	h.version = le32toh(h.version);
	h.cluster_bits = le32toh(h.cluster_bits);
	h.size = le64toh(h.size);
	h.base_size = le64toh(h.base_size);
	h.data_off = le64toh(h.data_off);
	if (h.version != OVERLAY_VERSION)
		return -EPROTONOSUPPORT;
	if (h.cluster_bits != OVERLAY_CLUSTER_BITS || h.size == 0 || h.size % 512 ||
	    h.size > OVERLAY_SIZE_MAX || h.base_size > h.size || h.data_off != data_offset(h.size))
		return -EBADMSG;
	*ret_header = h;
	return 0;
}
