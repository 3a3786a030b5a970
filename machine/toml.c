/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/toml.h"

#include "os/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------------------------ reading */

struct reader {
	const char *p, *end;
	unsigned line;
	char table[64], key[64];
	char *buf;	/* string under construction; as long as the text, so never too short */
	toml_fn fn;
	void *ctx;
	struct err *err;
};

static int bad(const struct reader *r, const char *what)
{
	return err_set(r->err, -EINVAL, "line %u: %s", r->line, what);
}

static bool at_end(const struct reader *r)
{
	return r->p >= r->end;
}

static void skip_blanks(struct reader *r)
{
	while (!at_end(r) && (*r->p == ' ' || *r->p == '\t'))
		r->p++;
}

/* Ends a line: blanks, a comment, the newline. */
static int line_end(struct reader *r)
{
	skip_blanks(r);
	if (!at_end(r) && *r->p == '#')
		while (!at_end(r) && *r->p != '\n')
			r->p++;
	if (!at_end(r) && *r->p == '\r')
		r->p++;
	if (at_end(r))
		return 0;
	if (*r->p != '\n')
		return bad(r, "expected the end of the line");
	r->p++;
	r->line++;
	return 0;
}

static bool is_key_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
}

static int read_name(struct reader *r, char *name, size_t size)
{
	size_t n = 0;

	while (!at_end(r) && is_key_char(*r->p)) {
		if (n + 1 >= size)
			return bad(r, "name too long");
		name[n++] = *r->p++;
	}
	name[n] = '\0';
	return n ? 0 : bad(r, "expected a name");
}

static int hex_digits(struct reader *r, unsigned n, uint32_t *ret)
{
	*ret = 0;
	for (; n > 0; n--) {
		char c = at_end(r) ? '\0' : *r->p++;

		if (c >= '0' && c <= '9')
			*ret = *ret << 4 | (uint32_t)(c - '0');
		else if ((c | 32) >= 'a' && (c | 32) <= 'f')
			*ret = *ret << 4 | (uint32_t)((c | 32) - 'a' + 10);
		else
			return bad(r, "bad \\u escape");
	}
	return 0;
}

static size_t put_utf8(char *out, uint32_t c)
{
	if (c < 0x80) {
		out[0] = (char)c;
		return 1;
	}
	if (c < 0x800) {
		out[0] = (char)(0xc0 | c >> 6);
		out[1] = (char)(0x80 | (c & 63));
		return 2;
	}
	if (c < 0x10000) {
		out[0] = (char)(0xe0 | c >> 12);
		out[1] = (char)(0x80 | (c >> 6 & 63));
		out[2] = (char)(0x80 | (c & 63));
		return 3;
	}
	out[0] = (char)(0xf0 | c >> 18);
	out[1] = (char)(0x80 | (c >> 12 & 63));
	out[2] = (char)(0x80 | (c >> 6 & 63));
	out[3] = (char)(0x80 | (c & 63));
	return 4;
}

/* One escape after its backslash; appends to r->buf at @n. */
static int read_escape(struct reader *r, size_t *n)
{
	static const char from[] = "btnfr\"\\e", to[] = "\b\t\n\f\r\"\\\x1b";
	char c = at_end(r) ? '\0' : *r->p++;
	const char *at = c ? strchr(from, c) : NULL;
	uint32_t code;

	if (at) {
		r->buf[(*n)++] = to[at - from];
		return 0;
	}
	if (c != 'u' && c != 'U')
		return bad(r, "unknown escape in a string");
	if (hex_digits(r, c == 'u' ? 4 : 8, &code) < 0)
		return -EINVAL;
	if (code == 0 || code > 0x10ffff || (code >= 0xd800 && code < 0xe000))
		return bad(r, "escape is no character");
	*n += put_utf8(r->buf + *n, code);
	return 0;
}

static int read_string(struct reader *r)
{
	size_t n = 0;

	r->p++;	/* the quote */
	for (;;) {
		char c = at_end(r) ? '\n' : *r->p++;

		if (c == '"')
			break;
		if (c == '\n' || c == '\0')
			return bad(r, "unfinished string");
		if (c != '\\')
			r->buf[n++] = c;
		else if (read_escape(r, &n) < 0)
			return -EINVAL;
	}
	r->buf[n] = '\0';
	return 0;
}

static int emit(struct reader *r, struct toml_value v)
{
	v.table = r->table;
	v.line = r->line;
	return r->fn(r->ctx, &v, r->err);
}

static int emit_string(struct reader *r, bool element)
{
	int res = read_string(r);

	return res < 0 ? res : emit(r, (struct toml_value){ .kind = TOML_STRING, .key = r->key, .string = r->buf,
							    .element = element });
}

static int read_array(struct reader *r)
{
	int res;

	r->p++;
	for (;;) {
		skip_blanks(r);
		if (!at_end(r) && *r->p == ']') {
			r->p++;
			return 0;
		}
		if (at_end(r) || *r->p != '"')
			return bad(r, "expected a string or ']' in an array");
		res = emit_string(r, true);
		if (res < 0)
			return res;
		skip_blanks(r);
		if (!at_end(r) && *r->p == ',')
			r->p++;
		else if (at_end(r) || *r->p != ']')
			return bad(r, "expected ',' or ']' in an array");
	}
}

static int read_number(struct reader *r)
{
	bool minus = *r->p == '-', any = false;
	uint64_t v = 0;

	if (*r->p == '-' || *r->p == '+')
		r->p++;
	for (; !at_end(r) && ((*r->p >= '0' && *r->p <= '9') || (*r->p == '_' && any)); r->p++) {
		if (*r->p == '_')
			continue;
		any = true;
		if (v > (INT64_MAX - 9) / 10)
			return bad(r, "number too large");
		v = v * 10 + (uint64_t)(*r->p - '0');
	}
	if (!any)
		return bad(r, "expected a value");
	return emit(r, (struct toml_value){ .kind = TOML_INT, .key = r->key,
					    .integer = minus ? -(int64_t)v : (int64_t)v });
}

static bool take_word(struct reader *r, const char *word)
{
	size_t n = strlen(word);

	if ((size_t)(r->end - r->p) < n || memcmp(r->p, word, n) != 0 ||
	    (r->p + n < r->end && is_key_char(r->p[n])))
		return false;
	r->p += n;
	return true;
}

static int read_value(struct reader *r)
{
	if (at_end(r))
		return bad(r, "expected a value");
	if (*r->p == '"')
		return emit_string(r, false);
	if (*r->p == '[')
		return read_array(r);
	if (take_word(r, "true"))
		return emit(r, (struct toml_value){ .kind = TOML_BOOL, .key = r->key, .integer = 1 });
	if (take_word(r, "false"))
		return emit(r, (struct toml_value){ .kind = TOML_BOOL, .key = r->key });
	return read_number(r);
}

static int read_table(struct reader *r)
{
	bool twice = r->end - r->p >= 2 && r->p[1] == '[';
	int res;

	r->p += twice ? 2 : 1;
	skip_blanks(r);
	res = read_name(r, r->table, sizeof(r->table));
	if (res < 0)
		return res;
	skip_blanks(r);
	for (int i = 0; i < (twice ? 2 : 1); i++)
		if (at_end(r) || *r->p++ != ']')
			return bad(r, "expected ']'");
	return emit(r, (struct toml_value){ .kind = TOML_TABLE });
}

static int read_line(struct reader *r)
{
	int res;

	skip_blanks(r);
	if (at_end(r) || *r->p == '\n' || *r->p == '#' || *r->p == '\r')
		return line_end(r);
	if (*r->p == '[') {
		res = read_table(r);
	} else {
		res = read_name(r, r->key, sizeof(r->key));
		if (res < 0)
			return res;
		skip_blanks(r);
		if (at_end(r) || *r->p++ != '=')
			return bad(r, "expected '=' after the key");
		skip_blanks(r);
		res = read_value(r);
	}
	return res < 0 ? res : line_end(r);
}

int toml_read(const char *text, size_t len, toml_fn fn, void *ctx, struct err *err)
{
	struct reader r = { .p = text, .end = text + len, .line = 1, .fn = fn, .ctx = ctx, .err = err };
	int res = 0;

	r.buf = malloc(len + 8);
	if (!r.buf)
		return err_set(err, -ENOMEM, "out of host memory");
	while (res == 0 && !at_end(&r))
		res = read_line(&r);
	free(r.buf);
	return res;
}

/* ------------------------------------------------------------------ writing */

static void put(struct toml_writer *w, const char *s, size_t n)
{
	if (w->len + n + 1 > w->cap && !w->failed) {
		size_t cap = (w->len + n + 1) * 2;
		char *more = realloc(w->text, cap);

		if (!more) {
			w->failed = true;
			return;
		}
		w->text = more;
		w->cap = cap;
	}
	if (w->failed)
		return;
	memcpy(w->text + w->len, s, n);
	w->len += n;
	w->text[w->len] = '\0';
}

static void put_str(struct toml_writer *w, const char *s)
{
	put(w, s, strlen(s));
}

static void put_quoted(struct toml_writer *w, const char *s)
{
	put_str(w, "\"");
	for (; *s; s++) {
		char esc[8];

		if (*s == '"' || *s == '\\') {
			esc[0] = '\\';
			esc[1] = *s;
			put(w, esc, 2);
		} else if ((unsigned char)*s < 0x20 || *s == 0x7f) {
			put(w, esc, (size_t)snprintf(esc, sizeof(esc), "\\u%04x", (unsigned char)*s));
		} else {
			put(w, s, 1);
		}
	}
	put_str(w, "\"");
}

static void put_key(struct toml_writer *w, const char *key)
{
	put_str(w, key);
	put_str(w, " = ");
}

void toml_put_table(struct toml_writer *w, const char *name)
{
	put_str(w, "\n[[");
	put_str(w, name);
	put_str(w, "]]\n");
}

void toml_put_string(struct toml_writer *w, const char *key, const char *value)
{
	put_key(w, key);
	put_quoted(w, value);
	put_str(w, "\n");
}

void toml_put_int(struct toml_writer *w, const char *key, int64_t value)
{
	char text[32];

	put_key(w, key);
	put(w, text, (size_t)snprintf(text, sizeof(text), "%lld\n", (long long)value));
}

void toml_put_bool(struct toml_writer *w, const char *key, bool value)
{
	put_key(w, key);
	put_str(w, value ? "true\n" : "false\n");
}

void toml_put_strings(struct toml_writer *w, const char *key, char *const *values, unsigned n)
{
	put_key(w, key);
	put_str(w, "[");
	for (unsigned i = 0; i < n; i++) {
		if (i)
			put_str(w, ", ");
		put_quoted(w, values[i]);
	}
	put_str(w, "]\n");
}
