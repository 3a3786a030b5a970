/* SPDX-License-Identifier: Apache-2.0 */
/* A machine as its owner sees it: the VM's process and the control socket to it. */
#include "api/handle.h"

#include "abi/agent.h"
#include "api/network.h"
#include "machine/counts.h"
#include "oci/image.h"
#include "os/cgroup.h"
#include "os/seccomp.h"
#include "os/weight.h"
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define START_TIMEOUT_MS 60000u
#define CONNECT_TIMEOUT_MS 10000u
#define DEBUGGED_TIMEOUT_MS 86400000u	/* somebody may be looking at the stopped guest */
#define PROCESS_MEMORY (512ull << 20)	/* bytes a VM's process may use besides the guest's memory; half is the translator's code */
#define PROCESS_TASKS 128u	/* threads and processes besides the vCPUs */
#define CONTROL_FD 3	/* where the VM's process finds its socket */

extern char **environ;

int give_error(struct roux_error *error, const struct err *err, int code)
{
	if (error) {
		error->code = code;
		(void)snprintf(error->message, sizeof(error->message), "%s", err->msg[0] ? err->msg : strerror(-code));
	}
	return code;
}

const char *roux_version(void)
{
	return ROUX_VERSION;
}

/* Options of an older program are shorter: what is missing is zero. */
static void take_options(struct roux_options *o, const struct roux_options *given)
{
	*o = (struct roux_options){ .size = 0 };
	memcpy(o, given, given->size < sizeof(*o) ? given->size : sizeof(*o));
}

static const char *vmm_path(const struct roux_options *o)
{
	const char *env = getenv("ROUX_VMM");

	return o->vmm ? o->vmm : env && *env ? env : ROUX_VMM_PATH;
}

int roux_machine_create(const struct roux_options *options, struct roux_machine **ret_machine,
			struct roux_error *error)
{
	struct roux_machine *m = calloc(1, sizeof(*m));
	struct roux_options o;
	struct err err = { 0 };
	int r;

	if (!m)
		return give_error(error, &err, -ENOMEM);
	take_options(&o, options);
	m->sock = m->ready_fd = -1;
	for (unsigned i = 0; i < SPEC_NETS_MAX; i++)
		m->seat_fd[i] = -1;
	m->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	m->phase[ROUX_PHASE_BEGIN] = monotonic_ns();
	m->start_timeout_ms = o.start_timeout_ms || o.gdb ? o.start_timeout_ms : START_TIMEOUT_MS;
	m->msg = malloc(sizeof(*m->msg));
	m->vmm = strdup(vmm_path(&o));
	if (m->wake_fd < 0)
		r = err_set(&err, -errno, "cannot make an eventfd: %s", strerror(errno));
	else
		r = m->msg && m->vmm ? prepare(m, &o, &err) : -ENOMEM;
	if (r < 0) {
		roux_machine_destroy(m);
		return give_error(error, &err, r);
	}
	*ret_machine = m;
	return 0;
}

/* ------------------------------------------------------------------ process */

static void reap(pid_t *pid, int *ret_status)
{
	while (*pid > 0 && waitpid(*pid, ret_status, 0) < 0 && errno == EINTR)
		;
	*pid = 0;
}

/* What was started splits in two and tells who runs the VM: another child of ours. */
static int learn_pid(struct roux_machine *m, struct err *err)
{
	int fd, r;

	m->helper = m->pid;
	m->pid = 0;
	r = control_recv(m->sock, m->msg, &fd);
	if (r > 0 && m->msg->type == CONTROL_BORN) {
		m->pid = (pid_t)m->msg->value;
		m->phase[ROUX_PHASE_SPAWNED] = monotonic_ns();
		return 0;
	}
	if (r > 0 && fd >= 0)
		(void)close(fd);
	if (r > 0 && m->msg->type == CONTROL_FAILED)
		return err_set(err, m->msg->value, "%s", m->msg->text);
	return err_set(err, r < 0 ? r : -EPIPE, "the VM's process ended before it was one");
}

/* What the host lets us set; the jail holds without. */
static void limit_process(struct roux_machine *m)
{
	struct cgroup_limits limits = { .memory = m->spec.memory + PROCESS_MEMORY, .tasks = m->spec.cpus + PROCESS_TASKS };
	int r = cgroup_create(&limits, &m->cgroup, NULL);

	if (r < 0)
		return;
	r = cgroup_add(m->cgroup, m->pid);
	if (r == 0)
		(void)cgroup_add(m->cgroup, m->helper);	/* which may have ended */
	if (r < 0) {
		cgroup_destroy(m->cgroup);
		m->cgroup = NULL;
	}
}

int machine_set_shares(struct roux_machine *m, uint32_t shares, struct err *err)
{
	int r = m->cgroup ? cgroup_set_shares(m->cgroup, shares) : -ENOTSUP;

	if (r == -ENOTSUP)
		return weight_set(m->pid, shares, err);
	return r < 0 ? err_set(err, r, "cannot change the VM's part of the CPUs: %s", strerror(-r)) : 0;
}

static int spawn(struct roux_machine *m, struct err *err)
{
	char *const argv[] = { m->vmm, (char *)(uintptr_t)"vmm", NULL };
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	sigset_t none;
	int pair[2], r;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return err_set(err, -errno, "cannot make a socket: %s", strerror(errno));
	(void)setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &(int){ 1 << 20 }, sizeof(int));
	(void)posix_spawn_file_actions_init(&actions);
	(void)posix_spawnattr_init(&attr);
	/* dup2 onto itself would keep close-on-exec: go through a free number. */
	if (pair[1] == CONTROL_FD) {
		int moved = fcntl(pair[1], F_DUPFD_CLOEXEC, CONTROL_FD + 1);

		(void)close(pair[1]);
		pair[1] = moved;
	}
	(void)posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
	(void)posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
	(void)posix_spawn_file_actions_adddup2(&actions, pair[1], CONTROL_FD);
	/* A group of its own: Ctrl-C on the terminal is the owner's business. */
	(void)sigemptyset(&none);
	(void)posix_spawnattr_setsigmask(&attr, &none);
	(void)posix_spawnattr_setpgroup(&attr, 0);
	(void)posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK);
	r = posix_spawn(&m->pid, m->vmm, &actions, &attr, argv, environ);
	(void)posix_spawn_file_actions_destroy(&actions);
	(void)posix_spawnattr_destroy(&attr);
	(void)close(pair[1]);
	if (r) {
		m->pid = 0;
		(void)close(pair[0]);
		return err_set(err, -r, "cannot run %s: %s", m->vmm, strerror(r));
	}
	m->sock = pair[0];
	r = learn_pid(m, err);
	if (r == 0)
		limit_process(m);
	return r;
}

static void set_reason(struct roux_machine *m, enum roux_state state, const char *why)
{
	m->state = state;
	(void)snprintf(m->reason, sizeof(m->reason), "%.*s", (int)sizeof(m->reason) - 1, why);
}

/* Its socket closed without a word: say how it died. */
static void process_gone(struct roux_machine *m)
{
	int status = 0;

	if (m->state == ROUX_STOPPED || m->state == ROUX_FAILED)
		return;
	set_reason(m, ROUX_FAILED, "the VM's process ended unexpectedly");
	reap(&m->pid, &status);
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS) {
		set_reason(m, ROUX_FAILED, "the VM's process was stopped by its jail");
	} else if (WIFSIGNALED(status)) {
		(void)snprintf(m->reason, sizeof(m->reason), "the VM's process was killed by signal %d (%s)%s",
				       WTERMSIG(status), strsignal(WTERMSIG(status)), WTERMSIG(status) != SIGKILL ? "" :
			       "; if the host is short of memory, give the VM less with --memory");
	}
}

/* ------------------------------------------------------------------- events */

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
static struct machine_connect *take_connect(struct roux_machine *m, int32_t id)
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
	struct machine_connect *c = take_connect(m, id);

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

static void on_message(struct roux_machine *m, int fd)
{
	const struct control_msg *msg = m->msg;

	switch ((enum control_type)msg->type) {
	case CONTROL_STARTED:
		(void)snprintf(m->engine, sizeof(m->engine), "%.15s", msg->text);
		m->phase[ROUX_PHASE_LOADED] = monotonic_ns();
		if (fd >= 0 && !m->counts)
			(void)counts_map(fd, &m->counts);
		if (!msg->value2)	/* done, or about to be */
			reap(&m->helper, NULL);
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
			fd = -1;
		}
		break;
	case CONTROL_CONNECTED:
		on_connected(m, msg->value, msg->value2, fd);
		return;
	case CONTROL_COUNTERS:
		free(m->counters);
		m->counters = strdup(msg->text);
		break;
	case CONTROL_NETWORK_LOST:
		rejoin_network(m, (unsigned)msg->value);
		break;
	case CONTROL_RESIZED:
		m->resize.done = true;
		(void)err_set(&m->resize.err, msg->value, "%s", msg->text);
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
			process_gone(m);
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
static int events_until(struct roux_machine *m, uint64_t deadline)
{
	uint64_t now = monotonic_ns();

	return now >= deadline ? -ETIMEDOUT : machine_events(m, (int)((deadline - now) / 1000000 + 1));
}

/* -------------------------------------------------------------------- start */

static bool ended(const struct roux_machine *m)
{
	return m->state == ROUX_STOPPED || m->state == ROUX_FAILED;
}

/* The agent's first connection begins with HELLO; after a failed boot an ERROR follows. */
static int check_ready(struct roux_machine *m, uint64_t deadline, struct session *s, struct err *err)
{
	struct frame f;
	int r = session_open(s, m->ready_fd, err);

	m->ready_fd = -1;
	if (r < 0)
		return r;
	r = session_hello(s, deadline, m->wake_fd, err);
	if (r < 0)
		return r;
	if (session_next(s, &f) != 1)
		return 0;
	return f.type == AGENT_ERROR ? session_error(&f, err) :
		err_set(err, -EPROTO, "the guest's agent does not keep to its protocol");
}

int roux_machine_start(struct roux_machine *m, struct roux_error *error)
{
	uint64_t deadline = monotonic_ns() + m->start_timeout_ms * 1000000ull;
	struct err err = { 0 };
	char *text;
	int r;

	if (m->pid || ended(m))
		return give_error(error, &err, -EALREADY);
	text = machine_spec_text(&m->spec);
	r = text ? spawn(m, &err) : -ENOMEM;
	if (r == 0)
		r = control_send(m->sock, CONTROL_SPEC, 0, 0, text, strlen(text), -1);
	free(text);
	if (r == -EPIPE) {	/* dead before it could read: say of what */
		process_gone(m);
		r = 0;
	}
	while (r == 0 && m->ready_fd < 0 && !ended(m)) {
		r = m->start_timeout_ms ? events_until(m, deadline) : machine_events(m, -1);
		if (r == -ETIMEDOUT)
			r = err_set(&err, r, "the guest did not become ready within %u s", m->start_timeout_ms / 1000);
		if (r == -EINTR)
			r = err_set(&err, r, "interrupted");
	}
	if (r == 0 && ended(m))
		r = err_set(&err, -EIO, "%s", m->reason[0] ? m->reason : "the guest powered off before it was ready");
	if (r < 0)
		return give_error(error, &err, r);
	m->state = ROUX_RUNNING;
	m->phase[ROUX_PHASE_READY] = monotonic_ns();
	return 0;
}

/* ----------------------------------------------------------------- sessions */

/* As machine_connect_agent(), with the request's number for take_connect(). */
static int request_stream(struct roux_machine *m, machine_connected_fn fn, void *ctx, int32_t *ret_id)
{
	struct machine_connect *c;
	int r;

	if (m->sock < 0 || ended(m))
		return -ENOTCONN;
	c = malloc(sizeof(*c));
	if (!c)
		return -ENOMEM;
	*c = (struct machine_connect){ .next = m->connects, .id = ++m->last_connect, .connected = fn, .ctx = ctx };
	r = control_send(m->sock, CONTROL_CONNECT, c->id, (int32_t)AGENT_PORT, NULL, 0, -1);
	if (r < 0) {
		free(c);
		return r;
	}
	m->connects = c;
	*ret_id = c->id;
	return 0;
}

int machine_connect_agent(struct roux_machine *m, machine_connected_fn fn, void *ctx)
{
	int32_t id;

	return request_stream(m, fn, ctx, &id);
}

struct answer {
	bool come;
	int result, fd;
};

static void on_answer(void *ctx, int result, int fd)
{
	*(struct answer *)ctx = (struct answer){ .come = true, .result = result, .fd = fd };
}

static int connect_agent(struct roux_machine *m, uint64_t deadline, struct err *err)
{
	struct answer a = { .fd = -1 };
	int32_t id;
	int r = request_stream(m, on_answer, &a, &id);

	if (r == 0) {
		while (r == 0 && !a.come && !ended(m))
			r = events_until(m, deadline);
		if (a.come) {
			r = a.result;
		} else {
			free(take_connect(m, id));	/* @a is about to go */
			r = r < 0 ? r : -ENOTCONN;
		}
	}
	return r < 0 ? err_set(err, r, "cannot reach the guest: %s",
			       ended(m) && m->reason[0] ? m->reason : strerror(-r)) : a.fd;
}

static void forget_connects(struct roux_machine *m)
{
	struct machine_connect *c;

	while ((c = m->connects)) {
		m->connects = c->next;
		c->connected(c->ctx, -ENOTCONN, -1);
		free(c);
	}
}

int machine_session(struct roux_machine *m, struct session *ret_session, struct err *err)
{
	uint64_t deadline = monotonic_ns() + (m->spec.gdb ? DEBUGGED_TIMEOUT_MS : CONNECT_TIMEOUT_MS) * 1000000ull;
	int r;

	if (m->ready_fd >= 0) {
		r = check_ready(m, deadline, ret_session, err);
	} else {
		int fd = connect_agent(m, deadline, err);

		if (fd < 0)
			return fd;
		r = session_open(ret_session, fd, err);
		if (r < 0)
			return r;
		r = session_hello(ret_session, deadline, m->wake_fd, err);
	}
	if (r < 0)
		session_close(ret_session);
	return r;
}

/* ----------------------------------------------------------------- counters */

static struct roux_network_direction direction(const struct link_direction *d)
{
	return (struct roux_network_direction){ .frames = __atomic_load_n(&d->frames, __ATOMIC_RELAXED),
						.bytes = __atomic_load_n(&d->bytes, __ATOMIC_RELAXED),
						.dropped = __atomic_load_n(&d->dropped, __ATOMIC_RELAXED) };
}

bool roux_machine_network_counts(const struct roux_machine *m, unsigned index, struct roux_network_counts *ret_counts)
{
	if (!m->counts || index >= m->spec.nnets)
		return false;
	ret_counts->sent = direction(&m->counts->net[index].sent);
	ret_counts->received = direction(&m->counts->net[index].received);
	return true;
}

static int ask_counters(struct roux_machine *m, struct err *err)
{
	uint64_t deadline = monotonic_ns() + CONNECT_TIMEOUT_MS * 1000000ull;
	int r;

	free(m->counters);
	m->counters = NULL;
	r = m->sock < 0 ? -ENOTCONN : control_send(m->sock, CONTROL_COUNT, 0, 0, NULL, 0, -1);
	while (r == 0 && !m->counters && !ended(m))
		r = events_until(m, deadline);
	if (r == 0 && !m->counters)
		r = -ENOTCONN;
	return r < 0 ? err_set(err, r, "cannot ask the VM's process what it counted: %s", strerror(-r)) : 0;
}

int roux_machine_counters(struct roux_machine *m, roux_counter_fn fn, void *ctx, struct roux_error *error)
{
	struct err err = { 0 };
	char *rest = NULL;
	int r = ask_counters(m, &err);

	if (r < 0)
		return give_error(error, &err, r);
	for (char *line = strtok_r(m->counters, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
		char *space = strchr(line, ' ');

		if (!space)
			continue;
		*space = '\0';
		fn(ctx, line, strtoull(space + 1, NULL, 10));
	}
	return 0;
}

/* ------------------------------------------------------------------- memory */

static int resize(struct roux_machine *m, uint64_t bytes, struct err *err)
{
	uint64_t deadline = monotonic_ns() + CONNECT_TIMEOUT_MS * 1000000ull, mib = bytes >> 20;
	int r = m->sock < 0 || mib > INT32_MAX ? -EINVAL : 0;

	m->resize.done = false;
	m->resize.err = (struct err){ 0 };
	if (r == 0)
		r = control_send(m->sock, CONTROL_RESIZE, (int32_t)mib, 0, NULL, 0, -1);
	while (r == 0 && !m->resize.done && !ended(m))
		r = events_until(m, deadline);
	if (r == 0 && !m->resize.done)
		r = -ENOTCONN;
	if (r < 0)
		return err_set(err, r, "cannot ask the VM's process for another size of memory: %s", strerror(-r));
	*err = m->resize.err;
	return err->code;
}

int roux_machine_set_memory(struct roux_machine *m, uint64_t bytes, struct roux_error *error)
{
	struct err err = { 0 };

	return give_error(error, &err, resize(m, bytes, &err));
}

/* ------------------------------------------------------------------- others */

void roux_machine_interrupt(struct roux_machine *m)
{
	int saved = errno;	/* a signal handler leaves no trace */
	uint64_t once = 1;

	if (write(m->wake_fd, &once, sizeof(once)) < 0) {
		/* only a counter that is full: interrupted often enough */
	}
	errno = saved;
}

void roux_machine_destroy(struct roux_machine *m)
{
	if (!m)
		return;
	forget_connects(m);
	if (m->sock >= 0)
		(void)close(m->sock);
	if (m->ready_fd >= 0)
		(void)close(m->ready_fd);
	if (m->wake_fd >= 0)
		(void)close(m->wake_fd);
	/* They stop by themselves when the socket closes; do not depend on that. */
	if (m->pid > 0)
		(void)kill(m->pid, SIGKILL);
	if (m->helper > 0)
		(void)kill(m->helper, SIGKILL);
	reap(&m->pid, NULL);
	reap(&m->helper, NULL);
	cgroup_destroy(m->cgroup);
	oci_image_close(m->image);
	store_lease_end(m->lease);	/* after the VM, which used what it keeps */
	store_close(m->store);
	leave_networks(m);
	free(m->guest_name);
	machine_spec_finish(&m->spec);
	counts_unmap(m->counts);
	free(m->counters);
	free(m->msg);
	free(m->vmm);
	free(m);
}

void roux_machine_on_console(struct roux_machine *m, roux_console_fn fn, void *ctx)
{
	m->console = fn;
	m->console_ctx = ctx;
}

void roux_machine_on_gdb(struct roux_machine *m, roux_gdb_fn fn, void *ctx)
{
	m->gdb = fn;
	m->gdb_ctx = ctx;
}

const char *roux_machine_console_tail(const struct roux_machine *m)
{
	return m->tail;
}

int roux_machine_fd(const struct roux_machine *m)
{
	return m->sock;
}

const char *roux_machine_reason(const struct roux_machine *m)
{
	return m->reason;
}

const char *roux_machine_engine(const struct roux_machine *m)
{
	return m->engine;
}

int roux_machine_pid(const struct roux_machine *m)
{
	return (int)m->pid;
}

uint64_t roux_machine_phase_ns(const struct roux_machine *m, enum roux_phase phase)
{
	return phase < ROUX_PHASES ? m->phase[phase] : 0;
}

int roux_machine_stop_signal(const struct roux_machine *m)
{
	int signo = m->config ? oci_stop_signal(m->config) : SIGTERM;

	return signo > 0 ? signo : SIGTERM;
}
