/* SPDX-License-Identifier: Apache-2.0 */
/* Output of verbs: tables with aligned columns, and texts with {{.Fields}}. */
#ifndef CLI_FORMAT_H
#define CLI_FORMAT_H

#include <stdbool.h>
#include <stddef.h>

struct cJSON;

/*
 * Gives the text of field @name (with the @arg of {{.Name "arg"}}, or NULL) in
 * @ret[0..@size); false when there is no such field.
 */
typedef bool (*format_fn)(void *ctx, const char *name, const char *arg, char *ret, size_t size);

/* Prints @format and a newline with its fields replaced.  0, or an exit status after a complaint. */
int format_print(const char *format, format_fn field, void *ctx);

/*
 * Prints @format with paths such as {{.State.Status}} looked up in @json, whatever their
 * case; {{json .State}} prints a part as JSON.  0, or an exit status after a complaint.
 */
int format_json(const char *format, const struct cJSON *json);

/* Rows whose columns are aligned when it is printed.  Start with { 0 }. */
struct table {
	char **cell;	/* owned */
	size_t ncells, ncolumns;
};

void table_row(struct table *table, const char *const *cells);	/* NULL-ended, copied */
void table_fields(struct table *table, const char *const *names, format_fn field, void *ctx);
void table_print(struct table *table);	/* and frees it */

#endif /* CLI_FORMAT_H */
