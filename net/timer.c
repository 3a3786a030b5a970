/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A binary heap.  Its keys may be earlier than what timers want, never later;
 * timers_run() puts those right whose time has come too early.
 */
#include "net/core.h"
#include "net/timer.h"

static void place(struct timers *timers, uint32_t slot, struct timer_slot entry)
{
	timers->heap[slot] = entry;
	entry.timer->slot = slot;
}

static void sift_up(struct timers *timers, uint32_t slot, struct timer_slot entry)
{
	for (; slot > 1 && timers->heap[slot / 2].key > entry.key; slot /= 2)
		place(timers, slot, timers->heap[slot / 2]);
	place(timers, slot, entry);
}

static void sift_down(struct timers *timers, uint32_t slot, struct timer_slot entry)
{
	uint32_t child;

	while ((child = slot * 2) <= timers->count) {
		if (child < timers->count && timers->heap[child + 1].key < timers->heap[child].key)
			child++;
		if (timers->heap[child].key >= entry.key)
			break;
		place(timers, slot, timers->heap[child]);
		slot = child;
	}
	place(timers, slot, entry);
}

static void take_out(struct timers *timers, struct timer *timer)
{
	uint32_t slot = timer->slot;
	struct timer_slot last = timers->heap[timers->count--];

	timer->slot = 0;
	if (last.timer == timer)
		return;
	if (slot > 1 && timers->heap[slot / 2].key > last.key)
		sift_up(timers, slot, last);
	else
		sift_down(timers, slot, last);
}

static bool grow(struct net *net)
{
	struct timers *timers = &net->timers;
	uint32_t capacity = timers->capacity ? timers->capacity * 2 : 64;
	struct timer_slot *heap = net_alloc(net, (capacity + 1) * sizeof(*heap));

	if (!heap)
		return false;
	if (timers->heap) {
		__builtin_memcpy(heap, timers->heap, (timers->count + 1) * sizeof(*heap));
		net_free(net, timers->heap, (timers->capacity + 1) * sizeof(*heap));
	} else {
		heap[0] = (struct timer_slot){ 0 };
	}
	timers->heap = heap;
	timers->capacity = capacity;
	return true;
}

bool timer_init(struct net *net, struct timer *timer, void (*fire)(struct net *, struct timer *))
{
	if (net->timers.users == net->timers.capacity && !grow(net))
		return false;
	net->timers.users++;
	*timer = (struct timer){ .fire = fire };
	return true;
}

void timer_finish(struct net *net, struct timer *timer)
{
	if (timer->slot)
		take_out(&net->timers, timer);
	net->timers.users--;
	timer->due = 0;
}

void timer_set(struct net *net, struct timer *timer, uint64_t due)
{
	struct timers *timers = &net->timers;
	struct timer_slot entry = { due, timer };

	timer->due = due;
	if (!timer->slot)
		sift_up(timers, ++timers->count, entry);
	else if (due < timers->heap[timer->slot].key)
		sift_up(timers, timer->slot, entry);
}

void timer_stop(struct timer *timer)
{
	timer->due = 0;
}

void timers_run(struct net *net)
{
	struct timers *timers = &net->timers;
	struct timer *timer;
	uint64_t due;

	for (uint32_t left = timers->count; left && timers->count; left--) {
		if (timers->heap[1].key > net->now)
			break;
		timer = timers->heap[1].timer;
		due = timer->due;
		take_out(timers, timer);
		if (due > net->now) {
			timer_set(net, timer, due);
		} else if (due) {
			timer->due = 0;
			timer->fire(net, timer);
		}
	}
}

uint64_t timers_next(const struct net *net)
{
	return net->timers.count ? net->timers.heap[1].key : 0;
}

void timers_destroy(struct net *net)
{
	if (net->timers.heap)
		net_free(net, net->timers.heap,
			 (net->timers.capacity + 1) * sizeof(*net->timers.heap));
}
