/* SPDX-License-Identifier: Apache-2.0 */
/* IPv6 (RFC 8200). */
#include "net/core.h"
#include "net/checksum.h"

#define EXTENSIONS_MAX 8u	/* headers in a packet that we follow */

static bool group_is_ours(const struct net *net, const struct net_addr *dst)
{
	static const uint8_t solicited[13] = { 0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff };

	if (__builtin_memcmp(dst->b, solicited, sizeof(solicited)))
		return true;	/* few and rare: who does not want it does not listen */
	for (unsigned i = 0; i < net->addr_count; i++)
		if (!__builtin_memcmp(net->addrs[i].addr.b + 13, dst->b + 13, 3))
			return true;
	return net->proxy;
}

static bool is_for_us(const struct net *net, struct packet *packet)
{
	const struct net_addr *dst = &packet->dst;

	if (net_addr_is_multicast(dst)) {
		packet->group = true;
		return group_is_ours(net, dst);
	}
	if (packet->group || net_addr_is_zero(dst) || net_addr_is4(dst))
		return false;
	if (net_is_own(net, dst))
		return true;
	return net->proxy && !net_addr_is_link_local(dst);
}

/* One options header: true unless an option we do not know says that the packet be dropped. */
static bool options_ok(const uint8_t *option, uint32_t len)
{
	while (len) {
		if (option[0] == 0) {	/* Pad1 */
			option++;
			len--;
			continue;
		}
		if (len < 2 || option[1] + 2u > len)
			return false;
		if (option[0] != 1 && option[0] != 5 && option[0] >> 6)	/* RFC 8200, 4.2 */
			return false;
		len -= option[1] + 2u;
		option += option[1] + 2u;
	}
	return true;
}

/* Moves packet->at over one header.  Returns false when the packet is to be dropped. */
static bool skip_extension(struct packet *packet)
{
	const uint8_t *header = packet->head + packet->at;
	uint32_t size;

	if (!packet_has(packet, packet->at, 8))
		return false;
	size = (header[1] + 1u) * 8;
	if (!packet_has(packet, packet->at, size))
		return false;
	if (packet->proto == PROTO_ROUTING && header[3])
		return false;	/* segments left, and we route for nobody (RFC 8200, 4.4) */
	if (packet->proto != PROTO_ROUTING && !options_ok(header + 2, size - 2))
		return false;
	packet->proto = header[0];
	packet->at += size;
	return true;
}

static bool take_fragment(struct net *net, struct packet *packet)
{
	const uint8_t *header = packet->head + packet->at;
	uint16_t field;

	if (!packet_has(packet, packet->at, IP6_FRAGMENT_SIZE))
		return false;
	field = get16(header + 2);
	packet->proto = header[0];
	packet->at += IP6_FRAGMENT_SIZE;
	fragment_input(net, packet, get32(header + 4), field & 0xfff8u, field & 1);
	return true;
}

/* Follows the extension headers up to a transport. */
void ip6_walk(struct net *net, struct packet *packet)
{
	for (unsigned left = EXTENSIONS_MAX; left; left--) {
		switch (packet->proto) {
		case PROTO_HOPOPTS:
		case PROTO_ROUTING:
		case PROTO_DSTOPTS:
			if (!skip_extension(packet)) {
				net->stats.bad_ip++;
				return;
			}
			break;
		case PROTO_FRAGMENT:
			if (packet->reassembled || !take_fragment(net, packet))
				net->stats.bad_ip++;
			return;
		default:
			ip_deliver(net, packet);
			return;
		}
	}
	net->stats.bad_ip++;
}

void ip6_input(struct net *net, struct packet *packet)
{
	const uint8_t *ip = packet->head + packet->at;
	uint32_t payload;

	if (!packet_has(packet, packet->at, IP6_SIZE) || ip[0] >> 4 != 6)
		goto bad;
	payload = get16(ip + 4);
	if (payload > packet->end - packet->at - IP6_SIZE)
		goto bad;
	packet->end = packet->at + IP6_SIZE + payload;
	packet->src = net_addr6_from(ip + 8);
	packet->dst = net_addr6_from(ip + 24);
	packet->proto = ip[6];
	packet->hop_limit = ip[7];
	packet->traffic_class = (uint8_t)(get16(ip) >> 4);
	/* Mapped IPv4 addresses must not come from the wire: they would be taken for IPv4. */
	if (net_addr_is_multicast(&packet->src) || net_addr_is4(&packet->src) ||
	    net_addr_is4(&packet->dst))
		goto bad;
	if (!is_for_us(net, packet)) {
		net->stats.not_for_us++;
		return;
	}
	packet->at += IP6_SIZE;
	ip6_walk(net, packet);
	return;
bad:
	net->stats.bad_ip++;
}

static void put_header(const struct out *out, uint8_t *ip, size_t payload, uint8_t next)
{
	put32(ip, 6u << 28 | (uint32_t)out->traffic_class << 20);
	put16(ip + 4, (uint16_t)payload);
	ip[6] = next;
	ip[7] = out->hop_limit;
	__builtin_memcpy(ip + 8, out->src.b, 16);
	__builtin_memcpy(ip + 24, out->dst.b, 16);
}

static const struct net_addr *next_hop(const struct net *net, const struct net_addr *dst)
{
	if (net->proxy || net_addr_is_multicast(dst) || net_on_link(net, dst))
		return dst;
	return net_addr_is_zero(&net->router6) ? NULL : &net->router6;
}

/* Sends @head bytes from @ip on, then @payload bytes in @spans[1...]. */
static int send_one(struct net *net, struct out *out, const struct net_addr *hop, uint8_t *ip,
		    struct net_span *spans, unsigned count, size_t head, size_t payload)
{
	uint8_t *eth = ip - ETH_SIZE;
	struct net_frame frame = {
		.spans = spans, .count = count, .len = (uint32_t)(ETH_SIZE + head + payload),
		.gso = out->gso, .gso_size = out->gso_size,
		.hdr_len = (uint16_t)(ETH_SIZE + head),
		.csum_partial = out->checksum_at >= 0,
		.csum_start = ETH_SIZE + IP6_SIZE,
		.csum_offset = (uint16_t)(out->checksum_at < 0 ? 0 : out->checksum_at),
	};

	put16(eth + 12, ETH_IP6);
	spans[0] = (struct net_span){ eth, ETH_SIZE + head };
	return eth_output(net, hop, out->mac, &frame, eth);
}

static int send_fragments(struct net *net, struct out *out, const struct net_addr *hop)
{
	const size_t head = IP6_SIZE + IP6_FRAGMENT_SIZE;
	size_t total = out->header_len + out->len, step = (net->mtu - head) & ~(size_t)7;
	struct net_span spans[1 + NET_SPANS_MAX];
	uint8_t *ip = out->room + OUT_ROOM - head, *fragment = ip + IP6_SIZE;
	uint32_t id = ++net->ip6_id;
	int result = NET_OK;

	for (size_t at = 0; at < total && result == NET_OK; at += step) {
		size_t part = min_of(step, total - at);
		unsigned count = out_cut(out, at, part, spans);

		put_header(out, ip, IP6_FRAGMENT_SIZE + part, PROTO_FRAGMENT);
		fragment[0] = out->proto;
		fragment[1] = 0;
		put16(fragment + 2, (uint16_t)(at | (at + part < total)));
		put32(fragment + 4, id);
		result = send_one(net, out, hop, ip, spans, count, head, part);
	}
	return result;
}

int ip6_send(struct net *net, struct out *out)
{
	const struct net_addr *hop = next_hop(net, &out->dst);
	size_t payload = out->header_len + out->len;
	uint8_t *ip = out->room + OUT_ROOM - IP6_SIZE;

	if (!hop)
		return NET_ENETUNREACH;
	if (IP6_SIZE + payload > net->mtu && out->gso == NET_GSO_NONE) {
		if (out->dont_fragment)
			return NET_EMSGSIZE;
		return send_fragments(net, out, hop);
	}
	put_header(out, ip, payload, out->proto);
	return send_one(net, out, hop, ip, out->spans, out->count, IP6_SIZE + out->header_len,
			out->len);
}
