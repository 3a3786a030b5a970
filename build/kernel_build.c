/* SPDX-License-Identifier: Apache-2.0 */
#include "build/kernel_build.h"

#include "base/checked.h"
#include "base/sha256.h"
#include "build/apt.h"
#include "build/archive_file.h"
#include "build/deb.h"
#include "build/kernel_config.h"
#include "os/err.h"
#include "os/file.h"
#include "os/process.h"

#include <archive.h>
#include <archive_entry.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FORMAT "roux kernel 1" /* changes whenever equal inputs give another kernel */
#define ID_DIGITS 12
#define OUTPUT_MAX (16u * 1024u * 1024u) /* bytes that a program prints */
#define CONFIG_MAX (4u * 1024u * 1024u) /* bytes of a .config */
#define STEP (256u * 1024u) /* bytes read at once */
#define ENTRIES_MAX 1000000 /* files of the source */
#define BUILDING "building-" /* how the folders of builds at work begin */

static const struct apt_want wanted = { .package = "linux-source", .prefix = "linux-source-",
					.what = "source of the kernel",
					.otherwise = "build on a Debian host that has apt and its repositories" };

struct build {
	const struct kernel_build_options *opt;
	struct kernel_built kernel;	/* what it will be */
	char *config, *features;	/* owned */
	char base[PATH_MAX];	/* <cache>/kernels */
	char source[PATH_MAX];	/* the archive */
	char temp[PATH_MAX];	/* the folder of this build */
	char tree[PATH_MAX];	/* the unpacked source in it */
};

static void say(const struct build *b, const char *line)
{
	if (b->opt->say)
		b->opt->say(b->opt->ctx, line);
}

/* Runs a program to its end; -EIO when it fails. */
static int run(const struct build *b, const char *const argv[], const char *cwd, const char *const env[],
	       struct process_result *ret, struct err *err)
{
	int r = process_run(argv, cwd, env, OUTPUT_MAX, b->opt->cancel, ret, err);

	if (r == 0 && ret->status != 0) {
		free(ret->out);
		ret->out = NULL;
		r = -EIO;
	}
	return r;
}

/* ---- what the host has ---- */

/* Programs that "make vmlinux" runs, and Debian's packages with them. */
static const struct {
	const char *argv[8];
	const char *package;
} tools[] = {
	{ { "gcc", "--version", NULL }, "gcc" },
	{ { "ld", "--version", NULL }, "binutils" },
	{ { "make", "--version", NULL }, "make" },
	{ { "flex", "--version", NULL }, "flex" },
	{ { "bison", "--version", NULL }, "bison" },
	{ { "bc", "--version", NULL }, "bc" },
	{ { "gcc", "-E", "-include", "gelf.h", "-xc", "/dev/null", NULL }, "libelf-dev" },
};

/* The first line of what the compiler calls itself is part of the kernel's ID. */
static void take_compiler(struct build *b, const char *version)
{
	(void)snprintf(b->kernel.compiler, sizeof(b->kernel.compiler), "%.*s", (int)strcspn(version, "\n"), version);
}

static int check_tools(struct build *b, struct err *err)
{
	struct process_result res;
	char missing[128] = "";
	size_t len = 0;

	for (size_t i = 0; i < ARRAY_SIZE(tools); i++) {
		int r = run(b, tools[i].argv, NULL, NULL, &res, err);

		if (r == 0) {
			if (i == 0)
				take_compiler(b, res.out);
			free(res.out);
		} else if (r == -ENOENT || r == -EIO) {
			len += (size_t)snprintf(missing + len, sizeof(missing) - len, " %s", tools[i].package);
		} else {
			return r;
		}
	}
	if (missing[0])
		return err_set(err, -ENOENT, "building a kernel needs programs that are not here: apt-get install%s", missing);
	return 0;
}

/* ---- the source ---- */

/* usr/src/linux-source-VERSION.tar.xz */
static bool choose_source(void *ctx, const char *name, char ret_rel[PATH_MAX])
{
	size_t len = strlen(name);

	return strstr(name, "usr/src/linux-source-") && len > 7 && strcmp(name + len - 7, ".tar.xz") == 0 &&
	       file_path(ret_rel, NULL, "source.tar.xz", NULL) == 0;
}

/* The source that was fetched last; -ENOENT: none. */
static int use_source(struct build *b, const char *dir, struct err *err)
{
	char path[PATH_MAX], *id;
	struct stat st;
	size_t len;
	int r = file_path(path, err, dir, "/current", NULL);

	if (r == 0)
		r = file_read_all(path, sizeof(b->kernel.source) - 1, &id, &len, err);
	if (r < 0)
		return r;
	memcpy(b->kernel.source, id, len + 1);
	free(id);
	if (!len || strchr(b->kernel.source, '/'))
		return -ENOENT;
	r = file_path(b->source, err, dir, "/", b->kernel.source, ".tar.xz", NULL);
	if (r < 0)
		return r;
	return stat(b->source, &st) == 0 && file_is_sealed(&st) ? 0 : -ENOENT;
}

/* Removes archives of other sources. */
static void drop_sources(const char *dir, const char *keep)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	size_t len = strlen(keep);

	while (d && (e = readdir(d))) {
		size_t n = strlen(e->d_name);

		if (n > 7 && strcmp(e->d_name + n - 7, ".tar.xz") == 0 && (n != len + 7 || strncmp(e->d_name, keep, len) != 0))
			(void)unlinkat(dirfd(d), e->d_name, 0);
	}
	if (d)
		(void)closedir(d);
}

static int fetch_source(struct build *b, const char *dir, const char *temp, struct err *err)
{
	char deb[PATH_MAX], id[256], from[PATH_MAX], to[PATH_MAX], current[PATH_MAX];
	int r;

	say(b, "fetching Debian's linux-source (some 140 MB)");
	r = apt_fetch(&wanted, b->opt->refresh, b->opt->cancel, temp, deb, id, err);
	if (r == 0)
		r = deb_unpack(deb, temp, choose_source, NULL, err);
	if (r == 0)
		r = file_path(from, err, temp, "/source.tar.xz", NULL);
	if (r == 0)
		r = file_path(to, err, dir, "/", id, ".tar.xz", NULL);
	if (r == 0)
		r = file_path(current, err, dir, "/current", NULL);
	if (r < 0)
		return r;
	if (rename(from, to) < 0)
		return err_set(err, errno == ENOENT ? -EBADMSG : -errno, "%s has no source of a kernel", id);
	drop_sources(dir, id);
	return file_write_atomic(current, id, strlen(id), 0644, err);
}

static int get_source(struct build *b, struct err *err)
{
	char dir[PATH_MAX], temp[PATH_MAX], lock_path[PATH_MAX];
	int lock, r = file_cache_dir("kernels/linux-source", dir, err);

	if (r == 0)
		r = file_path(temp, err, dir, "/fetching", NULL);
	if (r == 0)
		r = file_path(lock_path, err, dir, "/lock", NULL);
	if (r < 0)
		return r;
	lock = file_lock(lock_path, false, err);
	if (lock < 0)
		return lock;
	r = b->opt->refresh ? -ENOENT : use_source(b, dir, err);
	if (r == -ENOENT) {
		r = file_remove_tree(AT_FDCWD, temp);
		if (r == 0)
			r = file_mkdirs(temp, 0700, err);
		if (r == 0)
			r = fetch_source(b, dir, temp, err);
		(void)file_remove_tree(AT_FDCWD, temp);
		if (r == 0)
			r = use_source(b, dir, err);
	}
	(void)close(lock);
	return r;
}

/* Where an entry of the source goes: its first folder, whatever it is called, is our tree. */
static int place_entry(const struct build *b, struct archive_entry *e, struct err *err)
{
	const char *name = archive_entry_pathname(e), *rest = name ? strchr(name, '/') : NULL;
	char path[PATH_MAX];
	int r = file_path(path, err, b->tree, rest ? rest : "", NULL);

	if (r == 0)
		archive_entry_set_pathname(e, path);
	return r;
}

/*
 * Writes all entries.  What is unpacked was verified by apt, and its Makefile is about to
 * be run: only paths that leave the tree by mistake are refused.
 */
static int copy_entries(const struct build *b, struct archive *from, struct archive *to, struct err *err)
{
	struct archive_entry *e;
	int got = ARCHIVE_OK, r = 0;

	for (int n = 0; r == 0 && (got = archive_read_next_header(from, &e)) == ARCHIVE_OK; n++) {
		if (b->opt->cancel && *b->opt->cancel)
			return err_set(err, -EINTR, "interrupted");
		if (n >= ENTRIES_MAX || archive_entry_hardlink(e))
			return err_set(err, -EBADMSG, "%s is no source of a kernel", b->source);
		r = place_entry(b, e, err);
		if (r == 0 && archive_read_extract2(from, e, to) != ARCHIVE_OK)
			r = archive_err(err, to, b->tree);
	}
	return r == 0 && got != ARCHIVE_EOF ? archive_err(err, from, b->source) : r;
}

static int unpack_source(const struct build *b, struct err *err)
{
	struct archive *from = archive_read_new(), *to = archive_write_disk_new();
	int r = 0;

	if (!from || !to) {
		r = err_set(err, -ENOMEM, "out of memory");
		goto finish;
	}
	archive_read_support_format_tar(from);
	archive_read_support_filter_xz(from);
	archive_write_disk_set_options(to, ARCHIVE_EXTRACT_TIME | ARCHIVE_EXTRACT_SECURE_NODOTDOT);
	if (archive_read_open_filename(from, b->source, STEP) != ARCHIVE_OK)
		r = archive_err(err, from, b->source);
	if (r == 0)
		r = copy_entries(b, from, to, err);
finish:
	archive_read_free(from);
	archive_write_free(to);
	return r;
}

/* ---- compiling ---- */

/* The line of a failed make that says most: the first with "error", else the last. */
static const char *pick_error(char *errors)
{
	char *line = strcasestr(errors, "error"), *end;

	if (!line) {
		end = errors + strlen(errors);
		while (end > errors && end[-1] == '\n')
			*--end = '\0';
		line = strrchr(errors, '\n');
		return line ? line + 1 : errors;
	}
	while (line > errors && line[-1] != '\n')
		line--;
	line[strcspn(line, "\n")] = '\0';
	return line;
}

static int make(const struct build *b, const char *const more[], struct process_result *ret, struct err *err)
{
	/* Nothing of the time, the user and the host: equal inputs give equal kernels. */
	static const char *const env[] = { "LC_ALL=C", "KBUILD_BUILD_TIMESTAMP=1970-01-01", "KBUILD_BUILD_USER=roux",
					   "KBUILD_BUILD_HOST=roux", "KBUILD_BUILD_VERSION=1",
					   "KCONFIG_ALLCONFIG=../wanted", "MAKEFLAGS=", NULL };
	const char *argv[8] = { "make", "-s", "ARCH=x86_64", NULL };
	int r;

	for (size_t i = 3; *more && i + 1 < ARRAY_SIZE(argv); i++)
		argv[i] = *more++;
	r = run(b, argv, b->tree, env, ret, err);
	return r == -EIO ? err_set(err, r, "compiling the kernel failed: %.160s", pick_error(ret->errors)) : r;
}

/* Says what this version of the source does not have. */
static int check_config(const struct build *b, struct err *err)
{
	char path[PATH_MAX], line[160], *got;
	const char *missing;
	size_t len;
	int r = file_path(path, err, b->tree, "/.config", NULL);

	if (r == 0)
		r = file_read_all(path, CONFIG_MAX, &got, &len, err);
	if (r < 0)
		return r;
	for (const char *at = b->config; (missing = kernel_config_missing(at, got)); at = missing + strcspn(missing, "\n")) {
		(void)snprintf(line, sizeof(line), "this version of Linux does not know %.*s",
			       (int)strcspn(missing, "\n"), missing);
		say(b, line);
	}
	free(got);
	return 0;
}

static int configure(const struct build *b, struct err *err)
{
	static const char *const args[] = { "allnoconfig", NULL };
	struct process_result res;
	char path[PATH_MAX];
	int r = file_path(path, err, b->temp, "/wanted", NULL);

	if (r == 0)
		r = file_write_atomic(path, b->config, strlen(b->config), 0644, err);
	if (r == 0)
		r = make(b, args, &res, err);
	if (r < 0)
		return r;
	free(res.out);
	return check_config(b, err);
}

static int compile(struct build *b, struct err *err)
{
	static const char *const release[] = { "kernelrelease", NULL };
	char jobs[16], line[64];
	const char *const args[] = { jobs, "vmlinux", NULL };
	unsigned n = b->opt->jobs ? b->opt->jobs : (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
	struct process_result res;
	int r;

	(void)snprintf(jobs, sizeof(jobs), "-j%u", n);
	(void)snprintf(line, sizeof(line), "compiling, %u at a time; this takes minutes", n);
	say(b, line);
	r = make(b, args, &res, err);
	if (r < 0)
		return r;
	free(res.out);
	r = make(b, release, &res, err);
	if (r < 0)
		return r;
	(void)snprintf(b->kernel.release, sizeof(b->kernel.release), "%.*s", (int)strcspn(res.out, "\n"), res.out);
	free(res.out);
	return 0;
}

/* Moves file @name of the tree into folder @dir as @as. */
static int move_result(const struct build *b, const char *name, const char *dir, const char *as, struct err *err)
{
	char from[PATH_MAX], to[PATH_MAX];
	int r = file_path(from, err, b->tree, "/", name, NULL);

	if (r == 0)
		r = file_path(to, err, dir, "/", as, NULL);
	if (r < 0)
		return r;
	if (rename(from, to) < 0)
		return err_set(err, -EIO, "compiling the kernel made no %s", name);
	return 0;
}

static int build_in_temp(struct build *b, struct err *err)
{
	char done[PATH_MAX];
	int r = file_path(b->tree, err, b->temp, "/linux", NULL);

	if (r == 0)
		r = file_path(done, err, b->temp, "/done", NULL);
	if (r == 0)
		r = file_mkdirs(done, 0755, err);
	if (r < 0)
		return r;
	say(b, "unpacking the source");
	r = unpack_source(b, err);
	if (r == 0)
		r = configure(b, err);
	if (r == 0)
		r = compile(b, err);
	if (r == 0)
		r = move_result(b, "vmlinux", done, "vmlinux", err);
	if (r == 0)
		r = move_result(b, ".config", done, "config", err);
	return r < 0 ? r : kernel_built_put(done, &b->kernel, err);
}

/* ---- all of it ---- */

/* Removes the folders of builds that did not get to their end. */
static void clear_builds(const char *base)
{
	DIR *d = opendir(base);
	struct dirent *e;

	while (d && (e = readdir(d)))
		if (strncmp(e->d_name, BUILDING, strlen(BUILDING)) == 0)
			(void)file_remove_tree(dirfd(d), e->d_name);
	if (d)
		(void)closedir(d);
}

static int build_locked(struct build *b, struct err *err)
{
	int r;

	clear_builds(b->base);
	r = file_path(b->temp, err, b->base, "/" BUILDING "XXXXXX", NULL);
	if (r < 0)
		return r;
	if (!mkdtemp(b->temp))
		return err_set(err, -errno, "cannot make a folder in %s: %s", b->base, strerror(errno));
	r = build_in_temp(b, err);
	/* A compiler that is still at work may write into it: then the next build clears it. */
	(void)file_remove_tree(AT_FDCWD, b->temp);
	return r;
}

static int build_once(struct build *b, struct err *err)
{
	struct kernel_built there;
	char path[PATH_MAX];
	int lock, r = file_path(path, err, b->base, "/building.lock", NULL);

	if (r < 0 || kernel_built_find(b->kernel.id, &there, NULL) == 0)
		return r;
	lock = file_lock(path, true, err);
	if (lock == -EWOULDBLOCK) {
		say(b, "waiting for another build to end");
		lock = file_lock(path, false, err);
	}
	if (lock < 0)
		return lock;
	/* That may have been ours. */
	r = kernel_built_find(b->kernel.id, &there, NULL) == 0 ? 0 : build_locked(b, err);
	(void)close(lock);
	return r;
}

static void make_id(struct build *b)
{
	const char *const inputs[] = { FORMAT, b->kernel.source, b->config, b->kernel.compiler };
	char hex[SHA256_HEX_SIZE];
	struct sha256 hash;

	sha256_init(&hash);
	for (size_t i = 0; i < ARRAY_SIZE(inputs); i++)
		sha256_add(&hash, inputs[i], strlen(inputs[i]) + 1);
	sha256_finish_hex(&hash, hex);
	(void)snprintf(b->kernel.id, sizeof(b->kernel.id), KERNEL_ID_PREFIX "%.*s", ID_DIGITS, hex);
}

int kernel_build(const struct kernel_build_options *options, char ret_id[KERNEL_ID_SIZE], struct err *err)
{
	struct build *b = calloc(1, sizeof(*b));
	int r = b ? 0 : err_set(err, -ENOMEM, "out of memory");

	if (r < 0)
		return r;
	b->opt = options;
	r = kernel_config_make(options->features, &b->config, &b->features, err);
	if (r == 0)
		r = file_cache_dir("kernels", b->base, err);
	if (r == 0)
		r = check_tools(b, err);
	if (r == 0)
		r = get_source(b, err);
	if (r == 0) {
		(void)snprintf(b->kernel.features, sizeof(b->kernel.features), "%s", b->features);
		make_id(b);
		r = build_once(b, err);
	}
	if (r == 0)
		r = kernel_built_use(b->kernel.id, err);
	if (r == 0)
		memcpy(ret_id, b->kernel.id, sizeof(b->kernel.id));
	free(b->config);
	free(b->features);
	free(b);
	return r;
}
