/* SPDX-License-Identifier: Apache-2.0 */
/* What IPv4 and IPv6 share: delivery to the transports, and the way out. */
#include "net/core.h"
#include "net/checksum.h"

void ip_deliver(struct net *net, struct packet *packet)
{
	if (net->proxy && !packet->reassembled)
		neighbour_learn(net, &packet->src, packet->src_mac);
	switch (packet->proto) {
	case PROTO_TCP:
		if (packet->group)	/* RFC 9293, 3.9.2.3 */
			net->stats.not_for_us++;
		else
			tcp_input(net, packet);
		return;
	case PROTO_UDP:
		udp_input(net, packet);
		return;
	case PROTO_ICMP:
		if (packet->v4)
			icmp4_input(net, packet);
		return;
	case PROTO_ICMP6:
		if (!packet->v4)
			icmp6_input(net, packet);
		return;
	case PROTO_NONE:
		return;
	default:
		icmp_error_about(net, packet, ICMP_PROTOCOL_UNREACHABLE, 0);
	}
}

uint8_t *out_init(struct out *out, const struct net_addr *src, const struct net_addr *dst,
		  uint8_t proto, uint16_t header_len)
{
	out->src = *src;
	out->dst = *dst;
	out->proto = proto;
	out->hop_limit = 0;
	out->traffic_class = 0;
	out->dont_fragment = false;
	out->gso = NET_GSO_NONE;
	out->gso_size = 0;
	out->header_len = header_len;
	out->checksum_at = -1;
	out->mac = NULL;
	out->count = 1;
	out->len = 0;
	__builtin_memset(out->room + OUT_ROOM, 0, header_len);
	return out->room + OUT_ROOM;
}

unsigned out_cut(struct out *out, size_t from, size_t len, struct net_span *spans)
{
	out->spans[0] = (struct net_span){ out->room + OUT_ROOM, out->header_len };
	return 1 + spans_cut(out->spans, out->count, from, len, spans + 1);
}

/* The sum in the header: complete, or of the pseudo header alone where the peer does the rest. */
static void put_checksum(const struct net *net, struct out *out, bool whole)
{
	uint8_t *header = out->room + OUT_ROOM;
	uint64_t sum = 0;

	if (out->proto != PROTO_ICMP)
		sum = sum_pseudo(&out->src, &out->dst, out->proto,
				 (uint32_t)(out->header_len + out->len));
	if (!whole) {
		sum_store(header + out->checksum_at, sum_fold(sum));
		return;
	}
	sum_store(header + out->checksum_at, 0);
	out->spans[0] = (struct net_span){ header, out->header_len };
	sum = (uint16_t)~sum_fold(sum_spans(out->spans, out->count, sum));
	if (!sum && out->proto == PROTO_UDP)	/* RFC 768: 0 means there is none */
		sum = 0xffff;
	sum_store(header + out->checksum_at, (uint16_t)sum);
}

int ip_output(struct net *net, struct out *out)
{
	bool v4 = net_addr_is4(&out->src);
	size_t total = (v4 ? IP4_SIZE : IP6_SIZE) + out->header_len + out->len;
	bool partial = out->gso != NET_GSO_NONE ||
		       (net->offloads & NET_OFFLOAD_CSUM && total <= net->mtu &&
			(out->proto == PROTO_TCP || out->proto == PROTO_UDP));

	if (v4 != net_addr_is4(&out->dst))
		return NET_EINVAL;
	if (total - (v4 ? 0 : IP6_SIZE) > UINT16_MAX || out->count > NET_SPANS_MAX)
		return NET_EMSGSIZE;
	if (out->checksum_at >= 0)
		put_checksum(net, out, !partial);
	if (!partial)
		out->checksum_at = -1;
	if (!out->hop_limit)
		out->hop_limit = DEFAULT_HOPS;
	return v4 ? ip4_send(net, out) : ip6_send(net, out);
}
