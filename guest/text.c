/* SPDX-License-Identifier: Apache-2.0 */
#include "guest/text.h"

#include <string.h>
#include <unistd.h>

void text_add(struct text *text, const char *str)
{
	while (*str && text->len + 1 < sizeof(text->str))
		text->str[text->len++] = *str++;
	text->str[text->len] = '\0';
}

void text_add_num(struct text *text, uint64_t value)
{
	char digits[21];
	size_t at = sizeof(digits) - 1;

	digits[at] = '\0';
	do {
		digits[--at] = (char)('0' + value % 10);
		value /= 10;
	} while (value);
	text_add(text, digits + at);
}

void text_add_errno(struct text *text, int error)
{
	text_add(text, ": ");
	text_add(text, strerror(error));
}

int text_to_num(const char *str, size_t len, uint64_t max, uint64_t *ret_value)
{
	uint64_t v = 0;

	if (len == 0)
		return -1;
	for (size_t i = 0; i < len; i++) {
		uint64_t digit = (uint64_t)(unsigned char)str[i] - '0';

		if (digit > 9 || v > (max - digit) / 10 || digit > max)
			return -1;
		v = v * 10 + digit;
	}
	*ret_value = v;
	return 0;
}

void say(const char *what, int error)
{
	struct text line = { .len = 0 };

	text_add(&line, "roux: ");
	text_add(&line, what);
	if (error)
		text_add_errno(&line, error);
	text_add(&line, "\n");
	/* The console may be gone; there is nobody else to tell. */
	if (write(STDERR_FILENO, line.str, line.len) < 0)
		return;
}
