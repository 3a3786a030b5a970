/* SPDX-License-Identifier: Apache-2.0 */
#include "os/folders.h"

#include "os/err.h"
#include "os/file.h"

#include <errno.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* An absolute path: a daemon's working folder is another. */
static int absolute(char *ret, size_t size, const char *path, const char *sub, struct err *err)
{
	char cwd[PATH_MAX] = "";
	int n;

	if (path[0] != '/' && !getcwd(cwd, sizeof(cwd)))
		return err_set(err, -errno, "cannot tell the working folder: %s", strerror(errno));
	n = snprintf(ret, size, "%s%s%s%s", cwd, *cwd ? "/" : "", path, sub);
	return n < 0 || (size_t)n >= size ? err_set(err, -ENAMETOOLONG, "the path of roux's folder is too long") : 0;
}

static const char *set(const char *name)
{
	const char *value = getenv(name);

	return value && *value ? value : NULL;
}

/* Paths in these variables count only when they are absolute (XDG Base Directory Specification). */
static const char *set_absolute(const char *name)
{
	const char *value = set(name);

	return value && *value == '/' ? value : NULL;
}

int folder_home(char *ret, size_t size, const char *sub, const char *variable, struct err *err)
{
	struct passwd pw, *found = NULL;
	const char *home = set_absolute("HOME");
	char buf[4096];

	if (!home && getpwuid_r(geteuid(), &pw, buf, sizeof(buf), &found) == 0 && found)
		home = pw.pw_dir;
	return home ? absolute(ret, size, home, sub, err) :
		      err_set(err, -ENOENT, "no home folder: set %s to a folder you may write", variable);
}

int folder_data(char *ret, size_t size, struct err *err)
{
	if (set("ROUX_STORE"))
		return absolute(ret, size, set("ROUX_STORE"), "", err);
	if (geteuid() == 0)
		return absolute(ret, size, "/var/lib/roux", "", err);
	if (set_absolute("XDG_DATA_HOME"))
		return absolute(ret, size, set_absolute("XDG_DATA_HOME"), "/roux", err);
	return folder_home(ret, size, "/.local/share/roux", "ROUX_STORE", err);
}

int folder_cache(char *ret, size_t size, struct err *err)
{
	if (set("ROUX_CACHE"))
		return absolute(ret, size, set("ROUX_CACHE"), "", err);
	if (set_absolute("XDG_CACHE_HOME"))
		return absolute(ret, size, set_absolute("XDG_CACHE_HOME"), "/roux", err);
	return folder_home(ret, size, "/.cache/roux", "ROUX_CACHE", err);
}

int folder_state(char *ret, size_t size, struct err *err)
{
	char data[PATH_MAX];
	int r;

	if (set("ROUX_STATE"))
		return absolute(ret, size, set("ROUX_STATE"), "", err);
	if (set_absolute("XDG_RUNTIME_DIR"))
		return absolute(ret, size, set_absolute("XDG_RUNTIME_DIR"), "/roux", err);
	if (geteuid() == 0)
		return absolute(ret, size, "/run/roux", "", err);
	r = folder_data(data, sizeof(data), err);
	return r < 0 ? r : absolute(ret, size, data, "/run", err);
}

int folder_make(const char *folder, const char *sub, const char *variable, struct err *err)
{
	char path[PATH_MAX];
	int r = file_path(path, err, folder, sub, NULL);

	if (r < 0 || access(path, W_OK) == 0)
		return r;
	r = file_mkdirs(path, 0700, NULL);
	if (r == 0 && access(path, W_OK) < 0)
		r = -errno;
	if (r < 0)
		return err_set(err, r, "cannot make %.120s: %s: set %s to a folder you may write", path, strerror(-r), variable);
	return 0;
}
