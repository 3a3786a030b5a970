/* SPDX-License-Identifier: Apache-2.0 */
/* Points in time and spans of it as text. */
#ifndef LIFE_WHEN_H
#define LIFE_WHEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WHEN_SIZE 32 /* bytes of a point in time as text, NUL included */

int64_t when_now(void);	/* nanoseconds since 1970 UTC */

/* RFC 3339 in UTC with nanoseconds: "2026-11-21T09:00:00.000000000Z". */
void when_format(int64_t ns, char ret_text[WHEN_SIZE]);

/*
 * Reads RFC 3339 with or without fraction (UTC or with offset), seconds since
 * 1970 with or without fraction, or a span before @now_ns such as "10m" or "1h30m".
 */
bool when_parse(const char *text, int64_t now_ns, int64_t *ret_ns);

/* Reads a span such as "30s", "1m30s", "500ms", "2h", "1d"; a number alone is seconds. */
bool span_parse(const char *text, int64_t *ret_ns);

/* "5 seconds", "About a minute", "3 hours": what people say. */
void span_format(int64_t ns, char *ret_text, size_t size);

#endif /* LIFE_WHEN_H */
