/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control socket's HTTP, requests and responses: what has been taken stays within
 * its bounds, and a head that is cut short asks for more or was wrong before.
 */
#include "life/http.h"
#include "tests/fuzz/check.h"

#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void check_request(const char *buf, size_t len)
{
	struct http_request r, cut;
	int result = http_parse_request(buf, len, &r), before;
	char value[64];

	want(result == 1 || result == 0 || (result <= -400 && result >= -505 && strcmp(http_reason(-result), "Unknown") != 0));
	if (result != 1)
		return;
	want(r.head_len <= len && r.head_len <= HTTP_HEAD_MAX && r.body_len <= HTTP_BODY_MAX);
	want(r.path[0] == '/' && strlen(r.path) < sizeof(r.path) && strlen(r.query) < sizeof(r.query));
	want(r.method[0] && strlen(r.upgrade) < sizeof(r.upgrade));
	before = http_parse_request(buf, r.head_len - 1, &cut);
	want(before == 0);
	if (http_query(r.query, "output", value, sizeof(value)))
		want(strlen(value) < sizeof(value));
}

static void check_response(const char *buf, size_t len)
{
	struct http_response r;
	int result = http_parse_response(buf, len, &r);

	want(result >= -1 && result <= 1);
	if (result == 1)
		want(r.status >= 100 && r.status < 600 && r.head_len <= len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	check_request((const char *)data, len);
	check_response((const char *)data, len);
	return 0;
}
