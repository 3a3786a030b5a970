/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two stacks on a simulated link, in simulated time.  Everything depends on the
 * seed alone, so a run that fails can be had again.
 */
#ifndef TESTS_NET_SIM_H
#define TESTS_NET_SIM_H

#include "net/net.h"
#include "net/tcp.h"
#include "net/udp.h"

struct sim_frame {
	struct sim_frame *next;
	uint64_t due;	/* ns */
	unsigned to;	/* 0 or 1 */
	struct net_frame frame;	/* of one span */
	struct net_span span;
	uint8_t bytes[];
};

struct sim {
	struct net *net[2];	/* 10.0.0.1, fd00::1 and 10.0.0.2, fd00::2 */
	uint64_t now;	/* ns */
	uint32_t seed;
	/* The link; chances in 1/1000. */
	unsigned loss, duplicate, reorder, corrupt;
	uint64_t delay;	/* ns */
	unsigned room;	/* frames that the link takes at a time; 0: any number */
	unsigned queued[2];	/* frames on their way to each */
	bool refused[2];	/* output() said no to it */
	struct sim_frame *first;	/* by time */
	/* Optional: looks at each frame; false drops it. */
	bool (*filter)(struct sim *sim, unsigned from, const struct net_frame *frame,
		       const uint8_t *bytes);
	void *arg;	/* of filter */
	uint64_t frames, dropped;
	size_t allocated[2];	/* bytes now */
	int fail_alloc;	/* 1/1000 of allocations fail */
};

struct sim_end {	/* ctx of each net */
	struct sim *sim;
	unsigned index;
	struct net_ops ops;
	void *arg;	/* of callbacks that a test sets */
};

/* Creates both with @config as a pattern (or NULL) and @ops as callbacks above the required ones. */
void sim_init(struct sim *sim, struct sim_end ends[2], const struct net_config *config,
	      const struct net_ops *ops);
/* Destroys both; every byte must have been given back. */
void sim_finish(struct sim *sim);

/* Runs for @ns of simulated time, or until @done says so (NULL: never).  Returns what @done said. */
bool sim_run(struct sim *sim, uint64_t ns, bool (*done)(void *arg), void *arg);

uint32_t sim_random(struct sim *sim);
struct net_endpoint sim_end4(unsigned which, uint16_t port);	/* 10.0.0.(which + 1) */
struct net_endpoint sim_end6(unsigned which, uint16_t port);

#endif /* TESTS_NET_SIM_H */
