/* SPDX-License-Identifier: Apache-2.0 */
#include "life/health.h"

#include "abi/agent.h"
#include "api/handle.h"
#include "api/process.h"
#include "life/call.h"
#include "life/events.h"
#include "oci/image.h"
#include "os/loop.h"

#include <stdlib.h>
#include <string.h>

/* docker's defaults */
#define INTERVAL_MS 30000
#define TIMEOUT_MS 30000
#define RETRIES 3u

struct health {
	struct monitor *m;
	struct loop_source *timer;
	struct call *call;	/* a check is under way, or NULL */
	uint8_t *frame;	/* EXEC of the check, owned */
	size_t len;
	int64_t interval_ms, timeout_ms, start_ms;
	uint32_t retries;
	uint64_t began_ns;	/* CLOCK_MONOTONIC */
};

void health_count(struct vm_state *s, bool ok, bool grace, uint32_t retries)
{
	if (ok) {
		s->health = VM_HEALTHY;
		s->health_failures = 0;
		return;
	}
	if (grace && s->health == VM_HEALTH_STARTING)
		return;	/* it may take its time to come up */
	s->health_failures++;
	if (s->health_failures >= retries)
		s->health = VM_UNHEALTHY;
}

static void plan(struct health *h)
{
	(void)loop_set_timer(h->timer, (uint64_t)h->interval_ms * 1000000u, 0);
}

/* True when the answer is EXITED with status 0. */
static bool succeeded(const uint8_t *frames, size_t len)
{
	struct field_reader reader;
	uint32_t status = 1, signo = 0;
	struct field field;
	struct frame f;

	if (!frames || frame_parse(frames, len, AGENT_FRAME_MAX, &f) != 1 || f.type != AGENT_EXITED)
		return false;
	reader = (struct field_reader){ f.data, f.len };
	while (field_next(&reader, &field) == 1) {
		if (field.tag == AGENT_TAG_STATUS)
			(void)field_u32(&field, &status);
		else if (field.tag == AGENT_TAG_SIGNO)
			(void)field_u32(&field, &signo);
	}
	return status == 0 && signo == 0;
}

static void on_result(void *ctx, const uint8_t *frames, size_t len)
{
	struct health *h = ctx;
	struct vm_state *s = &h->m->record.state;
	uint32_t before = s->health;
	bool grace = monotonic_ns() - h->began_ns < (uint64_t)h->start_ms * 1000000u;

	h->call = NULL;
	health_count(s, succeeded(frames, len), grace, h->retries);
	if (s->health != before) {
		events_add(&h->m->vms, &h->m->record, "health_status", vm_health_name(s->health));
		monitor_save(h->m);
	}
	plan(h);
}

static void on_time(void *ctx)
{
	struct health *h = ctx;

	if (h->m->record.state.status == VM_PAUSED) {
		plan(h);
		return;
	}
	h->call = call_begin(h->m, h->frame, h->len, h->timeout_ms, on_result, h);
	if (!h->call)
		on_result(h, NULL, 0);
}

static int64_t first_of(int64_t given, int64_t image, int64_t otherwise)
{
	return given ? given : image ? image : otherwise;
}

/* The EXEC frame of the check that is wanted.  False when there is none. */
static bool make_frame(struct health *h, const char *const *test)
{
	const struct vm_config *c = &h->m->record.config;
	struct roux_exec_options o = { .env = (const char *const *)c->env.v, .cwd = c->cwd, .user = c->user, .stdin_fd = -1 };
	const char *shell[] = { "/bin/sh", "-c", test[0] ? test[1] : NULL, NULL };

	if (!test[0] || strcmp(test[0], "NONE") == 0 || !test[1])
		return false;
	o.argv = strcmp(test[0], "CMD-SHELL") == 0 ? shell : test + 1;
	return process_exec_frame(h->m->machine->config, &o, &h->frame, &h->len, NULL) == 0;
}

void health_begin(struct monitor *m)
{
	static const struct oci_config nothing;
	const struct vm_config *c = &m->record.config;
	const struct oci_config *image = m->machine->config ? m->machine->config : &nothing;
	const char *const none[] = { NULL };
	const char *const *test = c->health_cmd.n ? (const char *const *)c->health_cmd.v :
				  image->health_test ? (const char *const *)image->health_test : none;
	struct health *h = calloc(1, sizeof(*h));

	if (!h)
		return;
	h->m = m;
	h->interval_ms = first_of(c->health_interval_ms, image->health_interval_ns / 1000000, INTERVAL_MS);
	h->timeout_ms = first_of(c->health_timeout_ms, image->health_timeout_ns / 1000000, TIMEOUT_MS);
	h->start_ms = first_of(c->health_start_ms, image->health_start_ns / 1000000, 0);
	h->retries = (uint32_t)first_of(c->health_retries, image->health_retries, RETRIES);
	h->began_ns = monotonic_ns();
	if (!make_frame(h, test) || loop_add_timer(m->loop, on_time, h, &h->timer, NULL) < 0) {
		free(h->frame);
		free(h);
		return;
	}
	m->health = h;
	m->record.state.health = VM_HEALTH_STARTING;
	m->record.state.health_failures = 0;
	plan(h);
}

void health_end(struct monitor *m)
{
	struct health *h = m->health;

	if (!h)
		return;
	m->health = NULL;
	if (h->call)
		call_cancel(h->call);
	loop_remove(h->timer);
	free(h->frame);
	free(h);
}
