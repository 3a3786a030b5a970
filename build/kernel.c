/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fetching, in the order tried:
 *
 *   1. apt's package lists as the host has them;
 *   2. lists of our own in the cache, after "apt-get update" into it: when the
 *      host never updated, or so long ago that the package is gone.
 *
 * Everything is prepared in a temporary folder under a lock, and renamed when
 * complete; "current" is written last.
 */
#include "build/kernel.h"

#include "build/archive_file.h"
#include "os/err.h"
#include "os/file.h"
#include "os/process.h"

#include <archive.h>
#include <archive_entry.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PACKAGE "linux-image-cloud-amd64" /* depends on the versioned package */
#define PACKAGE_PREFIX "linux-image-"
#define OUTPUT_MAX (1024u * 1024u) /* bytes of apt's output */
#define FILE_SIZE_MAX (512ll * 1024 * 1024) /* bytes of one file of the package */
#define ENTRIES_MAX 100000 /* files of the package */
#define STEP (256u * 1024u) /* bytes read at once */

/* ---- the .deb ---- */

/*
 * Where a file of the package goes below @into, or false when it is not wanted:
 * boot/vmlinuz-R, boot/config-R, [usr/]lib/modules/R/... with one release R.
 */
static bool choose_name(const char *name, char release[128], char ret_name[PATH_MAX])
{
	static const char vmlinuz[] = "boot/vmlinuz-", config[] = "boot/config-";
	static const char modules[] = "lib/modules/";
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

static bool has_dotdot(const char *path)
{
	for (const char *at = path; (at = strstr(at, "..")); at += 2)
		if ((at == path || at[-1] == '/') && (at[2] == '/' || at[2] == '\0'))
			return true;
	return false;
}

static int write_entry(struct archive *a, const char *path, const char *deb, struct err *err)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
	int r = 0;

	if (fd < 0)
		return err_set(err, -errno, "cannot write %s: %s", path, strerror(errno));
	if (archive_read_data_into_fd(a, fd) != ARCHIVE_OK)
		r = archive_err(err, a, deb);
	else if ((r = file_seal(fd)) < 0)
		err_set(err, r, "cannot finish %s: %s", path, strerror(-r));
	close(fd);
	return r;
}

static int unpack_entry(struct archive *a, struct archive_entry *entry, const char *deb,
			const char *into, char release[128], struct err *err)
{
	char rel[PATH_MAX], path[PATH_MAX], dir[PATH_MAX];
	const char *name = archive_entry_pathname(entry);
	int r;

	if (!name || archive_entry_filetype(entry) != AE_IFREG || archive_entry_hardlink(entry) ||
	    !choose_name(name, release, rel))
		return 0;
	if (has_dotdot(rel) || archive_entry_size(entry) > FILE_SIZE_MAX)
		return err_set(err, -EBADMSG, "%s: unreasonable file %.100s", deb, name);
	r = file_path(path, err, into, "/", rel, NULL);
	if (r == 0)
		r = file_path(dir, err, path, NULL);
	if (r < 0)
		return r;
	*strrchr(dir, '/') = '\0';
	r = file_mkdirs(dir, 0755, err);
	return r < 0 ? r : write_entry(a, path, deb, err);
}

static int unpack_data(struct archive *outer, const char *deb, const char *into, char release[128],
		       struct err *err)
{
	struct archive_entry *entry;
	int r = 0, got = ARCHIVE_OK;
	struct archive *a = archive_open_inner(outer, deb, err);

	if (!a)
		return -EBADMSG;
	for (int n = 0; r == 0 && (got = archive_read_next_header(a, &entry)) == ARCHIVE_OK; n++)
		r = n < ENTRIES_MAX ? unpack_entry(a, entry, deb, into, release, err)
				    : err_set(err, -EBADMSG, "%s: too many files", deb);
	if (r == 0 && got != ARCHIVE_EOF)
		r = archive_err(err, a, deb);
	archive_read_free(a);
	return r;
}

int kernel_unpack_deb(const char *deb, const char *into, char ret_release[128], struct err *err)
{
	struct archive *a = archive_read_new();
	struct archive_entry *entry;
	int r = -ENODATA;

	if (!a)
		return err_set(err, -ENOMEM, "out of memory for %s", deb);
	ret_release[0] = '\0';
	archive_read_support_format_ar(a);
	if (archive_read_open_filename(a, deb, STEP) != ARCHIVE_OK) {
		r = archive_err(err, a, deb);
		goto finish;
	}
	while (r == -ENODATA && archive_read_next_header(a, &entry) == ARCHIVE_OK) {
		const char *name = archive_entry_pathname(entry);

		if (name && strncmp(name, "data.tar", 8) == 0)
			r = unpack_data(a, deb, into, ret_release, err);
	}
	if (r == -ENODATA || (r == 0 && !ret_release[0]))
		r = err_set(err, -EBADMSG, "%s is not a kernel package", deb);
finish:
	archive_read_free(a);
	return r;
}

/* ---- apt ---- */

/* Which package lists apt uses: the host's, or our own by these options. */
struct apt {
	char lists[PATH_MAX + 32], cache[PATH_MAX + 32];
	char why[128];	/* the complaint of an update that failed, "" otherwise */
	bool own;
	const volatile int *cancel;
};

#define APT_ARGS_MAX 24

static const char *const apt_env[] = { "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive", NULL };

static int run_apt(const struct apt *apt, const char *tool, const char *cwd,
		   const char *const args[], struct process_result *ret, struct err *err)
{
	const char *argv[APT_ARGS_MAX];
	size_t n = 0;
	int r;

	argv[n++] = tool;
	argv[n++] = "-q";
	/* As root apt would become a user who cannot write to our folder. */
	argv[n++] = "-oAPT::Sandbox::User=root";
	argv[n++] = "-oAcquire::Retries=2";
	argv[n++] = "-oAcquire::http::Timeout=20";
	argv[n++] = "-oAcquire::https::Timeout=20";
	if (apt->own) {
		argv[n++] = apt->lists;
		argv[n++] = apt->cache;
	}
	for (; *args && n + 1 < APT_ARGS_MAX; args++)
		argv[n++] = *args;
	argv[n] = NULL;
	r = process_run(argv, cwd, apt_env, OUTPUT_MAX, apt->cancel, ret, err);
	if (r == -ENOENT)
		return err_set(err, r, "no default kernel: this host has no %s to fetch Debian's; "
			       "name a kernel with --kernel", tool);
	return r;
}

/* The line of apt's complaints that says most: why a download failed, else the last. */
static const char *pick_error(struct process_result *res)
{
	char *at = res->errors, *line = NULL;

	for (char *next; at && *at; at = next) {
		next = strchr(at, '\n');
		if (next)
			*next++ = '\0';
		if (strncmp(at, "E: ", 3) == 0)
			line = at + 3;
		if (strncmp(at, "E: Failed to fetch", 18) == 0)
			break;
	}
	return line ? line : "no reason given";
}

static int apt_failed(const struct apt *apt, struct process_result *res, struct err *err)
{
	return err_set(err, -EHOSTUNREACH, "apt cannot fetch the default kernel (%.110s): check the "
		       "network, or name a kernel with --kernel",
		       apt->why[0] ? apt->why : pick_error(res));
}

/* Finds the versioned package that PACKAGE depends on. */
static int find_package(const struct apt *apt, char ret_name[128], struct err *err)
{
	static const char *const args[] = { "show", "--no-all-versions", PACKAGE, NULL };
	struct process_result res;
	const char *at;
	size_t n = 0;
	int r = run_apt(apt, "apt-cache", NULL, args, &res, err);

	if (r < 0)
		return r;
	at = res.status == 0 ? strstr(res.out, "\nDepends: ") : NULL;
	if (at) {
		at += strlen("\nDepends: ");
		n = strspn(at, "abcdefghijklmnopqrstuvwxyz0123456789+-.");
	}
	if (n >= 128 || n == 0 || strncmp(at, PACKAGE_PREFIX, strlen(PACKAGE_PREFIX)) != 0)
		r = apt_failed(apt, &res, err);
	else {
		memcpy(ret_name, at, n);
		ret_name[n] = '\0';
	}
	free(res.out);
	return r;
}

/* Downloads the package into @dir. */
static int download(const struct apt *apt, const char *dir, struct err *err)
{
	const char *args[] = { "download", NULL, NULL };
	struct process_result res;
	char name[128];
	int r = find_package(apt, name, err);

	if (r < 0)
		return r;
	args[1] = name;
	r = run_apt(apt, "apt-get", dir, args, &res, err);
	if (r < 0)
		return r;
	if (res.status != 0)
		r = apt_failed(apt, &res, err);
	free(res.out);
	return r;
}

/* Gives @apt lists of its own in the cache and fills them. */
static int update_lists(struct apt *apt, struct err *err)
{
	static const char *const args[] = { "update", "-oAPT::Update::Error-Mode=any", NULL };
	struct process_result res;
	char dir[PATH_MAX], part[PATH_MAX];
	int r = file_cache_dir("apt/lists/partial", part, err);

	if (r == 0)
		r = file_cache_dir("apt/archives/partial", part, err);
	if (r == 0)
		r = file_cache_dir("apt", dir, err);
	if (r < 0)
		return r;
	(void)snprintf(apt->lists, sizeof(apt->lists), "-oDir::State::Lists=%s/lists", dir);
	(void)snprintf(apt->cache, sizeof(apt->cache), "-oDir::Cache=%s", dir);
	apt->own = true;
	r = run_apt(apt, "apt-get", NULL, args, &res, err);
	if (r < 0)
		return r;
	/* One source that fails is no reason to stop: the package may be in another. */
	if (res.status != 0)
		(void)snprintf(apt->why, sizeof(apt->why), "%.127s", pick_error(&res));
	free(res.out);
	return 0;
}

/* The .deb in @dir; its name without the ending identifies the kernel. */
static int find_deb(const char *dir, char ret_path[PATH_MAX], char ret_id[256], struct err *err)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	int r = -EHOSTUNREACH;

	while (d && r == -EHOSTUNREACH && (e = readdir(d))) {
		size_t len = strlen(e->d_name);

		if (len < 5 || len >= 256 || strcmp(e->d_name + len - 4, ".deb") != 0)
			continue;
		memcpy(ret_id, e->d_name, len - 4);
		ret_id[len - 4] = '\0';
		r = file_path(ret_path, err, dir, "/", e->d_name, NULL);
	}
	if (d)
		closedir(d);
	if (r == -EHOSTUNREACH)
		return err_set(err, r, "apt downloaded no package: name a kernel with --kernel");
	return r;
}

static int fetch_deb(bool refresh, const volatile int *cancel, const char *dir, struct err *err)
{
	struct apt apt = { .own = false, .cancel = cancel };
	int r = refresh ? -EHOSTUNREACH : download(&apt, dir, err);

	if (r != -EHOSTUNREACH)
		return r;
	r = update_lists(&apt, err);
	return r < 0 ? r : download(&apt, dir, err);
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
	int r = fetch_deb(refresh, cancel, temp, err);

	if (r == 0)
		r = find_deb(temp, deb, id, err);
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
