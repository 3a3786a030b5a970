/* SPDX-License-Identifier: Apache-2.0 */
#include "life/when.h"

#include "base/checked.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define NS_PER_S 1000000000ll
#define SECONDS_MAX 9000000000ll /* what fits in 64 bits of nanoseconds */

int64_t when_now(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_REALTIME, &t);
	return (int64_t)t.tv_sec * NS_PER_S + t.tv_nsec;
}

void when_format(int64_t ns, char ret_text[WHEN_SIZE])
{
	int64_t fraction = (ns % NS_PER_S + NS_PER_S) % NS_PER_S;	/* not negative before 1970 either */
	time_t seconds = (time_t)((ns - fraction) / NS_PER_S);
	struct tm tm;
	size_t n;

	(void)gmtime_r(&seconds, &tm);
	n = strftime(ret_text, WHEN_SIZE, "%Y-%m-%dT%H:%M:%S", &tm);
	(void)snprintf(ret_text + n, WHEN_SIZE - n, ".%09lldZ", (long long)fraction);
}

/* Nanoseconds of a fraction ".123" at *at, which moves behind it. */
static int64_t take_fraction(const char **at)
{
	int64_t ns = 0, unit = NS_PER_S / 10;

	if (**at != '.')
		return 0;
	for ((*at)++; isdigit((unsigned char)**at); (*at)++, unit /= 10)
		ns += (**at - '0') * unit;
	return ns;
}

/* "Z", "+02:00" or nothing; seconds to subtract. */
static bool take_zone(const char *at, int64_t *ret_offset)
{
	static const char shape[] = "+00:00";
	int64_t minutes;

	*ret_offset = 0;
	if (!*at || strcmp(at, "Z") == 0)
		return true;
	if ((*at != '+' && *at != '-') || strlen(at) != sizeof(shape) - 1)
		return false;
	for (size_t i = 1; i < sizeof(shape) - 1; i++)
		if (shape[i] == '0' ? !isdigit((unsigned char)at[i]) : at[i] != shape[i])
			return false;
	minutes = strtol(at + 1, NULL, 10) * 60 + strtol(at + 4, NULL, 10);
	*ret_offset = (*at == '+' ? 1 : -1) * minutes * 60;
	return minutes < 24 * 60;
}

static bool parse_date(const char *text, int64_t *ret_ns)
{
	struct tm tm = { .tm_isdst = 0 };
	const char *at = strptime(text, "%Y-%m-%d", &tm);
	int64_t fraction, offset, seconds;

	if (!at)
		return false;
	if (*at == 'T' || *at == ' ')
		at = strptime(at + 1, "%H:%M:%S", &tm);
	if (!at)
		return false;
	fraction = take_fraction(&at);
	if (!take_zone(at, &offset))
		return false;
	seconds = (int64_t)timegm(&tm) - offset;
	if (seconds < -SECONDS_MAX || seconds > SECONDS_MAX)
		return false;
	*ret_ns = seconds * NS_PER_S + fraction;
	return true;
}

bool span_parse(const char *text, int64_t *ret_ns)
{
	static const struct {
		const char *name;
		int64_t ns;
	} units[] = { { "ns", 1 }, { "us", 1000 }, { "ms", 1000000 }, { "s", NS_PER_S }, { "m", 60 * NS_PER_S },
		      { "h", 3600 * NS_PER_S }, { "d", 86400 * NS_PER_S } };
	const char *begin = text;
	double total = 0;

	do {
		size_t digits = strspn(text, "0123456789."), n = strspn(text + digits, "nsumhd"), i;
		char *end;
		double v = strtod(text, &end);

		if (!isdigit((unsigned char)*text) || (size_t)(end - text) != digits)
			return false;	/* strtod() would take hex and exponents too */
		for (i = 0; i < ARRAY_SIZE(units); i++)
			if (strlen(units[i].name) == n && strncmp(units[i].name, text + digits, n) == 0)
				break;
		if (i == ARRAY_SIZE(units) && (n || text != begin || text[digits]))
			return false;	/* only a number all alone has no unit */
		total += v * (double)(n ? units[i].ns : NS_PER_S);
		text += digits + n;
	} while (*text);
	if (!(total >= 0 && total < (double)SECONDS_MAX * (double)NS_PER_S))
		return false;
	*ret_ns = (int64_t)total;
	return true;
}

bool when_parse(const char *text, int64_t now_ns, int64_t *ret_ns)
{
	size_t digits = strspn(text, "0123456789");
	const char *at = text + digits;
	int64_t span;

	if (digits > 4 && digits < 11 && (!*at || (*at == '.' && at[1 + strspn(at + 1, "0123456789")] == '\0'))) {
		int64_t seconds = strtoll(text, NULL, 10);

		if (seconds > SECONDS_MAX)
			return false;
		*ret_ns = seconds * NS_PER_S + take_fraction(&at);
		return true;
	}
	if (digits == 4 && *at == '-')
		return parse_date(text, ret_ns);
	if (!span_parse(text, &span))
		return false;
	*ret_ns = now_ns - span;
	return true;
}

void span_format(int64_t ns, char *ret_text, size_t size)
{
	long long s = ns / NS_PER_S;

	if (s < 1)
		(void)snprintf(ret_text, size, "Less than a second");
	else if (s == 1)
		(void)snprintf(ret_text, size, "1 second");
	else if (s < 60)
		(void)snprintf(ret_text, size, "%lld seconds", s);
	else if (s < 120)
		(void)snprintf(ret_text, size, "About a minute");
	else if (s < 3600)
		(void)snprintf(ret_text, size, "%lld minutes", s / 60);
	else if (s < 7200)
		(void)snprintf(ret_text, size, "About an hour");
	else if (s < 48 * 3600)
		(void)snprintf(ret_text, size, "%lld hours", s / 3600);
	else if (s < 14 * 86400)
		(void)snprintf(ret_text, size, "%lld days", s / 86400);
	else if (s < 60 * 86400)
		(void)snprintf(ret_text, size, "%lld weeks", s / (7 * 86400));
	else
		(void)snprintf(ret_text, size, "%lld months", s / (30 * 86400));
}
