/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Codec of length-prefixed frames made of tagged fields, without I/O.
 *
 *   frame: u32 length | u8 type | u8 zero[3] | payload[length]
 *   field: u16 tag | u16 zero | u32 length | bytes[length]
 *
 * All little-endian, nothing aligned.  Input may be hostile: no function reads
 * outside the bytes it is given.  abi/agent.h gives types and tags a meaning.
 */
#ifndef BASE_FRAME_H
#define BASE_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FRAME_HEADER 8u	/* bytes */
#define FIELD_HEADER 8u	/* bytes */

struct frame {
	const uint8_t *data;	/* payload, borrowed from the buffer parsed */
	uint32_t len;	/* payload bytes */
	uint8_t type;
};

/*
 * Looks for one frame at the start of @buf.
 *
 * Returns 1 and fills @ret_frame (it occupies FRAME_HEADER + ret_frame->len
 * bytes), 0 when more bytes are needed, -1 when the header is broken: reserved
 * bytes set, or a payload larger than @max.
 */
int frame_parse(const uint8_t *buf, size_t len, uint32_t max, struct frame *ret_frame);

/* Writes the header of a frame with @len payload bytes. */
void frame_put_header(uint8_t out[FRAME_HEADER], uint8_t type, uint32_t len);

struct field {
	const uint8_t *data;	/* borrowed */
	uint32_t len;	/* bytes */
	uint16_t tag;
};

/* Cursor over a payload; start with { frame.data, frame.len }. */
struct field_reader {
	const uint8_t *at;
	size_t left;
};

/* Returns 1 and fills @ret_field, 0 at the end, -1 when the payload is broken. */
int field_next(struct field_reader *reader, struct field *ret_field);

/* Value of a field; false when the field has another size. */
bool field_u32(const struct field *field, uint32_t *ret_value);
bool field_u64(const struct field *field, uint64_t *ret_value);

/*
 * The field as a C string, borrowed, or NULL unless it ends in a NUL and has no
 * other.
 */
const char *field_str(const struct field *field);

/* Builds one frame in caller memory: frame_begin, field_put*, frame_end. */
struct frame_writer {
	uint8_t *buf;	/* borrowed */
	size_t cap, len;	/* bytes */
	bool full;	/* something did not fit; frame_end() will say so */
};

void frame_begin(struct frame_writer *writer, void *buf, size_t cap, uint8_t type);
void field_put(struct frame_writer *writer, uint16_t tag, const void *data, size_t len);
void field_put_u32(struct frame_writer *writer, uint16_t tag, uint32_t value);
void field_put_u64(struct frame_writer *writer, uint16_t tag, uint64_t value);
void field_put_str(struct frame_writer *writer, uint16_t tag, const char *str);

/* Completes the header.  Returns the frame's size in bytes, 0 when it did not fit. */
size_t frame_end(struct frame_writer *writer);

#endif /* BASE_FRAME_H */
