/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A named network's switch: what its clients say, and the frames of a VM that may be taken over.
 *
 * The input is a list of steps: which client, what kind, how many bytes, and the bytes.  Two
 * clients are ports with known addresses; the others say what they like.
 */
#include "link/guard.h"
#include "link/segment.h"
#include "link/switch.h"
#include "os/loop.h"
#include "tests/fuzz/check.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CLIENTS 4u
#define PORTS 2u	/* of them */
#define SINKS_EVERY 4u	/* steps until what has come is read */

enum step { STEP_RAW, STEP_FRAME, STEP_IP4, STEP_IP6, STEP_LEAVE, STEPS };

static struct loop *loop;
static struct net_switch *sw;
static int client[CLIENTS];
static struct switch_reserved place[PORTS];

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void stop(void *ctx)
{
	loop_quit(ctx);
}

static void settle(void)
{
	want(loop_post(loop, stop, loop) == 0);
	want(loop_run(loop, NULL) == 0);
}

static int connect_client(void)
{
	int pair[2];

	want(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair) == 0);
	want(switch_adopt(sw, pair[1]) == 0);
	return pair[0];
}

static void say(int fd, const void *m, size_t len)
{
	(void)send(fd, m, len, MSG_NOSIGNAL);
	settle();
}

static void become_port(unsigned i)
{
	struct switch_reserve reserve = { .type = SWITCH_RESERVE, .version = SWITCH_VERSION, .name = { (char)('a' + i) } };
	struct switch_claim claim = { .type = SWITCH_CLAIM };
	int holder = connect_client();

	say(holder, &reserve, sizeof(reserve));
	want(recv(holder, &place[i], sizeof(place[i]), 0) == sizeof(place[i]));
	memcpy(claim.token, place[i].token, sizeof(claim.token));
	client[i] = connect_client();
	say(client[i], &claim, sizeof(claim));
	(void)close(holder);
	settle();
}

/* What comes out was let in: nobody gets a frame that says it is from himself, or from the gateway. */
static void read_all(unsigned i)
{
	static struct switch_packet packet;
	static struct segments segments;
	struct link_frame frame;
	struct iovec iov;
	ssize_t n;

	while ((n = recv(client[i], &packet, sizeof(packet), MSG_DONTWAIT)) > 0) {
		if (i >= PORTS || n <= (ssize_t)sizeof(packet.head) || packet.head.type != SWITCH_FRAME)
			continue;
		want(memcmp(packet.bytes + 6, place[!i].mac, 6) == 0);
		segments_begin(&segments, &packet.head.hdr, packet.bytes, (uint32_t)(n - (ssize_t)sizeof(packet.head)), 0);
		for (unsigned k = 0; k < segments.count; k++) {
			segments_get(&segments, k, &frame, &iov);
			want(frame.len == iov.iov_len && frame.len <= 1514 && frame.hdr.flags == 0);
		}
	}
}

/* A frame with the addresses that its port has; what is on top of them is the input's. */
static void send_frame(unsigned i, enum step step, const uint8_t *data, size_t len)
{
	static struct switch_packet packet;
	size_t size = sizeof(packet.head.hdr) + sizeof(packet.bytes);

	memset(&packet, 0, sizeof(packet));
	packet.head.type = SWITCH_FRAME;
	len = len < size ? len : size;
	memcpy(&packet.head.hdr, data, len);
	/* Long ones cost no input. */
	if (len > sizeof(packet.head.hdr) && packet.head.hdr.num_buffers & 1)
		len = sizeof(packet.head.hdr) + 3000;
	if (step != STEP_FRAME && len >= sizeof(packet.head.hdr) + 54) {
		memcpy(packet.bytes, place[!i].mac, 6);
		memcpy(packet.bytes + 6, place[i].mac, 6);
		memcpy(packet.bytes + 12, step == STEP_IP4 ? "\x08\x00" : "\x86\xdd", 2);
		len -= sizeof(packet.head.hdr) + 14;
		packet.bytes[14] = (uint8_t)((packet.bytes[14] & 0x0f) | (step == STEP_IP4 ? 0x40 : 0x60));
		if (step == STEP_IP4)
			memcpy(packet.bytes + 14 + 12, &place[i].ip4.b[12], 4);
		else
			memcpy(packet.bytes + 14 + 8, place[i].ip6.b, 16);
		packet.bytes[14 + (step == STEP_IP4 ? 2 : 4)] = (uint8_t)((len - (step == STEP_IP4 ? 0 : 40)) >> 8);
		packet.bytes[15 + (step == STEP_IP4 ? 2 : 4)] = (uint8_t)(len - (step == STEP_IP4 ? 0 : 40));
		len += sizeof(packet.head.hdr) + 14;
	}
	say(client[i], &packet, sizeof(packet.head.type) + len);
}

static size_t take_step(const uint8_t *data, size_t len)
{
	unsigned i = data[0] % CLIENTS;
	enum step step = (enum step)(data[0] / CLIENTS % STEPS);
	size_t size = data[1] < len - 2 ? data[1] : len - 2;

	if (step == STEP_LEAVE) {
		(void)close(client[i]);
		settle();
		if (i < PORTS)
			become_port(i);
		else
			client[i] = connect_client();
	} else if (step == STEP_RAW) {
		say(client[i], data + 2, size);
	} else {
		send_frame(i % PORTS, step, data + 2, size);
	}
	return 2 + size;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct switch_config c = { .prefix4 = net_addr4(10, 89, 1, 0), .prefix6 = { .b = { 0xfd } }, .first = 2, .ports = 3,
				   .mtu = 1500, .leases = -1 };
	unsigned steps = 0;

	if (!loop)
		want(loop_create(&loop, NULL) == 0);
	want(switch_create(loop, &c, &sw, NULL) == 0);
	for (unsigned i = 0; i < CLIENTS; i++) {
		if (i < PORTS)
			become_port(i);
		else
			client[i] = connect_client();
	}
	for (size_t n; len > 2; data += n, len -= n) {
		n = take_step(data, len);
		for (unsigned i = 0; ++steps % SINKS_EVERY == 0 && i < CLIENTS; i++)
			read_all(i);
	}
	for (unsigned i = 0; i < CLIENTS; i++) {
		read_all(i);
		(void)close(client[i]);
	}
	switch_destroy(sw);
	return 0;
}
