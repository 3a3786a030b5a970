/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a port of a named network may send: frames that say who they are from, and nothing that
 * speaks for the gateway or for other ports.
 *
 *   Ethernet  its own source address; ARP, IPv4 and IPv6 without tags
 *   ARP       its own addresses as sender, or none in a probe (RFC 5227)
 *   IPv4      its own source address; no redirects, nothing from the port of a DHCP server
 *   IPv6      its own source address or a link-local one; neighbours are advertised (RFC 4861)
 *             with its own addresses only; no redirects, router advertisements and DHCPv6 servers
 *
 * A link-local address that is made of a MAC address (RFC 4291, appendix A) must be made of its
 * own.  Frames that ask the gateway are refused as well: each guest has its own in its VM.
 */
#ifndef LINK_GUARD_H
#define LINK_GUARD_H

#include "link/link.h"
#include "net/types.h"

struct guard {
	uint8_t mac[NET_MAC_SIZE];
	struct net_addr ip4, ip6;
	uint16_t mtu;
};

enum guard_verdict {
	GUARD_PASS,
	GUARD_FORGED,	/* it claims to be somebody else */
	GUARD_REFUSED,	/* malformed, or not carried */
};

/*
 * Looks at frame @bytes, which nobody changes meanwhile.  Also checks what @hdr says about
 * checksum and segmentation against it, and clears what does not concern a receiver.
 */
enum guard_verdict guard_check(const struct guard *guard, struct virtio_net_hdr_v1 *hdr, const uint8_t *bytes,
			       uint32_t len);

#endif /* LINK_GUARD_H */
