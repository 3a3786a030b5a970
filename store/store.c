/* SPDX-License-Identifier: Apache-2.0 */
/* Place, lock, quota and objects as a whole; the parts are in the files beside this one. */
#include "store/private.h"

#include "os/err.h"
#include "os/file.h"
#include "os/folders.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define FORMAT "1\n"
#define STEP 65536u /* bytes read at once */

/* ---- place ---- */

static int make_folders(struct store *store, struct err *err)
{
	static const char *const folders[] = { "/blobs/sha256", "/refs", "/leases", "/partial", "/temp" };
	char path[PATH_MAX];
	int r = 0;

	for (size_t i = 0; r == 0 && i < sizeof(folders) / sizeof(folders[0]); i++) {
		r = file_path(path, err, store->path, folders[i], NULL);
		if (r == 0)
			r = file_mkdirs(path, 0700, err);
	}
	return r;
}

static int check_format(struct store *store, struct err *err)
{
	char path[PATH_MAX], *text;
	size_t len;
	int r = file_path(path, err, store->path, "/format", NULL);

	if (r == 0)
		r = file_read_all(path, 16, &text, &len, err);
	if (r == -ENOENT) {
		r = make_folders(store, err);
		return r < 0 ? r : file_write_atomic(path, FORMAT, strlen(FORMAT), 0644, err);
	}
	if (r < 0)
		return r;
	if (strcmp(text, FORMAT) != 0)
		r = err_set(err, -ENOTSUP, "the store has format %.*s, and this roux knows format 1: use the "
			    "roux that made it, or set ROUX_STORE to another folder", (int)strcspn(text, "\n"), text);
	free(text);
	return r;
}

int store_open(const char *path, struct store **ret_store, struct err *err)
{
	struct store *store = calloc(1, sizeof(*store));
	int r;

	if (!store)
		return err_set(err, -ENOMEM, "out of memory for the store");
	r = path ? file_path(store->path, err, path, NULL) : folder_data(store->path, sizeof(store->path), err);
	if (r == 0)
		r = check_format(store, err);
	if (r < 0) {
		if (r == -EACCES || r == -EPERM || r == -EROFS)
			err_prefix(err, r, "set ROUX_STORE to a folder you may write");
		free(store);
		return r;
	}
	*ret_store = store;
	return 0;
}

void store_close(struct store *store)
{
	free(store);
}

const char *store_path(const struct store *store)
{
	return store->path;
}

bool store_digest_ok(const char *text)
{
	return strncmp(text, "sha256:", 7) == 0 && strlen(text) == STORE_DIGEST_SIZE - 1 &&
	       strspn(text + 7, "0123456789abcdef") == HEX_LEN;
}

void store_digest(const void *data, size_t len, char ret_digest[STORE_DIGEST_SIZE])
{
	struct sha256 hash;

	sha256_init(&hash);
	sha256_add(&hash, data, len);
	store_digest_finish(&hash, ret_digest);
}

void store_digest_finish(struct sha256 *hash, char ret_digest[STORE_DIGEST_SIZE])
{
	memcpy(ret_digest, "sha256:", 7);
	sha256_finish_hex(hash, ret_digest + 7);
}

/* ---- locks ---- */

int store_lock(struct store *store, bool exclusive, struct err *err)
{
	char path[PATH_MAX];
	int fd, r = file_path(path, err, store->path, "/lock", NULL);

	if (r < 0)
		return r;
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return err_set(err, -errno, "cannot open %s: %s", path, strerror(errno));
	while (flock(fd, exclusive ? LOCK_EX : LOCK_SH) < 0)
		if (errno != EINTR) {
			r = err_set(err, -errno, "cannot lock %s: %s", path, strerror(errno));
			close(fd);
			return r;
		}
	return fd;
}

bool store_is_at(int fd, const char *path)
{
	struct stat mine, there;

	return fstat(fd, &mine) == 0 && stat(path, &there) == 0 && mine.st_dev == there.st_dev &&
	       mine.st_ino == there.st_ino;
}

int store_open_folder(struct store *store, const char *sub, DIR **ret_dir, struct err *err)
{
	char path[PATH_MAX];
	int r = file_path(path, err, store->path, "/", sub, NULL);

	if (r < 0)
		return r;
	*ret_dir = opendir(path);
	return *ret_dir ? 0 : err_set(err, -errno, "cannot read %s: %s", path, strerror(errno));
}

int store_try_lock(DIR *dir, const char *name)
{
	int fd = openat(dirfd(dir), name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

	if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) == 0)
		return fd;
	close(fd);
	return -1;
}

int store_no_room(struct err *err, int r, const char *what)
{
	const char *advice = "";

	if (r == -ENOSPC || r == -EDQUOT)
		advice = ": 'roux store gc' or 'roux rmi' frees some, and ROUX_STORE chooses another disk";
	return err_set(err, r, "cannot write %.100s: %s%s", what, strerror(-r), advice);
}

int store_new_file(struct store *store, const char *dir, char ret_path[PATH_MAX], struct err *err)
{
	int fd, lock, r = file_path(ret_path, err, store->path, "/", dir, "/XXXXXX", NULL);

	if (r < 0)
		return r;
	lock = store_lock(store, false, err);
	if (lock < 0)
		return lock;
	fd = mkostemp(ret_path, O_CLOEXEC);
	if (fd < 0)
		r = store_no_room(err, -errno, store->path);
	else if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		r = err_set(err, -errno, "cannot lock %s: %s", ret_path, strerror(errno));
		(void)unlink(ret_path);
		close(fd);
	}
	close(lock);
	return r < 0 ? r : fd;
}

/* ---- reading ---- */

int store_object_path(struct store *store, const char *digest, char ret_path[PATH_MAX],
		      struct err *err)
{
	if (!store_digest_ok(digest))
		return err_set(err, -EINVAL, "'%.80s' is not a digest: it is sha256: and 64 digits", digest);
	return file_path(ret_path, err, store->path, "/blobs/sha256/", digest + 7, NULL);
}

int store_size(struct store *store, const char *digest, uint64_t *ret_size, struct err *err)
{
	char path[PATH_MAX];
	struct stat st;
	int r = store_object_path(store, digest, path, err);

	if (r < 0)
		return r;
	if (stat(path, &st) < 0)
		return errno == ENOENT ? -ENOENT : err_set(err, -errno, "cannot look at %s: %s", path, strerror(errno));
	*ret_size = (uint64_t)st.st_size;
	return 0;
}

int store_open_object(struct store *store, const char *digest, struct err *err)
{
	char path[PATH_MAX];
	int fd, r = store_object_path(store, digest, path, err);

	if (r < 0)
		return r;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return errno == ENOENT ? -ENOENT : err_set(err, -errno, "cannot open %s: %s", path, strerror(errno));
	return fd;
}

static int damaged(struct err *err, const char *digest)
{
	return err_set(err, -EBADMSG, "object %.19s... of the store is damaged: 'roux store verify --remove' "
		       "removes it, and then pull the image again", digest);
}

int store_read(struct store *store, const char *digest, size_t max, char **ret_data,
	       size_t *ret_len, struct err *err)
{
	char path[PATH_MAX], have[STORE_DIGEST_SIZE];
	int r = store_object_path(store, digest, path, err);

	if (r == 0)
		r = file_read_all(path, max, ret_data, ret_len, err);
	if (r < 0)
		return r;
	store_digest(*ret_data, *ret_len, have);
	if (strcmp(have, digest) == 0)
		return 0;
	free(*ret_data);
	return damaged(err, digest);
}

int store_hash(int fd, struct sha256 *hash)
{
	uint8_t buf[STEP];
	ssize_t n;

	while ((n = read(fd, buf, sizeof(buf))) > 0 || (n < 0 && errno == EINTR))
		if (n > 0)
			sha256_add(hash, buf, (size_t)n);
	return n < 0 ? -errno : 0;
}

int store_verify(struct store *store, const char *digest, bool remove, struct err *err)
{
	char path[PATH_MAX], have[STORE_DIGEST_SIZE];
	struct sha256 hash;
	int lock, r, fd = store_open_object(store, digest, err);

	if (fd < 0)
		return fd;
	sha256_init(&hash);
	r = store_hash(fd, &hash);
	store_digest_finish(&hash, have);
	if (r < 0)	/* a disk that cannot be read has lost the object as well */
		r = err_set(err, -EBADMSG, "cannot read it: %s", strerror(-r));
	else if (strcmp(have, digest) != 0)
		r = damaged(err, digest);
	if (r == -EBADMSG && remove) {
		lock = store_lock(store, true, NULL);
		/* Only this file: a good one may have come in its place. */
		if (lock >= 0 && store_object_path(store, digest, path, NULL) == 0 && store_is_at(fd, path))
			(void)unlink(path);
		if (lock >= 0)
			close(lock);
	}
	close(fd);
	return r;
}

/* ---- quota ---- */

int store_quota_get(struct store *store, uint64_t *ret_bytes, struct err *err)
{
	char path[PATH_MAX], *text, *end;
	size_t len;
	int r = file_path(path, err, store->path, "/quota", NULL);

	*ret_bytes = 0;
	if (r == 0)
		r = file_read_all(path, 64, &text, &len, err);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	errno = 0;
	*ret_bytes = strtoull(text, &end, 10);
	if (end == text || strcmp(end, "\n") != 0 || errno)
		r = err_set(err, -EBADMSG, "%s is damaged: set it again with 'roux store quota SIZE'", path);
	free(text);
	return r;
}

int store_quota_set(struct store *store, uint64_t bytes, struct err *err)
{
	char path[PATH_MAX], text[32];
	int n = snprintf(text, sizeof(text), "%" PRIu64 "\n", bytes);
	int r = file_path(path, err, store->path, "/quota", NULL);

	return r < 0 ? r : file_write_atomic(path, text, (size_t)n, 0644, err);
}

int store_measure(struct store *store, const char *sub, bool unlocked, uint64_t *ret_bytes,
		  uint64_t *ret_count, struct err *err)
{
	struct dirent *e;
	struct stat st;
	DIR *dir;
	int r = store_open_folder(store, sub, &dir, err);

	*ret_bytes = *ret_count = 0;
	if (r < 0)
		return r;
	while ((e = readdir(dir))) {
		if (e->d_name[0] == '.' || fstatat(dirfd(dir), e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		if (unlocked) {
			int fd = store_try_lock(dir, e->d_name);

			if (fd < 0)
				continue;
			close(fd);
		}
		*ret_bytes += (uint64_t)st.st_size;
		++*ret_count;
	}
	closedir(dir);
	return 0;
}
