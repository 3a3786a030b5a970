/* SPDX-License-Identifier: Apache-2.0 */
#include "os/context.h"

#include "base/checked.h"
#include "base/sha256.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define TEXT_MAX 16384u	/* bytes of a file of /proc; longer ones are no context that we could compare */

extern char **environ;

static void add_text(struct sha256 *hash, const char *text, size_t len)
{
	sha256_add(hash, text, len);
	sha256_add(hash, "", 1);
}

/* All of a file of /proc, NUL-terminated. */
static int read_proc(const char *path, char text[TEXT_MAX])
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), r = 0;
	size_t len = 0;
	ssize_t n = 1;

	if (fd < 0)
		return -errno;
	while (n > 0 && len < TEXT_MAX - 1) {
		n = read(fd, text + len, TEXT_MAX - 1 - len);
		if (n > 0)
			len += (size_t)n;
	}
	if (n < 0)
		r = -errno;
	else if (len == TEXT_MAX - 1)
		r = -EFBIG;
	(void)close(fd);
	text[len] = '\0';
	return r;
}

/* Ids, rights and where it may run; the rest of this file is about what the process has done. */
static int add_status(struct sha256 *hash, char text[TEXT_MAX])
{
	static const char *const names[] = { "Umask:", "Uid:", "Gid:", "Groups:", "Cap", "NoNewPrivs:", "Seccomp", "Cpus_allowed:",
					     "Mems_allowed:" };
	int r = read_proc("/proc/self/status", text);
	char *rest = NULL;

	if (r < 0)
		return r;
	for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
		for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
			if (strncmp(line, names[i], strlen(names[i])) == 0)
				add_text(hash, line, strlen(line));
	return 0;
}

static int add_place(struct sha256 *hash, const char *path)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return errno == ENOENT ? 0 : -errno;	/* a kernel without that kind of namespace */
	sha256_add(hash, &st.st_dev, sizeof(st.st_dev));
	sha256_add(hash, &st.st_ino, sizeof(st.st_ino));
	return 0;
}

static int add_places(struct sha256 *hash)
{
	static const char *const paths[] = { "/", "/proc/self/ns/cgroup", "/proc/self/ns/ipc", "/proc/self/ns/mnt", "/proc/self/ns/net",
					     "/proc/self/ns/pid", "/proc/self/ns/pid_for_children", "/proc/self/ns/time",
					     "/proc/self/ns/user", "/proc/self/ns/uts" };
	int r = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(paths) && r == 0; i++)
		r = add_place(hash, paths[i]);
	return r;
}

static void add_limits(struct sha256 *hash)
{
	int nice;

	for (unsigned i = 0; i < RLIM_NLIMITS; i++) {
		struct rlimit limit = { 0 };

		(void)getrlimit((__rlimit_resource_t)i, &limit);
		sha256_add(hash, &limit, sizeof(limit));
	}
	nice = getpriority(PRIO_PROCESS, 0);
	sha256_add(hash, &nice, sizeof(nice));
}

/* Whether variable @text, "NAME=value", has a say in what roux does. */
static bool counts(const char *text)
{
	static const char *const beginnings[] = { "ROUX_", "XDG_", "HOME=", "PATH=", "TMPDIR=", "DOCKER_CONFIG=", "SSL_CERT_", "LD_",
						  "GLIBC_TUNABLES=", "MALLOC_", "SOURCE_DATE_EPOCH=", "ASAN_", "UBSAN_", "LSAN_" };
	const char *end = strchr(text, '=');
	size_t len = end ? (size_t)(end - text) : 0;

	for (unsigned i = 0; i < ARRAY_SIZE(beginnings); i++)
		if (strncmp(text, beginnings[i], strlen(beginnings[i])) == 0)
			return true;
	return len > 6 && (memcmp(end - 6, "_proxy", 6) == 0 || memcmp(end - 6, "_PROXY", 6) == 0);
}

int context_add(struct sha256 *hash)
{
	char text[TEXT_MAX];
	int r = add_status(hash, text);

	if (r == 0)
		r = read_proc("/proc/self/cgroup", text);
	if (r < 0)
		return r;
	add_text(hash, text, strlen(text));
	if (read_proc("/proc/self/oom_score_adj", text) == 0)
		add_text(hash, text, strlen(text));
	add_limits(hash);
	for (char **at = environ; at && *at; at++)
		if (counts(*at))
			add_text(hash, *at, strlen(*at));
	return add_places(hash);
}
