/* SPDX-License-Identifier: Apache-2.0 */
/* Private to net/: domain names as they are on the wire (RFC 1035, 3.1), for options and DNS. */
#ifndef NET_NAMES_H
#define NET_NAMES_H

#include "net/types.h"

#define NAME_WIRE_MAX 255u	/* bytes of a name with lengths and the root */

/*
 * Writes the @len bytes of text @name ("www.example", no dot at the end) as labels.
 * Returns the size with the root label, 0 when it is no name or does not fit.
 */
size_t name_put(const char *name, size_t len, uint8_t *out, size_t cap);

/*
 * Writes a list of names with spaces between, one after the other.  Returns the size;
 * what is no name or does not fit is left out.
 */
size_t name_put_list(const char *names, uint8_t *out, size_t cap);

size_t text_len(const char *text);	/* of a NUL-terminated text; 0 for NULL */

#endif /* NET_NAMES_H */
