/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reassembly for IPv4 and IPv6.
 *
 * Fragments are copied and kept in order.  One that overlaps another spoils the whole
 * packet (RFC 5722; IPv4 is treated alike, since an overlap is an attack there
 * too); the very same one again is ignored.  Memory is bounded: the packet begun
 * first makes room.
 */
#include "net/core.h"

#define PIECES_MAX 256u	/* of a packet */
#define PACKETS_MAX 256u	/* at a time: the list of them is searched */
#define TIMEOUT4 (30 * SECOND)
#define TIMEOUT6 (60 * SECOND)	/* RFC 8200, 4.5 */

struct piece {
	struct piece *next;
	uint32_t offset, len;	/* bytes */
	uint8_t bytes[];
};

struct reassembly {
	struct reassembly *prev, *next;
	struct net_addr src, dst;
	uint32_t id;
	uint32_t total;	/* bytes of payload; 0: the last fragment has not come */
	uint32_t have;	/* bytes */
	uint32_t count;	/* of pieces */
	struct piece *pieces;	/* by offset, without overlap */
	struct timer timer;
	uint8_t src_mac[NET_MAC_SIZE];
	uint8_t proto, hop_limit, traffic_class;
	bool v4, group;
};

static void *frag_alloc(struct net *net, size_t size)
{
	void *ptr = net_alloc(net, size);

	if (ptr)
		net->frag_bytes += size;
	return ptr;
}

static void frag_free(struct net *net, void *ptr, size_t size)
{
	net->frag_bytes -= size;
	net_free(net, ptr, size);
}

static void discard(struct net *net, struct reassembly *whole)
{
	struct piece *next;

	for (struct piece *piece = whole->pieces; piece; piece = next) {
		next = piece->next;
		frag_free(net, piece, sizeof(*piece) + piece->len);
	}
	*(whole->prev ? &whole->prev->next : &net->frag_first) = whole->next;
	*(whole->next ? &whole->next->prev : &net->frag_last) = whole->prev;
	timer_finish(net, &whole->timer);
	net->frag_count--;
	frag_free(net, whole, sizeof(*whole));
}

static void drop(struct net *net, struct reassembly *whole)
{
	net->stats.fragments_dropped += whole->count;
	discard(net, whole);
}

void fragment_destroy(struct net *net)
{
	while (net->frag_first)
		discard(net, net->frag_first);
}

/* The headers that the packet would have had, then its payload; into @buf.  Returns the head's size. */
static uint32_t build(const struct reassembly *whole, uint8_t *buf)
{
	uint32_t head = ETH_SIZE + (whole->v4 ? IP4_SIZE : IP6_SIZE);
	uint8_t *ip = buf + ETH_SIZE;

	__builtin_memset(buf, 0, head);
	if (whole->v4) {
		ip[0] = 0x45;
		put16(ip + 2, (uint16_t)min_of(whole->total + IP4_SIZE, UINT16_MAX));
		ip[8] = whole->hop_limit;
		ip[9] = whole->proto;
		__builtin_memcpy(ip + 12, whole->src.b + 12, 4);
		__builtin_memcpy(ip + 16, whole->dst.b + 12, 4);
	} else {
		ip[0] = 0x60;
		put16(ip + 4, (uint16_t)whole->total);
		ip[6] = whole->proto;
		ip[7] = whole->hop_limit;
		__builtin_memcpy(ip + 8, whole->src.b, 16);
		__builtin_memcpy(ip + 24, whole->dst.b, 16);
	}
	for (const struct piece *piece = whole->pieces; piece; piece = piece->next)
		__builtin_memcpy(buf + head + piece->offset, piece->bytes, piece->len);
	return head;
}

static void as_packet(const struct reassembly *whole, const struct net_frame *frame,
		      const uint8_t *buf, uint32_t head, struct packet *ret_packet)
{
	*ret_packet = (struct packet){
		.frame = frame, .head = buf, .head_len = min_of(frame->len, HEAD_MAX), .at = head,
		.ip_at = ETH_SIZE, .end = frame->len, .v4 = whole->v4, .group = whole->group,
		.reassembled = true, .src = whole->src, .dst = whole->dst, .proto = whole->proto,
		.hop_limit = whole->hop_limit, .traffic_class = whole->traffic_class,
	};
	__builtin_memcpy(ret_packet->src_mac, whole->src_mac, NET_MAC_SIZE);
}

static void complete(struct net *net, struct reassembly *whole)
{
	size_t size = ETH_SIZE + IP6_SIZE + whole->total;
	uint8_t *buf = net_alloc(net, size);
	struct net_span span = { buf, 0 };
	struct net_frame frame = { .spans = &span, .count = 1 };
	struct packet packet;
	uint32_t head;

	if (!buf) {
		drop(net, whole);
		return;
	}
	head = build(whole, buf);
	frame.len = head + whole->total;
	span.len = frame.len;
	as_packet(whole, &frame, buf, head, &packet);
	discard(net, whole);
	net->stats.reassembled++;
	if (packet.v4)
		ip_deliver(net, &packet);
	else
		ip6_walk(net, &packet);
	net_free(net, buf, size);
}

/* RFC 792 and RFC 4443, 3.3: the sender is told when at least the first fragment came. */
static void expired(struct net *net, struct timer *timer)
{
	struct reassembly *whole = container_of(timer, struct reassembly, timer);
	uint8_t buf[HEAD_MAX];
	struct net_span span = { buf, 0 };
	struct net_frame frame = { .spans = &span, .count = 1 };
	struct packet packet;
	uint32_t head;

	if (whole->pieces && !whole->pieces->offset && whole->pieces->len >= 8) {
		struct reassembly brief = *whole;
		uint32_t first;

		brief.pieces = NULL;
		head = build(&brief, buf);
		first = min_of(whole->pieces->len, HEAD_MAX - head);
		__builtin_memcpy(buf + head, whole->pieces->bytes, first);
		frame.len = head + first;
		span.len = frame.len;
		as_packet(whole, &frame, buf, head, &packet);
		icmp_error_about(net, &packet, ICMP_REASSEMBLY_EXCEEDED, 0);
	}
	drop(net, whole);
}

static struct reassembly *find(struct net *net, const struct packet *packet, uint32_t id)
{
	struct reassembly *whole = net->frag_first;

	while (whole && (whole->id != id || whole->v4 != packet->v4 ||
			 (whole->v4 && whole->proto != packet->proto) ||
			 !net_addr_equal(&whole->src, &packet->src) ||
			 !net_addr_equal(&whole->dst, &packet->dst)))
		whole = whole->next;
	return whole;
}

static struct reassembly *begin(struct net *net, const struct packet *packet, uint32_t id)
{
	struct reassembly *whole;

	if (net->frag_count == PACKETS_MAX)
		drop(net, net->frag_first);
	whole = frag_alloc(net, sizeof(*whole));
	if (!whole)
		return NULL;
	*whole = (struct reassembly){ .src = packet->src, .dst = packet->dst, .id = id,
				      .v4 = packet->v4, .group = packet->group,
				      .proto = packet->proto };
	if (!timer_init(net, &whole->timer, expired)) {
		frag_free(net, whole, sizeof(*whole));
		return NULL;
	}
	timer_set(net, &whole->timer, net->now + (whole->v4 ? TIMEOUT4 : TIMEOUT6));
	whole->prev = net->frag_last;
	*(whole->prev ? &whole->prev->next : &net->frag_first) = whole;
	net->frag_last = whole;
	net->frag_count++;
	return whole;
}

enum placed { PLACED, SAME_AGAIN, BAD_PIECE };

static enum placed add_piece(struct net *net, struct reassembly *whole, const struct packet *packet,
			     uint32_t offset)
{
	uint32_t len = packet->end - packet->at;
	struct piece **link = &whole->pieces, *piece;

	while (*link && (*link)->offset + (*link)->len <= offset)
		link = &(*link)->next;
	if (*link && (*link)->offset < offset + len)
		return (*link)->offset == offset && (*link)->len == len ? SAME_AGAIN : BAD_PIECE;
	if (whole->count == PIECES_MAX)
		return BAD_PIECE;
	piece = frag_alloc(net, sizeof(*piece) + len);
	if (!piece)
		return BAD_PIECE;
	piece->next = *link;
	piece->offset = offset;
	piece->len = len;
	packet_copy(packet, packet->at, len, piece->bytes);
	*link = piece;
	whole->have += len;
	whole->count++;
	return PLACED;
}

/* What the end of the packet is must not change, and nothing may lie behind it. */
static bool end_ok(struct reassembly *whole, uint32_t end, bool more)
{
	const struct piece *last = whole->pieces;

	if (whole->total)
		return more ? end <= whole->total : end == whole->total;
	if (more)
		return true;
	while (last && last->next)
		last = last->next;
	if (last && last->offset + last->len > end)
		return false;
	whole->total = end;
	return true;
}

static bool sane(const struct packet *packet, uint32_t offset, bool more)
{
	uint32_t len = packet->end - packet->at, head = packet->v4 ? IP4_SIZE : 0;

	return len && !(more && len % 8) && offset + len + head <= UINT16_MAX;
}

void fragment_input(struct net *net, struct packet *packet, uint32_t id, uint32_t offset, bool more)
{
	uint32_t len = packet->end - packet->at;
	size_t need = sizeof(struct reassembly) + sizeof(struct piece) + len;
	struct reassembly *whole;

	net->stats.fragments_in++;
	if (!packet->v4 && !offset && !more) {	/* it stands alone (RFC 6946) */
		packet->reassembled = true;	/* and must not contain another fragment header */
		ip6_walk(net, packet);
		return;
	}
	if (!sane(packet, offset, more)) {
		net->stats.fragments_dropped++;
		return;
	}
	while (net->frag_first && net->frag_bytes + need > net->limits.fragments)
		drop(net, net->frag_first);
	whole = find(net, packet, id);
	if (!whole)
		whole = begin(net, packet, id);
	if (!whole) {
		net->stats.fragments_dropped++;
		return;
	}
	if (!offset) {
		whole->proto = packet->proto;
		whole->hop_limit = packet->hop_limit;
		whole->traffic_class = packet->traffic_class;
		__builtin_memcpy(whole->src_mac, packet->src_mac, NET_MAC_SIZE);
	}
	if (!end_ok(whole, offset + len, more) ||
	    add_piece(net, whole, packet, offset) == BAD_PIECE) {
		net->stats.fragments_dropped++;
		drop(net, whole);
		return;
	}
	if (whole->total && whole->have == whole->total)
		complete(net, whole);
}
