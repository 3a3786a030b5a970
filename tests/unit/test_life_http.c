/* SPDX-License-Identifier: Apache-2.0 */
/* The control socket's HTTP: requests of any client, answers of a monitor. */
#include "life/http.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* Parses a copy without a byte behind it, so that a sanitizer sees reads beyond. */
static int request(const char *text, size_t len, struct http_request *ret)
{
	char *copy = malloc(len ? len : 1);
	int r;

	assert_non_null(copy);
	memcpy(copy, text, len);
	r = http_parse_request(copy, len, ret);
	free(copy);
	return r;
}

static int parse(const char *text, struct http_request *ret)
{
	return request(text, strlen(text), ret);
}

static void test_a_request_is_taken_apart(void **state)
{
	static const char text[] = "POST /v1/exec%20x?a=1&b=x%20y HTTP/1.1\r\nHost: roux\r\nContent-Length:  12 \r\n"
				   "upgrade: roux-frames\r\n\r\n{\"Cmd\":[]}";
	struct http_request r;

	assert_int_equal(parse(text, &r), 1);
	assert_string_equal(r.method, "POST");
	assert_string_equal(r.path, "/v1/exec x");
	assert_string_equal(r.query, "a=1&b=x%20y");
	assert_string_equal(r.upgrade, "roux-frames");
	assert_int_equal(r.body_len, 12);
	assert_int_equal(r.head_len, strstr(text, "{") - text);
	assert_true(r.keep_alive);
}

static void test_every_prefix_of_a_head_asks_for_more(void **state)
{
	static const char text[] = "GET /v1/vm HTTP/1.1\r\nHost: roux\r\n\r\n";
	struct http_request r;

	for (size_t n = 0; n < sizeof(text) - 1; n++)
		assert_int_equal(request(text, n, &r), 0);
	assert_int_equal(parse(text, &r), 1);
}

static void test_connections_end_when_asked_or_old(void **state)
{
	struct http_request r;

	assert_int_equal(parse("GET / HTTP/1.0\r\n\r\n", &r), 1);
	assert_false(r.keep_alive);
	assert_int_equal(parse("GET / HTTP/1.1\r\nConnection: Close\r\n\r\n", &r), 1);
	assert_false(r.keep_alive);
}

static void test_odd_requests_are_refused(void **state)
{
	static const struct {
		int status;
		const char *text;
	} cases[] = {
		{ -400, "\r\n\r\n" },
		{ -400, "GET\r\n\r\n" },
		{ -400, "GET /\r\n\r\n" },
		{ -400, "GET relative HTTP/1.1\r\n\r\n" },
		{ -400, "GET /%zz HTTP/1.1\r\n\r\n" },
		{ -400, "GET /%4 HTTP/1.1\r\n\r\n" },
		{ -400, "GET /%00 HTTP/1.1\r\n\r\n" },
		{ -400, "GET / HTTP/1.1\r\nno colon\r\n\r\n" },
		{ -400, "GET / HTTP/1.1\r\n folded: line\r\n\r\n" },
		{ -400, "GET / HTTP/1.1\r\nA: x\ny\r\n\r\n" },
		{ -400, "GET / HTTP/1.1\r\nA: x\ry\r\n\r\n" },
		{ -400, "GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n" },
		{ -400, "GET / HTTP/1.1\r\nContent-Length: 1x\r\n\r\n" },
		{ -400, "GET / HTTP/1.1\r\nContent-Length:\r\n\r\n" },
		{ -400, "GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n" },
		{ -400, "GET / HTTP/1.1\r\nUpgrade: a-name-that-is-much-longer-than-any-protocol\r\n\r\n" },
		{ -405, "get / HTTP/1.1\r\n\r\n" },
		{ -405, "ENORMOUSLY / HTTP/1.1\r\n\r\n" },
		{ -413, "GET / HTTP/1.1\r\nContent-Length: 1048577\r\n\r\n" },
		{ -400, "GET / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n" },
		{ -501, "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" },
		{ -505, "GET / HTTP/2.0\r\n\r\n" },
		{ -505, "GET / HTTP/1.x\r\n\r\n" },
		{ -505, "GET / SPDY/1.1\r\n\r\n" },
	};
	struct http_request r;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		if (parse(cases[i].text, &r) != cases[i].status)
			fail_msg("case %zu: %d, not %d", i, parse(cases[i].text, &r), cases[i].status);
}

static void test_a_head_has_a_largest_size(void **state)
{
	static char text[HTTP_HEAD_MAX + 64];
	struct http_request r;
	int n = snprintf(text, sizeof(text), "GET / HTTP/1.1\r\nA: ");

	memset(text + n, 'x', sizeof(text) - (size_t)n);
	assert_int_equal(request(text, HTTP_HEAD_MAX - 1, &r), 0);
	assert_int_equal(request(text, HTTP_HEAD_MAX, &r), -431);
	memcpy(text + HTTP_HEAD_MAX - 4, "\r\n\r\n", 4);
	assert_int_equal(request(text, sizeof(text), &r), 1);
	assert_int_equal(r.head_len, HTTP_HEAD_MAX);
}

static void test_a_path_has_a_largest_size(void **state)
{
	static char text[HTTP_PATH_MAX + 64];
	struct http_request r;

	for (unsigned more = 0; more < 2; more++) {
		int n = snprintf(text, sizeof(text), "GET /");

		memset(text + n, 'x', HTTP_PATH_MAX - 2 + more);
		(void)snprintf(text + n + HTTP_PATH_MAX - 2 + more, 32, " HTTP/1.1\r\n\r\n");
		assert_int_equal(parse(text, &r), more ? -400 : 1);
	}
	assert_true(snprintf(text, sizeof(text), "GET /?%0*d HTTP/1.1\r\n\r\n", (int)HTTP_PATH_MAX, 0) > 0);
	assert_int_equal(parse(text, &r), -400);
}

static void test_queries_are_looked_up(void **state)
{
	char value[8];

	assert_true(http_query("output=0&x", "output", value, sizeof(value)));
	assert_string_equal(value, "0");
	assert_true(http_query("output=0&x", "x", value, sizeof(value)));
	assert_string_equal(value, "");
	assert_true(http_query("outputs=1&output=a%20b+c", "output", value, sizeof(value)));
	assert_string_equal(value, "a b c");
	assert_false(http_query("outputs=1", "output", value, sizeof(value)));
	assert_false(http_query("output=12345678", "output", value, sizeof(value)));
	assert_false(http_query("output=%0", "output", value, sizeof(value)));
	assert_false(http_query("", "output", value, sizeof(value)));
}

static void test_responses_are_taken_apart(void **state)
{
	static const char ok[] = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
	struct http_response r;

	assert_int_equal(http_parse_response(ok, sizeof(ok) - 1, &r), 1);
	assert_int_equal(r.status, 200);
	assert_int_equal(r.body_len, 2);
	assert_int_equal(r.head_len, sizeof(ok) - 3);
	assert_int_equal(http_parse_response(ok, 20, &r), 0);
	assert_int_equal(http_parse_response("HTTP/1.1 101 Go\r\n\r\n", 19, &r), 1);
	assert_true(r.body_len == UINT64_MAX);
}

static void test_odd_responses_are_refused(void **state)
{
	static const char *const cases[] = { "HTTP/1.1 20\r\n\r\n", "HTTP/1.1 099 x\r\n\r\n", "HTTP/1.1 600 x\r\n\r\n",
		"HTTP/1.1 2x0 x\r\n\r\n", "HTTP/1.1 -20 x\r\n\r\n", "HTTP/1.0 200 x\r\n\r\n", "\r\n\r\n",
		"HTTP/1.1 200 x\r\nContent-Length: x\r\n\r\n" };
	struct http_response r;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		if (http_parse_response(cases[i], strlen(cases[i]), &r) != -1)
			fail_msg("case %zu was taken", i);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_request_is_taken_apart),
		cmocka_unit_test(test_every_prefix_of_a_head_asks_for_more),
		cmocka_unit_test(test_connections_end_when_asked_or_old),
		cmocka_unit_test(test_odd_requests_are_refused),
		cmocka_unit_test(test_a_head_has_a_largest_size),
		cmocka_unit_test(test_a_path_has_a_largest_size),
		cmocka_unit_test(test_queries_are_looked_up),
		cmocka_unit_test(test_responses_are_taken_apart),
		cmocka_unit_test(test_odd_responses_are_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
