/* SPDX-License-Identifier: Apache-2.0 */
#include "link/guard.h"
#include "link/port.h"
#include "link/segment.h"
#include "link/switch.h"
#include "net/net.h"
#include "os/err.h"
#include "os/loop.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#define VMS 3u
#define ETH 14u
#define IP4 20u
#define TCP 20u

static struct loop *loop;
static struct net_switch *sw;

static struct vm {
	int holder, line;
	struct switch_reserved place;
} vm[VMS];

static void stop(void *ctx)
{
	loop_quit(ctx);
}

/* Lets the switch do all it has to do. */
static void settle(void)
{
	for (int i = 0; i < 4; i++) {
		assert_int_equal(loop_post(loop, stop, loop), 0);
		assert_int_equal(loop_run(loop, NULL), 0);
	}
}

static int new_client(void)
{
	const struct timeval soon = { .tv_sec = 5 };
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof(soon)), 0);
	assert_int_equal(switch_adopt(sw, pair[1]), 0);
	return pair[0];
}

static void ask(int fd, const void *m, size_t len)
{
	assert_int_equal(send(fd, m, len, 0), len);
	settle();
}

static int hear(int fd, void *buf, size_t size)
{
	ssize_t n = recv(fd, buf, size, MSG_DONTWAIT);

	return n < 0 ? -errno : (int)n;
}

static void reserve(struct vm *v, const char *name)
{
	struct switch_reserve m = { .type = SWITCH_RESERVE, .version = SWITCH_VERSION, .keep = true };

	strcpy(m.name, name);
	v->holder = new_client();
	ask(v->holder, &m, sizeof(m));
	assert_int_equal(hear(v->holder, &v->place, sizeof(v->place)), sizeof(v->place));
	assert_int_equal(v->place.type, SWITCH_RESERVED);
}

/* What it is told of names is left in its socket. */
static void claim(struct vm *v)
{
	struct switch_claim m = { .type = SWITCH_CLAIM };
	struct switch_answer a;

	memcpy(m.token, v->place.token, sizeof(m.token));
	v->line = new_client();
	ask(v->line, &m, sizeof(m));
	assert_int_equal(hear(v->line, &a, sizeof(a)), sizeof(a));
	assert_int_equal(a.type, SWITCH_CLAIMED);
}

/* Forgets what has come so far; the number of messages. */
static unsigned drain(const struct vm *v)
{
	static struct switch_packet packet;
	unsigned n = 0;

	while (hear(v->line, &packet, sizeof(packet)) > 0)
		n++;
	return n;
}

static void leave(struct vm *v)
{
	if (v->line >= 0)
		(void)close(v->line);
	if (v->holder >= 0)
		(void)close(v->holder);
	v->line = v->holder = -1;
	settle();
}

static bool may_end(void *ctx)
{
	return *(bool *)ctx;
}

static bool end_allowed;
static int leases;

static void start_switch(void)
{
	struct switch_config c = { .first = 2, .ports = 4, .mtu = 1500, .leases = leases, .linger_ns = 1000000,
				   .may_end = may_end, .ctx = &end_allowed };

	assert_true(net_addr_parse("10.89.1.0", &c.prefix4));
	assert_true(net_addr_parse("fd72:6f75:7801::", &c.prefix6));
	assert_int_equal(switch_create(loop, &c, &sw, NULL), 0);
}

static int set_up(void **state)
{
	leases = memfd_create("leases", 0);
	end_allowed = false;
	assert_int_equal(loop_create(&loop, NULL), 0);
	start_switch();
	for (unsigned i = 0; i < VMS; i++) {
		reserve(&vm[i], (const char *const[]){ "one", "two", "three" }[i]);
		claim(&vm[i]);
	}
	for (unsigned i = 0; i < VMS; i++)
		(void)drain(&vm[i]);
	return 0;
}

static int tear_down(void **state)
{
	for (unsigned i = 0; i < VMS; i++)
		leave(&vm[i]);
	switch_destroy(sw);
	loop_destroy(loop);
	(void)close(leases);
	return 0;
}

/* ------------------------------------------------------------------- frames */

static struct switch_packet packet;
static uint32_t packet_len;	/* of the Ethernet frame */

static void put16(uint8_t *at, unsigned v)
{
	at[0] = (uint8_t)(v >> 8);
	at[1] = (uint8_t)v;
}

static void make_ethernet(const struct vm *from, const uint8_t *to, unsigned type)
{
	static const uint8_t everybody[6] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };

	memset(&packet, 0, sizeof(packet));
	packet.head.type = SWITCH_FRAME;
	memcpy(packet.bytes, to ? to : everybody, 6);
	memcpy(packet.bytes + 6, from->place.mac, 6);
	put16(packet.bytes + 12, type);
}

/* An IPv4 packet of @payload bytes. */
static void make_ip4(const struct vm *from, const struct vm *to, unsigned proto, unsigned payload)
{
	uint8_t *ip = packet.bytes + ETH;

	make_ethernet(from, to->place.mac, 0x0800);
	ip[0] = 0x45;
	put16(ip + 2, IP4 + payload);
	ip[8] = 64;
	ip[9] = (uint8_t)proto;
	memcpy(ip + 12, &from->place.ip4.b[12], 4);
	memcpy(ip + 16, &to->place.ip4.b[12], 4);
	packet_len = ETH + IP4 + payload;
}

static void make_ip6(const struct vm *from, const struct vm *to, unsigned next, unsigned payload)
{
	uint8_t *ip = packet.bytes + ETH;

	make_ethernet(from, to->place.mac, 0x86dd);
	ip[0] = 0x60;
	put16(ip + 4, payload);
	ip[6] = (uint8_t)next;
	ip[7] = 255;
	memcpy(ip + 8, from->place.ip6.b, 16);
	memcpy(ip + 24, to->place.ip6.b, 16);
	packet_len = ETH + 40 + payload;
}

static void make_arp(const struct vm *from, const struct net_addr *sender)
{
	uint8_t *arp = packet.bytes + ETH;

	make_ethernet(from, NULL, 0x0806);
	memcpy(arp, (const uint8_t[]){ 0, 1, 8, 0, 6, 4, 0, 1 }, 8);
	memcpy(arp + 8, from->place.mac, 6);
	memcpy(arp + 14, &sender->b[12], 4);
	packet_len = 42;
}

/* A neighbour's message (RFC 4861, 4.3 and 4.4) with a link-layer address. */
static void make_neighbour(const struct vm *from, const struct vm *to, unsigned type, const struct net_addr *target)
{
	uint8_t *icmp = packet.bytes + ETH + 40;

	make_ip6(from, to, 58, 32);
	icmp[0] = (uint8_t)type;
	memcpy(icmp + 8, target->b, 16);
	icmp[24] = type == 136 ? 2 : 1;
	icmp[25] = 1;
	memcpy(icmp + 26, from->place.mac, 6);
}

/* A TCP segment for the receiver to sum, to be cut at @mss (0: as it is). */
static void make_tcp(bool six, const struct vm *from, const struct vm *to, unsigned payload, unsigned mss)
{
	unsigned at = ETH + (six ? 40 : IP4);
	struct virtio_net_hdr_v1 *hdr = &packet.head.hdr;

	if (six)
		make_ip6(from, to, 6, TCP + payload);
	else
		make_ip4(from, to, 6, TCP + payload);
	for (unsigned i = 0; i < payload; i++)
		packet.bytes[at + TCP + i] = (uint8_t)(i * 7 + i / 256);
	packet.bytes[at + 12] = 5 << 4;
	packet.bytes[at + 13] = 0x19;	/* FIN, PSH, ACK */
	hdr->flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
	hdr->csum_start = (uint16_t)at;
	hdr->csum_offset = 16;
	hdr->gso_size = (uint16_t)mss;
	hdr->gso_type = !mss ? VIRTIO_NET_HDR_GSO_NONE : six ? VIRTIO_NET_HDR_GSO_TCPV6 : VIRTIO_NET_HDR_GSO_TCPV4;
}

static void send_packet(const struct vm *from)
{
	ask(from->line, &packet, sizeof(packet.head) + packet_len);
}

/* The frame that @v has got, in packet; its length, or a negative errno. */
static int received(const struct vm *v)
{
	int n = hear(v->line, &packet, sizeof(packet));

	return n < 0 ? n : n - (int)sizeof(packet.head);
}

static struct switch_counters counters(unsigned i)
{
	static struct switch_listed m;
	const uint32_t type = SWITCH_LIST;
	int fd = new_client();

	ask(fd, &type, sizeof(type));
	assert_true(hear(fd, &m, sizeof(m)) > 0);
	assert_int_equal(m.type, SWITCH_LISTED);
	(void)close(fd);
	settle();
	return m.port[i].counters;
}

/* -------------------------------------------------------------------- ports */

static void test_frames_go_to_whom_they_name(void **state)
{
	make_ip4(&vm[0], &vm[1], 17, 100);
	send_packet(&vm[0]);
	assert_int_equal(received(&vm[1]), ETH + IP4 + 100);
	assert_int_equal(received(&vm[2]), -EAGAIN);
	assert_int_equal(received(&vm[0]), -EAGAIN);
	assert_int_equal(counters(0).sent.frames, 1);
	assert_int_equal(counters(1).received.bytes, ETH + IP4 + 100);
}

static void test_frames_for_a_group_go_to_all_others(void **state)
{
	make_arp(&vm[0], &vm[0].place.ip4);
	send_packet(&vm[0]);
	assert_int_equal(received(&vm[1]), 42);
	assert_int_equal(received(&vm[2]), 42);
	assert_int_equal(received(&vm[0]), -EAGAIN);
}

static void test_frames_for_nobody_are_counted(void **state)
{
	make_ip4(&vm[0], &vm[1], 17, 100);
	packet.bytes[5] = 9;
	send_packet(&vm[0]);
	make_ip4(&vm[0], &vm[0], 17, 100);
	send_packet(&vm[0]);
	assert_int_equal(counters(0).unknown, 2);
	assert_int_equal(received(&vm[0]), -EAGAIN);
}

static void test_long_frames_arrive_whole_and_marked(void **state)
{
	make_tcp(false, &vm[0], &vm[1], 60000, 1460);
	send_packet(&vm[0]);
	assert_int_equal(received(&vm[1]), ETH + IP4 + TCP + 60000);
	assert_int_equal(packet.head.hdr.gso_type, VIRTIO_NET_HDR_GSO_TCPV4);
	assert_int_equal(packet.head.hdr.gso_size, 1460);
	assert_int_equal(packet.head.hdr.flags, VIRTIO_NET_HDR_F_NEEDS_CSUM);
	assert_int_equal(packet.head.hdr.hdr_len, ETH + IP4 + TCP);
}

static void test_addresses_are_told_and_the_lowest_is_taken(void **state)
{
	char text[NET_ADDR_TEXT];
	struct vm other;

	net_addr_text(&vm[2].place.ip4, text);
	assert_string_equal(text, "10.89.1.4");
	net_addr_text(&vm[2].place.ip6, text);
	assert_string_equal(text, "fd72:6f75:7801::4");
	/* "one" has left: its address is kept for it while there is another. */
	leave(&vm[0]);
	reserve(&other, "four");
	net_addr_text(&other.place.ip4, text);
	assert_string_equal(text, "10.89.1.5");
	reserve(&vm[0], "one");
	net_addr_text(&vm[0].place.ip4, text);
	assert_string_equal(text, "10.89.1.2");
	leave(&vm[0]);
	/* Then it goes to somebody else. */
	reserve(&vm[0], "five");
	net_addr_text(&vm[0].place.ip4, text);
	assert_string_equal(text, "10.89.1.2");
	close(other.holder);
}

static void test_a_new_switch_remembers_names(void **state)
{
	char text[NET_ADDR_TEXT];

	for (unsigned i = 0; i < VMS; i++)
		leave(&vm[i]);
	switch_destroy(sw);
	assert_int_equal(pwrite(leases, "\1\2\3", 3, SWITCH_NAME_SIZE * 3), 3);	/* damage */
	start_switch();
	reserve(&vm[0], "three");
	net_addr_text(&vm[0].place.ip4, text);
	assert_string_equal(text, "10.89.1.4");
	reserve(&vm[1], "");
	net_addr_text(&vm[1].place.ip4, text);
	assert_string_equal(text, "10.89.1.5");
}

static void test_an_address_can_be_asked_for_while_it_is_free(void **state)
{
	struct switch_reserve m = { .type = SWITCH_RESERVE, .version = SWITCH_VERSION, .ip4 = vm[1].place.ip4 };
	struct switch_answer refused;
	int fd = new_client();

	ask(fd, &m, sizeof(m));
	assert_int_equal(hear(fd, &refused, sizeof(refused)), sizeof(refused));
	assert_int_equal(refused.error, -EADDRNOTAVAIL);
	leave(&vm[1]);
	ask(fd, &m, sizeof(m));
	assert_int_equal(hear(fd, &vm[1].place, sizeof(vm[1].place)), sizeof(vm[1].place));
	assert_true(net_addr_equal(&vm[1].place.ip4, &m.ip4));
	m.ip4.b[15] = 200;	/* not of the ports */
	vm[1].holder = fd;
	fd = new_client();
	ask(fd, &m, sizeof(m));
	assert_int_equal(hear(fd, &refused, sizeof(refused)), sizeof(refused));
	assert_int_equal(refused.error, -EADDRNOTAVAIL);
	(void)close(fd);
}

static void test_a_full_network_refuses(void **state)
{
	struct switch_reserve m = { .type = SWITCH_RESERVE, .version = SWITCH_VERSION };
	struct switch_answer a;
	struct vm fourth;
	int fd = new_client();

	reserve(&fourth, "");
	ask(fd, &m, sizeof(m));
	assert_int_equal(hear(fd, &a, sizeof(a)), sizeof(a));
	assert_int_equal(a.type, SWITCH_REFUSED);
	assert_int_equal(a.error, -EADDRNOTAVAIL);
	(void)close(fd);
	(void)close(fourth.holder);
}

static void test_a_port_lives_while_one_end_does(void **state)
{
	const uint32_t quit = SWITCH_QUIT;
	struct switch_answer a;
	int fd = new_client();

	(void)close(vm[0].holder);
	vm[0].holder = -1;
	settle();
	make_ip4(&vm[1], &vm[0], 17, 10);
	send_packet(&vm[1]);
	assert_int_equal(received(&vm[0]), ETH + IP4 + 10);
	/* The VM is gone, but who holds the place may start it again. */
	(void)close(vm[1].line);
	settle();
	claim(&vm[1]);
	ask(fd, &quit, sizeof(quit));
	assert_int_equal(hear(fd, &a, sizeof(a)), sizeof(a));
	assert_int_equal(a.error, -EBUSY);
	for (unsigned i = 0; i < VMS; i++)
		leave(&vm[i]);
	ask(fd, &quit, sizeof(quit));
	assert_int_equal(hear(fd, &a, sizeof(a)), sizeof(a));
	assert_int_equal(a.type, SWITCH_QUITTING);
	(void)close(fd);
}

static void test_a_token_lets_in_once_and_a_false_one_never(void **state)
{
	struct switch_claim m = { .type = SWITCH_CLAIM };
	struct switch_answer a;
	int fd = new_client();

	for (int i = 0; i < 2; i++) {
		ask(fd, &m, sizeof(m));
		assert_int_equal(hear(fd, &a, sizeof(a)), sizeof(a));
		assert_int_equal(a.type, SWITCH_REFUSED);
		memcpy(m.token, vm[0].place.token, sizeof(m.token));
	}
	ask(fd, &m, 7);	/* no message of the protocol: closed */
	assert_int_equal(hear(fd, &a, sizeof(a)), 0);
	(void)close(fd);
}

static void test_names_are_told_when_they_change(void **state)
{
	struct switch_names names;

	leave(&vm[1]);
	assert_int_equal(hear(vm[0].line, &names, sizeof(names)), offsetof(struct switch_names, entry[2]));
	assert_int_equal(names.type, SWITCH_NAMES);
	assert_string_equal(names.entry[0].name, "one");
	assert_string_equal(names.entry[1].name, "three");
	assert_true(net_addr_equal(&names.entry[1].ip6, &vm[2].place.ip6));
}

static void test_it_ends_when_all_are_gone(void **state)
{
	end_allowed = true;
	for (unsigned i = 0; i < VMS; i++)
		leave(&vm[i]);
	assert_int_equal(loop_run(loop, NULL), 0);	/* returns */
}

/* ------------------------------------------------------------------- queues */

static void test_a_slow_receiver_delays_nobody(void **state)
{
	unsigned sent = 0, got = 0;

	/* Nobody reads at the second; its socket and its queue are full before long. */
	for (; counters(1).received.dropped == 0; sent++) {
		assert_true(sent < 4000);
		make_ip4(&vm[0], &vm[1], 17, 1400);
		send_packet(&vm[0]);
		make_ip4(&vm[0], &vm[2], 17, 1400);
		send_packet(&vm[0]);
		assert_int_equal(received(&vm[2]), ETH + IP4 + 1400);
	}
	/* The other sender still has room there. */
	make_ip4(&vm[2], &vm[1], 17, 1400);
	send_packet(&vm[2]);
	assert_int_equal(counters(1).received.dropped, 1);
	for (int n; (n = received(&vm[1])) != -EAGAIN; settle(), got++)
		assert_int_equal(n, ETH + IP4 + 1400);
	assert_int_equal(got, sent);	/* one was dropped, one came from the other */
	assert_int_equal(counters(1).received.frames, sent);
}

static void test_one_sender_leaves_half_of_a_queue(void **state)
{
	uint64_t before;
	unsigned other = 0;

	do {
		before = counters(1).received.dropped;
		make_ip4(&vm[0], &vm[1], 17, 1400);
		send_packet(&vm[0]);
	} while (counters(1).received.dropped == before);
	for (before++; counters(1).received.dropped == before; other++) {
		make_ip4(&vm[2], &vm[1], 17, 1400);
		send_packet(&vm[2]);
	}
	assert_in_range(other, SWITCH_QUEUE_MAX / 1600 / 4 - 10, SWITCH_QUEUE_MAX / 1400 / 2);
}

static void test_what_a_gone_receiver_held_is_freed(void **state)
{
	for (unsigned i = 0; i < 1000; i++) {
		make_ip4(&vm[0], &vm[1], 17, 1400);
		send_packet(&vm[0]);
	}
	leave(&vm[1]);
	make_ip4(&vm[0], &vm[2], 17, 1400);
	send_packet(&vm[0]);
	(void)drain(&vm[2]);
	reserve(&vm[1], "two");
	claim(&vm[1]);
	(void)drain(&vm[1]);
	make_ip4(&vm[0], &vm[1], 17, 10);
	send_packet(&vm[0]);
	assert_int_equal(received(&vm[1]), ETH + IP4 + 10);
}

/* -------------------------------------------------------------------- guard */

static enum guard_verdict verdict(void)
{
	struct guard g = { .ip4 = vm[0].place.ip4, .ip6 = vm[0].place.ip6, .mtu = 1500 };
	uint8_t *copy = malloc(packet_len ? packet_len : 1);	/* so that a look behind the end is seen */
	enum guard_verdict v;

	memcpy(copy, packet.bytes, packet_len);
	memcpy(g.mac, vm[0].place.mac, sizeof(g.mac));
	v = guard_check(&g, &packet.head.hdr, copy, packet_len);
	free(copy);
	return v;
}

static void test_false_sources_are_seen(void **state)
{
	make_ip4(&vm[0], &vm[1], 17, 100);
	assert_int_equal(verdict(), GUARD_PASS);
	packet.bytes[11]++;
	assert_int_equal(verdict(), GUARD_FORGED);
	make_ip4(&vm[0], &vm[1], 17, 100);
	packet.bytes[ETH + 15]++;
	assert_int_equal(verdict(), GUARD_FORGED);
	make_ip6(&vm[0], &vm[1], 17, 100);
	assert_int_equal(verdict(), GUARD_PASS);
	packet.bytes[ETH + 23]++;
	assert_int_equal(verdict(), GUARD_FORGED);
	send_packet(&vm[0]);
	assert_int_equal(counters(0).forged, 1);
	assert_int_equal(received(&vm[1]), -EAGAIN);
}

static void test_arp_speaks_for_itself_only(void **state)
{
	static const struct net_addr none;

	make_arp(&vm[0], &vm[0].place.ip4);
	assert_int_equal(verdict(), GUARD_PASS);
	make_arp(&vm[0], &none);
	assert_int_equal(verdict(), GUARD_PASS);
	make_arp(&vm[0], &vm[1].place.ip4);
	assert_int_equal(verdict(), GUARD_FORGED);
	make_arp(&vm[0], &vm[0].place.ip4);
	packet.bytes[ETH + 8 + 5]++;
	assert_int_equal(verdict(), GUARD_FORGED);
}

static void test_neighbours_speak_for_themselves_only(void **state)
{
	make_neighbour(&vm[0], &vm[1], 135, &vm[1].place.ip6);	/* a question about another */
	assert_int_equal(verdict(), GUARD_PASS);
	make_neighbour(&vm[0], &vm[1], 136, &vm[0].place.ip6);
	assert_int_equal(verdict(), GUARD_PASS);
	make_neighbour(&vm[0], &vm[1], 136, &vm[2].place.ip6);
	assert_int_equal(verdict(), GUARD_FORGED);
	make_neighbour(&vm[0], &vm[1], 136, &vm[0].place.ip6);
	packet.bytes[ETH + 40 + 31]++;	/* the link-layer address */
	assert_int_equal(verdict(), GUARD_FORGED);
	make_neighbour(&vm[0], &vm[1], 135, &vm[2].place.ip6);
	memset(packet.bytes + ETH + 8, 0, 16);	/* detection of a duplicate (RFC 4862, 5.4) of what is another's */
	assert_int_equal(verdict(), GUARD_FORGED);
	make_neighbour(&vm[0], &vm[1], 136, &vm[2].place.ip6);
	packet.bytes[ETH + 6] = 0;	/* behind a hop-by-hop header */
	memmove(packet.bytes + ETH + 48, packet.bytes + ETH + 40, 32);
	memcpy(packet.bytes + ETH + 40, (const uint8_t[]){ 58, 0, 1, 4, 0, 0, 0, 0 }, 8);
	put16(packet.bytes + ETH + 4, 40);
	packet_len += 8;
	assert_int_equal(verdict(), GUARD_FORGED);
	make_neighbour(&vm[0], &vm[1], 136, &vm[0].place.ip6);
	packet.bytes[ETH + 40 + 25] = 0;	/* an option without length */
	assert_int_equal(verdict(), GUARD_REFUSED);
}

static void test_link_local_addresses_are_ones_own(void **state)
{
	const uint8_t *mac = vm[0].place.mac;
	const uint8_t own[16] = { 0xfe, 0x80, [8] = mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5] };

	make_ip6(&vm[0], &vm[1], 17, 100);
	memcpy(packet.bytes + ETH + 8, own, 16);
	assert_int_equal(verdict(), GUARD_PASS);
	packet.bytes[ETH + 8 + 15]++;
	assert_int_equal(verdict(), GUARD_FORGED);
}

static void test_nobody_plays_the_gateway(void **state)
{
	for (unsigned type = 133; type <= 137; type += 1 + (type == 134) * 2) {
		make_ip6(&vm[0], &vm[1], 58, 40);
		packet.bytes[ETH + 40] = (uint8_t)type;
		assert_int_equal(verdict(), type == 133 ? GUARD_REFUSED : GUARD_FORGED);
	}
	make_ip4(&vm[0], &vm[1], 1, 40);
	packet.bytes[ETH + IP4] = 5;	/* redirect */
	assert_int_equal(verdict(), GUARD_FORGED);
	make_ip4(&vm[0], &vm[1], 17, 300);
	put16(packet.bytes + ETH + IP4, 67);
	assert_int_equal(verdict(), GUARD_FORGED);
	make_ip6(&vm[0], &vm[1], 17, 300);
	put16(packet.bytes + ETH + 40, 547);
	assert_int_equal(verdict(), GUARD_FORGED);
}

static void test_lies_about_offloads_are_refused(void **state)
{
	make_tcp(false, &vm[0], &vm[1], 3000, 1460);
	assert_int_equal(verdict(), GUARD_PASS);
	make_tcp(true, &vm[0], &vm[1], 3000, 1440);
	assert_int_equal(verdict(), GUARD_PASS);
	make_tcp(false, &vm[0], &vm[1], 3000, 1461);
	assert_int_equal(verdict(), GUARD_REFUSED);
	make_tcp(false, &vm[0], &vm[1], 3000, 1);
	assert_int_equal(verdict(), GUARD_REFUSED);
	make_tcp(false, &vm[0], &vm[1], 3000, 0);	/* longer than the MTU */
	assert_int_equal(verdict(), GUARD_REFUSED);
	make_tcp(false, &vm[0], &vm[1], 3000, 1460);
	packet.head.hdr.gso_type = VIRTIO_NET_HDR_GSO_TCPV6;
	assert_int_equal(verdict(), GUARD_REFUSED);
	make_tcp(false, &vm[0], &vm[1], 3000, 1460);
	packet.bytes[ETH + IP4 + 12] = 0xf0;
	packet_len = ETH + IP4 + 40;
	put16(packet.bytes + ETH + 2, IP4 + 40);
	assert_int_equal(verdict(), GUARD_REFUSED);
	make_tcp(false, &vm[0], &vm[1], 100, 0);
	packet.head.hdr.csum_offset = 200;
	assert_int_equal(verdict(), GUARD_REFUSED);
	make_tcp(false, &vm[0], &vm[1], 100, 0);
	packet.head.hdr.flags |= VIRTIO_NET_HDR_F_DATA_VALID;
	assert_int_equal(verdict(), GUARD_PASS);
	assert_int_equal(packet.head.hdr.flags, VIRTIO_NET_HDR_F_NEEDS_CSUM);
}

static void test_short_and_strange_frames_are_refused(void **state)
{
	make_ethernet(&vm[0], vm[1].place.mac, 0x8100);	/* a VLAN's tag */
	packet_len = 60;
	assert_int_equal(verdict(), GUARD_REFUSED);
	for (unsigned kind = 0; kind < 3; kind++)
		for (packet_len = 0;; packet_len++) {
			uint32_t len = packet_len;

			if (kind == 0)
				make_arp(&vm[0], &vm[0].place.ip4);
			else if (kind == 1)
				make_ip4(&vm[0], &vm[1], 17, 8);
			else
				make_neighbour(&vm[0], &vm[1], 136, &vm[0].place.ip6);
			if (len == packet_len)
				break;
			packet_len = len;
			assert_int_not_equal(verdict(), GUARD_PASS);
		}
}

/* ----------------------------------------------------------------- segments */

static uint32_t sum16(const uint8_t *at, size_t len, uint32_t sum)
{
	for (size_t i = 0; i < len; i++)
		sum += i & 1 ? at[i] : (uint32_t)at[i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* The checksum of TCP in @frame is right. */
static bool sums_up(const uint8_t *frame, size_t len, bool six)
{
	unsigned at = ETH + (six ? 40 : IP4);
	uint32_t pseudo = six ? sum16(frame + ETH + 8, 32, 0) : sum16(frame + ETH + 12, 8, 0);

	return sum16(frame + at, len - at, pseudo + 6 + (uint32_t)(len - at)) == 0xffff;
}

static struct segments segments;

static void cut(bool six)
{
	unsigned head = ETH + (six ? 40 : IP4) + TCP, done = 0;
	struct link_frame f;
	struct iovec iov;

	make_tcp(six, &vm[0], &vm[1], 3000, 1400);
	assert_int_equal(verdict(), GUARD_PASS);
	segments_begin(&segments, &packet.head.hdr, packet.bytes, packet_len, LINK_CSUM | (six ? LINK_TSO4 : LINK_TSO6));
	assert_int_equal(segments.count, 3);
	for (unsigned i = 0; i < 3; i++) {
		const uint8_t *b;

		segments_get(&segments, i, &f, &iov);
		b = iov.iov_base;
		assert_int_equal(f.len, iov.iov_len);
		assert_int_equal(f.hdr.flags | f.hdr.gso_type, 0);
		assert_memory_equal(b + head, packet.bytes + head + done, f.len - head);
		assert_int_equal(b[head - TCP + 6] << 8 | b[head - TCP + 7], done);	/* sequence number */
		assert_int_equal(b[head - TCP + 13], i == 2 ? 0x19 : 0x10);
		assert_true(sums_up(b, f.len, six));
		if (!six)
			assert_int_equal(sum16(b + ETH, IP4, 0), 0xffff);
		done += f.len - head;
	}
	assert_int_equal(done, 3000);
}

static void test_long_segments_are_cut_for_who_takes_none(void **state)
{
	cut(false);
	cut(true);
}

static void test_checksums_are_finished_for_who_cannot(void **state)
{
	struct link_frame f;
	struct iovec iov;
	uint32_t pseudo;

	make_tcp(false, &vm[0], &vm[1], 1001, 0);
	pseudo = sum16(packet.bytes + ETH + 12, 8, 6 + TCP + 1001);
	put16(packet.bytes + ETH + IP4 + 16, pseudo);
	assert_int_equal(verdict(), GUARD_PASS);
	segments_begin(&segments, &packet.head.hdr, packet.bytes, packet_len, 0);
	assert_int_equal(segments.count, 1);
	segments_get(&segments, 0, &f, &iov);
	assert_int_equal(f.hdr.flags, 0);
	assert_true(sums_up(iov.iov_base, f.len, false));
}

static void test_who_takes_all_gets_it_as_it_is(void **state)
{
	struct link_frame f;
	struct iovec iov;

	make_tcp(true, &vm[0], &vm[1], 3000, 1400);
	segments_begin(&segments, &packet.head.hdr, packet.bytes, packet_len, LINK_CSUM | LINK_TSO4 | LINK_TSO6);
	assert_int_equal(segments.count, 1);
	segments_get(&segments, 0, &f, &iov);
	assert_ptr_equal(iov.iov_base, packet.bytes);
	assert_int_equal(f.hdr.gso_type, VIRTIO_NET_HDR_GSO_TCPV6);
}

/* --------------------------------------------------------------------- links */

static unsigned room, delivered;
static uint32_t last_len;

static int deliver(void *ctx, const struct link_frame *frame)
{
	if (!room)
		return -EAGAIN;
	room--;
	delivered++;
	last_len = frame->len;
	return 0;
}

static void count_loss(void *ctx)
{
	++*(unsigned *)ctx;
}

static void test_a_link_keeps_what_the_guest_has_no_room_for(void **state)
{
	struct link_user_config c = { .mtu = 1500, .internal = true };
	const struct link_sink sink = { .deliver = deliver };
	struct link *gateway, *link;
	struct iovec iov;
	struct link_frame f = { .iov = &iov, .niov = 1 };
	unsigned lost = 0;

	assert_true(net_addr_parse("10.89.1.3", &c.ip4.guest));
	assert_true(net_addr_parse("10.89.1.1", &c.ip4.gateway));
	assert_true(net_addr_parse("10.89.1.14", &c.ip4.dns));
	c.ip4.prefix = 24;
	memcpy(c.mac, vm[1].place.mac, sizeof(c.mac));
	assert_int_equal(link_user_create(loop, &c, &gateway, NULL), 0);
	assert_int_equal(link_port_create(loop, dup(vm[1].line), gateway, &link, NULL), 0);
	link_attach(link, &sink);
	delivered = room = 0;
	/* Three segments for a guest that takes none longer than the MTU, and room for one at a time. */
	make_tcp(false, &vm[0], &vm[1], 3000, 1400);
	send_packet(&vm[0]);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(delivered, i);
		room = 1;
		link_ready(link);
		settle();
	}
	assert_int_equal(delivered, 3);
	assert_int_equal(last_len, ETH + IP4 + TCP + 200);
	/* What it sends to another guest comes there. */
	make_ip4(&vm[1], &vm[0], 17, 50);
	iov = (struct iovec){ packet.bytes, packet_len };
	f.len = packet_len;
	assert_int_equal(link_send(link, &f), 0);
	link_flush(link);
	settle();
	assert_int_equal(received(&vm[0]), ETH + IP4 + 50);
	/* The gateway answers it; nobody else hears of that. */
	room = 1;
	make_ip4(&vm[1], &vm[0], 1, 8);
	memcpy(packet.bytes, link_user_mac, 6);
	memcpy(packet.bytes + ETH + 16, (const uint8_t[]){ 10, 89, 1, 1 }, 4);
	packet.bytes[ETH + IP4] = 8;
	put16(packet.bytes + ETH + IP4 + 2, 0xf7ff);
	put16(packet.bytes + ETH + 10, ~sum16(packet.bytes + ETH, IP4, 0) & 0xffff);
	assert_int_equal(link_send(link, &f), 0);
	link_flush(link);
	settle();
	assert_true(delivered > 3);
	assert_int_equal(received(&vm[0]), -EAGAIN);
	/* The switch ends: what was for others is dropped, and nothing waits. */
	link_port_on_lost(link, count_loss, &lost);
	assert_int_equal(link_port_renew(link, -1), -EISCONN);
	for (unsigned i = 0; i < VMS; i++)
		leave(&vm[i]);
	switch_destroy(sw);
	settle();
	assert_int_equal(lost, 1);
	make_ip4(&vm[1], &vm[0], 17, 50);
	f.len = iov.iov_len = packet_len;
	assert_int_equal(link_send(link, &f), 0);
	assert_int_equal(link->counts->sent.dropped, 1);
	/* Another one takes its place. */
	start_switch();
	for (unsigned i = 0; i < 2; i++) {
		reserve(&vm[i], i ? "two" : "one");
		claim(&vm[i]);
	}
	(void)drain(&vm[0]);
	assert_int_equal(link_port_renew(link, dup(vm[1].line)), 0);
	assert_int_equal(link_send(link, &f), 0);
	settle();
	assert_int_equal(received(&vm[0]), ETH + IP4 + 50);
	link_destroy(link);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_frames_go_to_whom_they_name),
		TEST(test_frames_for_a_group_go_to_all_others),
		TEST(test_frames_for_nobody_are_counted),
		TEST(test_long_frames_arrive_whole_and_marked),
		TEST(test_addresses_are_told_and_the_lowest_is_taken),
		TEST(test_a_new_switch_remembers_names),
		TEST(test_an_address_can_be_asked_for_while_it_is_free),
		TEST(test_a_full_network_refuses),
		TEST(test_a_port_lives_while_one_end_does),
		TEST(test_a_token_lets_in_once_and_a_false_one_never),
		TEST(test_names_are_told_when_they_change),
		TEST(test_it_ends_when_all_are_gone),
		TEST(test_a_slow_receiver_delays_nobody),
		TEST(test_one_sender_leaves_half_of_a_queue),
		TEST(test_what_a_gone_receiver_held_is_freed),
		TEST(test_false_sources_are_seen),
		TEST(test_arp_speaks_for_itself_only),
		TEST(test_neighbours_speak_for_themselves_only),
		TEST(test_link_local_addresses_are_ones_own),
		TEST(test_nobody_plays_the_gateway),
		TEST(test_lies_about_offloads_are_refused),
		TEST(test_short_and_strange_frames_are_refused),
		TEST(test_long_segments_are_cut_for_who_takes_none),
		TEST(test_checksums_are_finished_for_who_cannot),
		TEST(test_who_takes_all_gets_it_as_it_is),
		TEST(test_a_link_keeps_what_the_guest_has_no_room_for),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
