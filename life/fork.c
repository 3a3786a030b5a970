/* SPDX-License-Identifier: Apache-2.0 */
/* The process that a monitor is: how it comes off the command that starts it. */
#include "life/inside.h"

#include "api/handle.h"
#include "life/standby.h"
#include "os/loop.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

/* SIGTERM: the host goes down.  The VM is stopped as its user would. */
static void on_signal(void *ctx, uint32_t events)
{
	struct monitor *m = ctx;
	struct signalfd_siginfo info;

	(void)events;
	if (read(m->signal_fd, &info, sizeof(info)) == sizeof(info) && !m->finished)
		monitor_stop(m, m->record.config.stop_timeout_ms);
}

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
		r = monitor_set_up(m, err);
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

void monitor_main(struct monitor *m, int client, struct err *err)
{
	int r = err->code;

	m->listen_fd = m->signal_fd = -1;
	m->command.stream.fd = -1;
	m->first_life = true;
	m->record.state.monitor_pid = (uint32_t)getpid();
	m->record.state.restarts = 0;
	m->record.state.stopped_by_user = false;
	output_open(&m->output, m->owned.data, m->record.config.log_max);
	if (r == 0)
		r = set_up(m, client, err);
	if (r == 0)
		(void)loop_run(m->loop, err);
	if (m->learning)
		m->learnt |= machine_learn_end(m->dying);
	roux_machine_destroy(m->dying);
	/* The process ends here: its memory needs no freeing. */
	if (r < 0 && m->options.fresh)
		(void)vm_remove(&m->vms, &m->owned, m->record.name, NULL);
	if (r < 0)
		tell_failure(client, err);
	else
		standby_instead(m, m->learnt);
	_exit(r < 0);
}

int monitor_fork(const struct vms *vms, struct vm_owned *owned, const struct vm_record *record,
		 const struct monitor_options *options, int *ret_fd, struct err *err)
{
	static struct monitor m;
	int pair[2];
	pid_t pid = -1;
	bool stood_by;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return err_set(err, -errno, "cannot make a socket: %s", strerror(errno));
	stood_by = standby_start(vms, owned, record, options, pair[1]);
	if (!stood_by)
		pid = fork();
	if (pid == 0) {
		m.vms = *vms;
		m.owned = *owned;
		m.record = *record;
		m.options = *options;
		(void)close(pair[0]);
		detach(&m, pair[1]);
		monitor_main(&m, pair[1], err);
	}
	(void)close(pair[1]);
	if (!stood_by && pid < 0) {
		(void)close(pair[0]);
		return err_set(err, -errno, "cannot make a process for the VM's monitor: %s", strerror(errno));
	}
	vm_release(owned);
	*ret_fd = pair[0];
	return 0;
}
