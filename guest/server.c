/* SPDX-License-Identifier: Apache-2.0 */
#include "guest/server.h"

#include "abi/agent.h"
#include "base/checked.h"
#include "guest/session.h"
#include "guest/text.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define SESSIONS_MAX 128
#define PORT_POLL_MS 20 /* a port without host reports POLLHUP always: no use in polling it */

struct serving {
	const struct server *server;
	struct session_shared *slot;	/* SESSIONS_MAX, shared with the sessions */
	int port_pid[SERVER_PORTS_MAX];	/* session on that port, 0: none */
	int sig_fd;
};

static struct session_shared *free_slot(struct serving *sv)
{
	for (unsigned i = 0; i < SESSIONS_MAX; i++)
		if (sv->slot[i].pid == 0)
			return &sv->slot[i];
	return NULL;
}

/* Starts a session on @fd, which stays open here.  Returns its pid, 0 on failure. */
static int start_session(struct serving *sv, int fd)
{
	struct session_shared *slot = free_slot(sv);
	pid_t pid;

	if (!slot) {
		say("too many sessions", 0);
		return 0;
	}
	*slot = (struct session_shared){ .pid = 0 };
	pid = fork();
	if (pid == 0) {
		if (sv->server->listen_fd >= 0)
			close(sv->server->listen_fd);
		close(sv->sig_fd);
		session_run(fd, slot);
		_exit(0);
	}
	if (pid < 0) {
		say("cannot start a session", errno);
		return 0;
	}
	slot->pid = pid;
	return pid;
}

/* Returns true when the death of @pid means that the machine is to end. */
static bool session_ended(struct serving *sv, int pid, struct power_request *ret_power)
{
	for (unsigned i = 0; i < sv->server->nports; i++)
		if (sv->port_pid[i] == pid)
			sv->port_pid[i] = 0;
	for (unsigned i = 0; i < SESSIONS_MAX; i++) {
		struct session_shared *slot = &sv->slot[i];

		if (slot->pid != pid)
			continue;
		slot->pid = 0;
		*ret_power = slot->power_asked ? slot->power
					       : (struct power_request){ .how = AGENT_POWER_OFF };
		return slot->power_asked || slot->primary;
	}
	return false;	/* an orphan of some command */
}

static bool reap(struct serving *sv, struct power_request *ret_power)
{
	struct signalfd_siginfo info;
	int pid;

	/* One signal may stand for many children. */
	while (read(sv->sig_fd, &info, sizeof(info)) > 0)
		;
	while ((pid = waitpid(-1, NULL, WNOHANG)) > 0)
		if (session_ended(sv, pid, ret_power))
			return true;
	return false;
}

static void accept_session(struct serving *sv)
{
	int fd = accept4(sv->server->listen_fd, NULL, NULL, SOCK_CLOEXEC);

	if (fd < 0)
		return;	/* the peer gave up already */
	(void)start_session(sv, fd);
	close(fd);
}

static void look_at_ports(struct serving *sv)
{
	for (unsigned i = 0; i < sv->server->nports; i++) {
		struct pollfd p = { .fd = sv->server->port_fd[i], .events = POLLIN };

		if (sv->port_pid[i] == 0 && poll(&p, 1, 0) > 0 && (p.revents & POLLIN) &&
		    !(p.revents & POLLHUP))
			sv->port_pid[i] = start_session(sv, p.fd);
	}
}

static int open_signals(void)
{
	sigset_t set;

	(void)signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return -1;
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

int server_run(const struct server *server, struct power_request *ret_power)
{
	struct serving sv = { .server = server };

	sv.sig_fd = open_signals();
	if (sv.sig_fd < 0)
		return -1;
	sv.slot = mmap(NULL, SESSIONS_MAX * sizeof(*sv.slot), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (sv.slot == MAP_FAILED) {
		close(sv.sig_fd);
		return -1;
	}
	if (server->first_fd >= 0) {
		(void)start_session(&sv, server->first_fd);
		close(server->first_fd);
	}
	for (;;) {
		struct pollfd p[] = {
			{ .fd = sv.sig_fd, .events = POLLIN },
			{ .fd = server->listen_fd, .events = POLLIN },
		};

		if (poll(p, ARRAY_SIZE(p), server->nports ? PORT_POLL_MS : -1) < 0)
			continue;
		if (p[0].revents && reap(&sv, ret_power))
			break;
		if (p[1].revents)
			accept_session(&sv);
		look_at_ports(&sv);
	}
	munmap(sv.slot, SESSIONS_MAX * sizeof(*sv.slot));
	close(sv.sig_fd);
	return 0;
}
