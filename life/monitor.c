/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lives of a VM:
 *
 *   STARTING --command runs--> RUNNING <--> PAUSED
 *      |                          |
 *      | failed, called off       | command ended, machine failed, killed
 *      v                          v
 *   (end_life) --policy, or restart asked--> RESTARTING --timer--> STARTING
 *      |
 *      `--------> EXITED: record written, waiting clients answered, socket gone, lock
 *                 released; the process stays until its clients have read their rest
 */
#include "life/inside.h"

#include "api/handle.h"
#include "life/events.h"
#include "life/restart.h"
#include "life/standby.h"
#include "life/when.h"
#include "os/loop.h"
#include "os/memory.h"
#include "os/prompt.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NS_PER_MS 1000000ull
#define REST_MS 2000u	/* until it waits for disks, and gives memory back: a hundred monitors are there before the first does */
#define KILL_WAIT_MS 2000u	/* after which a machine whose command does not die of SIGKILL is ended */

static void begin_life(struct monitor *m);

/* ------------------------------------------------------------------- record */

void monitor_save(struct monitor *m)
{
	/* Where the disk is full the old record stays: the socket knows better while we live. */
	(void)vm_save(&m->owned, &m->record, NULL);
}

bool monitor_running(const struct monitor *m)
{
	return m->command.stream.fd >= 0;
}

int monitor_stop_signal(const struct monitor *m)
{
	return m->record.config.stop_signal ? (int)m->record.config.stop_signal :
	       m->machine ? roux_machine_stop_signal(m->machine) : SIGTERM;
}

static void set_error(struct monitor *m, const char *text)
{
	free(m->record.state.error);
	m->record.state.error = text && *text ? strdup(text) : NULL;
}

/* ---------------------------------------------------------------------- end */

static void answer_waiting(struct monitor *m, bool started)
{
	for (struct conn *c = m->conns; c; c = c->next)
		if (c->mode == CONN_WAITING && c->answer && c->until_started == started)
			c->answer(c);
}

/* What the VM had in its hands is free again. */
static void bury(struct monitor *m)
{
	roux_machine_destroy(m->dying);
	m->dying = NULL;
}

/* Nothing will come any more. */
static void finish(struct monitor *m)
{
	char sock[PATH_MAX];

	m->finished = true;
	if (snprintf(sock, sizeof(sock), "%s/sock", m->owned.state) > 0)
		(void)unlink(sock);
	m->record.state.monitor_pid = 0;
	if (m->record.config.auto_remove || m->forget) {
		(void)vm_remove(&m->vms, &m->owned, m->record.name, NULL);
		events_add(&m->vms, &m->record, "destroy", NULL);
	} else {
		monitor_save(m);
	}
	if (m->dying && !m->learning)
		machine_let_go(m->dying);	/* the rest of its end nobody has to wait for */
	answer_waiting(m, false);
	answer_waiting(m, true);
	vm_release(&m->owned);
	server_finish(m);
}

static void on_restart(void *ctx)
{
	begin_life(ctx);
}

static void take_down(struct monitor *m, bool again)
{
	guest_end(m);
	command_end(m);
	loop_remove(m->events);
	m->events = NULL;
	if (m->machine) {
		m->learning = machine_learn_begin(m->machine);
		if (m->learning && (again || m->record.config.nshares || !standby_holds_nothing(&m->record.config))) {
			m->learnt |= machine_learn_end(m->machine);
			m->learning = false;
		}
		if (m->learning)
			machine_leave_image(m->machine);
		else
			machine_kill(m->machine);
	}
	m->dying = m->machine;
	m->machine = NULL;
	free(m->counters);
	m->counters = NULL;
	(void)loop_set_timer(m->stop_timer, 0, 0);
	(void)loop_set_timer(m->limit_timer, 0, 0);
}

/* Clients hear of the end first, then the record is written while the machine goes; they are let go when it is gone. */
static void end_life(struct monitor *m, int status, const char *error)
{
	struct vm_state *s = &m->record.state;
	bool ran = m->machine != NULL, again;
	char code[12];
	uint64_t delay_ns = 0, ran_ns = ran ? monotonic_ns() - m->command_ns : 0;

	for (struct conn *c = m->conns; c; c = c->next) {
		if (c->mode != CONN_ATTACHED)
			continue;
		if (error)
			conn_failed(c, EIO, status, error);
		else
			conn_exited(c, status);
	}
	again = m->restart_asked || (!m->stopping && !m->called_off &&
		(ran || !m->first_life) && restart_wanted(&m->record, status));
	take_down(m, again);
	(void)snprintf(code, sizeof(code), "%d", status);
	if (ran)
		events_add(&m->vms, &m->record, "die", code);
	s->vm_pid = 0;
	s->exit_code = status;
	s->has_run |= ran;
	s->health = VM_HEALTH_NONE;
	s->finished_ns = when_now();
	set_error(m, error);
	if (m->restart_asked)
		m->backoff_ns = 0;
	else if (again)
		delay_ns = m->backoff_ns = restart_delay(m->backoff_ns, ran_ns);
	if (!again) {
		s->status = ran || !m->first_life ? VM_EXITED : VM_CREATED;
		finish(m);
		return;
	}
	bury(m);
	s->restarts += !m->restart_asked;
	s->status = VM_RESTARTING;
	for (struct conn *c = m->conns; c; c = c->next)
		if (c->mode == CONN_ATTACHED)
			conn_finish(c);
	monitor_save(m);
	(void)loop_set_timer(m->restart_timer, delay_ns ? delay_ns : 1, 0);
}

void monitor_exited(struct monitor *m, int status)
{
	if (m->first_life && m->options.phases)
		notes_tell_phases(m);
	if (m->first_life && m->options.counters)
		notes_tell_counters(m);
	if (m->end_status)
		end_life(m, m->end_status, m->end_reason);
	else
		end_life(m, status, NULL);
}

void monitor_failed(struct monitor *m, int status, const char *why)
{
	char reason[256];

	if (m->end_status) {
		end_life(m, m->end_status, m->end_reason);
		return;
	}
	if (m->killing) {
		end_life(m, STATUS_KILLED, NULL);
		return;
	}
	if (!why) {
		(void)machine_events(m->machine, 200);	/* it may be about to say why */
		why = roux_machine_reason(m->machine);
	}
	(void)snprintf(reason, sizeof(reason), "%s", *why ? why : "the machine ended before the process did");
	end_life(m, status, reason);
}

static void on_machine(void *ctx, uint32_t events)
{
	struct monitor *m = ctx;

	(void)events;
	if (roux_machine_dispatch(m->machine) == ROUX_RUNNING && roux_machine_fd(m->machine) >= 0)
		return;
	/* The command's stream holds its last words and ends by itself. */
	loop_remove(m->events);
	m->events = NULL;
}

/* -------------------------------------------------------------------- start */

static void start_failed(struct monitor *m, struct starter *s)
{
	const char *message = s->error.message[0] ? s->error.message : strerror(-s->result);

	if (m->called_off)
		end_life(m, m->end_status ? m->end_status : STATUS_FAILED, "");
	else if (m->end_status)
		end_life(m, m->end_status, m->end_reason);
	else if (m->stopping)
		end_life(m, STATUS_KILLED, "");
	else
		end_life(m, s->status, message);
}

static void start_succeeded(struct monitor *m, struct starter *s)
{
	struct vm_state *st = &m->record.state;

	m->machine = s->machine;
	m->standby.possible = m->machine->template;
	m->command_ns = s->started_ns;
	m->counters = s->before;
	s->before = NULL;
	st->started_ns = when_now();
	st->status = VM_RUNNING;
	st->has_run = false;
	st->vm_pid = (uint32_t)roux_machine_pid(m->machine);
	free(st->engine);
	st->engine = strdup(roux_machine_engine(m->machine));
	set_error(m, NULL);
	if (loop_add_fd(m->loop, roux_machine_fd(m->machine), EPOLLIN, on_machine, m, &m->events, NULL) < 0 ||
	    command_begin(m, &s->session, s->restored ? &s->notes : NULL) < 0)
		monitor_failed(m, STATUS_FAILED, "out of memory");
	if (!m->machine)
		return;	/* it has ended already */
	answer_waiting(m, true);
	guest_begin(m);
	events_add(&m->vms, &m->record, "start", NULL);
	standby_prepare(m);
	if (!m->options.fresh || !m->first_life)	/* else the file says that it starts */
		monitor_save(m);
	monitor_rests(m);
	m->unsynced |= m->first_life;
}

void monitor_started(struct monitor *m)
{
	struct starter *s = m->starter;
	bool wanted = s->result == 0 && !m->stopping && !m->called_off && !m->end_status;

	m->starter = NULL;
	prompt_set(true);
	m->forget = m->options.fresh && m->first_life && s->result < 0 && s->status == STATUS_FAILED;
	if (wanted) {
		start_succeeded(m, s);
	} else {
		machine_discard(s->machine);
		start_failed(m, s);
	}
	session_close(&s->session);
	session_notes_finish(&s->notes);
	free(s->before);
	free(s);
}

static void on_limit(void *ctx)
{
	struct monitor *m = ctx;
	bool runs = monitor_running(m);

	m->stopping = true;
	m->end_status = STATUS_TIMEOUT;
	(void)snprintf(m->end_reason, sizeof(m->end_reason), "the command %s within %u s; the machine was stopped",
		       runs ? "did not end" : "was not running", m->record.config.timeout_s);
	if (runs)
		end_life(m, STATUS_TIMEOUT, m->end_reason);
	else
		starter_cancel(m);
}

static void begin_life(struct monitor *m)
{
	uint32_t limit = m->record.config.timeout_s;

	m->first_life = m->first_life && m->record.state.restarts == 0 && !m->restart_asked;
	m->stopping = m->killing = m->restart_asked = false;
	m->end_status = 0;
	m->record.state.status = VM_STARTING;
	if (limit)
		(void)loop_set_timer(m->limit_timer, limit * 1000 * NS_PER_MS, 0);
	if (starter_begin(m) < 0)
		end_life(m, STATUS_FAILED, "cannot make a thread to start the VM");
}

/* Not before somebody watches: what a quick command writes, or why it cannot start, would be lost on them. */
void monitor_begin(struct monitor *m)
{
	if (m->begun)
		return;
	m->begun = true;
	if (m->stopping)
		end_life(m, STATUS_KILLED, "");	/* somebody else was faster */
	else
		begin_life(m);
}

void monitor_unwanted(struct monitor *m)
{
	if (m->begun || m->finished)
		return;
	m->forget = m->options.fresh;
	finish(m);
}

/* --------------------------------------------------------------------- stop */

void monitor_kill(struct monitor *m)
{
	m->killing = true;
	m->stopping = true;
	if (m->record.state.status == VM_PAUSED && m->record.state.vm_pid)
		(void)kill((pid_t)m->record.state.vm_pid, SIGCONT);
	if (m->starter) {
		starter_cancel(m);
	} else if (monitor_running(m)) {
		/* The agent ends the command, so that its last output comes; the timer ends the machine otherwise. */
		(void)command_signal(m, SIGKILL);
		(void)loop_set_timer(m->stop_timer, KILL_WAIT_MS * NS_PER_MS, 0);
	}
}

static void on_stop_timer(void *ctx)
{
	struct monitor *m = ctx;

	if (!m->killing)
		monitor_kill(m);
	else if (monitor_running(m))
		end_life(m, STATUS_KILLED, NULL);
}

void monitor_end(struct monitor *m)
{
	m->killing = m->stopping = true;
	m->record.state.stopped_by_user = true;
	(void)loop_set_timer(m->stop_timer, 1, 0);
}

void monitor_stop(struct monitor *m, int64_t timeout_ms)
{
	m->stopping = true;
	if (m->record.state.status == VM_RESTARTING) {
		(void)loop_set_timer(m->restart_timer, 0, 0);
		m->record.state.status = VM_EXITED;
		if (m->restart_asked)
			(void)loop_set_timer(m->restart_timer, 1, 0);
		else
			finish(m);
		return;
	}
	if (m->record.state.status == VM_PAUSED)
		(void)kill((pid_t)m->record.state.vm_pid, SIGCONT);
	if (m->starter) {
		starter_cancel(m);
	} else if (monitor_running(m) && !m->killing) {
		m->record.state.status = VM_STOPPING;
		(void)command_signal(m, monitor_stop_signal(m));
		if (timeout_ms == 0)
			on_stop_timer(m);
		else if (timeout_ms > 0)
			(void)loop_set_timer(m->stop_timer, (uint64_t)timeout_ms * NS_PER_MS, 0);
	}
}

void monitor_call_off(struct monitor *m, int status)
{
	if (!m->starter || !m->first_life)
		return;
	m->called_off = true;
	m->end_status = status;
	m->end_reason[0] = '\0';
	starter_cancel(m);
}

static void on_slow(void *ctx)
{
	struct monitor *m = ctx;
	uint64_t now = monotonic_ns();

	for (struct conn *c = m->conns; c; c = c->next)
		if (c->mode == CONN_ATTACHED && !c->creator && stream_queued(&c->stream) >= CLIENT_QUEUE_MAX &&
		    now - c->stream.moved_ns > CLIENT_SLOW_MS * NS_PER_MS)
			conn_close(c);
	command_unblock(m);
}

static void on_rest(void *ctx)
{
	struct monitor *m = ctx;

	if (m->unsynced && !m->finished) {
		m->unsynced = false;
		monitor_save(m);
		if (!m->record.config.auto_remove)	/* which nobody would start again after a crash of the host */
			vm_sync(&m->vms, &m->owned);
	}
	memory_give_back();
}

void monitor_rests(struct monitor *m)
{
	if (!m->unsynced)	/* which must not be put off */
		(void)loop_set_timer(m->rest_timer, REST_MS * NS_PER_MS, 0);
}

int monitor_set_up(struct monitor *m, struct err *err)
{
	int r = loop_add_timer(m->loop, on_restart, m, &m->restart_timer, err);

	if (r == 0)
		r = loop_add_timer(m->loop, on_stop_timer, m, &m->stop_timer, err);
	if (r == 0)
		r = loop_add_timer(m->loop, on_limit, m, &m->limit_timer, err);
	if (r == 0)
		r = loop_add_timer(m->loop, on_slow, m, &m->slow_timer, err);
	if (r == 0)
		r = loop_add_timer(m->loop, on_rest, m, &m->rest_timer, err);
	return r;
}
