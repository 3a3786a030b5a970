/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/format.h"

#include "cli/cli.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIELD_MAX 4096u
#define CELLS_MAX 65536u

/* ------------------------------------------------------------------- texts */

/* What stands between {{ and }}, without white space around it; moves *at behind. */
static bool next_field(const char **at, char *ret, size_t size)
{
	const char *end = strstr(*at, "}}");
	size_t len;

	if (!end)
		return false;
	while (**at == ' ')
		(*at)++;
	len = (size_t)(end - *at);
	while (len && (*at)[len - 1] == ' ')
		len--;
	if (len >= size)
		return false;
	memcpy(ret, *at, len);
	ret[len] = '\0';
	*at = end + 2;
	return true;
}

/* Prints what is not a field, with \t and \n understood; returns where a field begins, or the end. */
static const char *print_plain(const char *at)
{
	for (; *at && strncmp(at, "{{", 2) != 0; at++) {
		if (at[0] == '\\' && (at[1] == 't' || at[1] == 'n')) {
			at++;
			(void)putchar(*at == 't' ? '\t' : '\n');
		} else {
			(void)putchar(*at);
		}
	}
	return at;
}

typedef int (*print_fn)(const char *field, void *ctx);

static int print_each(const char *format, print_fn print, void *ctx)
{
	char field[256];
	int status = 0;

	for (const char *at = print_plain(format); *at && status == 0; at = print_plain(at)) {
		at += 2;
		if (!next_field(&at, field, sizeof(field)))
			return complain(EXIT_ROUX, "--format: a field begins with {{ and ends with }}");
		status = print(field, ctx);
	}
	(void)putchar('\n');
	return status;
}

struct named {
	format_fn fn;
	void *ctx;
};

static int print_named(const char *field, void *ctx)
{
	const struct named *n = ctx;
	char name[64], arg[192] = "", text[FIELD_MAX];
	int parts = sscanf(field, ".%63[A-Za-z] \"%191[^\"]\"", name, arg);

	if (parts < 1 || !n->fn(n->ctx, name, parts == 2 ? arg : NULL, text, sizeof(text)))
		return complain(EXIT_ROUX, "--format: there is no field '%s'", field);
	(void)fputs(text, stdout);
	return 0;
}

int format_print(const char *format, format_fn field, void *ctx)
{
	struct named n = { field, ctx };

	return print_each(format, print_named, &n);
}

static int print_path(const char *field, void *ctx)
{
	const cJSON *item = ctx;
	bool json = strncmp(field, "json ", 5) == 0;
	const char *at = field + (json ? 5 : 0);
	char *text;

	if (*at != '.')
		return complain(EXIT_ROUX, "--format: a field looks like {{.State.Status}} or {{json .State}}, not '%s'", field);
	while (*at == '.' && at[1]) {
		char name[128];
		size_t len = strcspn(at + 1, ".");

		(void)snprintf(name, sizeof(name), "%.*s", (int)len, at + 1);
		item = cJSON_GetObjectItem(item, name);
		at += 1 + len;
	}
	if (!item)
		return complain(EXIT_ROUX, "--format: there is no field '%s'", field);
	if (cJSON_IsString(item) && !json) {
		(void)fputs(item->valuestring, stdout);
		return 0;
	}
	text = cJSON_PrintUnformatted(item);
	if (text)
		(void)fputs(text, stdout);
	free(text);
	return 0;
}

int format_json(const char *format, const cJSON *json)
{
	return print_each(format, print_path, (void *)(uintptr_t)json);
}

/* ------------------------------------------------------------------- tables */

static void add_cell(struct table *t, const char *text)
{
	char **more = t->ncells == CELLS_MAX ? NULL : realloc(t->cell, (t->ncells + 1) * sizeof(*more));

	if (!more)
		return;
	t->cell = more;
	more[t->ncells] = strdup(text);
	t->ncells += more[t->ncells] != NULL;
}

void table_row(struct table *t, const char *const *cells)
{
	size_t n = 0;

	for (; cells[n]; n++)
		add_cell(t, cells[n]);
	t->ncolumns = n;
}

void table_fields(struct table *t, const char *const *names, format_fn field, void *ctx)
{
	char text[FIELD_MAX];

	for (; *names; names++) {
		text[0] = '\0';
		(void)field(ctx, *names, NULL, text, sizeof(text));
		add_cell(t, text);
	}
}

/* Columns on the screen: bytes that begin a character of UTF-8. */
static size_t width(const char *text)
{
	size_t n = 0;

	for (; *text; text++)
		n += ((unsigned char)*text & 0xc0) != 0x80;
	return n;
}

void table_print(struct table *t)
{
	size_t widest[32] = { 0 };

	for (size_t i = 0; i < t->ncells; i++) {
		size_t w = width(t->cell[i]), column = i % t->ncolumns;

		if (column < 32 && w > widest[column])
			widest[column] = w;
	}
	for (size_t i = 0; i < t->ncells; i++) {
		size_t column = i % t->ncolumns;

		if (column + 1 == t->ncolumns)
			(void)printf("%s\n", t->cell[i]);
		else
			(void)printf("%s%*s", t->cell[i], (int)(widest[column % 32] - width(t->cell[i]) + 3), "");
		free(t->cell[i]);
	}
	free(t->cell);
	*t = (struct table){ 0 };
}
