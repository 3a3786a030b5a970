/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What os/cgroup.h says, asked of the kernel below: the host's, and one in a VM with the
 * other version.  Static, for guests.  Exit status 0 when all holds, 77 with a sentence when
 * there are no control groups for us.
 */
#include "os/cgroup.h"
#include "os/err.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define check(what) ((what) ? (void)0 : fail(#what, __LINE__))

static _Noreturn void fail(const char *what, int line)
{
	(void)fprintf(stderr, "cgroups.c:%d: not so: %s (%s)\n", line, what, strerror(errno));
	exit(1);
}

/* Runs @fn in a child that @group has.  Returns its wait status. */
static int run_in(const struct cgroup *group, int (*fn)(void))
{
	int go[2], status;
	char c = 0;
	pid_t pid;

	check(pipe(go) == 0);
	pid = fork();
	check(pid >= 0);
	if (pid == 0) {
		if (read(go[0], &c, 1) != 1)
			_exit(100);
		_exit(fn());
	}
	check(cgroup_add(group, pid) == 0);
	check(write(go[1], &c, 1) == 1);
	check(waitpid(pid, &status, 0) == pid);
	(void)close(go[0]);
	(void)close(go[1]);
	return status;
}

/* The status says how many children it could have, up to 8. */
static int have_children(void)
{
	int n = 0;

	(void)setpgid(0, 0);
	for (; n < 8; n++) {
		pid_t pid = fork();

		if (pid < 0)
			break;
		if (pid == 0) {
			(void)pause();
			_exit(0);
		}
	}
	(void)signal(SIGTERM, SIG_IGN);
	(void)kill(0, SIGTERM);	/* the process group is our own */
	while (wait(NULL) > 0)
		;
	return n;
}

static int touch_memory(void)
{
	size_t size = 64 << 20;
	char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return 1;
	memset(p, 1, size);
	return 0;
}

static int name_pipe[2];

/* Writes what follows the last but one part of its group's path. */
static int tell_name(void)
{
	char line[4096];
	FILE *f = fopen("/proc/self/cgroup", "re");
	int found = 0;

	while (f && fgets(line, sizeof(line), f)) {
		char *at = strstr(line, "/roux-");

		if (at && !found)
			found = write(name_pipe[1], at, strlen(at)) > 0;
	}
	return !found;
}

static bool mentioned(const char *folder, const char *name)
{
	DIR *d = opendir(folder);
	struct dirent *e;
	bool found = false;

	while (d && !found && (e = readdir(d))) {
		char path[8192];
		struct stat st;

		if (e->d_name[0] == '.')
			continue;
		found = strcmp(e->d_name, name) == 0;
		(void)snprintf(path, sizeof(path), "%s/%s", folder, e->d_name);
		if (!found && lstat(path, &st) == 0 && S_ISDIR(st.st_mode))
			found = mentioned(path, name);
	}
	if (d)
		(void)closedir(d);
	return found;
}

/* What begins the name of the group that a child of ours makes and leaves. */
static void leave_one(char ret_name[32])
{
	pid_t pid = fork();

	if (pid == 0) {
		struct cgroup *g;

		_exit(cgroup_create(&(struct cgroup_limits){ 0 }, &g, NULL) <= 0);
	}
	check(waitpid(pid, NULL, 0) == pid);
	(void)snprintf(ret_name, 32, "roux-%d-", (int)pid);
}

int main(void)
{
	struct cgroup_limits limits = { .memory = 24 << 20, .tasks = 4 };
	struct cgroup *g, *other;
	struct err err = { 0 };
	int status, have = cgroup_create(&limits, &g, &err);
	char name[64] = "", left[32];
	ssize_t n;

	if (have < 0) {
		(void)printf("%s\n", err.msg);
		return 77;
	}
	(void)printf("limits:%s%s%s\n", have & CGROUP_MEMORY ? " memory" : "", have & CGROUP_PIDS ? " pids" : "",
		     have & CGROUP_CPU ? " cpu" : "");
	if (have & CGROUP_PIDS) {
		status = run_in(g, have_children);
		check(WIFEXITED(status) && WEXITSTATUS(status) == 3);	/* and itself */
	}
	if (have & CGROUP_MEMORY) {
		status = run_in(g, touch_memory);
		check(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	}
	if (have & CGROUP_CPU) {
		check(cgroup_set_shares(g, 2) == 0);
		check(cgroup_set_shares(g, 262144) == 0);
	}
	check(pipe(name_pipe) == 0);
	status = run_in(g, tell_name);
	check(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	n = read(name_pipe[0], name, sizeof(name) - 1);
	check(n > 1);
	name[strcspn(name, "\n")] = '\0';
	check(mentioned("/sys/fs/cgroup", name + 1));
	check(cgroup_create(&limits, &other, &err) == have);
	cgroup_destroy(g);
	check(!mentioned("/sys/fs/cgroup", name + 1));
	check(run_in(other, have_children) == (have & CGROUP_PIDS ? 3 : 8) << 8);
	cgroup_destroy(other);
	leave_one(left);
	(void)snprintf(name, sizeof(name), "%s2", left);	/* our third, counted on in the child */
	check(mentioned("/sys/fs/cgroup", name));
	check(cgroup_create(&limits, &g, &err) == have);
	check(!mentioned("/sys/fs/cgroup", name));
	cgroup_destroy(g);
	return 0;
}
