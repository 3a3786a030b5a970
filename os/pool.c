/* SPDX-License-Identifier: Apache-2.0 */
#include "os/pool.h"

#include "os/err.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>

#define THREADS_MAX 32u

struct pool {
	pthread_mutex_t lock;	/* guards all below */
	pthread_cond_t work;	/* the list grew, or ending was set */
	struct pool_job *first, **end;
	unsigned max, started, idle, queued;
	bool ending;
	pthread_t thread[THREADS_MAX];
};

static void *serve(void *arg)
{
	struct pool *pool = arg;

	(void)pthread_mutex_lock(&pool->lock);
	for (;;) {
		struct pool_job *job = pool->first;

		if (!job && pool->ending)
			break;
		if (!job) {
			pool->idle++;
			(void)pthread_cond_wait(&pool->work, &pool->lock);
			pool->idle--;
			continue;
		}
		pool->first = job->next;
		pool->queued--;
		if (!pool->first)
			pool->end = &pool->first;
		(void)pthread_mutex_unlock(&pool->lock);
		job->run(job);
		(void)pthread_mutex_lock(&pool->lock);
	}
	(void)pthread_mutex_unlock(&pool->lock);
	return NULL;
}

int pool_create(unsigned threads, struct pool **ret_pool, struct err *err)
{
	struct pool *pool;

	if (threads == 0 || threads > THREADS_MAX)
		return err_set(err, -EINVAL, "a pool has 1 to %u threads, not %u", THREADS_MAX, threads);
	pool = calloc(1, sizeof(*pool));
	if (!pool)
		return err_set(err, -ENOMEM, "thread pool: out of memory");
	(void)pthread_mutex_init(&pool->lock, NULL);
	(void)pthread_cond_init(&pool->work, NULL);
	pool->max = threads;
	pool->end = &pool->first;
	*ret_pool = pool;
	return 0;
}

void pool_destroy(struct pool *pool)
{
	if (!pool)
		return;
	(void)pthread_mutex_lock(&pool->lock);
	pool->ending = true;
	(void)pthread_cond_broadcast(&pool->work);
	(void)pthread_mutex_unlock(&pool->lock);
	for (unsigned i = 0; i < pool->started; i++)
		(void)pthread_join(pool->thread[i], NULL);
	(void)pthread_cond_destroy(&pool->work);
	(void)pthread_mutex_destroy(&pool->lock);
	free(pool);
}

/* Signals belong to the program's own threads, so ours take none. */
static int start_thread(struct pool *pool)
{
	sigset_t all, old;
	int r;

	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(&pool->thread[pool->started], NULL, serve, pool);
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (r == 0)
		pool->started++;
	return -r;
}

int pool_submit(struct pool *pool, struct pool_job *job)
{
	int r = 0;

	(void)pthread_mutex_lock(&pool->lock);
	if (pool->queued >= pool->idle && pool->started < pool->max)
		r = start_thread(pool);
	if (pool->started) {	/* one thread is enough to get on */
		r = 0;
		job->next = NULL;
		*pool->end = job;
		pool->end = &job->next;
		pool->queued++;
		(void)pthread_cond_signal(&pool->work);
	}
	(void)pthread_mutex_unlock(&pool->lock);
	return r;
}
