/* SPDX-License-Identifier: Apache-2.0 */
#include "os/blob.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

void blob_finish(struct blob *blob)
{
	free(blob->bytes);
	*blob = (struct blob){ 0 };
}

void blob_put(struct blob *blob, const void *bytes, size_t len)
{
	if (blob->failed || !len)
		return;
	if (len > blob->room - blob->len) {
		size_t room = (blob->len + len) * 2;
		uint8_t *grown = realloc(blob->bytes, room);

		if (!grown) {
			blob->failed = true;
			return;
		}
		blob->bytes = grown;
		blob->room = room;
	}
	memcpy(blob->bytes + blob->len, bytes, len);
	blob->len += len;
}

void blob_put_u16(struct blob *blob, uint16_t v)
{
	v = htole16(v);
	blob_put(blob, &v, sizeof(v));
}

void blob_put_u32(struct blob *blob, uint32_t v)
{
	v = htole32(v);
	blob_put(blob, &v, sizeof(v));
}

void blob_put_u64(struct blob *blob, uint64_t v)
{
	v = htole64(v);
	blob_put(blob, &v, sizeof(v));
}

const void *blob_take(struct blob_reader *in, size_t len)
{
	const void *at = in->at;

	if (in->failed || len > in->left) {
		in->failed = true;
		return NULL;
	}
	in->at += len;
	in->left -= len;
	return at;
}

uint16_t blob_take_u16(struct blob_reader *in)
{
	const void *at = blob_take(in, 2);
	uint16_t v = 0;

	if (at)
		memcpy(&v, at, sizeof(v));
	return le16toh(v);
}

uint32_t blob_take_u32(struct blob_reader *in)
{
	const void *at = blob_take(in, 4);
	uint32_t v = 0;

	if (at)
		memcpy(&v, at, sizeof(v));
	return le32toh(v);
}

uint64_t blob_take_u64(struct blob_reader *in)
{
	const void *at = blob_take(in, 8);
	uint64_t v = 0;

	if (at)
		memcpy(&v, at, sizeof(v));
	return le64toh(v);
}
