/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses: their kinds, prefixes and text (RFC 4291, RFC 5952). */
#include "net/core.h"

bool net_addr_is_zero(const struct net_addr *addr)
{
	return net_addr_is4(addr) ? !addr->w[3] : !addr->q[0] && !addr->q[1];
}

bool net_addr_is_multicast(const struct net_addr *addr)
{
	return net_addr_is4(addr) ? addr->b[12] >> 4 == 0xe : addr->b[0] == 0xff;
}

bool net_addr_is_link_local(const struct net_addr *addr)
{
	if (net_addr_is4(addr))
		return addr->b[12] == 169 && addr->b[13] == 254;
	return addr->b[0] == 0xfe && (addr->b[1] & 0xc0) == 0x80;
}

void net_addr_cut(struct net_addr *addr, unsigned prefix)
{
	for (unsigned bit = prefix + (net_addr_is4(addr) ? 96 : 0); bit < 128; bit++)
		addr->b[bit / 8] &= (uint8_t)~(0x80u >> bit % 8);
}

bool net_addr_same_prefix(const struct net_addr *a, const struct net_addr *b, unsigned prefix)
{
	unsigned whole, rest;

	if (net_addr_is4(a) != net_addr_is4(b))
		return false;
	if (net_addr_is4(a))
		prefix += 96;
	if (prefix > 128)
		return false;
	whole = prefix / 8;
	rest = prefix % 8;
	if (__builtin_memcmp(a->b, b->b, whole))
		return false;
	return !rest || (a->b[whole] ^ b->b[whole]) >> (8 - rest) == 0;
}

bool net_addr_is_broadcast(const struct net *net, const struct net_addr *addr)
{
	uint32_t value = get32(addr->b + 12), host;

	if (!net_addr_is4(addr))
		return false;
	if (value == 0xffffffff)
		return true;
	for (unsigned i = 0; i < net->addr_count; i++) {
		if (net->addrs[i].prefix > 30 || !net_addr_same_prefix(&net->addrs[i].addr, addr,
								       net->addrs[i].prefix))
			continue;
		host = 0xffffffffu >> net->addrs[i].prefix;
		if ((value & host) == host)
			return true;
	}
	return false;
}

bool net_is_own(const struct net *net, const struct net_addr *addr)
{
	for (unsigned i = 0; i < net->addr_count; i++)
		if (net_addr_equal(&net->addrs[i].addr, addr))
			return true;
	return false;
}

bool net_on_link(const struct net *net, const struct net_addr *addr)
{
	if (net_addr_is_link_local(addr))
		return true;
	for (unsigned i = 0; i < net->addr_count; i++)
		if (net_addr_same_prefix(&net->addrs[i].addr, addr, net->addrs[i].prefix))
			return true;
	return false;
}

bool net_source_for(const struct net *net, const struct net_addr *peer, struct net_addr *ret_addr)
{
	const struct own_addr *best = NULL;
	bool v4 = net_addr_is4(peer), local = net_addr_is_link_local(peer);
	unsigned rank = 0, its;

	for (unsigned i = 0; i < net->addr_count; i++) {
		const struct own_addr *own = &net->addrs[i];

		if (net_addr_is4(&own->addr) != v4)
			continue;
		its = 1;	/* RFC 6724, 5: prefer the same scope, then the same network */
		if (net_addr_is_link_local(&own->addr) == local)
			its += 2;
		if (net_addr_same_prefix(&own->addr, peer, own->prefix))
			its += 1;
		if (its > rank) {
			rank = its;
			best = own;
		}
	}
	if (best)
		*ret_addr = best->addr;
	return best;
}

void net_link_local(const uint8_t mac[NET_MAC_SIZE], struct net_addr *ret_addr)
{
	*ret_addr = (struct net_addr){ .b = { 0xfe, 0x80, 0, 0, 0, 0, 0, 0, mac[0] ^ 2, mac[1], mac[2],
					      0xff, 0xfe, mac[3], mac[4], mac[5] } };
}

void net_group_mac(const struct net_addr *addr, uint8_t ret_mac[NET_MAC_SIZE])
{
	if (!net_addr_is4(addr)) {	/* RFC 2464, 7 */
		ret_mac[0] = ret_mac[1] = 0x33;
		__builtin_memcpy(ret_mac + 2, addr->b + 12, 4);
	} else if (net_addr_is_multicast(addr)) {	/* RFC 1112, 6.4 */
		ret_mac[0] = 0x01;
		ret_mac[1] = 0x00;
		ret_mac[2] = 0x5e;
		ret_mac[3] = addr->b[13] & 0x7f;
		ret_mac[4] = addr->b[14];
		ret_mac[5] = addr->b[15];
	} else {
		__builtin_memset(ret_mac, 0xff, NET_MAC_SIZE);
	}
}

static char *put_decimal(char *at, unsigned v)
{
	if (v >= 100)
		*at++ = (char)('0' + v / 100);
	if (v >= 10)
		*at++ = (char)('0' + v / 10 % 10);
	*at++ = (char)('0' + v % 10);
	return at;
}

static char *put_hex(char *at, unsigned v)
{
	bool begun = false;

	for (int shift = 12; shift >= 0; shift -= 4) {
		unsigned digit = v >> shift & 15;

		if (digit || begun || !shift) {
			*at++ = "0123456789abcdef"[digit];
			begun = true;
		}
	}
	return at;
}

static char *put_ip4(char *at, const uint8_t b[4])
{
	for (unsigned i = 0; i < 4; i++) {
		if (i)
			*at++ = '.';
		at = put_decimal(at, b[i]);
	}
	return at;
}

/* The longest run of at least two zero words, the first of equals (RFC 5952, 4.2). */
static void longest_zeroes(const struct net_addr *addr, int *ret_first, int *ret_count)
{
	int run = 0;

	*ret_first = -1;
	*ret_count = 1;
	for (int i = 0; i < 8; i++) {
		run = get16(addr->b + i * 2) ? 0 : run + 1;
		if (run > *ret_count) {
			*ret_count = run;
			*ret_first = i - run + 1;
		}
	}
}

void net_addr_text(const struct net_addr *addr, char text[NET_ADDR_TEXT])
{
	char *at = text;
	int first, count;

	if (net_addr_is4(addr)) {
		*put_ip4(at, addr->b + 12) = 0;
		return;
	}
	longest_zeroes(addr, &first, &count);
	for (int i = 0; i < 8; i++) {
		if (i == first) {
			*at++ = ':';
			*at++ = ':';
			i += count - 1;
			continue;
		}
		if (i && at[-1] != ':')
			*at++ = ':';
		at = put_hex(at, get16(addr->b + i * 2));
	}
	*at = 0;
}

/* Four decimal numbers; leading zeroes, which some take for octal, are refused. */
static bool parse_ip4(const char *text, uint8_t b[4])
{
	for (unsigned i = 0; i < 4; i++) {
		unsigned v = 0, digits = 0;

		for (; *text >= '0' && *text <= '9' && digits < 3; digits++)
			v = v * 10 + (unsigned)(*text++ - '0');
		if (!digits || v > 255 || (digits > 1 && text[-(int)digits] == '0'))
			return false;
		b[i] = (uint8_t)v;
		if (*text++ != (i < 3 ? '.' : 0))
			return false;
	}
	return true;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool parse_ip6(const char *text, uint8_t b[16])
{
	int words = 0, gap = -1;

	if (text[0] == ':' && *++text != ':')
		return false;
	while (*text) {
		unsigned v = 0, digits = 0;

		if (*text == ':') {
			if (gap >= 0)
				return false;
			gap = words;
			text++;
			continue;
		}
		if (words <= 6 && parse_ip4(text, b + words * 2)) {
			words += 2;
			break;
		}
		for (; hex_digit(*text) >= 0 && digits < 4; digits++)
			v = v << 4 | (unsigned)hex_digit(*text++);
		if (!digits || words == 8 || (*text && *text != ':') || (*text && !text[1]))
			return false;
		put16(b + words++ * 2, (uint16_t)v);
		if (*text == ':' && !(text[1] == ':' && !text[2]))
			text++;
		else if (*text)	/* "::" at the end */
			text++;
	}
	if (gap < 0)
		return words == 8;
	if (words > 7)
		return false;
	__builtin_memmove(b + 16 - (words - gap) * 2, b + gap * 2, (size_t)(words - gap) * 2);
	__builtin_memset(b + gap * 2, 0, (size_t)(8 - words) * 2);
	return true;
}

bool net_addr_parse(const char *text, struct net_addr *ret_addr)
{
	struct net_addr addr = { 0 };
	uint8_t ip4[4];

	if (parse_ip4(text, ip4)) {
		*ret_addr = net_addr4_from(ip4);
		return true;
	}
	if (!parse_ip6(text, addr.b))
		return false;
	*ret_addr = addr;
	return true;
}

bool net_prefix_parse(const char *text, struct net_addr *ret_addr, uint8_t *ret_prefix)
{
	char copy[NET_ADDR_TEXT];
	struct net_addr addr;
	unsigned bits = 0, most;
	size_t len = 0;

	while (text[len] && text[len] != '/' && len < sizeof(copy))
		len++;
	if (text[len] != '/' || len == sizeof(copy))
		return false;
	__builtin_memcpy(copy, text, len);
	copy[len] = 0;
	if (!net_addr_parse(copy, &addr))
		return false;
	most = net_addr_is4(&addr) ? 32 : 128;
	text += len + 1;
	do {
		if (*text < '0' || *text > '9')
			return false;
		bits = bits * 10 + (unsigned)(*text++ - '0');
	} while (*text && bits <= most);
	if (bits > most)
		return false;
	*ret_addr = addr;
	*ret_prefix = (uint8_t)bits;
	return true;
}
