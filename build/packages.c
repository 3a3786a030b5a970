/* SPDX-License-Identifier: Apache-2.0 */
#include "build/packages.h"

#include "os/err.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define PACKAGES_MAX 500000 /* stanzas of an index */
#define NAME_MAX_ 128 /* bytes of a package's name */

static const char name_chars[] = "abcdefghijklmnopqrstuvwxyz0123456789+-.";

/* ---- index ---- */

/* Takes one line "Key: value" into the package. */
static void take_field(struct package *p, char *line)
{
	char *value = strchr(line, ':');

	if (!value)
		return;
	*value++ = '\0';
	value += strspn(value, " \t");
	const struct { const char *key; const char **to; } fields[] = {
		{ "Package", &p->name }, { "Version", &p->version }, { "Architecture", &p->architecture },
		{ "Priority", &p->priority }, { "Depends", &p->depends }, { "Pre-Depends", &p->pre_depends },
		{ "Provides", &p->provides }, { "Filename", &p->filename }, { "SHA256", &p->sha256 } };

	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
		if (strcasecmp(line, fields[i].key) == 0)
			*fields[i].to = value;
	if (strcasecmp(line, "Size") == 0)
		p->size = strtoull(value, NULL, 10);
	else if (strcasecmp(line, "Essential") == 0)
		p->essential = strcmp(value, "yes") == 0;
	else if (strcasecmp(line, "Multi-Arch") == 0)
		p->same = strcmp(value, "same") == 0;
}

/* What becomes part of paths must not lead elsewhere. */
static bool usable(const struct package *p)
{
	size_t len = strlen(p->name);

	return len > 1 && len < NAME_MAX_ && strspn(p->name, name_chars) == len && p->name[0] != '.' &&
	       strlen(p->sha256) == 64 && strspn(p->sha256, "0123456789abcdef") == 64 && p->size && p->filename[0] &&
	       !strstr(p->filename, "..") && p->filename[0] != '/' &&
	       strspn(p->architecture, name_chars) == strlen(p->architecture);
}

static int by_name(const void *a, const void *b)
{
	const struct package *x = a, *y = b;

	return strcmp(x->name, y->name);
}

int packages_parse(char *text, size_t len, struct packages *ret_packages, struct err *err)
{
	static const struct package empty = { "", "", "", "", "", "", "", "", "", 0, false, false, false };
	struct packages all = { .count = 0 };
	struct package now = empty;
	size_t cap = 0;

	if (memchr(text, '\0', len))
		return err_set(err, -EBADMSG, "the index of packages is damaged");
	for (char *line = text, *next; line; line = next) {
		next = strchr(line, '\n');
		if (next)
			*next++ = '\0';
		if (line[0] == ' ' || line[0] == '\t')	/* goes on with a field that is not needed */
			continue;
		if (line[0])
			take_field(&now, line);
		if (line[0] && next)
			continue;
		if (usable(&now)) {
			if (all.count == cap) {
				struct package *more = all.count < PACKAGES_MAX ? realloc(all.at, (cap = cap ? cap * 2 : 256) * sizeof(*more)) : NULL;

				if (!more) {
					packages_free(&all);
					return err_set(err, -ENOMEM, "out of memory for the index of packages");
				}
				all.at = more;
			}
			all.at[all.count++] = now;
		}
		now = empty;
	}
	if (!all.count)
		return err_set(err, -EBADMSG, "there are no packages in the index");
	qsort(all.at, all.count, sizeof(*all.at), by_name);
	all.chosen = calloc(all.count, sizeof(*all.chosen));
	if (!all.chosen) {
		packages_free(&all);
		return err_set(err, -ENOMEM, "out of memory for the index of packages");
	}
	*ret_packages = all;
	return 0;
}

void packages_free(struct packages *packages)
{
	free(packages->at);
	free(packages->chosen);
	*packages = (struct packages){ .count = 0 };
}

/* ---- choice ---- */

/* The package called @name of @len bytes, or NULL. */
static struct package *find(const struct packages *all, const char *name, size_t len)
{
	char key[NAME_MAX_];
	struct package want = { .name = key };

	if (len >= sizeof(key))
		return NULL;
	memcpy(key, name, len);
	key[len] = '\0';
	return bsearch(&want, all->at, all->count, sizeof(*all->at), by_name);
}

/* Whether the list "a, b (= 1), c" has @name. */
static bool list_has(const char *list, const char *name, size_t len)
{
	while (*list) {
		size_t n;

		list += strspn(list, ", \t");
		n = strspn(list, name_chars);
		if (n == len && strncmp(list, name, len) == 0)
			return true;
		list += strcspn(list, ",");
	}
	return false;
}

static bool provided(const struct packages *all, const char *name, size_t len)
{
	for (size_t i = 0; i < all->nchosen; i++)
		if (list_has(all->at[all->chosen[i]].provides, name, len))
			return true;
	return false;
}

static void choose(struct packages *all, struct package *p)
{
	if (p->chosen)
		return;
	p->chosen = true;
	all->chosen[all->nchosen++] = (size_t)(p - all->at);
}

/* The name that an alternative " libc6 (>= 2.1) | x" begins with. */
static size_t alternative_name(const char **at)
{
	*at += strspn(*at, " \t|");
	return strspn(*at, name_chars);
}

static const char *next_alternative(const char *at, const char *end)
{
	const char *bar = memchr(at, '|', (size_t)(end - at));

	return bar ? bar + 1 : end;
}

/* One clause: satisfied already, or the first alternative that is there. */
static int satisfy(struct packages *all, const struct package *by, const char *clause, const char *end, struct err *err)
{
	const char *at;

	for (at = clause; at < end; at = next_alternative(at, end)) {
		size_t n = alternative_name(&at);
		const struct package *p = find(all, at, n);

		if ((p && p->chosen) || provided(all, at, n))
			return 0;
	}
	for (at = clause; at < end; at = next_alternative(at, end)) {
		size_t n = alternative_name(&at);
		struct package *p = find(all, at, n);

		for (size_t i = 0; !p && i < all->count; i++)
			if (list_has(all->at[i].provides, at, n))
				p = &all->at[i];
		if (p) {
			choose(all, p);
			return 0;
		}
	}
	return err_set(err, -ENOENT, "package %.60s needs '%.*s', which is not in the suite", by->name,
		       (int)(end - clause < 80 ? end - clause : 80), clause);
}

static int satisfy_all(struct packages *all, const struct package *by, const char *list, struct err *err)
{
	int r = 0;

	while (r == 0 && *(list += strspn(list, ", \t"))) {
		const char *end = list + strcspn(list, ",");

		r = satisfy(all, by, list, end, err);
		list = end;
	}
	return r;
}

int packages_choose(struct packages *packages, const char *include, struct err *err)
{
	int r = 0;

	for (size_t i = 0; i < packages->count; i++)
		if (packages->at[i].essential || strcmp(packages->at[i].priority, "required") == 0 ||
		    strcmp(packages->at[i].name, "apt") == 0 ||
		    /* /usr is merged from the start; the alternative would do it, and needs Perl. */
		    strcmp(packages->at[i].name, "usr-is-merged") == 0)
			choose(packages, &packages->at[i]);
	for (const char *at = include ? include : ""; *(at += strspn(at, ", "));) {
		size_t n = strcspn(at, ", ");
		struct package *p = find(packages, at, n);

		if (!p)
			return err_set(err, -ENOENT, "there is no package '%.*s' in the suite", (int)(n < 80 ? n : 80), at);
		choose(packages, p);
		at += n;
	}
	for (size_t i = 0; r == 0 && i < packages->nchosen; i++) {
		const struct package *p = &packages->at[packages->chosen[i]];

		r = satisfy_all(packages, p, p->pre_depends, err);
		if (r == 0)
			r = satisfy_all(packages, p, p->depends, err);
	}
	return r;
}

/* ---- Release ---- */

int packages_release_hash(const char *release, const char *name, char ret_hex[65], uint64_t *ret_size,
			  struct err *err)
{
	const char *at = strncmp(release, "SHA256:", 7) == 0 ? release : strstr(release, "\nSHA256:");
	size_t len = strlen(name);

	if (at)
		at = strchr(at + 1, '\n');
	while (at && at[1] == ' ') {
		const char *hex = at + 1 + strspn(at + 1, " "), *size, *file;

		at = strchr(hex, '\n');
		if (strspn(hex, "0123456789abcdef") != 64)
			return err_set(err, -EBADMSG, "the Release file is damaged");
		size = hex + 64 + strspn(hex + 64, " ");
		file = size + strspn(size, "0123456789");
		file += strspn(file, " ");
		if (strncmp(file, name, len) != 0 || (file[len] != '\n' && file[len] != '\0'))
			continue;
		memcpy(ret_hex, hex, 64);
		ret_hex[64] = '\0';
		*ret_size = strtoull(size, NULL, 10);
		return 0;
	}
	return err_set(err, -ENOENT, "the Release file names no %.80s", name);
}
