/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DNS messages: a query that is answered from a table, and the same bytes as the
 * response of a name server.  What is answered must be readable again.
 */
#include "check.h"
#include "net/dns.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void check_name(const char *name)
{
	size_t len = strnlen(name, DNS_NAME_MAX);

	want(len < DNS_NAME_MAX);
	for (size_t i = 0; i < len; i++)
		want(strchr("abcdefghijklmnopqrstuvwxyz0123456789-_.\\", name[i]));
}

static void read_all(const uint8_t *message, size_t len)
{
	struct dns_reader reader;
	struct dns_record record;
	unsigned count = 0;

	if (!dns_read_answers(&reader, message, len))
		return;
	while (dns_next_answer(&reader, &record) == 1) {
		check_name(record.name);
		check_name(record.target);
		want(++count <= 65535);
	}
}

static void answer(const struct dns_query *query, const uint8_t *data, size_t len)
{
	static const struct net_addr addrs[] = { { .b = { [10] = 0xff, 0xff, 10, 0, 0, 5 } },
						 { .b = { 0xfd, [15] = 5 } } };
	static const struct dns_host hosts[] = { { "db", addrs, 2 }, { "web.example", addrs, 1 } };
	static const struct dns_table table = { hosts, 2, "roux", 60 };
	uint8_t out[1024];
	int size;

	size = dns_answer(&table, query, data, len, query->udp_size, out, sizeof(out));
	want(size >= 0 && (size_t)size <= sizeof(out));
	if (!size)
		return;
	want(dns_is_response(out, (size_t)size, query, query->id));
	read_all(out, (size_t)size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct dns_query query;
	uint8_t out[600], *copy;
	size_t size;

	if (dns_parse_query(data, len, &query) == NET_OK) {
		check_name(query.name);
		want(query.question_end <= len);
		answer(&query, data, len);
		size = dns_error(&query, data, len, DNS_SERVFAIL, out, sizeof(out));
		want(!size || dns_is_response(out, size, &query, query.id));
		(void)dns_is_response(data, len, &query, query.id);
	}
	(void)dns_error(NULL, data, len, DNS_FORMERR, out, sizeof(out));
	read_all(data, len);
	copy = malloc(len + 1);
	want(copy);
	memcpy(copy, data, len);
	size = dns_truncate(copy, len, DNS_UDP_MIN);
	want(size <= len && (size <= DNS_UDP_MIN || len < 12));
	free(copy);
	return 0;
}
