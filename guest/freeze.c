/* SPDX-License-Identifier: Apache-2.0 */
#include "guest/freeze.h"

#include "guest/files.h"
#include "guest/text.h"

#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#define ROOT "/sys/fs/cgroup"
#define OWN "roux.stopped"
#define MARK "trusted.roux.stopped"	/* on groups of others that we froze: those that were already stay so */
#define ROUNDS_MAX 1000	/* programs may fork while they are gathered */
#define WAIT_MS 2000

static bool path_of(struct text *path, const char *group, const char *file)
{
	*path = (struct text){ .len = 0 };
	text_add(path, ROOT "/");
	text_add(path, group);
	text_add(path, file);
	return path->len < sizeof(path->str) - 1;
}

static bool put(const char *group, const char *file, const char *text)
{
	struct text path;

	return path_of(&path, group, file) && file_put(path.str, text) == 0;
}

/* Whether the first bytes of the file are, or a line of it is, @line. */
static bool says(const char *group, const char *file, const char *line)
{
	struct text path;
	char text[256];
	const char *at;
	ssize_t n = path_of(&path, group, file) ? file_read(path.str, text, sizeof(text) - 1) : -1;

	if (n < 0)
		return false;
	text[n] = '\0';
	at = strstr(text, line);
	return at && (at == text || at[-1] == '\n');
}

/* The program of process @pid, an empty string for a kernel thread. */
static void program_of(const char *pid, char *ret_name, size_t size)
{
	struct text path = { .len = 0 };
	ssize_t n;

	text_add(&path, "/proc/");
	text_add(&path, pid);
	text_add(&path, "/exe");
	n = readlink(path.str, ret_name, size - 1);
	ret_name[n < 0 ? 0 : n] = '\0';
}

/* The agent itself, or a thread of the kernel. */
static bool stays(const char *pid)
{
	static char own[256];
	char name[256];

	if (!own[0])
		program_of("self", own, sizeof(own));
	program_of(pid, name, sizeof(name));
	return strcmp(pid, "1") == 0 || !name[0] || strcmp(name, own) == 0;
}

/* Moves every program from one group to another.  Returns how many there were, or -1 with errno. */
static int move_all(const char *from, const char *to)
{
	static char text[64 * 1024];	/* some ten thousand processes; what is behind comes in the next round */
	struct text path;
	int moved = 0;
	char *end;
	ssize_t n;

	if (!path_of(&path, from, "/cgroup.procs") || (n = file_read(path.str, text, sizeof(text) - 1)) < 0)
		return -1;
	text[n] = '\0';
	for (char *pid = text; (end = strchr(pid, '\n')); pid = end + 1) {
		*end = '\0';
		moved += !stays(pid) && put(to, "/cgroup.procs", pid);	/* it may have ended */
	}
	return moved;
}

/* Calls @fn with every group below the root but ours; the first failure ends it. */
static int each_other(int (*fn)(const char *group))
{
	DIR *dir = opendir(ROOT);
	struct dirent *e;
	int r = 0;

	if (!dir)
		return -1;
	while (r == 0 && (e = readdir(dir)))
		if (e->d_type == DT_DIR && e->d_name[0] != '.' && strcmp(e->d_name, OWN) != 0)
			r = fn(e->d_name);
	(void)closedir(dir);
	return r;
}

static int freeze_other(const char *group)
{
	struct text path;

	if (!says(group, "/cgroup.freeze", "0"))
		return 0;
	if (!path_of(&path, group, "") || setxattr(path.str, MARK, "", 0, 0) < 0)
		return -1;
	return put(group, "/cgroup.freeze", "1") ? 0 : -1;
}

static bool is_marked(const char *group)
{
	struct text path;

	return path_of(&path, group, "") && getxattr(path.str, MARK, NULL, 0) >= 0;
}

static int thaw_other(const char *group)
{
	struct text path;

	if (!is_marked(group))
		return 0;
	(void)put(group, "/cgroup.freeze", "0");
	if (path_of(&path, group, ""))
		(void)removexattr(path.str, MARK);
	return 0;
}

static int look_at_other(const char *group)
{
	return is_marked(group) && !says(group, "/cgroup.events", "frozen 1") ? -1 : 0;
}

/* True when all have come to their stop. */
static bool wait_frozen(void)
{
	const struct timespec pause = { .tv_nsec = 500000 };

	for (int i = 0; i < WAIT_MS * 2; i++) {
		if (says(OWN, "/cgroup.events", "frozen 1") && each_other(look_at_other) == 0)
			return true;
		(void)nanosleep(&pause, NULL);
	}
	return false;
}

static int freeze_all(void)
{
	int moved, rounds = 0;

	if (!put(OWN, "/cgroup.freeze", "1"))
		return -1;
	do
		moved = move_all("", OWN);
	while (moved > 0 && ++rounds < ROUNDS_MAX);
	if (moved < 0 || each_other(freeze_other) < 0)
		return -1;
	errno = EBUSY;
	return moved == 0 && wait_frozen() ? 0 : -1;
}

static bool allowed;

void freeze_allow(void)
{
	allowed = true;
}

int freeze_begin(void)
{
	int error;

	errno = EPERM;
	if (!allowed || access(ROOT "/cgroup.procs", F_OK) < 0 || (mkdir(ROOT "/" OWN, 0700) < 0 && errno != EEXIST))
		return -1;
	if (freeze_all() == 0)
		return 0;
	error = errno;
	freeze_end();
	errno = error;
	return -1;
}

void freeze_end(void)
{
	if (!allowed || !put(OWN, "/cgroup.freeze", "0"))
		return;	/* nothing was */
	(void)each_other(thaw_other);
	for (int i = 0; i < ROUNDS_MAX && move_all(OWN, "") > 0; i++)
		;
	(void)rmdir(ROOT "/" OWN);
}
