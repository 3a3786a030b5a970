/* SPDX-License-Identifier: Apache-2.0 */
#include "link/limiter.h"

#include "os/err.h"
#include "os/loop.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#define S_NS 1000000000ull
#define BURST_NS (S_NS / 10)

/*
 * A bucket is the time at which it is empty of debt: each frame moves it on by
 * what the frame takes at the rate, and it never lags by more than a burst.
 */
struct bucket {
	uint64_t per_s;	/* 0: no limit */
	uint64_t at;	/* ns */
};

struct link_limiter {
	struct bucket bytes, frames;
	struct loop_source *timer;
	bool waiting;	/* the timer is set */
	void (*open)(void *ctx);
	void *ctx;
};

static uint64_t now_ns(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * S_NS + (uint64_t)t.tv_nsec;
}

static void on_timer(void *ctx)
{
	struct link_limiter *l = ctx;

	l->waiting = false;
	l->open(l->ctx);
}

int limiter_create(struct loop *loop, const struct link_limits *limits, void (*open)(void *ctx), void *ctx,
		   struct link_limiter **ret_limiter, struct err *err)
{
	struct link_limiter *l = calloc(1, sizeof(*l));
	int r;

	if (!l)
		return err_set(err, -ENOMEM, "out of host memory");
	*l = (struct link_limiter){ .bytes.per_s = limits->bytes_per_s, .frames.per_s = limits->frames_per_s,
				    .open = open, .ctx = ctx };
	r = loop_add_timer(loop, on_timer, l, &l->timer, err);
	if (r < 0) {
		free(l);
		return r;
	}
	*ret_limiter = l;
	return 0;
}

void limiter_destroy(struct link_limiter *l)
{
	if (!l)
		return;
	loop_remove(l->timer);
	free(l);
}

bool limiter_open(struct link_limiter *l)
{
	uint64_t now = now_ns(), until = l->bytes.at > l->frames.at ? l->bytes.at : l->frames.at;

	if (until <= now)
		return true;
	if (!l->waiting)
		l->waiting = loop_set_timer(l->timer, until - now, 0) == 0;
	return false;
}

static void take(struct bucket *b, uint64_t now, uint64_t n)
{
	if (!b->per_s)
		return;
	if (b->at + BURST_NS < now)
		b->at = now - BURST_NS;
	/* n < 2^32 and S_NS < 2^30: no overflow. */
	b->at += n * S_NS / b->per_s;
}

void limiter_take(struct link_limiter *l, uint32_t bytes, uint32_t frames)
{
	uint64_t now = now_ns();

	take(&l->bytes, now, bytes);
	take(&l->frames, now, frames);
}
