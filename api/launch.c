/* SPDX-License-Identifier: Apache-2.0 */
/* The process of a machine: started, limited, ended. */
#include "api/handle.h"

#include "api/network.h"
#include "api/template.h"
#include "os/cgroup.h"
#include "os/memory.h"
#include "os/weight.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROCESS_MEMORY (512ull << 20)	/* bytes a VM's process may use besides the guest's memory; half is the translator's code */
#define PROCESS_TASKS 128u	/* threads and processes besides the vCPUs */
#define LAST_BREATH_MS 2000	/* for a process that was killed to let go of its files */
#define CONTROL_FD 3	/* where the VM's process finds its socket */

extern char **environ;

void machine_reap(pid_t *pid, int *ret_status)
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
static void *limit_process(void *arg)
{
	struct roux_machine *m = arg;
	struct cgroup_limits limits = { .memory = m->spec.memory + PROCESS_MEMORY, .tasks = m->spec.cpus + PROCESS_TASKS };
	int r = cgroup_create(&limits, &m->cgroup, NULL);

	if (r < 0)
		return NULL;
	r = cgroup_add(m->cgroup, m->limiter.pid);
	if (r == 0)
		(void)cgroup_add(m->cgroup, m->limiter.helper);	/* which may have ended */
	if (r < 0) {
		cgroup_destroy(m->cgroup);
		m->cgroup = NULL;
	}
	memory_give_back_stack();	/* nobody waits for us before the machine's end */
	return NULL;
}

/* Moving a process into a group takes the kernel 10 ms: it waits for all processors to have done something else. */
static void begin_limiting(struct roux_machine *m)
{
	m->limiter.pid = m->pid;
	m->limiter.helper = m->helper;
	m->limiter.running = pthread_create(&m->limiter.thread, NULL, limit_process, m) == 0;
}

static void end_limiting(struct roux_machine *m)
{
	if (m->limiter.running)
		(void)pthread_join(m->limiter.thread, NULL);
	m->limiter.running = false;
}

int machine_set_shares(struct roux_machine *m, uint32_t shares, struct err *err)
{
	int r;

	end_limiting(m);
	r = m->cgroup ? cgroup_set_shares(m->cgroup, shares) : -ENOTSUP;
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
		begin_limiting(m);
	return r;
}

void machine_kill(struct roux_machine *m)
{
	if (m->pid > 0)
		(void)kill(m->pid, SIGKILL);
	if (m->helper > 0)
		(void)kill(m->helper, SIGKILL);
}

/* A process that ends gives back its memory, then its files, and takes its time for its namespaces, which hold nothing of ours. */
static void hang_up(struct roux_machine *m)
{
	struct pollfd end = { .fd = m->sock };

	machine_kill(m);
	machine_reap(&m->helper, NULL);
	while (m->sock >= 0 && m->pid > 0 && poll(&end, 1, LAST_BREATH_MS) < 0 && errno == EINTR)
		;
	if (m->sock >= 0)
		(void)close(m->sock);
	m->sock = -1;
}

void machine_let_go(struct roux_machine *m)
{
	hang_up(m);
	leave_networks(m);
	template_writer_finish(m->writer);
	template_writer_finish(m->boot_writer);
	m->writer = m->boot_writer = NULL;
}

void machine_end_process(struct roux_machine *m)
{
	hang_up(m);
	end_limiting(m);
	machine_reap(&m->pid, NULL);
	cgroup_destroy(m->cgroup);
	m->cgroup = NULL;
}

/* Starts the process and has it make the machine. */
int machine_launch(struct roux_machine *m, struct err *err)
{
	char *text = machine_spec_text(&m->spec);
	int r = text ? spawn(m, err) : err_set(err, -ENOMEM, "out of memory");

	if (r == 0)
		r = control_send(m->sock, CONTROL_SPEC, 0, 0, text, strlen(text), -1);
	free(text);
	if (r == -EPIPE) {	/* dead before it could read: say of what */
		machine_process_gone(m);
		r = 0;
	}
	return r;
}

static bool is_made_alike(const struct roux_machine *m, const struct roux_machine *ready)
{
	struct machine_spec spec = ready->spec;	/* its strings stay the original's */
	char *a, *b;
	bool alike;

	if (!m->template || !ready->template || strcmp(m->template, ready->template) != 0 || strcmp(m->vmm, ready->vmm) != 0 ||
	    !machine_template_is_same(ready))
		return false;
	spec.restore = spec.code = NULL;
	for (unsigned i = 0; i < spec.nnets && i < m->spec.nnets; i++)
		memcpy(spec.net[i].mac, m->spec.net[i].mac, sizeof(spec.net[i].mac));	/* drawn by lot */
	a = machine_spec_text(&spec);
	b = machine_spec_text(&m->spec);
	alike = a && b && strcmp(a, b) == 0;
	free(a);
	free(b);
	return alike;
}

bool machine_take_over(struct roux_machine *m, struct roux_machine *ready)
{
	(void)machine_events(ready, 0);
	if (ready->state != ROUX_RUNNING || !ready->spec.restore || ready->ready_fd < 0 || !ready->greeted || ready->identified ||
	    !is_made_alike(m, ready))
		return false;
	end_limiting(ready);
	m->pid = ready->pid;
	m->helper = ready->helper;
	m->sock = ready->sock;
	m->cgroup = ready->cgroup;
	m->counts = ready->counts;
	m->ready_fd = ready->ready_fd;
	m->greeted = true;
	m->learns = ready->learns;
	m->template_dev = ready->template_dev;
	m->template_ino = ready->template_ino;
	m->last_connect = ready->last_connect;
	m->spec.restore = ready->spec.restore;
	m->spec.code = ready->spec.code;
	for (unsigned i = 0; i < m->spec.nnets; i++)
		memcpy(m->spec.net[i].mac, ready->spec.net[i].mac, sizeof(m->spec.net[i].mac));
	memcpy(m->ready_stream, ready->ready_stream, sizeof(m->ready_stream));
	memcpy(m->engine, ready->engine, sizeof(m->engine));
	m->phase[ROUX_PHASE_SPAWNED] = m->phase[ROUX_PHASE_LOADED] = m->phase[ROUX_PHASE_READY] = monotonic_ns();
	m->state = ROUX_RUNNING;
	ready->state = ROUX_STOPPED;
	ready->pid = ready->helper = 0;
	ready->sock = ready->ready_fd = -1;
	ready->cgroup = NULL;
	ready->counts = NULL;
	ready->spec.restore = ready->spec.code = NULL;
	return true;
}
