/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to net/: timers in a heap.
 *
 * A timer that is moved to a later time stays where it is in the heap and is
 * looked at when its old time comes: TCP moves its retransmission timer with each
 * acknowledgement, and this makes it one store.
 */
#ifndef NET_TIMER_H
#define NET_TIMER_H

#include <stdbool.h>
#include <stdint.h>

struct net;

struct timer {
	uint64_t due;	/* ns; 0: stopped */
	void (*fire)(struct net *net, struct timer *timer);
	uint32_t slot;	/* of the heap, from 1 on; 0: not in it */
};

struct timer_slot {
	uint64_t key;	/* at most timer->due */
	struct timer *timer;
};

struct timers {
	struct timer_slot *heap;	/* heap[1] is first */
	uint32_t count, capacity;	/* in the heap; that fit */
	uint32_t users;	/* timers between init and finish */
};

/* Makes a stopped timer; false: out of memory.  Setting it cannot fail then. */
bool timer_init(struct net *net, struct timer *timer, void (*fire)(struct net *, struct timer *));
void timer_finish(struct net *net, struct timer *timer);

/* @due in ns, not 0.  A time in the past is due now. */
void timer_set(struct net *net, struct timer *timer, uint64_t due);
void timer_stop(struct timer *timer);

/* Fires what is due at net->now.  Bounded: each timer at most once. */
void timers_run(struct net *net);
uint64_t timers_next(const struct net *net);	/* 0: none */
void timers_destroy(struct net *net);

#endif /* NET_TIMER_H */
