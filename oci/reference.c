/* SPDX-License-Identifier: Apache-2.0 */
#include "oci/reference.h"

#include "os/err.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define DEFAULT_HOST "docker.io"
#define DEFAULT_PREFIX "library/"

static bool is_lower(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

/* Components of lower-case letters and digits, joined inside by . _ __ or dashes. */
static bool path_ok(const char *path)
{
	const char *p = path;

	for (;;) {
		if (!is_lower(*p))
			return false;
		while (*p && *p != '/') {
			size_t n;

			if (is_lower(*p)) {
				p++;
				continue;
			}
			n = strspn(p, "-");
			if (n == 0 && *p == '.')
				n = 1;
			if (n == 0)
				n = strspn(p, "_") <= 2 ? strspn(p, "_") : 0;
			if (n == 0 || !is_lower(p[n]))
				return false;
			p += n;
		}
		if (!*p++)
			return true;
	}
}

static bool tag_ok(const char *tag)
{
	size_t len = strlen(tag);

	if (len == 0 || len >= REFERENCE_TAG_MAX || tag[0] == '.' || tag[0] == '-')
		return false;
	for (; *tag; tag++)
		if (!isalnum((unsigned char)*tag) && !strchr("._-", *tag))
			return false;
	return true;
}

static bool host_ok(const char *host)
{
	const char *colon = host[0] == '[' ? strchr(host, ']') : NULL;
	size_t n;

	if (host[0] == '[') {	/* an IPv6 address */
		if (!colon || strspn(host + 1, "0123456789abcdefABCDEF:.") != (size_t)(colon - host - 1) || colon == host + 1)
			return false;
		colon++;
	} else {
		n = strspn(host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-");
		if (n == 0 || host[0] == '-' || host[0] == '.')
			return false;
		colon = host + n;
	}
	if (*colon == '\0')
		return true;
	n = strspn(colon + 1, "0123456789");
	return *colon == ':' && n >= 1 && n <= 5 && colon[1 + n] == '\0';
}

/* The first component is a host when no path could look like it. */
static bool is_host(const char *text, size_t len)
{
	if (len == 9 && strncmp(text, "localhost", 9) == 0)
		return true;
	for (size_t i = 0; i < len; i++)
		if (text[i] == '.' || text[i] == ':' || isupper((unsigned char)text[i]))
			return true;
	return false;
}

static bool is_id(const char *path)
{
	return strlen(path) == 64 && strspn(path, "0123456789abcdef") == 64;
}

static int wrong(const char *text, const char *why, struct err *err)
{
	return err_set(err, -EINVAL, "'%.100s' is not a name of an image: %s", text, why);
}

/* Splits tag and digest off @rest, which ends up as the path. */
static int take_version(const char *text, char *rest, struct reference *ref, struct err *err)
{
	char *at = strchr(rest, '@'), *slash, *colon;

	if (at) {
		*at++ = '\0';
		if (strncmp(at, "sha256:", 7) != 0)
			return wrong(text, "roux knows sha256 digests only", err);
		if (!store_digest_ok(at))
			return wrong(text, "a digest is sha256: and 64 digits 0-9a-f", err);
		memcpy(ref->digest, at, STORE_DIGEST_SIZE);
	}
	slash = strrchr(rest, '/');
	colon = strchr(slash ? slash : rest, ':');
	if (colon) {
		*colon++ = '\0';
		if (!tag_ok(colon))
			return wrong(text, "a tag has 1 to 128 letters, digits, '.', '_' and '-'", err);
	}
	if (!at)
		memcpy(ref->tag, colon ? colon : "latest", strlen(colon ? colon : "latest") + 1);
	return 0;
}

int reference_parse(const char *text, struct reference *ret_ref, struct err *err)
{
	struct reference ref = { .tag = "" };
	char rest[2 * REFERENCE_PART_MAX + REFERENCE_TAG_MAX + STORE_DIGEST_SIZE];
	const char *slash = strchr(text, '/'), *path = text;
	size_t prefix = 0, len;
	int r;

	if (!*text)
		return wrong(text, "it is empty", err);
	memcpy(ref.host, DEFAULT_HOST, sizeof(DEFAULT_HOST));
	if (slash && is_host(text, (size_t)(slash - text))) {
		len = (size_t)(slash - text);
		if (len >= sizeof(ref.host))
			return wrong(text, "the host is too long", err);
		memcpy(ref.host, text, len);
		ref.host[len] = '\0';
		if (!host_ok(ref.host))
			return wrong(text, "the part before the first '/' is no host[:port]", err);
		if (strcmp(ref.host, "index.docker.io") == 0 || strcmp(ref.host, "registry-1.docker.io") == 0)
			memcpy(ref.host, DEFAULT_HOST, sizeof(DEFAULT_HOST));
		path = slash + 1;
	}
	len = strlen(path);
	if (len >= sizeof(rest))
		return wrong(text, "it is too long", err);
	memcpy(rest, path, len + 1);
	r = take_version(text, rest, &ref, err);
	if (r < 0)
		return r;
	if (strcmp(ref.host, DEFAULT_HOST) == 0 && !strchr(rest, '/'))
		prefix = strlen(DEFAULT_PREFIX);
	len = strlen(rest);
	if (prefix + len >= sizeof(ref.path))
		return wrong(text, "it is too long", err);
	memcpy(ref.path, DEFAULT_PREFIX, prefix);
	memcpy(ref.path + prefix, rest, len + 1);
	if (is_id(rest))
		return wrong(text, "64 hexadecimal digits are an identifier", err);
	if (!path_ok(ref.path))
		return wrong(text, "names have lower-case letters and digits, with '.', '_', '-' inside and '/' between", err);
	*ret_ref = ref;
	return 0;
}

static void format(const char *host, const char *path, const struct reference *ref,
		   char ret_name[STORE_NAME_MAX])
{
	bool pinned = ref && ref->digest[0];

	_Static_assert(2 * REFERENCE_PART_MAX + REFERENCE_TAG_MAX + STORE_DIGEST_SIZE <= STORE_NAME_MAX, "names fit");
	(void)snprintf(ret_name, STORE_NAME_MAX, "%s%s%s%s%s", host, *host ? "/" : "", path,
		       !ref ? "" : pinned ? "@" : ":", !ref ? "" : pinned ? ref->digest : ref->tag);
}

void reference_name(const struct reference *ref, char ret_name[STORE_NAME_MAX])
{
	format(ref->host, ref->path, ref, ret_name);
}

/* Leaves out what reference_parse() would add again, and only that. */
static void short_parts(const struct reference *ref, const char **host, const char **path)
{
	const char *slash = strchr(ref->path, '/'), *rest = ref->path + strlen(DEFAULT_PREFIX);

	*host = ref->host;
	*path = ref->path;
	if (strcmp(*host, DEFAULT_HOST) != 0)
		return;
	if (strncmp(*path, DEFAULT_PREFIX, strlen(DEFAULT_PREFIX)) == 0 && !strchr(rest, '/') && !is_id(rest)) {
		*host = "";
		*path = rest;
	} else if (slash && !is_host(ref->path, (size_t)(slash - ref->path))) {
		*host = "";
	}
}

void reference_familiar(const struct reference *ref, char ret_name[STORE_NAME_MAX])
{
	const char *host, *path;

	short_parts(ref, &host, &path);
	format(host, path, ref, ret_name);
}

void reference_repository(const struct reference *ref, char ret_name[STORE_NAME_MAX])
{
	const char *host, *path;

	short_parts(ref, &host, &path);
	format(host, path, NULL, ret_name);
}

bool reference_host_is_local(const char *host)
{
	static const char *const names[] = { "localhost", "127.0.0.1", "[::1]" };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		size_t n = strlen(names[i]);

		if (strncmp(host, names[i], n) == 0 && (host[n] == '\0' || host[n] == ':'))
			return true;
	}
	return false;
}
