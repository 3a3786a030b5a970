/* SPDX-License-Identifier: Apache-2.0 */
#include "build/apt.h"

#include "os/err.h"
#include "os/file.h"
#include "os/process.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OUTPUT_MAX (1024u * 1024u) /* bytes of apt's output */

/* Which package lists apt uses: the host's, or our own by these options. */
struct apt {
	const struct apt_want *want;
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
		return err_set(err, r, "no %s: this host has no %s to fetch Debian's; %s", apt->want->what, tool,
			       apt->want->otherwise);
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
	return err_set(err, -EHOSTUNREACH, "apt cannot fetch the %s (%.110s): check the network, or %s", apt->want->what,
		       apt->why[0] ? apt->why : pick_error(res), apt->want->otherwise);
}

/* Finds the versioned package. */
static int find_package(const struct apt *apt, char ret_name[128], struct err *err)
{
	const char *const args[] = { "show", "--no-all-versions", apt->want->package, NULL };
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
	if (n >= 128 || n == 0 || strncmp(at, apt->want->prefix, strlen(apt->want->prefix)) != 0)
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

/* The .deb in @dir; its name without the ending identifies it. */
static int find_deb(const struct apt_want *want, const char *dir, char ret_path[PATH_MAX], char ret_id[256], struct err *err)
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
		return err_set(err, r, "apt downloaded no package: %s", want->otherwise);
	return r;
}

int apt_fetch(const struct apt_want *want, bool refresh, const volatile int *cancel, const char *dir,
	      char ret_path[PATH_MAX], char ret_id[256], struct err *err)
{
	struct apt apt = { .want = want, .cancel = cancel };
	int r = refresh ? -EHOSTUNREACH : download(&apt, dir, err);

	if (r == -EHOSTUNREACH) {
		r = update_lists(&apt, err);
		if (r == 0)
			r = download(&apt, dir, err);
	}
	return r < 0 ? r : find_deb(want, dir, ret_path, ret_id, err);
}
