/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The jail from inside.  Each attempt is made by a fresh process in a jail of its
 * own, once by the walls alone (no filter: what namespaces and missing rights
 * answer) and once behind the filter of the main thread, as root where the test
 * runs as root, and as an ordinary user.
 */
#include "machine/confine.h"
#include "os/err.h"
#include "os/jail.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define NOBODY 65534u
#define KEPT_FD 5	/* some file that the process has opened before */
#define SHARE_FD 6	/* a folder, detached, read-only */
#define REPORT_FD 7
#define SYSTEM_KEY 0x726f7578	/* a shared memory segment of the host */
#define ABSTRACT_NAME "roux-test-jail"

enum walls { WALLS_ALONE, WALLS_AND_FILTER };

struct outcome {
	int error;	/* errno of the attempt; 0: it succeeded; -1: it never answered */
	int signal;	/* that ended the process, 0: none */
	long forbidden;	/* system call that the filter reported, -1: none */
};

struct report {
	char kind;	/* 'p': process id, 'e': errno, 'n': number of a system call, 'f': failed to close the jail */
	long value;
};

/* What an attempt may want to reach. */
static uint16_t tcp_port;
static pid_t outsider;
static char folder[] = "/tmp/roux-test-jail.XXXXXX";

/* ---------------------------------------------------------------------- the inmate */

static void send_report(char kind, long value)
{
	struct report r = { kind, value };

	if (write(REPORT_FD, &r, sizeof(r)) != sizeof(r))
		_exit(3);
}

static void on_forbidden(long nr)
{
	send_report('n', nr);
}

static void require(bool right, int code, const char *what)
{
	if (right)
		return;
	(void)fprintf(stderr, "test_jail: %s: %s\n", what, strerror(-code));
	send_report('f', code);
	_exit(2);
}

static void keep_as(int fd, int number, const char *what)
{
	require(fd >= 0 && dup2(fd, number) == number, -errno, what);
	if (fd != number)
		(void)close(fd);
}

static void open_things(void)
{
	char path[64];
	int fd, tree;

	(void)snprintf(path, sizeof(path), "%s/file", folder);
	keep_as(open(path, O_RDWR | O_CREAT, 0666), KEPT_FD, path);
	fd = open(folder, O_PATH | O_DIRECTORY);
	tree = jail_detach(fd, true);
	require(tree >= 0, tree, "a detached folder");
	keep_as(tree, SHARE_FD, folder);
	(void)close(fd);
}

static void inmate(struct jail *jail, enum walls walls, const struct confine *confine, enum confine_thread thread,
		   int (*attempt)(void))
{
	struct jail_options opt = { .caps = confine_file_caps(confine), .no_files = true, .keep_stderr = true,
				    .forbidden = on_forbidden };
	struct err err = { 0 };
	int r = jail_wait(jail, &err);

	require(r == 0, r, err.msg);
	open_things();
	r = jail_enter(jail, &opt, &err);
	require(r == 0, r, err.msg);
	if (walls == WALLS_AND_FILTER) {
		r = confine_enter(confine, thread);
		require(r == 0, r, "confine_enter");
	}
	errno = 0;
	send_report('e', attempt() == 0 ? 0 : errno);
	syscall(SYS_exit_group, 0);
}

/* Becomes the helper of a new inmate. */
__attribute__((noreturn)) static void helper(bool user, enum walls walls, const struct confine *confine,
					     enum confine_thread thread, int (*attempt)(void))
{
	struct jail jail;
	struct err err = { 0 };
	pid_t pid;

	jail_close_from(REPORT_FD + 1);
	for (int fd = 3; fd < REPORT_FD; fd++)
		(void)close(fd);
	if (user)
		require(setresgid(NOBODY, NOBODY, NOBODY) == 0 && setresuid(NOBODY, NOBODY, NOBODY) == 0 &&
				prctl(PR_SET_DUMPABLE, 1) == 0,	/* as after execve(): /proc/self is ours */
			-errno, "setresuid");
	pid = jail_fork(&jail, &err);
	require(pid >= 0, pid, err.msg);
	if (pid == 0)
		inmate(&jail, walls, confine, thread, attempt);
	send_report('p', pid);
	(void)jail_help(&jail, pid);
	_exit(0);
}

/* ------------------------------------------------------------------------ the warden */

static struct outcome try_as(bool user, enum walls walls, const struct confine *confine, enum confine_thread thread,
			     int (*attempt)(void))
{
	struct outcome out = { .error = -1, .forbidden = -1 };
	struct report rep;
	pid_t first, pid = 0;
	int pipes[2], status;

	assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
	first = fork();
	if (first == 0) {
		if (pipes[1] != REPORT_FD)
			(void)dup2(pipes[1], REPORT_FD);
		helper(user, walls, confine, thread, attempt);
	}
	(void)close(pipes[1]);
	while (read(pipes[0], &rep, sizeof(rep)) == sizeof(rep)) {
		assert_int_not_equal(rep.kind, 'f');
		if (rep.kind == 'p')
			pid = (pid_t)rep.value;
		else if (rep.kind == 'e')
			out.error = (int)rep.value;
		else
			out.forbidden = rep.value;
	}
	(void)close(pipes[0]);
	assert_int_equal(waitpid(first, &status, 0), first);
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);	/* ours, though we have not made it */
	out.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
	return out;
}

static const struct confine plain = { .files_writable = true };
static bool as_user;	/* what the tests run as */

static struct outcome walls(int (*attempt)(void))
{
	return try_as(as_user, WALLS_ALONE, &plain, CONFINE_MAIN, attempt);
}

static void assert_walls(int (*attempt)(void), int error)
{
	struct outcome out = walls(attempt);

	assert_int_equal(out.signal, 0);
	assert_int_equal(out.error, error);
}

/* What a sanitizer's run time may do, the rest of the program may. */
static bool sanitizers_need(long nr)
{
	for (size_t i = 0; i < seccomp_sanitizers.n; i++)
		if (seccomp_sanitizers.rule[i].nr == nr)
			return true;
	return false;
}

static void assert_filtered(int (*attempt)(void), long nr)
{
	if (sanitizers_need(nr))
		return;
	struct outcome out = try_as(as_user, WALLS_AND_FILTER, &plain, CONFINE_MAIN, attempt);

	assert_int_equal(out.error, -1);
	assert_int_equal(out.signal, SIGSYS);
	assert_int_equal(out.forbidden, nr);
}

static void assert_denied(int (*attempt)(void), int error, long nr)
{
	assert_walls(attempt, error);
	assert_filtered(attempt, nr);
}

/* ----------------------------------------------------------------------------- files */

static int open_passwd(void) { return open("/etc/passwd", O_RDONLY) < 0 ? -1 : 0; }
static int open_proc(void) { return open("/proc/self/mem", O_RDONLY) < 0 ? -1 : 0; }
static int open_dev(void) { return open("/dev/null", O_RDONLY) < 0 ? -1 : 0; }
static int create_file(void) { return open("/x", O_RDWR | O_CREAT, 0600) < 0 ? -1 : 0; }
static int make_device(void) { return mknodat(AT_FDCWD, "/null", S_IFCHR | 0666, 0x103); }
static int climb_out(void) { return openat(AT_FDCWD, "../../../../etc/passwd", O_RDONLY) < 0 ? -1 : 0; }
static int write_share(void) { return openat(SHARE_FD, "new", O_RDWR | O_CREAT, 0600) < 0 ? -1 : 0; }
static int change_share(void) { return unlinkat(SHARE_FD, "file", 0); }
static int write_file(void) { return write(KEPT_FD, "x", 1) == 1 ? 0 : -1; }

static int root_has_entries(void)
{
	char buf[512];
	int fd = open("/", O_RDONLY | O_DIRECTORY);
	long n, at;

	if (fd < 0)
		return -1;
	while ((n = syscall(SYS_getdents64, fd, buf, sizeof(buf))) > 0)
		for (at = 0; at < n;) {
			const char *name = buf + at + 19;	/* struct linux_dirent64 */

			if (strcmp(name, ".") != 0 && strcmp(name, "..") != 0)
				return 0;
			at += *(const unsigned short *)(const void *)(buf + at + 16);
		}
	errno = ENOENT;
	return -1;
}

/* ".." of a detached folder is itself. */
static int leave_share(void)
{
	struct stat here, up;

	if (fstatat(SHARE_FD, "", &here, AT_EMPTY_PATH) < 0 || fstatat(SHARE_FD, "..", &up, 0) < 0)
		return -1;
	if (here.st_ino == up.st_ino && here.st_dev == up.st_dev) {
		errno = EXDEV;
		return -1;
	}
	return 0;
}

static void test_no_file_of_the_host_can_be_opened(void **state)
{
	assert_denied(open_passwd, ENOENT, SYS_openat);
	assert_denied(open_proc, ENOENT, SYS_openat);
	assert_denied(open_dev, ENOENT, SYS_openat);
	assert_denied(climb_out, ENOENT, SYS_openat);
	assert_denied(root_has_entries, ENOENT, SYS_openat);
}

static void test_nothing_can_be_made_in_the_empty_root(void **state)
{
	assert_denied(create_file, EROFS, SYS_openat);
	assert_denied(make_device, EROFS, SYS_mknodat);
}

static void test_a_shared_folder_has_no_way_out_and_stays_read_only(void **state)
{
	assert_walls(leave_share, EXDEV);
	assert_denied(write_share, EROFS, SYS_openat);
	assert_denied(change_share, EROFS, SYS_unlinkat);
}

static void test_files_cannot_grow_when_none_is_to_be_written(void **state)
{
	assert_walls(write_file, EFBIG);	/* and SIGXFSZ, which the first of a pid namespace does not notice */
}

static int has_other_descriptors(void)
{
	for (int fd = 3; fd < 1024; fd++)
		if (fcntl(fd, F_GETFD) >= 0 && fd != KEPT_FD && fd != SHARE_FD && fd != REPORT_FD)
			return 0;
	errno = EBADF;
	return -1;
}

static void test_no_descriptor_is_left_over(void **state)
{
	assert_walls(has_other_descriptors, EBADF);
}

/* --------------------------------------------------------------------------- sockets */

static int connect_loopback(void)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(tcp_port),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };

	return connect(socket(AF_INET, SOCK_STREAM, 0), (struct sockaddr *)&a, sizeof(a));
}

static int connect_abstract(void)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };

	memcpy(a.sun_path + 1, ABSTRACT_NAME, sizeof(ABSTRACT_NAME) - 1);
	return connect(socket(AF_UNIX, SOCK_STREAM, 0), (struct sockaddr *)&a,
		       offsetof(struct sockaddr_un, sun_path) + sizeof(ABSTRACT_NAME));
}

static int raw_socket(void) { return socket(AF_INET, SOCK_RAW, IPPROTO_ICMP) < 0 ? -1 : 0; }
static int packet_socket(void) { return socket(AF_PACKET, SOCK_RAW, 0) < 0 ? -1 : 0; }
static int inet_pair(void) { return syscall(SYS_socketpair, AF_INET, SOCK_STREAM, 0, (int[2]){ 0 }) < 0 ? -1 : 0; }

static void test_no_network_can_be_reached(void **state)
{
	assert_denied(connect_loopback, ENETUNREACH, SYS_socket);
	assert_denied(connect_abstract, ECONNREFUSED, SYS_socket);
	assert_denied(raw_socket, EPERM, SYS_socket);
	assert_denied(packet_socket, EPERM, SYS_socket);
	assert_filtered(inet_pair, SYS_socketpair);
}

/* ------------------------------------------------------------------- other processes */

static int trace(void) { return (int)ptrace(PTRACE_ATTACH, outsider, NULL, NULL); }
static int signal_outsider(void) { return kill(outsider, SIGTERM); }
static int thread_signal(void) { return (int)syscall(SYS_tgkill, outsider, outsider, SIGTERM); }
static int read_outsider(void)
{
	char c;
	struct iovec to = { &c, 1 }, from = { (void *)&outsider, 1 };

	return process_vm_readv(outsider, &to, 1, &from, 1, 0) < 0 ? -1 : 0;
}
static int open_outsider(void) { return syscall(SYS_pidfd_open, outsider, 0) < 0 ? -1 : 0; }
static int attach_memory(void) { return shmget(SYSTEM_KEY, 4096, 0) < 0 ? -1 : 0; }
static int is_not_first(void)
{
	errno = ESRCH;
	return getpid() == 1 ? -1 : 0;
}
static int make_process(void) { return fork() < 0 ? -1 : 0; }
static int execute(void) { return execve("/bin/sh", (char *[]){ NULL }, (char *[]){ NULL }); }

static void test_other_processes_do_not_exist(void **state)
{
	assert_walls(is_not_first, ESRCH);
	assert_denied(trace, ESRCH, SYS_ptrace);
	assert_denied(signal_outsider, ESRCH, SYS_kill);
	assert_denied(thread_signal, ESRCH, SYS_tgkill);
	assert_denied(read_outsider, ESRCH, SYS_process_vm_readv);
	assert_denied(open_outsider, ESRCH, SYS_pidfd_open);
	assert_denied(attach_memory, ENOENT, SYS_shmget);
}

static void test_no_process_can_be_made_and_no_program_executed(void **state)
{
	assert_filtered(make_process, SYS_clone);
	assert_denied(execute, ENOENT, SYS_execve);
}

/* ---------------------------------------------------------------------------- rights */

static int mount_something(void) { return mount("none", "/", "tmpfs", 0, NULL); }
static int unmount_root(void) { return umount2("/", MNT_DETACH); }
static int remount_root(void) { return mount("none", "/", NULL, MS_REMOUNT | MS_BIND, NULL); }
static int clone_mounts(void) { return syscall(SYS_open_tree, SHARE_FD, "", 0x1001u) < 0 ? -1 : 0; }
static int change_root(void) { return chroot("/"); }
static int become_another(void) { return setresuid(1234, 1234, 1234); }
static int rename_host(void) { return sethostname("x", 1); }
static int more_files(void) { return setrlimit(RLIMIT_CORE, &(struct rlimit){ 1, 1 }); }
static int new_mounts(void) { return unshare(CLONE_NEWNS); }
static int new_users(void) { return unshare(CLONE_NEWUSER); }
static int join_outside(void) { return setns(KEPT_FD, 0); }
static int load_bpf(void) { return syscall(SYS_bpf, 0, NULL, 0) < 0 ? -1 : 0; }
static int make_ring(void) { return syscall(SYS_io_uring_setup, 1, NULL) < 0 ? -1 : 0; }
static int catch_filter(void) { return signal(SIGSYS, SIG_IGN) == SIG_ERR ? -1 : 0; }
static int use_terminal(void) { return (int)syscall(SYS_ioctl, 0, 0x5412 /* TIOCSTI */, "x"); }
static int executable_memory(void)
{
	return mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? -1 : 0;
}
static int more_caps(void)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { { .effective = 1, .permitted = 1 } };

	return (int)syscall(SYS_capset, &head, data);
}
static int has_privileges_to_gain(void)
{
	errno = EPERM;
	if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 && prctl(PR_GET_DUMPABLE) >= 0)
		for (int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
			if (prctl(PR_CAPBSET_READ, cap, 0, 0, 0) == 1)
				return 0;
	errno = EPERM;
	return prctl(PR_GET_SECUREBITS) & 1 ? -1 : 0;
}

static void test_nothing_can_be_mounted(void **state)
{
	assert_denied(mount_something, EPERM, SYS_mount);
	assert_denied(unmount_root, EPERM, SYS_umount2);
	assert_denied(remount_root, EPERM, SYS_mount);
	assert_denied(clone_mounts, EPERM, SYS_open_tree);
	assert_denied(change_root, EPERM, SYS_chroot);
	assert_denied(new_mounts, EPERM, SYS_unshare);
	assert_filtered(new_users, SYS_unshare);
	assert_filtered(join_outside, SYS_setns);
}

static void test_no_right_can_be_had(void **state)
{
	struct outcome out = walls(become_another);

	assert_true(out.error == EPERM || out.error == EINVAL);	/* EINVAL: no such user in the namespace */
	assert_filtered(become_another, SYS_setresuid);
	assert_walls(has_privileges_to_gain, EPERM);
	assert_denied(more_caps, EPERM, SYS_capset);
	assert_denied(more_files, EPERM, SYS_prlimit64);
	assert_denied(rename_host, EPERM, SYS_sethostname);
}

static void test_large_parts_of_the_kernel_are_out_of_reach(void **state)
{
	assert_filtered(load_bpf, SYS_bpf);
	assert_filtered(make_ring, SYS_io_uring_setup);
	assert_filtered(use_terminal, SYS_ioctl);
	assert_filtered(executable_memory, SYS_mmap);
	assert_filtered(catch_filter, SYS_rt_sigaction);
}

/* ---------------------------------------------------------------------------- filter */

static int x32_call(void) { return (int)syscall(SECCOMP_NR_FATAL | 39); }
static int old_call(void)
{
	long r;

	__asm__ volatile("int $0x80" : "=a"(r) : "a"(20) : "memory");
	return (int)r;
}

static void test_calls_of_other_abis_kill_at_once(void **state)
{
	struct outcome out = try_as(as_user, WALLS_AND_FILTER, &plain, CONFINE_MAIN, x32_call);

	assert_int_equal(out.signal, SIGSYS);
	assert_int_equal(out.forbidden, -1);
	out = try_as(as_user, WALLS_AND_FILTER, &plain, CONFINE_MAIN, old_call);
	assert_true(out.signal == SIGSYS || out.signal == SIGSEGV);	/* SIGSEGV: a kernel without 32-bit calls */
}

static int nothing(void) { return 0; }

static void test_every_kind_of_thread_can_be_closed_in(void **state)
{
	static const enum confine_thread kinds[] = { CONFINE_MAIN, CONFINE_FILES, CONFINE_NET, CONFINE_DBT, CONFINE_KVM };
	struct confine all = { .kvm = true, .debugger = true, .files_writable = true, .folders = true };

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		struct outcome out = try_as(as_user, WALLS_AND_FILTER, &all, kinds[i], nothing);

		assert_int_equal(out.error, 0);
		assert_int_equal(out.signal, 0);
		assert_int_equal(try_as(as_user, WALLS_AND_FILTER, &all, kinds[i], execute).forbidden, SYS_execve);
		assert_int_equal(try_as(as_user, WALLS_AND_FILTER, &all, kinds[i], raw_socket).forbidden, SYS_socket);
		if (!sanitizers_need(SYS_mmap))
			assert_int_equal(try_as(as_user, WALLS_AND_FILTER, &all, kinds[i], executable_memory).forbidden,
					 SYS_mmap);
		assert_int_equal(try_as(as_user, WALLS_AND_FILTER, &all, kinds[i], make_process).forbidden, SYS_clone);
	}
}

static int give_file_away(void) { return fchown(KEPT_FD, 1234, 1234); }
static int give_file_away_by_name(void) { return fchownat(KEPT_FD, "", 1234, 1234, AT_EMPTY_PATH); }

static void test_only_the_file_server_has_rights_over_files(void **state)
{
	struct confine serving = { .files_writable = true, .folders = true };
	struct outcome out = try_as(as_user, WALLS_AND_FILTER, &serving, CONFINE_FILES, give_file_away_by_name);
	bool root = geteuid() == 0 && !as_user;

	/* A user's namespace does not even know that other user. */
	assert_int_equal(out.error, root ? 0 : EINVAL);
	assert_walls(give_file_away, root ? EPERM : EINVAL);
	out = try_as(as_user, WALLS_AND_FILTER, &serving, CONFINE_DBT, give_file_away);
	assert_int_equal(out.forbidden, SYS_fchown);
}

static void test_system_calls_have_names(void **state)
{
	assert_string_equal(seccomp_name(SYS_openat), "openat");
	assert_string_equal(seccomp_name(-1), "unknown");
	assert_string_equal(seccomp_name(100000), "unknown");
}

/* ----------------------------------------------------------------------------- set-up */

static int shm_id = -1, tcp_fd = -1, unix_fd = -1;

/* What there is to be found outside, in reach of whoever is not in jail. */
static int set_up(void **state)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct sockaddr_un u = { .sun_family = AF_UNIX };
	socklen_t len = sizeof(a);

	outsider = getpid();
	shm_id = shmget(SYSTEM_KEY, 4096, IPC_CREAT | 0666);
	tcp_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	unix_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	memcpy(u.sun_path + 1, ABSTRACT_NAME, sizeof(ABSTRACT_NAME) - 1);
	if (shm_id < 0 || bind(tcp_fd, (struct sockaddr *)&a, len) < 0 || listen(tcp_fd, 5) < 0 ||
	    getsockname(tcp_fd, (struct sockaddr *)&a, &len) < 0 ||
	    bind(unix_fd, (struct sockaddr *)&u, offsetof(struct sockaddr_un, sun_path) + sizeof(ABSTRACT_NAME)) < 0 ||
	    listen(unix_fd, 5) < 0)
		return -1;
	tcp_port = ntohs(a.sin_port);
	if (connect_loopback() < 0 || connect_abstract() < 0)
		return -1;
	/* Everyone's, so that owners and modes are not what keeps an attempt from succeeding. */
	return mkdtemp(folder) && chmod(folder, 0777) == 0 ? 0 : -1;
}

static int tear_down(void **state)
{
	char path[64];

	(void)snprintf(path, sizeof(path), "%s/file", folder);
	(void)unlink(path);
	(void)rmdir(folder);
	(void)close(tcp_fd);
	(void)close(unix_fd);
	return shmctl(shm_id, IPC_RMID, NULL);
}

static int remove_file(void **state)
{
	char path[64];

	(void)snprintf(path, sizeof(path), "%s/file", folder);
	return unlink(path) < 0 && errno != ENOENT ? -1 : 0;
}

#define T(f) cmocka_unit_test_setup(f, remove_file)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		T(test_no_file_of_the_host_can_be_opened),
		T(test_nothing_can_be_made_in_the_empty_root),
		T(test_a_shared_folder_has_no_way_out_and_stays_read_only),
		T(test_files_cannot_grow_when_none_is_to_be_written),
		T(test_no_descriptor_is_left_over),
		T(test_no_network_can_be_reached),
		T(test_other_processes_do_not_exist),
		T(test_no_process_can_be_made_and_no_program_executed),
		T(test_nothing_can_be_mounted),
		T(test_no_right_can_be_had),
		T(test_large_parts_of_the_kernel_are_out_of_reach),
		T(test_calls_of_other_abis_kill_at_once),
		T(test_every_kind_of_thread_can_be_closed_in),
		T(test_only_the_file_server_has_rights_over_files),
		T(test_system_calls_have_names),
	};
	struct err err = { 0 };
	int failed;

	if (jail_probe(&err) < 0) {
		(void)printf("no namespaces here: %s\n", err.msg);
		return 77;
	}
	failed = cmocka_run_group_tests_name(geteuid() == 0 ? "jail of root" : "jail", tests, set_up, tear_down);
	if (geteuid() == 0) {
		as_user = true;
		memcpy(folder + strlen(folder) - 6, "XXXXXX", 6);
		failed += cmocka_run_group_tests_name("jail of an ordinary user", tests, set_up, tear_down);
	}
	return failed;
}
