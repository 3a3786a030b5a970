/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Short texts without stdio: printf alone would be a third of this program.
 */
#ifndef GUEST_TEXT_H
#define GUEST_TEXT_H

#include <stddef.h>
#include <stdint.h>

#define TEXT_MAX 512 /* bytes, NUL included; what does not fit is cut off */

struct text {
	char str[TEXT_MAX];	/* always NUL-terminated */
	size_t len;
};

void text_add(struct text *text, const char *str);
void text_add_num(struct text *text, uint64_t value);

/* Adds ": " and the meaning of @error, a positive errno. */
void text_add_errno(struct text *text, int error);

/*
 * Reads an unsigned decimal number that makes up the whole of @str[0..@len).
 * Returns 0, or -1 when it is not one or exceeds @max.
 */
int text_to_num(const char *str, size_t len, uint64_t max, uint64_t *ret_value);

/* One line on the console: "roux: <what>[: <meaning of error>]".  @error may be 0. */
void say(const char *what, int error);

#endif /* GUEST_TEXT_H */
