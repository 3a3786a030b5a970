/* SPDX-License-Identifier: Apache-2.0 */
/* UDP (RFC 768, RFC 1122 4.1). */
#include "net/core.h"

static struct udp_service *find_service(const struct net *net, const struct net_endpoint *to)
{
	struct udp_service *any = NULL;

	for (struct udp_service *service = net->services; service; service = service->next) {
		const struct net_endpoint *local = &service->local;

		if (local->port != to->port)
			continue;
		if (net_addr_equal(&local->addr, &to->addr))
			return service;
		if (net_addr_is_zero(&local->addr))
			any = service;
	}
	return any;
}

int udp_serve(struct net *net, struct udp_service *service)
{
	for (struct udp_service *other = net->services; other; other = other->next)
		if (other->local.port == service->local.port &&
		    net_addr_equal(&other->local.addr, &service->local.addr))
			return NET_EADDRINUSE;
	service->next = net->services;
	net->services = service;
	return NET_OK;
}

void udp_unserve(struct net *net, struct udp_service *service)
{
	struct udp_service **link = &net->services;

	while (*link && *link != service)
		link = &(*link)->next;
	if (*link)
		*link = service->next;
}

static bool deliver(struct net *net, const struct packet *packet,
		    const struct udp_datagram *datagram)
{
	struct udp_service *service = find_service(net, &datagram->to);
	bool own = packet->group || net_is_own(net, &packet->dst);

	/* A service for any address is for ours: in proxy mode 10.9.8.7:53 is somebody else. */
	if (service && (own || !net_addr_is_zero(&service->local.addr))) {
		service->input(service, net, datagram, packet->src_mac);
		return true;
	}
	if (packet->group || net_addr_is_zero(&packet->src))
		return true;	/* not for us, but no reason to complain either */
	return net->ops->udp_input && net->ops->udp_input(net->ctx, datagram);
}

void udp_input(struct net *net, struct packet *packet)
{
	const uint8_t *udp = packet->head + packet->at;
	struct net_span spans[NET_SPANS_MAX];
	struct udp_datagram datagram = { .spans = spans };
	uint32_t len;

	if (!packet_has(packet, packet->at, UDP_SIZE))
		goto bad;
	len = get16(udp + 4);
	if (len < UDP_SIZE || len > packet->end - packet->at)
		goto bad;
	packet->end = packet->at + len;
	if (!get16(udp + 6) ? !packet->v4 && !packet->frame->csum_partial :
			      !packet_checksum_ok(packet, PROTO_UDP, 6)) {
		net->stats.bad_checksum++;
		return;
	}
	net->stats.udp_in++;
	datagram.from = (struct net_endpoint){ packet->src, get16(udp) };
	datagram.to = (struct net_endpoint){ packet->dst, get16(udp + 2) };
	datagram.count = packet_spans(packet, packet->at + UDP_SIZE, packet->end, spans);
	datagram.len = len - UDP_SIZE;
	datagram.hop_limit = packet->hop_limit;
	datagram.traffic_class = packet->traffic_class;
	if (packet->frame->gso == NET_GSO_UDP && datagram.len > packet->frame->gso_size)
		datagram.gso_size = packet->frame->gso_size;
	if (!deliver(net, packet, &datagram)) {
		net->stats.udp_no_port++;
		icmp_error_about(net, packet, ICMP_PORT_UNREACHABLE, 0);
	}
	return;
bad:
	net->stats.bad_transport++;
}

static int send_one(struct net *net, const struct udp_datagram *datagram, size_t from, size_t len,
		    uint16_t gso_size)
{
	struct out out;
	uint8_t *udp = out_init(&out, &datagram->from.addr, &datagram->to.addr, PROTO_UDP, UDP_SIZE);
	int result;

	put16(udp, datagram->from.port);
	put16(udp + 2, datagram->to.port);
	put16(udp + 4, (uint16_t)(UDP_SIZE + len));
	out.checksum_at = 6;
	out.hop_limit = datagram->hop_limit;
	out.traffic_class = datagram->traffic_class;
	if (gso_size) {
		out.gso = NET_GSO_UDP;
		out.gso_size = gso_size;
	}
	out.count += spans_cut(datagram->spans, datagram->count, from, len, out.spans + 1);
	out.len = len;
	result = ip_output(net, &out);
	if (result == NET_OK)
		net->stats.udp_out++;
	return result;
}

int udp_send(struct net *net, const struct udp_datagram *datagram)
{
	bool v4 = net_addr_is4(&datagram->from.addr);
	size_t head = UDP_SIZE + (v4 ? IP4_SIZE : 0), most = UINT16_MAX - head, step;
	bool train = datagram->gso_size && datagram->len > datagram->gso_size;
	bool offload = train && net->offloads & NET_OFFLOAD_USO &&
		       datagram->gso_size + UDP_SIZE + (v4 ? IP4_SIZE : IP6_SIZE) <= net->mtu;
	int result = NET_OK;

	if (datagram->count > OUT_PAYLOAD_SPANS || (!train && datagram->len > most))
		return NET_EMSGSIZE;
	if (!train)
		return send_one(net, datagram, 0, datagram->len, 0);
	/* As many datagrams as fit into one frame, or one at a time. */
	step = offload ? most / datagram->gso_size * datagram->gso_size : datagram->gso_size;
	for (size_t at = 0; at < datagram->len && result == NET_OK; at += step) {
		size_t part = min_of(step, datagram->len - at);

		result = send_one(net, datagram, at, part,
				  offload && part > datagram->gso_size ? datagram->gso_size : 0);
	}
	return result;
}
