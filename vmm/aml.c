/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/aml.h"

#include <string.h>

enum {
	OP_ZERO = 0x00,
	OP_ONE = 0x01,
	OP_NAME = 0x08,
	OP_BYTE = 0x0a,
	OP_WORD = 0x0b,
	OP_DWORD = 0x0c,
	OP_STRING = 0x0d,
	OP_QWORD = 0x0e,
	OP_SCOPE = 0x10,
	OP_BUFFER = 0x11,
	OP_PACKAGE = 0x12,
	OP_METHOD = 0x14,
	OP_EXT = 0x5b,
	OP_EXT_DEVICE = 0x82,
	OP_NOTIFY = 0x86,
};

#define PKG_LENGTH_BYTES 4	/* always the longest form, so that closing moves nothing */

static void put(struct aml *a, const void *bytes, size_t len)
{
	if (len > a->size - a->used) {
		a->overflow = true;
		return;
	}
	memcpy(a->buf + a->used, bytes, len);
	a->used += len;
}

static void put8(struct aml *a, uint8_t v)
{
	put(a, &v, sizeof(v));
}

static void put16(struct aml *a, uint16_t v)
{
	put(a, &v, sizeof(v));
}

static void put32(struct aml *a, uint32_t v)
{
	put(a, &v, sizeof(v));
}

/* NameSeg of four characters, padded with '_'; a leading '\' is the root prefix. */
static void put_path(struct aml *a, const char *name)
{
	char seg[4] = { '_', '_', '_', '_' };
	size_t len;

	if (*name == '\\')
		put8(a, (uint8_t)*name++);
	len = strlen(name);
	memcpy(seg, name, len < sizeof(seg) ? len : sizeof(seg));
	put(a, seg, sizeof(seg));
}

static aml_mark open_length(struct aml *a)
{
	aml_mark mark = a->used;

	put(a, "\0\0\0\0", PKG_LENGTH_BYTES);
	return mark;
}

/* PkgLength counts itself; ACPI 6.4, 20.2.4: low nibble first, then whole bytes. */
void aml_close(struct aml *aml, aml_mark mark)
{
	size_t len = aml->used - mark;

	if (aml->overflow)
		return;
	aml->buf[mark] = (uint8_t)((PKG_LENGTH_BYTES - 1) << 6 | (len & 0xf));
	aml->buf[mark + 1] = (uint8_t)(len >> 4);
	aml->buf[mark + 2] = (uint8_t)(len >> 12);
	aml->buf[mark + 3] = (uint8_t)(len >> 20);
}

aml_mark aml_scope_open(struct aml *aml, const char *name)
{
	aml_mark mark;

	put8(aml, OP_SCOPE);
	mark = open_length(aml);
	put_path(aml, name);
	return mark;
}

aml_mark aml_device_open(struct aml *aml, const char *name)
{
	aml_mark mark;

	put8(aml, OP_EXT);
	put8(aml, OP_EXT_DEVICE);
	mark = open_length(aml);
	put_path(aml, name);
	return mark;
}

static void put_int(struct aml *a, uint64_t v)
{
	if (v <= 1) {
		put8(a, v ? OP_ONE : OP_ZERO);
	} else if (v <= UINT8_MAX) {
		put8(a, OP_BYTE);
		put8(a, (uint8_t)v);
	} else if (v <= UINT16_MAX) {
		put8(a, OP_WORD);
		put16(a, (uint16_t)v);
	} else if (v <= UINT32_MAX) {
		put8(a, OP_DWORD);
		put32(a, (uint32_t)v);
	} else {
		put8(a, OP_QWORD);
		put(a, &v, sizeof(v));
	}
}

static void put_name(struct aml *a, const char *name)
{
	put8(a, OP_NAME);
	put_path(a, name);
}

void aml_name_int(struct aml *aml, const char *name, uint64_t value)
{
	put_name(aml, name);
	put_int(aml, value);
}

void aml_name_string(struct aml *aml, const char *name, const char *value)
{
	put_name(aml, name);
	put8(aml, OP_STRING);
	put(aml, value, strlen(value) + 1);
}

static uint8_t hex_digit(char c)
{
	return (uint8_t)(c <= '9' ? c - '0' : c - 'A' + 10);
}

/* Three letters of five bits each and four hexadecimal digits, big-endian. */
void aml_name_eisa_id(struct aml *aml, const char *name, const char *eisa_id)
{
	uint16_t letters = (uint16_t)((eisa_id[0] - '@') << 10 | (eisa_id[1] - '@') << 5 |
				      (eisa_id[2] - '@'));

	put_name(aml, name);
	put8(aml, OP_DWORD);
	put8(aml, (uint8_t)(letters >> 8));
	put8(aml, (uint8_t)letters);
	put8(aml, (uint8_t)(hex_digit(eisa_id[3]) << 4 | hex_digit(eisa_id[4])));
	put8(aml, (uint8_t)(hex_digit(eisa_id[5]) << 4 | hex_digit(eisa_id[6])));
}

aml_mark aml_method_open(struct aml *aml, const char *name, unsigned nargs)
{
	aml_mark mark;

	put8(aml, OP_METHOD);
	mark = open_length(aml);
	put_path(aml, name);
	put8(aml, (uint8_t)(nargs & 7));
	return mark;
}

void aml_notify(struct aml *aml, const char *object, uint8_t value)
{
	put8(aml, OP_NOTIFY);
	put_path(aml, object);
	put_int(aml, value);
}

void aml_name_package(struct aml *aml, const char *name, const uint64_t *values, unsigned n)
{
	aml_mark mark;

	put_name(aml, name);
	put8(aml, OP_PACKAGE);
	mark = open_length(aml);
	put8(aml, (uint8_t)n);
	for (unsigned i = 0; i < n; i++)
		put_int(aml, values[i]);
	aml_close(aml, mark);
}

/* Buffer (word size) { descriptors }: the size is known at the end. */
aml_mark aml_crs_open(struct aml *aml)
{
	aml_mark mark;

	put_name(aml, "_CRS");
	put8(aml, OP_BUFFER);
	mark = open_length(aml);
	put8(aml, OP_WORD);
	put16(aml, 0);
	return mark;
}

void aml_crs_close(struct aml *aml, aml_mark mark)
{
	size_t start = mark + PKG_LENGTH_BYTES + 3;
	uint16_t len;

	put8(aml, 0x79);	/* end tag; checksum 0 means none */
	put8(aml, 0);
	if (aml->overflow)
		return;
	len = (uint16_t)(aml->used - start);
	memcpy(aml->buf + start - sizeof(len), &len, sizeof(len));
	aml_close(aml, mark);
}

void aml_crs_memory32(struct aml *aml, uint32_t base, uint32_t len)
{
	put8(aml, 0x86);	/* 32-bit fixed memory range */
	put16(aml, 9);
	put8(aml, 1);	/* writable */
	put32(aml, base);
	put32(aml, len);
}

void aml_crs_io(struct aml *aml, uint16_t port, uint8_t len)
{
	put8(aml, 0x47);	/* I/O port */
	put8(aml, 1);	/* decodes 16 bits */
	put16(aml, port);
	put16(aml, port);
	put8(aml, 1);
	put8(aml, len);
}

void aml_crs_interrupt(struct aml *aml, uint32_t gsi, bool edge)
{
	put8(aml, 0x89);	/* extended interrupt */
	put16(aml, 6);
	put8(aml, edge ? 3 : 1);	/* consumer, edge or level, active high, exclusive */
	put8(aml, 1);
	put32(aml, gsi);
}
