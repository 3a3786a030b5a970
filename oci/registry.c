/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rights: a token is good for one scope.  What the registry asked for last (the
 * challenge) tells where tokens come from; tokens are kept per scope until the
 * registry refuses one.
 */
#include "oci/registry.h"

#include "os/err.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SCOPES_MAX 8
#define PAUSE_FIRST_MS 400u
#define PAUSE_MAX_MS 15000u

struct right {
	char scope[REGISTRY_SCOPE_MAX];	/* "": none asked for */
	char *authorization;	/* owned; NULL: unused */
};

struct registry {
	char host[REFERENCE_PART_MAX];	/* as people say it */
	char base[REFERENCE_PART_MAX + 16];	/* "https://host" */
	bool insecure;
	const volatile int *cancel;
	struct http *http;
	struct auth_login login;
	struct right right[SCOPES_MAX];
	unsigned next;	/* right to replace */
};

struct http *registry_http(struct registry *registry)
{
	return registry->http;
}

/* ---- errors ---- */

/* What the registry's error document says, or "". */
static void registry_words(const struct http_call *call, char ret[160])
{
	cJSON *doc = call->reply ? cJSON_ParseWithLength(call->reply, call->reply_len) : NULL;
	const cJSON *first = cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(doc, "errors"), 0);
	const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(first, "message"));

	(void)snprintf(ret, 160, "%.120s", text ? text : "");
	for (char *p = ret; *p; p++)	/* it is shown on a terminal */
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			*p = ' ';
	cJSON_Delete(doc);
}

int registry_error(const struct registry *registry, const struct http_call *call, const char *what,
		   struct err *err)
{
	char words[160];

	if (call->result == -EKEYREJECTED)
		return err_set(err, call->result, "the certificate of %.60s cannot be trusted (%.80s): name its authority "
			       "with SSL_CERT_FILE, or use --insecure", registry->host, call->message);
	if (call->result == -EHOSTUNREACH || call->result == -ECONNREFUSED)
		return err_set(err, call->result, "cannot reach registry %.60s (%.80s): check the name and the network",
			       registry->host, call->message);
	if (call->result < 0 && call->not_tls)
		return err_set(err, call->result, "registry %.60s does not speak HTTPS (%.60s): --insecure allows plain "
			       "HTTP", registry->host, call->message);
	if (call->result < 0)
		return err_set(err, call->result, "%s: the connection to %.60s failed (%.80s); try again", what,
			       registry->host, call->message);
	registry_words(call, words);
	switch (call->status) {
	case 401:
	case 403:
		return err_set(err, -EACCES, "%s: registry %.60s refuses user %.40s%s%.60s; 'roux login %.60s' gives another",
			       what, registry->host, registry->login.user[0] ? registry->login.user : "(none)",
			       words[0] ? ": " : "", words, registry->host);
	case 404:
		return err_set(err, -ENOENT, "%s: not found in registry %.60s%s%.80s", what, registry->host,
			       words[0] ? ": " : "", words);
	case 429:
		return err_set(err, -EBUSY, "%s: registry %.60s answers that there were too many requests; try later",
			       what, registry->host);
	default:
		return err_set(err, -EPROTO, "%s: registry %.60s answers with status %ld%s%.80s", what,
			       registry->host, call->status, words[0] ? ": " : "", words);
	}
}

bool registry_transient(const struct http_call *call)
{
	if (call->result < 0)
		return call->transient;
	return call->status == 408 || call->status == 429 ||
	       (call->status >= 500 && call->status != 501 && call->status != 505);
}

unsigned registry_pause_ms(const struct http_call *call, unsigned attempt)
{
	unsigned ms = PAUSE_FIRST_MS << (attempt < 6 ? attempt : 6);

	if (call->retry_after_s)
		return call->retry_after_s * 1000;
	/* Not all at the same moment. */
	ms += ms * ((unsigned)random() % 32) / 64;
	return ms < PAUSE_MAX_MS ? ms : PAUSE_MAX_MS;
}

/* ---- rights ---- */

static struct right *find_right(struct registry *r, const char *scope)
{
	for (unsigned i = 0; i < SCOPES_MAX; i++)
		if (r->right[i].authorization && strcmp(r->right[i].scope, scope) == 0)
			return &r->right[i];
	return NULL;
}

static int add_right(struct registry *r, const char *scope, char *authorization, struct err *err)
{
	struct right *right = find_right(r, scope);

	if (!authorization || strlen(scope) >= REGISTRY_SCOPE_MAX) {
		free(authorization);
		return err_set(err, -ENOMEM, "out of memory for the registry");
	}
	if (!right)
		right = &r->right[r->next++ % SCOPES_MAX];
	free(right->authorization);
	right->authorization = authorization;
	memcpy(right->scope, scope, strlen(scope) + 1);
	return 0;
}

/* URL of the token service with its questions; for an identity token, the body of a POST. */
static bool token_request(const struct registry *r, const struct auth_challenge *c, const char *scope,
			  struct http_call *call, char body[HTTP_URL_MAX])
{
	char *to = r->login.identity[0] ? body : call->url;
	bool ok = true;

	(void)snprintf(call->url, HTTP_URL_MAX, "%s", c->realm);
	if (to == body)
		(void)snprintf(body, HTTP_URL_MAX, "grant_type=refresh_token&client_id=roux&service=");
	else
		(void)snprintf(call->url, HTTP_URL_MAX, "%s%sservice=", c->realm, strchr(c->realm, '?') ? "&" : "?");
	ok = http_append_escaped(to, c->service);
	/* Several rights are words of one argument. */
	while (ok && *scope) {
		char one[REGISTRY_SCOPE_MAX];
		size_t n = strcspn(scope, " ");

		memcpy(one, scope, n);
		one[n] = '\0';
		ok = strlen(to) + 8 < HTTP_URL_MAX;
		if (ok) {
			memcpy(to + strlen(to), "&scope=", 8);
			ok = http_append_escaped(to, one);
		}
		scope += n + (scope[n] == ' ');
	}
	if (ok && to == body) {
		ok = strlen(to) + 16 < HTTP_URL_MAX;
		if (ok) {
			memcpy(to + strlen(to), "&refresh_token=", 16);
			ok = http_append_escaped(to, r->login.identity);
		}
	}
	return ok;
}

static int take_token(struct registry *r, const struct http_call *call, const char *scope, struct err *err)
{
	cJSON *doc = call->reply ? cJSON_ParseWithLength(call->reply, call->reply_len) : NULL;
	const char *token = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(doc, "token"));
	char *value = NULL;
	int res;

	if (!token)
		token = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(doc, "access_token"));
	if (!token || !*token || strpbrk(token, "\r\n"))
		res = err_set(err, -EPROTO, "the token service of registry %.60s gives no token", r->host);
	else if (asprintf(&value, "Bearer %s", token) < 0)
		res = err_set(err, -ENOMEM, "out of memory for the registry");
	else
		res = add_right(r, scope, value, err);
	cJSON_Delete(doc);
	return res;
}

static int get_token(struct registry *r, const struct auth_challenge *c, const char *scope, struct err *err)
{
	struct http_call *call = calloc(1, sizeof(*call));
	char body[HTTP_URL_MAX] = "", *basic = NULL;
	int res;

	if (!call)
		return err_set(err, -ENOMEM, "out of memory for the registry");
	if (strncmp(c->realm, "http://", 7) == 0 && strncmp(r->base, "https://", 8) == 0 && !r->insecure) {
		free(call);
		return err_set(err, -EPROTO, "registry %.60s wants the password sent without encryption: refused", r->host);
	}
	call->method = r->login.identity[0] ? "POST" : "GET";
	call->insecure = r->insecure;
	if (!token_request(r, c, scope, call, body)) {
		res = err_set(err, -EPROTO, "the token service of registry %.60s has an endless name", r->host);
		goto finish;
	}
	if (r->login.identity[0]) {
		call->body = body;
		call->body_len = strlen(body);
		call->content_type = "application/x-www-form-urlencoded";
	} else if (r->login.user[0]) {
		basic = auth_basic(&r->login);
		call->authorization = basic;
	}
	res = http_do(r->http, call, err);
	if (res == 0 && call->result == 0 && call->status == 200)
		res = take_token(r, call, scope, err);
	else if (res == 0)
		res = registry_error(r, call, "login", err);
	http_finish(call);
finish:
	free(basic);
	free(call);
	return res;
}

static int refused(const struct registry *r, struct err *err)
{
	if (r->login.user[0] || r->login.identity[0])
		return err_set(err, -EACCES, "registry %.60s refuses user %.60s: 'roux login %.60s' with another password, "
			       "or ask for access", r->host, r->login.user, r->host);
	return err_set(err, -EACCES, "registry %.60s wants a user, or the image does not exist: 'roux login %.60s'",
		       r->host, r->host);
}

int registry_authorize(struct registry *registry, const struct http_call *call, const char *scope,
		       struct err *err)
{
	const struct right *have = find_right(registry, scope);
	struct auth_challenge c;
	int r;

	/* The same credentials a second time would not help. */
	if (have && call->authorization == have->authorization && strncmp(have->authorization, "Basic", 5) == 0)
		return refused(registry, err);
	r = auth_parse_challenge(call->challenge, &c, err);
	if (r < 0)
		return err_prefix(err, r, "%.60s", registry->host);
	if (c.scheme == AUTH_BEARER)
		return get_token(registry, &c, scope[0] ? scope : c.scope, err);
	if (!registry->login.user[0])
		return refused(registry, err);
	return add_right(registry, scope, auth_basic(&registry->login), err);
}

/* ---- requests ---- */

void registry_prepare_url(struct registry *registry, struct http_call *call, const char *scope)
{
	size_t n = strlen(registry->base);
	bool own = strncmp(call->url, registry->base, n) == 0 && call->url[n] == '/';
	const struct right *right = own ? find_right(registry, scope) : NULL;

	call->authorization = right ? right->authorization : NULL;
	call->insecure = registry->insecure;
}

int registry_prepare(struct registry *registry, struct http_call *call, const char *scope,
		     struct err *err, const char *fmt, ...)
{
	int n = snprintf(call->url, sizeof(call->url), "%s/v2/", registry->base), m;
	va_list ap;

	va_start(ap, fmt);
	m = vsnprintf(call->url + n, sizeof(call->url) - (size_t)n, fmt, ap);
	va_end(ap);
	if (m < 0 || (size_t)(n + m) >= sizeof(call->url))
		return err_set(err, -ENAMETOOLONG, "the name is too long for a registry");
	registry_prepare_url(registry, call, scope);
	return 0;
}

int registry_wait(const struct registry *registry, unsigned ms, struct err *err)
{
	for (; ms; ms -= ms < 100 ? ms : 100) {
		const struct timespec step = { .tv_nsec = (long)(ms < 100 ? ms : 100) * 1000000 };

		if (registry->cancel && *registry->cancel)
			return err_set(err, -EINTR, "interrupted");
		(void)nanosleep(&step, NULL);
	}
	return 0;
}

int registry_do(struct registry *registry, struct http_call *call, const char *scope, struct err *err)
{
	bool asked = false;

	for (unsigned attempt = 0;;) {
		int r;

		registry_prepare_url(registry, call, scope);	/* rights may have come since */
		r = http_do(registry->http, call, err);
		if (r < 0)
			return r;
		if (call->result == 0 && call->status == 401 && !asked) {
			r = registry_authorize(registry, call, scope, err);
			asked = true;
		} else if (call->result == -EINTR || !registry_transient(call) || ++attempt == REGISTRY_ATTEMPTS) {
			return 0;
		} else {
			r = registry_wait(registry, registry_pause_ms(call, attempt - 1), err);
		}
		http_finish(call);
		if (r < 0)
			return r;
	}
}

/* ---- opening ---- */

static int first_call(struct registry *r, const char *scheme, struct http_call *call, struct err *err)
{
	const char *host = strcmp(r->host, "docker.io") == 0 ? "registry-1.docker.io" : r->host;

	(void)snprintf(r->base, sizeof(r->base), "%s://%s", scheme, host);
	(void)snprintf(call->url, sizeof(call->url), "%s/v2/", r->base);
	call->method = "GET";
	call->insecure = r->insecure;
	return http_do(r->http, call, err);
}

static int find_scheme(struct registry *r, struct err *err)
{
	struct http_call *call = calloc(1, sizeof(*call));
	const char *scheme = "https";
	bool plain = r->insecure || reference_host_is_local(r->host);
	unsigned attempt = 0;
	int res;

	if (!call)
		return err_set(err, -ENOMEM, "out of memory for the registry");
	res = first_call(r, scheme, call, err);
	if (res == 0 && call->result < 0 && plain && call->result != -EKEYREJECTED && call->result != -EHOSTUNREACH &&
	    call->result != -ECONNREFUSED) {
		http_finish(call);
		scheme = "http";
		res = first_call(r, scheme, call, err);
	}
	while (res == 0 && registry_transient(call) && ++attempt < REGISTRY_ATTEMPTS) {
		res = registry_wait(r, registry_pause_ms(call, attempt - 1), err);
		http_finish(call);
		if (res == 0)
			res = first_call(r, scheme, call, err);
	}
	/* Any answer will do: what the registry thinks of /v2/ itself is not the question. */
	if (res == 0 && call->result < 0)
		res = registry_error(r, call, "first contact", err);
	else if (res == 0 && call->status != 200 && call->status != 401 && call->status != 403)
		res = err_set(err, -EPROTO, "%.80s does not answer like a registry (status %ld): check the name", r->host,
			      call->status);
	http_finish(call);
	free(call);
	return res;
}

int registry_open(const char *host, const struct registry_options *options,
		  const struct auth_login *login, struct registry **ret_registry, struct err *err)
{
	struct registry *r = calloc(1, sizeof(*r));
	int res;

	if (!r)
		return err_set(err, -ENOMEM, "out of memory for the registry");
	(void)snprintf(r->host, sizeof(r->host), "%s", host);
	r->insecure = options->insecure;
	r->cancel = options->cancel;
	res = http_create(options->cancel, &r->http, err);
	if (res == 0 && login)
		r->login = *login;
	else if (res == 0)
		res = auth_find(host, &r->login, err);
	if (res == 0)
		res = find_scheme(r, err);
	if (res < 0) {
		registry_close(r);
		return res;
	}
	*ret_registry = r;
	return 0;
}

void registry_close(struct registry *registry)
{
	if (!registry)
		return;
	for (unsigned i = 0; i < SCOPES_MAX; i++)
		free(registry->right[i].authorization);
	http_destroy(registry->http);
	explicit_bzero(&registry->login, sizeof(registry->login));
	free(registry);
}

int registry_check_login(struct registry *registry, struct err *err)
{
	struct http_call *call = calloc(1, sizeof(*call));
	int r;

	if (!call)
		return err_set(err, -ENOMEM, "out of memory for the registry");
	call->method = "GET";
	r = registry_prepare(registry, call, "", err, "%s", "");
	if (r == 0)
		r = registry_do(registry, call, "", err);
	if (r == 0 && (call->result < 0 || call->status != 200))
		r = registry_error(registry, call, "login", err);
	http_finish(call);
	free(call);
	return r;
}

/* ---- manifests ---- */

int registry_get_manifest(struct registry *registry, const struct reference *ref, char **ret_data,
			  size_t *ret_len, struct err *err)
{
	static const char *const types[] = { MEDIA_OCI_INDEX, MEDIA_OCI_MANIFEST, MEDIA_DOCKER_LIST, MEDIA_DOCKER_MANIFEST };
	struct http_call *call = calloc(1, sizeof(*call));
	char scope[REGISTRY_SCOPE_MAX], what[128], have[STORE_DIGEST_SIZE];
	int r;

	if (!call)
		return err_set(err, -ENOMEM, "out of memory for the registry");
	call->method = "GET";
	for (unsigned i = 0; i < sizeof(types) / sizeof(types[0]); i++)
		call->accept[i] = types[i];
	(void)snprintf(scope, sizeof(scope), "repository:%s:pull", ref->path);
	(void)snprintf(what, sizeof(what), "%.60s%s%.50s", ref->path, ref->digest[0] ? "@" : ":",
		       ref->digest[0] ? ref->digest : ref->tag);
	r = registry_prepare(registry, call, scope, err, "%s/manifests/%s", ref->path,
			     ref->digest[0] ? ref->digest : ref->tag);
	if (r == 0)
		r = registry_do(registry, call, scope, err);
	if (r == 0 && (call->result < 0 || call->status != 200 || !call->reply)) {
		if (call->result == -EFBIG)
			r = err_set(err, -EFBIG, "%s: the registry sends a manifest of more than 4 MiB", what);
		else
			r = registry_error(registry, call, what, err);
	}
	if (r == 0) {
		const char *want = ref->digest[0] ? ref->digest : call->digest;

		store_digest(call->reply, call->reply_len, have);
		if (want[0] && strncmp(want, "sha256:", 7) == 0 && strcmp(want, have) != 0)
			r = err_set(err, -EBADMSG, "%s: the registry sent a manifest with the wrong digest (%.19s...): nothing "
				    "was kept; try again, or report it to who runs %.60s", what, have, registry->host);
	}
	if (r == 0) {
		*ret_data = call->reply;
		*ret_len = call->reply_len;
		call->reply = NULL;
	}
	http_finish(call);
	free(call);
	return r;
}
