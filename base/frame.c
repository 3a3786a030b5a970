/* SPDX-License-Identifier: Apache-2.0 */
/* Frame codec.  Bytes are put together one by one: no alignment, any host order. */
#include "base/frame.h"

static uint32_t get_le(const uint8_t *at, unsigned bytes)
{
	uint32_t v = 0;

	for (unsigned i = 0; i < bytes; i++)
		v |= (uint32_t)at[i] << (8 * i);
	return v;
}

static void put_le(uint8_t *at, uint64_t v, unsigned bytes)
{
	for (unsigned i = 0; i < bytes; i++)
		at[i] = (uint8_t)(v >> (8 * i));
}

int frame_parse(const uint8_t *buf, size_t len, uint32_t max, struct frame *ret_frame)
{
	uint32_t size;

	if (len < FRAME_HEADER)
		return 0;
	size = get_le(buf, 4);
	if (size > max || get_le(buf + 5, 3) != 0)
		return -1;
	if (len - FRAME_HEADER < size)
		return 0;
	*ret_frame = (struct frame){ .data = buf + FRAME_HEADER, .len = size, .type = buf[4] };
	return 1;
}

void frame_put_header(uint8_t out[FRAME_HEADER], uint8_t type, uint32_t len)
{
	put_le(out, len, 4);
	put_le(out + 4, type, 4);
}

int field_next(struct field_reader *reader, struct field *ret_field)
{
	uint32_t size;

	if (reader->left == 0)
		return 0;
	if (reader->left < FIELD_HEADER || get_le(reader->at + 2, 2) != 0)
		return -1;
	size = get_le(reader->at + 4, 4);
	if (reader->left - FIELD_HEADER < size)
		return -1;
	*ret_field = (struct field){
		.data = reader->at + FIELD_HEADER,
		.len = size,
		.tag = (uint16_t)get_le(reader->at, 2),
	};
	reader->at += FIELD_HEADER + size;
	reader->left -= FIELD_HEADER + size;
	return 1;
}

bool field_u32(const struct field *field, uint32_t *ret_value)
{
	if (field->len != 4)
		return false;
	*ret_value = get_le(field->data, 4);
	return true;
}

bool field_u64(const struct field *field, uint64_t *ret_value)
{
	if (field->len != 8)
		return false;
	*ret_value = get_le(field->data, 4) | (uint64_t)get_le(field->data + 4, 4) << 32;
	return true;
}

const char *field_str(const struct field *field)
{
	for (uint32_t i = 0; i < field->len; i++)
		if (field->data[i] == '\0')
			return i + 1 == field->len ? (const char *)field->data : NULL;
	return NULL;
}

void frame_begin(struct frame_writer *writer, void *buf, size_t cap, uint8_t type)
{
	*writer = (struct frame_writer){ .buf = buf, .cap = cap };
	if (cap < FRAME_HEADER) {
		writer->full = true;
		return;
	}
	frame_put_header(writer->buf, type, 0);
	writer->len = FRAME_HEADER;
}

void field_put(struct frame_writer *writer, uint16_t tag, const void *data, size_t len)
{
	uint8_t *at = writer->buf + writer->len;

	if (writer->full || len > UINT32_MAX || writer->cap - writer->len < FIELD_HEADER ||
	    writer->cap - writer->len - FIELD_HEADER < len) {
		writer->full = true;
		return;
	}
	put_le(at, tag, 4);
	put_le(at + 4, len, 4);
	if (len)
		__builtin_memcpy(at + FIELD_HEADER, data, len);
	writer->len += FIELD_HEADER + len;
}

void field_put_u32(struct frame_writer *writer, uint16_t tag, uint32_t value)
{
	uint8_t bytes[4];

	put_le(bytes, value, sizeof(bytes));
	field_put(writer, tag, bytes, sizeof(bytes));
}

void field_put_u64(struct frame_writer *writer, uint16_t tag, uint64_t value)
{
	uint8_t bytes[8];

	put_le(bytes, value, sizeof(bytes));
	field_put(writer, tag, bytes, sizeof(bytes));
}

void field_put_str(struct frame_writer *writer, uint16_t tag, const char *str)
{
	field_put(writer, tag, str, __builtin_strlen(str) + 1);
}

size_t frame_end(struct frame_writer *writer)
{
	if (writer->full || writer->len - FRAME_HEADER > UINT32_MAX)
		return 0;
	put_le(writer->buf, writer->len - FRAME_HEADER, 4);
	return writer->len;
}
