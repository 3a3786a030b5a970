/* SPDX-License-Identifier: Apache-2.0 */
#include "base/cpio.h"

#define TYPE_DIR 0040000u
#define TYPE_FILE 0100000u
#define TYPE_CHAR 0020000u

/* Fields of a header after the magic, eight hexadecimal digits each. */
enum { INO, MODE, UID, GID, NLINK, MTIME, FILESIZE, DEVMAJOR, DEVMINOR, RDEVMAJOR, RDEVMINOR,
       NAMESIZE, CHECK, FIELDS };

static void put(struct cpio *c, const void *data, size_t len)
{
	if (c->buf && c->cap - c->len < len)
		c->full = true;
	if (c->full)
		return;
	if (c->buf && len)
		__builtin_memcpy(c->buf + c->len, data, len);
	c->len += len;
}

static void pad(struct cpio *c)
{
	put(c, "\0\0", -c->len & 3);
}

static void put_entry(struct cpio *c, const char *name, const uint32_t field[FIELDS],
		      const void *data)
{
	char head[6 + 8 * FIELDS];

	__builtin_memcpy(head, "070701", 6);
	for (int i = 0; i < FIELDS; i++)
		for (int d = 0; d < 8; d++)
			head[6 + 8 * i + d] = "0123456789abcdef"[field[i] >> (28 - 4 * d) & 15];
	put(c, head, sizeof(head));
	put(c, name, field[NAMESIZE]);
	pad(c);
	put(c, data, field[FILESIZE]);
	pad(c);
}

static uint32_t name_size(const char *name)
{
	return (uint32_t)__builtin_strlen(name) + 1;
}

void cpio_begin(struct cpio *cpio, void *buf, size_t cap)
{
	*cpio = (struct cpio){ .buf = buf, .cap = cap };
}

void cpio_dir(struct cpio *cpio, const char *name, uint32_t mode)
{
	uint32_t field[FIELDS] = { [INO] = ++cpio->ino, [MODE] = TYPE_DIR | mode, [NLINK] = 2,
				   [NAMESIZE] = name_size(name) };

	put_entry(cpio, name, field, "");
}

void cpio_file(struct cpio *cpio, const char *name, uint32_t mode, const void *data, uint32_t len)
{
	uint32_t field[FIELDS] = { [INO] = ++cpio->ino, [MODE] = TYPE_FILE | mode, [NLINK] = 1,
				   [FILESIZE] = len, [NAMESIZE] = name_size(name) };

	put_entry(cpio, name, field, data);
}

void cpio_char_device(struct cpio *cpio, const char *name, uint32_t mode, uint32_t major,
		      uint32_t minor)
{
	uint32_t field[FIELDS] = { [INO] = ++cpio->ino, [MODE] = TYPE_CHAR | mode, [NLINK] = 1,
				   [RDEVMAJOR] = major, [RDEVMINOR] = minor,
				   [NAMESIZE] = name_size(name) };

	put_entry(cpio, name, field, "");
}

size_t cpio_end(struct cpio *cpio)
{
	static const char last[] = "TRAILER!!!";
	uint32_t field[FIELDS] = { [NLINK] = 1, [NAMESIZE] = sizeof(last) };

	put_entry(cpio, last, field, "");
	return cpio->full ? 0 : cpio->len;
}
