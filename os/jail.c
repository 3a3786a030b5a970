/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The order in jail_enter() matters: the root goes while we may still mount, the
 * network while we have rights over our namespaces, the user namespace when
 * nothing needs the host's rights any more, capabilities last.
 *
 * The child is the first process of its pid namespace: signals without a handler
 * do not reach it, except SIGKILL and SIGSTOP from outside and faults of its own.
 */
#include "os/jail.h"

#include "base/checked.h"
#include "os/err.h"
#include "os/log.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/mount.h>
#include <linux/securebits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#define SPACES_OF_ROOT (CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS)
#define SPACES_OF_USER (SPACES_OF_ROOT | CLONE_NEWUSER)

/* What the child asks its helper for. */
enum { ASK_MAP = 'm', ASK_SERVER = 's', ANSWER_GO = 'g', ANSWER_FAILED = 'f' };

/* ---------------------------------------------------------------- two processes */

static bool say(int sock, char what)
{
	return send(sock, &what, 1, MSG_NOSIGNAL) == 1;
}

/* 0 at the end. */
static char hear(int sock)
{
	char what;
	ssize_t n;

	do
		n = recv(sock, &what, 1, 0);
	while (n < 0 && errno == EINTR);
	return n == 1 ? what : 0;
}

/* As fork(), but the child is our parent's. */
static pid_t fork_sibling(unsigned spaces)
{
	return (pid_t)syscall(SYS_clone, (unsigned long)spaces | CLONE_PARENT | SIGCHLD, 0, 0, 0, 0);
}

pid_t jail_fork(struct jail *ret_jail, struct err *err)
{
	uid_t uid = geteuid();
	gid_t gid = getegid();
	unsigned spaces = uid == 0 ? SPACES_OF_ROOT : SPACES_OF_USER;
	int pair[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return err_set(err, -errno, "cannot make a socket: %s", strerror(errno));
	pid = fork_sibling(spaces);
	if (pid < 0) {
		spaces = 0;
		pid = fork_sibling(0);
	}
	if (pid < 0) {
		int r = -errno;

		(void)close(pair[0]);
		(void)close(pair[1]);
		return err_set(err, r, "cannot make a process: %s", strerror(-r));
	}
	(void)close(pair[pid == 0]);
	*ret_jail = (struct jail){ .helper = pair[pid != 0], .spaces = spaces, .uid = uid, .gid = gid };
	return pid;
}

static int write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC), r;

	if (fd < 0)
		return -errno;
	r = write(fd, text, strlen(text)) < 0 ? -errno : 0;
	(void)close(fd);
	return r;
}

/* Gives @pid's namespace the ids of ours, each as itself.  @which: "uid_map" or "gid_map". */
static int map_all(pid_t pid, const char *which)
{
	char path[64], text[2048];
	unsigned long first, outside, count;
	size_t len = 0;
	FILE *own;

	(void)snprintf(path, sizeof(path), "/proc/self/%s", which);
	own = fopen(path, "re");
	if (!own)
		return -errno;
	while (len < sizeof(text) && fscanf(own, "%lu %lu %lu", &first, &outside, &count) == 3)
		len += (size_t)snprintf(text + len, sizeof(text) - len, "%lu %lu %lu\n", first, first, count);
	(void)fclose(own);
	if (len >= sizeof(text))
		return -E2BIG;
	(void)snprintf(path, sizeof(path), "/proc/%d/%s", pid, which);
	return write_text(path, text);
}

bool jail_help(const struct jail *jail, pid_t pid)
{
	char what;

	if (!say(jail->helper, ANSWER_GO))
		return false;
	while ((what = hear(jail->helper)) == ASK_MAP) {
		bool done = map_all(pid, "uid_map") == 0 && map_all(pid, "gid_map") == 0;

		if (!say(jail->helper, done ? ANSWER_GO : ANSWER_FAILED))
			return false;
	}
	return what == ASK_SERVER;
}

/* One id needs no outsider.  Until then ours look like 65534. */
static int map_own(const struct jail *jail)
{
	char text[64];
	int r;

	(void)snprintf(text, sizeof(text), "%u %u 1", jail->uid, jail->uid);
	r = write_text("/proc/self/uid_map", text);
	if (r == 0)
		r = write_text("/proc/self/setgroups", "deny");
	(void)snprintf(text, sizeof(text), "%u %u 1", jail->gid, jail->gid);
	return r < 0 ? r : write_text("/proc/self/gid_map", text);
}

/* A step that the host does not let us take: the jail is weaker by it, which jail_probe() explains to people. */
static void go_without(struct jail *jail, unsigned space, const char *what)
{
	log_msg(LOG_LEVEL_WARN, "jail", "no %s: %s", what, strerror(errno));
	jail->spaces &= ~space;
}

int jail_wait(struct jail *jail, struct err *err)
{
	int r;

	if (hear(jail->helper) != ANSWER_GO)
		return err_set(err, -EPIPE, "the jail's helper ended unexpectedly");
	if (jail->spaces & CLONE_NEWUSER) {
		r = map_own(jail);
		if (r < 0)
			return err_set(err, r, "cannot map the user id into the jail: %s", strerror(-r));
	}
	/* What the host unmounts later must not stay busy because of us. */
	if (jail->spaces & CLONE_NEWNS && mount("", "/", NULL, MS_SLAVE | MS_REC, NULL) < 0)
		go_without(jail, CLONE_NEWNS, "empty root");
	return 0;
}

/* ------------------------------------------------------------------------- files */

int jail_detach(int fd, bool read_only)
{
	struct mount_attr attr = { .attr_set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC |
					       (read_only ? MOUNT_ATTR_RDONLY : 0u) };
	int tree = (int)syscall(SYS_open_tree, fd, "",
				OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | AT_RECURSIVE);
	int r;

	if (tree < 0)
		return -errno;
	if (syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH | AT_RECURSIVE, &attr, sizeof(attr)) == 0)
		return tree;
	r = -errno;
	(void)close(tree);
	return r;
}

void jail_close_from(int first)
{
	struct rlimit files;

	if (syscall(SYS_close_range, (unsigned)first, ~0u, 0) == 0)
		return;
	if (getrlimit(RLIMIT_NOFILE, &files) < 0 || files.rlim_cur > 65536)
		files.rlim_cur = 65536;
	for (int fd = first; fd < (int)files.rlim_cur; fd++)
		(void)close(fd);
}

/* The new root must lie on some folder for a moment. */
static int mount_empty(void)
{
	static const char *const folders[] = { "/proc", "/tmp", "/dev", "/sys" };

	for (unsigned i = 0; i < ARRAY_SIZE(folders); i++)
		if (mount("none", folders[i], "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC,
			  "size=4096,nr_inodes=2,mode=555") == 0)
			return chdir(folders[i]);
	return -1;
}

static int leave_root(void)
{
	/* The old root comes to lie on the new one, and is taken off it. */
	if (mount_empty() < 0 || syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0 ||
	    chdir("/") < 0)
		return -errno;
	return 0;
}

static int replace_stderr(void)
{
	int null = open("/dev/null", O_WRONLY | O_CLOEXEC), r;

	if (null < 0)
		return -errno;
	r = dup2(null, STDERR_FILENO) < 0 ? -errno : 0;
	(void)close(null);
	return r;
}

/* ------------------------------------------------------------------------ rights */

static int enter_user_space(struct jail *jail)
{
	if (unshare(CLONE_NEWUSER) < 0) {
		go_without(jail, CLONE_NEWUSER, "user namespace");
		return 0;
	}
	jail->spaces |= CLONE_NEWUSER;
	return say(jail->helper, ASK_MAP) && hear(jail->helper) == ANSWER_GO ? 0 : -EPERM;
}

static int set_caps(uint64_t caps)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2], have[2];

	if (syscall(SYS_capget, &head, have) < 0)
		return -errno;
	for (unsigned i = 0; i < 2; i++) {
		data[i].effective = data[i].permitted = (uint32_t)(caps >> 32 * i) & have[i].permitted;
		data[i].inheritable = 0;
	}
	return syscall(SYS_capset, &head, data) < 0 ? -errno : 0;
}

/* No program that is executed could gain a right by any of the ways there are. */
static int lock_rights(void)
{
	const unsigned long bits = SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP |
		SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_KEEP_CAPS_LOCKED | SECBIT_NO_CAP_AMBIENT_RAISE |
		SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED;

	(void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	for (int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
		if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
			return errno == EPERM ? 0 : -errno;	/* an ordinary user has none to lose */
	return prctl(PR_SET_SECUREBITS, bits, 0, 0, 0) < 0 ? -errno : 0;
}

static int limit(int resource, rlim_t most)
{
	struct rlimit lim;

	if (getrlimit(resource, &lim) < 0)
		return -errno;
	lim.rlim_cur = lim.rlim_max = lim.rlim_max < most ? lim.rlim_max : most;
	return setrlimit(resource, &lim) < 0 ? -errno : 0;
}

/* Before 5.14 the limit counts all processes of the user, wherever they are. */
static bool counts_by_namespace(void)
{
	struct utsname u;
	unsigned major, minor;

	return uname(&u) == 0 && sscanf(u.release, "%u.%u", &major, &minor) == 2 &&
	       (major > 5 || (major == 5 && minor >= 14));
}

static int set_limits(const struct jail *jail, const struct jail_options *opt)
{
	int r = limit(RLIMIT_CORE, 0);

	if (r == 0)
		r = limit(RLIMIT_MEMLOCK, 0);
	if (r == 0)
		r = limit(RLIMIT_MSGQUEUE, 0);
	if (r == 0 && opt->no_files)
		r = limit(RLIMIT_FSIZE, 0);
	if (r == 0 && opt->nthreads && jail->spaces & CLONE_NEWUSER && counts_by_namespace())
		r = limit(RLIMIT_NPROC, opt->nthreads);
	return r;
}

/* ------------------------------------------------------------ forbidden system calls */

static void (*on_forbidden)(long nr);

/*
 * Runs instead of the system call.  The last line is what the filter kills for, so
 * that the wait status says SIGSYS whatever becomes of the report.
 */
static void report_forbidden(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)context;
	if (on_forbidden)
		on_forbidden(info->si_syscall);
	for (;;)
		(void)syscall(SECCOMP_NR_FATAL);
}

static int catch_forbidden(void (*forbidden)(long nr))
{
	struct sigaction sa = { .sa_sigaction = report_forbidden, .sa_flags = SA_SIGINFO | SA_ONSTACK };

	on_forbidden = forbidden;
	(void)sigfillset(&sa.sa_mask);
	return sigaction(SIGSYS, &sa, NULL) < 0 ? -errno : 0;
}

/* ------------------------------------------------------------------------- closing */

/* A helper that is not wanted as a server ends when its socket does. */
static int settle_helper(struct jail *jail, bool server)
{
	if (server)
		return say(jail->helper, ASK_SERVER) ? 0 : -EPIPE;
	(void)close(jail->helper);
	jail->helper = -1;
	return 0;
}

int jail_enter(struct jail *jail, const struct jail_options *opt, struct err *err)
{
	const char *step = "the error output";
	int r = opt->keep_stderr ? 0 : replace_stderr();

	if (r == 0 && jail->spaces & CLONE_NEWNS) {
		step = "the empty root";
		r = leave_root();
	}
	if (r == 0 && jail->spaces & CLONE_NEWNS) {
		if (unshare(CLONE_NEWNET) == 0)
			jail->spaces |= CLONE_NEWNET;
		else
			go_without(jail, CLONE_NEWNET, "network namespace");
	}
	if (r == 0 && jail->uid == 0) {
		step = "the user namespace";
		r = enter_user_space(jail);
	}
	if (r == 0) {
		step = "the limits";
		r = set_limits(jail, opt);
	}
	if (r == 0) {
		step = "the capabilities";
		r = lock_rights();
	}
	if (r == 0)
		r = set_caps(opt->caps);
	if (r == 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		r = -errno;
	if (r == 0) {
		step = "the signal for forbidden system calls";
		r = catch_forbidden(opt->forbidden);
	}
	if (r == 0) {
		step = "the helper";
		r = settle_helper(jail, opt->server);
	}
	return r < 0 ? err_set(err, r, "cannot close the VM's jail: %s: %s", step, strerror(-r)) : 0;
}

int jail_thread(uint64_t caps, const struct seccomp_list *lists, size_t nlists)
{
	int r = set_caps(caps);

	return r < 0 ? r : seccomp_enter(lists, nlists);
}

/* --------------------------------------------------------------------------- probe */

static bool reads_as(const char *path, char digit)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	char c = 0;
	bool is = fd >= 0 && read(fd, &c, 1) == 1 && c == digit;

	if (fd >= 0)
		(void)close(fd);
	return is;
}

static int explain(int r, struct err *err)
{
	if (reads_as("/proc/sys/user/max_user_namespaces", '0'))
		return err_set(err, r, "sysctl user.max_user_namespaces is 0");
	if (reads_as("/proc/sys/kernel/unprivileged_userns_clone", '0'))
		return err_set(err, r, "sysctl kernel.unprivileged_userns_clone is 0");
	if (reads_as("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", '1'))
		return err_set(err, r, "sysctl kernel.apparmor_restrict_unprivileged_userns is 1");
	return err_set(err, r, "namespaces are refused (%s), as containers do", strerror(-r));
}

int jail_probe(struct err *err)
{
	bool root = geteuid() == 0;
	unsigned spaces = root ? SPACES_OF_ROOT : SPACES_OF_USER;
	int status, r;
	pid_t pid = (pid_t)syscall(SYS_clone, (unsigned long)spaces | SIGCHLD, 0, 0, 0, 0);

	if (pid < 0)
		return explain(-errno, err);
	if (pid == 0) {
		if (mount("", "/", NULL, MS_SLAVE | MS_REC, NULL) < 0 || unshare(CLONE_NEWNET) < 0 ||
		    (root && unshare(CLONE_NEWUSER) < 0))
			_exit(errno);
		_exit(0);
	}
	do
		r = waitpid(pid, &status, 0) < 0 ? -errno : 0;
	while (r == -EINTR);
	if (r < 0)
		return err_set(err, r, "cannot wait for a process: %s", strerror(-r));
	r = WIFEXITED(status) ? -WEXITSTATUS(status) : -EIO;
	return r < 0 ? explain(r, err) : 0;
}
