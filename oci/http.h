/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP requests, several at once on one thread, over libcurl.
 *
 *   http_start(call) ... http_poll() until call->done ... look at the answer
 *
 * Redirects are followed; credentials do not go to another host, and never from
 * HTTPS to HTTP.  $SSL_CERT_FILE and $SSL_CERT_DIR name certificate authorities
 * in place of the system's; proxies are those of the environment.
 */
#ifndef OCI_HTTP_H
#define OCI_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HTTP_URL_MAX 4096
#define HTTP_REPLY_MAX (4u * 1024u * 1024u) /* bytes of an answer kept in memory */

struct err;
struct http;
struct http_call;

/* Body of a good answer; 0, or a negative errno that ends the call.  The first call sees the headers. */
typedef int (*http_body_fn)(void *ctx, struct http_call *call, const void *data, size_t len);

/* Strings are borrowed until the call is done; start with { 0 }. */
struct http_call {
	/* request */
	const char *method;	/* "GET", "HEAD", "POST", "PUT" */
	char url[HTTP_URL_MAX];
	const char *authorization;	/* value of the header; NULL: none */
	const char *accept[8];	/* media types, ends with NULL */
	const char *content_type;	/* of the body */
	uint64_t range_from;	/* bytes to skip; 0: all */
	const void *body;	/* sent, when not NULL ... */
	int body_fd;	/* ... or this file, when body is NULL and has_file is set */
	bool has_file;
	uint64_t body_len;	/* bytes */
	bool insecure;	/* certificates are not checked */
	http_body_fn on_body;	/* NULL: the answer is kept in @reply */
	void *ctx;

	/* answer; valid when @done */
	bool done;
	int result;	/* 0: there was a whole answer; else a negative errno */
	bool transient;	/* result < 0, but trying again may help */
	bool not_tls;	/* the other side does not speak TLS */
	long status;	/* HTTP's */
	char message[256];	/* why result < 0 */
	char *reply;	/* NUL-terminated, owned; http_finish() frees */
	size_t reply_len;
	uint64_t sent;	/* bytes of the body so far, also before it is done */
	char location[HTTP_URL_MAX];	/* absolute when it was given at all */
	char challenge[2048], digest[128];
	uint64_t range_got;	/* first byte of a 206 answer */
	unsigned retry_after_s;	/* 0: not said */

	/* private to http.c */
	void *easy, *headers;
	struct http *http;
	uint64_t body_at;
	int body_error;
};

/* @cancel: NULL, or calls end with -EINTR soon after this gets nonzero. */
int http_create(const volatile int *cancel, struct http **ret_http, struct err *err);
void http_destroy(struct http *http);	/* after http_finish() of all calls; NULL is fine */

/* Begins; 0, or a negative errno.  The struct must stay where it is until http_finish(). */
int http_start(struct http *http, struct http_call *call, struct err *err);

/* Moves all calls on; waits up to @timeout_ms for something to happen. */
void http_poll(struct http *http, int timeout_ms);

/* Starts @call and waits until it is done.  0 whatever it came to, or a negative errno. */
int http_do(struct http *http, struct http_call *call, struct err *err);

/* Frees what the call holds, ending it if it still runs.  Its answer's text is gone then. */
void http_finish(struct http_call *call);

/* Appends @text to @url, percent-encoded.  False when it does not fit. */
bool http_append_escaped(char url[HTTP_URL_MAX], const char *text);

#endif /* OCI_HTTP_H */
