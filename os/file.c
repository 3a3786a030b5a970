/* SPDX-License-Identifier: Apache-2.0 */
#include "os/file.h"

#include "os/err.h"
#include "os/folders.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define READ_STEP 65536u /* bytes; first guess for files without a size, as in /proc */

int file_path(char ret_path[PATH_MAX], struct err *err, const char *part, ...)
{
	size_t len = 0;
	va_list ap;

	va_start(ap, part);
	for (; part; part = va_arg(ap, const char *)) {
		size_t n = strlen(part);

		if (n >= PATH_MAX - len) {
			va_end(ap);
			return err_set(err, -ENAMETOOLONG, "path is longer than %d bytes: %.80s...",
				       PATH_MAX - 1, ret_path);
		}
		memcpy(ret_path + len, part, n + 1);
		len += n;
	}
	va_end(ap);
	return 0;
}

int file_write_all(int fd, const void *data, size_t len)
{
	const char *at = data;

	while (len) {
		ssize_t n = write(fd, at, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		at += n;
		len -= (size_t)n;
	}
	return 0;
}

int file_write_at(int fd, const void *data, size_t len, uint64_t off)
{
	const char *at = data;

	while (len) {
		ssize_t n = pwrite(fd, at, len, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		at += n;
		off += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

ssize_t file_read_at(int fd, void *to, size_t len, uint64_t off)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = pread(fd, (char *)to + done, len - done, (off_t)(off + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

/* Folder part of @path; "." when it has none. */
static void parent_of(const char *path, char ret_dir[PATH_MAX])
{
	const char *slash = strrchr(path, '/');
	size_t len = slash ? (size_t)(slash - path) : 0;

	if (!slash)
		memcpy(ret_dir, ".", 2);
	else if (len == 0)
		memcpy(ret_dir, "/", 2);
	else {
		memcpy(ret_dir, path, len);
		ret_dir[len] = '\0';
	}
}

int file_sync_dir(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int r;

	if (fd < 0)
		return -errno;
	/* Some file systems have no fsync for folders: nothing is lost by that. */
	r = fsync(fd) < 0 && errno != EINVAL ? -errno : 0;
	close(fd);
	return r;
}

/* Where there is no room or no right to write, another cache is the way out. */
static int cannot_write(const char *path, int r, struct err *err)
{
	const char *advice = "";

	if (r == -ENOSPC || r == -EDQUOT)
		advice = ": free some, or set ROUX_CACHE to a larger disk";
	else if (r == -EACCES || r == -EPERM || r == -EROFS)
		advice = ": set ROUX_CACHE to a folder you may write";
	return err_set(err, r, "cannot write %.120s: %s%s", path, strerror(-r), advice);
}

/* Of a file without a name that @path may get: -EOPNOTSUPP where the file system or the missing /proc forbids it. */
static int open_nameless(const char *path)
{
	char dir[PATH_MAX];
	int fd;

	if (access("/proc/self/fd", X_OK) < 0)
		return -EOPNOTSUPP;
	parent_of(path, dir);
	fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	/* Kernels and file systems that do not know it take it for opening a folder. */
	return fd >= 0 ? fd : errno == EISDIR || errno == EINVAL ? -EOPNOTSUPP : -errno;
}

int file_new_begin(struct file_new *file, const char *path, mode_t mode, struct err *err)
{
	int r;

	file->fd = -1;
	file->temp[0] = '\0';
	r = file_path(file->path, err, path, NULL);
	if (r < 0)
		return r;
	file->fd = open_nameless(path);
	if (file->fd == -EOPNOTSUPP) {
		r = file_path(file->temp, err, path, ".new-XXXXXX", NULL);
		if (r < 0)
			return r;
		file->fd = mkostemp(file->temp, O_CLOEXEC);
		if (file->fd < 0)
			file->fd = -errno;
	}
	if (file->fd < 0)
		return cannot_write(path, file->fd, err);
	if (fchmod(file->fd, mode) < 0) {
		r = err_set(err, -errno, "cannot set permissions of %s: %s", path, strerror(errno));
		file_new_abort(file);
		return r;
	}
	return 0;
}

int file_scratch(const char *path, struct err *err)
{
	struct file_new file;
	int r = file_new_begin(&file, path, 0600, err);

	if (r < 0)
		return r;
	if (file.temp[0])
		(void)unlink(file.temp);
	return file.fd;
}

int file_new_begin_locked(struct file_new *file, const char *path, mode_t mode, struct err *err)
{
	int r;

	file->fd = -1;
	r = file_path(file->path, err, path, NULL);
	if (r == 0)
		r = file_path(file->temp, err, path, ".new", NULL);
	if (r < 0)
		return r;
	file->fd = open(file->temp, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, mode);
	return file->fd < 0 ? cannot_write(path, -errno, err) : 0;
}

/* Names a file that has none: what it is to become, or beside that where there is an old one to be replaced. */
static int name_it(struct file_new *file)
{
	char from[32];
	const char *name = file->path;

	(void)snprintf(from, sizeof(from), "/proc/self/fd/%d", file->fd);
	while (linkat(AT_FDCWD, from, AT_FDCWD, name, AT_SYMLINK_FOLLOW) < 0) {
		unsigned n;
		int r;

		if (errno != EEXIST)
			return -errno;
		if (getrandom(&n, sizeof(n), 0) < 0)
			return -errno;
		r = snprintf(file->temp, sizeof(file->temp), "%s.new-%08x", file->path, n);
		if (r < 0 || (size_t)r >= sizeof(file->temp)) {
			file->temp[0] = '\0';
			return -ENAMETOOLONG;
		}
		name = file->temp;
	}
	return 0;
}

int file_new_commit(struct file_new *file, struct err *err)
{
	char dir[PATH_MAX];
	int r = fsync(file->fd) < 0 ? -errno : 0;

	if (r == 0 && !file->temp[0])
		r = name_it(file);
	if (r == 0 && file->temp[0] && rename(file->temp, file->path) < 0)
		r = -errno;
	if (r < 0) {
		file_new_abort(file);
		return cannot_write(file->path, r, err);
	}
	close(file->fd);
	file->fd = -1;
	parent_of(file->path, dir);
	r = file_sync_dir(dir);
	return r < 0 ? err_set(err, r, "cannot make %s durable: %s", file->path, strerror(-r)) : 0;
}

void file_new_abort(struct file_new *file)
{
	if (file->fd < 0)
		return;
	close(file->fd);
	file->fd = -1;
	if (file->temp[0])
		(void)unlink(file->temp);
}

/* In the first hour of 1970, to the nanosecond that the size says. */
static struct timespec seal_time(off_t size)
{
	return (struct timespec){ .tv_sec = 1 + (long)(size / 1000000000 % 3600), .tv_nsec = (long)(size % 1000000000) };
}

int file_seal(int fd)
{
	struct stat st;
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT } };

	if (fstat(fd, &st) < 0)
		return -errno;
	times[1] = seal_time(st.st_size);
	return futimens(fd, times) < 0 ? -errno : 0;
}

bool file_is_sealed(const struct stat *st)
{
	struct timespec want = seal_time(st->st_size);

	return S_ISREG(st->st_mode) && st->st_mtim.tv_sec == want.tv_sec && st->st_mtim.tv_nsec == want.tv_nsec;
}

static int write_file(const char *path, const void *data, size_t len, mode_t mode, bool seal, struct err *err)
{
	struct file_new file;
	int r = file_new_begin(&file, path, mode, err);

	if (r < 0)
		return r;
	r = file_write_all(file.fd, data, len);
	if (r == 0 && seal)
		r = file_seal(file.fd);
	if (r < 0) {
		file_new_abort(&file);
		return cannot_write(path, r, err);
	}
	return file_new_commit(&file, err);
}

int file_write_atomic(const char *path, const void *data, size_t len, mode_t mode, struct err *err)
{
	return write_file(path, data, len, mode, false, err);
}

int file_write_sealed(const char *path, const void *data, size_t len, mode_t mode, struct err *err)
{
	return write_file(path, data, len, mode, true, err);
}

/* Reads to the end into memory that grows.  The caller frees *data in any case. */
static int read_fd(int fd, size_t max, size_t guess, char **data, size_t *len)
{
	size_t cap = 0;

	for (;;) {
		ssize_t n;

		if (cap - *len < 2) {
			size_t want = cap ? cap * 2 : guess + 2;
			char *more = realloc(*data, want);

			if (!more)
				return -ENOMEM;
			*data = more;
			cap = want;
		}
		n = read(fd, *data + *len, cap - *len - 1);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		*len += (size_t)n;
		if (*len > max)
			return -EFBIG;
	}
	(*data)[*len] = '\0';
	return 0;
}

int file_read_all(const char *path, size_t max, char **ret_data, size_t *ret_len,
		  struct err *err)
{
	char *data = NULL;
	size_t len = 0;
	struct stat st;
	int r, fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 && errno == ENOENT)
		return -ENOENT;
	if (fd < 0)
		return err_set(err, -errno, "cannot open %s: %s", path, strerror(errno));
	if (fstat(fd, &st) < 0)
		r = -errno;
	else if (S_ISREG(st.st_mode) && (uint64_t)st.st_size > max)
		r = -EFBIG;
	else
		r = read_fd(fd, max, S_ISREG(st.st_mode) && st.st_size ? (size_t)st.st_size : READ_STEP,
			    &data, &len);
	close(fd);
	if (r < 0) {
		free(data);
		if (r == -EFBIG)
			return err_set(err, r, "%s is larger than the %zu bytes allowed", path, max);
		return err_set(err, r, "cannot read %s: %s", path, strerror(-r));
	}
	*ret_data = data;
	*ret_len = len;
	return 0;
}

int file_mkdirs(const char *path, mode_t mode, struct err *err)
{
	char part[PATH_MAX];
	size_t len = strlen(path);
	struct stat st;
	int r = file_path(part, err, path, NULL);

	if (r < 0)
		return r;
	if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))	/* as mostly */
		return 0;
	for (size_t i = 1; i <= len; i++) {
		if (path[i] != '/' && path[i] != '\0')
			continue;
		part[i] = '\0';
		if (mkdir(part, mode) < 0 && errno != EEXIST) {
			r = -errno;
			if (stat(part, &st) < 0)
				return err_set(err, r, "cannot make folder %s: %s", part, strerror(-r));
		}
		part[i] = path[i];
	}
	if (stat(path, &st) < 0)
		return err_set(err, -errno, "cannot use folder %s: %s", path, strerror(errno));
	if (!S_ISDIR(st.st_mode))
		return err_set(err, -ENOTDIR, "%s is not a folder: move it away", path);
	return 0;
}

static int remove_entries(int dirfd, dev_t dev);

/* One entry.  @dev guards mount points: what is mounted below is not ours. */
static int remove_entry(int dirfd, const char *name, dev_t dev)
{
	struct stat st;
	int fd, r;

	if (unlinkat(dirfd, name, 0) == 0 || errno == ENOENT)
		return 0;
	if (errno != EISDIR && errno != EPERM && errno != EACCES)
		return -errno;
	r = -errno;
	fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 && errno == EACCES && fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	    S_ISDIR(st.st_mode) && fchmodat(dirfd, name, 0700, 0) == 0)
		/* An image may have folders that not even their owner can read. */
		fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOTDIR ? r : -errno;
	if (fstat(fd, &st) < 0)
		r = -errno;
	else if (dev && st.st_dev != dev)
		r = -EXDEV;
	else {
		if ((st.st_mode & 0700) != 0700)
			(void)fchmod(fd, 0700);
		r = remove_entries(fd, st.st_dev);
	}
	close(fd);
	if (r == 0 && unlinkat(dirfd, name, AT_REMOVEDIR) < 0 && errno != ENOENT)
		r = -errno;
	return r;
}

static int remove_entries(int dirfd, dev_t dev)
{
	int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;
	int r = 0;

	if (!dir) {
		r = -errno;
		if (fd >= 0)
			close(fd);
		return r;
	}
	while (r == 0 && (e = readdir(dir)))
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			r = remove_entry(fd, e->d_name, dev);
	closedir(dir);
	return r;
}

int file_remove_tree(int dirfd, const char *name)
{
	return remove_entry(dirfd, name, 0);
}

int file_cache_dir(const char *sub, char ret_path[PATH_MAX], struct err *err)
{
	char base[PATH_MAX];
	int r = folder_cache(base, sizeof(base), err);

	if (r == 0)
		r = file_path(ret_path, err, base, "/", sub, NULL);
	if (r < 0)
		return r;
	r = file_mkdirs(ret_path, 0700, err);
	return r < 0 ? err_prefix(err, r, "set ROUX_CACHE to a folder you may write") : 0;
}

int file_lock(const char *path, bool try_only, struct err *err)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	int r;

	if (fd < 0)
		return err_set(err, -errno, "cannot open lock %s: %s", path, strerror(errno));
	do
		r = flock(fd, LOCK_EX | (try_only ? LOCK_NB : 0));
	while (r < 0 && errno == EINTR);
	if (r == 0)
		return fd;
	r = -errno;
	close(fd);
	if (r == -EWOULDBLOCK)
		return r;
	return err_set(err, r, "cannot lock %s: %s", path, strerror(-r));
}
