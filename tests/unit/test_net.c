/* SPDX-License-Identifier: Apache-2.0 */
/* Everything of net/ below and beside TCP. */
#include "net_sim.h"
#include "net/checksum.h"
#include "net/dhcp4.h"
#include "net/dhcp6.h"
#include "net/dns.h"
#include "net/icmp.h"
#include "net/ra.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define MS 1000000ull
#define SECOND 1000000000ull

/* What the callbacks of a test saw. */
static struct {
	unsigned datagrams, echoes, errors;
	struct net_endpoint from, to;
	size_t len;
	uint16_t gso_size;
	uint8_t bytes[70000];
	struct icmp_echo echo;
	struct icmp_error error;
} seen;

static bool on_udp(void *ctx, const struct udp_datagram *datagram)
{
	seen.datagrams++;
	seen.from = datagram->from;
	seen.to = datagram->to;
	seen.len = 0;
	seen.gso_size = datagram->gso_size;
	for (unsigned i = 0; i < datagram->count; i++) {
		memcpy(seen.bytes + seen.len, datagram->spans[i].data, datagram->spans[i].len);
		seen.len += datagram->spans[i].len;
	}
	assert_int_equal(seen.len, datagram->len);
	return datagram->to.port != 9;
}

static void on_echo(void *ctx, const struct icmp_echo *echo)
{
	seen.echoes++;
	seen.echo = *echo;
}

static void on_error(void *ctx, const struct icmp_error *error)
{
	seen.errors++;
	seen.error = *error;
}

static const struct net_ops callbacks = { .udp_input = on_udp, .echo_input = on_echo,
					  .icmp_error = on_error };

static struct sim sim;
static struct sim_end ends[2];
static struct net_config config;

static int begin(void **state)
{
	memset(&sim, 0, sizeof(sim));
	memset(&seen, 0, sizeof(seen));
	memset(&config, 0, sizeof(config));
	sim.delay = 10000;
	return 0;
}

static void start(void)
{
	sim_init(&sim, ends, &config, &callbacks);
}

static int finish(void **state)
{
	sim_finish(&sim);
	return 0;
}

static void run_ms(unsigned ms)
{
	(void)sim_run(&sim, ms * MS, NULL, NULL);
}

static int send_udp(struct net_endpoint from, struct net_endpoint to, const void *data, size_t len,
		    uint16_t gso_size)
{
	struct net_span span = { data, len };
	struct udp_datagram datagram = { .from = from, .to = to, .spans = &span, .count = 1,
					 .len = len, .gso_size = gso_size };

	return udp_send(sim.net[0], &datagram);
}

static void test_text_of_addresses_is_read_and_written(void **state)
{
	static const char *const good[] = { "0.0.0.0", "10.0.2.2", "255.255.255.255", "::", "::1", "1::",
					    "fe80::1", "2001:db8::1:0:0:1", "1:2:3:4:5:6:7:8",
					    "2001:db8:0:1:1:1:1:1", "fd00:0:0:1::" };
	static const char *const bad[] = { "", "1", "1.2.3", "1.2.3.4.5", "256.1.1.1", "01.2.3.4", ":",
					   ":::", "1::2::3", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9",
					   "12345::", "1:2:3:4:5:6:7:", ":1:2:3:4:5:6:7", "g::",
					   "1::2:3:4:5:6:7:8", "1.2.3.4 ", "::1.2.3", "::1.2.3.4:5" };
	struct net_addr addr;
	char text[NET_ADDR_TEXT];

	for (unsigned i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		assert_true(net_addr_parse(good[i], &addr));
		net_addr_text(&addr, text);
		assert_string_equal(text, good[i]);
	}
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_false(net_addr_parse(bad[i], &addr));
	assert_true(net_addr_parse("64:FF9B::192.0.2.1", &addr));
	net_addr_text(&addr, text);
	assert_string_equal(text, "64:ff9b::c000:201");
}

static void test_text_of_prefixes_is_read(void **state)
{
	static const struct {
		const char *text;
		uint8_t bits;
	} good[] = { { "10.1.2.3/24", 24 }, { "0.0.0.0/0", 0 }, { "10.1.2.3/32", 32 }, { "fd00::/64", 64 }, { "::1/128", 128 },
		     { "0001:0002:0003:0004:0005:0006:0007:0008/08", 8 } };
	static const char *const bad[] = { "", "/", "/24", "10.1.2.3", "10.1.2.3/", "10.1.2.3/33", "10.1.2.3/x", "10.1.2.3/+8",
					   "10.1.2.3/-1", "10.1.2.3/ 8", "10.1.2.3/8 ", "10.1.2.3/8/8", "10.1.2/8", "fd00::",
					   "fd00::/129", "fd00::/4294967297", "fd00::/18446744073709551617", "x/8",
					   "0000:0000:0000:0000:0000:0000:0000:0000:0000:0000/8" };
	struct net_addr addr, same;
	uint8_t bits = 77;

	for (unsigned i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		char plain[64];

		(void)snprintf(plain, strcspn(good[i].text, "/") + 1, "%s", good[i].text);
		assert_true(net_prefix_parse(good[i].text, &addr, &bits));
		assert_int_equal(bits, good[i].bits);
		assert_true(net_addr_parse(plain, &same));
		assert_true(net_addr_equal(&addr, &same));
	}
	bits = 77;
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_false(net_prefix_parse(bad[i], &addr, &bits));
	assert_int_equal(bits, 77);
}

static void test_prefixes_are_compared_within_a_family(void **state)
{
	struct net_addr a = net_addr4(10, 1, 2, 3), b = net_addr4(10, 1, 130, 3), c;

	assert_true(net_addr_same_prefix(&a, &b, 16));
	assert_false(net_addr_same_prefix(&a, &b, 17));
	assert_true(net_addr_same_prefix(&a, &b, 0));
	assert_true(net_addr_parse("::a01:203", &c));
	assert_false(net_addr_same_prefix(&a, &c, 0));
	net_addr_cut(&b, 17);
	assert_true(net_addr_parse("10.1.128.0", &c) && net_addr_equal(&b, &c));
	assert_true(net_addr_parse("fd00::a01:203", &c));
	net_addr_cut(&c, 111);
	assert_true(net_addr_parse("fd00::a00:0", &a) && net_addr_equal(&a, &c));
}

static uint16_t sum_slowly(const uint8_t *bytes, size_t len)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < len; i++)
		sum += i % 2 ? bytes[i] : (uint64_t)bytes[i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

static void test_sums_do_not_depend_on_how_bytes_are_cut(void **state)
{
	static uint8_t bytes[3000];
	uint32_t x = 7;

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)((x = x * 1103515245 + 12345) >> 16);
	for (unsigned round = 0; round < 2000; round++) {
		struct net_span spans[5];
		size_t at = round % 9, begin = at;
		uint16_t sum;

		for (unsigned i = 0; i < 5; i++) {
			x = x * 1103515245 + 12345;
			spans[i] = (struct net_span){ bytes + at, (x >> 16) % 500 };
			at += spans[i].len;
		}
		sum = sum_fold(sum_spans(spans, 5, 0));
		assert_int_equal((uint16_t)(sum << 8 | sum >> 8) % 0xffff,
				 sum_slowly(bytes + begin, at - begin) % 0xffff);
	}
	memset(bytes, 0xff, sizeof(bytes));
	assert_int_equal(sum_fold(sum_bytes(bytes, 2998, 0)), 0xffff);
}

static void test_ping_is_answered_in_both_families(void **state)
{
	static const uint8_t data[1000] = { 1, 2, 3 };
	struct net_span span = { data, sizeof(data) };
	struct icmp_echo echo = { .id = 7, .seq = 8, .spans = &span, .count = 1, .len = sizeof(data) };

	start();
	for (int v6 = 0; v6 < 2; v6++) {
		echo.from = (v6 ? sim_end6(0, 0) : sim_end4(0, 0)).addr;
		echo.to = (v6 ? sim_end6(1, 0) : sim_end4(1, 0)).addr;
		for (size_t len = 0; len <= sizeof(data); len += 500) {
			echo.len = span.len = len;
			assert_int_equal(icmp_send_echo(sim.net[0], &echo), NET_OK);
			run_ms(10);
			assert_true(seen.echo.reply);
			assert_int_equal(seen.echo.id, 7);
			assert_int_equal(seen.echo.seq, 8);
			assert_int_equal(seen.echo.len, len);
		}
	}
	assert_int_equal(seen.echoes, 6);
}

static void test_datagrams_of_every_size_arrive_in_both_families(void **state)
{
	static uint8_t data[65507];

	start();
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * 7 + (i >> 8));
	for (int v6 = 0; v6 < 2; v6++) {
		for (size_t len = 0; len <= sizeof(data); len = len * 3 + 1) {
			seen.datagrams = 0;
			assert_int_equal(send_udp(v6 ? sim_end6(0, 5) : sim_end4(0, 5),
						  v6 ? sim_end6(1, 6) : sim_end4(1, 6), data, len, 0),
					 NET_OK);
			run_ms(10);
			assert_int_equal(seen.datagrams, 1);
			assert_int_equal(seen.len, len);
			assert_memory_equal(seen.bytes, data, len);
			assert_int_equal(seen.from.port, 5);
			assert_int_equal(seen.to.port, 6);
		}
	}
	assert_int_equal(send_udp(sim_end4(0, 5), sim_end4(1, 6), data, 65508, 0), NET_EMSGSIZE);
}

static void test_a_train_of_datagrams_goes_as_the_peer_takes_it(void **state)
{
	static uint8_t data[10000];

	start();
	assert_int_equal(send_udp(sim_end4(0, 5), sim_end4(1, 6), data, sizeof(data), 1200), NET_OK);
	run_ms(10);
	assert_int_equal(seen.datagrams, 4);	/* more wait for ARP than it keeps */
	assert_int_equal(send_udp(sim_end4(0, 5), sim_end4(1, 6), data, sizeof(data), 1200), NET_OK);
	run_ms(10);
	assert_int_equal(seen.datagrams, 4 + 9);
	net_set_offloads(sim.net[0], NET_OFFLOAD_CSUM | NET_OFFLOAD_USO);
	assert_int_equal(send_udp(sim_end4(0, 5), sim_end4(1, 6), data, sizeof(data), 1200), NET_OK);
	run_ms(10);
	assert_int_equal(seen.datagrams, 4 + 9 + 1);
	assert_int_equal(seen.gso_size, 1200);
	assert_int_equal(seen.len, sizeof(data));
}

static void test_a_port_that_nobody_serves_is_unreachable(void **state)
{
	start();
	for (int v6 = 0; v6 < 2; v6++) {
		assert_int_equal(send_udp(v6 ? sim_end6(0, 1234) : sim_end4(0, 1234),
					  v6 ? sim_end6(1, 9) : sim_end4(1, 9), "x", 1, 0), NET_OK);
		run_ms(10);
		assert_int_equal(seen.errors, v6 + 1);
		assert_int_equal(seen.error.kind, ICMP_PORT_UNREACHABLE);
		assert_int_equal(seen.error.proto, ICMP_PROTO_UDP);
		assert_int_equal(seen.error.sender.port, 1234);
		assert_int_equal(seen.error.target.port, 9);
	}
}

static void test_errors_of_every_kind_cross_the_link(void **state)
{
	start();
	for (int v6 = 0; v6 < 2; v6++) {
		for (int kind = ICMP_NET_UNREACHABLE; kind <= ICMP_REASSEMBLY_EXCEEDED; kind++) {
			struct icmp_error error = {
				.kind = (enum icmp_kind)kind, .proto = ICMP_PROTO_UDP, .mtu = 1300,
				.sender = v6 ? sim_end6(1, 77) : sim_end4(1, 77),
				.target = v6 ? sim_end6(0, 88) : sim_end4(0, 88) };

			assert_int_equal(icmp_send_error(sim.net[0], &error), NET_OK);
			run_ms(10);
			assert_int_equal(seen.error.kind, kind);
			assert_int_equal(seen.error.sender.port, 77);
			assert_int_equal(seen.error.target.port, 88);
			if (kind == ICMP_TOO_BIG)
				assert_int_equal(seen.error.mtu, 1300);
		}
	}
}

static void test_errors_are_limited_in_rate(void **state)
{
	struct net_stats stats;

	start();
	for (unsigned i = 0; i < 500; i++) {
		(void)send_udp(sim_end4(0, 1234), sim_end4(1, 9), "x", 1, 0);
		(void)sim_run(&sim, 20000, NULL, NULL);
	}
	net_stats(sim.net[1], &stats);
	assert_true(stats.icmp_limited > 300);
	assert_true(seen.errors < 150);
}

static void test_neighbours_are_asked_for_and_given_up(void **state)
{
	struct net_endpoint nobody = sim_end4(0, 1), other = sim_end4(1, 1);
	struct net_stats stats;
	uint8_t mac[NET_MAC_SIZE];

	start();
	nobody.addr.b[15] = 77;
	(void)send_udp(sim_end4(0, 1), nobody, "x", 1, 0);
	run_ms(5000);
	net_stats(sim.net[0], &stats);
	assert_int_equal(stats.no_neighbour, 1);
	assert_int_equal(stats.neighbours, 0);
	(void)send_udp(sim_end4(0, 1), sim_end4(1, 1), "x", 1, 0);
	run_ms(10);
	assert_true(net_neighbour(sim.net[0], &other.addr, mac));
	assert_int_equal(mac[5], 2);
}

static void test_addresses_come_and_go(void **state)
{
	struct net_addr extra = net_addr4(10, 0, 0, 9), group = net_addr4(224, 0, 0, 1);
	struct net_endpoint from = sim_end4(0, 5), to = { extra, 6 };

	start();
	assert_int_equal(net_add_addr(sim.net[1], &extra, 33), NET_EINVAL);
	assert_int_equal(net_add_addr(sim.net[1], &group, 24), NET_EINVAL);
	assert_int_equal(net_add_addr(sim.net[1], &extra, 24), NET_OK);
	assert_int_equal(net_add_addr(sim.net[1], &extra, 24), NET_EADDRINUSE);
	assert_int_equal(send_udp(from, to, "x", 1, 0), NET_OK);
	run_ms(10);
	assert_int_equal(seen.datagrams, 1);
	net_remove_addr(sim.net[1], &extra);
	assert_false(net_is_own(sim.net[1], &extra));
	assert_int_equal(send_udp(from, to, "x", 1, 0), NET_OK);
	run_ms(10);
	assert_int_equal(seen.datagrams, 1);
}

static void test_a_datagram_of_too_many_pieces_is_refused_and_one_less_arrives(void **state)
{
	static const uint8_t big[3000];
	struct net_span spans[NET_SPANS_MAX];
	struct udp_datagram datagram = { .from = sim_end4(0, 5), .to = sim_end4(1, 6), .spans = spans };

	start();
	for (datagram.count = 0; datagram.count < 62; datagram.count++) {
		spans[datagram.count] = (struct net_span){ big, datagram.count < 61 ? 1 : sizeof(big) };
		datagram.len += spans[datagram.count].len;
	}
	assert_int_equal(udp_send(sim.net[0], &datagram), NET_OK);	/* the sim wants 64 spans at most */
	run_ms(10);
	assert_int_equal(seen.datagrams, 1);
	assert_int_equal(seen.len, 3061);
	spans[datagram.count++] = (struct net_span){ big, 1 };
	datagram.len++;
	assert_int_equal(udp_send(sim.net[0], &datagram), NET_EMSGSIZE);
}

static void test_a_host_without_router_cannot_leave_the_link(void **state)
{
	struct net_endpoint far = { net_addr4(8, 8, 8, 8), 53 }, router = sim_end4(1, 0);

	start();
	assert_int_equal(send_udp(sim_end4(0, 1), far, "x", 1, 0), NET_ENETUNREACH);
	net_set_router(sim.net[0], &router.addr, NULL);
	assert_int_equal(send_udp(sim_end4(0, 1), far, "x", 1, 0), NET_OK);
	run_ms(10);
	assert_int_equal(seen.datagrams, 0);	/* the other is a host, not a router */
}

static void test_a_proxy_is_everybody_beyond_the_link(void **state)
{
	struct net_endpoint far = { net_addr4(8, 8, 8, 8), 53 }, far6 = { .port = 53 };

	config.proxy = true;
	start();
	assert_true(net_addr_parse("2001:4860::8888", &far6.addr));
	(void)send_udp(sim_end4(0, 1), far, "hello", 5, 0);
	run_ms(10);
	assert_int_equal(seen.datagrams, 1);
	assert_true(net_addr_equal(&seen.to.addr, &far.addr));
	(void)send_udp(sim_end6(0, 1), far6, "hello", 5, 0);
	run_ms(10);
	assert_int_equal(seen.datagrams, 2);
	assert_true(net_addr_equal(&seen.to.addr, &far6.addr));
}

/* Hands the second net raw IPv4 fragments from the first. */
static void fragment(uint16_t id, unsigned offset, bool more, const char *data, size_t len)
{
	uint8_t frame[200] = { 2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17,
			       0, 0, 10, 0, 0, 1, 10, 0, 0, 2 };
	struct net_span span = { frame, 34 + len };
	struct net_frame input = { .spans = &span, .count = 1, .len = (uint32_t)span.len };
	uint16_t sum;

	frame[17] = (uint8_t)(20 + len);
	frame[18] = (uint8_t)(id >> 8);
	frame[19] = (uint8_t)id;
	frame[20] = (uint8_t)(offset / 8 >> 8 | (more ? 0x20 : 0));
	frame[21] = (uint8_t)(offset / 8);
	sum = (uint16_t)~sum_fold(sum_bytes(frame + 14, 20, 0));
	memcpy(frame + 24, &sum, 2);
	memcpy(frame + 34, data, len);
	net_input(sim.net[1], &input, sim.now);
}

static const char udp_header[] = "\x00\x05\x00\x06\x00\x20\x00\x00";	/* 32 bytes, no checksum */

static void test_fragments_arrive_in_any_order(void **state)
{
	struct net_stats stats;

	start();
	fragment(1, 16, false, "cccccccccccccccc", 16);
	fragment(1, 8, true, "bbbbbbbb", 8);
	fragment(1, 8, true, "bbbbbbbb", 8);	/* again */
	fragment(1, 0, true, udp_header, 8);
	assert_int_equal(seen.datagrams, 1);
	assert_int_equal(seen.len, 24);
	assert_memory_equal(seen.bytes, "bbbbbbbbcccccccccccccccc", 24);
	net_stats(sim.net[1], &stats);
	assert_int_equal(stats.reassembled, 1);
}

static void test_overlapping_fragments_spoil_the_packet(void **state)
{
	start();
	fragment(1, 0, true, udp_header, 8);
	fragment(1, 8, true, "bbbbbbbbbbbbbbbb", 16);
	fragment(1, 16, false, "cccccccccccccccc", 16);
	fragment(1, 8, true, "bbbbbbbb", 8);
	assert_int_equal(seen.datagrams, 0);
}

static void test_a_fragment_beyond_the_end_spoils_the_packet(void **state)
{
	start();
	fragment(1, 24, true, "dddddddd", 8);
	fragment(1, 16, false, "cccccccc", 8);
	fragment(1, 0, true, udp_header, 8);
	fragment(1, 8, true, "bbbbbbbb", 8);
	assert_int_equal(seen.datagrams, 0);
}

static void test_fragments_that_never_end_are_bounded_and_time_out(void **state)
{
	struct net_stats before, after;

	config.limits.fragments = 10000;
	start();
	net_stats(sim.net[1], &before);
	for (unsigned i = 0; i < 1000; i++)
		fragment((uint16_t)i, 0, true, udp_header, 8);
	net_stats(sim.net[1], &after);
	assert_true(after.memory - before.memory < 16000);
	assert_true(after.fragments_dropped > 900);
	run_ms(40000);
	net_stats(sim.net[1], &after);
	assert_int_equal(after.fragments_dropped, 1000);
}

static void test_broken_frames_are_counted_and_nothing_else(void **state)
{
	struct net_stats stats;
	uint8_t bytes[80];
	struct net_span span = { bytes, 0 };
	struct net_frame frame = { .spans = &span, .count = 1 };

	start();
	for (unsigned i = 0; i < 20000; i++) {
		for (unsigned j = 0; j < sizeof(bytes); j++)
			bytes[j] = (uint8_t)sim_random(&sim);
		memcpy(bytes, (uint8_t[]){ 2, 0, 0, 0, 0, 2 }, 6);
		bytes[12] = i % 3 == 2 ? 0x86 : 8;
		bytes[13] = i % 3 == 2 ? 0xdd : i % 3 == 1 ? 6 : 0;
		bytes[14] = i % 3 == 2 ? 0x60 : i % 3 ? bytes[14] : 0x45;
		span.len = frame.len = i % sizeof(bytes);
		net_input(sim.net[1], &frame, sim.now);
	}
	net_stats(sim.net[1], &stats);
	assert_int_equal(stats.in_frames, 20000);
	assert_true(stats.bad_ip > 1000);
	assert_int_equal(seen.datagrams, 0);
}

/* DHCP by hand: the client's message is built here, the answer taken by a service at port 68. */
static uint8_t answer[1024];
static size_t answer_len;

static void take_answer(struct udp_service *service, struct net *net,
			const struct udp_datagram *datagram, const uint8_t mac[NET_MAC_SIZE])
{
	answer_len = 0;
	for (unsigned i = 0; i < datagram->count; i++) {
		memcpy(answer + answer_len, datagram->spans[i].data, datagram->spans[i].len);
		answer_len += datagram->spans[i].len;
	}
}

static const uint8_t *option4(uint8_t code)
{
	for (size_t at = 240; at + 2 < answer_len && answer[at] != 255; at += 2u + answer[at + 1])
		if (answer[at] == code)
			return answer + at + 2;
	return NULL;
}

static void ask_dhcp(uint8_t type, uint8_t mac5, const uint8_t *wanted)
{
	uint8_t message[300] = { 1, 1, 6, 0, 1, 2, 3, 4, [10] = 0x80, [28] = 2, [33] = mac5,
				 [236] = 0x63, 0x82, 0x53, 0x63, 53, 1, type };
	struct net_endpoint from = { net_addr4(0, 0, 0, 0), 68 },
			    to = { net_addr4(255, 255, 255, 255), 67 };
	size_t at = 243;

	if (wanted) {
		message[at] = 50;
		message[at + 1] = 4;
		memcpy(message + at + 2, wanted, 4);
		at += 6;
	}
	message[at] = 255;
	answer_len = 0;
	assert_int_equal(send_udp(from, to, message, sizeof(message), 0), NET_OK);
	run_ms(10);
}

static void test_dhcp_gives_each_client_an_address_and_no_more_than_there_are(void **state)
{
	struct dhcp4_server_config dhcp = { .server = net_addr4(10, 0, 0, 2), .prefix = 24,
					    .router = net_addr4(10, 0, 0, 2), .lease_s = 100,
					    .dns = { net_addr4(10, 0, 0, 3) }, .dns_count = 1,
					    .first = net_addr4(10, 0, 0, 50),
					    .last = net_addr4(10, 0, 0, 51), .domain = "x.test" };
	struct udp_service client = { .local = { .port = 68 }, .input = take_answer };
	struct dhcp4_server *server;
	uint8_t wrong[4] = { 10, 9, 9, 9 };

	start();
	assert_int_equal(udp_serve(sim.net[0], &client), NET_OK);
	server = dhcp4_server_create(sim.net[1], &dhcp);
	assert_non_null(server);
	for (uint8_t mac = 1; mac <= 2; mac++) {
		ask_dhcp(1, mac, NULL);
		assert_int_equal(option4(53)[0], 2);
		assert_int_equal(answer[19], 49 + mac);
		ask_dhcp(3, mac, answer + 16);
		assert_int_equal(option4(53)[0], 5);
		assert_memory_equal(option4(1), "\xff\xff\xff\0", 4);
		assert_memory_equal(option4(15), "x.test", 6);
	}
	ask_dhcp(1, 3, NULL);
	assert_int_equal(answer_len, 0);
	ask_dhcp(3, 1, wrong);
	assert_int_equal(option4(53)[0], 6);
	run_ms(200000);	/* the leases end */
	ask_dhcp(1, 3, NULL);
	assert_int_equal(option4(53)[0], 2);
	dhcp4_server_destroy(server);
}

static void test_dhcpv6_gives_the_address_that_belongs_to_the_client(void **state)
{
	static const uint8_t message[] = { 1, 1, 2, 3,	/* SOLICIT */
		0, 1, 0, 10, 0, 3, 0, 1, 2, 0, 0, 0, 0, 1,	/* client id */
		0, 14, 0, 0,	/* rapid commit */
		0, 3, 0, 12, 9, 9, 9, 9, 0, 0, 0, 0, 0, 0, 0, 0 };	/* IA_NA */
	struct dhcp6_server_config dhcp = { .lease_s = 1000, .dns_count = 1, .search = "x.test" };
	struct udp_service client = { .local = { .port = 546 }, .input = take_answer };
	struct net_endpoint from = { .port = 546 }, to = { .port = 547 };
	struct dhcp6_server *server;
	bool found = false;

	start();
	assert_true(net_addr_parse("fd00::", &dhcp.pool));
	assert_true(net_addr_parse("fe80::ff:fe00:1", &from.addr));
	assert_true(net_addr_parse("ff02::1:2", &to.addr));
	assert_int_equal(udp_serve(sim.net[0], &client), NET_OK);
	server = dhcp6_server_create(sim.net[1], &dhcp);
	assert_non_null(server);
	assert_int_equal(send_udp(from, to, message, sizeof(message), 0), NET_OK);
	run_ms(10);
	assert_true(answer_len > 40);
	assert_int_equal(answer[0], 7);
	for (size_t at = 4; at + 4 <= answer_len; at += 4u + (size_t)(answer[at + 2] << 8 | answer[at + 3])) {
		if (answer[at + 1] != 3)
			continue;
		found = true;
		assert_memory_equal(answer + at + 4, "\x09\x09\x09\x09", 4);
		assert_memory_equal(answer + at + 20, "\xfd\0\0\0\0\0\0\0\0\0\x02\0\0\0\0\x01", 16);
	}
	assert_true(found);
	dhcp6_server_destroy(server);
}

static unsigned advertisements;
static uint8_t advertisement[400];

static bool watch_advertisements(struct sim *watched, unsigned from, const struct net_frame *frame,
				 const uint8_t *bytes)
{
	if (bytes[12] == 0x86 && bytes[20] == 58 && bytes[54] == 134) {
		advertisements++;
		memcpy(advertisement, bytes, frame->len < 400 ? frame->len : 400);
	}
	return true;
}

static void test_router_advertisements_come_at_their_interval(void **state)
{
	struct ra_config ra = { .prefix_len = 64, .autonomous = true, .lifetime_s = 600,
				.router_lifetime_s = 1800, .mtu = 1400, .interval_s = 100,
				.search = "a.test b.test", .dns_count = 1 };
	struct ra_sender *sender;

	start();
	advertisements = 0;
	sim.filter = watch_advertisements;
	assert_true(net_addr_parse("fd00::7", &ra.prefix));
	assert_true(net_addr_parse("fd00::3", &ra.dns[0]));
	sender = ra_create(sim.net[1], &ra);
	assert_non_null(sender);
	assert_null(ra_create(sim.net[1], &ra));
	run_ms(300000);
	assert_in_range(advertisements, 4, 6);
	assert_int_equal(advertisement[58], 64);	/* hop limit for hosts */
	assert_int_equal(advertisement[60] << 8 | advertisement[61], 1800);
	assert_int_equal(advertisement[70 + 8], 5);	/* MTU comes after the link-layer address */
	ra_destroy(sender);
}

/* DNS. */

static size_t query_bytes(uint8_t *out, const char *name, uint16_t type, bool edns)
{
	size_t at = 12;

	memset(out, 0, 12);
	out[0] = 0x12;
	out[1] = 0x34;
	out[2] = 1;	/* recursion desired */
	out[5] = 1;
	while (*name) {
		size_t len = strcspn(name, ".");

		out[at++] = (uint8_t)len;
		memcpy(out + at, name, len);
		at += len;
		name += len + (name[len] == '.');
	}
	out[at++] = 0;
	out[at++] = (uint8_t)(type >> 8);
	out[at++] = (uint8_t)type;
	out[at++] = 0;
	out[at++] = 1;
	if (edns) {
		memcpy(out + at, "\0\0\x29\x10\0\0\0\0\0\0\0", 11);
		out[11] = 1;
		at += 11;
	}
	return at;
}

static void test_dns_answers_from_the_table(void **state)
{
	struct net_addr web[2] = { net_addr4(10, 0, 0, 9), { .b = { 0xfd, [15] = 9 } } };
	struct dns_host hosts[] = { { "web", web, 2 }, { "host.roux.internal", web, 1 } };
	struct dns_table table = { hosts, 2, "net.test", 60 };
	static const struct {
		const char *name;
		uint16_t type;
		int rcode;	/* -1: not for the table */
		unsigned answers;
	} cases[] = {
		{ "web", DNS_A, 0, 1 }, { "WEB.net.TEST", DNS_A, 0, 1 }, { "web.net.test", DNS_AAAA, 0, 1 },
		{ "web", DNS_ANY, 0, 2 }, { "web", 15, 0, 0 }, { "other.net.test", DNS_A, 3, 0 },
		{ "net.test", DNS_A, 3, 0 }, { "web.example", DNS_A, -1, 0 },
		{ "xnet.test", DNS_A, -1, 0 }, { "host.roux.internal", DNS_A, 0, 1 },
		{ "host.roux.internal", DNS_AAAA, 0, 0 }, { "9.0.0.10.in-addr.arpa", DNS_PTR, 0, 1 },
		{ "8.0.0.10.in-addr.arpa", DNS_PTR, -1, 0 },
		{ "9.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa", DNS_PTR, 0, 1 },
	};
	uint8_t query_buf[512], out[600];
	struct dns_query query;
	struct dns_reader reader;
	struct dns_record record;

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		size_t len = query_bytes(query_buf, cases[i].name, cases[i].type, i & 1);
		int got, answers = 0;

		assert_int_equal(dns_parse_query(query_buf, len, &query), NET_OK);
		assert_int_equal(query.udp_size, i & 1 ? 4096 : 512);
		got = dns_answer(&table, &query, query_buf, len, 512, out, sizeof(out));
		if (cases[i].rcode < 0) {
			assert_int_equal(got, 0);
			continue;
		}
		assert_true(got > 0);
		assert_int_equal(out[3] & 15, cases[i].rcode);
		assert_true(dns_is_response(out, (size_t)got, &query, 0x1234));
		assert_false(dns_is_response(out, (size_t)got, &query, 0x1235));
		assert_true(dns_read_answers(&reader, out, (size_t)got));
		while (dns_next_answer(&reader, &record) == 1) {
			answers++;
			assert_int_equal(record.ttl_s, 60);
			if (record.type == DNS_A)
				assert_true(net_addr_equal(&record.addr, &web[0]));
			if (record.type == DNS_PTR)
				assert_string_equal(record.target, "web.net.test");
		}
		assert_int_equal(answers, cases[i].answers);
	}
}

static void test_dns_answers_that_are_too_long_are_cut_after_the_question(void **state)
{
	struct net_addr many[100];
	struct dns_host host = { "many", many, 100 };
	struct dns_table table = { &host, 1, NULL, 60 };
	uint8_t query_buf[512], out[4096];
	struct dns_query query;
	size_t len = query_bytes(query_buf, "many", DNS_A, false);
	int got;

	for (unsigned i = 0; i < 100; i++)
		many[i] = net_addr4(10, 0, 1, (uint8_t)i);
	assert_int_equal(dns_parse_query(query_buf, len, &query), NET_OK);
	got = dns_answer(&table, &query, query_buf, len, 512, out, sizeof(out));
	assert_int_equal(got, len);
	assert_int_equal(out[2] & 2, 2);
	got = dns_answer(&table, &query, query_buf, len, 4096, out, sizeof(out));
	assert_int_equal(got, len + 100 * 16);
	assert_int_equal(out[2] & 2, 0);
}

static void test_dns_names_that_loop_or_overflow_are_refused(void **state)
{
	uint8_t loop[] = { 0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 12, 0, 1, 0, 1 };
	uint8_t forward[] = { 0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 14, 1, 'a', 0, 0, 1, 0, 1 };
	uint8_t large[400] = { 0, 1, 1, 0, 0, 1 };
	struct dns_query query;

	assert_int_equal(dns_parse_query(loop, sizeof(loop), &query), NET_EINVAL);
	assert_int_equal(dns_parse_query(forward, sizeof(forward), &query), NET_EINVAL);
	for (unsigned i = 0; i < 5; i++)
		large[12 + i * 64] = 63;
	assert_int_equal(dns_parse_query(large, sizeof(large), &query), NET_EINVAL);
}

static void test_dns_errors_repeat_the_question(void **state)
{
	uint8_t query_buf[512], out[600];
	struct dns_query query;
	size_t len = query_bytes(query_buf, "a.b", DNS_A, true), got;

	assert_int_equal(dns_parse_query(query_buf, len, &query), NET_OK);
	got = dns_error(&query, query_buf, len, DNS_SERVFAIL, out, sizeof(out));
	assert_int_equal(got, len);
	assert_int_equal(out[3] & 15, DNS_SERVFAIL);
	assert_true(dns_is_response(out, got, &query, 0x1234));
	assert_int_equal(dns_error(NULL, query_buf, len, DNS_FORMERR, out, sizeof(out)), 12);
}

#define on_link(test) cmocka_unit_test_setup_teardown(test, begin, finish)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_text_of_addresses_is_read_and_written),
		cmocka_unit_test(test_text_of_prefixes_is_read),
		cmocka_unit_test(test_prefixes_are_compared_within_a_family),
		cmocka_unit_test(test_sums_do_not_depend_on_how_bytes_are_cut),
		on_link(test_ping_is_answered_in_both_families),
		on_link(test_datagrams_of_every_size_arrive_in_both_families),
		on_link(test_a_train_of_datagrams_goes_as_the_peer_takes_it),
		on_link(test_a_port_that_nobody_serves_is_unreachable),
		on_link(test_errors_of_every_kind_cross_the_link),
		on_link(test_errors_are_limited_in_rate),
		on_link(test_neighbours_are_asked_for_and_given_up),
		on_link(test_addresses_come_and_go),
		on_link(test_a_datagram_of_too_many_pieces_is_refused_and_one_less_arrives),
		on_link(test_a_host_without_router_cannot_leave_the_link),
		on_link(test_a_proxy_is_everybody_beyond_the_link),
		on_link(test_fragments_arrive_in_any_order),
		on_link(test_overlapping_fragments_spoil_the_packet),
		on_link(test_a_fragment_beyond_the_end_spoils_the_packet),
		on_link(test_fragments_that_never_end_are_bounded_and_time_out),
		on_link(test_broken_frames_are_counted_and_nothing_else),
		on_link(test_dhcp_gives_each_client_an_address_and_no_more_than_there_are),
		on_link(test_dhcpv6_gives_the_address_that_belongs_to_the_client),
		on_link(test_router_advertisements_come_at_their_interval),
		cmocka_unit_test(test_dns_answers_from_the_table),
		cmocka_unit_test(test_dns_answers_that_are_too_long_are_cut_after_the_question),
		cmocka_unit_test(test_dns_names_that_loop_or_overflow_are_refused),
		cmocka_unit_test(test_dns_errors_repeat_the_question),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
