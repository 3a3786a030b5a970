/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The event loop on epoll, timerfd and eventfd.
 *
 * What a reader would get wrong: one epoll_wait() returns a batch of events,
 * and the callback of an early one may remove the source of a later one.  So
 * removal during a batch only marks the source dead; it is freed when the batch
 * is over.
 */
#include "os/loop.h"

#include "os/err.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define BATCH 64
#define NS_PER_S 1000000000ull

struct loop_source {
	struct loop *loop;	/* borrowed */
	struct loop_source *prev, *next;	/* in loop->sources, or next in loop->dead */
	int fd;
	bool is_timer;	/* fd is a timerfd we own */
	uint32_t events;	/* that epoll watches for; 0: it does not know the source */
	bool dead;
	bool pending;	/* in loop->idle */
	struct loop_source *next_idle;
	loop_fd_fn fd_fn;
	loop_fn fn;	/* of a timer, or of idle times */
	void *ctx;
};

struct posted {
	struct posted *next;
	loop_fn fn;
	void *ctx;
};

struct loop {
	int epoll_fd;
	int wake_fd;	/* eventfd: work was posted or quit asked for */
	struct loop_source *wake;
	struct loop_source *sources;	/* alive */
	struct loop_source *dead;	/* removed during the batch under way */
	struct loop_source *idle;	/* to be called before the loop sleeps */
	bool in_batch;
	atomic_bool quit;
	pthread_mutex_t lock;	/* guards the two below */
	struct posted *posted, **posted_end;
	uint64_t poll_ns;	/* see loop_set_poll() */
};

static void wake_up(struct loop *loop)
{
	uint64_t one = 1;
	int saved = errno;	/* loop_quit() runs in signal handlers */

	/* Fails only when the counter is full, and then the loop wakes anyway. */
	if (write(loop->wake_fd, &one, sizeof(one)) < 0)
		errno = saved;
}

static void run_posted(void *ctx, uint32_t events)
{
	struct loop *loop = ctx;
	struct posted *p, *next;
	uint64_t count;

	if (read(loop->wake_fd, &count, sizeof(count)) < 0)
		return;
	(void)pthread_mutex_lock(&loop->lock);
	p = loop->posted;
	loop->posted = NULL;
	loop->posted_end = &loop->posted;
	(void)pthread_mutex_unlock(&loop->lock);
	for (; p; p = next) {
		next = p->next;
		p->fn(p->ctx);
		free(p);
	}
}

int loop_create(struct loop **ret_loop, struct err *err)
{
	struct loop *loop = calloc(1, sizeof(*loop));
	int r;

	if (!loop)
		return err_set(err, -ENOMEM, "event loop: out of memory");
	loop->wake_fd = -1;
	loop->posted_end = &loop->posted;
	(void)pthread_mutex_init(&loop->lock, NULL);
	loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (loop->epoll_fd < 0)
		goto fail;
	loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (loop->wake_fd < 0)
		goto fail;
	r = loop_add_fd(loop, loop->wake_fd, EPOLLIN, run_posted, loop, &loop->wake, err);
	if (r < 0) {
		loop_destroy(loop);
		return r;
	}
	*ret_loop = loop;
	return 0;

fail:
	r = -errno;
	loop_destroy(loop);
	return err_set(err, r, "event loop: %s", strerror(-r));
}

static void free_source(struct loop_source *source)
{
	if (source->is_timer && source->fd >= 0)
		(void)close(source->fd);
	free(source);
}

static void free_dead(struct loop *loop)
{
	struct loop_source *s;

	while ((s = loop->dead)) {
		loop->dead = s->next;
		free_source(s);
	}
}

void loop_destroy(struct loop *loop)
{
	struct posted *p;

	if (!loop)
		return;
	while (loop->sources)
		loop_remove(loop->sources);
	while ((p = loop->posted)) {
		loop->posted = p->next;
		free(p);
	}
	if (loop->wake_fd >= 0)
		(void)close(loop->wake_fd);
	if (loop->epoll_fd >= 0)
		(void)close(loop->epoll_fd);
	(void)pthread_mutex_destroy(&loop->lock);
	free(loop);
}

static void dispatch(struct loop_source *s, uint32_t events)
{
	uint64_t expirations;

	if (s->dead)
		return;
	if (!s->is_timer) {
		s->fd_fn(s->ctx, events);
		return;
	}
	/* Re-armed or disarmed by an earlier callback of this batch: not due. */
	if (read(s->fd, &expirations, sizeof(expirations)) < 0)
		return;
	s->fn(s->ctx);
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

static void run_idle(struct loop *loop)
{
	struct loop_source *s;

	while ((s = loop->idle)) {
		loop->idle = s->next_idle;
		s->pending = false;
		s->fn(s->ctx);
	}
}

/*
 * Looks again and again for a while after the last batch, then sleeps.  Who is to cause the next event may wait for this very
 * processor, and has it between looks.
 */
static int wait_events(struct loop *loop, struct epoll_event *ev)
{
	uint64_t until = loop->poll_ns ? now_ns() + loop->poll_ns : 0;

	while (until) {
		int n = epoll_wait(loop->epoll_fd, ev, BATCH, 0);

		if (n != 0)
			return n;
		if (now_ns() >= until)
			break;
		(void)sched_yield();
	}
	run_idle(loop);
	return epoll_wait(loop->epoll_fd, ev, BATCH, -1);
}

void loop_set_poll(struct loop *loop, uint64_t ns)
{
	loop->poll_ns = ns;
}

int loop_run(struct loop *loop, struct err *err)
{
	struct epoll_event ev[BATCH];
	int r = 0;

	while (!atomic_load(&loop->quit)) {
		int n = wait_events(loop, ev);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			r = err_set(err, -errno, "event loop: epoll: %s", strerror(errno));
			break;
		}
		loop->in_batch = true;
		for (int i = 0; i < n; i++)
			dispatch(ev[i].data.ptr, ev[i].events);
		loop->in_batch = false;
		free_dead(loop);
	}
	atomic_store(&loop->quit, false);	/* the loop may be run again */
	return r;
}

void loop_quit(struct loop *loop)
{
	atomic_store(&loop->quit, true);
	wake_up(loop);
}

static struct loop_source *new_source(struct loop *loop, int fd, void *ctx)
{
	struct loop_source *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->loop = loop;
	s->fd = fd;
	s->ctx = ctx;
	s->next = loop->sources;
	if (s->next)
		s->next->prev = s;
	loop->sources = s;
	return s;
}

int loop_add_fd(struct loop *loop, int fd, uint32_t events, loop_fd_fn fn, void *ctx,
		struct loop_source **ret_source, struct err *err)
{
	struct loop_source *s = new_source(loop, fd, ctx);
	int r;

	if (!s)
		return err_set(err, -ENOMEM, "event loop: out of memory");
	s->fd_fn = fn;
	r = loop_set_events(s, events);
	if (r < 0) {
		loop_remove(s);
		return err_set(err, r, "event loop: cannot watch descriptor %d: %s", fd, strerror(-r));
	}
	*ret_source = s;
	return 0;
}

int loop_set_events(struct loop_source *source, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.ptr = source };
	int op = EPOLL_CTL_MOD;

	if (events == source->events)
		return 0;
	/* epoll reports HUP and ERR even when asked for nothing, so a paused
	 * source must leave it or a closed peer would spin the loop. */
	if (!events)
		op = EPOLL_CTL_DEL;
	else if (!source->events)
		op = EPOLL_CTL_ADD;
	if (epoll_ctl(source->loop->epoll_fd, op, source->fd, &ev) < 0)
		return -errno;
	source->events = events;
	return 0;
}

int loop_add_timer(struct loop *loop, loop_fn fn, void *ctx, struct loop_source **ret_source,
		   struct err *err)
{
	int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	struct loop_source *s;
	int r;

	if (fd < 0)
		return err_set(err, -errno, "event loop: timer: %s", strerror(errno));
	s = new_source(loop, fd, ctx);
	if (!s) {
		(void)close(fd);
		return err_set(err, -ENOMEM, "event loop: out of memory");
	}
	s->is_timer = true;
	s->fn = fn;
	r = loop_set_events(s, EPOLLIN);
	if (r < 0) {
		loop_remove(s);
		return err_set(err, r, "event loop: timer: %s", strerror(-r));
	}
	*ret_source = s;
	return 0;
}

int loop_add_idle(struct loop *loop, loop_fn fn, void *ctx, struct loop_source **ret_source, struct err *err)
{
	struct loop_source *s = new_source(loop, -1, ctx);

	if (!s)
		return err_set(err, -ENOMEM, "event loop: out of memory");
	s->fn = fn;
	*ret_source = s;
	return 0;
}

void loop_set_idle(struct loop_source *source)
{
	if (source->pending)
		return;
	source->pending = true;
	source->next_idle = source->loop->idle;
	source->loop->idle = source;
}

static void unset_idle(struct loop_source *source)
{
	struct loop_source **at = &source->loop->idle;

	while (*at && *at != source)
		at = &(*at)->next_idle;
	if (*at)
		*at = source->next_idle;
}

static struct timespec timespec_of(uint64_t ns)
{
	return (struct timespec){ .tv_sec = (time_t)(ns / NS_PER_S), .tv_nsec = (long)(ns % NS_PER_S) };
}

int loop_set_timer(struct loop_source *source, uint64_t delay_ns, uint64_t period_ns)
{
	struct itimerspec its = { .it_value = timespec_of(delay_ns),
				  .it_interval = timespec_of(delay_ns ? period_ns : 0) };

	return timerfd_settime(source->fd, 0, &its, NULL) < 0 ? -errno : 0;
}

void loop_remove(struct loop_source *source)
{
	struct loop *loop;

	if (!source)
		return;
	loop = source->loop;
	(void)loop_set_events(source, 0);
	unset_idle(source);
	if (source->prev)
		source->prev->next = source->next;
	else
		loop->sources = source->next;
	if (source->next)
		source->next->prev = source->prev;
	if (!loop->in_batch) {
		free_source(source);
		return;
	}
	source->dead = true;
	source->next = loop->dead;
	loop->dead = source;
}

int loop_post(struct loop *loop, loop_fn fn, void *ctx)
{
	struct posted *p = malloc(sizeof(*p));

	if (!p)
		return -ENOMEM;
	*p = (struct posted){ .fn = fn, .ctx = ctx };
	(void)pthread_mutex_lock(&loop->lock);
	*loop->posted_end = p;
	loop->posted_end = &p->next;
	(void)pthread_mutex_unlock(&loop->lock);
	wake_up(loop);
	return 0;
}
