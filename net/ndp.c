/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Neighbour discovery (RFC 4861): solicitations and advertisements, as a router
 * that answers for what is not on the link too.  A solicitation from :: probes whether
 * an address is free (RFC 4862, 5.4): it is answered only for our own.
 */
#include "net/core.h"

#define NDP_RS 133u
#define NDP_NS 135u
#define NDP_NA 136u
#define NS_SIZE 24u	/* of both messages, before the options */
#define RS_SIZE 8u
#define OPTION_SOURCE 1u
#define OPTION_TARGET 2u
#define NA_ROUTER 0x80u
#define NA_SOLICITED 0x40u
#define NA_OVERRIDE 0x20u

static const struct net_addr all_nodes = { .b = { 0xff, 2, [15] = 1 } };

/* Looks through options from @at on.  False: malformed.  *@ret_mac: of kind @kind, or NULL. */
static bool parse_options(const struct packet *packet, uint32_t at, uint8_t kind,
			  const uint8_t **ret_mac)
{
	*ret_mac = NULL;
	while (at < packet->end) {
		uint32_t size;

		if (!packet_has(packet, at, 8))
			return false;
		size = packet->head[at + 1] * 8u;
		if (!size || !packet_has(packet, at, size))
			return false;
		if (packet->head[at] == kind && size == 8)
			*ret_mac = packet->head + at + 2;
		at += size;
	}
	return true;
}

static void send(struct net *net, const struct net_addr *src, const struct net_addr *dst,
		 uint8_t type, uint8_t flags, const struct net_addr *target, const uint8_t *mac)
{
	struct out out;
	uint8_t *message = out_init(&out, src, dst, PROTO_ICMP6, NS_SIZE + 8);

	message[0] = type;
	message[4] = flags;
	__builtin_memcpy(message + 8, target->b, 16);
	message[24] = type == NDP_NS ? OPTION_SOURCE : OPTION_TARGET;
	message[25] = 1;	/* in units of 8 bytes */
	__builtin_memcpy(message + 26, net->mac, NET_MAC_SIZE);
	out.checksum_at = 2;
	out.hop_limit = 255;
	out.mac = mac;
	(void)ip_output(net, &out);
}

void ndp_solicit(struct net *net, const struct net_addr *target, const uint8_t *mac)
{
	struct net_addr group = { .b = { 0xff, 2, [11] = 1, [12] = 0xff, [13] = target->b[13],
					 [14] = target->b[14], [15] = target->b[15] } };
	struct net_addr src;

	if (net_source_for(net, target, &src))
		send(net, &src, mac ? target : &group, NDP_NS, 0, target, mac);
}

static bool answers_for(const struct net *net, const struct net_addr *src,
			const struct net_addr *target)
{
	if (net_is_own(net, target))
		return true;
	return net->proxy && !net_addr_is_zero(src) && !net_addr_is_zero(target) &&
	       !net_on_link(net, target);
}

static void solicitation(struct net *net, const struct packet *packet)
{
	const uint8_t *message = packet->head + packet->at, *mac;
	bool probe = net_addr_is_zero(&packet->src);
	struct net_addr target;
	uint8_t flags;

	if (!packet_has(packet, packet->at, NS_SIZE) ||
	    !parse_options(packet, packet->at + NS_SIZE, OPTION_SOURCE, &mac))
		goto bad;
	target = net_addr6_from(message + 8);
	if (net_addr_is_multicast(&target) || net_addr_is4(&target) || (probe && mac))
		goto bad;
	if (!answers_for(net, &packet->src, &target))
		return;
	if (mac)
		neighbour_update(net, &packet->src, mac, true);
	flags = (uint8_t)((net->proxy ? NA_ROUTER : 0) | (probe ? 0 : NA_SOLICITED) |
			  (net_is_own(net, &target) ? NA_OVERRIDE : 0));
	send(net, &target, probe ? &all_nodes : &packet->src, NDP_NA, flags, &target,
	     probe ? NULL : packet->src_mac);
	return;
bad:
	net->stats.bad_ndp++;
}

static void advertisement(struct net *net, const struct packet *packet)
{
	const uint8_t *message = packet->head + packet->at, *mac;
	struct net_addr target;

	if (!packet_has(packet, packet->at, NS_SIZE) ||
	    !parse_options(packet, packet->at + NS_SIZE, OPTION_TARGET, &mac)) {
		net->stats.bad_ndp++;
		return;
	}
	target = net_addr6_from(message + 8);
	if (net_addr_is_multicast(&target) || net_addr_is4(&target) ||
	    (packet->group && message[4] & NA_SOLICITED)) {
		net->stats.bad_ndp++;
		return;
	}
	/* An answer to a unicast probe may leave the option out (RFC 4861, 4.4). */
	neighbour_update(net, &target, mac ? mac : packet->src_mac, false);
}

void ndp_input(struct net *net, struct packet *packet, uint8_t type)
{
	const uint8_t *mac;

	if (packet->hop_limit != 255 || packet->head[packet->at + 1]) {	/* from beyond the link */
		net->stats.bad_ndp++;
		return;
	}
	if (type == NDP_NS) {
		solicitation(net, packet);
	} else if (type == NDP_NA) {
		advertisement(net, packet);
	} else if (type == NDP_RS && net->ra) {
		if (!parse_options(packet, packet->at + RS_SIZE, OPTION_SOURCE, &mac) ||
		    (mac && net_addr_is_zero(&packet->src))) {
			net->stats.bad_ndp++;
			return;
		}
		if (mac)
			neighbour_update(net, &packet->src, mac, true);
		ra_solicited(net->ra);
	}
}
