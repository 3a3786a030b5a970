/* SPDX-License-Identifier: Apache-2.0 */
#include "net_sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void require(bool ok, const char *what)
{
	if (!ok) {
		(void)fprintf(stderr, "simulation: %s\n", what);
		abort();
	}
}

uint32_t sim_random(struct sim *sim)
{
	sim->seed ^= sim->seed << 13;
	sim->seed ^= sim->seed >> 17;
	sim->seed ^= sim->seed << 5;
	return sim->seed;
}

static bool chance(struct sim *sim, unsigned of_1000)
{
	return of_1000 && sim_random(sim) % 1000 < of_1000;
}

static void *sim_alloc(void *ctx, size_t size)
{
	struct sim_end *end = ctx;
	void *ptr;

	if (end->sim->fail_alloc && chance(end->sim, (unsigned)end->sim->fail_alloc))
		return NULL;
	ptr = malloc(size);
	require(ptr, "out of memory");
	memset(ptr, 0xa5, size);
	end->sim->allocated[end->index] += size;
	return ptr;
}

static void sim_free(void *ctx, void *ptr, size_t size)
{
	struct sim_end *end = ctx;

	memset(ptr, 0x5a, size);
	end->sim->allocated[end->index] -= size;
	free(ptr);
}

static void sim_fill(void *ctx, void *buf, size_t len)
{
	struct sim_end *end = ctx;
	uint8_t *at = buf;

	while (len--)
		*at++ = (uint8_t)sim_random(end->sim);
}

static void insert(struct sim *sim, struct sim_frame *frame)
{
	struct sim_frame **link = &sim->first;

	while (*link && (*link)->due <= frame->due)
		link = &(*link)->next;
	frame->next = *link;
	*link = frame;
	sim->queued[frame->to]++;
}

static struct sim_frame *copy(const struct net_frame *frame)
{
	struct sim_frame *sent = malloc(sizeof(*sent) + frame->len);
	size_t at = 0;

	require(sent && frame->count <= NET_SPANS_MAX, "a frame of too many spans");
	for (unsigned i = 0; i < frame->count; i++) {
		require(at + frame->spans[i].len <= frame->len, "a frame longer than it says");
		memcpy(sent->bytes + at, frame->spans[i].data, frame->spans[i].len);
		at += frame->spans[i].len;
	}
	require(at == frame->len, "a frame shorter than it says");
	sent->frame = *frame;
	sent->frame.spans = &sent->span;
	sent->frame.count = 1;
	sent->span = (struct net_span){ sent->bytes, frame->len };
	return sent;
}

static void post(struct sim *sim, unsigned from, const struct net_frame *frame)
{
	struct sim_frame *sent = copy(frame);

	sent->to = !from;
	sent->due = sim->now + sim->delay;
	if (chance(sim, sim->reorder))
		sent->due += sim->delay / 2 + sim_random(sim) % (sim->delay * 2 + 1000);
	if (!frame->csum_partial && chance(sim, sim->corrupt))
		sent->bytes[sim_random(sim) % frame->len] ^= (uint8_t)(1u << sim_random(sim) % 8);
	insert(sim, sent);
}

static bool sim_output(void *ctx, const struct net_frame *frame)
{
	struct sim_end *end = ctx;
	struct sim *sim = end->sim;
	struct sim_frame *flat;
	bool pass = true;

	if (sim->room && sim->queued[!end->index] >= sim->room) {
		sim->refused[end->index] = true;
		return false;
	}
	sim->frames++;
	if (sim->filter) {
		flat = copy(frame);
		pass = sim->filter(sim, end->index, &flat->frame, flat->bytes);
		free(flat);
	}
	if (!pass || chance(sim, sim->loss)) {
		sim->dropped++;
		return true;
	}
	post(sim, end->index, frame);
	if (chance(sim, sim->duplicate))
		post(sim, end->index, frame);
	return true;
}

void sim_init(struct sim *sim, struct sim_end ends[2], const struct net_config *config,
	      const struct net_ops *ops)
{
	if (!sim->seed)
		sim->seed = 1;
	sim->now = 1000000000;
	for (unsigned i = 0; i < 2; i++) {
		struct net_config mine = config ? *config : (struct net_config){ 0 };

		ends[i] = (struct sim_end){ .sim = sim, .index = i,
					    .ops = ops ? *ops : (struct net_ops){ 0 } };
		ends[i].ops.alloc = sim_alloc;
		ends[i].ops.free = sim_free;
		ends[i].ops.random = sim_fill;
		ends[i].ops.output = sim_output;
		mine.ops = &ends[i].ops;
		mine.ctx = &ends[i];
		memcpy(mine.mac, (uint8_t[]){ 2, 0, 0, 0, 0, (uint8_t)(i + 1) }, 6);
		mine.addrs[0].addr = sim_end4(i, 0).addr;
		mine.addrs[0].prefix = 24;
		mine.addrs[1].addr = sim_end6(i, 0).addr;
		mine.addrs[1].prefix = 64;
		mine.addr_count = 2;
		sim->net[i] = net_create(&mine, sim->now);
		require(sim->net[i], "net_create failed");
	}
}

void sim_finish(struct sim *sim)
{
	struct sim_frame *frame;

	while ((frame = sim->first)) {
		sim->first = frame->next;
		free(frame);
	}
	for (unsigned i = 0; i < 2; i++) {
		net_destroy(sim->net[i]);
		require(!sim->allocated[i], "memory was not given back");
	}
}

struct net_endpoint sim_end4(unsigned which, uint16_t port)
{
	return (struct net_endpoint){ net_addr4(10, 0, 0, (uint8_t)(which + 1)), port };
}

struct net_endpoint sim_end6(unsigned which, uint16_t port)
{
	return (struct net_endpoint){ { .b = { 0xfd, [15] = (uint8_t)(which + 1) } }, port };
}

static void deliver(struct sim *sim)
{
	struct sim_frame *frame = sim->first;
	unsigned to = frame->to;

	sim->first = frame->next;
	sim->queued[to]--;
	net_input(sim->net[to], &frame->frame, sim->now);
	free(frame);
	if (!sim->first || sim->first->due > sim->now || sim->first->to != to)
		net_flush(sim->net[to], sim->now);
	if (sim->refused[!to] && sim->queued[to] < sim->room) {
		sim->refused[!to] = false;
		net_output_ready(sim->net[!to], sim->now);
	}
}

bool sim_run(struct sim *sim, uint64_t ns, bool (*done)(void *arg), void *arg)
{
	uint64_t end = sim->now + ns;

	for (;;) {
		uint64_t next = end;

		if (done && done(arg))
			return true;
		if (sim->first && sim->first->due < next)
			next = sim->first->due;
		for (unsigned i = 0; i < 2; i++) {
			uint64_t due = net_deadline(sim->net[i]);

			if (due && due < next)
				next = due;
		}
		if (next > sim->now)
			sim->now = next;
		if (sim->now >= end)
			break;
		for (unsigned i = 0; i < 2; i++) {
			uint64_t due = net_deadline(sim->net[i]);

			if (due && due <= sim->now)
				net_timers(sim->net[i], sim->now);
		}
		if (sim->first && sim->first->due <= sim->now)
			deliver(sim);
	}
	return done && done(arg);
}
