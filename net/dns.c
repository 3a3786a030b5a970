/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DNS messages.  Names are read with all the care that compression wants: pointers go
 * backwards only, so a loop cannot be made (RFC 1035, 4.1.4).
 */
#include "net/dns.h"
#include "net/names.h"
#include "net/wire.h"

#define HEADER_SIZE 12u
#define CLASS_IN 1u
#define FLAG_QR 0x8000u
#define FLAG_AA 0x0400u
#define FLAG_TC 0x0200u
#define FLAG_RD 0x0100u
#define FLAG_RA 0x0080u
#define OPCODE_MASK 0x7800u
#define OPT_SIZE 11u	/* of an empty EDNS record */
#define UDP_OURS 1232u	/* bytes that we take over UDP: what fits everywhere */

/* Offsets in the header. */
enum { AT_ID = 0, AT_FLAGS = 2, AT_QUESTIONS = 4, AT_ANSWERS = 6, AT_AUTHORITY = 8, AT_ADDITIONAL = 10 };

static char lower(uint8_t c)
{
	return (char)(c >= 'A' && c <= 'Z' ? c | 0x20 : c);
}

static bool plain(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

/* Appends one byte of a label to @name of DNS_NAME_MAX bytes.  False: no room. */
static bool put_char(char *name, size_t *at, uint8_t byte)
{
	char c = lower(byte);

	if (*at + (plain(c) ? 2 : 5) > DNS_NAME_MAX)	/* with a NUL */
		return false;
	if (plain(c)) {
		name[(*at)++] = c;
		return true;
	}
	name[(*at)++] = '\\';
	name[(*at)++] = (char)('0' + byte / 100);
	name[(*at)++] = (char)('0' + byte / 10 % 10);
	name[(*at)++] = (char)('0' + byte % 10);
	return true;
}

/* Reads the name at @at; returns the offset after it, 0 when it is broken. */
static size_t get_name(const uint8_t *message, size_t len, size_t at, char name[DNS_NAME_MAX])
{
	size_t end = 0, out = 0, lowest = at, wire = 0;

	for (;;) {
		uint8_t label;

		if (at >= len)
			return 0;
		label = message[at];
		if (label >> 6 == 3) {
			if (at + 2 > len)
				return 0;
			if (!end)
				end = at + 2;
			at = get16(message + at) & 0x3fffu;
			if (at >= lowest || at < HEADER_SIZE)
				return 0;
			lowest = at;
			continue;
		}
		wire += label + 1u;
		if (label >> 6 || at + 1 + label > len || wire > NAME_WIRE_MAX)
			return 0;
		if (!label)
			break;
		if (out)
			name[out++] = '.';
		for (uint8_t i = 1; i <= label; i++)
			if (!put_char(name, &out, message[at + i]))
				return 0;
		at += label + 1u;
	}
	name[out] = 0;
	return end ? end : at + 1;
}

static bool same_text(const char *a, const char *b)
{
	while (*a && *a == *b) {
		a++;
		b++;
	}
	return *a == *b;
}

/* Looks through the additional section for EDNS (RFC 6891, 6.1).  False: broken. */
static bool find_edns(const uint8_t *message, size_t len, size_t at, struct dns_query *query)
{
	unsigned left = get16(message + AT_ADDITIONAL);
	char name[DNS_NAME_MAX];

	while (left--) {
		at = get_name(message, len, at, name);
		if (!at || at + 10 > len)
			return false;
		if (get16(message + at) == DNS_OPT) {
			query->edns = true;
			query->udp_size = (uint16_t)max_of(get16(message + at + 2), DNS_UDP_MIN);
		}
		at += 10u + get16(message + at + 8);
		if (at > len)
			return false;
	}
	return true;
}

int dns_parse_query(const void *message, size_t len, struct dns_query *ret_query)
{
	const uint8_t *bytes = message;
	struct dns_query query = { .udp_size = DNS_UDP_MIN };
	size_t at;

	if (len < HEADER_SIZE || len > DNS_MESSAGE_MAX || get16(bytes + AT_QUESTIONS) != 1 ||
	    get16(bytes + AT_ANSWERS) || get16(bytes + AT_FLAGS) & (FLAG_QR | OPCODE_MASK))
		return NET_EINVAL;
	at = get_name(bytes, len, HEADER_SIZE, query.name);
	if (!at || at + 4 > len)
		return NET_EINVAL;
	query.id = get16(bytes);
	query.recursion_desired = get16(bytes + AT_FLAGS) & FLAG_RD;
	query.type = get16(bytes + at);
	query.class = get16(bytes + at + 2);
	query.question_end = (uint16_t)(at + 4);
	if (!get16(bytes + AT_AUTHORITY) && !find_edns(bytes, len, at + 4, &query))
		return NET_EINVAL;
	*ret_query = query;
	return NET_OK;
}

/* Starts an answer with the question of @query; returns its size, 0 when there is no room. */
static size_t begin_answer(const struct dns_query *query, const uint8_t *message, size_t len,
			   enum dns_rcode rcode, uint8_t *out, size_t cap)
{
	uint16_t flags = (uint16_t)(FLAG_QR | FLAG_RA | rcode);
	size_t size = query ? query->question_end : HEADER_SIZE;

	if (len < size || cap < size)
		return 0;
	if (query && query->recursion_desired)
		flags |= FLAG_RD;
	__builtin_memcpy(out, message, size);
	put16(out + AT_FLAGS, flags);
	put16(out + AT_QUESTIONS, query ? 1 : 0);
	put16(out + AT_ANSWERS, 0);
	put16(out + AT_AUTHORITY, 0);
	put16(out + AT_ADDITIONAL, 0);
	return size;
}

/* RFC 6891, 6.1.1: who asks with EDNS is answered with it. */
static size_t put_edns(uint8_t *out, size_t size, size_t cap)
{
	if (cap - size < OPT_SIZE)
		return size;
	__builtin_memset(out + size, 0, OPT_SIZE);
	put16(out + size + 1, DNS_OPT);
	put16(out + size + 3, UDP_OURS);
	put16(out + AT_ADDITIONAL, 1);
	return size + OPT_SIZE;
}

size_t dns_error(const struct dns_query *query, const void *message, size_t len,
		 enum dns_rcode rcode, void *out, size_t cap)
{
	size_t size = begin_answer(query, message, len, rcode, out, cap);

	if (size && query && query->edns)
		size = put_edns(out, size, cap);
	return size;
}

static const char *skip_prefix(const char *text, const char *prefix)
{
	while (*prefix && *text == *prefix) {
		text++;
		prefix++;
	}
	return *prefix ? NULL : text;
}

/* True when @name is @host, or @host in the domain. */
static bool names_host(const struct dns_table *table, const char *name, const char *host)
{
	const char *rest = skip_prefix(name, host);

	if (!rest)
		return false;
	if (!*rest)
		return true;
	return table->domain && *rest == '.' && same_text(rest + 1, table->domain);
}

static bool in_domain(const struct dns_table *table, const char *name)
{
	size_t len = text_len(name), own = text_len(table->domain);

	if (!own || len < own || !same_text(name + len - own, table->domain))
		return false;
	return len == own || name[len - own - 1] == '.';
}

/* Writes the fixed part of a record about the question's name; returns where its data goes. */
static uint8_t *put_record(uint8_t *at, uint16_t type, uint32_t ttl, size_t len)
{
	put16(at, 0xc000 | HEADER_SIZE);	/* the name in the question */
	put16(at + 2, type);
	put16(at + 4, CLASS_IN);
	put32(at + 6, ttl);
	put16(at + 10, (uint16_t)len);
	return at + 12;
}

static size_t put_addresses(const struct dns_table *table, const struct dns_host *host,
			    const struct dns_query *query, uint8_t *out, size_t size, size_t cap)
{
	for (unsigned i = 0; i < host->count; i++) {
		bool v4 = net_addr_is4(&host->addrs[i]);
		uint16_t type = v4 ? DNS_A : DNS_AAAA;
		size_t len = v4 ? 4 : 16;

		if (query->type != type && query->type != DNS_ANY)
			continue;
		if (cap - size < 12 + len)
			break;
		__builtin_memcpy(put_record(out + size, type, table->ttl_s, len),
				 host->addrs[i].b + 16 - len, len);
		put16(out + AT_ANSWERS, (uint16_t)(get16(out + AT_ANSWERS) + 1));
		size += 12 + len;
	}
	return size;
}

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* "4.3.2.1.in-addr.arpa" (RFC 1035, 3.5). */
static bool parse_reverse4(const char *name, struct net_addr *ret_addr)
{
	uint8_t bytes[4];

	for (int i = 3; i >= 0; i--) {
		unsigned v = 0, digits = 0;

		for (; *name >= '0' && *name <= '9' && digits < 3; digits++)
			v = v * 10 + (unsigned)(*name++ - '0');
		if (!digits || v > 255 || *name++ != '.')
			return false;
		bytes[i] = (uint8_t)v;
	}
	*ret_addr = net_addr4_from(bytes);
	return same_text(name, "in-addr.arpa");
}

/* 32 nibbles, then "ip6.arpa" (RFC 3596, 2.5). */
static bool parse_reverse6(const char *name, struct net_addr *ret_addr)
{
	struct net_addr addr = { 0 };

	for (int i = 31; i >= 0; i--) {
		int v = hex_value(name[0]);

		if (v < 0 || name[1] != '.')
			return false;
		addr.b[i / 2] |= (uint8_t)(i % 2 ? v : v << 4);
		name += 2;
	}
	*ret_addr = addr;
	return same_text(name, "ip6.arpa");
}

static const struct dns_host *host_of_addr(const struct dns_table *table,
					   const struct net_addr *addr)
{
	for (unsigned i = 0; i < table->count; i++)
		for (unsigned j = 0; j < table->hosts[i].count; j++)
			if (net_addr_equal(&table->hosts[i].addrs[j], addr))
				return &table->hosts[i];
	return NULL;
}

/* Writes the host's full name as a PTR record. */
static size_t put_pointer(const struct dns_table *table, const struct dns_host *host, uint8_t *out,
			  size_t size, size_t cap)
{
	char text[DNS_NAME_MAX];
	uint8_t wire[NAME_WIRE_MAX];
	size_t len = text_len(host->name), domain = text_len(table->domain);

	if (len + 1 + domain >= sizeof(text))
		return size;
	__builtin_memcpy(text, host->name, len);
	if (domain) {
		text[len++] = '.';
		__builtin_memcpy(text + len, table->domain, domain);
		len += domain;
	}
	len = name_put(text, len, wire, sizeof(wire));
	if (!len || cap - size < 12 + len)
		return size;
	__builtin_memcpy(put_record(out + size, DNS_PTR, table->ttl_s, len), wire, len);
	put16(out + AT_ANSWERS, (uint16_t)(get16(out + AT_ANSWERS) + 1));
	return size + 12 + len;
}

/* Whom the query is about: a host (by name, or by address for PTR), or NULL. */
static const struct dns_host *find_host(const struct dns_table *table, const struct dns_query *query)
{
	struct net_addr addr;

	if (query->type == DNS_PTR)
		return parse_reverse4(query->name, &addr) || parse_reverse6(query->name, &addr) ?
			       host_of_addr(table, &addr) : NULL;
	for (unsigned i = 0; i < table->count; i++)
		if (names_host(table, query->name, table->hosts[i].name))
			return &table->hosts[i];
	return NULL;
}

int dns_answer(const struct dns_table *table, const struct dns_query *query, const void *message,
	       size_t len, size_t limit, void *out, size_t cap)
{
	const struct dns_host *host;
	size_t size;

	if (query->class != CLASS_IN)
		return 0;
	host = find_host(table, query);
	if (!host && !in_domain(table, query->name))
		return 0;
	if (cap < DNS_UDP_MIN)
		return NET_EMSGSIZE;
	size = begin_answer(query, message, len, host ? DNS_OK : DNS_NXDOMAIN, out, cap);
	if (!size)
		return 0;
	put16((uint8_t *)out + AT_FLAGS, get16((uint8_t *)out + AT_FLAGS) | FLAG_AA);
	if (host && query->type == DNS_PTR)
		size = put_pointer(table, host, out, size, cap);
	else if (host)
		size = put_addresses(table, host, query, out, size, cap);
	if (query->edns)
		size = put_edns(out, size, cap);
	return (int)dns_truncate(out, size, limit);
}

void dns_set_id(void *message, uint16_t id)
{
	put16(message, id);
}

bool dns_is_response(const void *message, size_t len, const struct dns_query *query, uint16_t id)
{
	const uint8_t *bytes = message;
	char name[DNS_NAME_MAX];
	size_t at;

	if (len < HEADER_SIZE || get16(bytes) != id || !(get16(bytes + AT_FLAGS) & FLAG_QR) ||
	    get16(bytes + AT_QUESTIONS) != 1)
		return false;
	at = get_name(bytes, len, HEADER_SIZE, name);
	return at && at + 4 <= len && same_text(name, query->name) &&
	       get16(bytes + at) == query->type && get16(bytes + at + 2) == query->class;
}

size_t dns_truncate(void *message, size_t len, size_t limit)
{
	uint8_t *bytes = message;
	char name[DNS_NAME_MAX];
	size_t at = HEADER_SIZE;

	if (len <= limit || len < HEADER_SIZE)
		return len;
	if (get16(bytes + AT_QUESTIONS) == 1)
		at = get_name(bytes, len, HEADER_SIZE, name) + 4;
	if (at < HEADER_SIZE + 4 || at > len || at > limit) {	/* a broken or strange question */
		at = HEADER_SIZE;
		put16(bytes + AT_QUESTIONS, 0);
	}
	put16(bytes + AT_FLAGS, get16(bytes + AT_FLAGS) | FLAG_TC);
	put16(bytes + AT_ANSWERS, 0);
	put16(bytes + AT_AUTHORITY, 0);
	put16(bytes + AT_ADDITIONAL, 0);
	return at;
}

bool dns_read_answers(struct dns_reader *reader, const void *message, size_t len)
{
	const uint8_t *bytes = message;
	char name[DNS_NAME_MAX];
	size_t at = HEADER_SIZE;

	if (len < HEADER_SIZE || !(get16(bytes + AT_FLAGS) & FLAG_QR))
		return false;
	for (unsigned left = get16(bytes + AT_QUESTIONS); left; left--) {
		at = get_name(bytes, len, at, name);
		if (!at || at + 4 > len)
			return false;
		at += 4;
	}
	*reader = (struct dns_reader){ .message = bytes, .len = len, .at = at,
				       .left = get16(bytes + AT_ANSWERS) };
	return true;
}

int dns_next_answer(struct dns_reader *reader, struct dns_record *ret_record)
{
	const uint8_t *bytes = reader->message;
	size_t at, size;

	if (!reader->left)
		return 0;
	reader->left--;
	*ret_record = (struct dns_record){ 0 };
	at = get_name(bytes, reader->len, reader->at, ret_record->name);
	if (!at || at + 10 > reader->len)
		return NET_EINVAL;
	size = get16(bytes + at + 8);
	if (at + 10 + size > reader->len)
		return NET_EINVAL;
	ret_record->type = get16(bytes + at);
	ret_record->class = get16(bytes + at + 2);
	ret_record->ttl_s = get32(bytes + at + 4);
	at += 10;
	reader->at = at + size;
	if (ret_record->type == DNS_A && size == 4)
		ret_record->addr = net_addr4_from(bytes + at);
	else if (ret_record->type == DNS_AAAA && size == 16)
		ret_record->addr = net_addr6_from(bytes + at);
	else if (ret_record->type == DNS_A || ret_record->type == DNS_AAAA)
		return NET_EINVAL;
	if ((ret_record->type == DNS_CNAME || ret_record->type == DNS_PTR) &&
	    get_name(bytes, reader->len, at, ret_record->target) != reader->at)
		return NET_EINVAL;
	return 1;
}
