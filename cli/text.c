/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/cli.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

int complain(int status, const char *fmt, ...)
{
	va_list ap;

	(void)fputs("roux: ", stderr);
	va_start(ap, fmt);
	(void)vfprintf(stderr, fmt, ap);
	va_end(ap);
	(void)fputc('\n', stderr);
	return status;
}

bool parse_size(const char *text, uint64_t *ret_bytes)
{
	static const struct { const char *name; unsigned shift; } units[] = {
		{ "", 20 }, { "b", 0 }, { "k", 10 }, { "kb", 10 }, { "kib", 10 }, { "m", 20 }, { "mb", 20 },
		{ "mib", 20 }, { "g", 30 }, { "gb", 30 }, { "gib", 30 } };
	char *end;
	double v = strtod(text, &end);

	if (!isdigit((unsigned char)*text) && *text != '.')	/* strtod() knows signs, "nan" and "inf" too */
		return false;
	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
		if (strcasecmp(end, units[i].name) == 0) {
			double bytes = v * (double)(1ull << units[i].shift);

			if (bytes < 1 || bytes >= 0x1p63)
				return false;
			*ret_bytes = (uint64_t)bytes;
			return true;
		}
	return false;
}

void json_string(FILE *out, const char *text)
{
	(void)fputc('"', out);
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;

		if (c == '"' || c == '\\')
			(void)fprintf(out, "\\%c", c);
		else if (c < 0x20)
			(void)fprintf(out, "\\u%04x", c);
		else
			(void)fputc(c, out);
	}
	(void)fputc('"', out);
}

int take_env(const char *arg, char **ret_pair)
{
	const char *value = getenv(arg);

	*ret_pair = NULL;
	if (!*arg || *arg == '=')
		return complain(EXIT_ROUX, "-e needs NAME or NAME=VALUE, not '%s'", arg);
	if (strchr(arg, '='))
		*ret_pair = strdup(arg);
	else if (!value)
		return 0;	/* as docker: a name that is not set here is left out */
	else if (asprintf(ret_pair, "%s=%s", arg, value) < 0)
		*ret_pair = NULL;
	return *ret_pair ? 0 : complain(EXIT_ROUX, "out of memory");
}
