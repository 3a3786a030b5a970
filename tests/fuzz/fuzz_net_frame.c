/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The whole stack, with state: a list of steps, each of which is a byte that chooses, then
 * its arguments.  Steps are frames of any bytes (sums are put right), segments of
 * connections whose numbers are relative to what net/ sent last, time, what owners of
 * connections do, also from within their callbacks, a link that is full, memory that fails.
 */
#include "net/dhcp4.h"
#include "net/dhcp6.h"
#include "net/ra.h"
#include "net_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define FLOWS 8u	/* pairs of ends that segments are made for; the odd ones are IPv6 */
#define CONNS 16u
#define PEER_PORT 40000u
#define FRAME_MAX 65600u
#define MEMORY_MAX (1u << 20)	/* bytes */

static struct {
	const uint8_t *at;
	size_t left;
} input;

static struct flow {	/* what net/ sent last */
	uint32_t next, ack;
} flows[FLOWS];

static struct tcp_conn *conns[CONNS];	/* those of which we are the owner */
static struct {
	uint8_t take;	/* how much data() takes */
	uint8_t act;	/* what the next callback does; 0: nothing */
	bool later;	/* requests wait */
	struct tcp_listener listener;
} owner;

static uint32_t take(unsigned bytes)
{
	uint32_t v = 0;

	while (bytes--) {
		v = v << 8 | (input.left ? *input.at : 0);
		input.at += !!input.left;
		input.left -= !!input.left;
	}
	return v;
}

/* Notes the numbers of a segment that net/ sent. */
static void on_sent(const uint8_t *frame, size_t len)
{
	bool v4 = get16(frame + 12) == ETH_IP4;
	const uint8_t *ip = frame + ETH_SIZE, *tcp = ip + (v4 ? IP4_SIZE : IP6_SIZE);
	unsigned flow;

	if ((!v4 && get16(frame + 12) != ETH_IP6) || ip[v4 ? 9 : 6] != PROTO_TCP || (v4 && get16(ip + 6) & 0x3fff))
		return;
	want(tcp + TCP_SIZE <= frame + len && tcp + (tcp[12] >> 4) * 4u <= frame + len);
	flow = get16(tcp + 2) - PEER_PORT;
	if (flow >= FLOWS)
		return;
	flows[flow].next = get32(tcp + 4) + (uint32_t)(frame + len - tcp - (tcp[12] >> 4) * 4) +
			   (tcp[13] & 1) + (tcp[13] >> 1 & 1);
	flows[flow].ack = get32(tcp + 8);
}

static struct tcp_conn **slot_of(const struct tcp_conn *conn)
{
	for (unsigned i = 0; i < CONNS; i++)
		if (conns[i] == conn)
			return &conns[i];
	return NULL;
}

static void send_some(struct tcp_conn *conn, uint32_t len)
{
	struct net_room rooms[8];
	unsigned count;
	size_t got = tcp_reserve(conn, len, rooms, 8, &count), sum = 0;

	for (unsigned i = 0; i < count; i++) {
		memset(rooms[i].data, (int)len, rooms[i].len);
		sum += rooms[i].len;
	}
	want(sum == got && got <= len);
	tcp_commit(conn, got > 100 ? got - got % 100 : got);
}

/* One of the things that an owner may do. */
static void act(struct tcp_conn *conn, unsigned what, uint32_t number)
{
	struct tcp_conn **slot = slot_of(conn);
	struct tcp_info info;

	want(slot);
	if (what >= 12)	/* these give it up */
		*slot = NULL;
	switch (what) {
	case 0:
		tcp_accept(conn);
		break;
	case 1:
	case 2:
	case 3:
		send_some(conn, number * 16);
		break;
	case 4:
		tcp_shutdown(conn);
		break;
	case 5:
	case 6:
		tcp_resume(conn);
		break;
	case 7:
		tcp_set_nagle(conn, number & 1);
		break;
	case 8:
		tcp_set_keepalive(conn, (number & 63) * 1000000000ull, 1000000000, number >> 6);
		break;
	case 9:
		tcp_info(conn, &info);
		want(info.kept + (uint64_t)info.recv_window <= (8u << 20));
		break;
	case 10:
		(void)tcp_unacked(conn);
		break;
	case 12:
		tcp_refuse(conn);
		break;
	case 13:
		tcp_unreachable(conn, (enum icmp_kind)(number & 7));
		break;
	case 14:
		tcp_close(conn);
		break;
	case 15:
		tcp_abort(conn);
		break;
	default:
		break;
	}
}

/* Does what a step asked for, once.  False: the connection was given up. */
static bool act_within(struct tcp_conn *conn)
{
	unsigned what = owner.act;

	owner.act = 0;
	if (what)
		act(conn, what & 15, what);
	return slot_of(conn);
}

static void on_event(struct tcp_conn *conn)
{
	want(slot_of(conn));
	(void)act_within(conn);
}

static size_t on_data(struct tcp_conn *conn, const struct net_span *spans, unsigned count, size_t len)
{
	size_t sum = 0;
	volatile uint8_t last = 0;

	want(slot_of(conn) && count <= NET_SPANS_MAX && len);
	for (unsigned i = 0; i < count; i++) {
		want(spans[i].len);
		last = ((const uint8_t *)spans[i].data)[spans[i].len - 1];
		sum += spans[i].len;
	}
	(void)last;
	want(sum == len);
	(void)act_within(conn);
	return owner.take == 0 ? len : owner.take == 255 ? 0 : len / owner.take;
}

static void on_closed(struct tcp_conn *conn, enum net_result reason)
{
	struct tcp_conn **slot = slot_of(conn);

	want(slot);
	*slot = NULL;
}

static const struct tcp_ops ops = {
	.connected = on_event, .data = on_data, .peer_closed = on_event, .writable = on_event, .drained = on_event,
	.closed = on_closed,
};

static void ask(struct tcp_conn *conn)
{
	struct tcp_conn **slot = slot_of(NULL);

	if (!slot) {
		tcp_refuse(conn);
		return;
	}
	*slot = conn;
	tcp_set_owner(conn, &ops, NULL);
	if (!owner.later && act_within(conn))
		tcp_accept(conn);
}

static void on_listener(struct tcp_listener *listener, struct tcp_conn *conn)
{
	ask(conn);
}

static void on_request(void *ctx, struct tcp_conn *conn)
{
	ask(conn);
}

static bool on_udp(void *ctx, const struct udp_datagram *datagram)
{
	struct udp_datagram back = *datagram;

	back.from = datagram->to;
	back.to = datagram->from;
	(void)udp_send(peer.net, &back);
	return datagram->to.port & 1;
}

static void on_echo(void *ctx, const struct icmp_echo *echo)
{
	struct icmp_echo back = *echo;

	back.from = echo->to;
	back.to = echo->from;
	back.reply = true;
	(void)icmp_send_echo(peer.net, &back);
}

static void on_error(void *ctx, const struct icmp_error *error)
{
	struct icmp_error back = *error;

	back.from = (struct net_addr){ 0 };
	(void)icmp_send_error(peer.net, &back);
}

static const struct net_ops callbacks = {
	.tcp_request = on_request, .udp_input = on_udp, .echo_input = on_echo, .icmp_error = on_error,
};

static uint8_t frame_bytes[FRAME_MAX];

/* A frame of any bytes; unless told otherwise it is to us. */
static void step_frame(void)
{
	uint8_t how = (uint8_t)take(1);
	size_t len = take(2) & 0x7ff, got = len < input.left ? len : input.left;
	struct net_frame frame = { .csum_good = !(how & 1) };

	memcpy(frame_bytes, input.at, got);
	input.at += got;
	input.left -= got;
	if (how & 2 && got >= ETH_SIZE)
		memcpy(frame_bytes, our_mac, 6);
	if (how & 4)
		fuzz_fix_sums(frame_bytes, got);
	if (how & 8) {
		frame.csum_partial = true;
		frame.gso = (enum net_gso)take(1);
		frame.gso_size = (uint16_t)take(2);
		frame.csum_start = (uint16_t)take(1);
		frame.csum_offset = (uint16_t)take(1);
	}
	fuzz_input(frame_bytes, got, how >> 4, frame);
}

/* An IP packet, or a fragment of one, with any bytes in it. */
static void step_packet(void)
{
	uint8_t how = (uint8_t)take(1), proto = (uint8_t)take(1);
	uint16_t fragment = (uint16_t)take(2);
	bool v4 = how & 1, fragmented = how & 2;
	size_t len = take(2) & 0x7ff, extra = !v4 && fragmented ? 8 : 0, head;
	struct net_addr src = fuzz_addr(1, v4), dst = fuzz_addr(how & 4 ? 9 : 0, v4);
	struct net_frame frame = { .csum_good = true };

	if (how & 8) {
		dst = v4 ? net_addr4(10, 0, 0, 255) : (struct net_addr){ .b = { 0xff, 2, [15] = 1 } };
	}
	len = len < input.left ? len : input.left;
	head = fuzz_put_ip(frame_bytes, v4, &src, &dst, extra ? PROTO_FRAGMENT : proto, len + extra);
	if (v4 && fragmented) {
		put16(frame_bytes + ETH_SIZE + 4, how >> 6);
		put16(frame_bytes + ETH_SIZE + 6, fragment & 0x3fff);
	} else if (extra) {
		memset(frame_bytes + head, 0, 8);
		frame_bytes[head] = proto;
		put16(frame_bytes + head + 2, fragment & 0xfff9);
		frame_bytes[head + 7] = how >> 6;
	}
	if (how & 8)
		frame_bytes[0] = 0x33;
	memcpy(frame_bytes + head + extra, input.at, len);
	input.at += len;
	input.left -= len;
	fuzz_fix_sums(frame_bytes, head + extra + len);
	fuzz_input(frame_bytes, head + extra + len, head, frame);
}

/* A segment near the numbers of a flow. */
static void step_segment(void)
{
	uint8_t which = (uint8_t)take(1), *tcp;
	unsigned flow = which % FLOWS;
	bool v4 = !(flow & 1), gso = which & 0x40;
	uint8_t flags = (uint8_t)take(1);
	uint32_t seq = flows[flow].ack + (uint32_t)(int16_t)take(2), ack = flows[flow].next + (uint32_t)(int16_t)take(2);
	uint16_t window = (uint16_t)take(2);
	uint32_t options = take(1) % 11 * 4, len = take(2);
	struct net_addr src = fuzz_addr(1, v4), dst = fuzz_addr(which & 0x80 ? 9 : 0, v4);
	struct net_frame frame = { .csum_good = true };
	size_t head;

	len %= gso ? 60000 : 1500;
	head = fuzz_put_ip(frame_bytes, v4, &src, &dst, PROTO_TCP, TCP_SIZE + options + len);
	tcp = frame_bytes + head;
	put16(tcp, (uint16_t)(PEER_PORT + flow));
	put16(tcp + 2, which & 0x20 ? 80 : (uint16_t)(PEER_PORT + flow));
	put32(tcp + 4, seq);
	put32(tcp + 8, ack);
	tcp[12] = (uint8_t)((TCP_SIZE + options) / 4 << 4);
	tcp[13] = flags;
	put16(tcp + 14, window);
	put32(tcp + 16, 0);
	for (uint32_t i = 0; i < options; i++)
		tcp[TCP_SIZE + i] = (uint8_t)take(1);
	memset(tcp + TCP_SIZE + options, (int)seq, len);
	if (gso && len) {
		frame.csum_good = false;
		frame.csum_partial = true;
		frame.csum_start = (uint16_t)head;
		frame.csum_offset = 16;
		frame.gso = v4 ? NET_GSO_TCP4 : NET_GSO_TCP6;
		frame.gso_size = 1448;
	}
	fuzz_input(frame_bytes, head + TCP_SIZE + options + len, head + TCP_SIZE + options + len / 2, frame);
}

static void step_time(void)
{
	uint8_t how = (uint8_t)take(1);
	uint64_t due = net_deadline(peer.net);

	if (how & 0x80 && due > peer.now)
		peer.now = due;
	else
		peer.now += 1ull << (how & 0x7f) % 38;	/* up to two minutes */
	net_timers(peer.net, peer.now);
}

static void step_owner(void)
{
	uint8_t which = (uint8_t)take(1), what = (uint8_t)take(1);

	if (conns[which % CONNS])
		act(conns[which % CONNS], what & 15, take(2));
}

static void step_connect(void)
{
	unsigned flow = take(1) % FLOWS;
	bool v4 = !(flow & 1);
	struct net_endpoint from = { fuzz_addr(0, v4), (uint16_t)(PEER_PORT + flow) },
			    to = { fuzz_addr(1, v4), (uint16_t)(PEER_PORT + flow) };
	struct tcp_conn *conn, **slot = slot_of(NULL);

	if (slot && tcp_connect(peer.net, &from, &to, &ops, NULL, &conn) == NET_OK)
		*slot = conn;
}

static void step_datagram(void)
{
	uint8_t how = (uint8_t)take(1);
	bool v4 = how & 1;
	size_t len = take(2);
	struct net_span spans[2] = { { frame_bytes, len / 3 }, { frame_bytes, len - len / 3 } };
	struct udp_datagram datagram = { { fuzz_addr(0, v4), 5 }, { fuzz_addr(1 + (how & 2), v4), 6 }, spans, 2, len,
					 (uint16_t)(how & 4 ? take(2) : 0), 0, 0 };
	struct icmp_echo echo = { .from = datagram.from.addr, .to = datagram.to.addr, .spans = spans, .count = 2,
				  .len = len };

	if (how & 8)
		(void)icmp_send_echo(peer.net, &echo);
	else
		(void)udp_send(peer.net, &datagram);
}

static void step(uint8_t which)
{
	switch (which & 15) {
	case 0:
		step_frame();
		break;
	case 1:
		step_packet();
		break;
	case 7:
		step_time();
		break;
	case 8:
		step_owner();
		break;
	case 9:
		peer.full = false;
		net_output_ready(peer.net, peer.now);
		break;
	case 10:
		if (which & 16)
			peer.full = true;
		else
			net_flush(peer.net, peer.now);
		break;
	case 11:
		peer.offloads = take(1) & 15;
		peer.offloads = peer.offloads & NET_OFFLOAD_CSUM ? peer.offloads : 0;
		net_set_offloads(peer.net, peer.offloads);
		break;
	case 12:
		owner.take = (uint8_t)take(1);
		owner.act = (uint8_t)take(1);
		owner.later = which & 16;
		break;
	case 13:
		step_connect();
		break;
	case 14:
		step_datagram();
		break;
	case 15:
		peer.fail_in = take(1);
		break;
	default:
		step_segment();
	}
}

static struct {
	struct dhcp4_server *dhcp4;
	struct dhcp6_server *dhcp6;
	struct ra_sender *ra;
} services;

static void add_services(void)
{
	struct dhcp4_server_config dhcp = { .server = fuzz_addr(0, true), .prefix = 24, .lease_s = 60,
					    .first = net_addr4(10, 0, 0, 100), .last = net_addr4(10, 0, 0, 103) };
	struct dhcp6_server_config dhcp6 = { .pool = fuzz_addr(0, false), .lease_s = 60 };
	struct ra_config ra = { .prefix = fuzz_addr(0, false), .prefix_len = 64, .autonomous = true,
				.lifetime_s = 600, .router_lifetime_s = 600, .search = "roux", .mtu = 1400,
				.dns = { fuzz_addr(0, false) }, .dns_count = 1, .interval_s = 200 };

	owner.listener = (struct tcp_listener){ .local = { .port = 80 }, .request = on_listener };
	want(tcp_listen(peer.net, &owner.listener) == NET_OK);
	services.dhcp4 = dhcp4_server_create(peer.net, &dhcp);
	services.dhcp6 = dhcp6_server_create(peer.net, &dhcp6);
	services.ra = ra_create(peer.net, &ra);
	want(services.dhcp4 && services.dhcp6 && services.ra);
}

static void remove_services(void)
{
	dhcp4_server_destroy(services.dhcp4);
	dhcp6_server_destroy(services.dhcp6);
	ra_destroy(services.ra);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct net_config config = { .mtu = 1500,
				     .limits = { .tcp_conns = CONNS, .tcp_embryonic = 4, .tcp_time_wait = 4,
						 .neighbours = 4, .fragments = 8192, .memory = MEMORY_MAX } };
	struct net_stats stats;

	input.at = data;
	input.left = len;
	memset(flows, 0, sizeof(flows));
	memset(conns, 0, sizeof(conns));
	memset(&owner, 0, sizeof(owner));
	config.proxy = !(take(1) & 1);
	fuzz_begin(config, &callbacks);
	peer.sent = on_sent;
	add_services();
	while (input.left) {
		peer.now += 1000;
		step((uint8_t)take(1));
		net_stats(peer.net, &stats);
		want(stats.memory == peer.memory && stats.memory <= MEMORY_MAX);
		want(stats.tcp_conns <= CONNS && stats.tcp_time_wait <= 4 && stats.neighbours <= 4);
	}
	net_flush(peer.net, peer.now);
	remove_services();
	fuzz_end();
	return 0;
}
