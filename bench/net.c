/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What net/ costs: two instances in one thread, a link of memory between them.
 *
 *   net [GIB]
 *
 * Prints `name value unit` lines: the speed of a stream with every set of offloads, round
 * trips on one connection and on one after the other of 10,000, connections made and ended,
 * and bytes of memory that an idle one holds.
 *
 * The link copies a frame when it is sent, as a virtual device copies into guest memory, and
 * hands that copy to the receiver; the sender's bytes lie in its buffer already, as after a
 * read() into it.  So one copy is part of every number, and both ends run on one core.
 */
#include "net/net.h"
#include "net/tcp.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define RING 64u	/* frames on the link, each way */
#define SLOT (1u << 17)	/* bytes */
#define CONNECTIONS 10000u

struct slot {
	struct net_frame frame;
	struct net_span span;
	uint8_t *bytes;	/* SLOT of them */
};

struct end {
	struct net *net;
	struct end *peer;
	struct slot ring[RING];	/* frames to this end */
	unsigned first, count;
	bool refused;	/* output() to this end said no */
};

static struct end ends[2];
static uint64_t got, to_send, round_trips, opened, closed;
static struct tcp_conn *conns[CONNECTIONS];	/* of the client */
static const uint8_t byte;

static uint64_t now(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

__attribute__((noreturn)) static void die(const char *what)
{
	(void)fprintf(stderr, "net: %s\n", what);
	exit(1);
}

static void *bench_alloc(void *ctx, size_t size)
{
	return malloc(size);
}

static void bench_free(void *ctx, void *ptr, size_t size)
{
	free(ptr);
}

static void bench_random(void *ctx, void *buf, size_t len)
{
	for (size_t i = 0; i < len; i++)
		((uint8_t *)buf)[i] = (uint8_t)rand();
}

static bool bench_output(void *ctx, const struct net_frame *frame)
{
	struct end *to = ((struct end *)ctx)->peer;
	struct slot *slot = &to->ring[(to->first + to->count) % RING];
	size_t at = 0;

	if (to->count == RING) {
		to->refused = true;
		return false;
	}
	for (unsigned i = 0; i < frame->count; i++) {
		memcpy(slot->bytes + at, frame->spans[i].data, frame->spans[i].len);
		at += frame->spans[i].len;
	}
	slot->span = (struct net_span){ slot->bytes, at };
	slot->frame = *frame;
	slot->frame.spans = &slot->span;
	slot->frame.count = 1;
	to->count++;
	return true;
}

/* The client's side: sends @to_send bytes, or one byte for each that comes. */

static void pump(struct tcp_conn *conn)
{
	struct net_room rooms[8];
	unsigned count;
	size_t len;

	while (to_send && (len = tcp_reserve(conn, to_send, rooms, 8, &count))) {
		to_send -= len;
		tcp_commit(conn, len);
	}
}

static size_t client_data(struct tcp_conn *conn, const struct net_span *spans, unsigned count, size_t len)
{
	round_trips++;
	return len;
}

static void client_connected(struct tcp_conn *conn)
{
	opened++;
}

static void client_closed(struct tcp_conn *conn, enum net_result reason)
{
	closed++;
}

static const struct tcp_ops client = {
	.connected = client_connected, .data = client_data, .writable = pump, .closed = client_closed,
};

/* The server's side: counts what is more than a byte, sends a byte back. */

static size_t server_data(struct tcp_conn *conn, const struct net_span *spans, unsigned count, size_t len)
{
	got += len;
	if (len == 1)
		(void)tcp_send(conn, spans[0].data, 1);
	return len;
}

static void server_peer_closed(struct tcp_conn *conn)
{
	tcp_shutdown(conn);
}

static const struct tcp_ops server = { .data = server_data, .peer_closed = server_peer_closed };

static void server_request(struct tcp_listener *listener, struct tcp_conn *conn)
{
	tcp_set_owner(conn, &server, NULL);
	tcp_accept(conn);
}

/* Delivers what is on the link to @end, at most @most frames as one batch; false: nothing was. */
static bool deliver(struct end *end, unsigned most)
{
	uint64_t time = now();
	unsigned taken = end->count < most ? end->count : most;

	if (!taken)
		return false;
	for (unsigned i = 0; i < taken; i++) {
		struct slot *slot = &end->ring[end->first];

		net_input(end->net, &slot->frame, time);
		end->first = (end->first + 1) % RING;
		end->count--;
	}
	net_flush(end->net, time);
	if (end->refused) {
		end->refused = false;
		net_output_ready(end->peer->net, time);
	}
	return true;
}

static void run_timers(void)
{
	uint64_t time = now(), due;

	for (unsigned i = 0; i < 2; i++)
		if ((due = net_deadline(ends[i].net)) && due <= time)
			net_timers(ends[i].net, time);
}

/* Runs the link until *@count reaches @enough. */
static void run_until(const uint64_t *count, uint64_t enough, unsigned batch)
{
	uint64_t limit = now() + 600ull * 1000000000;

	while (*count < enough) {
		bool moved = deliver(&ends[1], batch);

		moved |= deliver(&ends[0], batch);
		run_timers();
		if (!moved && now() > limit)
			die("it does not come to an end");
	}
}

static const struct net_ops ops = {
	.alloc = bench_alloc, .free = bench_free, .random = bench_random, .output = bench_output,
};

static struct tcp_listener listener;

static struct net_endpoint at(unsigned which, uint16_t port)
{
	return (struct net_endpoint){ net_addr4(10, 0, 0, (uint8_t)(which + 1)), port };
}

static void begin(unsigned offloads, uint16_t mtu)
{
	for (unsigned i = 0; i < 2; i++) {
		struct net_config config = { .mac = { 2, 0, 0, 0, 0, (uint8_t)i }, .mtu = mtu, .proxy = true,
					     .ops = &ops, .ctx = &ends[i], .addr_count = 1 };

		config.addrs[0].addr = at(i, 0).addr;
		config.addrs[0].prefix = 24;
		ends[i].peer = &ends[!i];
		ends[i].first = ends[i].count = 0;
		ends[i].refused = false;
		ends[i].net = net_create(&config, now());
		if (!ends[i].net)
			die("net_create");
		net_set_offloads(ends[i].net, offloads);
	}
	listener = (struct tcp_listener){ .local = { .port = 1 }, .request = server_request };
	if (tcp_listen(ends[1].net, &listener))
		die("tcp_listen");
	got = to_send = round_trips = opened = closed = 0;
}

static void end(void)
{
	net_destroy(ends[0].net);
	net_destroy(ends[1].net);
}

static void open_one(unsigned i)
{
	struct net_endpoint local = at(0, (uint16_t)(10000 + i)), remote = at(1, 1);

	if (tcp_connect(ends[0].net, &local, &remote, &client, NULL, &conns[i]))
		die("tcp_connect");
	run_until(&opened, opened + 1, RING);
}

static void bench_stream(const char *name, unsigned offloads, uint16_t mtu, uint64_t bytes)
{
	struct net_stats stats;
	uint64_t begun, frames;

	begin(offloads, mtu);
	open_one(0);
	net_stats(ends[0].net, &stats);
	frames = stats.out_frames;
	begun = now();
	to_send = bytes;
	pump(conns[0]);
	run_until(&got, bytes, 16);
	begun = now() - begun;
	net_stats(ends[0].net, &stats);
	(void)printf("net/stream/%s %.1f Gbit/s\n", name, (double)bytes * 8 / (double)begun);
	(void)printf("net/frame/%s %.0f bytes\n", name, (double)bytes / (double)(stats.out_frames - frames));
	(void)printf("net/retransmits/%s %llu segments\n", name, (unsigned long long)stats.tcp_retransmits);
	end();
}

/* One byte there and one back, on @count connections in turn. */
static void ping(const char *name, unsigned count, unsigned turns)
{
	uint64_t begun = now();

	round_trips = 0;
	for (unsigned i = 0; i < turns; i++) {
		(void)tcp_send(conns[i % count], &byte, 1);
		run_until(&round_trips, i + 1, RING);
	}
	(void)printf("net/round_trip/%s %.2f us\n", name, (double)(now() - begun) / 1e3 / turns);
}

static void bench_connections(void)
{
	struct net_stats empty, full;
	uint64_t begun;

	begin(NET_OFFLOAD_CSUM, 1500);
	open_one(0);
	ping("1", 1, 200000);
	net_stats(ends[1].net, &empty);
	begun = now();
	for (unsigned i = 1; i < CONNECTIONS; i++)
		open_one(i);
	(void)printf("net/connect %.0f /s\n", (CONNECTIONS - 1) * 1e9 / (double)(now() - begun));
	ping("10000", CONNECTIONS, 200000);
	net_stats(ends[1].net, &full);
	(void)printf("net/idle %.0f bytes\n",
		     (double)(full.memory - empty.memory) / (full.tcp_conns - empty.tcp_conns));
	begun = now();
	for (unsigned i = 0; i < CONNECTIONS; i++)
		tcp_shutdown(conns[i]);
	run_until(&closed, CONNECTIONS, RING);
	(void)printf("net/close %.0f /s\n", CONNECTIONS * 1e9 / (double)(now() - begun));
	end();
}

int main(int argc, char **argv)
{
	uint64_t bytes = (argc > 1 ? strtoull(argv[1], NULL, 10) : 10) << 30;

	for (unsigned i = 0; i < 2; i++)
		for (unsigned j = 0; j < RING; j++)
			if (!(ends[i].ring[j].bytes = malloc(SLOT)))
				die("out of memory");
	bench_stream("tso", NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4, 1500, bytes);
	bench_stream("csum", NET_OFFLOAD_CSUM, 1500, bytes / 4);
	bench_stream("none", 0, 1500, bytes / 4);
	bench_stream("mtu65520", 0, 65520, bytes);
	bench_connections();
	return 0;
}
