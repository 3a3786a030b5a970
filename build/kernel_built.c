/* SPDX-License-Identifier: Apache-2.0 */
#include "build/kernel_built.h"

#include "os/err.h"
#include "os/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ABOUT_MAX 4096u /* bytes */
#define REMOVING ".removing" /* what a folder is called on its way out */

static bool is_id(const char *id)
{
	size_t prefix = strlen(KERNEL_ID_PREFIX), len = strlen(id);

	return len > prefix && len < KERNEL_ID_SIZE && strncmp(id, KERNEL_ID_PREFIX, prefix) == 0 &&
	       strspn(id + prefix, "0123456789abcdef") == len - prefix;
}

static int place_of(const char *id, const char *file, char ret_path[PATH_MAX], struct err *err)
{
	char base[PATH_MAX];
	int r = is_id(id) ? file_cache_dir("kernels", base, err) : -ENOENT;

	return r < 0 ? r : file_path(ret_path, err, base, "/", id, file, NULL);
}

static int current_file(char ret_path[PATH_MAX], struct err *err)
{
	char base[PATH_MAX];
	int r = file_cache_dir("kernels", base, err);

	return r < 0 ? r : file_path(ret_path, err, base, "/built", NULL);
}

/* -ENOENT: there is none. */
static int read_current(char ret_id[KERNEL_ID_SIZE], struct err *err)
{
	char path[PATH_MAX], *text;
	size_t len;
	int r = current_file(path, err);

	if (r == 0)
		r = file_read_all(path, KERNEL_ID_SIZE - 1, &text, &len, err);
	if (r < 0)
		return r == -EFBIG ? -ENOENT : r;
	memcpy(ret_id, text, len + 1);
	free(text);
	return is_id(ret_id) ? 0 : -ENOENT;
}

/* -ENOENT: not there, or not whole. */
static int check(const char *id, char ret_path[PATH_MAX], struct stat *ret_st, struct err *err)
{
	int r = place_of(id, "/vmlinux", ret_path, err);

	if (r < 0)
		return r;
	return stat(ret_path, ret_st) == 0 && file_is_sealed(ret_st) ? 0 : -ENOENT;
}

int kernel_built_current(char ret_path[PATH_MAX], struct err *err)
{
	char id[KERNEL_ID_SIZE];
	struct stat st;
	int r = read_current(id, err);

	return r < 0 ? r : check(id, ret_path, &st, err);
}

/* Copies the value of "@name: value" in @about, "" when there is none. */
static void take_line(const char *about, const char *name, char *ret, size_t size)
{
	size_t len = strlen(name), n;

	ret[0] = '\0';
	for (const char *at = about; at; at = strchr(at, '\n'), at = at ? at + 1 : NULL)
		if (strncmp(at, name, len) == 0 && strncmp(at + len, ": ", 2) == 0) {
			n = strcspn(at + len + 2, "\n");
			(void)snprintf(ret, size, "%.*s", (int)n, at + len + 2);
			return;
		}
}

int kernel_built_find(const char *id, struct kernel_built *ret_kernel, struct err *err)
{
	struct kernel_built k = { .current = false };
	char path[PATH_MAX], now[KERNEL_ID_SIZE], *about;
	struct stat st;
	size_t len;
	int r = check(id, path, &st, err);

	if (r < 0)
		return r == -ENOENT ? err_set(err, r, "there is no kernel '%.64s'; 'roux kernel ls' lists them", id) : r;
	(void)snprintf(k.id, sizeof(k.id), "%s", id);
	k.bytes = (uint64_t)st.st_size;
	k.made_s = st.st_ctim.tv_sec;	/* the other times hold the seal */
	k.current = read_current(now, NULL) == 0 && strcmp(now, id) == 0;
	r = place_of(id, "/about", path, err);
	if (r == 0 && file_read_all(path, ABOUT_MAX, &about, &len, NULL) == 0) {
		take_line(about, "source", k.source, sizeof(k.source));
		take_line(about, "features", k.features, sizeof(k.features));
		take_line(about, "compiler", k.compiler, sizeof(k.compiler));
		take_line(about, "release", k.release, sizeof(k.release));
		free(about);
	}
	if (r == 0)
		*ret_kernel = k;
	return r;
}

static int by_age(const void *a, const void *b)
{
	const struct kernel_built *x = a, *y = b;

	return x->made_s == y->made_s ? strcmp(x->id, y->id) : x->made_s < y->made_s ? 1 : -1;
}

int kernel_built_list(struct kernel_built **ret_kernels, size_t *ret_n, struct err *err)
{
	struct kernel_built *all = NULL, *more, one;
	char path[PATH_MAX];
	struct dirent *e;
	size_t n = 0;
	int r = file_cache_dir("kernels", path, err);
	DIR *dir = r < 0 ? NULL : opendir(path);

	if (r < 0)
		return r;
	if (!dir)
		return err_set(err, -errno, "cannot read %s: %s", path, strerror(errno));
	while (r == 0 && (e = readdir(dir))) {
		if (kernel_built_find(e->d_name, &one, NULL) < 0)
			continue;
		more = realloc(all, (n + 1) * sizeof(*all));
		r = more ? 0 : err_set(err, -ENOMEM, "out of memory");
		if (more) {
			all = more;
			all[n++] = one;
		}
	}
	(void)closedir(dir);
	if (r < 0) {
		free(all);
		return r;
	}
	if (n)
		qsort(all, n, sizeof(*all), by_age);
	*ret_kernels = all;
	*ret_n = n;
	return 0;
}

int kernel_built_use(const char *id, struct err *err)
{
	struct kernel_built there;
	char path[PATH_MAX];
	int r = id ? kernel_built_find(id, &there, err) : 0;

	if (r == 0)
		r = current_file(path, err);
	if (r < 0)
		return r;
	if (id)
		return file_write_atomic(path, id, strlen(id), 0644, err);
	if (unlink(path) < 0 && errno != ENOENT)
		return err_set(err, -errno, "cannot remove %s: %s", path, strerror(errno));
	return 0;
}

/* Gives the folder another name first: what is left of it after a crash is no kernel. */
static int remove_folder(const char *path)
{
	char gone[PATH_MAX];
	int r = file_path(gone, NULL, path, REMOVING, NULL);

	if (r == 0)
		r = file_remove_tree(AT_FDCWD, gone);
	if (r == 0 && rename(path, gone) < 0)
		r = errno == ENOENT ? 0 : -errno;
	return r < 0 ? r : file_remove_tree(AT_FDCWD, gone);
}

int kernel_built_remove(const char *id, struct err *err)
{
	struct kernel_built there;
	char path[PATH_MAX];
	int r = kernel_built_find(id, &there, err);

	if (r == 0 && there.current)
		r = kernel_built_use(NULL, err);
	if (r == 0)
		r = place_of(id, "", path, err);
	if (r < 0)
		return r;
	r = remove_folder(path);
	return r < 0 ? err_set(err, r, "cannot remove %s: %s", path, strerror(-r)) : 0;
}

static int write_about(const char *dir, const struct kernel_built *kernel, struct err *err)
{
	char path[PATH_MAX], text[ABOUT_MAX];
	int n = snprintf(text, sizeof(text), "source: %s\nfeatures: %s\ncompiler: %s\nrelease: %s\n", kernel->source,
			 kernel->features, kernel->compiler, kernel->release);
	int r = file_path(path, err, dir, "/about", NULL);

	return r < 0 ? r : file_write_atomic(path, text, (size_t)n, 0644, err);
}

static int seal(const char *dir, struct err *err)
{
	char path[PATH_MAX];
	int fd, r = file_path(path, err, dir, "/vmlinux", NULL);

	if (r < 0)
		return r;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	r = fd < 0 || fchmod(fd, 0444) < 0 ? -errno : file_seal(fd);
	if (r == 0 && syncfs(fd) < 0)
		r = -errno;
	if (fd >= 0)
		(void)close(fd);
	return r < 0 ? err_set(err, r, "cannot finish %s: %s", path, strerror(-r)) : 0;
}

int kernel_built_put(const char *dir, const struct kernel_built *kernel, struct err *err)
{
	char path[PATH_MAX];
	int r = place_of(kernel->id, "", path, err);

	if (r == 0)
		r = write_about(dir, kernel, err);
	if (r == 0)
		r = seal(dir, err);
	if (r < 0)
		return r;
	r = remove_folder(path);	/* of a damaged one */
	if (r == 0 && rename(dir, path) < 0)
		r = -errno;
	return r < 0 ? err_set(err, r, "cannot store the kernel in %s: %s", path, strerror(-r)) : 0;
}
