/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ARP for IPv4 on Ethernet (RFC 826; probes RFC 5227).  A proxy
 * answers for all that is not on the link (RFC 1027), but never for an address that
 * someone on the link probes for itself.
 */
#include "net/core.h"

#define ARP_SIZE 28u	/* with Ethernet and IPv4 addresses */
#define ARP_REQUEST 1u
#define ARP_REPLY 2u

static void arp_send(struct net *net, uint16_t op, const uint8_t *eth_dst, const uint8_t *target_mac,
		     const uint8_t *sender_ip, const uint8_t *target_ip)
{
	uint8_t buf[ETH_SIZE + ARP_SIZE] = { 0 };
	uint8_t *arp = buf + ETH_SIZE;
	struct net_span span = { buf, sizeof(buf) };
	struct net_frame frame = { .spans = &span, .count = 1, .len = sizeof(buf) };

	__builtin_memcpy(buf, eth_dst, NET_MAC_SIZE);
	__builtin_memcpy(buf + NET_MAC_SIZE, net->mac, NET_MAC_SIZE);
	put16(buf + 12, ETH_ARP);
	put16(arp, 1);	/* Ethernet */
	put16(arp + 2, ETH_IP4);
	arp[4] = NET_MAC_SIZE;
	arp[5] = 4;
	put16(arp + 6, op);
	__builtin_memcpy(arp + 8, net->mac, NET_MAC_SIZE);
	__builtin_memcpy(arp + 14, sender_ip, 4);
	if (target_mac)
		__builtin_memcpy(arp + 18, target_mac, NET_MAC_SIZE);
	__builtin_memcpy(arp + 24, target_ip, 4);
	(void)eth_transmit(net, &frame);
}

static const uint8_t broadcast[NET_MAC_SIZE] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };

void arp_request(struct net *net, const struct net_addr *target, const uint8_t *mac)
{
	struct net_addr source = net_addr4(0, 0, 0, 0);

	(void)net_source_for(net, target, &source);
	arp_send(net, ARP_REQUEST, mac ? mac : broadcast, NULL, source.b + 12, target->b + 12);
}

static bool answers_for(const struct net *net, const struct net_addr *sender,
			const struct net_addr *target)
{
	if (net_is_own(net, target))
		return true;
	return net->proxy && !net_addr_is_zero(sender) && !net_addr_equal(sender, target) &&
	       !net_addr_is_zero(target) && !net_addr_is_multicast(target) &&
	       !net_on_link(net, target);
}

void arp_input(struct net *net, struct packet *packet)
{
	const uint8_t *arp = packet->head + packet->at;
	struct net_addr sender, target;

	if (!packet_has(packet, packet->at, ARP_SIZE) || get16(arp) != 1 ||
	    get16(arp + 2) != ETH_IP4 || arp[4] != NET_MAC_SIZE || arp[5] != 4) {
		net->stats.bad_arp++;
		return;
	}
	sender = net_addr4_from(arp + 14);
	target = net_addr4_from(arp + 24);
	neighbour_update(net, &sender, arp + 8, net_is_own(net, &target));
	if (get16(arp + 6) == ARP_REQUEST && answers_for(net, &sender, &target))
		arp_send(net, ARP_REPLY, arp + 8, arp + 8, target.b + 12, sender.b + 12);
}
