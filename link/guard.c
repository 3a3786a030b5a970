/* SPDX-License-Identifier: Apache-2.0 */
#include "link/guard.h"

#include "net/wire.h"

#include <string.h>

#define ARP_SIZE 28u
#define TCP_CHECKSUM 16u	/* its offset in the header */
#define EXTENSIONS_MAX 8u	/* headers of IPv6 that are followed */
#define GSO_SIZE_MIN 8u	/* of a TCP with 40 bytes of options and the smallest MSS that Linux takes, 48 */

enum { DHCP4_SERVER = 67, DHCP6_SERVER = 547 };
enum { ICMP_REDIRECTION = 5 };
enum { MLD_REPORT = 131, MLD_DONE = 132, ROUTER_SOLICIT = 133, ROUTER_ADVERT = 134, SOLICIT = 135, ADVERT = 136,
       REDIRECTION = 137, MLD2_REPORT = 143 };
enum { OPTION_SOURCE = 1, OPTION_TARGET = 2 };	/* link-layer addresses in neighbour discovery */

static bool is_zero(const uint8_t *at, size_t len)
{
	while (len && !*at)
		at++, len--;
	return len == 0;
}

/* ------------------------------------------------------------- ARP and IPv4 */

static enum guard_verdict check_arp(const struct guard *g, const uint8_t *arp, uint32_t len)
{
	static const uint8_t ethernet_ip4[] = { 0, 1, 8, 0, 6, 4 };

	if (len < ARP_SIZE || memcmp(arp, ethernet_ip4, sizeof(ethernet_ip4)) != 0)
		return GUARD_REFUSED;
	if (memcmp(arp + 8, g->mac, NET_MAC_SIZE) != 0)
		return GUARD_FORGED;
	return memcmp(arp + 14, &g->ip4.b[12], 4) == 0 || is_zero(arp + 14, 4) ? GUARD_PASS : GUARD_FORGED;
}

static enum guard_verdict check_ip4(const struct guard *g, const uint8_t *ip, uint32_t len)
{
	uint32_t head = len ? (ip[0] & 0xfu) * 4 : 0;

	if (len < IP4_SIZE || ip[0] >> 4 != 4 || head < IP4_SIZE || head > len || get16(ip + 2) < head ||
	    get16(ip + 2) > len)
		return GUARD_REFUSED;
	if (is_zero(ip + 12, 4))
		return GUARD_REFUSED;	/* DHCP */
	if (memcmp(ip + 12, &g->ip4.b[12], 4) != 0)
		return GUARD_FORGED;
	if (get16(ip + 6) & 0x1fff)
		return GUARD_PASS;	/* not the first fragment */
	if (ip[9] == PROTO_UDP && len >= head + 2 && get16(ip + head) == DHCP4_SERVER)
		return GUARD_FORGED;
	return ip[9] == PROTO_ICMP && len > head && ip[head] == ICMP_REDIRECTION ? GUARD_FORGED : GUARD_PASS;
}

/* --------------------------------------------------------------------- IPv6 */

static bool is_own6(const struct guard *g, const uint8_t *addr)
{
	const uint8_t eui64[8] = { (uint8_t)(g->mac[0] ^ 2), g->mac[1], g->mac[2], 0xff, 0xfe, g->mac[3], g->mac[4],
				   g->mac[5] };

	if (memcmp(addr, g->ip6.b, sizeof(g->ip6.b)) == 0)
		return true;
	if (addr[0] != 0xfe || (addr[1] & 0xc0) != 0x80)
		return false;
	return addr[11] != 0xff || addr[12] != 0xfe || memcmp(addr + 8, eui64, sizeof(eui64)) == 0;
}

/* Neighbour solicitation and advertisement: @icmp to the end of the frame, at least 24 bytes. */
static enum guard_verdict check_neighbour(const struct guard *g, const uint8_t *icmp, uint32_t len, bool probe)
{
	bool advert = icmp[0] == ADVERT;

	if ((advert || probe) && !is_own6(g, icmp + 8))
		return GUARD_FORGED;
	for (uint32_t at = 24; at < len;) {
		const uint8_t *option = icmp + at;
		uint32_t size = len - at >= 2 ? option[1] * 8u : 0;

		if (!size || size > len - at)
			return GUARD_REFUSED;
		if (option[0] == (advert ? OPTION_TARGET : OPTION_SOURCE) && memcmp(option + 2, g->mac, NET_MAC_SIZE) != 0)
			return GUARD_FORGED;
		at += size;
	}
	return GUARD_PASS;
}

static enum guard_verdict check_icmp6(const struct guard *g, const uint8_t *icmp, uint32_t len, bool nobody)
{
	if (len < 8)
		return GUARD_REFUSED;
	switch (icmp[0]) {
	case ROUTER_ADVERT:
	case REDIRECTION:
		return GUARD_FORGED;
	case ROUTER_SOLICIT:
		return GUARD_REFUSED;
	case SOLICIT:
	case ADVERT:
		return len < 24 ? GUARD_REFUSED : check_neighbour(g, icmp, len, nobody);
	case MLD_REPORT:
	case MLD_DONE:
	case MLD2_REPORT:
		return GUARD_PASS;
	default:
		return nobody ? GUARD_FORGED : GUARD_PASS;
	}
}

/*
 * What pads the frame behind the packet is no option of it.  A fragment of a
 * neighbour's message is taken by no receiver (RFC 6980), so that fragments need no look inside.
 */
static enum guard_verdict check_ip6(const struct guard *g, const uint8_t *ip, uint32_t len)
{
	bool nobody = len >= IP6_SIZE && is_zero(ip + 8, 16);
	uint32_t at = IP6_SIZE;
	uint8_t next;

	if (len < IP6_SIZE || ip[0] >> 4 != 6)
		return GUARD_REFUSED;
	if (!nobody && !is_own6(g, ip + 8))
		return GUARD_FORGED;
	if (IP6_SIZE + get16(ip + 4) > len)
		return GUARD_REFUSED;
	len = IP6_SIZE + get16(ip + 4);
	next = ip[6];
	for (unsigned i = 0; next == PROTO_HOPOPTS || next == PROTO_ROUTING || next == PROTO_DSTOPTS; i++) {
		if (i == EXTENSIONS_MAX || len < at + 8)
			return GUARD_REFUSED;
		next = ip[at];
		at += (ip[at + 1] + 1u) * 8;
		if (at > len)
			return GUARD_REFUSED;
	}
	if (next == PROTO_ICMP6)
		return check_icmp6(g, ip + at, len - at, nobody);
	if (next == PROTO_UDP && len >= at + 2 && get16(ip + at) == DHCP6_SERVER)
		return GUARD_FORGED;
	return nobody ? GUARD_FORGED : GUARD_PASS;
}

/* ----------------------------------------------------------------- offloads */

/* Segments are TCP without extension headers, and what is told of them is true. */
static bool check_segments(const struct guard *g, const struct virtio_net_hdr_v1 *hdr, const uint8_t *bytes,
			   uint32_t len)
{
	bool four = get16(bytes + 12) == ETH_IP4;
	uint32_t tcp = ETH_SIZE + (four ? (bytes[ETH_SIZE] & 0xfu) * 4 : IP6_SIZE), head;

	if (hdr->gso_type != (four ? VIRTIO_NET_HDR_GSO_TCPV4 : VIRTIO_NET_HDR_GSO_TCPV6) ||
	    !(hdr->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) || hdr->csum_start != tcp || hdr->csum_offset != TCP_CHECKSUM ||
	    len < tcp + TCP_SIZE || bytes[ETH_SIZE + (four ? 9 : 6)] != PROTO_TCP)
		return false;
	head = tcp + (uint32_t)(bytes[tcp + 12] >> 4) * 4;
	return head >= tcp + TCP_SIZE && head <= len && hdr->gso_size >= GSO_SIZE_MIN &&
	       head + hdr->gso_size <= ETH_SIZE + g->mtu;
}

static bool check_offloads(const struct guard *g, struct virtio_net_hdr_v1 *hdr, const uint8_t *bytes, uint32_t len)
{
	hdr->flags &= VIRTIO_NET_HDR_F_NEEDS_CSUM;
	hdr->gso_type &= (uint8_t)~VIRTIO_NET_HDR_GSO_ECN;
	hdr->num_buffers = 0;
	if (hdr->flags && (hdr->csum_start < ETH_SIZE + IP4_SIZE ||
			   (uint32_t)hdr->csum_start + hdr->csum_offset + 2 > len || get16(bytes + 12) == ETH_ARP))
		return false;
	if (!hdr->flags)
		hdr->csum_start = hdr->csum_offset = 0;
	if (hdr->gso_type == VIRTIO_NET_HDR_GSO_NONE) {
		hdr->gso_size = hdr->hdr_len = 0;
		return len <= ETH_SIZE + g->mtu;
	}
	if (!check_segments(g, hdr, bytes, len))
		return false;
	hdr->hdr_len = (uint16_t)(hdr->csum_start + (bytes[hdr->csum_start + 12] >> 4) * 4);
	return true;
}

enum guard_verdict guard_check(const struct guard *g, struct virtio_net_hdr_v1 *hdr, const uint8_t *bytes,
			       uint32_t len)
{
	enum guard_verdict verdict;

	if (len < ETH_SIZE)
		return GUARD_REFUSED;
	if (memcmp(bytes + NET_MAC_SIZE, g->mac, NET_MAC_SIZE) != 0)
		return GUARD_FORGED;
	switch (get16(bytes + 12)) {
	case ETH_ARP:
		verdict = check_arp(g, bytes + ETH_SIZE, len - ETH_SIZE);
		break;
	case ETH_IP4:
		verdict = check_ip4(g, bytes + ETH_SIZE, len - ETH_SIZE);
		break;
	case ETH_IP6:
		verdict = check_ip6(g, bytes + ETH_SIZE, len - ETH_SIZE);
		break;
	default:
		return GUARD_REFUSED;
	}
	return verdict != GUARD_PASS || check_offloads(g, hdr, bytes, len) ? verdict : GUARD_REFUSED;
}
