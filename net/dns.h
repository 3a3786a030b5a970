/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DNS messages (RFC 1035, RFC 6891) for a forwarder: look at a query, answer it
 * from a table of names, or pass it on; look at the answer that came back.  No
 * state and no sockets: the caller moves the bytes.  Input may be hostile.
 */
#ifndef NET_DNS_H
#define NET_DNS_H

#include "net/types.h"

#define DNS_PORT 53u
#define DNS_NAME_MAX 254u	/* bytes of a name as text with its NUL */
#define DNS_UDP_MIN 512u	/* bytes of an answer that every client takes */
#define DNS_MESSAGE_MAX 65535u

enum dns_type { DNS_A = 1, DNS_CNAME = 5, DNS_SOA = 6, DNS_PTR = 12, DNS_AAAA = 28, DNS_OPT = 41, DNS_ANY = 255 };
enum dns_rcode { DNS_OK = 0, DNS_FORMERR = 1, DNS_SERVFAIL = 2, DNS_NXDOMAIN = 3, DNS_NOTIMP = 4, DNS_REFUSED = 5 };

struct dns_query {
	char name[DNS_NAME_MAX];	/* lower case, no dot at the end; "" is the root */
	uint16_t id, type, class;
	uint16_t udp_size;	/* bytes of an answer over UDP the client takes (EDNS), at least 512 */
	uint16_t question_end;	/* offset of the byte after the question */
	bool edns, recursion_desired;
};

/*
 * Looks at a query.  NET_OK; NET_EINVAL: not a query with one question: answer
 * DNS_FORMERR or nothing.  Labels with bytes other than letters, digits, '-' and
 * '_' have them as \DDD in @ret_query->name (RFC 1035, 5.1).
 */
int dns_parse_query(const void *message, size_t len, struct dns_query *ret_query);

/* Names that the forwarder knows itself. */
struct dns_host {
	const char *name;	/* lower case, without domain unless it has a dot */
	const struct net_addr *addrs;	/* IPv4 and IPv6 */
	unsigned count;
};

struct dns_table {
	const struct dns_host *hosts;
	unsigned count;
	const char *domain;	/* name and name.domain are the same; all of it is ours.  NULL: none */
	uint32_t ttl_s;
};

/*
 * Answers @query (which came in @message) from @table: A, AAAA and PTR.  Names in
 * the domain that are not there do not exist (NXDOMAIN); a name that is there without the
 * type asked for has an empty answer.  Returns the size of the answer in @out, 0
 * when the query is not for the table, NET_EMSGSIZE when @cap is below DNS_UDP_MIN.
 * Truncation as dns_truncate() with @limit.
 */
int dns_answer(const struct dns_table *table, const struct dns_query *query, const void *message,
	       size_t len, size_t limit, void *out, size_t cap);

/* An answer without records.  @query NULL: the question could not be parsed.  Its size, or 0. */
size_t dns_error(const struct dns_query *query, const void *message, size_t len,
		 enum dns_rcode rcode, void *out, size_t cap);

void dns_set_id(void *message, uint16_t id);

/*
 * True when @message is a response to @query with that id and the same question; names
 * are compared without regard to case.
 */
bool dns_is_response(const void *message, size_t len, const struct dns_query *query, uint16_t id);

/*
 * Makes @message fit into @limit bytes for UDP: when it does not, cuts after the
 * question and sets TC, so that the client asks again over TCP.  Returns the size.
 */
size_t dns_truncate(void *message, size_t len, size_t limit);

/* Cursor over the records of a response's answer section; private. */
struct dns_reader {
	const uint8_t *message;
	size_t len, at;
	unsigned left;
};

struct dns_record {
	char name[DNS_NAME_MAX];	/* as in struct dns_query */
	uint16_t type, class;
	uint32_t ttl_s;
	struct net_addr addr;	/* of A and AAAA */
	char target[DNS_NAME_MAX];	/* of CNAME and PTR */
};

/* Starts at the first answer; false when @message is not a response that can be read. */
bool dns_read_answers(struct dns_reader *reader, const void *message, size_t len);
/* Returns 1 and fills @ret_record, 0 at the end, NET_EINVAL when the message is broken. */
int dns_next_answer(struct dns_reader *reader, struct dns_record *ret_record);

#endif /* NET_DNS_H */
