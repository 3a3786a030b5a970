/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reader and writer for the part of TOML 1.0 that machine specs use: key =
 * value pairs, [table], [[array of tables]]; values are basic strings, integers,
 * booleans and one-line arrays of strings.  Everything else is an error that
 * names its line.
 *
 * The reader calls back for every value in order; nothing is kept.
 */
#ifndef MACHINE_TOML_H
#define MACHINE_TOML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;

enum toml_kind { TOML_STRING, TOML_INT, TOML_BOOL, TOML_TABLE };

struct toml_value {
	enum toml_kind kind;
	const char *table;	/* innermost table's name, "" at the top */
	const char *key;	/* NULL for TOML_TABLE */
	unsigned line;
	bool element;	/* one string of an array */
	const char *string;	/* TOML_STRING; NUL-terminated, without NUL inside */
	int64_t integer;	/* TOML_INT, TOML_BOOL (0 or 1) */
};

/*
 * Handles one value, or the start of a table (kind TOML_TABLE).  Returns 0, or a
 * negative errno with a sentence, which ends the reading.
 */
typedef int (*toml_fn)(void *ctx, const struct toml_value *value, struct err *err);

/* Reads @len bytes of UTF-8.  0, -EINVAL with the line, -ENOMEM, or what @fn returned. */
int toml_read(const char *text, size_t len, toml_fn fn, void *ctx, struct err *err);

/* Appends to a growing text; after a failed allocation nothing more happens. */
struct toml_writer {
	char *text;	/* owned, NUL-terminated; NULL before the first write */
	size_t len, cap;
	bool failed;
};

void toml_put_table(struct toml_writer *w, const char *name);	/* [[name]] */
void toml_put_string(struct toml_writer *w, const char *key, const char *value);
void toml_put_int(struct toml_writer *w, const char *key, int64_t value);
void toml_put_bool(struct toml_writer *w, const char *key, bool value);
void toml_put_strings(struct toml_writer *w, const char *key, char *const *values, unsigned n);

#endif /* MACHINE_TOML_H */
