/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of a struct net, its addresses, and Ethernet frames in and out.
 *
 * A frame is copied once as far as headers may reach, and from then on only that
 * copy is looked at.
 */
#include "net/core.h"
#include "net/checksum.h"

void *net_alloc(struct net *net, size_t size)
{
	void *ptr;

	if (size > net->limits.memory - min_of(net->limits.memory, net->stats.memory)) {
		net->stats.no_memory++;
		return NULL;
	}
	ptr = net->ops->alloc(net->ctx, size);
	if (ptr)
		net->stats.memory += size;
	else
		net->stats.no_memory++;
	return ptr;
}

void *net_alloc_zero(struct net *net, size_t size)
{
	void *ptr = net_alloc(net, size);

	if (ptr)
		__builtin_memset(ptr, 0, size);
	return ptr;
}

void net_free(struct net *net, void *ptr, size_t size)
{
	net->stats.memory -= size;
	net->ops->free(net->ctx, ptr, size);
}

uint32_t net_random32(struct net *net)
{
	uint32_t v;

	net->ops->random(net->ctx, &v, sizeof(v));
	return v;
}

static void set_default32(uint32_t *limit, uint32_t value)
{
	if (!*limit)
		*limit = value;
}

static void set_default_limits(struct net_limits *limits)
{
	set_default32(&limits->tcp_conns, 16384);
	set_default32(&limits->tcp_embryonic, 1024);
	set_default32(&limits->tcp_time_wait, 4096);
	set_default32(&limits->tcp_send_max, 4u << 20);
	set_default32(&limits->tcp_recv_max, 4u << 20);
	set_default32(&limits->neighbours, 1024);
	set_default32(&limits->fragments, 1u << 20);
	limits->tcp_recv_max = min_of(limits->tcp_recv_max, 1u << 30);	/* RFC 7323, 2.2 */
	limits->tcp_send_max = min_of(limits->tcp_send_max, 1u << 30);
	if (!limits->memory)
		limits->memory = (size_t)1 << 30;
}

static bool config_ok(const struct net_config *config)
{
	const struct net_ops *ops = config->ops;

	return ops && ops->alloc && ops->free && ops->random && ops->output &&
	       (!config->mtu || config->mtu >= 1280) && config->addr_count <= NET_ADDRS_MAX - 1 &&
	       !(config->mac[0] & 1);
}

static bool add_configured(struct net *net, const struct net_config *config)
{
	struct net_addr local;

	net_link_local(net->mac, &local);
	for (unsigned i = 0; i < config->addr_count; i++)
		if (net_add_addr(net, &config->addrs[i].addr, config->addrs[i].prefix))
			return false;
	return net_is_own(net, &local) || net_add_addr(net, &local, 64) == NET_OK;
}

struct net *net_create(const struct net_config *config, uint64_t now_ns)
{
	struct net *net;

	if (!config_ok(config))
		return NULL;
	net = config->ops->alloc(config->ctx, sizeof(*net));
	if (!net)
		return NULL;
	*net = (struct net){ .ops = config->ops, .ctx = config->ctx, .now = now_ns };
	net->stats.memory = sizeof(*net);
	net->mtu = config->mtu ? config->mtu : 1500;
	net->proxy = config->proxy;
	net->forward_own_echo = config->forward_own_echo;
	net->router4 = config->router4;
	net->router6 = config->router6;
	net->limits = config->limits;
	set_default_limits(&net->limits);
	__builtin_memcpy(net->mac, config->mac, NET_MAC_SIZE);
	net->ops->random(net->ctx, net->key, sizeof(net->key));
	net->ip4_id = (uint16_t)net_random32(net);
	net->ip6_id = net_random32(net);
	if (neighbour_init(net) && tcp_init(net) && add_configured(net, config))
		return net;
	net_destroy(net);
	return NULL;
}

void net_destroy(struct net *net)
{
	tcp_destroy(net);
	fragment_destroy(net);
	neighbour_destroy(net);
	chunk_cache_destroy(net);
	timers_destroy(net);
	net->ops->free(net->ctx, net, sizeof(*net));
}

void net_set_offloads(struct net *net, unsigned offloads)
{
	if (!(offloads & NET_OFFLOAD_CSUM))
		offloads = 0;
	if (net->offloads & ~offloads)
		neighbour_drop_waiting(net);
	net->offloads = offloads;
}

int net_add_addr(struct net *net, const struct net_addr *addr, uint8_t prefix)
{
	if (net_addr_is_zero(addr) || net_addr_is_multicast(addr) ||
	    prefix > (net_addr_is4(addr) ? 32 : 128))
		return NET_EINVAL;
	if (net_is_own(net, addr))
		return NET_EADDRINUSE;
	if (net->addr_count == NET_ADDRS_MAX)
		return NET_ENOMEM;
	net->addrs[net->addr_count++] = (struct own_addr){ *addr, prefix };
	return NET_OK;
}

void net_remove_addr(struct net *net, const struct net_addr *addr)
{
	for (unsigned i = 0; i < net->addr_count; i++) {
		if (net_addr_equal(&net->addrs[i].addr, addr)) {
			net->addrs[i] = net->addrs[--net->addr_count];
			return;
		}
	}
}

void net_set_router(struct net *net, const struct net_addr *router4, const struct net_addr *router6)
{
	if (router4)
		net->router4 = *router4;
	if (router6)
		net->router6 = *router6;
}

void net_stats(const struct net *net, struct net_stats *ret_stats)
{
	*ret_stats = net->stats;
	ret_stats->neighbours = net->neigh_count;
	tcp_count(net, &ret_stats->tcp_conns, &ret_stats->tcp_time_wait);
}

void net_clock(struct net *net, uint64_t now_ns)
{
	if (now_ns > net->now)	/* never back */
		net->now = now_ns;
}

void net_timers(struct net *net, uint64_t now_ns)
{
	net_clock(net, now_ns);
	tcp_enter(net);
	timers_run(net);
	tcp_flush(net);
	tcp_leave(net);
}

uint64_t net_deadline(const struct net *net)
{
	return tcp_must_flush(net) ? net->now : timers_next(net);
}

void net_flush(struct net *net, uint64_t now_ns)
{
	net_clock(net, now_ns);
	tcp_enter(net);
	tcp_flush(net);
	tcp_leave(net);
}

void net_output_ready(struct net *net, uint64_t now_ns)
{
	net_clock(net, now_ns);
	tcp_enter(net);
	tcp_output_ready(net);
	tcp_leave(net);
}

unsigned spans_cut(const struct net_span *spans, unsigned count, size_t from, size_t len,
		   struct net_span *out)
{
	unsigned made = 0;

	for (unsigned i = 0; i < count && len; i++) {
		struct net_span span = spans[i];

		if (from >= span.len) {
			from -= span.len;
			continue;
		}
		out[made].data = (const uint8_t *)span.data + from;
		out[made].len = min_of(span.len - from, len);
		len -= out[made++].len;
		from = 0;
	}
	return made;
}

size_t spans_copy(const struct net_span *spans, unsigned count, void *out, size_t cap)
{
	uint8_t *bytes = out;
	size_t at = 0;

	for (unsigned i = 0; i < count; i++) {
		size_t part = min_of(spans[i].len, cap - at);

		__builtin_memcpy(bytes + at, spans[i].data, part);
		at += part;
	}
	return at;
}

unsigned packet_spans(const struct packet *packet, uint32_t from, uint32_t to,
		      struct net_span *spans)
{
	return spans_cut(packet->frame->spans, packet->frame->count, from, to - from, spans);
}

void packet_copy(const struct packet *packet, uint32_t from, uint32_t len, void *out)
{
	struct net_span spans[NET_SPANS_MAX];
	unsigned count = packet_spans(packet, from, from + len, spans);

	(void)spans_copy(spans, count, out, len);
}

bool packet_checksum_ok(const struct packet *packet, uint8_t proto, uint32_t offset)
{
	const struct net_frame *frame = packet->frame;
	struct net_span spans[NET_SPANS_MAX];
	unsigned count;
	uint64_t sum;

	if (frame->csum_good)
		return true;
	if (frame->csum_partial)	/* not summed yet, and it never left this machine */
		return frame->csum_start == packet->at && frame->csum_offset == offset;
	count = packet_spans(packet, packet->at, packet->end, spans);
	sum = sum_pseudo(&packet->src, &packet->dst, proto, packet->end - packet->at);
	return sum_fold(sum_spans(spans, count, sum)) == 0xffff;
}

/* Checks what the link says about a frame; copies its head. */
static bool take_head(struct packet *packet, const struct net_frame *frame, uint8_t head[HEAD_MAX])
{
	uint64_t len = 0;
	uint32_t copied = 0;

	if (frame->count > NET_SPANS_MAX)
		return false;
	for (unsigned i = 0; i < frame->count; i++) {
		uint32_t part = (uint32_t)min_of(frame->spans[i].len, (size_t)(HEAD_MAX - copied));

		__builtin_memcpy(head + copied, frame->spans[i].data, part);
		copied += part;
		len += frame->spans[i].len;
	}
	if (len != frame->len || len < ETH_SIZE || len > ETH_SIZE + IP6_SIZE + UINT16_MAX)
		return false;
	*packet = (struct packet){ .frame = frame, .head = head, .head_len = copied,
				   .at = ETH_SIZE, .ip_at = ETH_SIZE, .end = (uint32_t)len };
	return true;
}

static bool gso_ok(const struct net_frame *frame)
{
	switch (frame->gso) {
	case NET_GSO_NONE:
		return true;
	case NET_GSO_TCP4:
	case NET_GSO_TCP6:
	case NET_GSO_UDP:	/* VIRTIO 1.2, 5.1.6.2.2: GSO goes with a partial checksum */
		return frame->csum_partial && frame->gso_size;
	default:
		return false;
	}
}

static bool mac_is_ours(const struct net *net, const uint8_t *mac)
{
	return mac[0] & 1 || !__builtin_memcmp(mac, net->mac, NET_MAC_SIZE);
}

static void eth_input(struct net *net, struct packet *packet)
{
	const uint8_t *head = packet->head;

	__builtin_memcpy(packet->src_mac, head + NET_MAC_SIZE, NET_MAC_SIZE);
	if (!mac_is_ours(net, head) || head[NET_MAC_SIZE] & 1) {
		net->stats.not_for_us++;
		return;
	}
	packet->group = head[0] & 1;
	switch (get16(head + 12)) {
	case ETH_IP4:
		ip4_input(net, packet);
		break;
	case ETH_IP6:
		ip6_input(net, packet);
		break;
	case ETH_ARP:
		arp_input(net, packet);
		break;
	default:
		net->stats.not_for_us++;
	}
}

void net_input(struct net *net, const struct net_frame *frame, uint64_t now_ns)
{
	uint8_t head[HEAD_MAX];
	struct packet packet;

	net_clock(net, now_ns);
	net->stats.in_frames++;
	net->stats.in_bytes += frame->len;
	if (!gso_ok(frame) || !take_head(&packet, frame, head)) {
		net->stats.bad_frame++;
		return;
	}
	tcp_enter(net);
	eth_input(net, &packet);
	tcp_leave(net);
}

int eth_transmit(struct net *net, const struct net_frame *frame)
{
	if (!net->ops->output(net->ctx, frame)) {
		net->stats.out_full++;
		return NET_EAGAIN;
	}
	net->stats.out_frames++;
	net->stats.out_bytes += frame->len;
	return NET_OK;
}

int eth_output(struct net *net, const struct net_addr *next_hop, const uint8_t *mac,
	       struct net_frame *frame, uint8_t *header)
{
	__builtin_memcpy(header + NET_MAC_SIZE, net->mac, NET_MAC_SIZE);
	if (net_addr_is_multicast(next_hop) || net_addr_is_broadcast(net, next_hop)) {
		net_group_mac(next_hop, header);
		return eth_transmit(net, frame);
	}
	if (!mac)
		mac = neighbour_resolve(net, next_hop, frame);
	if (!mac)
		return NET_OK;	/* on its way as far as the sender is concerned */
	__builtin_memcpy(header, mac, NET_MAC_SIZE);
	return eth_transmit(net, frame);
}
