/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A peer that floods, forges and never closes.  What it can hold is what struct net_limits
 * says, and who else talks to the same net is served as before.
 */
#include "net/checksum.h"
#include "net/net.h"
#include "net/tcp.h"
#include "net/wire.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define MS 1000000ull
#define SECOND 1000000000ull
#define PORTS 4096u	/* peers are told apart by their port */
#define SYN 2u
#define RST 4u
#define ACK 16u
#define FIN 1u

static struct {
	struct net *net;
	uint64_t now;	/* ns */
	size_t memory, most;	/* bytes held, ever held */
	uint32_t next[PORTS], ack[PORTS];	/* what net/ sent last to each peer */
	uint32_t frames, resets;	/* sent by it */
	uint64_t payload;	/* bytes sent by it */
} world;

static struct owner {
	struct tcp_conn *conn[PORTS];	/* by the peer's port */
	uint64_t got;	/* bytes */
	uint32_t closed, timed_out;
	bool deaf;	/* takes no data */
	bool silent;	/* does not answer requests */
} owner;

static void *count_alloc(void *ctx, size_t size)
{
	world.memory += size;
	world.most = world.memory > world.most ? world.memory : world.most;
	return malloc(size);
}

static void count_free(void *ctx, void *ptr, size_t size)
{
	world.memory -= size;
	free(ptr);
}

static void weak_random(void *ctx, void *buf, size_t len)
{
	memset(buf, 0x5a, len);
}

static bool note_output(void *ctx, const struct net_frame *frame)
{
	uint8_t head[ETH_SIZE + IP4_SIZE + TCP_SIZE];
	const uint8_t *tcp = head + ETH_SIZE + IP4_SIZE;
	uint32_t port, len, next;

	world.frames++;
	if (frame->spans[0].len < sizeof(head))
		return true;
	memcpy(head, frame->spans[0].data, sizeof(head));
	if (get16(head + 12) != ETH_IP4 || head[ETH_SIZE + 9] != PROTO_TCP)
		return true;
	port = get16(tcp + 2) % PORTS;
	len = frame->len - ETH_SIZE - IP4_SIZE - (tcp[12] >> 4) * 4u;
	world.payload += len;
	world.resets += !!(tcp[13] & RST);
	next = get32(tcp + 4) + len + !!(tcp[13] & SYN) + !!(tcp[13] & FIN);
	if (tcp[13] & SYN || (int32_t)(next - world.next[port]) > 0)	/* probes are below */
		world.next[port] = next;
	world.ack[port] = get32(tcp + 8);
	return true;
}

static size_t on_data(struct tcp_conn *conn, const struct net_span *spans, unsigned count, size_t len)
{
	owner.got += owner.deaf ? 0 : len;
	return owner.deaf ? 0 : len;
}

static void on_closed(struct tcp_conn *conn, enum net_result reason)
{
	owner.closed++;
	owner.timed_out += reason == NET_ETIMEDOUT;
	owner.conn[tcp_remote(conn)->port % PORTS] = NULL;
}

static const struct tcp_ops ops = { .data = on_data, .closed = on_closed };

static void on_request(void *ctx, struct tcp_conn *conn)
{
	tcp_set_owner(conn, &ops, NULL);
	owner.conn[tcp_remote(conn)->port % PORTS] = conn;
	if (!owner.silent)
		tcp_accept(conn);
}

static const struct net_ops net_ops = {
	.alloc = count_alloc, .free = count_free, .random = weak_random, .output = note_output,
	.tcp_request = on_request,
};

static int begin(const struct net_limits *limits)
{
	struct net_config config = { .mac = { 2, 0, 0, 0, 0, 1 }, .proxy = true, .ops = &net_ops,
				     .addrs = { { net_addr4(10, 0, 0, 1), 24 } }, .addr_count = 1,
				     .limits = *limits };

	memset(&world, 0, sizeof(world));
	memset(&owner, 0, sizeof(owner));
	world.now = SECOND;
	world.net = net_create(&config, world.now);
	assert_non_null(world.net);
	return 0;
}

static void finish(void)
{
	net_destroy(world.net);
	assert_int_equal(world.memory, 0);
}

static struct net_stats stats_now(void)
{
	struct net_stats stats;

	net_stats(world.net, &stats);
	assert_int_equal(stats.memory, world.memory);
	return stats;
}

/* Puts an IPv4 packet with @len bytes in @bytes, behind room for its headers, on the link. */
static void packet(uint8_t *bytes, size_t len, uint8_t proto, uint32_t src, uint16_t id, uint16_t fragment)
{
	uint8_t *ip = bytes + ETH_SIZE;
	struct net_span span = { bytes, ETH_SIZE + IP4_SIZE + len };
	struct net_frame frame = { .spans = &span, .count = 1, .len = (uint32_t)span.len, .csum_good = true };

	memcpy(bytes, "\x02\0\0\0\0\x01\x02\0\0\0\0\x02\x08\0", ETH_SIZE);
	memset(ip, 0, IP4_SIZE);
	ip[0] = 0x45;
	put16(ip + 2, (uint16_t)(IP4_SIZE + len));
	put16(ip + 4, id);
	put16(ip + 6, fragment);
	ip[8] = 64;
	ip[9] = proto;
	put32(ip + 12, src);
	put32(ip + 16, 0xc6336407);
	sum_store(ip + 10, (uint16_t)~sum_fold(sum_bytes(ip, IP4_SIZE, 0)));
	net_input(world.net, &frame, world.now);
}

/* A segment from @port of 10.0.0.2; its numbers are relative to what it has had. */
static void segment(uint16_t port, uint8_t flags, uint32_t seq, size_t len, uint16_t window)
{
	uint8_t bytes[ETH_SIZE + IP4_SIZE + TCP_SIZE + 4 + 2000] = { 0 }, *tcp = bytes + ETH_SIZE + IP4_SIZE;
	size_t options = flags & SYN ? 4 : 0;

	put16(tcp, port);
	put16(tcp + 2, 80);
	put32(tcp + 4, world.ack[port % PORTS] + seq);
	put32(tcp + 8, world.next[port % PORTS]);
	tcp[12] = (uint8_t)((TCP_SIZE + options) / 4 << 4);
	tcp[13] = flags;
	put16(tcp + 14, window);
	put32(tcp + 20, options ? 0x0103030e : 0);	/* windows of up to a gigabyte */
	packet(bytes, TCP_SIZE + options + len, PROTO_TCP, 0x0a000002, 0, 0);
	net_flush(world.net, world.now);
}

/* A whole handshake, of a peer that will announce @window * 2^14 bytes. */
static void open_from(uint16_t port, uint16_t window)
{
	world.ack[port % PORTS] = world.next[port % PORTS] = 0;
	segment(port, SYN, 1000, 0, 1000);
	segment(port, ACK, 0, 0, window);
}

static void pass(uint64_t ns)
{
	uint64_t end = world.now + ns, due;

	while ((due = net_deadline(world.net)) && due <= end) {
		world.now = due > world.now ? due : world.now;
		net_timers(world.net, world.now);
	}
	world.now = end;
	net_clock(world.net, world.now);
}

/* Somebody else's connection works. */
static void check_service(uint16_t port)
{
	uint64_t got = owner.got;

	segment(port, ACK, 0, 100, 1000);
	assert_int_equal(owner.got, got + 100);
}

static void test_a_flood_of_requests_costs_no_more_than_the_limit(void **state)
{
	struct net_limits limits = { .tcp_embryonic = 100, .neighbours = 64 };
	uint8_t bytes[200] = { 0 }, *tcp = bytes + ETH_SIZE + IP4_SIZE;
	size_t before;

	(void)begin(&limits);
	open_from(7, 1000);
	owner.silent = true;
	before = world.memory;
	for (uint32_t i = 0; i < 100000; i++) {
		put16(tcp, (uint16_t)(1000 + i));
		put16(tcp + 2, 80);
		put32(tcp + 4, i);
		tcp[12] = 0x50;
		tcp[13] = SYN;
		packet(bytes, TCP_SIZE, PROTO_TCP, 0x0a000000 | (3 + i % 200), 0, 0);
		world.now += 1000;
	}
	assert_int_equal(stats_now().tcp_conns, 101);
	assert_true(stats_now().neighbours <= 64);
	assert_true(world.most - before < 200 * 1024);
	check_service(7);
	pass(200 * SECOND);	/* who was never answered is forgotten */
	assert_int_equal(stats_now().tcp_conns, 1);
	finish();
}

static void test_fragments_of_a_thousand_packets_cost_no_more_than_the_limit(void **state)
{
	struct net_limits limits = { .fragments = 100000 };
	uint8_t bytes[2000] = { 0 };
	size_t before;

	(void)begin(&limits);
	open_from(7, 1000);
	before = world.memory;
	for (uint32_t i = 0; i < 100000; i++)
		packet(bytes, i % 2 ? 8 : 1024, PROTO_UDP, 0x0a000002, (uint16_t)(i * 7919),
		       (uint16_t)(0x2000 | (i & 0x1ff)));
	assert_true(world.most - before < 110000);
	check_service(7);
	pass(60 * SECOND);
	assert_true(world.memory <= before + 8192);	/* the heap of timers has grown */
	assert_int_equal(stats_now().fragments_in, 100000);
	finish();
}

static void test_early_bytes_of_a_connection_are_bounded_in_number_too(void **state)
{
	struct net_limits limits = { 0 };
	size_t before;

	(void)begin(&limits);
	open_from(7, 1000);
	open_from(8, 1000);
	before = world.memory;
	for (uint32_t i = 0; i < 20000; i++)	/* each byte apart, the last one first */
		segment(8, ACK, 2 * (20000 - i), 1, 1000);
	assert_true(world.memory - before < 4096 * 64);
	check_service(7);
	segment(8, RST, 0, 0, 0);
	assert_true(world.memory <= before);
	finish();
}

static void test_early_data_that_fills_up_arrives(void **state)
{
	struct net_limits limits = { 0 };

	(void)begin(&limits);
	open_from(8, 1000);
	for (uint32_t i = 60; i > 0; i--)
		segment(8, ACK, 1000 * i, 1500, 1000);	/* they overlap */
	assert_int_equal(owner.got, 0);
	segment(8, ACK, 0, 1000, 1000);
	assert_int_equal(owner.got, 61500);
	finish();
}

static void test_data_that_nobody_takes_is_bounded_by_the_window(void **state)
{
	struct net_limits limits = { .tcp_recv_max = 100000 };
	size_t before;

	(void)begin(&limits);
	owner.deaf = true;
	open_from(8, 1000);
	before = world.memory;
	for (uint32_t i = 0; i < 10000; i++)	/* whatever the window says */
		segment(8, ACK, 0, 1400, 1000);
	assert_true(world.memory - before < 2 * 100000);
	owner.deaf = false;
	tcp_resume(owner.conn[8]);
	assert_in_range(owner.got, 60000, 100000);
	finish();
}

/* Opens 1000 connections that send 28,000 bytes each, which nobody takes. */
static void hoard(const struct net_limits *limits)
{
	(void)begin(limits);
	owner.deaf = true;
	for (uint16_t port = 1; port <= 1000; port++) {
		open_from(port, 1000);
		for (unsigned i = 0; i < 20; i++)
			segment(port, ACK, 0, 1400, 1000);
	}
	assert_true(stats_now().no_memory > 0);
	owner.deaf = false;
	tcp_resume(owner.conn[1]);	/* those that are there still work */
	check_service(1);
}

static void test_connections_that_are_never_closed_are_bounded_in_number(void **state)
{
	struct net_limits limits = { .tcp_conns = 500 };

	hoard(&limits);
	assert_int_equal(stats_now().tcp_conns, 500);
	finish();
}

static void test_connections_that_are_never_closed_are_bounded_in_memory(void **state)
{
	struct net_limits limits = { .memory = 4 << 20 };

	hoard(&limits);
	assert_in_range(stats_now().tcp_conns, 100, 200);
	assert_true(world.most <= 4 << 20);
	finish();
}

static void test_windows_that_stay_shut_hold_what_was_written_and_no_more(void **state)
{
	struct net_limits limits = { .memory = 64 << 20 };
	static const uint8_t data[65536];
	uint32_t frames;

	(void)begin(&limits);
	for (uint16_t port = 1; port <= 100; port++) {
		open_from(port, 0);
		while (tcp_send(owner.conn[port], data, sizeof(data)))
			continue;
	}
	assert_true(world.most <= 64 << 20);
	assert_true(tcp_unacked(owner.conn[1]) <= 256 << 10);
	for (unsigned i = 0; i < 3600; i++) {	/* an hour, and each probe is answered: still shut */
		pass(SECOND);
		for (uint16_t port = 1; port <= 100; port++)
			segment(port, ACK, 0, 0, 0);
	}
	assert_int_equal(owner.closed, 0);	/* RFC 9293, 3.8.6.1 */
	frames = world.frames;
	for (unsigned i = 0; i < 600; i++) {
		pass(SECOND);
		segment(1, ACK, 0, 0, 0);
	}
	assert_in_range(world.frames - frames, 900, 1200);	/* a probe a minute of each */
	world.payload = 0;
	segment(1, ACK, 0, 0, 1);	/* open: the initial window goes */
	assert_int_equal(world.payload, 10 * 536);
	finish();
}

static void test_what_was_given_up_ends_though_the_peer_does_nothing(void **state)
{
	struct net_limits limits = { 0 };
	static const uint8_t data[10000];
	size_t before;

	(void)begin(&limits);
	before = world.memory;
	for (uint16_t port = 1; port <= 900; port++) {
		open_from(port, port % 3 ? 1000 : 0);
		if (port % 2)
			(void)tcp_send(owner.conn[port], data, sizeof(data));
		tcp_close(owner.conn[port]);
		if (port % 3 == 1)	/* acknowledges our FIN and keeps its own */
			segment(port, ACK, 0, 0, 1000);
	}
	assert_int_equal(stats_now().tcp_conns, 900);
	pass(600 * SECOND);
	assert_int_equal(stats_now().tcp_conns, 0);
	assert_int_equal(owner.closed, 0);	/* it was given up: no events */
	assert_true(world.memory < before + (5 << 20));	/* tables, and freed chunks kept for reuse */
	finish();
}

static void test_forged_segments_do_not_end_a_connection(void **state)
{
	struct net_limits limits = { 0 };
	uint32_t frames;

	(void)begin(&limits);
	open_from(7, 1000);
	frames = world.frames;
	for (uint32_t i = 1; i < 10000; i++) {	/* RFC 5961: near is not enough */
		segment(7, RST, i, 0, 0);
		segment(7, SYN, i, 0, 0);
		segment(7, FIN | ACK, 0x40000000 + i, 10, 0);
	}
	assert_int_equal(owner.closed, 0);
	assert_true(world.frames - frames <= 200);	/* answers are few */
	check_service(7);
	finish();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_flood_of_requests_costs_no_more_than_the_limit),
		cmocka_unit_test(test_fragments_of_a_thousand_packets_cost_no_more_than_the_limit),
		cmocka_unit_test(test_early_bytes_of_a_connection_are_bounded_in_number_too),
		cmocka_unit_test(test_early_data_that_fills_up_arrives),
		cmocka_unit_test(test_data_that_nobody_takes_is_bounded_by_the_window),
		cmocka_unit_test(test_connections_that_are_never_closed_are_bounded_in_number),
		cmocka_unit_test(test_connections_that_are_never_closed_are_bounded_in_memory),
		cmocka_unit_test(test_windows_that_stay_shut_hold_what_was_written_and_no_more),
		cmocka_unit_test(test_what_was_given_up_ends_though_the_peer_does_nothing),
		cmocka_unit_test(test_forged_segments_do_not_end_a_connection),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
