/* SPDX-License-Identifier: Apache-2.0 */
#include "net_fuzz.h"
#include "net/checksum.h"

struct fuzz_peer peer;

const uint8_t our_mac[NET_MAC_SIZE] = { 2, 0, 0, 0, 0, 1 };
static const uint8_t peer_mac[NET_MAC_SIZE] = { 2, 0, 0, 0, 0, 2 };

static void *peer_alloc(void *ctx, size_t size)
{
	void *ptr;

	if (peer.fail_in && !--peer.fail_in)
		return NULL;
	ptr = malloc(size);
	want(ptr);
	memset(ptr, 0xa5, size);
	peer.memory += size;
	return ptr;
}

static void peer_free(void *ctx, void *ptr, size_t size)
{
	peer.memory -= size;
	free(ptr);
}

/* The same numbers each time, so that a run can be had again. */
static void peer_random(void *ctx, void *buf, size_t len)
{
	for (size_t i = 0; i < len; i++)
		((uint8_t *)buf)[i] = (uint8_t)((peer.random = peer.random * 1103515245 + 12345) >> 16);
}

/* Where the checksum of a transport header is; 0: none that is checked. */
static unsigned checksum_at(uint8_t proto)
{
	return proto == PROTO_TCP ? 16 : proto == PROTO_UDP ? 6 : proto == PROTO_ICMP6 ? 2 : 0;
}

static void check_transport(const struct net_frame *frame, const uint8_t *at, size_t len, uint8_t proto,
			    const struct net_addr *src, const struct net_addr *dst)
{
	uint64_t sum = proto == PROTO_ICMP ? 0 : sum_pseudo(src, dst, proto, (uint32_t)len);

	if (frame->csum_partial) {
		want(peer.offloads & NET_OFFLOAD_CSUM);
		want(proto == PROTO_TCP || proto == PROTO_UDP);
		want(frame->csum_offset == checksum_at(proto));
	} else if (proto == PROTO_ICMP || checksum_at(proto)) {
		want(sum_fold(sum_bytes(at, len, sum)) == 0xffff);
	}
	want(frame->gso != NET_GSO_TCP4 || peer.offloads & NET_OFFLOAD_TSO4);
	want(frame->gso != NET_GSO_TCP6 || peer.offloads & NET_OFFLOAD_TSO6);
	want(frame->gso != NET_GSO_UDP || peer.offloads & NET_OFFLOAD_USO);
	want(!frame->gso || (frame->csum_partial && frame->gso_size));
}

static void check_sent(const struct net_frame *frame, const uint8_t *bytes)
{
	const uint8_t *ip = bytes + ETH_SIZE;
	size_t len = frame->len - ETH_SIZE;
	struct net_addr src, dst;

	want(frame->len >= ETH_SIZE && !memcmp(bytes + 6, our_mac, 6));
	if (get16(bytes + 12) == ETH_IP4) {
		want(len >= IP4_SIZE && get16(ip + 2) == len && ip[0] == 0x45);
		want(sum_fold(sum_bytes(ip, IP4_SIZE, 0)) == 0xffff);
		src = net_addr4_from(ip + 12);
		dst = net_addr4_from(ip + 16);
		if (!(get16(ip + 6) & 0x3fff))
			check_transport(frame, ip + IP4_SIZE, len - IP4_SIZE, ip[9], &src, &dst);
	} else if (get16(bytes + 12) == ETH_IP6) {
		want(len >= IP6_SIZE && get16(ip + 4) == len - IP6_SIZE && ip[0] >> 4 == 6);
		src = net_addr6_from(ip + 8);
		dst = net_addr6_from(ip + 24);
		want(!net_addr_is4(&src) && !net_addr_is4(&dst));
		check_transport(frame, ip + IP6_SIZE, len - IP6_SIZE, ip[6], &src, &dst);
	} else {
		want(get16(bytes + 12) == ETH_ARP && len == 28);
	}
	want(frame->gso || len <= peer.mtu);
}

static bool peer_output(void *ctx, const struct net_frame *frame)
{
	uint8_t *bytes;
	size_t at = 0;

	if (peer.full)
		return false;
	bytes = malloc(frame->len + 1u);
	want(bytes && frame->count <= NET_SPANS_MAX);
	for (unsigned i = 0; i < frame->count; i++) {
		want(at + frame->spans[i].len <= frame->len);
		memcpy(bytes + at, frame->spans[i].data, frame->spans[i].len);
		at += frame->spans[i].len;
	}
	want(at == frame->len);
	check_sent(frame, bytes);
	if (peer.sent)
		peer.sent(bytes, at);
	free(bytes);
	return true;
}

struct net_addr fuzz_addr(unsigned which, bool v4)
{
	return v4 ? net_addr4(10, 0, 0, (uint8_t)(which + 1)) :
		    (struct net_addr){ .b = { 0xfd, [15] = (uint8_t)(which + 1) } };
}

void fuzz_begin(struct net_config config, const struct net_ops *callbacks)
{
	static struct net_ops ops;

	memset(&peer, 0, sizeof(peer));
	ops = callbacks ? *callbacks : (struct net_ops){ 0 };
	ops.alloc = peer_alloc;
	ops.free = peer_free;
	ops.random = peer_random;
	ops.output = peer_output;
	memcpy(config.mac, our_mac, sizeof(our_mac));
	config.ops = &ops;
	for (unsigned i = 0; i < 2; i++) {
		config.addrs[i].addr = fuzz_addr(0, !i);
		config.addrs[i].prefix = i ? 64 : 24;
	}
	config.addr_count = 2;
	peer.mtu = config.mtu;
	peer.now = 1000000000;
	peer.net = net_create(&config, peer.now);
	want(peer.net);
}

void fuzz_end(void)
{
	net_destroy(peer.net);
	want(!peer.memory);
}

void fuzz_fix_sums(uint8_t *bytes, size_t len)
{
	uint8_t *ip = bytes + ETH_SIZE;
	struct net_addr src, dst;
	size_t head, total;

	if (len >= ETH_SIZE + IP4_SIZE && get16(bytes + 12) == ETH_IP4) {
		head = (ip[0] & 15u) * 4;
		total = get16(ip + 2);
		if (head < IP4_SIZE || total < head || total > len - ETH_SIZE)
			return;
		put16(ip + 10, 0);
		sum_store(ip + 10, (uint16_t)~sum_fold(sum_bytes(ip, head, 0)));
		if (ip[9] != PROTO_ICMP || total < head + 4)
			return;
		put16(ip + head + 2, 0);
		sum_store(ip + head + 2, (uint16_t)~sum_fold(sum_bytes(ip + head, total - head, 0)));
	} else if (len >= ETH_SIZE + IP6_SIZE + 4 && get16(bytes + 12) == ETH_IP6) {
		total = get16(ip + 4);
		if (ip[6] != PROTO_ICMP6 || total < 4 || total > len - ETH_SIZE - IP6_SIZE)
			return;
		src = net_addr6_from(ip + 8);
		dst = net_addr6_from(ip + 24);
		put16(ip + IP6_SIZE + 2, 0);
		sum_store(ip + IP6_SIZE + 2,
			  (uint16_t)~sum_fold(sum_bytes(ip + IP6_SIZE, total,
							sum_pseudo(&src, &dst, PROTO_ICMP6, (uint32_t)total))));
	}
}

void fuzz_input(const uint8_t *bytes, size_t len, size_t cut, struct net_frame frame)
{
	struct net_span spans[2];
	uint8_t *parts[2];

	cut = cut < len ? cut : len;
	parts[0] = malloc(cut);
	parts[1] = malloc(len - cut);
	want((parts[0] || !cut) && (parts[1] || cut == len));
	if (cut)
		memcpy(parts[0], bytes, cut);
	if (len > cut)
		memcpy(parts[1], bytes + cut, len - cut);
	spans[0] = (struct net_span){ parts[0], cut };
	spans[1] = (struct net_span){ parts[1], len - cut };
	frame.spans = spans;
	frame.count = 2;
	frame.len = (uint32_t)len;
	net_input(peer.net, &frame, peer.now);
	free(parts[0]);
	free(parts[1]);
}

size_t fuzz_put_ip(uint8_t *bytes, bool v4, const struct net_addr *src, const struct net_addr *dst,
		   uint8_t proto, size_t len)
{
	uint8_t *ip = bytes + ETH_SIZE;

	memcpy(bytes, our_mac, 6);
	memcpy(bytes + 6, peer_mac, 6);
	put16(bytes + 12, v4 ? ETH_IP4 : ETH_IP6);
	memset(ip, 0, v4 ? IP4_SIZE : IP6_SIZE);
	ip[0] = v4 ? 0x45 : 0x60;
	if (v4) {
		put16(ip + 2, (uint16_t)(IP4_SIZE + len));
		ip[8] = 64;
		ip[9] = proto;
		memcpy(ip + 12, src->b + 12, 4);
		memcpy(ip + 16, dst->b + 12, 4);
		sum_store(ip + 10, (uint16_t)~sum_fold(sum_bytes(ip, IP4_SIZE, 0)));
		return ETH_SIZE + IP4_SIZE;
	}
	put16(ip + 4, (uint16_t)len);
	ip[6] = proto;
	ip[7] = 255;
	memcpy(ip + 8, src->b, 16);
	memcpy(ip + 24, dst->b, 16);
	return ETH_SIZE + IP6_SIZE;
}

void fuzz_datagram(bool v4, struct net_endpoint from, struct net_endpoint to, const uint8_t *data, size_t len)
{
	static uint8_t bytes[ETH_SIZE + IP6_SIZE + UDP_SIZE + 65535];
	struct net_frame frame = { .csum_good = true };
	size_t head;

	if (len > 60000)
		len = 60000;
	head = fuzz_put_ip(bytes, v4, &from.addr, &to.addr, PROTO_UDP, UDP_SIZE + len);
	put16(bytes + head, from.port);
	put16(bytes + head + 2, to.port);
	put16(bytes + head + 4, (uint16_t)(UDP_SIZE + len));
	put16(bytes + head + 6, 1);	/* not "none"; csum_good says that it is right */
	memcpy(bytes + head + UDP_SIZE, data, len);
	fuzz_input(bytes, head + UDP_SIZE + len, head + UDP_SIZE, frame);
	net_flush(peer.net, peer.now);
}
