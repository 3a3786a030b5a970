/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/worker.h"

#include "os/err.h"
#include "os/loop.h"
#include "os/prompt.h"

#include <string.h>

#define POLL_NS 30000u	/* a guest that gets an answer usually asks again within this time */

static void *worker_main(void *arg)
{
	struct worker *w = arg;

	(void)pthread_setname_np(pthread_self(), w->name);
	prompt_set(true);
	w->result = w->confine ? confine_enter(w->confine, w->kind) : 0;
	(void)sem_post(&w->confined);
	if (w->result == 0)
		(void)loop_run(w->loop, NULL);
	return NULL;
}

int worker_create(struct worker *w, struct err *err)
{
	int r = loop_create(&w->loop, err);

	if (r == 0)
		loop_set_poll(w->loop, POLL_NS);
	return r;
}

int worker_start(struct worker *w, const char *name, const struct confine *confine, enum confine_thread kind,
		 struct err *err)
{
	int r;

	w->name = name;
	w->confine = confine;
	w->kind = kind;
	(void)sem_init(&w->confined, 0, 0);
	r = pthread_create(&w->thread, NULL, worker_main, w);
	if (r)
		return err_set(err, -r, "cannot start thread %s: %s", name, strerror(r));
	w->running = true;
	while (sem_wait(&w->confined) < 0)
		;	/* a signal */
	return w->result < 0 ? err_set(err, w->result, "the jail of thread %s cannot be closed: %s", name,
				       strerror(-w->result)) : 0;
}

void worker_stop(struct worker *w)
{
	if (!w->running)
		return;
	loop_quit(w->loop);
	(void)pthread_join(w->thread, NULL);
	w->running = false;
}

void worker_destroy(struct worker *w)
{
	loop_destroy(w->loop);
	w->loop = NULL;
}
