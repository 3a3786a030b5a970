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
#include "life/when.h"
#include "os/loop.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define NS_PER_MS 1000000ull
#define KILL_WAIT_MS 2000u	/* after which a machine whose command does not die of SIGKILL is ended */
#define STATUS_FAILED 125
#define STATUS_TIMEOUT 124
#define STATUS_KILLED 137

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

/* -------------------------------------------------------------------- notes */

static void note_creator(struct monitor *m, const char *text)
{
	for (struct conn *c = m->conns; c; c = c->next)
		if (c->creator && c->mode == CONN_ATTACHED)
			conn_note(c, text, strlen(text));
}

static void add_text(char **text, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void add_text(char **text, const char *fmt, ...)
{
	char *more, *joined;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&more, fmt, ap);
	va_end(ap);
	if (n < 0)
		return;
	if (asprintf(&joined, "%s%s", *text ? *text : "", more) >= 0) {
		free(*text);
		*text = joined;
	}
	free(more);
}

/* How long each phase of the start took, as one line of JSON. */
static void tell_phases(struct monitor *m)
{
	static const char *const names[ROUX_PHASES] = {
		[ROUX_PHASE_IMAGE] = "image", [ROUX_PHASE_KERNEL] = "kernel", [ROUX_PHASE_SPAWNED] = "spawn",
		[ROUX_PHASE_LOADED] = "load", [ROUX_PHASE_READY] = "boot" };
	uint64_t begin = roux_machine_phase_ns(m->machine, ROUX_PHASE_BEGIN), before = begin, now = when_monotonic();
	char *text = NULL;

	add_text(&text, "{\"engine\": \"%s\", \"phases_ms\": {", roux_machine_engine(m->machine));
	for (unsigned i = ROUX_PHASE_IMAGE; i < ROUX_PHASES; i++) {
		uint64_t at = roux_machine_phase_ns(m->machine, (enum roux_phase)i);

		add_text(&text, "\"%s\": %.3f, ", names[i], at ? (double)(at - before) / 1e6 : 0.0);
		before = at ? at : before;
	}
	add_text(&text, "\"exec\": %.3f, \"command\": %.3f}, \"total_ms\": %.3f}\n",
		 (double)(m->command_ns - before) / 1e6, (double)(now - m->command_ns) / 1e6, (double)(now - begin) / 1e6);
	if (text)
		note_creator(m, text);
	free(text);
}

struct table {
	const struct monitor *m;
	char *text;
	double seconds;	/* the command ran */
};

static void add_counter(void *ctx, const char *name, uint64_t value)
{
	struct table *t = ctx;
	size_t len = strlen(name);
	uint64_t before = 0;
	int64_t more;

	for (const char *at = t->m->counters; at && *at; at = strchr(at, '\n') + 1)
		if (strncmp(at, name, len) == 0 && at[len] == ' ')
			before = strtoull(at + len, NULL, 10);
	more = (int64_t)(value - before);	/* some may have become less */
	add_text(&t->text, "%-12s %14llu %14lld %14.0f\n", name, (unsigned long long)before, (long long)more,
		 (double)more / t->seconds);
}

static void tell_counters(struct monitor *m)
{
	struct table t = { .m = m, .seconds = (double)(when_monotonic() - m->command_ns) / 1e9 };
	struct roux_error error = { 0 };

	add_text(&t.text, "%-12s %14s %14s %14s\n", roux_machine_engine(m->machine), "start-up", "command", "a second");
	if (roux_machine_counters(m->machine, add_counter, &t, &error) < 0)
		add_text(&t.text, "roux: %s\n", error.message);
	if (t.text)
		note_creator(m, t.text);
	free(t.text);
}

/* ---------------------------------------------------------------------- end */

static void answer_waiting(struct monitor *m, bool started)
{
	for (struct conn *c = m->conns; c; c = c->next)
		if (c->mode == CONN_WAITING && c->answer && c->until_started == started)
			c->answer(c);
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
	answer_waiting(m, false);
	answer_waiting(m, true);
	vm_release(&m->owned);
	server_finish(m);
}

static void on_restart(void *ctx)
{
	begin_life(ctx);
}

static void take_down(struct monitor *m)
{
	guest_end(m);
	command_end(m);
	loop_remove(m->events);
	m->events = NULL;
	roux_machine_destroy(m->machine);
	m->machine = NULL;
	free(m->counters);
	m->counters = NULL;
	(void)loop_set_timer(m->stop_timer, 0, 0);
	(void)loop_set_timer(m->limit_timer, 0, 0);
}

/* Clients hear of the end first, then the machine goes, then the record is written. */
static void end_life(struct monitor *m, int status, const char *error)
{
	struct vm_state *s = &m->record.state;
	bool ran = m->machine != NULL, again;
	char code[12];
	uint64_t delay_ns = 0, ran_ns = ran ? when_monotonic() - m->command_ns : 0;

	for (struct conn *c = m->conns; c; c = c->next) {
		if (c->mode != CONN_ATTACHED)
			continue;
		if (error)
			conn_failed(c, EIO, status, error);
		else
			conn_exited(c, status);
	}
	take_down(m);
	(void)snprintf(code, sizeof(code), "%d", status);
	if (ran)
		events_add(&m->vms, &m->record, "die", code);
	s->vm_pid = 0;
	s->exit_code = status;
	s->has_run |= ran;
	s->health = VM_HEALTH_NONE;
	s->finished_ns = when_now();
	set_error(m, error);
	again = m->restart_asked || (!m->stopping && !m->called_off &&
		(ran || !m->first_life) && restart_wanted(&m->record, status));
	if (m->restart_asked)
		m->backoff_ns = 0;
	else if (again)
		delay_ns = m->backoff_ns = restart_delay(m->backoff_ns, ran_ns);
	if (!again) {
		s->status = ran || !m->first_life ? VM_EXITED : VM_CREATED;
		finish(m);
		return;
	}
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
		tell_phases(m);
	if (m->first_life && m->options.counters)
		tell_counters(m);
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
	    command_begin(m, &s->session) < 0)
		monitor_failed(m, STATUS_FAILED, "out of memory");
	if (!m->machine)
		return;	/* it has ended already */
	answer_waiting(m, true);
	guest_begin(m);
	events_add(&m->vms, &m->record, "start", NULL);
	monitor_save(m);
	if (m->first_life)
		vm_sync(&m->vms, &m->owned);
}

void monitor_started(struct monitor *m)
{
	struct starter *s = m->starter;
	bool wanted = s->result == 0 && !m->stopping && !m->called_off && !m->end_status;

	m->starter = NULL;
	m->forget = m->options.fresh && m->first_life && s->result < 0 && s->status == STATUS_FAILED;
	if (wanted)
		start_succeeded(m, s);
	else
		roux_machine_destroy(s->machine);
	if (!wanted)
		start_failed(m, s);
	session_close(&s->session);
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
	uint64_t now = when_monotonic();

	for (struct conn *c = m->conns; c; c = c->next)
		if (c->mode == CONN_ATTACHED && !c->creator && stream_queued(&c->stream) >= CLIENT_QUEUE_MAX &&
		    now - c->stream.moved_ns > CLIENT_SLOW_MS * NS_PER_MS)
			conn_close(c);
	command_unblock(m);
}

/* SIGTERM: the host goes down.  The VM is stopped as its user would. */
static void on_signal(void *ctx, uint32_t events)
{
	struct monitor *m = ctx;
	struct signalfd_siginfo info;

	(void)events;
	if (read(m->signal_fd, &info, sizeof(info)) == sizeof(info) && !m->finished)
		monitor_stop(m, m->record.config.stop_timeout_ms);
}

/* ------------------------------------------------------------------ process */

static int set_up(struct monitor *m, int client, struct err *err)
{
	struct conn *c;
	sigset_t set;
	int r = loop_create(&m->loop, err);

	if (r < 0)
		return r;
	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGTERM);
	(void)sigprocmask(SIG_BLOCK, &set, NULL);
	m->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	r = m->signal_fd < 0 ? err_set(err, -errno, "cannot make a signalfd: %s", strerror(errno)) :
		loop_add_fd(m->loop, m->signal_fd, EPOLLIN, on_signal, m, &m->signals, err);
	if (r == 0)
		r = loop_add_timer(m->loop, on_restart, m, &m->restart_timer, err);
	if (r == 0)
		r = loop_add_timer(m->loop, on_stop_timer, m, &m->stop_timer, err);
	if (r == 0)
		r = loop_add_timer(m->loop, on_limit, m, &m->limit_timer, err);
	if (r == 0)
		r = loop_add_timer(m->loop, on_slow, m, &m->slow_timer, err);
	if (r == 0)
		r = server_listen(m, err);
	if (r < 0)
		return r;
	c = server_add(m, client);
	if (!c)
		return err_set(err, -ENOMEM, "out of memory");
	c->creator = true;
	return 0;
}

/* A daemon keeps nothing of the terminal and the pipes of whoever started it. */
static void detach(struct monitor *m, int client)
{
	struct sigaction sa = { .sa_handler = SIG_DFL };
	int keep[2] = { client < m->owned.lock_fd ? client : m->owned.lock_fd,
			client < m->owned.lock_fd ? m->owned.lock_fd : client };
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	sigset_t none;

	(void)setsid();
	/* Ignoring drops what is pending: a Ctrl-C before setsid() was for the client, which calls the start off. */
	for (int s = 1; s < NSIG; s++) {
		(void)signal(s, SIG_IGN);
		(void)sigaction(s, &sa, NULL);
	}
	(void)signal(SIGPIPE, SIG_IGN);
	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	for (int fd = 0; null >= 0 && fd < (getenv("ROUX_DEBUG") ? 2 : 3); fd++)
		(void)dup2(null, fd);
	(void)close_range(3, (unsigned)keep[0] - 1, 0);
	if (keep[1] > keep[0] + 1)
		(void)close_range((unsigned)keep[0] + 1, (unsigned)keep[1] - 1, 0);
	(void)close_range((unsigned)keep[1] + 1, ~0u, 0);
	(void)prctl(PR_SET_NAME, "roux-monitor");
}

/* Without its loop a monitor can still answer the request that is on its way. */
static void tell_failure(int client, const struct err *err)
{
	cJSON *json = cJSON_CreateObject();
	char message[sizeof(err->msg) + 64], *body;

	(void)snprintf(message, sizeof(message), "%s%s", err->msg,
		       err->code == -EMFILE ? "; allow more open files (ulimit -n)" : "");
	(void)cJSON_AddStringToObject(json, "message", message);
	(void)cJSON_AddNumberToObject(json, "code", STATUS_FAILED);
	body = cJSON_PrintUnformatted(json);
	if (body)
		(void)dprintf(client, "HTTP/1.1 500 %s\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s", http_reason(500),
			      strlen(body), body);
}

__attribute__((noreturn)) static void monitor_main(struct monitor *m, int client)
{
	struct err err = { 0 };
	int r;

	detach(m, client);
	m->listen_fd = m->signal_fd = -1;
	m->command.stream.fd = -1;
	m->first_life = true;
	m->record.state.monitor_pid = (uint32_t)getpid();
	m->record.state.restarts = 0;
	m->record.state.stopped_by_user = false;
	output_open(&m->output, m->owned.data, m->record.config.log_max);
	r = set_up(m, client, &err);
	if (r == 0)
		(void)loop_run(m->loop, &err);
	/* The process ends here: its memory needs no freeing. */
	if (r < 0 && m->options.fresh)
		(void)vm_remove(&m->vms, &m->owned, m->record.name, NULL);
	if (r < 0)
		tell_failure(client, &err);
	_exit(r < 0);
}

int monitor_fork(const struct vms *vms, struct vm_owned *owned, const struct vm_record *record,
		 const struct monitor_options *options, int *ret_fd, struct err *err)
{
	static struct monitor m;
	int pair[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return err_set(err, -errno, "cannot make a socket: %s", strerror(errno));
	pid = fork();
	if (pid == 0) {
		m.vms = *vms;
		m.owned = *owned;
		m.record = *record;
		m.options = *options;
		(void)close(pair[0]);
		monitor_main(&m, pair[1]);
	}
	(void)close(pair[1]);
	if (pid < 0) {
		(void)close(pair[0]);
		return err_set(err, -errno, "cannot make a process for the VM's monitor: %s", strerror(errno));
	}
	vm_release(owned);
	*ret_fd = pair[0];
	return 0;
}
