/* SPDX-License-Identifier: Apache-2.0 */
#include "oci/auth.h"

#include "os/err.h"
#include "os/file.h"
#include "os/folders.h"
#include "os/process.h"

#include <cjson/cJSON.h>
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define CONFIG_MAX (4u * 1024u * 1024u) /* bytes of the configuration */
#define HELPER_PREFIX "docker-credential-"
#define DOCKER_HUB_KEY "https://index.docker.io/v1/"	/* what docker itself calls docker.io there */

/* ---- challenges ---- */

static bool is_token(char c)
{
	return isalnum((unsigned char)c) || (c && strchr("!#$%&'*+-.^_`|~", c));
}

/* One 'name="value"' or 'name=value'.  False when there is none. */
static bool take_param(const char **at, char name[32], char value[1024])
{
	const char *p = *at;
	size_t n = 0;

	p += strspn(p, " \t,");
	for (; is_token(*p); p++)
		if (n < 31)
			name[n++] = *p;
	name[n] = '\0';
	p += strspn(p, " \t");
	if (n == 0 || *p++ != '=')
		return false;
	p += strspn(p, " \t");
	n = 0;
	if (*p != '"') {
		for (; is_token(*p) || (*p && strchr(":/?=", *p)); p++)
			if (n < 1023)
				value[n++] = *p;
	} else {
		for (p++; *p && *p != '"'; p++) {
			if (*p == '\\' && p[1])
				p++;
			if (n < 1023)
				value[n++] = *p;
		}
		if (*p++ != '"')
			return false;
	}
	value[n] = '\0';
	*at = p;
	return true;
}

static bool copy_text(char *dst, size_t size, const char *src)
{
	size_t n = strlen(src);

	if (n >= size)
		return false;
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)src[i] < 0x20 || src[i] == 0x7f)
			return false;
	memcpy(dst, src, n + 1);
	return true;
}

int auth_parse_challenge(const char *text, struct auth_challenge *ret_challenge, struct err *err)
{
	struct auth_challenge c = { .scheme = AUTH_BASIC };
	char name[32], value[1024];
	bool ok = true;

	text += strspn(text, " \t");
	if (strncasecmp(text, "basic", 5) == 0 && !is_token(text[5])) {
		*ret_challenge = c;
		return 0;
	}
	if (strncasecmp(text, "bearer", 6) != 0 || is_token(text[6]))
		return err_set(err, -EBADMSG, "the registry wants an authentication that roux does not know: "
			       "%.40s", text);
	c.scheme = AUTH_BEARER;
	text += 6;
	while (take_param(&text, name, value)) {
		if (strcasecmp(name, "realm") == 0)
			ok = ok && copy_text(c.realm, sizeof(c.realm), value);
		else if (strcasecmp(name, "service") == 0)
			ok = ok && copy_text(c.service, sizeof(c.service), value);
		else if (strcasecmp(name, "scope") == 0)
			ok = ok && copy_text(c.scope, sizeof(c.scope), value);
	}
	if (!ok || (strncmp(c.realm, "https://", 8) != 0 && strncmp(c.realm, "http://", 7) != 0))
		return err_set(err, -EBADMSG, "the registry names no usable token service: %.80s", c.realm);
	*ret_challenge = c;
	return 0;
}

/* ---- base64 (RFC 4648) ---- */

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static char *encode(const char *text)
{
	size_t len = strlen(text);
	char *out = malloc((len + 2) / 3 * 4 + 1), *to = out;

	if (!out)
		return NULL;
	for (size_t i = 0; i < len; i += 3) {
		uint32_t v = (uint32_t)(uint8_t)text[i] << 16;

		if (i + 1 < len)
			v |= (uint32_t)(uint8_t)text[i + 1] << 8;
		if (i + 2 < len)
			v |= (uint8_t)text[i + 2];
		*to++ = digits[v >> 18];
		*to++ = digits[v >> 12 & 63];
		*to++ = i + 1 < len ? digits[v >> 6 & 63] : '=';
		*to++ = i + 2 < len ? digits[v & 63] : '=';
	}
	*to = '\0';
	return out;
}

/* Into @ret with a NUL; false when it is not base64, does not fit or has a NUL inside. */
static bool decode(const char *text, char *ret, size_t size)
{
	uint32_t v = 0;
	unsigned bits = 0;
	size_t n = 0;

	for (; *text && *text != '='; text++) {
		const char *digit = strchr(digits, *text);

		if (!digit)
			return false;
		v = v << 6 | (uint32_t)(digit - digits);
		bits += 6;
		if (bits >= 8) {
			bits -= 8;
			if (n + 1 >= size || !(v >> bits & 255))
				return false;
			ret[n++] = (char)(v >> bits & 255);
		}
	}
	ret[n] = '\0';
	return strspn(text, "=") == strlen(text);
}

char *auth_basic(const struct auth_login *login)
{
	char *pair = NULL, *text = NULL, *value = NULL;

	if (asprintf(&pair, "%s:%s", login->user, login->secret) < 0)
		return NULL;
	text = encode(pair);
	if (text && asprintf(&value, "Basic %s", text) < 0)
		value = NULL;
	free(pair);
	free(text);
	return value;
}

/* ---- configuration ---- */

/* Whether @key of the file means @host: it may be a host or a URL of one. */
static bool key_is(const char *key, const char *host)
{
	size_t n;

	if (strncmp(key, "https://", 8) == 0)
		key += 8;
	else if (strncmp(key, "http://", 7) == 0)
		key += 7;
	n = strcspn(key, "/");
	if (strlen(host) == n && strncmp(key, host, n) == 0)
		return true;
	return strcmp(host, "docker.io") == 0 && ((n == 15 && strncmp(key, "index.docker.io", n) == 0) ||
						  (n == 20 && strncmp(key, "registry-1.docker.io", n) == 0));
}

static const cJSON *find_key(const cJSON *object, const char *host)
{
	const cJSON *item;

	if (cJSON_IsObject(object))
		cJSON_ArrayForEach(item, object)
			if (key_is(item->string, host))
				return item;
	return NULL;
}

static const char *get_string(const cJSON *object, const char *key)
{
	return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, key));
}

static int bad_config(struct err *err, const char *what)
{
	return err_set(err, -EBADMSG, "docker's configuration file is wrong: %s; 'roux login' writes a new entry", what);
}

static int parse_entry(const cJSON *entry, struct auth_login *login, struct err *err)
{
	const char *auth = get_string(entry, "auth"), *identity = get_string(entry, "identitytoken");
	char pair[sizeof(login->user) + sizeof(login->secret)], *colon;

	if (identity && !copy_text(login->identity, sizeof(login->identity), identity))
		return bad_config(err, "an identity token is too long");
	if (!auth || !*auth) {
		const char *user = get_string(entry, "username"), *secret = get_string(entry, "password");

		if (user && secret && (!copy_text(login->user, sizeof(login->user), user) ||
				       !copy_text(login->secret, sizeof(login->secret), secret)))
			return bad_config(err, "a user or password is too long");
		return 0;
	}
	if (!decode(auth, pair, sizeof(pair)) || !(colon = strchr(pair, ':')))
		return bad_config(err, "an \"auth\" is not base64 of user:password");
	*colon = '\0';
	if (!copy_text(login->user, sizeof(login->user), pair) ||
	    !copy_text(login->secret, sizeof(login->secret), colon + 1))
		return bad_config(err, "a user or password is too long");
	return 0;
}

static int take_helper(const char *name, char ret[128], struct err *err)
{
	/* It becomes part of a program's name. */
	if (strlen(name) >= 128 || strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_") != strlen(name))
		return bad_config(err, "a credential helper has an impossible name");
	memcpy(ret, name, strlen(name) + 1);
	return 0;
}

static int parse_config(const cJSON *doc, const char *host, struct auth_login *login,
			char helper[128], struct err *err)
{
	const cJSON *entry = find_key(cJSON_GetObjectItemCaseSensitive(doc, "credHelpers"), host);
	const char *name = cJSON_GetStringValue(entry);

	if (!name)
		name = get_string(doc, "credsStore");
	if (name && *name)
		return take_helper(name, helper, err);
	entry = find_key(cJSON_GetObjectItemCaseSensitive(doc, "auths"), host);
	return cJSON_IsObject(entry) ? parse_entry(entry, login, err) : 0;
}

int auth_parse_config(const char *json, size_t len, const char *host, struct auth_login *ret_login,
		      char ret_helper[128], struct err *err)
{
	cJSON *doc = cJSON_ParseWithLength(json, len);
	int r;

	*ret_login = (struct auth_login){ .user = "" };
	ret_helper[0] = '\0';
	r = cJSON_IsObject(doc) ? parse_config(doc, host, ret_login, ret_helper, err)
				: bad_config(err, "it is not a JSON object");
	cJSON_Delete(doc);
	return r;
}

int auth_config_path(char *ret_path, size_t size, struct err *err)
{
	const char *dir = getenv("DOCKER_CONFIG");
	int n;

	if (!dir || !*dir)
		return folder_home(ret_path, size, "/.docker/config.json", "DOCKER_CONFIG", err);
	n = snprintf(ret_path, size, "%s/config.json", dir);
	return n < 0 || (size_t)n >= size ? err_set(err, -ENAMETOOLONG, "the path of docker's configuration is too long") : 0;
}

/* ---- helpers: programs that keep secrets, with JSON on their pipes ---- */

static const char *server_key(const char *host)
{
	return strcmp(host, "docker.io") == 0 ? DOCKER_HUB_KEY : host;
}

/* 1: it knows nothing about it. */
static int run_helper(const char *helper, const char *verb, const char *input, char **ret_out, struct err *err)
{
	char program[160];
	const char *argv[] = { program, verb, NULL };
	struct process_result res;
	int r;

	(void)snprintf(program, sizeof(program), HELPER_PREFIX "%s", helper);
	r = process_run_input(argv, input, 64 * 1024, &res, err);
	if (r < 0)
		return err_prefix(err, r, "docker's configuration names a credential helper");
	if (res.status == 0) {
		*ret_out = res.out;
		return 0;
	}
	r = strstr(res.out, "not found") ? 1 : err_set(err, -EACCES, "%s %s failed: %.100s", program, verb,
						      res.out[0] ? res.out : res.errors);
	free(res.out);
	return r;
}

static int ask_helper(const char *helper, const char *host, struct auth_login *login, struct err *err)
{
	const char *user, *secret;
	cJSON *doc;
	char *out;
	int r = run_helper(helper, "get", server_key(host), &out, err);

	if (r != 0)
		return r < 0 ? r : 0;
	doc = cJSON_Parse(out);
	free(out);
	user = get_string(doc, "Username");
	secret = get_string(doc, "Secret");
	if (!user || !secret)
		r = bad_config(err, "its credential helper does not answer with Username and Secret");
	else if (strcmp(user, "<token>") == 0)
		r = copy_text(login->identity, sizeof(login->identity), secret) ? 0 : bad_config(err, "a token is too long");
	else if (!copy_text(login->user, sizeof(login->user), user) || !copy_text(login->secret, sizeof(login->secret), secret))
		r = bad_config(err, "a user or password is too long");
	cJSON_Delete(doc);
	return r;
}

int auth_find(const char *host, struct auth_login *ret_login, struct err *err)
{
	char path[PATH_MAX], helper[128], *json;
	size_t len;
	int r = auth_config_path(path, sizeof(path), err);

	*ret_login = (struct auth_login){ .user = "" };
	if (r == 0)
		r = file_read_all(path, CONFIG_MAX, &json, &len, err);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	r = auth_parse_config(json, len, host, ret_login, helper, err);
	free(json);
	if (r < 0)
		return err_prefix(err, r, "%.80s", path);
	return helper[0] ? ask_helper(helper, host, ret_login, err) : 0;
}

/* ---- login and logout ---- */

static int store_with_helper(const char *helper, const char *host, const struct auth_login *login, struct err *err)
{
	cJSON *doc = login ? cJSON_CreateObject() : NULL;
	char *input = NULL, *out = NULL;
	int r;

	if (login) {
		cJSON_AddStringToObject(doc, "ServerURL", server_key(host));
		cJSON_AddStringToObject(doc, "Username", login->user);
		cJSON_AddStringToObject(doc, "Secret", login->secret);
		input = cJSON_PrintUnformatted(doc);
		cJSON_Delete(doc);
		if (!input)
			return err_set(err, -ENOMEM, "out of memory");
	}
	r = run_helper(helper, login ? "store" : "erase", login ? input : server_key(host), &out, err);
	free(input);
	if (r == 0)
		free(out);
	return r == 1 ? -ENOENT : r;
}

/* Changes "auths" of @doc.  -ENOENT: nothing to forget. */
static int edit(cJSON *doc, const char *host, const struct auth_login *login)
{
	cJSON *auths = cJSON_GetObjectItemCaseSensitive(doc, "auths"), *entry;
	const cJSON *old;
	bool found = false;
	char *basic = NULL;

	if (!cJSON_IsObject(auths)) {
		cJSON_DeleteItemFromObjectCaseSensitive(doc, "auths");
		auths = cJSON_AddObjectToObject(doc, "auths");
	}
	while ((old = find_key(auths, host))) {
		found = true;
		cJSON_DeleteItemFromObjectCaseSensitive(auths, old->string);
	}
	if (!login)
		return found ? 0 : -ENOENT;
	basic = auth_basic(login);
	entry = cJSON_AddObjectToObject(auths, server_key(host));
	found = basic && entry && cJSON_AddStringToObject(entry, "auth", basic + strlen("Basic "));
	free(basic);
	return found ? 0 : -ENOMEM;
}

static int write_config(const char *path, const cJSON *doc, struct err *err)
{
	char dir[PATH_MAX], *text = cJSON_Print(doc);
	int r = text ? file_path(dir, err, path, NULL) : err_set(err, -ENOMEM, "out of memory");

	if (r == 0) {
		*strrchr(dir, '/') = '\0';
		r = file_mkdirs(dir, 0700, err);
	}
	if (r == 0)
		r = file_write_atomic(path, text, strlen(text), 0600, err);
	free(text);
	return r;
}

int auth_store(const char *host, const struct auth_login *login, struct err *err)
{
	char path[PATH_MAX], helper[128] = "", *json = NULL;
	struct auth_login old;
	cJSON *doc = NULL;
	size_t len;
	int r = auth_config_path(path, sizeof(path), err);

	if (r == 0)
		r = file_read_all(path, CONFIG_MAX, &json, &len, err);
	if (r == -ENOENT) {
		doc = cJSON_CreateObject();
		r = 0;
	} else if (r == 0) {
		/* A wrong old entry is no reason: it is replaced. */
		(void)auth_parse_config(json, len, host, &old, helper, NULL);
		doc = cJSON_ParseWithLength(json, len);
		free(json);
	}
	if (r < 0)
		return r;
	if (!cJSON_IsObject(doc))
		r = err_set(err, -EBADMSG, "%s is not a JSON object: move it away", path);
	else if (helper[0])
		r = store_with_helper(helper, host, login, err);
	else {
		r = edit(doc, host, login);
		if (r == 0)
			r = write_config(path, doc, err);
		else if (r == -ENOMEM)
			err_set(err, r, "out of memory");
	}
	cJSON_Delete(doc);
	return r;
}
