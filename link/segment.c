/* SPDX-License-Identifier: Apache-2.0 */
#include "link/segment.h"

#include "net/checksum.h"
#include "net/wire.h"

#include <string.h>

#define TCP_SEQUENCE 4u	/* offsets in the header */
#define TCP_FLAGS 13u
#define TCP_CHECKSUM 16u

enum { FIN = 1, PSH = 8, CWR = 0x80 };

static void finish_checksum(const struct virtio_net_hdr_v1 *hdr, uint8_t *bytes, uint32_t len)
{
	/* The field holds the sum of the pseudo header (VIRTIO 1.2, 5.1.6.2). */
	uint16_t result = (uint16_t)~sum_fold(sum_bytes(bytes + hdr->csum_start, len - hdr->csum_start, 0));

	/* 0 means "none" to UDP (RFC 768), and to TCP it is as good as this. */
	sum_store(bytes + hdr->csum_start + hdr->csum_offset, result ? result : 0xffff);
}

static bool takes(const struct virtio_net_hdr_v1 *hdr, unsigned offloads)
{
	switch (hdr->gso_type) {
	case VIRTIO_NET_HDR_GSO_TCPV4: return offloads & LINK_TSO4;
	case VIRTIO_NET_HDR_GSO_TCPV6: return offloads & LINK_TSO6;
	default: return true;
	}
}

void segments_begin(struct segments *s, const struct virtio_net_hdr_v1 *hdr, uint8_t *bytes, uint32_t len,
		    unsigned offloads)
{
	s->hdr = *hdr;
	s->bytes = bytes;
	s->len = len;
	s->count = 1;
	s->head = 0;
	if (takes(hdr, offloads) && (offloads & LINK_CSUM || !(hdr->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM)))
		return;
	s->hdr = (struct virtio_net_hdr_v1){ 0 };
	if (takes(hdr, offloads)) {
		finish_checksum(hdr, bytes, len);
		return;
	}
	s->tcp = hdr->csum_start;
	s->head = hdr->hdr_len;
	s->hdr.gso_size = hdr->gso_size;	/* until it is cut */
	if (len > s->head)
		s->count = (len - s->head + hdr->gso_size - 1) / hdr->gso_size;
}

/* The headers of segment @i, whose payload begins @at bytes after the first. */
static void fix_headers(struct segments *s, unsigned i, uint32_t at, uint32_t len)
{
	uint8_t *ip = s->frame + ETH_SIZE, *tcp = s->frame + s->tcp;
	bool four = ip[0] >> 4 == 4;
	struct net_addr src = four ? net_addr4_from(ip + 12) : net_addr6_from(ip + 8);
	struct net_addr dst = four ? net_addr4_from(ip + 16) : net_addr6_from(ip + 24);
	uint64_t sum = sum_pseudo(&src, &dst, PROTO_TCP, len - s->tcp);

	if (four) {
		put16(ip + 2, (uint16_t)(len - ETH_SIZE));
		put16(ip + 4, (uint16_t)(get16(ip + 4) + i));
		put16(ip + 10, 0);
		sum_store(ip + 10, (uint16_t)~sum_fold(sum_bytes(ip, s->tcp - ETH_SIZE, 0)));
	} else {
		put16(ip + 4, (uint16_t)(len - s->tcp));
	}
	put32(tcp + TCP_SEQUENCE, get32(tcp + TCP_SEQUENCE) + at);
	if (i + 1 < s->count)
		tcp[TCP_FLAGS] &= (uint8_t)~(FIN | PSH);
	if (i)
		tcp[TCP_FLAGS] &= (uint8_t)~CWR;	/* RFC 3168, 6.1.2: once is enough */
	put16(tcp + TCP_CHECKSUM, 0);
	sum_store(tcp + TCP_CHECKSUM, (uint16_t)~sum_fold(sum_bytes(tcp, len - s->tcp, sum)));
}

void segments_get(struct segments *s, unsigned i, struct link_frame *ret_frame, struct iovec *ret_iov)
{
	uint32_t size = s->hdr.gso_size, at = i * size, len;

	*ret_iov = (struct iovec){ s->bytes, s->len };
	*ret_frame = (struct link_frame){ .hdr = s->hdr, .iov = ret_iov, .niov = 1, .len = s->len };
	if (!s->head)
		return;
	len = s->len - s->head - at < size ? s->len - s->head - at : size;
	memcpy(s->frame, s->bytes, s->head);
	memcpy(s->frame + s->head, s->bytes + s->head + at, len);
	fix_headers(s, i, at, s->head + len);
	*ret_iov = (struct iovec){ s->frame, s->head + len };
	ret_frame->hdr = (struct virtio_net_hdr_v1){ 0 };
	ret_frame->len = s->head + len;
}
