/* SPDX-License-Identifier: Apache-2.0 */
#include "oci/http.h"

#include "os/err.h"

#include <curl/curl.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#define CONNECT_TIMEOUT_S 20L
#define STALL_S 60L /* without a byte, after which a transfer is given up */
#define REDIRECTS_MAX 10L
#define ERROR_REPLY_MAX (64u * 1024u) /* bytes of an error's text */

struct http {
	CURLM *multi;
	const volatile int *cancel;	/* borrowed */
};

static pthread_once_t once = PTHREAD_ONCE_INIT;

static void init_curl(void)
{
	(void)curl_global_init(CURL_GLOBAL_DEFAULT);
}

int http_create(const volatile int *cancel, struct http **ret_http, struct err *err)
{
	struct http *http = calloc(1, sizeof(*http));

	(void)pthread_once(&once, init_curl);
	if (http)
		http->multi = curl_multi_init();
	if (!http || !http->multi) {
		free(http);
		return err_set(err, -ENOMEM, "out of memory for the network");
	}
	http->cancel = cancel;
	*ret_http = http;
	return 0;
}

void http_destroy(struct http *http)
{
	if (!http)
		return;
	curl_multi_cleanup(http->multi);
	free(http);
}

/* ---- answers ---- */

static void copy_value(char *dst, size_t size, const char *at, size_t len)
{
	while (len && (*at == ' ' || *at == '\t')) {
		at++;
		len--;
	}
	while (len && (at[len - 1] == '\r' || at[len - 1] == '\n' || at[len - 1] == ' '))
		len--;
	if (len >= size)	/* what does not fit is as good as absent */
		len = 0;
	memcpy(dst, at, len);
	dst[len] = '\0';
}

/* Seconds, or a date. */
static unsigned parse_retry_after(const char *text)
{
	char *end;
	unsigned long s = strtoul(text, &end, 10);
	time_t when, now = time(NULL);

	if (end != text && *end == '\0')
		return s > 3600 ? 3600 : (unsigned)s;
	when = curl_getdate(text, NULL);
	return when > now ? (when - now > 3600 ? 3600 : (unsigned)(when - now)) : 0;
}

static size_t on_header(char *at, size_t one, size_t len, void *ctx)
{
	static const char *const names[] = { "location", "www-authenticate",
					     "docker-content-digest", "content-range", "retry-after" };
	struct http_call *call = ctx;
	const char *colon = memchr(at, ':', len);
	char value[64];

	(void)one;
	if (len >= 5 && strncmp(at, "HTTP/", 5) == 0) {	/* another answer, after a redirect or 100 */
		call->location[0] = call->challenge[0] = call->digest[0] = '\0';
		call->range_got = 0;
		call->retry_after_s = 0;
		return len;
	}
	for (unsigned i = 0; colon && i < sizeof(names) / sizeof(names[0]); i++) {
		const char *from = colon + 1;
		size_t n = len - (size_t)(from - at);

		if ((size_t)(colon - at) != strlen(names[i]) || strncasecmp(at, names[i], strlen(names[i])) != 0)
			continue;
		switch (i) {
		case 0: copy_value(call->location, sizeof(call->location), from, n); break;
		case 1:	/* the first, or a Bearer one in its place: registries may offer both */
			copy_value(value, sizeof(value), from, n < 8 ? n : 8);
			if (!call->challenge[0] || strncasecmp(value, "bearer", 6) == 0)
				copy_value(call->challenge, sizeof(call->challenge), from, n);
			break;
		case 2: copy_value(call->digest, sizeof(call->digest), from, n); break;
		case 3: copy_value(value, sizeof(value), from, n);
			call->range_got = strncasecmp(value, "bytes ", 6) == 0 ? strtoull(value + 6, NULL, 10) : UINT64_MAX;
			break;
		default: copy_value(value, sizeof(value), from, n);
			call->retry_after_s = parse_retry_after(value);
			break;
		}
	}
	return len;
}

static int keep_reply(struct http_call *call, const void *data, size_t len, size_t max)
{
	char *more;

	if (len > max - call->reply_len)
		return call->status / 100 == 2 ? -EFBIG : 0;
	more = realloc(call->reply, call->reply_len + len + 1);
	if (!more)
		return -ENOMEM;
	call->reply = more;
	memcpy(more + call->reply_len, data, len);
	call->reply_len += len;
	more[call->reply_len] = '\0';
	return 0;
}

static size_t on_data(char *at, size_t one, size_t len, void *ctx)
{
	struct http_call *call = ctx;
	int r;

	(void)one;
	curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &call->status);
	if (call->status / 100 == 2 && call->on_body)
		r = call->on_body(call->ctx, call, at, len);
	else
		r = keep_reply(call, at, len, call->status / 100 == 2 ? HTTP_REPLY_MAX : ERROR_REPLY_MAX);
	if (r < 0)
		call->body_error = r;
	return r < 0 ? 0 : len;
}

/* ---- requests ---- */

static size_t give_body(char *to, size_t one, size_t len, void *ctx)
{
	struct http_call *call = ctx;
	uint64_t left = call->body_len - call->body_at;
	ssize_t n = (ssize_t)(len * one < left ? len * one : left);

	if (call->body)
		memcpy(to, (const char *)call->body + call->body_at, (size_t)n);
	else
		n = pread(call->body_fd, to, (size_t)n, (off_t)call->body_at);
	if (n < 0)
		return CURL_READFUNC_ABORT;
	call->body_at += (uint64_t)n;
	call->sent = call->body_at;
	return (size_t)n;
}

/* A redirect asks for the body again. */
static int seek_body(void *ctx, curl_off_t offset, int origin)
{
	struct http_call *call = ctx;

	if (origin != SEEK_SET || offset < 0 || (uint64_t)offset > call->body_len)
		return CURL_SEEKFUNC_FAIL;
	call->body_at = (uint64_t)offset;
	return CURL_SEEKFUNC_OK;
}

static bool add_header(struct http_call *call, const char *name, const char *value)
{
	struct curl_slist *more;
	char *line;

	if (asprintf(&line, "%s: %s", name, value) < 0)
		return false;
	more = curl_slist_append(call->headers, line);
	free(line);
	if (more)
		call->headers = more;
	return more != NULL;
}

static bool set_headers(struct http_call *call)
{
	bool ok = true;

	for (unsigned i = 0; i < sizeof(call->accept) / sizeof(call->accept[0]) && call->accept[i]; i++)
		ok = ok && add_header(call, "Accept", call->accept[i]);
	if (call->authorization)
		ok = ok && add_header(call, "Authorization", call->authorization);
	if (call->content_type)
		ok = ok && add_header(call, "Content-Type", call->content_type);
	/* Uploads begin at once: a registry that refuses answers anyway. */
	return ok && (!(call->body || call->has_file) || add_header(call, "Expect", ""));
}

static void set_options(struct http_call *call)
{
	const char *ca = getenv("SSL_CERT_FILE"), *ca_dir = getenv("SSL_CERT_DIR");
	bool https = strncmp(call->url, "https:", 6) == 0;
	CURL *e = call->easy;

	curl_easy_setopt(e, CURLOPT_URL, call->url);
	curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(e, CURLOPT_REDIR_PROTOCOLS_STR, https ? "https" : "http,https");
	curl_easy_setopt(e, CURLOPT_FOLLOWLOCATION, 1L);
	curl_easy_setopt(e, CURLOPT_MAXREDIRS, REDIRECTS_MAX);
	curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT, CONNECT_TIMEOUT_S);
	curl_easy_setopt(e, CURLOPT_LOW_SPEED_LIMIT, 1L);
	curl_easy_setopt(e, CURLOPT_LOW_SPEED_TIME, STALL_S);
	curl_easy_setopt(e, CURLOPT_USERAGENT, "roux");
	curl_easy_setopt(e, CURLOPT_BUFFERSIZE, 256L * 1024);
	curl_easy_setopt(e, CURLOPT_HTTPHEADER, (struct curl_slist *)call->headers);
	curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(e, CURLOPT_HEADERDATA, call);
	curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_data);
	curl_easy_setopt(e, CURLOPT_WRITEDATA, call);
	curl_easy_setopt(e, CURLOPT_ERRORBUFFER, call->message);
	curl_easy_setopt(e, CURLOPT_PRIVATE, call);
	if (ca && *ca)
		curl_easy_setopt(e, CURLOPT_CAINFO, ca);
	if (ca_dir && *ca_dir)
		curl_easy_setopt(e, CURLOPT_CAPATH, ca_dir);
	if (call->insecure) {
		curl_easy_setopt(e, CURLOPT_SSL_VERIFYPEER, 0L);
		curl_easy_setopt(e, CURLOPT_SSL_VERIFYHOST, 0L);
	}
	if (call->range_from) {
		char range[32];

		(void)snprintf(range, sizeof(range), "%llu-", (unsigned long long)call->range_from);
		curl_easy_setopt(e, CURLOPT_RANGE, range);
	}
	if (strcmp(call->method, "HEAD") == 0)
		curl_easy_setopt(e, CURLOPT_NOBODY, 1L);
	if (call->body || call->has_file) {
		curl_easy_setopt(e, CURLOPT_UPLOAD, 1L);
		curl_easy_setopt(e, CURLOPT_INFILESIZE_LARGE, (curl_off_t)call->body_len);
		curl_easy_setopt(e, CURLOPT_READFUNCTION, give_body);
		curl_easy_setopt(e, CURLOPT_READDATA, call);
		curl_easy_setopt(e, CURLOPT_SEEKFUNCTION, seek_body);
		curl_easy_setopt(e, CURLOPT_SEEKDATA, call);
	}
	curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, strcmp(call->method, "HEAD") == 0 ? NULL : call->method);
}

int http_start(struct http *http, struct http_call *call, struct err *err)
{
	call->http = http;
	call->done = call->transient = call->not_tls = false;
	call->result = call->body_error = 0;
	call->status = 0;
	call->body_at = call->sent = 0;
	call->message[0] = '\0';
	call->easy = curl_easy_init();
	if (!call->easy || !set_headers(call))
		goto no_memory;
	set_options(call);
	if (curl_multi_add_handle(http->multi, call->easy) == CURLM_OK)
		return 0;
no_memory:
	http_finish(call);
	return err_set(err, -ENOMEM, "out of memory for the network");
}

/* What curl's codes mean for us. */
static void judge(struct http_call *call, CURLcode code)
{
	switch ((int)code) {
	case CURLE_OK:
		return;
	case CURLE_WRITE_ERROR:
		call->result = call->body_error ? call->body_error : -EIO;
		return;
	case CURLE_COULDNT_RESOLVE_HOST:
	case CURLE_COULDNT_RESOLVE_PROXY:
		call->result = -EHOSTUNREACH;
		return;
	case CURLE_COULDNT_CONNECT:
		call->result = -ECONNREFUSED;
		return;
	case CURLE_SSL_CONNECT_ERROR:
		call->result = -EPROTO;
		call->not_tls = true;
		return;
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CACERT_BADFILE:
	case CURLE_SSL_CERTPROBLEM:
		call->result = -EKEYREJECTED;
		return;
	case CURLE_OUT_OF_MEMORY:
		call->result = -ENOMEM;
		return;
	case CURLE_TOO_MANY_REDIRECTS:
	case CURLE_UNSUPPORTED_PROTOCOL:
	case CURLE_URL_MALFORMAT:
		call->result = -EPROTO;
		return;
	case CURLE_OPERATION_TIMEDOUT:
		call->result = -ETIMEDOUT;
		break;
	default:	/* cut off, reset, half an answer, ... */
		call->result = -EIO;
		break;
	}
	call->transient = true;
}

static void complete(struct http *http, struct http_call *call, CURLcode code)
{
	char *url = NULL;

	curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &call->status);
	judge(call, code);
	if (call->result < 0 && !call->message[0])
		(void)snprintf(call->message, sizeof(call->message), "%s", curl_easy_strerror(code));
	/* Where an upload goes on may be said relative to where it began. */
	if (call->location[0] && call->location[0] == '/' && curl_easy_getinfo(call->easy, CURLINFO_EFFECTIVE_URL, &url) == CURLE_OK && url) {
		const char *host = strstr(url, "://");
		size_t n = host ? (size_t)(host + 3 - url) + strcspn(host + 3, "/?#") : 0, len = strlen(call->location);

		if (n + len < sizeof(call->location)) {
			memmove(call->location + n, call->location, len + 1);
			memcpy(call->location, url, n);
		} else {
			call->location[0] = '\0';
		}
	}
	curl_multi_remove_handle(http->multi, call->easy);
	curl_easy_cleanup(call->easy);
	call->easy = NULL;
	call->done = true;
}

void http_poll(struct http *http, int timeout_ms)
{
	int running = 0, left;
	CURLMsg *msg;

	(void)curl_multi_perform(http->multi, &running);
	if (running && timeout_ms > 0) {
		(void)curl_multi_poll(http->multi, NULL, 0, timeout_ms, NULL);
		(void)curl_multi_perform(http->multi, &running);
	}
	while ((msg = curl_multi_info_read(http->multi, &left))) {
		struct http_call *call = NULL;
		CURLcode code = msg->data.result;

		if (msg->msg == CURLMSG_DONE && curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, (char **)&call) == CURLE_OK && call)
			complete(http, call, code);
	}
}

int http_do(struct http *http, struct http_call *call, struct err *err)
{
	int r = http_start(http, call, err);

	if (r < 0)
		return r;
	while (!call->done) {
		if (http->cancel && *http->cancel) {
			http_finish(call);
			return err_set(err, -EINTR, "interrupted");
		}
		http_poll(http, 100);
	}
	return 0;
}

void http_finish(struct http_call *call)
{
	if (call->easy) {
		curl_multi_remove_handle(call->http->multi, call->easy);
		curl_easy_cleanup(call->easy);
	}
	curl_slist_free_all(call->headers);
	free(call->reply);
	call->easy = call->headers = NULL;
	call->reply = NULL;
	call->reply_len = 0;
}

bool http_append_escaped(char url[HTTP_URL_MAX], const char *text)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~";
	size_t len = strlen(url);

	for (; *text; text++) {
		if (len + 4 > HTTP_URL_MAX)
			return false;
		if (strchr(plain, *text))
			url[len++] = *text;
		else
			len += (size_t)snprintf(url + len, 4, "%%%02X", (unsigned char)*text);
	}
	url[len] = '\0';
	return true;
}
