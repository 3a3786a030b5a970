/* SPDX-License-Identifier: Apache-2.0 */
/* IPv4 (RFC 791, RFC 1122). */
#include "net/core.h"
#include "net/checksum.h"

#define IP4_DF 0x4000u
#define IP4_MF 0x2000u
#define IP4_OFFSET 0x1fffu	/* in units of 8 bytes */

/* RFC 1122, 3.2.1.3: addresses that nobody sends from. */
static bool source_ok(const struct net *net, const struct net_addr *src)
{
	return !net_addr_is_multicast(src) && !net_addr_is_broadcast(net, src) && src->b[12] != 127;
}

static bool is_for_us(const struct net *net, struct packet *packet)
{
	const struct net_addr *dst = &packet->dst;

	if (net_addr_is_multicast(dst) || net_addr_is_broadcast(net, dst)) {
		packet->group = true;
		return true;
	}
	if (packet->group || dst->b[12] == 127 || net_addr_is_zero(dst))
		return false;	/* unicast in a group frame: RFC 1122, 3.3.6 */
	return net->proxy || net_is_own(net, dst);
}

/* Source routes would make us send where the sender says (RFC 7126, 4.3 and 4.4: drop). */
static bool options_ok(const uint8_t *options, uint32_t len)
{
	while (len && options[0] != 0) {
		uint32_t size = options[0] == 1 ? 1 : len > 1 ? options[1] : 0;

		if (!size || size > len || (options[0] != 1 && size < 2))
			return false;
		if (options[0] == 131 || options[0] == 137)
			return false;
		options += size;
		len -= size;
	}
	return true;
}

void ip4_input(struct net *net, struct packet *packet)
{
	const uint8_t *ip = packet->head + packet->at;
	uint32_t header, total;
	uint16_t fragment;

	if (!packet_has(packet, packet->at, IP4_SIZE) || ip[0] >> 4 != 4)
		goto bad;
	header = (ip[0] & 15u) * 4;
	total = get16(ip + 2);
	if (header < IP4_SIZE || !packet_has(packet, packet->at, header) || total < header ||
	    total > packet->end - packet->at || !options_ok(ip + IP4_SIZE, header - IP4_SIZE))
		goto bad;
	if (sum_fold(sum_bytes(ip, header, 0)) != 0xffff) {
		net->stats.bad_checksum++;
		return;
	}
	packet->v4 = true;
	packet->end = packet->at + total;	/* what follows is padding of Ethernet */
	packet->src = net_addr4_from(ip + 12);
	packet->dst = net_addr4_from(ip + 16);
	packet->proto = ip[9];
	packet->hop_limit = ip[8];
	packet->traffic_class = ip[1];
	if (!source_ok(net, &packet->src))
		goto bad;
	if (!is_for_us(net, packet)) {
		net->stats.not_for_us++;
		return;
	}
	packet->at += header;
	fragment = get16(ip + 6);
	if (fragment & (IP4_MF | IP4_OFFSET))
		fragment_input(net, packet, get16(ip + 4), (fragment & IP4_OFFSET) * 8u,
			       fragment & IP4_MF);
	else
		ip_deliver(net, packet);
	return;
bad:
	net->stats.bad_ip++;
}

static void put_header(const struct out *out, uint8_t *ip, size_t total, uint16_t id,
		       uint16_t fragment)
{
	ip[0] = 0x45;
	ip[1] = out->traffic_class;
	put16(ip + 2, (uint16_t)total);
	put16(ip + 4, id);
	put16(ip + 6, fragment);
	ip[8] = out->hop_limit;
	ip[9] = out->proto;
	put16(ip + 10, 0);
	__builtin_memcpy(ip + 12, out->src.b + 12, 4);
	__builtin_memcpy(ip + 16, out->dst.b + 12, 4);
	sum_store(ip + 10, (uint16_t)~sum_fold(sum_bytes(ip, IP4_SIZE, 0)));
}

static const struct net_addr *next_hop(const struct net *net, const struct net_addr *dst)
{
	if (net->proxy || net_addr_is_multicast(dst) || net_addr_is_broadcast(net, dst) ||
	    net_on_link(net, dst))
		return dst;
	return net_addr_is4(&net->router4) && !net_addr_is_zero(&net->router4) ? &net->router4 : NULL;
}

/*
 * Sends one packet or fragment: @header_len bytes from out->room + OUT_ROOM on, then
 * @payload bytes in @spans[1...].
 */
static int send_one(struct net *net, struct out *out, const struct net_addr *hop, uint16_t id,
		    uint16_t fragment, struct net_span *spans, unsigned count, size_t payload,
		    size_t header_len)
{
	uint8_t *ip = out->room + OUT_ROOM - IP4_SIZE, *eth = ip - ETH_SIZE;
	struct net_frame frame = {
		.spans = spans, .count = count,
		.len = (uint32_t)(ETH_SIZE + IP4_SIZE + header_len + payload),
		.gso = out->gso, .gso_size = out->gso_size,
		.hdr_len = (uint16_t)(ETH_SIZE + IP4_SIZE + header_len),
		.csum_partial = out->checksum_at >= 0,
		.csum_start = ETH_SIZE + IP4_SIZE,
		.csum_offset = (uint16_t)(out->checksum_at < 0 ? 0 : out->checksum_at),
	};

	put_header(out, ip, IP4_SIZE + header_len + payload, id, fragment);
	put16(eth + 12, ETH_IP4);
	spans[0] = (struct net_span){ eth, ETH_SIZE + IP4_SIZE + header_len };
	return eth_output(net, hop, out->mac, &frame, eth);
}

static int send_fragments(struct net *net, struct out *out, const struct net_addr *hop)
{
	size_t total = out->header_len + out->len, step = (net->mtu - IP4_SIZE) & ~(size_t)7;
	struct net_span spans[1 + NET_SPANS_MAX];
	uint16_t id = ++net->ip4_id;
	int result = NET_OK;

	for (size_t at = 0; at < total && result == NET_OK; at += step) {
		size_t part = min_of(step, total - at);
		unsigned count = out_cut(out, at, part, spans);

		result = send_one(net, out, hop, id,
				  (uint16_t)(at / 8 | (at + part < total ? IP4_MF : 0)), spans, count,
				  part, 0);
	}
	return result;
}

int ip4_send(struct net *net, struct out *out)
{
	const struct net_addr *hop = next_hop(net, &out->dst);
	size_t total = IP4_SIZE + out->header_len + out->len;

	if (!hop)
		return NET_ENETUNREACH;
	if (total > net->mtu && out->gso == NET_GSO_NONE) {
		if (out->dont_fragment)
			return NET_EMSGSIZE;
		return send_fragments(net, out, hop);
	}
	/* An ID matters to fragments alone (RFC 6864, 4.1): this one cannot be fragmented. */
	return send_one(net, out, hop, 0, IP4_DF, out->spans, out->count, out->len,
			out->header_len);
}
