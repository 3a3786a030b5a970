/* SPDX-License-Identifier: Apache-2.0 */
/* A loop on a thread of its own, under the rules of a jail when there is one. */
#ifndef MACHINE_WORKER_H
#define MACHINE_WORKER_H

#include "machine/confine.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>

struct err;
struct loop;

struct worker {
	struct loop *loop;	/* owned */
	/* Until worker_destroy(): */
	const char *name;
	const struct confine *confine;	/* borrowed, NULL: no jail */
	enum confine_thread kind;
	sem_t confined;	/* posted by the thread when @result is there */
	int result;	/* of confine_enter() */
	pthread_t thread;
	bool running;
};

/* Makes the loop; nothing runs yet.  @worker is zeroed.  0 or a negative errno with a sentence. */
int worker_create(struct worker *worker, struct err *err);

/*
 * Starts the thread @name (15 characters, borrowed) as @kind under @confine, and returns when it is
 * confined: 0, or a negative errno with a sentence.
 */
int worker_start(struct worker *worker, const char *name, const struct confine *confine, enum confine_thread kind,
		 struct err *err);

/* Ends the thread; the loop remains, for what is on it to be destroyed. */
void worker_stop(struct worker *worker);

/* After worker_stop().  One that was never created is fine when zeroed. */
void worker_destroy(struct worker *worker);

#endif /* MACHINE_WORKER_H */
