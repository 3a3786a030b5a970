/* SPDX-License-Identifier: Apache-2.0 */
#include "os/cgroup.h"

#include "os/err.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <mntent.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define CONTROLLERS 3u
#define PREFIX "roux-"
#define REMOVE_TRIES 100u	/* a millisecond apart: processes may leave a group after they were waited for */

/* In version 1 each has a hierarchy of its own, in version 2 they share one. */
static const struct {
	const char *name;
	const char *limit_v2, *limit_v1;	/* the file that shows whether it can be used */
} controllers[CONTROLLERS] = {
	{ "memory", "memory.max", "memory.limit_in_bytes" },
	{ "pids", "pids.max", "pids.max" },
	{ "cpu", "cpu.weight", "cpu.shares" },
};

enum { MEMORY, PIDS, CPU };

struct cgroup {
	unsigned number;	/* of those that this process made */
	bool v2;
	int dir[CONTROLLERS];	/* descriptors, owned, -1: none; version 2: the first only */
	char path[CONTROLLERS][PATH_MAX];
};

/* The folder of controller @c; in version 2 all are one. */
static int dir_of(const struct cgroup *g, unsigned c)
{
	return g->dir[g->v2 ? 0 : c];
}

static int write_file(int dir, const char *name, const char *text)
{
	int fd = openat(dir, name, O_WRONLY | O_CLOEXEC), r;

	if (fd < 0)
		return -errno;
	r = write(fd, text, strlen(text)) < 0 ? -errno : 0;
	(void)close(fd);
	return r;
}

static int write_number(int dir, const char *name, uint64_t value)
{
	char text[24];

	(void)snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
	return write_file(dir, name, text);
}

/* True when @list, separated by @sep, has @word. */
static bool has_word(const char *list, const char *word, char sep)
{
	size_t n = strlen(word);

	for (const char *p = list; p; p = strchr(p, sep), p += p != NULL)
		if (strncmp(p, word, n) == 0 && (p[n] == sep || p[n] == '\0' || p[n] == '\n'))
			return true;
	return false;
}

/* ------------------------------------------------------------- where we are */

/* Our group's path in the hierarchy of @controller (NULL: version 2), as /proc/self/cgroup has it. */
static bool own_path(const char *controller, char ret_path[PATH_MAX])
{
	FILE *f = fopen("/proc/self/cgroup", "re");
	char line[PATH_MAX + 128];
	bool found = false;

	while (f && !found && fgets(line, sizeof(line), f)) {
		char *names = strchr(line, ':'), *path = names ? strchr(names + 1, ':') : NULL;

		if (!path)
			continue;
		*path++ = '\0';
		path[strcspn(path, "\n")] = '\0';
		found = controller ? has_word(names + 1, controller, ',') : strncmp(line, "0:", 2) == 0 && names[1] == '\0';
		if (found)
			(void)snprintf(ret_path, PATH_MAX, "%s", path);
	}
	if (f)
		(void)fclose(f);
	return found;
}

/* Where the hierarchy of @controller (NULL: version 2) is mounted. */
static bool mount_point(const char *controller, char ret_path[PATH_MAX])
{
	FILE *f = setmntent("/proc/self/mounts", "re");
	struct mntent *e;
	bool found = false;

	while (f && !found && (e = getmntent(f))) {
		found = controller ? strcmp(e->mnt_type, "cgroup") == 0 && has_word(e->mnt_opts, controller, ',') :
			strcmp(e->mnt_type, "cgroup2") == 0;
		if (found)
			(void)snprintf(ret_path, PATH_MAX, "%s", e->mnt_dir);
	}
	if (f)
		(void)endmntent(f);
	return found;
}

/* Our own group's folder.  In a container it may be the mount's root whatever its path says. */
static bool own_folder(const char *controller, char ret_path[PATH_MAX])
{
	char mount[PATH_MAX], path[PATH_MAX];
	int n;

	if (!mount_point(controller, mount) || !own_path(controller, path))
		return false;
	n = snprintf(ret_path, PATH_MAX, "%s%s", mount, strcmp(path, "/") == 0 ? "" : path);
	if (n < 0 || n >= PATH_MAX)
		return false;
	if (access(ret_path, F_OK) < 0)
		(void)snprintf(ret_path, PATH_MAX, "%s", mount);
	return true;
}

/* Somebody has limited group @dir, of version 2: the root of the hierarchy has no such file. */
static bool limited(int dir, const char *file)
{
	char text[4] = "";
	int fd = openat(dir, file, O_RDONLY | O_CLOEXEC);
	bool yes = fd >= 0 && read(fd, text, 3) == 3 && strcmp(text, "max") != 0;

	if (fd >= 0)
		(void)close(fd);
	return yes;
}

/* ------------------------------------------------------------------ making */

/* Groups of ours whose maker is no more. */
static void sweep(const char *parent)
{
	DIR *d = opendir(parent);
	struct dirent *e;

	while (d && (e = readdir(d))) {
		unsigned long pid;
		char *end;

		if (strncmp(e->d_name, PREFIX, strlen(PREFIX)) != 0)
			continue;
		pid = strtoul(e->d_name + strlen(PREFIX), &end, 10);
		if (*end == '-' && pid > 0 && pid <= INT_MAX && kill((pid_t)pid, 0) < 0 && errno == ESRCH)
			(void)unlinkat(dirfd(d), e->d_name, AT_REMOVEDIR);	/* refused while processes are in it */
	}
	if (d)
		(void)closedir(d);
}

static int make_below(struct cgroup *g, unsigned c, const char *parent)
{
	int n;

	sweep(parent);
	n = snprintf(g->path[c], PATH_MAX, "%s/" PREFIX "%d-%u", parent, (int)getpid(), g->number);
	if (n < 0 || n >= PATH_MAX)
		return -ENAMETOOLONG;
	if (mkdir(g->path[c], 0755) < 0)
		return -errno;
	g->dir[c] = open(g->path[c], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return g->dir[c] < 0 ? -errno : 0;
}

/* Which controllers the group has by now. */
static int usable(const struct cgroup *g)
{
	int have = 0;

	for (unsigned c = 0; c < CONTROLLERS; c++)
		if (dir_of(g, c) >= 0 &&
		    faccessat(dir_of(g, c), g->v2 ? controllers[c].limit_v2 : controllers[c].limit_v1, W_OK, AT_EACCESS) == 0)
			have |= 1 << c;
	return have;
}

/* Version 2.  0 when there is no such hierarchy, or it has no controllers to give. */
static int make_v2(struct cgroup *g)
{
	char own[PATH_MAX], path[PATH_MAX], *slash;
	int dir, r;

	if (!own_folder(NULL, own) || !own_path(NULL, path))
		return 0;
	dir = open(own, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return -errno;
	r = limited(dir, "memory.max") || limited(dir, "cpu.max") ? -EBUSY : 0;
	(void)close(dir);
	if (r < 0)
		return r;
	slash = strrchr(own, '/');
	if (slash && strcmp(path, "/") != 0)
		*slash = '\0';
	dir = open(own, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return -errno;
	for (unsigned c = 0; c < CONTROLLERS; c++) {
		char text[16];

		/* One after the other: a list is refused as a whole.  What does not work shows in the group. */
		(void)snprintf(text, sizeof(text), "+%s", controllers[c].name);
		(void)write_file(dir, "cgroup.subtree_control", text);
	}
	(void)close(dir);
	g->v2 = true;
	r = make_below(g, 0, own);
	return r < 0 ? r : usable(g);
}

static int make_v1(struct cgroup *g)
{
	char own[PATH_MAX];
	int r = 0;

	for (unsigned c = 0; c < CONTROLLERS; c++) {
		int made = own_folder(controllers[c].name, own) ? make_below(g, c, own) : 0;

		if (made < 0)
			r = made;
	}
	return usable(g) ? usable(g) : r;
}

static int set_limits(const struct cgroup *g, const struct cgroup_limits *l, int have)
{
	int r = 0;

	if (l->memory && have & CGROUP_MEMORY)
		r = write_number(dir_of(g, MEMORY), g->v2 ? "memory.max" : "memory.limit_in_bytes", l->memory);
	if (r == 0 && l->tasks && have & CGROUP_PIDS)
		r = write_number(dir_of(g, PIDS), "pids.max", l->tasks);
	return r;
}

/* Closes, and removes what can be removed by now; true when nothing is left. */
static bool remove_folders(struct cgroup *g)
{
	bool gone = true;

	for (unsigned c = 0; c < CONTROLLERS; c++) {
		if (g->dir[c] < 0)
			continue;
		if (rmdir(g->path[c]) < 0 && errno == EBUSY) {
			gone = false;
			continue;
		}
		(void)close(g->dir[c]);
		g->dir[c] = -1;
	}
	return gone;
}

int cgroup_create(const struct cgroup_limits *limits, struct cgroup **ret_cgroup, struct err *err)
{
	static unsigned made;
	struct cgroup *g = calloc(1, sizeof(*g));
	int have, r = 0;

	if (!g)
		return err_set(err, -ENOMEM, "out of host memory");
	g->number = __atomic_fetch_add(&made, 1, __ATOMIC_RELAXED);
	g->dir[0] = g->dir[1] = g->dir[2] = -1;
	have = make_v2(g);
	if (have == 0) {	/* or one without controllers: they are with version 1 */
		(void)remove_folders(g);
		g->v2 = false;
		have = make_v1(g);
	}
	if (have > 0)
		r = set_limits(g, limits, have);
	if (have <= 0 || r < 0) {
		r = have < 0 ? have : r < 0 ? r : -ENOTSUP;
		cgroup_destroy(g);
		if (r == -EBUSY)
			return err_set(err, r, "the control group that roux runs in has limits of its own, which hold for its VMs");
		return err_set(err, r, "no control group with limits can be made here: %s", strerror(-r));
	}
	*ret_cgroup = g;
	return have;
}

int cgroup_add(const struct cgroup *g, pid_t pid)
{
	int r = 0;

	for (unsigned c = 0; c < CONTROLLERS && r == 0; c++)
		if (g->dir[c] >= 0)
			r = write_number(g->dir[c], "cgroup.procs", (uint64_t)pid);
	return r;
}

int cgroup_set_shares(const struct cgroup *g, uint32_t shares)
{
	uint64_t weight = (uint64_t)shares * 100 / 1024;	/* everybody's is 100 there, from 1 to 10000 */
	int dir = dir_of(g, CPU), r;

	if (dir < 0)
		return -ENOTSUP;
	weight = weight < 1 ? 1 : weight > 10000 ? 10000 : weight;
	r = g->v2 ? write_number(dir, "cpu.weight", weight) : write_number(dir, "cpu.shares", shares);
	return r == -ENOENT ? -ENOTSUP : r;
}

void cgroup_destroy(struct cgroup *g)
{
	const struct timespec pause = { .tv_nsec = 1000000 };

	if (!g)
		return;
	for (unsigned n = 0; !remove_folders(g) && n < REMOVE_TRIES; n++)
		(void)nanosleep(&pause, NULL);
	for (unsigned c = 0; c < CONTROLLERS; c++)
		if (g->dir[c] >= 0)
			(void)close(g->dir[c]);
	free(g);
}
