/* SPDX-License-Identifier: Apache-2.0 */
/*
 * As much of HTTP/1.1 (RFC 9112) as a control socket needs: requests with or without a
 * body of known length, and switching to another protocol.  No I/O.  Anything odd is
 * refused: folded or duplicate lengths, transfer codings, bare control characters.
 */
#ifndef LIFE_HTTP_H
#define LIFE_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HTTP_HEAD_MAX 8192u	/* bytes of request line and headers */
#define HTTP_BODY_MAX (1u << 20)	/* bytes */
#define HTTP_PATH_MAX 1024u

struct http_request {
	char method[8];	/* upper case */
	char path[HTTP_PATH_MAX];	/* absolute, percent codes resolved, without query */
	char query[HTTP_PATH_MAX];	/* behind the '?', as it came; "" without */
	char upgrade[32];	/* protocol to switch to, "" for none */
	bool keep_alive;
	size_t head_len, body_len;	/* bytes */
};

/*
 * Parses the head of a request at the start of @buf.  1 and fills @ret_request, 0 when
 * more bytes are needed, or the negative status of the answer: -400, -405, -413, -431,
 * -501, -505.
 */
int http_parse_request(const char *buf, size_t len, struct http_request *ret_request);

struct http_response {
	int status;
	size_t head_len;
	uint64_t body_len;	/* UINT64_MAX: until the end of the stream */
};

/* The same for a response; -1 when it is malformed. */
int http_parse_response(const char *buf, size_t len, struct http_response *ret_response);

/*
 * Looks up @name in a query "a=1&b=x%20y".  True and fills @ret_value (percent codes
 * resolved) when it is there and fits.
 */
bool http_query(const char *query, const char *name, char *ret_value, size_t size);

const char *http_reason(int status);	/* "Not Found" */

#endif /* LIFE_HTTP_H */
