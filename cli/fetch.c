/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The image of a new VM, fetched with its progress shown before the monitor exists; the
 * library would do it in silence.
 */
#include "cli/cli.h"
#include "cli/create.h"
#include "cli/progress.h"
#include "oci/image.h"
#include "oci/local.h"
#include "os/err.h"
#include "store/store.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/time.h>

static volatile int stop;	/* the signal that ends it */

static const int stopping[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGALRM };

#define NSTOPPING (sizeof(stopping) / sizeof(stopping[0]))

static void on_signal(int sig)
{
	stop = sig;
}

/* The caller's limit of time counts here too. */
static void catch_signals(unsigned timeout_s, struct sigaction ret_before[NSTOPPING])
{
	struct itimerval end = { .it_value.tv_sec = timeout_s };
	struct sigaction sa = { .sa_handler = on_signal };

	for (size_t i = 0; i < NSTOPPING; i++)
		(void)sigaction(stopping[i], &sa, &ret_before[i]);
	(void)setitimer(ITIMER_REAL, &end, NULL);
}

static void release_signals(const struct sigaction before[NSTOPPING])
{
	struct itimerval none = { .it_value.tv_sec = 0 };

	(void)setitimer(ITIMER_REAL, &none, NULL);
	for (size_t i = 0; i < NSTOPPING; i++)
		(void)sigaction(stopping[i], &before[i], NULL);
}

static int fetch(const struct roux_options *o, struct err *err)
{
	static struct progress progress;
	const struct oci_transfer transfer = { .insecure = o->insecure_registry, .cancel = &stop, .progress = progress_show,
					       .ctx = &progress };
	struct store_lease *lease = NULL;
	struct store *store = NULL;
	struct store_ref ref;
	int r = store_open(NULL, &store, err);

	if (r == 0)
		r = store_lease_begin(store, &lease, err);
	if (r == 0 && o->pull == ROUX_PULL_MISSING && local_find(store, o->image, &ref, NULL) == -ENOENT)
		(void)fprintf(stderr, "Unable to find image '%s' locally\n", o->image);
	progress_begin(&progress, "Pull", false);
	if (r == 0)
		r = oci_obtain(store, lease, o->image, o->pull == ROUX_PULL_ALWAYS ? OCI_PULL_ALWAYS : OCI_PULL_MISSING,
			       &transfer, &ref, err);
	store_lease_end(lease);
	store_close(store);
	return r;
}

int fetch_image(struct run_options *r)
{
	struct sigaction before[NSTOPPING];
	struct err err = { 0 };
	int result;

	if (r->machine.pull == ROUX_PULL_NEVER || oci_image_is_path(r->machine.image))
		return 0;
	catch_signals(r->timeout_s, before);
	result = fetch(&r->machine, &err);
	release_signals(before);
	r->machine.pull = ROUX_PULL_MISSING;
	if (stop == SIGALRM)
		return complain(EXIT_TIMEOUT, "the command was not running within %u s; the machine was stopped", r->timeout_s);
	if (stop)
		return 128 + stop;
	return result < 0 ? complain(EXIT_ROUX, "%s", err.msg) : 0;
}
