/* SPDX-License-Identifier: Apache-2.0 */
#include "life/snapshots.h"

#include "api/handle.h"
#include "os/err.h"
#include "os/folders.h"

#include <cjson/cJSON.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SUFFIX ".snap"

/* As VMs are named. */
static bool is_name(const char *what)
{
	size_t n = strlen(what);

	if (n < 1 || n > NAME_MAX - sizeof(SUFFIX) || !isalnum((unsigned char)what[0]))
		return false;
	for (size_t i = 0; i < n; i++)
		if (!isalnum((unsigned char)what[i]) && !strchr("_.-", what[i]))
			return false;
	return true;
}

int snapshot_path(const struct vms *vms, const char *what, bool make, char ret_path[PATH_MAX], struct err *err)
{
	char here[PATH_MAX];
	int n, r = 0;

	if (strchr(what, '/')) {
		if (what[0] != '/' && !getcwd(here, sizeof(here)))
			return err_set(err, -errno, "cannot tell the current folder: %s", strerror(errno));
		n = what[0] == '/' ? snprintf(ret_path, PATH_MAX, "%s", what) : snprintf(ret_path, PATH_MAX, "%s/%s", here, what);
	} else if (!is_name(what)) {
		return err_set(err, -EINVAL, "'%s' can be no name of a snapshot: letters, digits, '_', '.' and '-' can; "
			       "the path of a file has a '/'", what);
	} else {
		r = make ? folder_make(vms->data, "/snapshots", "ROUX_STORE", err) : 0;
		n = snprintf(ret_path, PATH_MAX, "%s/snapshots/%s" SUFFIX, vms->data, what);
	}
	if (r == 0 && n >= PATH_MAX)
		r = err_set(err, -ENAMETOOLONG, "the name of snapshot %s is too long", what);
	if (r == 0 && !make && access(ret_path, F_OK) < 0 && errno == ENOENT)
		r = err_set(err, -ENOENT, "there is no snapshot %s; 'roux snapshot ls' lists them", what);
	return r;
}

int snapshot_record(const char *path, struct vm_record *record, struct err *err)
{
	char *notes, *text = NULL;
	int r = checkpoint_notes(path, &notes, NULL, err);
	cJSON *json = r == 0 ? cJSON_Parse(notes ? notes : "") : NULL;

	free(notes);
	if (r < 0)
		return r;
	text = cJSON_PrintUnformatted(cJSON_GetObjectItemCaseSensitive(json, "Record"));
	cJSON_Delete(json);
	if (!text)
		return err_set(err, -EBADMSG, "snapshot %s was not made by 'roux checkpoint'", path);
	r = record_decode(text, strlen(text), record, err);
	free(text);
	return r;
}

static int by_age(const void *a, const void *b)
{
	int64_t x = ((const struct snapshot_info *)a)->created_s, y = ((const struct snapshot_info *)b)->created_s;

	return (x < y) - (x > y);
}

static bool describe(const char *folder, const char *name, struct snapshot_info *ret)
{
	size_t len = strlen(name);
	struct vm_record record;
	char path[PATH_MAX];
	struct stat st;

	if (len <= strlen(SUFFIX) || strcmp(name + len - strlen(SUFFIX), SUFFIX) != 0 ||
	    snprintf(path, sizeof(path), "%s/%s", folder, name) >= PATH_MAX || stat(path, &st) < 0)
		return false;
	*ret = (struct snapshot_info){ .bytes = (uint64_t)st.st_blocks * 512, .created_s = st.st_mtim.tv_sec };
	memcpy(ret->name, name, len - strlen(SUFFIX));
	record_init(&record);
	if (snapshot_record(path, &record, NULL) == 0)	/* a damaged one can still be removed */
		memcpy(ret->vm, record.name, sizeof(ret->vm));
	record_finish(&record);
	return true;
}

int snapshots_list(const struct vms *vms, struct snapshot_info **ret_infos, size_t *ret_n, struct err *err)
{
	struct snapshot_info *infos = NULL, one, *more;
	char folder[PATH_MAX];
	struct dirent *e;
	size_t n = 0;
	int r = 0;
	DIR *dir;

	(void)snprintf(folder, sizeof(folder), "%s/snapshots", vms->data);
	dir = opendir(folder);
	if (!dir && errno != ENOENT)
		return err_set(err, -errno, "cannot read %s: %s", folder, strerror(errno));
	while (r == 0 && dir && (e = readdir(dir))) {
		if (!describe(folder, e->d_name, &one))
			continue;
		more = realloc(infos, (n + 1) * sizeof(*infos));
		if (!more) {
			r = err_set(err, -ENOMEM, "out of memory");
			continue;
		}
		infos = more;
		infos[n++] = one;
	}
	if (dir)
		(void)closedir(dir);
	if (r < 0) {
		free(infos);
		return r;
	}
	if (n)
		qsort(infos, n, sizeof(*infos), by_age);
	*ret_infos = infos;
	*ret_n = n;
	return 0;
}

int snapshot_remove(const struct vms *vms, const char *what, struct err *err)
{
	char path[PATH_MAX];
	int r = strchr(what, '/') ? err_set(err, -EINVAL, "'%s' is the path of a file; remove that", what) :
		snapshot_path(vms, what, false, path, err);

	if (r == 0 && unlink(path) < 0)
		r = err_set(err, -errno, "cannot remove %s: %s", path, strerror(errno));
	return r;
}
