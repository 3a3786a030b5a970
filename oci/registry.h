/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One registry: where it is, how it wants to be spoken to, and the requests of
 * the OCI distribution specification 1.1.  HTTPS, and plain HTTP only with this
 * machine or when asked for by @insecure (which also stops checking certificates).
 *
 * Requests are tried again when that may help: after broken connections, 408,
 * 429 and 5xx, with growing pauses or the one the registry asks for.
 */
#ifndef OCI_REGISTRY_H
#define OCI_REGISTRY_H

#include "oci/auth.h"
#include "oci/http.h"
#include "oci/manifest.h"
#include "oci/reference.h"

#define REGISTRY_SCOPE_MAX 1536 /* bytes of the rights that one call needs, NUL included */

struct registry;

struct registry_options {
	bool insecure;
	const volatile int *cancel;	/* NULL, or ends soon after this gets nonzero */
};

/*
 * Finds out how @host is spoken to, without or with @login (NULL: what docker's
 * configuration says).  0, -ECONNREFUSED, -EHOSTUNREACH, -EKEYREJECTED for a
 * certificate that cannot be trusted, or another negative errno.
 */
int registry_open(const char *host, const struct registry_options *options,
		  const struct auth_login *login, struct registry **ret_registry, struct err *err);
void registry_close(struct registry *registry);	/* NULL is fine */
struct http *registry_http(struct registry *registry);

/* Whether the registry accepts the login.  0, -EACCES, or another negative errno. */
int registry_check_login(struct registry *registry, struct err *err);

/*
 * Fills url, authorization and the like for @url_path below /v2/ and the rights
 * "repository:<path>:pull[,push]".  The caller adds the rest and starts the call.
 * 0 or a negative errno.
 */
int registry_prepare(struct registry *registry, struct http_call *call, const char *scope,
		     struct err *err, const char *fmt, ...) __attribute__((format(printf, 5, 6)));

/*
 * The same for call->url as it stands, a place that the registry named.  Rights go
 * along only when it is at the registry itself.
 */
void registry_prepare_url(struct registry *registry, struct http_call *call, const char *scope);

/*
 * After an answer 401: asks the token service.  0 when the call may be made again
 * (prepare it anew), -EACCES when it would not help, or another negative errno.
 */
int registry_authorize(struct registry *registry, const struct http_call *call, const char *scope,
		       struct err *err);

/*
 * Makes and repeats a request that was prepared until there is an answer that is
 * neither 401 nor transient.  0 whatever status came, or a negative errno.
 * http_finish() follows in every case.
 */
int registry_do(struct registry *registry, struct http_call *call, const char *scope, struct err *err);

/* Whether an answer is worth another try, and after which pause in ms (@attempt counts from 0). */
bool registry_transient(const struct http_call *call);
unsigned registry_pause_ms(const struct http_call *call, unsigned attempt);
#define REGISTRY_ATTEMPTS 5u
/* Sleeps that long.  0, or -EINTR when everything is to end. */
int registry_wait(const struct registry *registry, unsigned ms, struct err *err);

/* Turns what went wrong with @call into a negative errno and a sentence about @what. */
int registry_error(const struct registry *registry, const struct http_call *call, const char *what,
		   struct err *err);

/*
 * Fetches a manifest or index by tag or digest (ref->tag, ref->digest) and checks
 * the digest when there is one.  0 and fresh memory, -ENOENT, or another negative errno.
 */
int registry_get_manifest(struct registry *registry, const struct reference *ref, char **ret_data,
			  size_t *ret_len, struct err *err);

#endif /* OCI_REGISTRY_H */
