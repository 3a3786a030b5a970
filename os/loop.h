/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Event loop: file descriptors, timers and work posted from other threads, all
 * handled on the one thread that calls loop_run().
 *
 * Sources are added and removed on the loop's thread, or before it runs, or
 * through loop_post(); only loop_post() and loop_quit() may be called from
 * other threads.  A callback may remove any source, its own included: a removed
 * source is never called again.
 */
#ifndef OS_LOOP_H
#define OS_LOOP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

struct err;
struct loop;
struct loop_source;

/* @events: EPOLLIN, EPOLLOUT, EPOLLHUP, EPOLLERR as epoll reported them. */
typedef void (*loop_fd_fn)(void *ctx, uint32_t events);
typedef void (*loop_fn)(void *ctx);

int loop_create(struct loop **ret_loop, struct err *err);
void loop_destroy(struct loop *loop);	/* frees sources left; NULL is fine */

/* Runs until loop_quit().  Returns 0 or a negative errno from epoll. */
int loop_run(struct loop *loop, struct err *err);

/*
 * Makes the loop look for events for @ns nanoseconds after each batch before it
 * sleeps: a waiter that answers at once, for the price of that much CPU.  Before
 * loop_run().
 */
void loop_set_poll(struct loop *loop, uint64_t ns);

/* Makes loop_run() return.  Any thread; async-signal-safe. */
void loop_quit(struct loop *loop);

/*
 * Watches @fd (borrowed: close it after loop_remove()).  Level-triggered.
 * Returns 0 with a handle, or a negative errno.
 */
int loop_add_fd(struct loop *loop, int fd, uint32_t events, loop_fd_fn fn, void *ctx,
		struct loop_source **ret_source, struct err *err);
/* Changes the events watched; 0 pauses the source. */
int loop_set_events(struct loop_source *source, uint32_t events);

/* A timer, not yet armed. */
int loop_add_timer(struct loop *loop, loop_fn fn, void *ctx, struct loop_source **ret_source,
		   struct err *err);
/* Arms for @delay_ns from now (0 disarms), then every @period_ns (0: once). */
int loop_set_timer(struct loop_source *source, uint64_t delay_ns, uint64_t period_ns);

/* What is to be done before the loop sleeps, once for each loop_set_idle(). */
int loop_add_idle(struct loop *loop, loop_fn fn, void *ctx, struct loop_source **ret_source, struct err *err);
/* On the loop's thread. */
void loop_set_idle(struct loop_source *source);

/* Removes and frees.  NULL is fine. */
void loop_remove(struct loop_source *source);

/* Calls @fn(@ctx) on the loop's thread soon.  Any thread.  0 or -ENOMEM. */
int loop_post(struct loop *loop, loop_fn fn, void *ctx);

#endif /* OS_LOOP_H */
