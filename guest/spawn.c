/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parent does everything that needs no new process (user look-up, pipes,
 * terminal).  The child does the rest in the parent's memory, which waits for its
 * execve(): copying address spaces is most of what starting a small program takes.
 */
#include "guest/spawn.h"

#include "base/checked.h"
#include "guest/files.h"
#include "guest/user.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#ifndef TIOCGPTPEER
#define TIOCGPTPEER _IO('T', 0x41)	/* Linux 4.13 */
#endif

#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define CHILD_STACK (32 * 1024)	/* bytes */
#define ENV_EXTRA 4 /* PATH, HOME, HOSTNAME, TERM */
#define ACCOUNTS_MAX (1024 * 1024) /* bytes read of /etc/passwd and /etc/group */

/* Both ends of what becomes the child's standard streams. */
struct stdio {
	int ours[3], theirs[3];
};

/* A whole process serves one command, so that its tables need no allocation. */
static char *environment[REQUEST_STRINGS_MAX + ENV_EXTRA + 1];
static char passwd_text[ACCOUNTS_MAX], group_text[ACCOUNTS_MAX];

static int fail(struct spawn_error *ret, int error, const char *what, const char *name)
{
	*ret = (struct spawn_error){
		.error = error,
		.status = error == ENOENT || error == ENOTDIR ? 127 : 126,
	};
	text_add(&ret->message, what);
	if (name) {
		text_add(&ret->message, " '");
		text_add(&ret->message, name);
		text_add(&ret->message, "'");
	}
	/* EINVAL is our own verdict: the sentence is complete without it. */
	if (error != EINVAL)
		text_add_errno(&ret->message, error);
	return -1;
}

static int find_user(const char *spec, struct user *ret_user, struct spawn_error *ret_error)
{
	/* A missing file is an empty one: images without accounts use numbers. */
	ssize_t passwd_len = file_read("/etc/passwd", passwd_text, sizeof(passwd_text));
	ssize_t group_len = file_read("/etc/group", group_text, sizeof(group_text));
	int r = user_resolve(spec, passwd_text, passwd_len > 0 ? (size_t)passwd_len : 0, group_text,
			     group_len > 0 ? (size_t)group_len : 0, ret_user);

	if (r == 0)
		return 0;
	return fail(ret_error, EINVAL, r == -1 ? "the image's /etc/passwd does not have the user of"
					       : "the image's /etc/group does not have the group of",
		    spec);
}

/* The value of @name in the first @count entries (all: SIZE_MAX), or NULL. */
static const char *env_get(size_t count, const char *name)
{
	size_t len = strlen(name);

	for (size_t i = 0; i < count && environment[i]; i++)
		if (strncmp(environment[i], name, len) == 0 && environment[i][len] == '=')
			return environment[i] + len + 1;
	return NULL;
}

/* Puts @entry ("NAME=value", kept by reference) in the table; it replaces an older one. */
static size_t env_put(size_t count, char *entry)
{
	size_t len = (size_t)(strchr(entry, '=') - entry) + 1;

	for (size_t i = 0; i < count; i++)
		if (strncmp(environment[i], entry, len) == 0) {
			environment[i] = entry;
			return count;
		}
	environment[count] = entry;
	return count + 1;
}

static size_t env_default(size_t count, struct text *room, const char *name, const char *value)
{
	if (env_get(count, name))
		return count;
	text_add(room, name);
	text_add(room, "=");
	text_add(room, value);
	return env_put(count, room->str);
}

static void build_environment(const struct exec_request *req, const struct user *user)
{
	static struct text extra[ENV_EXTRA];
	struct utsname uts;
	size_t n = 0;

	for (unsigned i = 0; i < req->nenv; i++) {
		/* execve() takes char *, and does not write. */
		union { const char *in; char *out; } entry = { .in = req->env[i] };

		n = env_put(n, entry.out);
	}
	n = env_default(n, &extra[0], "PATH", DEFAULT_PATH);
	n = env_default(n, &extra[1], "HOME", user->home[0] ? user->home : "/");
	if (uname(&uts) == 0)
		n = env_default(n, &extra[2], "HOSTNAME", uts.nodename);
	if (req->tty)
		n = env_default(n, &extra[3], "TERM", "xterm");
	environment[n] = NULL;
}

static void close_all(struct stdio *io)
{
	for (size_t i = 0; i < 3; i++) {
		if (io->ours[i] >= 0)
			close(io->ours[i]);
		if (io->theirs[i] >= 0)
			close(io->theirs[i]);
	}
}

static int set_nonblock(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	return flags < 0 ? -1 : fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

/* Stream @i as a pipe: the child reads 0 and writes 1 and 2. */
static int open_pipe(struct stdio *io, size_t i)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC) < 0)
		return -1;
	io->ours[i] = ends[i == 0 ? 1 : 0];
	io->theirs[i] = ends[i == 0 ? 0 : 1];
	return set_nonblock(io->ours[i]);
}

static int open_pipes(bool has_stdin, struct stdio *io)
{
	if (has_stdin) {
		if (open_pipe(io, 0) < 0)
			return -1;
	} else {
		io->theirs[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
		if (io->theirs[0] < 0)
			return -1;
	}
	return open_pipe(io, 1) < 0 || open_pipe(io, 2) < 0 ? -1 : 0;
}

static int open_nothing(struct stdio *io)
{
	for (size_t i = 0; i < 3; i++) {
		io->theirs[i] = open("/dev/null", O_RDWR | O_CLOEXEC);
		if (io->theirs[i] < 0)
			return -1;
	}
	return 0;
}

static int open_terminal(const struct exec_request *req, struct stdio *io)
{
	struct winsize size = { .ws_row = req->rows, .ws_col = req->cols };
	int zero = 0;

	io->ours[0] = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
	if (io->ours[0] < 0 || ioctl(io->ours[0], TIOCSPTLCK, &zero) < 0)
		return -1;
	/* By the master, so that it is right whatever is mounted on /dev/pts. */
	io->theirs[0] = ioctl(io->ours[0], TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (io->theirs[0] < 0)
		return -1;
	if (req->rows && req->cols)
		(void)ioctl(io->ours[0], TIOCSWINSZ, &size);
	io->ours[1] = fcntl(io->ours[0], F_DUPFD_CLOEXEC, 0);
	io->theirs[1] = fcntl(io->theirs[0], F_DUPFD_CLOEXEC, 0);
	io->theirs[2] = fcntl(io->theirs[0], F_DUPFD_CLOEXEC, 0);
	return io->ours[1] < 0 || io->theirs[1] < 0 || io->theirs[2] < 0 ? -1 : 0;
}

/* What child_main() is at; indexes steps[]. */
enum step { STEP_STDIO, STEP_CWD, STEP_USER, STEP_EXEC };

static const char *const steps[] = {
	[STEP_STDIO] = "cannot set up the standard streams of",
	[STEP_CWD] = "cannot enter the working directory of",
	[STEP_USER] = "cannot take on the user of",
	[STEP_EXEC] = "cannot run",
};

/* What the child is given, and what it says; its memory is the parent's, which waits. */
struct child_job {
	const struct exec_request *req;
	const struct user *user;
	const struct stdio *io;
	int error;	/* positive errno; 0: execve() succeeded */
	enum step step;
};

static int child_stdio(const struct stdio *io, bool tty)
{
	if (setsid() < 0)
		return -1;
	if (tty && ioctl(io->theirs[0], TIOCSCTTY, 0) < 0)
		return -1;
	/* The agent's own 0 to 2 are open, so that no end of a pipe is one of them. */
	for (int i = 0; i < 3; i++)
		if (dup2(io->theirs[i], i) < 0)
			return -1;
	return 0;
}

static int child_cwd(const char *cwd, const struct user *user)
{
	if (chdir(cwd) == 0)
		return 0;
	if (errno != ENOENT || file_mkdirs(cwd, 0755) < 0)
		return -1;
	if (chown(cwd, user->uid, user->gid) < 0 && errno != EPERM)
		return -1;
	return chdir(cwd);
}

static int child_user(const struct user *user)
{
	gid_t groups[USER_GROUPS_MAX];

	/* An unprivileged agent (tests) can still run commands as itself. */
	if (geteuid() != 0 && user->uid == geteuid())
		return 0;
	for (unsigned i = 0; i < user->ngroups; i++)
		groups[i] = user->groups[i];
	if (setgroups(user->ngroups, groups) < 0 || setgid(user->gid) < 0)
		return -1;
	return setuid(user->uid);
}

/* As the kernel has it (arch/x86/include/uapi/asm/signal.h). */
struct kernel_sigaction {
	void (*handler)(int);
	unsigned long flags;
	void (*restorer)(void);
	uint64_t mask;
};

static void child_signals(void)
{
	struct kernel_sigaction fresh = { .handler = SIG_DFL };
	sigset_t none;

	/* The system call, because the C library keeps some signals to itself. */
	for (long sig = 1; sig < NSIG; sig++)
		(void)syscall(SYS_rt_sigaction, sig, &fresh, NULL, sizeof(fresh.mask));
	sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
}

/*
 * execvp() with the command's own PATH.  Like a shell's search it goes on after
 * "permission denied", and reports that rather than "not found" in the end.
 */
static void child_exec(const char *const argv[])
{
	static char path[PATH_MAX];
	union { const char *const *in; char *const *out; } args = { .in = argv };
	const char *dir, *end;
	size_t name_len = strlen(argv[0]);
	int error = ENOENT;

	if (strchr(argv[0], '/')) {
		execve(argv[0], args.out, environment);
		return;
	}
	for (dir = env_get(SIZE_MAX, "PATH"); dir && name_len; dir = *end ? end + 1 : NULL) {
		size_t len;

		end = strchr(dir, ':');
		if (!end)
			end = dir + strlen(dir);
		len = (size_t)(end - dir);
		if (len + 1 + name_len + 1 > sizeof(path))
			continue;
		memcpy(path, dir, len);
		path[len] = '/';
		memcpy(path + (len ? len + 1 : 0), argv[0], name_len + 1);
		execve(path, args.out, environment);
		if (errno == EACCES)
			error = EACCES;
		else if (errno != ENOENT && errno != ENOTDIR)
			return;
	}
	errno = error;
}

static int child_main(void *arg)
{
	struct child_job *job = arg;

	job->step = STEP_STDIO;
	child_signals();
	/* Without /proc there was nothing to inherit either. */
	(void)file_set_oom_score("0");
	if (child_stdio(job->io, job->req->tty) < 0)
		goto failed;
	job->step = STEP_CWD;
	if (child_cwd(job->req->cwd, job->user) < 0)
		goto failed;
	job->step = STEP_USER;
	if (child_user(job->user) < 0)
		goto failed;
	job->step = STEP_EXEC;
	child_exec(job->req->argv);
failed:
	job->error = errno;
	_exit(126);
}

/* As vfork(): no page of ours is copied.  The process id, or -1. */
static pid_t make_child(struct child_job *job)
{
	static _Alignas(16) uint8_t stack[CHILD_STACK];

	return clone(child_main, stack + sizeof(stack), CLONE_VM | CLONE_VFORK | SIGCHLD, job);
}

int spawn(const struct exec_request *req, struct child *ret_child, struct spawn_error *ret_error)
{
	struct stdio io = { { -1, -1, -1 }, { -1, -1, -1 } };
	struct user user;
	struct child_job job = { .req = req, .user = &user, .io = &io };
	pid_t pid;
	int r;

	if (find_user(req->user, &user, ret_error) < 0)
		return -1;
	build_environment(req, &user);
	r = req->tty ? open_terminal(req, &io) : req->detached ? open_nothing(&io) : open_pipes(req->has_stdin, &io);
	if (r < 0) {
		fail(ret_error, errno, req->tty ? "cannot open a terminal for"
						: "cannot open pipes for", req->argv[0]);
		goto no_process;
	}
	pid = make_child(&job);
	if (pid < 0) {
		fail(ret_error, errno, "cannot make a process for", req->argv[0]);
		goto no_process;
	}
	if (job.error) {
		while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			;
		fail(ret_error, job.error, steps[job.step], req->argv[0]);
		goto no_process;
	}
	for (size_t i = 0; i < 3; i++)
		close(io.theirs[i]);
	*ret_child = (struct child){
		.pid = pid,
		.in_fd = io.ours[0],
		.out_fd = io.ours[1],
		.err_fd = io.ours[2],
		.tty = req->tty,
	};
	return 0;

no_process:
	close_all(&io);
	return -1;
}

void spawn_resize(const struct child *child, uint16_t rows, uint16_t cols)
{
	struct winsize size = { .ws_row = rows, .ws_col = cols };

	/* The kernel sends SIGWINCH to the terminal's foreground group. */
	if (child->tty && child->out_fd >= 0)
		(void)ioctl(child->out_fd, TIOCSWINSZ, &size);
}
