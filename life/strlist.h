/* SPDX-License-Identifier: Apache-2.0 */
/* A list of strings that owns them.  Start with { 0 }. */
#ifndef LIFE_STRLIST_H
#define LIFE_STRLIST_H

#include <stddef.h>

struct strings {
	char **v;	/* NULL-ended; NULL when empty */
	size_t n;
};

/* Appends a copy of @text.  0 or -ENOMEM; the list is then as it was. */
int strings_add(struct strings *list, const char *text);

/* Appends copies of the NULL-ended @texts (NULL: none).  0 or -ENOMEM. */
int strings_add_all(struct strings *list, const char *const *texts);

/* Value of the entry "key=value", or NULL.  Borrowed. */
const char *strings_value(const struct strings *list, const char *key);

void strings_finish(struct strings *list);

#endif /* LIFE_STRLIST_H */
