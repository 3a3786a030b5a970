/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Everything is prepared in a temporary folder under a lock, and renamed when
 * complete; "current" is written last.
 */
#include "build/kernel.h"

#include "build/apt.h"
#include "build/deb.h"
#include "os/err.h"
#include "os/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct apt_want wanted = { .package = "linux-image-cloud-amd64", .prefix = "linux-image-",
					.what = "default kernel", .otherwise = "name a kernel with --kernel" };

/* ---- the .deb ---- */

/*
 * Where a file of the package goes below @into, or false when it is not wanted:
 * boot/vmlinuz-R, boot/config-R, [usr/]lib/modules/R/... with one release R.
 */
static bool choose_name(void *ctx, const char *name, char ret_name[PATH_MAX])
{
	static const char vmlinuz[] = "boot/vmlinuz-", config[] = "boot/config-";
	static const char modules[] = "lib/modules/";
	char *release = ctx;	/* 128 bytes */
	size_t n;

	if (strncmp(name, "./", 2) == 0)
		name += 2;
	if (strncmp(name, "usr/", 4) == 0)
		name += 4;
	if (strncmp(name, vmlinuz, strlen(vmlinuz)) == 0) {
		if (strlen(name) - strlen(vmlinuz) >= 128)
			return false;
		memcpy(release, name + strlen(vmlinuz), strlen(name) - strlen(vmlinuz) + 1);
		return file_path(ret_name, NULL, "vmlinuz", NULL) == 0;
	}
	if (strncmp(name, config, strlen(config)) == 0)
		return file_path(ret_name, NULL, "config", NULL) == 0;
	if (strncmp(name, modules, strlen(modules)) != 0)
		return false;
	name += strlen(modules);
	n = strcspn(name, "/");
	if (name[n] == '\0' || name[n + 1] == '\0')
		return false;
	return file_path(ret_name, NULL, "modules", name + n, NULL) == 0;
}

int kernel_unpack_deb(const char *deb, const char *into, char ret_release[128], struct err *err)
{
	int r;

	ret_release[0] = '\0';
	r = deb_unpack(deb, into, choose_name, ret_release, err);
	return r == 0 && !ret_release[0] ? err_set(err, -EBADMSG, "%s is not a kernel package", deb) : r;
}

/* ---- the cache ---- */

static int use_folder(const char *base, const char *id, struct kernel_package *ret_kernel, struct err *err)
{
	char path[PATH_MAX], *text;
	struct stat st;
	size_t len;
	int r = file_path(ret_kernel->vmlinuz, err, base, "/", id, "/vmlinuz", NULL);

	if (r == 0)
		r = file_path(ret_kernel->modules, err, base, "/", id, "/modules", NULL);
	if (r == 0)
		r = file_path(path, err, base, "/", id, "/release", NULL);
	if (r == 0)
		r = file_read_all(path, sizeof(ret_kernel->release) - 1, &text, &len, err);
	if (r < 0)
		return r;
	memcpy(ret_kernel->release, text, len + 1);
	free(text);
	if (strlen(id) >= sizeof(ret_kernel->id) || stat(ret_kernel->vmlinuz, &st) < 0 || !file_is_sealed(&st) ||
	    access(ret_kernel->modules, R_OK) < 0)
		return -ENOENT;
	memcpy(ret_kernel->id, id, strlen(id) + 1);
	return 0;
}

/* -ENOENT: nothing usable there. */
static int use_current(const char *base, struct kernel_package *ret_kernel, struct err *err)
{
	char path[PATH_MAX], *id;
	size_t len;
	int r = file_path(path, err, base, "/current", NULL);

	if (r == 0)
		r = file_read_all(path, sizeof(ret_kernel->id) - 1, &id, &len, err);
	if (r < 0)
		return r;
	r = id[0] == '\0' || strchr(id, '/') ? -ENOENT : use_folder(base, id, ret_kernel, err);
	free(id);
	return r;
}

/* Makes what is on disk in @dir durable before it gets its final name. */
static int sync_all(const char *dir)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int r = fd < 0 || syncfs(fd) < 0 ? -errno : 0;

	if (fd >= 0)
		close(fd);
	return r;
}

/* Fetches into @temp and moves the result to its place. */
static int fetch(bool refresh, const volatile int *cancel, const char *base, const char *temp, struct err *err)
{
	char deb[PATH_MAX], id[256], tree[PATH_MAX], path[PATH_MAX], release[128];
	struct kernel_package there;
	int r = apt_fetch(&wanted, refresh, cancel, temp, deb, id, err);

	if (r == 0)
		r = file_path(tree, err, temp, "/tree", NULL);
	if (r == 0)
		r = file_mkdirs(tree, 0755, err);
	if (r == 0)
		r = kernel_unpack_deb(deb, tree, release, err);
	if (r == 0)
		r = file_path(path, err, tree, "/release", NULL);
	if (r == 0)
		r = file_write_atomic(path, release, strlen(release), 0644, err);
	if (r == 0)
		r = file_path(path, err, base, "/", id, NULL);
	if (r < 0)
		return r;
	r = sync_all(tree);
	/* There already: the newest is what we have, or it is damaged. */
	if (r == 0 && use_folder(base, id, &there, NULL) < 0) {
		r = file_remove_tree(AT_FDCWD, path);
		if (r == 0 && rename(tree, path) < 0)
			r = -errno;
	}
	if (r < 0)
		return err_set(err, r, "cannot store the kernel in %s: %s", base, strerror(-r));
	r = file_path(path, err, base, "/current", NULL);
	return r < 0 ? r : file_write_atomic(path, id, strlen(id), 0644, err);
}

static int fetch_locked(bool refresh, const volatile int *cancel, const char *base,
			struct kernel_package *ret_kernel, struct err *err)
{
	char temp[PATH_MAX], lock_path[PATH_MAX];
	int lock, r = file_path(lock_path, err, base, "/lock", NULL);

	if (r == 0)
		r = file_path(temp, err, base, "/fetching", NULL);
	if (r < 0)
		return r;
	lock = file_lock(lock_path, false, err);
	if (lock < 0)
		return lock;
	/* Another process may have fetched while we waited. */
	r = refresh ? -ENOENT : use_current(base, ret_kernel, err);
	if (r == -ENOENT) {
		/* One name for all, under the lock: the next one clears what a crash left. */
		r = file_remove_tree(AT_FDCWD, temp);
		if (r == 0)
			r = file_mkdirs(temp, 0700, err);
		if (r == 0)
			r = fetch(refresh, cancel, base, temp, err);
		(void)file_remove_tree(AT_FDCWD, temp);
		if (r == 0)
			r = use_current(base, ret_kernel, err);
	}
	close(lock);
	return r;
}

int kernel_package_get(bool refresh, const volatile int *cancel, struct kernel_package *ret_kernel,
		       struct err *err)
{
	char base[PATH_MAX];
	int r = file_cache_dir("kernels/debian-cloud-amd64", base, err);

	if (r < 0)
		return r;
	r = refresh ? -ENOENT : use_current(base, ret_kernel, err);
	return r == -ENOENT ? fetch_locked(refresh, cancel, base, ret_kernel, err) : r;
}
