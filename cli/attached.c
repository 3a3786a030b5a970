/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The other side speaks abi/agent.h from its HELLO on: a guest's agent through the
 * monitor (exec), or the monitor itself (everything else).
 */
#include "cli/attached.h"

#include "abi/agent.h"
#include "api/pump.h"
#include "cli/cli.h"
#include "life/frames.h"
#include "os/err.h"
#include "os/prompt.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define CLOSE_WAIT_MS 15000 /* for the other side to end things properly */
#define DEADLINE_SLACK_NS 500000000ull /* the monitor ends the VM and says so; we need not wait for it */
#define GIVE_UP_SIGNALS 3u /* of them before anything runs, roux ends without an answer */

struct view {
	const struct attached *o;
	struct pump pump;
	struct detach_keys keys;
	bool started;
	bool failed;	/* ERROR came: status and message */
	int status;
	char message[400];
	unsigned signals;	/* caught before the start */
};

static const int passed_on[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGWINCH };

static void signal_set(sigset_t *ret)
{
	(void)sigemptyset(ret);
	for (size_t i = 0; i < sizeof(passed_on) / sizeof(passed_on[0]); i++)
		(void)sigaddset(ret, passed_on[i]);
}

void attached_signals(void)
{
	sigset_t set;

	signal_set(&set);
	(void)sigprocmask(SIG_BLOCK, &set, NULL);
	(void)signal(SIGPIPE, SIG_IGN);
}

static void on_started(struct view *v)
{
	uint16_t rows, cols;

	v->started = true;
	if (v->o->until_started)
		return;
	if (v->o->tty)
		terminal_raw(v->o->input);
	if (v->o->tty && terminal_size(&rows, &cols))
		(void)pump_resize(&v->pump, rows, cols);
}

static void on_error(struct view *v, const struct frame *f)
{
	struct field_reader reader = { f->data, f->len };
	uint32_t status = EXIT_ROUX;
	struct field field;

	v->failed = true;
	while (field_next(&reader, &field) == 1) {
		if (field.tag == AGENT_TAG_STATUS)
			(void)field_u32(&field, &status);
		else if (field.tag == AGENT_TAG_MESSAGE && field_str(&field))
			(void)snprintf(v->message, sizeof(v->message), "%s", field_str(&field));
	}
	v->status = status && status < 256 ? (int)status : EXIT_ROUX;
}

static int on_other(void *ctx, const struct frame *f)
{
	struct view *v = ctx;

	switch (f->type) {
	case AGENT_HELLO:
		return 0;
	case AGENT_STARTED:
		on_started(v);
		return 0;
	case AGENT_ERROR:
		on_error(v, f);
		return 0;
	case LIFE_NOTE:
		(void)!write(STDERR_FILENO, f->data, f->len);
		return 0;
	default:
		return -EPROTO;
	}
}

static ssize_t on_input(void *ctx, uint8_t *data, size_t len)
{
	struct view *v = ctx;

	return detach_keys_filter(&v->keys, data, len);
}

/* Passes a signal on.  False when roux is to end without waiting any longer. */
static bool on_signal(struct view *v, int signo)
{
	uint16_t rows, cols;

	if (signo == SIGWINCH) {
		if (v->o->tty && v->started && terminal_size(&rows, &cols))
			(void)pump_resize(&v->pump, rows, cols);
		return true;
	}
	if (!v->o->signals || (!v->started && ++v->signals >= GIVE_UP_SIGNALS)) {
		v->failed = true;
		v->status = 128 + signo;
		return false;
	}
	(void)pump_signal(&v->pump, signo);
	return true;
}

/* One step until something is decided.  0, or a negative errno at the end of the stream. */
static int step(struct view *v, int signal_fd)
{
	struct pollfd extra = { .fd = signal_fd, .events = POLLIN };
	struct signalfd_siginfo info;
	int timeout_ms = -1, r;

	if (v->o->deadline_ns) {
		uint64_t now = monotonic_ns(), end = v->o->deadline_ns + DEADLINE_SLACK_NS;

		if (now >= end) {
			v->failed = true;
			v->status = EXIT_TIMEOUT;
			(void)snprintf(v->message, sizeof(v->message), "the command did not end within %u s; the machine was stopped",
				       v->o->timeout_s);
			return -ETIMEDOUT;
		}
		timeout_ms = (int)((end - now) / 1000000 + 1);
	}
	r = pump_step(&v->pump, &extra, 1, timeout_ms);
	if (extra.revents && read(signal_fd, &info, sizeof(info)) == sizeof(info) && !on_signal(v, (int)info.ssi_signo))
		return -EINTR;
	return r;
}

static bool decided(const struct view *v)
{
	return v->failed || pump_done(&v->pump) || (v->started && v->o->until_started);
}

/* Waits until the other side has put everything in order. */
static void linger(struct view *v)
{
	struct pollfd p = { .fd = v->pump.session.fd, .events = POLLIN };
	char rest[4096];

	while (poll(&p, 1, CLOSE_WAIT_MS) > 0 && recv(p.fd, rest, sizeof(rest), 0) > 0)
		;
}

int attached_run(struct session *session, const struct attached *o)
{
	struct view v = { .o = o, .keys = o->keys };
	sigset_t set;
	int signal_fd, r = 0, status;

	signal_set(&set);
	signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	prompt_set(true);
	pump_init(&v.pump, session);
	v.pump.other = on_other;
	v.pump.filter = on_input;
	v.pump.ctx = &v;
	v.pump.stdin_fd = o->input ? STDIN_FILENO : -1;
	v.pump.stdout_fd = o->output ? STDOUT_FILENO : -1;
	v.pump.stderr_fd = o->output ? STDERR_FILENO : -1;
	while (r == 0 && !decided(&v))
		r = step(&v, signal_fd);
	if (r == -ECANCELED || (r == 0 && v.started && o->until_started))
		(void)session_send(&v.pump.session, LIFE_DETACH, NULL, 0);
	else if (o->linger && decided(&v))
		linger(&v);
	terminal_restore();
	if (v.pump.in_line && o->output && r != -ECANCELED && (v.failed || r < 0))
		(void)fputc('\n', stderr);	/* ours begins a line of its own */
	if (r == -ECANCELED) {
		(void)fprintf(stderr, "\r\nroux: left %s running; 'roux attach %s' comes back\n", o->name ? o->name : "it",
			      o->name ? o->name : "NAME");
		status = 0;
	} else if (v.failed) {
		status = *v.message ? complain(v.status, "%s", v.message) : v.status;
	} else if (r < 0) {
		status = complain(EXIT_ROUX, "%s", o->lost ? o->lost : "the VM's monitor was killed, and the VM with it");
	} else {
		status = pump_done(&v.pump) ? v.pump.status : 0;
	}
	pump_finish(&v.pump);
	(void)close(signal_fd);
	return status;
}
