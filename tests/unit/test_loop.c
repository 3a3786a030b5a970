/* SPDX-License-Identifier: Apache-2.0 */
#include "os/loop.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>
#include <cmocka.h>

struct pair {
	struct loop *loop;
	struct loop_source *source[2];
	int calls;
};

static void quit(void *ctx)
{
	loop_quit(ctx);
}

static void remove_both(void *ctx, uint32_t events)
{
	struct pair *p = ctx;

	p->calls++;
	loop_remove(p->source[0]);
	loop_remove(p->source[1]);
	(void)loop_post(p->loop, quit, p->loop);
}

static void test_a_source_removed_in_its_batch_is_not_called(void **state)
{
	struct pair p = { 0 };
	int fds[2];

	assert_int_equal(loop_create(&p.loop, NULL), 0);
	assert_int_equal(pipe(fds), 0);
	assert_int_equal(write(fds[1], "x", 1), 1);
	assert_int_equal(loop_add_fd(p.loop, fds[0], EPOLLIN, remove_both, &p, &p.source[0], NULL), 0);
	assert_int_equal(loop_add_fd(p.loop, fds[1], EPOLLOUT, remove_both, &p, &p.source[1], NULL), 0);
	assert_int_equal(loop_run(p.loop, NULL), 0);
	assert_int_equal(p.calls, 1);
	loop_destroy(p.loop);
	(void)close(fds[0]);
	(void)close(fds[1]);
}

static void tick(void *ctx)
{
	struct pair *p = ctx;

	if (++p->calls == 3)
		loop_quit(p->loop);
}

static void test_periodic_timer_fires_until_quit(void **state)
{
	struct pair p = { 0 };

	assert_int_equal(loop_create(&p.loop, NULL), 0);
	assert_int_equal(loop_add_timer(p.loop, tick, &p, &p.source[0], NULL), 0);
	assert_int_equal(loop_set_timer(p.source[0], 1, 1000000), 0);
	assert_int_equal(loop_run(p.loop, NULL), 0);
	assert_int_equal(p.calls, 3);
	loop_destroy(p.loop);	/* frees the timer */
}

static void never(void *ctx, uint32_t events)
{
	((struct pair *)ctx)->calls++;
}

static void test_paused_source_with_closed_peer_stays_silent(void **state)
{
	struct pair p = { 0 };
	int fds[2];

	assert_int_equal(loop_create(&p.loop, NULL), 0);
	assert_int_equal(pipe(fds), 0);
	assert_int_equal(loop_add_fd(p.loop, fds[0], 0, never, &p, &p.source[0], NULL), 0);
	(void)close(fds[1]);
	assert_int_equal(loop_post(p.loop, quit, p.loop), 0);
	assert_int_equal(loop_run(p.loop, NULL), 0);
	assert_int_equal(p.calls, 0);
	loop_destroy(p.loop);
	(void)close(fds[0]);
}

static void count_posts(void *ctx)
{
	tick(ctx);
}

static void *poster(void *ctx)
{
	struct pair *p = ctx;

	for (int i = 0; i < 3; i++)
		(void)loop_post(p->loop, count_posts, p);
	return NULL;
}

static void test_other_threads_may_post(void **state)
{
	struct pair p = { 0 };
	pthread_t thread;

	assert_int_equal(loop_create(&p.loop, NULL), 0);
	assert_int_equal(pthread_create(&thread, NULL, poster, &p), 0);
	assert_int_equal(loop_run(p.loop, NULL), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(p.calls, 3);
	loop_destroy(p.loop);
}

static void wants_idle(void *ctx, uint32_t events)
{
	struct pair *p = ctx;

	loop_set_idle(p->source[1]);
	loop_set_idle(p->source[1]);
	(void)loop_set_events(p->source[0], 0);
}

static void idle(void *ctx)
{
	struct pair *p = ctx;

	p->calls++;
	loop_quit(p->loop);
}

static void test_idle_work_is_done_once_before_the_loop_sleeps(void **state)
{
	struct pair p = { 0 };
	int fds[2];

	assert_int_equal(loop_create(&p.loop, NULL), 0);
	assert_int_equal(pipe(fds), 0);
	assert_int_equal(loop_add_fd(p.loop, fds[1], EPOLLOUT, wants_idle, &p, &p.source[0], NULL), 0);
	assert_int_equal(loop_add_idle(p.loop, idle, &p, &p.source[1], NULL), 0);
	assert_int_equal(loop_run(p.loop, NULL), 0);
	assert_int_equal(p.calls, 1);
	assert_int_equal(loop_post(p.loop, quit, p.loop), 0);
	assert_int_equal(loop_run(p.loop, NULL), 0);
	assert_int_equal(p.calls, 1);
	loop_set_idle(p.source[1]);
	loop_remove(p.source[1]);	/* and is not called any more */
	assert_int_equal(loop_post(p.loop, quit, p.loop), 0);
	assert_int_equal(loop_run(p.loop, NULL), 0);
	assert_int_equal(p.calls, 1);
	loop_destroy(p.loop);
	(void)close(fds[0]);
	(void)close(fds[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_source_removed_in_its_batch_is_not_called),
		cmocka_unit_test(test_periodic_timer_fires_until_quit),
		cmocka_unit_test(test_paused_source_with_closed_peer_stays_silent),
		cmocka_unit_test(test_other_threads_may_post),
		cmocka_unit_test(test_idle_work_is_done_once_before_the_loop_sleeps),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
