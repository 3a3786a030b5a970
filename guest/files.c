/* SPDX-License-Identifier: Apache-2.0 */
#include "guest/files.h"

#include "abi/agent.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

ssize_t file_read(const char *path, char *buf, size_t cap)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t len = 0;
	ssize_t n = 0;

	if (fd < 0)
		return -1;
	while (len < cap && (n = read(fd, buf + len, cap - len)) > 0)
		len += (size_t)n;
	close(fd);
	return n < 0 ? -1 : (ssize_t)len;
}

int file_mkdirs(const char *path, mode_t mode)
{
	char part[PATH_MAX];
	size_t len = strlen(path);

	if (len >= sizeof(part)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	memcpy(part, path, len + 1);
	for (size_t i = 1; i <= len; i++) {
		if (path[i] != '/' && path[i] != '\0')
			continue;
		part[i] = '\0';
		if (mkdir(part, mode) < 0 && errno != EEXIST) {
			int error = errno;
			struct stat st;

			/* A read-only root says EROFS before it says EEXIST. */
			if (stat(part, &st) < 0 || !S_ISDIR(st.st_mode)) {
				errno = error;
				return -1;
			}
		}
		part[i] = path[i];
	}
	return 0;
}

int file_put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -1;
	n = write(fd, text, strlen(text));
	close(fd);
	return n < 0 ? -1 : 0;
}

int file_set_oom_score(const char *score)
{
	return file_put("/proc/self/oom_score_adj", score);
}

/* A file can only be bound over a file: makes an empty one at @target. */
static int make_file_target(const char *target)
{
	char dir[PATH_MAX];
	size_t len = strlen(target);
	int fd;

	if (len >= sizeof(dir)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	memcpy(dir, target, len + 1);
	*strrchr(dir, '/') = '\0';
	if (dir[0] && file_mkdirs(dir, 0755) < 0)
		return -1;
	fd = open(target, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	if (fd < 0)
		return errno == EROFS && access(target, F_OK) == 0 ? 0 : -1;
	close(fd);
	return 0;
}

static int make_target(const struct mount_request *req, bool bind)
{
	struct stat st;

	if (bind && stat(req->source, &st) < 0)
		return -1;
	if (bind && !S_ISDIR(st.st_mode))
		return make_file_target(req->target);
	return file_mkdirs(req->target, 0755);
}

int file_mount(const struct mount_request *req)
{
	bool bind = strcmp(req->type, "bind") == 0;
	unsigned long flags = 0;

	if (req->flags & AGENT_MOUNT_RDONLY)
		flags |= MS_RDONLY;
	if (req->flags & AGENT_MOUNT_NOSUID)
		flags |= MS_NOSUID;
	if (req->flags & AGENT_MOUNT_NODEV)
		flags |= MS_NODEV;
	if (req->flags & AGENT_MOUNT_NOEXEC)
		flags |= MS_NOEXEC;

	if (make_target(req, bind) < 0)
		return -1;
	if (!bind)
		return mount(req->source, req->target, req->type, flags, req->options);
	if (mount(req->source, req->target, NULL, MS_BIND | MS_REC, NULL) < 0)
		return -1;
	/* The kernel takes flags of a bind mount only in a second step. */
	if (flags && mount(NULL, req->target, NULL, MS_REMOUNT | MS_BIND | flags, NULL) < 0) {
		int error = errno;

		(void)umount2(req->target, MNT_DETACH);
		errno = error;
		return -1;
	}
	return 0;
}
