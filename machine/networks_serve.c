/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The process of a switch.  What it needs is opened first; then it comes off whoever started it,
 * and is jailed as the process of a VM is (os/jail.h), with system calls for the sockets it is
 * given and nothing else.
 *
 *   started ---> daemon ---> switch, in the jail
 *      |           `--- helps it into the jail, and ends
 *      `--- waits until the switch listens or has failed
 */
#include "machine/networks.h"

#include "machine/confine.h"
#include "machine/networks_private.h"
#include "os/err.h"
#include "os/jail.h"
#include "os/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define LINGER_NS 3000000000ull
#define BACKLOG 64

struct server {
	int listen_fd, lock_fd, leases_fd;
	int report_fd;	/* struct err: how the start went */
	struct switch_config config;
	struct loop *loop;
};

static struct loop *ending;	/* for the signal handler */

static void on_term(int sig)
{
	(void)sig;
	loop_quit(ending);
}

/* Who joins holds the lock until his place is reserved; we keep it until the process has ended. */
static bool may_end(void *ctx)
{
	return flock(((struct server *)ctx)->lock_fd, LOCK_EX | LOCK_NB) == 0;
}

/* Who has started us holds the lock: a socket that is there already is a dead one's. */
static int open_files(struct server *s, const struct network_paths *p, struct err *err)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	memcpy(addr.sun_path, p->socket, strlen(p->socket));
	s->lock_fd = open(p->lock, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (s->lock_fd < 0)
		return err_set(err, -errno, "cannot open %s: %s", p->lock, strerror(errno));
	s->leases_fd = open(p->leases, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (s->leases_fd < 0)
		return err_set(err, -errno, "cannot open %s: %s", p->leases, strerror(errno));
	s->listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	(void)umask(077);
	(void)unlink(p->socket);
	if (s->listen_fd < 0 || bind(s->listen_fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0 ||
	    listen(s->listen_fd, BACKLOG) < 0)
		return err_set(err, -errno, "cannot listen at %s: %s", p->socket, strerror(errno));
	return 0;
}

/* A daemon keeps nothing of the terminal and the pipes of whoever started it. */
static void detach(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	sigset_t none;

	(void)setsid();
	(void)chdir("/");
	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	(void)signal(SIGPIPE, SIG_IGN);
	(void)signal(SIGHUP, SIG_IGN);
	for (int fd = 0; null >= 0 && fd < 3; fd++)
		(void)dup2(null, fd);
}

static void report(const struct server *s, const struct err *err)
{
	if (write(s->report_fd, err, sizeof(*err)) < 0) {
		/* Nobody waits for it any more. */
	}
	(void)close(s->report_fd);
}

static int close_jail(struct jail *jail, struct err *err)
{
	const struct jail_options options = { .nthreads = 1 };
	int r = jail_enter(jail, &options, err);

	if (r == 0)
		r = confine_enter(&(struct confine){ 0 }, CONFINE_SWITCH);
	return r < 0 && !err->code ? err_set(err, r, "the jail of the switch cannot be closed: %s", strerror(-r)) : r;
}

/* In the process of the switch.  Returns when it has ended. */
static int serve(struct server *s, struct jail *jail)
{
	struct net_switch *sw = NULL;
	struct err err = { 0 };
	int r = jail_wait(jail, &err);

	(void)prctl(PR_SET_NAME, "roux-switch");
	if (r == 0)
		r = loop_create(&s->loop, &err);
	if (r == 0) {
		ending = s->loop;
		(void)signal(SIGTERM, on_term);
		r = switch_create(s->loop, &s->config, &sw, &err);
	}
	if (r == 0)
		r = switch_listen(sw, s->listen_fd, &err);
	if (r == 0)
		r = close_jail(jail, &err);
	report(s, &err);
	if (r == 0)
		r = loop_run(s->loop, NULL);
	switch_destroy(sw);
	loop_destroy(s->loop);
	return r;
}

/* In the daemon: 0 or an exit status. */
static int be_daemon(struct server *s)
{
	struct err err = { 0 };
	struct jail jail;
	pid_t pid;

	detach();
	pid = jail_fork(&jail, &err);
	if (pid == 0)
		return serve(s, &jail) < 0;
	if (pid < 0)
		report(s, &err);
	if (pid < 0)
		return 1;
	(void)close(s->report_fd);
	(void)close(s->listen_fd);
	(void)jail_help(&jail, pid);
	return 0;
}

/* Waits for report(). */
static int hear(int fd, struct err *err)
{
	struct err got = { 0 };
	ssize_t n;

	do
		n = read(fd, &got, sizeof(got));
	while (n < 0 && errno == EINTR);
	if (n != sizeof(got))
		return err_set(err, -EPIPE, "it ended unexpectedly");
	return got.code < 0 ? err_set(err, got.code, "%.*s", (int)sizeof(got.msg) - 1, got.msg) : 0;
}

static int start(struct server *s, struct err *err)
{
	int pipe_fd[2], r;
	pid_t pid;

	if (pipe2(pipe_fd, O_CLOEXEC) < 0)
		return err_set(err, -errno, "cannot make a pipe: %s", strerror(errno));
	s->report_fd = pipe_fd[1];
	pid = fork();
	if (pid == 0) {
		(void)close(pipe_fd[0]);
		_exit(be_daemon(s));
	}
	r = pid < 0 ? err_set(err, -errno, "cannot make a process: %s", strerror(errno)) : 0;
	(void)close(pipe_fd[1]);
	if (r == 0)
		r = hear(pipe_fd[0], err);
	(void)close(pipe_fd[0]);
	while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	return r;
}

int network_serve(const char *name, struct err *err)
{
	struct server s = { .config = { .linger_ns = LINGER_NS, .may_end = may_end } };
	struct network_paths p;
	struct network n;
	struct rlimit files;
	int r = network_paths_get(name, &p, err);

	if (r == 0)
		r = network_read_at(name, p.definition, &n, err);
	if (r == 0)
		r = open_files(&s, &p, err);
	if (r < 0)
		return r;
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &files);
	}
	network_describe(&n, &s.config);
	s.config.leases = s.leases_fd;
	s.config.ctx = &s;
	return start(&s, err);
}
