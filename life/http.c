/* SPDX-License-Identifier: Apache-2.0 */
#include "life/http.h"

#include <string.h>
#include <strings.h>

/* One header line, borrowed. */
struct line {
	const char *at;
	size_t len;	/* without CR LF */
};

/* Length of a head with the empty line that ends it; 0 when that has not come, -1 when it is too long. */
static long head_length(const char *buf, size_t len)
{
	size_t n = len < HTTP_HEAD_MAX ? len : HTTP_HEAD_MAX;
	const char *end = memmem(buf, n, "\r\n\r\n", 4);

	if (end)
		return end + 4 - buf;
	return len >= HTTP_HEAD_MAX ? -1 : 0;
}

static bool next_line(const char **at, const char *end, struct line *ret)
{
	const char *cr = memmem(*at, (size_t)(end - *at), "\r\n", 2);

	if (!cr || cr == *at)
		return false;
	*ret = (struct line){ *at, (size_t)(cr - *at) };
	*at = cr + 2;
	return true;
}

static bool printable(const struct line *l)
{
	for (size_t i = 0; i < l->len; i++)
		if ((unsigned char)l->at[i] < 0x20 && l->at[i] != '\t')
			return false;
	return true;
}

/* The value of header @name in @l, without white space around it; false for another header. */
static bool header_is(const struct line *l, const char *name, struct line *ret_value)
{
	size_t n = strlen(name);

	if (l->len <= n || l->at[n] != ':' || strncasecmp(l->at, name, n) != 0)
		return false;
	*ret_value = (struct line){ l->at + n + 1, l->len - n - 1 };
	while (ret_value->len && strchr(" \t", *ret_value->at)) {
		ret_value->at++;
		ret_value->len--;
	}
	while (ret_value->len && strchr(" \t", ret_value->at[ret_value->len - 1]))
		ret_value->len--;
	return true;
}

static bool value_is(const struct line *l, const char *text)
{
	return l->len == strlen(text) && strncasecmp(l->at, text, l->len) == 0;
}

static bool parse_number(const struct line *l, uint64_t *ret)
{
	uint64_t v = 0;

	if (l->len == 0 || l->len > 15)
		return false;
	for (size_t i = 0; i < l->len; i++) {
		if (l->at[i] < '0' || l->at[i] > '9')
			return false;
		v = v * 10 + (uint64_t)(l->at[i] - '0');
	}
	*ret = v;
	return true;
}

static int hex(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Resolves percent codes of @text[0..@len).  False when one is broken or gives NUL, or it does not fit. */
static bool unescape(const char *text, size_t len, bool plus, char *ret, size_t size)
{
	size_t n = 0;

	for (size_t i = 0; i < len; i++) {
		char c = plus && text[i] == '+' ? ' ' : text[i];

		if (c == '%') {
			if (i + 2 >= len || hex(text[i + 1]) < 0 || hex(text[i + 2]) < 0)
				return false;
			c = (char)(hex(text[i + 1]) << 4 | hex(text[i + 2]));
			i += 2;
		}
		if (c == '\0' || n + 1 >= size)
			return false;
		ret[n++] = c;
	}
	ret[n] = '\0';
	return true;
}

static int parse_target(const struct line *l, struct http_request *r)
{
	const char *query = memchr(l->at, '?', l->len);
	size_t path_len = query ? (size_t)(query - l->at) : l->len;
	size_t query_len = query ? l->len - path_len - 1 : 0;

	if (l->len == 0 || l->at[0] != '/' || query_len >= sizeof(r->query) ||
	    !unescape(l->at, path_len, false, r->path, sizeof(r->path)))
		return -400;
	if (query)
		memcpy(r->query, query + 1, query_len);
	r->query[query_len] = '\0';
	return 0;
}

/* "METHOD SP target SP HTTP/1.x" */
static int parse_request_line(const struct line *l, struct http_request *r)
{
	const char *space = memchr(l->at, ' ', l->len), *last = memrchr(l->at, ' ', l->len);
	struct line target;
	size_t n;

	if (!space || space == last)
		return -400;
	n = (size_t)(space - l->at);
	if (n == 0 || n >= sizeof(r->method) || strspn(l->at, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") < n)
		return -405;
	memcpy(r->method, l->at, n);
	r->method[n] = '\0';
	n = (size_t)(l->at + l->len - last - 1);
	if (n != 8 || strncmp(last + 1, "HTTP/1.", 7) != 0 || last[8] < '0' || last[8] > '9')
		return -505;
	r->keep_alive = last[8] >= '1';
	target = (struct line){ space + 1, (size_t)(last - space - 1) };
	return parse_target(&target, r);
}

static int take_header(const struct line *l, struct http_request *r, bool *has_length)
{
	struct line v;
	uint64_t n;

	if (!printable(l) || !memchr(l->at, ':', l->len) || l->at[0] == ' ' || l->at[0] == '\t')
		return -400;
	if (header_is(l, "Transfer-Encoding", &v))
		return -501;
	if (header_is(l, "Content-Length", &v)) {
		if (*has_length || !parse_number(&v, &n))
			return -400;
		if (n > HTTP_BODY_MAX)
			return -413;
		*has_length = true;
		r->body_len = (size_t)n;
	}
	if (header_is(l, "Connection", &v) && value_is(&v, "close"))
		r->keep_alive = false;
	if (header_is(l, "Upgrade", &v)) {
		if (v.len >= sizeof(r->upgrade))
			return -400;
		memcpy(r->upgrade, v.at, v.len);
		r->upgrade[v.len] = '\0';
	}
	return 0;
}

int http_parse_request(const char *buf, size_t len, struct http_request *r)
{
	long head = head_length(buf, len);
	bool has_length = false;
	const char *at = buf;
	struct line l;
	int result;

	if (head <= 0)
		return head ? -431 : 0;
	*r = (struct http_request){ .head_len = (size_t)head };
	if (!next_line(&at, buf + head, &l) || !printable(&l))
		return -400;
	result = parse_request_line(&l, r);
	while (result == 0 && next_line(&at, buf + head, &l))
		result = take_header(&l, r, &has_length);
	return result < 0 ? result : 1;
}

int http_parse_response(const char *buf, size_t len, struct http_response *r)
{
	long head = head_length(buf, len);
	const char *at = buf;
	struct line l, v;
	uint64_t status;

	if (head <= 0)
		return (int)head;
	*r = (struct http_response){ .head_len = (size_t)head, .body_len = UINT64_MAX };
	if (!next_line(&at, buf + head, &l) || l.len < 12 || strncmp(l.at, "HTTP/1.1 ", 9) != 0)
		return -1;
	v = (struct line){ l.at + 9, 3 };
	if (!parse_number(&v, &status) || status < 100 || status > 599 || (l.len > 12 && l.at[12] != ' '))
		return -1;
	r->status = (int)status;
	while (next_line(&at, buf + head, &l))
		if (header_is(&l, "Content-Length", &v) && !parse_number(&v, &r->body_len))
			return -1;
	return 1;
}

bool http_query(const char *query, const char *name, char *ret_value, size_t size)
{
	size_t n = strlen(name);

	while (*query) {
		size_t len = strcspn(query, "&");

		if (len >= n && strncmp(query, name, n) == 0 && (len == n || query[n] == '='))
			return unescape(query + n + (len > n), len - n - (len > n), true, ret_value, size);
		query += len + (query[len] == '&');
	}
	return false;
}

const char *http_reason(int status)
{
	static const struct {
		int status;
		const char *reason;
	} reasons[] = { { 101, "Switching Protocols" }, { 200, "OK" }, { 204, "No Content" }, { 400, "Bad Request" },
			{ 403, "Forbidden" }, { 404, "Not Found" }, { 405, "Method Not Allowed" }, { 409, "Conflict" },
			{ 410, "Gone" }, { 413, "Content Too Large" }, { 426, "Upgrade Required" }, { 431, "Request Header Fields Too Large" },
			{ 500, "Internal Server Error" }, { 501, "Not Implemented" }, { 503, "Service Unavailable" },
			{ 505, "HTTP Version Not Supported" } };

	for (size_t i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++)
		if (reasons[i].status == status)
			return reasons[i].reason;
	return "Unknown";
}
