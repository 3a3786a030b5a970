/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Token buckets for one direction of a link: bytes and frames pass at rates, in
 * bursts of at most a tenth of a second.  A frame may overdraw the bucket, so
 * that one longer than a burst passes at all; the next waits for longer.
 */
#ifndef LINK_LIMITER_H
#define LINK_LIMITER_H

#include "link/link.h"

/* @open is called on the loop's thread when limiter_open() has become true again. */
int limiter_create(struct loop *loop, const struct link_limits *limits, void (*open)(void *ctx), void *ctx,
		   struct link_limiter **ret_limiter, struct err *err);
void limiter_destroy(struct link_limiter *limiter);	/* NULL is fine */

/* True when a frame may pass now; otherwise @open will be called. */
bool limiter_open(struct link_limiter *limiter);

/* A frame has passed. */
void limiter_take(struct link_limiter *limiter, uint32_t bytes, uint32_t frames);

#endif /* LINK_LIMITER_H */
