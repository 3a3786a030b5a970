/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fork() rather than posix_spawn(): the working folder of the child is not the
 * caller's.  Between fork() and execve() only async-signal-safe calls are made,
 * because the caller may have threads.
 */
#include "os/process.h"

#include "os/err.h"
#include "os/file.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define CANCEL_CHECK_MS 100

extern char **environ;

struct pipes {
	int out[2], errors[2], report[2];
};

static void close_pair(int pair[2])
{
	for (int i = 0; i < 2; i++)
		if (pair[i] >= 0)
			close(pair[i]);
}

static int open_pipes(struct pipes *p)
{
	*p = (struct pipes){ { -1, -1 }, { -1, -1 }, { -1, -1 } };
	if (pipe2(p->out, O_CLOEXEC) < 0 || pipe2(p->errors, O_CLOEXEC) < 0 ||
	    pipe2(p->report, O_CLOEXEC) < 0)
		return -errno;
	return 0;
}

static void close_pipes(struct pipes *p)
{
	close_pair(p->out);
	close_pair(p->errors);
	close_pair(p->report);
}

/* The caller's environment and @more in one fresh array; the strings are borrowed. */
static char **join_env(const char *const more[])
{
	size_t n = 0, m = 0;
	char **all;

	while (environ && environ[n])
		n++;
	while (more && more[m])
		m++;
	all = calloc(n + m + 1, sizeof(*all));
	if (!all)
		return NULL;
	/* First, because the first of two entries of the same name counts. */
	if (m)
		memcpy(all, more, m * sizeof(*all));
	if (n)
		memcpy(all + m, environ, n * sizeof(*all));
	return all;
}

__attribute__((noreturn)) static void run_child(const char *const argv[], const char *cwd,
						char **env, int in, const struct pipes *p)
{
	union { const char *const *in; char *const *out; } args = { .in = argv };
	sigset_t none;
	int error;

	sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	(void)signal(SIGPIPE, SIG_DFL);
	if (in >= 0 && dup2(in, 0) >= 0 && dup2(p->out[1], 1) >= 0 &&
	    dup2(p->errors[1], 2) >= 0 && (!cwd || chdir(cwd) == 0))
		execvpe(argv[0], args.out, env);
	error = errno;
	_exit(write(p->report[1], &error, sizeof(error)) == sizeof(error) ? 127 : 126);
}

static int grow(struct process_result *res, size_t *cap)
{
	size_t want = *cap ? *cap * 2 : 4096;
	char *more;

	if (*cap - res->out_len > 1)
		return 0;
	more = realloc(res->out, want);
	if (!more)
		return -ENOMEM;
	res->out = more;
	*cap = want;
	return 0;
}

/* Keeps the last bytes: the end of an error output says what went wrong. */
static void keep_tail(struct process_result *res, const char *data, size_t len)
{
	size_t have = strlen(res->errors), cap = sizeof(res->errors) - 1;

	if (len > cap) {
		data += len - cap;
		len = cap;
	}
	if (have + len > cap) {
		size_t drop = have + len - cap;

		memmove(res->errors, res->errors + drop, have - drop);
		have -= drop;
	}
	memcpy(res->errors + have, data, len);
	res->errors[have + len] = '\0';
}

/* Returns 1 while the stream is open, 0 at its end, or a negative errno. */
static int read_out(int fd, size_t out_max, struct process_result *res, size_t *cap)
{
	ssize_t n;
	int r = grow(res, cap);

	if (r < 0)
		return r;
	n = read(fd, res->out + res->out_len, *cap - res->out_len - 1);
	if (n < 0)
		return errno == EINTR ? 1 : -errno;
	res->out_len += (size_t)n;
	if (res->out_len > out_max)
		return -EFBIG;
	return n > 0;
}

static int read_errors(int fd, struct process_result *res)
{
	char buf[4096];
	ssize_t n = read(fd, buf, sizeof(buf));

	if (n < 0)
		return errno == EINTR ? 1 : -errno;
	for (ssize_t i = 0; i < n; i++)
		if (buf[i] == '\0')
			buf[i] = ' ';
	keep_tail(res, buf, (size_t)n);
	return n > 0;
}

static int collect(const struct pipes *p, size_t out_max, const volatile int *cancel, struct process_result *res)
{
	struct pollfd fds[2] = { { .fd = p->out[0], .events = POLLIN },
				 { .fd = p->errors[0], .events = POLLIN } };
	size_t cap = 0;

	while (fds[0].fd >= 0 || fds[1].fd >= 0) {
		int r = 1;

		if (cancel && *cancel)
			return -EINTR;
		if (poll(fds, 2, cancel ? CANCEL_CHECK_MS : -1) < 0) {
			if (errno == EINTR)
				continue;
			return -errno;
		}
		if (fds[0].revents && (r = read_out(fds[0].fd, out_max, res, &cap)) == 0)
			fds[0].fd = -1;
		if (r < 0)
			return r;
		if (fds[1].revents && (r = read_errors(fds[1].fd, res)) == 0)
			fds[1].fd = -1;
		if (r < 0)
			return r;
	}
	if (grow(res, &cap) < 0)
		return -ENOMEM;
	res->out[res->out_len] = '\0';
	return 0;
}

static int wait_for(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return 255;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* What the child wrote when it could not execute; 0 when it did. */
static int read_report(int fd)
{
	int error = 0;
	ssize_t n;

	do
		n = read(fd, &error, sizeof(error));
	while (n < 0 && errno == EINTR);
	return n == sizeof(error) ? error : 0;
}

/* process_run() with standard input from @in. */
static int run(const char *const argv[], const char *cwd, const char *const env[], int in,
	       size_t out_max, const volatile int *cancel, struct process_result *ret_result,
	       struct err *err)
{
	struct process_result res = { .status = 0 };
	char **all = join_env(env);
	struct pipes p;
	pid_t pid;
	int r = open_pipes(&p);

	if (!all)
		r = -ENOMEM;
	if (r < 0)
		goto finish;
	pid = fork();
	if (pid == 0)
		run_child(argv, cwd, all, in, &p);
	if (pid < 0) {
		r = -errno;
		goto finish;
	}
	close(p.out[1]);
	close(p.errors[1]);
	close(p.report[1]);
	p.out[1] = p.errors[1] = p.report[1] = -1;
	r = -read_report(p.report[0]);
	if (r == 0)
		r = collect(&p, out_max, cancel, &res);
	if (r < 0)
		(void)kill(pid, SIGKILL);
	res.status = wait_for(pid);
finish:
	close_pipes(&p);
	free(all);
	if (r < 0) {
		free(res.out);
		return err_set(err, r, "cannot run %s: %s", argv[0], strerror(-r));
	}
	*ret_result = res;
	return 0;
}

int process_run(const char *const argv[], const char *cwd, const char *const env[],
		size_t out_max, const volatile int *cancel, struct process_result *ret_result,
		struct err *err)
{
	int r, in = open("/dev/null", O_RDONLY | O_CLOEXEC);

	if (in < 0)
		return err_set(err, -errno, "cannot open /dev/null: %s", strerror(errno));
	r = run(argv, cwd, env, in, out_max, cancel, ret_result, err);
	close(in);
	return r;
}

int process_run_input(const char *const argv[], const char *input, size_t out_max,
		      struct process_result *ret_result, struct err *err)
{
	int r, in = memfd_create("input", MFD_CLOEXEC);

	if (in < 0)
		return err_set(err, -errno, "cannot run %s: %s", argv[0], strerror(errno));
	r = file_write_all(in, input, strlen(input));
	if (r == 0 && lseek(in, 0, SEEK_SET) < 0)
		r = -errno;
	r = r < 0 ? err_set(err, r, "cannot run %s: %s", argv[0], strerror(-r))
		  : run(argv, NULL, NULL, in, out_max, NULL, ret_result, err);
	close(in);
	return r;
}
