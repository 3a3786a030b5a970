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

int folder_data(char *ret, size_t size, struct err *err)
{
	const struct passwd *pw;
	const char *home;

	if (set("ROUX_STORE"))
		return absolute(ret, size, set("ROUX_STORE"), "", err);
	if (geteuid() == 0)
		return absolute(ret, size, "/var/lib/roux", "", err);
	if (set("XDG_DATA_HOME"))
		return absolute(ret, size, set("XDG_DATA_HOME"), "/roux", err);
	home = set("HOME");
	if (!home) {
		pw = getpwuid(geteuid());
		home = pw ? pw->pw_dir : NULL;
	}
	return home ? absolute(ret, size, home, "/.local/share/roux", err) :
		      err_set(err, -ENOENT, "no home folder for roux's data: set ROUX_STORE to a folder you may write");
}

int folder_state(char *ret, size_t size, struct err *err)
{
	char data[PATH_MAX];
	int r;

	if (set("ROUX_STATE"))
		return absolute(ret, size, set("ROUX_STATE"), "", err);
	if (set("XDG_RUNTIME_DIR"))
		return absolute(ret, size, set("XDG_RUNTIME_DIR"), "/roux", err);
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
