/* SPDX-License-Identifier: Apache-2.0 */
#include "life/snapshots.h"

#include "api/handle.h"
#include "life/snapshot_disks.h"
#include "machine/snapshot.h"
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

static bool is_file_name(const char *name)
{
	size_t len = strlen(name);

	return len > strlen(SUFFIX) && strcmp(name + len - strlen(SUFFIX), SUFFIX) == 0;
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

static int read_record(const char *notes, const char *what, struct vm_record *record, struct err *err)
{
	cJSON *json = cJSON_Parse(notes ? notes : "");
	char *text = cJSON_PrintUnformatted(cJSON_GetObjectItemCaseSensitive(json, "Record"));
	int r;

	cJSON_Delete(json);
	if (!text)
		return err_set(err, -EBADMSG, "snapshot %s was not made by 'roux checkpoint'", what);
	r = record_decode(text, strlen(text), record, err);
	free(text);
	return r;
}

int snapshot_restore_disks(const char *path, const struct vm_owned *owned, struct vm_record *record, struct err *err)
{
	char *notes = NULL;
	int r = record->config.ndisks ? checkpoint_notes(path, &notes, NULL, err) : 0;

	if (r == 0 && record->config.ndisks)
		r = snapshot_disks_restore(path, notes, owned->data, &record->config, err);
	if (r == 0 && record->config.ndisks)
		r = vm_save(owned, record, err);
	free(notes);
	return r;
}

int snapshot_record(const char *path, struct vm_record *record, struct err *err)
{
	struct snapshot s;
	int r = snapshot_open(path, &s, err);

	if (r == 0)
		r = read_record(s.notes, path, record, err);
	snapshot_close(&s);
	return r;
}

/* ----------------------------------------------------------------------- bases */

/* The folder that @path is in, real, with a '/' at its end. */
static int real_folder(const char *path, char ret_folder[PATH_MAX], struct err *err)
{
	char folder[PATH_MAX];
	size_t len;

	(void)snprintf(folder, sizeof(folder), "%.*s", (int)(strrchr(path, '/') - path) + 1, path);
	if (!realpath(folder, ret_folder))
		return err_set(err, -errno, "cannot find %s: %s", folder, strerror(errno));
	len = strlen(ret_folder);
	if (ret_folder[len - 1] != '/')
		(void)snprintf(ret_folder + len, PATH_MAX - len, "/");
	return 0;
}

int snapshot_path_between(const char *file, const char *base, char ret_path[PATH_MAX], struct err *err)
{
	char from[PATH_MAX], to[PATH_MAX];
	size_t same = 0, n = 0;
	int r = real_folder(file, from, err);

	if (r == 0)
		r = real_folder(base, to, err);
	if (r < 0)
		return r;
	for (size_t i = 0; from[i] && from[i] == to[i]; i++)
		if (from[i] == '/')
			same = i + 1;
	ret_path[0] = '\0';
	for (const char *c = from + same; same > 1 && *c; c++)
		if (*c == '/' && n < PATH_MAX)
			n += (size_t)snprintf(ret_path + n, PATH_MAX - n, "../");
	if (n < PATH_MAX)
		n += (size_t)snprintf(ret_path + n, PATH_MAX - n, "%s%s", same > 1 ? to + same : to, strrchr(base, '/') + 1);
	return n < PATH_MAX ? 0 : err_set(err, -ENAMETOOLONG, "the path of snapshot %s is too long", base);
}

/* Names of the snapshots in the folder that have @of as their base, "a, b"; "": none. */
static void users_of(const struct vms *vms, const struct snapshot *of, char *ret_names, size_t size)
{
	char folder[PATH_MAX], path[PATH_MAX];
	struct snapshot s;
	struct dirent *e;
	size_t n = 0;
	DIR *dir;

	ret_names[0] = '\0';
	(void)snprintf(folder, sizeof(folder), "%s/snapshots", vms->data);
	dir = opendir(folder);
	while (dir && (e = readdir(dir))) {
		if (!is_file_name(e->d_name) || snprintf(path, sizeof(path), "%s/%s", folder, e->d_name) >= PATH_MAX ||
		    snapshot_open(path, &s, NULL) < 0)
			continue;
		if (s.base_path[0] && memcmp(s.base_sum, of->sum, sizeof(s.base_sum)) == 0 && n < size)
			n += (size_t)snprintf(ret_names + n, size - n, "%s%.*s", n ? ", " : "", (int)(strlen(e->d_name) - strlen(SUFFIX)),
					      e->d_name);
		snapshot_close(&s);
	}
	if (dir)
		(void)closedir(dir);
}

/* 0, or -EBUSY and their names when snapshots are on top of the one at @path.  On top of a damaged one none can be used. */
static int check_users(const struct vms *vms, const char *path, char *ret_names, size_t size)
{
	struct snapshot s;

	ret_names[0] = '\0';
	if (snapshot_open(path, &s, NULL) == 0) {
		users_of(vms, &s, ret_names, size);
		snapshot_close(&s);
	}
	return ret_names[0] ? -EBUSY : 0;
}

int snapshot_check_replaced(const struct vms *vms, const char *path, const char *base, struct err *err)
{
	struct stat new, old;
	char names[128];

	if (stat(path, &new) < 0)
		return 0;
	if (base && stat(base, &old) == 0 && old.st_dev == new.st_dev && old.st_ino == new.st_ino)
		return err_set(err, -EBUSY, "a snapshot cannot take the place of its own base; give it another name");
	return check_users(vms, path, names, sizeof(names)) < 0 ?
		err_set(err, -EBUSY, "snapshot %s is there, and is the base of %s; give the new one another name", path, names) : 0;
}

/* ------------------------------------------------------------------------- list */

static int by_age(const void *a, const void *b)
{
	int64_t x = ((const struct snapshot_info *)a)->created_s, y = ((const struct snapshot_info *)b)->created_s;

	return (x < y) - (x > y);
}

/* What the notes say of it. */
static void describe_vm(const char *notes, struct snapshot_info *ret)
{
	struct vm_record record;

	record_init(&record);
	if (read_record(notes, ret->name, &record, NULL) == 0)
		memcpy(ret->vm, record.name, sizeof(ret->vm));
	record_finish(&record);
}

static bool describe(const char *folder, const char *name, struct snapshot_info *ret)
{
	struct snapshot s;
	char path[PATH_MAX];
	struct stat st;

	if (!is_file_name(name) || snprintf(path, sizeof(path), "%s/%s", folder, name) >= PATH_MAX || stat(path, &st) < 0)
		return false;
	*ret = (struct snapshot_info){ .bytes = (uint64_t)st.st_blocks * 512 + snapshot_disks_bytes(path),
				       .created_s = st.st_mtim.tv_sec };
	memcpy(ret->name, name, strlen(name) - strlen(SUFFIX));
	if (snapshot_open(path, &s, NULL) < 0)	/* a damaged one can still be removed */
		return true;
	describe_vm(s.notes, ret);
	ret->compressed = s.packed != NULL;
	(void)snprintf(ret->base, sizeof(ret->base), "%s", s.base_path);
	if (!strchr(ret->base, '/') && is_file_name(ret->base))
		ret->base[strlen(ret->base) - strlen(SUFFIX)] = '\0';
	snapshot_close(&s);
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

int snapshot_remove(const struct vms *vms, const char *what, bool force, struct err *err)
{
	char path[PATH_MAX], names[128];
	int r = strchr(what, '/') ? err_set(err, -EINVAL, "'%s' is the path of a file; remove that", what) :
		snapshot_path(vms, what, false, path, err);

	if (r == 0 && !force && check_users(vms, path, names, sizeof(names)) < 0)
		return err_set(err, -EBUSY, "snapshot %s is needed by %s; remove those first, or with --force, after which they are of no use",
			       what, names);
	if (r == 0 && unlink(path) < 0)
		r = err_set(err, -errno, "cannot remove %s: %s", path, strerror(errno));
	if (r == 0)
		snapshot_disks_tidy(path, NULL);
	return r;
}
