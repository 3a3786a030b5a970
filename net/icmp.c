/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ICMP (RFC 792, RFC 1122 3.2.2) and ICMPv6 (RFC 4443): echo and errors of both,
 * which differ in numbers more than in anything else.
 */
#include "net/core.h"
#include "net/checksum.h"

#define ERRORS_A_SECOND 1000u
#define ERRORS_BURST 100u
#define QUOTE_MAX 128u	/* bytes of the packet an error is about */

enum {
	ICMP4_ECHO_REPLY = 0,
	ICMP4_UNREACHABLE = 3,
	ICMP4_ECHO = 8,
	ICMP4_TIME_EXCEEDED = 11,
	ICMP6_UNREACHABLE = 1,
	ICMP6_TOO_BIG = 2,
	ICMP6_TIME_EXCEEDED = 3,
	ICMP6_PARAMETER = 4,
	ICMP6_ECHO = 128,
	ICMP6_ECHO_REPLY = 129,
	NDP_FIRST = 133,
	NDP_LAST = 137,
};

struct icmp_name {
	uint8_t type, code;
};

/* Indexed by enum icmp_kind. */
static const struct icmp_name name4[] = {
	[ICMP_NET_UNREACHABLE] = { ICMP4_UNREACHABLE, 0 },
	[ICMP_HOST_UNREACHABLE] = { ICMP4_UNREACHABLE, 1 },
	[ICMP_PROTOCOL_UNREACHABLE] = { ICMP4_UNREACHABLE, 2 },
	[ICMP_PORT_UNREACHABLE] = { ICMP4_UNREACHABLE, 3 },
	[ICMP_PROHIBITED] = { ICMP4_UNREACHABLE, 13 },
	[ICMP_TOO_BIG] = { ICMP4_UNREACHABLE, 4 },
	[ICMP_HOPS_EXCEEDED] = { ICMP4_TIME_EXCEEDED, 0 },
	[ICMP_REASSEMBLY_EXCEEDED] = { ICMP4_TIME_EXCEEDED, 1 },
};

static const struct icmp_name name6[] = {
	[ICMP_NET_UNREACHABLE] = { ICMP6_UNREACHABLE, 0 },
	[ICMP_HOST_UNREACHABLE] = { ICMP6_UNREACHABLE, 3 },
	[ICMP_PROTOCOL_UNREACHABLE] = { ICMP6_PARAMETER, 1 },
	[ICMP_PORT_UNREACHABLE] = { ICMP6_UNREACHABLE, 4 },
	[ICMP_PROHIBITED] = { ICMP6_UNREACHABLE, 1 },
	[ICMP_TOO_BIG] = { ICMP6_TOO_BIG, 0 },
	[ICMP_HOPS_EXCEEDED] = { ICMP6_TIME_EXCEEDED, 0 },
	[ICMP_REASSEMBLY_EXCEEDED] = { ICMP6_TIME_EXCEEDED, 1 },
};
_Static_assert(sizeof(name4) == sizeof(name6), "the families have the same kinds");

static bool kind_of(bool v4, uint8_t type, uint8_t code, enum icmp_kind *ret_kind)
{
	const struct icmp_name *names = v4 ? name4 : name6;

	for (unsigned i = 0; i < sizeof(name4) / sizeof(name4[0]); i++) {
		if (names[i].type == type && names[i].code == code) {
			*ret_kind = (enum icmp_kind)i;
			return true;
		}
	}
	if (type != (v4 ? ICMP4_UNREACHABLE : ICMP6_UNREACHABLE))
		return false;
	if (v4 && (code == 9 || code == 10))
		*ret_kind = ICMP_PROHIBITED;
	else	/* RFC 1122, 4.2.3.9: the rest is about networks and hosts */
		*ret_kind = code == 6 || code == 11 ? ICMP_NET_UNREACHABLE : ICMP_HOST_UNREACHABLE;
	return true;
}

int icmp_send_echo(struct net *net, const struct icmp_echo *echo)
{
	bool v4 = net_addr_is4(&echo->from);
	struct out out;
	uint8_t *icmp = out_init(&out, &echo->from, &echo->to, v4 ? PROTO_ICMP : PROTO_ICMP6,
				 ICMP_SIZE);

	if (echo->count > OUT_PAYLOAD_SPANS || echo->len > UINT16_MAX)
		return NET_EMSGSIZE;
	icmp[0] = v4 ? (echo->reply ? ICMP4_ECHO_REPLY : ICMP4_ECHO) :
		       (echo->reply ? ICMP6_ECHO_REPLY : ICMP6_ECHO);
	put16(icmp + 4, echo->id);
	put16(icmp + 6, echo->seq);
	out.checksum_at = 2;
	out.hop_limit = echo->hop_limit;
	for (unsigned i = 0; i < echo->count; i++)
		out.spans[out.count++] = echo->spans[i];
	out.len = echo->len;
	return ip_output(net, &out);
}

static void echo_input(struct net *net, const struct packet *packet, bool reply)
{
	const uint8_t *icmp = packet->head + packet->at;
	struct net_span spans[NET_SPANS_MAX];
	struct icmp_echo echo = {
		.from = packet->src, .to = packet->dst, .reply = reply, .id = get16(icmp + 4),
		.seq = get16(icmp + 6), .hop_limit = packet->hop_limit, .spans = spans,
		.len = packet->end - packet->at - ICMP_SIZE,
	};
	bool own = net_is_own(net, &packet->dst);

	if (net_addr_is_zero(&packet->src))
		return;
	echo.count = packet_spans(packet, packet->at + ICMP_SIZE, packet->end, spans);
	if (packet->group && (packet->v4 || reply || !net_source_for(net, &packet->src, &echo.to)))
		return;	/* IPv6 hosts answer pings to ff02::1 (RFC 4443, 4.2) */
	if (!reply && (packet->group || (own && !net->forward_own_echo))) {
		echo.reply = true;
		echo.from = echo.to;
		echo.to = packet->src;
		echo.hop_limit = 0;
		(void)icmp_send_echo(net, &echo);
	} else if (net->ops->echo_input) {
		net->ops->echo_input(net->ctx, &echo);
	}
}

/* Finds the transport header in a quoted packet at @at; fills proto and addresses.  0: unusable. */
static uint32_t parse_quote(const struct packet *packet, uint32_t at, struct icmp_error *error)
{
	const uint8_t *ip = packet->head + at;
	uint32_t size = packet->v4 ? IP4_SIZE : IP6_SIZE;

	if (!packet_has(packet, at, size) || ip[0] >> 4 != (packet->v4 ? 4 : 6))
		return 0;
	if (packet->v4) {
		size = (ip[0] & 15u) * 4;
		error->proto = ip[9];
		error->sender.addr = net_addr4_from(ip + 12);
		error->target.addr = net_addr4_from(ip + 16);
		return size >= IP4_SIZE && !(get16(ip + 6) & 0x1fff) ? at + size : 0;
	}
	error->proto = ip[6];
	error->sender.addr = net_addr6_from(ip + 8);
	error->target.addr = net_addr6_from(ip + 24);
	at += size;
	if (error->proto == PROTO_FRAGMENT) {
		if (!packet_has(packet, at, IP6_FRAGMENT_SIZE) || get16(packet->head + at + 2) & 0xfff8)
			return 0;
		error->proto = packet->head[at];
		at += IP6_FRAGMENT_SIZE;
	}
	return at;
}

static void error_input(struct net *net, const struct packet *packet)
{
	const uint8_t *icmp = packet->head + packet->at, *transport;
	struct icmp_error error = { .from = packet->src };
	uint32_t at;

	if (!kind_of(packet->v4, icmp[0], icmp[1], &error.kind))
		return;
	error.mtu = packet->v4 ? get16(icmp + 6) : get32(icmp + 4);
	at = parse_quote(packet, packet->at + ICMP_SIZE, &error);
	if (!at || !packet_has(packet, at, 8)) {
		net->stats.bad_transport++;
		return;
	}
	transport = packet->head + at;
	error.sender.port = get16(transport);
	error.target.port = get16(transport + 2);
	if (error.proto == PROTO_TCP) {
		tcp_icmp_error(net, &error, get32(transport + 4));
		return;
	}
	if (error.proto == PROTO_ICMP || error.proto == PROTO_ICMP6) {
		error.sender.port = get16(transport + 4);
		error.target.port = get16(transport + 6);
	} else if (error.proto != PROTO_UDP) {
		return;
	}
	if (net->ops->icmp_error)
		net->ops->icmp_error(net->ctx, &error);
}

static bool icmp_ok(struct net *net, const struct packet *packet)
{
	struct net_span spans[NET_SPANS_MAX];
	unsigned count;
	uint64_t sum = 0;

	if (!packet_has(packet, packet->at, ICMP_SIZE)) {
		net->stats.bad_transport++;
		return false;
	}
	if (!packet->v4)
		sum = sum_pseudo(&packet->src, &packet->dst, PROTO_ICMP6, packet->end - packet->at);
	count = packet_spans(packet, packet->at, packet->end, spans);
	if (sum_fold(sum_spans(spans, count, sum)) == 0xffff)
		return true;
	net->stats.bad_checksum++;
	return false;
}

void icmp4_input(struct net *net, struct packet *packet)
{
	uint8_t type;

	if (!icmp_ok(net, packet))
		return;
	type = packet->head[packet->at];
	if (type == ICMP4_ECHO || type == ICMP4_ECHO_REPLY)
		echo_input(net, packet, type == ICMP4_ECHO_REPLY);
	else if (!packet->group)
		error_input(net, packet);
}

void icmp6_input(struct net *net, struct packet *packet)
{
	uint8_t type;

	if (!icmp_ok(net, packet))
		return;
	type = packet->head[packet->at];
	if (type == ICMP6_ECHO || type == ICMP6_ECHO_REPLY)
		echo_input(net, packet, type == ICMP6_ECHO_REPLY);
	else if (type >= NDP_FIRST && type <= NDP_LAST)
		ndp_input(net, packet, type);
	else if (type < 128 && !packet->group)
		error_input(net, packet);
}

static bool take_token(struct net *net)
{
	const uint64_t each = SECOND / ERRORS_A_SECOND;
	uint64_t gained = (net->now - net->icmp_at) / each;

	if (gained) {
		net->icmp_tokens = (uint32_t)min_of(net->icmp_tokens + gained, ERRORS_BURST);
		net->icmp_at = net->now;
	}
	if (!net->icmp_tokens) {
		net->stats.icmp_limited++;
		return false;
	}
	net->icmp_tokens--;
	return true;
}

/* Sends an error from @src to @dst with @quote bytes of a packet. */
static int send_error(struct net *net, const struct net_addr *src, const struct net_addr *dst,
		      enum icmp_kind kind, uint32_t mtu, const uint8_t *quote, uint16_t len)
{
	bool v4 = net_addr_is4(dst);
	const struct icmp_name *name = v4 ? &name4[kind] : &name6[kind];
	struct out out;
	uint8_t *icmp;

	if (!take_token(net))
		return NET_OK;
	icmp = out_init(&out, src, dst, v4 ? PROTO_ICMP : PROTO_ICMP6, (uint16_t)(ICMP_SIZE + len));
	icmp[0] = name->type;
	icmp[1] = name->code;
	if (kind == ICMP_TOO_BIG && v4)
		put16(icmp + 6, (uint16_t)min_of(mtu, UINT16_MAX));
	else if (kind == ICMP_TOO_BIG)
		put32(icmp + 4, mtu);
	else if (!v4 && kind == ICMP_PROTOCOL_UNREACHABLE)
		put32(icmp + 4, 6);	/* offset of Next Header in the IPv6 header */
	__builtin_memcpy(icmp + ICMP_SIZE, quote, len);
	out.checksum_at = 2;
	return ip_output(net, &out);
}

void icmp_error_about(struct net *net, const struct packet *packet, enum icmp_kind kind,
		      uint32_t mtu)
{
	const uint8_t *transport = packet->head + packet->at;
	struct net_addr src = packet->dst;
	uint32_t end = min_of(packet->head_len, packet->end);
	uint32_t len = min_of(end - packet->ip_at, QUOTE_MAX);

	if (packet->group || net_addr_is_zero(&packet->src) || net_addr_is_multicast(&packet->src))
		return;
	if (packet->proto == PROTO_ICMP && packet->v4 && packet_has(packet, packet->at, 1) &&
	    transport[0] != ICMP4_ECHO)
		return;
	if (packet->proto == PROTO_ICMP6 && packet_has(packet, packet->at, 1) && transport[0] < 128)
		return;
	if (kind != ICMP_PORT_UNREACHABLE && kind != ICMP_PROTOCOL_UNREACHABLE)
		(void)net_source_for(net, &packet->src, &src);
	(void)send_error(net, &src, &packet->src, kind, mtu, packet->head + packet->ip_at,
			 (uint16_t)len);
}

int icmp_send_quoting(struct net *net, const struct icmp_error *error, const uint8_t transport[8])
{
	uint8_t quote[IP6_SIZE + 8] = { 0 };
	bool v4 = net_addr_is4(&error->sender.addr);
	uint16_t head = v4 ? IP4_SIZE : IP6_SIZE;
	struct net_addr from = error->from;

	if (v4 != net_addr_is4(&error->target.addr))
		return NET_EINVAL;
	if (!from.q[0] && !from.q[1] && !net_source_for(net, &error->sender.addr, &from))
		return NET_ENETUNREACH;
	if (net_addr_is4(&from) != v4)
		return NET_EINVAL;
	if (v4) {
		quote[0] = 0x45;
		put16(quote + 2, IP4_SIZE + 8);
		quote[8] = DEFAULT_HOPS;
		quote[9] = error->proto;
		__builtin_memcpy(quote + 12, error->sender.addr.b + 12, 4);
		__builtin_memcpy(quote + 16, error->target.addr.b + 12, 4);
		sum_store(quote + 10, (uint16_t)~sum_fold(sum_bytes(quote, IP4_SIZE, 0)));
	} else {
		quote[0] = 0x60;
		put16(quote + 4, 8);
		quote[6] = error->proto;
		quote[7] = DEFAULT_HOPS;
		__builtin_memcpy(quote + 8, error->sender.addr.b, 16);
		__builtin_memcpy(quote + 24, error->target.addr.b, 16);
	}
	__builtin_memcpy(quote + head, transport, 8);
	return send_error(net, &from, &error->sender.addr, error->kind, error->mtu, quote,
			  (uint16_t)(head + 8));
}

int icmp_send_error(struct net *net, const struct icmp_error *error)
{
	uint8_t transport[8] = { 0 };

	if (error->proto == PROTO_ICMP || error->proto == PROTO_ICMP6) {
		transport[0] = error->proto == PROTO_ICMP ? ICMP4_ECHO : ICMP6_ECHO;
		put16(transport + 4, error->sender.port);
		put16(transport + 6, error->target.port);
	} else {
		put16(transport, error->sender.port);
		put16(transport + 2, error->target.port);
		if (error->proto == PROTO_UDP)
			put16(transport + 4, UDP_SIZE);
	}
	return icmp_send_quoting(net, error, transport);
}
