/* SPDX-License-Identifier: Apache-2.0 */
#include "net/names.h"
#include "net/wire.h"

size_t text_len(const char *text)
{
	size_t len = 0;

	while (text && text[len])
		len++;
	return len;
}

size_t name_put(const char *name, size_t len, uint8_t *out, size_t cap)
{
	size_t at = 0, label = 0;

	if (!len || len + 2 > cap || len + 2 > NAME_WIRE_MAX)
		return 0;
	for (size_t i = 0; i <= len; i++) {
		if (i < len && name[i] != '.') {
			out[at + 1 + label++] = (uint8_t)name[i];
			continue;
		}
		if (!label || label > 63)
			return 0;
		out[at] = (uint8_t)label;
		at += label + 1;
		label = 0;
	}
	out[at++] = 0;
	return at;
}

size_t name_put_list(const char *names, uint8_t *out, size_t cap)
{
	size_t at = 0, len;

	while (names && *names) {
		for (len = 0; names[len] && names[len] != ' '; len++)
			continue;
		at += name_put(names, len, out + at, cap - at);
		names += len;
		while (*names == ' ')
			names++;
	}
	return at;
}
