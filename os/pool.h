/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A few threads for work that may block.  Threads start when there is work for
 * them, so an idle pool costs nothing.
 */
#ifndef OS_POOL_H
#define OS_POOL_H

struct err;
struct pool;

/* A job, embedded in what it is about; owned by its submitter. */
struct pool_job {
	struct pool_job *next;	/* private to the pool */
	void (*run)(struct pool_job *job);	/* may free the job */
};

/* Makes a pool of at most @threads threads (1..32).  0 or -ENOMEM, -EINVAL. */
int pool_create(unsigned threads, struct pool **ret_pool, struct err *err);

/* Runs what was submitted, then ends and joins the threads.  NULL is fine. */
void pool_destroy(struct pool *pool);

/*
 * Runs @job on one of the threads, in order of submission when there is only
 * one.  Any thread.  0, or a negative errno when the first thread cannot be
 * made; the job then was not taken.
 */
int pool_submit(struct pool *pool, struct pool_job *job);

#endif /* OS_POOL_H */
