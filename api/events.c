/* SPDX-License-Identifier: Apache-2.0 */
/* What the process of a machine says. */
#include "api/handle.h"

#include "api/network.h"
#include "machine/counts.h"
#include "os/seccomp.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void set_reason(struct roux_machine *m, enum roux_state state, const char *why)
{
	m->state = state;
	(void)snprintf(m->reason, sizeof(m->reason), "%.*s", (int)sizeof(m->reason) - 1, why);
}

/* Its socket closed without a word: say how it died. */
void machine_process_gone(struct roux_machine *m)
{
	int status = 0;

	if (m->state == ROUX_STOPPED || m->state == ROUX_FAILED)
		return;
	set_reason(m, ROUX_FAILED, "the VM's process ended unexpectedly");
	machine_reap(&m->pid, &status);
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS) {
		set_reason(m, ROUX_FAILED, "the VM's process was stopped by its jail");
	} else if (WIFSIGNALED(status)) {
		(void)snprintf(m->reason, sizeof(m->reason), "the VM's process was killed by signal %d (%s)%s",
				       WTERMSIG(status), strsignal(WTERMSIG(status)), WTERMSIG(status) != SIGKILL ? "" :
			       "; if the host is short of memory, give the VM less with --memory");
	}
}

static void keep_console(struct roux_machine *m, const char *data, size_t len)
{
	if (len > CONSOLE_TAIL) {
		data += len - CONSOLE_TAIL;
		len = CONSOLE_TAIL;
	}
	if (m->tail_len + len > CONSOLE_TAIL) {
		size_t drop = m->tail_len + len - CONSOLE_TAIL;

		memmove(m->tail, m->tail + drop, m->tail_len - drop);
		m->tail_len -= drop;
	}
	memcpy(m->tail + m->tail_len, data, len);
	m->tail_len += len;
	m->tail[m->tail_len] = '\0';
}

/* A panic says why on one line; the commonest reason has a remedy. */
static void reset_reason(struct roux_machine *m)
{
	static const char mark[] = "Kernel panic - not syncing: ";
	const char *at = strstr(m->tail, mark);
	size_t n;

	if (!at) {
		set_reason(m, ROUX_FAILED, "the guest reset itself");
		return;
	}
	at += sizeof(mark) - 1;
	n = strcspn(at, "\r\n");
	m->state = ROUX_FAILED;
	(void)snprintf(m->reason, sizeof(m->reason), "the guest kernel panicked: %.*s%s", n > 160 ? 160 : (int)n, at,
		       strstr(at, "memory") ? "; give it more with --memory" : "");
}

/* A guest that cannot tell its owner why it gives up has said so on its console. */
static void boot_reason(struct roux_machine *m)
{
	static const char mark[] = "roux: ";
	const char *line = NULL;
	size_t n;

	m->state = ROUX_STOPPED;
	for (const char *at = m->tail; (at = strstr(at, mark)); at += sizeof(mark) - 1)
		line = at + sizeof(mark) - 1;
	if (!line)
		return;
	n = strcspn(line, "\r\n");
	(void)snprintf(m->reason, sizeof(m->reason), "the guest gave up: %.*s", n > 200 ? 200 : (int)n, line);
}

static void on_ended(struct roux_machine *m, const struct control_msg *msg)
{
	switch ((enum control_end)msg->value) {
	case CONTROL_END_POWEROFF:
		if (m->state == ROUX_CREATED)
			boot_reason(m);
		else
			set_reason(m, ROUX_STOPPED, msg->text);
		break;
	case CONTROL_END_RESET:	/* panic=-1 turns a panic into a reset */
		reset_reason(m);
		break;
	case CONTROL_END_CRASH:
	case CONTROL_END_ERROR:
		set_reason(m, ROUX_FAILED, msg->text);
		break;
	}
}

/* Takes request @id off those under way; NULL: none has it. */
struct machine_connect *machine_take_connect(struct roux_machine *m, int32_t id)
{
	for (struct machine_connect **at = &m->connects; *at; at = &(*at)->next) {
		struct machine_connect *c = *at;

		if (c->id == id) {
			*at = c->next;
			return c;
		}
	}
	return NULL;
}

/* The VM's process has answered request @id; takes @fd, which may be -1. */
static void on_connected(struct roux_machine *m, int32_t id, int result, int fd)
{
	struct machine_connect *c = machine_take_connect(m, id);

	if (result > 0 || (result == 0 && fd < 0))
		result = -EPROTO;
	if (fd >= 0 && (!c || result < 0)) {
		(void)close(fd);
		fd = -1;
	}
	if (c)
		c->connected(c->ctx, result, fd);
	free(c);
}

/* Whether the message is the answer that is waited for; else it is too late, and whoever asked has gone on. */
static bool take_answer(struct roux_machine *m)
{
	if (!m->answer.number || m->msg->value2 != m->answer.number)
		return false;
	m->answer.number = 0;
	return true;
}

static void on_message(struct roux_machine *m, int fd)
{
	const struct control_msg *msg = m->msg;

	switch ((enum control_type)msg->type) {
	case CONTROL_STARTED:
		(void)snprintf(m->engine, sizeof(m->engine), "%.15s", msg->text);
		m->phase[ROUX_PHASE_LOADED] = monotonic_ns();
		if (fd >= 0 && !m->counts)
			(void)counts_map(fd, &m->counts);
		if (!(msg->value2 & CONTROL_HAS_HELPER))	/* done, or about to be */
			machine_reap(&m->helper, NULL);
		m->learns = msg->value2 & CONTROL_HAS_LESSONS;
		if (msg->value && m->gdb)
			m->gdb(m->gdb_ctx, (uint16_t)msg->value);
		break;
	case CONTROL_FAILED:
		set_reason(m, ROUX_FAILED, msg->text);
		break;
	case CONTROL_CONSOLE:
		keep_console(m, msg->text, msg->len);
		if (m->console)
			m->console(m->console_ctx, msg->text, msg->len);
		break;
	case CONTROL_READY:
		if (m->ready_fd < 0) {
			m->ready_fd = fd;
			m->greeted = msg->value;
			(void)snprintf(m->ready_stream, sizeof(m->ready_stream), "%.23s", msg->text);
			fd = -1;
		}
		break;
	case CONTROL_CONNECTED:
		(void)snprintf(m->stream, sizeof(m->stream), "%.23s", msg->text);
		on_connected(m, msg->value, msg->value2, fd);
		return;
	case CONTROL_COUNTERS:
		if (!take_answer(m))
			break;
		free(m->counters);
		m->counters = strdup(msg->text);
		m->answer.err.code = m->counters ? 0 : -ENOMEM;
		break;
	case CONTROL_NETWORK_LOST:
		rejoin_network(m, (unsigned)msg->value);
		break;
	case CONTROL_WATCHED:
		if (!take_answer(m))
			break;
		if (m->answer.fd >= 0)
			(void)close(m->answer.fd);
		m->answer.fd = fd;
		fd = -1;
		if (msg->value == 0)
			(void)snprintf(m->answer.text, sizeof(m->answer.text), "%.63s", msg->text);
		(void)err_set(&m->answer.err, msg->value, "%s", msg->text);
		break;
	case CONTROL_RESIZED:
	case CONTROL_SAVED:
	case CONTROL_CHECKPOINTED:
	case CONTROL_KEPT:
		if (!take_answer(m))
			break;
		m->answer.value = msg->value;
		(void)err_set(&m->answer.err, msg->value < 0 ? msg->value : 0, "%s", msg->text);
		break;
	case CONTROL_FORBIDDEN:
		m->state = ROUX_FAILED;
		(void)snprintf(m->reason, sizeof(m->reason),
			       "the VM's process was stopped by its jail: forbidden system call %d (%s)", msg->value,
			       seccomp_name(msg->value));
		break;
	case CONTROL_ENDED:
		on_ended(m, msg);
		break;
	case CONTROL_BORN:	/* handled by learn_pid() */
	case CONTROL_SPEC:
	case CONTROL_CONNECT:
	case CONTROL_COUNT:
	case CONTROL_NETWORK:
	case CONTROL_RESIZE:
	case CONTROL_FORGET:
	case CONTROL_SAVE:
	case CONTROL_CHECKPOINT:
	case CONTROL_WATCH:
	case CONTROL_STAND:
	case CONTROL_GO_ON:
	case CONTROL_HALT:
	case CONTROL_KEEP:
	case CONTROL_HOLD:
	case CONTROL_READS:
	case CONTROL_CONSOLE_INPUT:
		break;
	}
	if (fd >= 0)
		(void)close(fd);
}

int machine_events(struct roux_machine *m, int timeout_ms)
{
	while (m->sock >= 0) {
		struct pollfd fds[2] = { { .fd = m->sock, .events = POLLIN },
					 { .fd = timeout_ms ? m->wake_fd : -1, .events = POLLIN } };
		int fd, r = poll(fds, 2, timeout_ms);
		uint64_t times;

		if (r <= 0)	/* EINTR: a handler that means us has called roux_machine_interrupt() */
			return r < 0 && errno != EINTR ? -errno : 0;
		if (fds[1].revents && read(m->wake_fd, &times, sizeof(times)) > 0)
			return -EINTR;
		r = control_recv(m->sock, m->msg, &fd);
		if (r == -EAGAIN)
			return 0;
		if (r <= 0) {
			(void)close(m->sock);
			m->sock = -1;
			machine_process_gone(m);
			return 0;
		}
		on_message(m, fd);
		timeout_ms = 0;
	}
	return 0;
}

enum roux_state roux_machine_dispatch(struct roux_machine *m)
{
	(void)machine_events(m, 0);
	return m->state;
}

/* Handles what comes next before @deadline; -ETIMEDOUT when that is over. */
int machine_events_until(struct roux_machine *m, uint64_t deadline)
{
	uint64_t now = monotonic_ns();

	return now >= deadline ? -ETIMEDOUT : machine_events(m, (int)((deadline - now) / 1000000 + 1));
}

bool machine_ended(const struct roux_machine *m)
{
	return m->state == ROUX_STOPPED || m->state == ROUX_FAILED;
}

int machine_ask(struct roux_machine *m, enum control_type what, int32_t value, int fd, unsigned timeout_ms, struct err *err)
{
	return machine_ask_with(m, what, value, NULL, 0, fd, timeout_ms, err);
}

int machine_ask_with(struct roux_machine *m, enum control_type what, int32_t value, const void *text, size_t len, int fd,
		     unsigned timeout_ms, struct err *err)
{
	uint64_t deadline = monotonic_ns() + timeout_ms * 1000000ull;
	int r;

	m->answer.number = ++m->last_question;
	m->answer.err = (struct err){ 0 };
	r = m->sock < 0 ? -ENOTCONN : control_send(m->sock, what, value, m->answer.number, text, len, fd);
	while (r == 0 && m->answer.number && !machine_ended(m))
		r = machine_events_until(m, deadline);
	if (r == 0 && m->answer.number)
		r = -ENOTCONN;
	m->answer.number = 0;
	if (r < 0)
		return err_set(err, r, "the VM's process does not answer: %s", strerror(-r));
	*err = m->answer.err;
	return err->code;
}
