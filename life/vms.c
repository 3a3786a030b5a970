/* SPDX-License-Identifier: Apache-2.0 */
#include "life/vms_inside.h"

#include "life/names.h"
#include "life/when.h"
#include "os/err.h"
#include "os/file.h"
#include "os/folders.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LOCK_STEP_MS 5u
#define KILLED 137 /* exit status of what SIGKILL ended */

/* ------------------------------------------------------------------ folders */

int vms_open(struct vms *vms, struct err *err)
{
	int r = folder_data(vms->data, sizeof(vms->data), err);

	if (r == 0)
		r = folder_state(vms->state, sizeof(vms->state), err);
	if (r == 0)
		r = folder_make(vms->data, "/vms", "ROUX_STORE", err);
	if (r == 0)
		r = folder_make(vms->data, "/names", "ROUX_STORE", err);
	if (r == 0)
		r = folder_make(vms->state, "/vms", "ROUX_STATE", err);
	return r;
}

void vms_path(const struct vms *vms, const char *id, const char *file, char ret[PATH_MAX])
{
	(void)snprintf(ret, PATH_MAX, "%s/vms/%.64s%s", vms->data, id, file);
}

void vms_name_path(const struct vms *vms, const char *name, char ret[PATH_MAX])
{
	(void)snprintf(ret, PATH_MAX, "%s/names/%s", vms->data, name);
}

/* -------------------------------------------------------------------- locks */

static struct flock whole_file(short type)
{
	return (struct flock){ .l_type = type, .l_whence = SEEK_SET };
}

bool vms_is_owned(const struct vms *vms, const char *id)
{
	struct flock lock = whole_file(F_WRLCK);
	char path[PATH_MAX];
	bool owned;
	int fd;

	vms_path(vms, id, "/lock", path);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return false;
	owned = fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
	(void)close(fd);
	return owned;
}

void vms_owned(const struct vms *vms, const char *id, int lock_fd, struct vm_owned *ret)
{
	*ret = (struct vm_owned){ .lock_fd = lock_fd };
	(void)snprintf(ret->id, sizeof(ret->id), "%s", id);
	vms_path(vms, id, "", ret->data);
	(void)snprintf(ret->state, sizeof(ret->state), "%s/vms/%s", vms->state, id);
}

/* Takes the lock at once, or -EBUSY; -ENOENT when the VM is gone. */
static int try_own(const struct vms *vms, const char *id, bool create, struct vm_owned *ret)
{
	struct flock lock = whole_file(F_WRLCK);
	struct stat st;
	char path[PATH_MAX];
	int fd, r = 0;

	vms_path(vms, id, "/lock", path);
	fd = open(path, O_RDWR | O_CLOEXEC | (create ? O_CREAT : 0), 0600);
	if (fd < 0)
		return -errno;
	if (fcntl(fd, F_OFD_SETLK, &lock) < 0)
		r = errno == EAGAIN || errno == EACCES ? -EBUSY : -errno;
	else if (fstat(fd, &st) < 0 || st.st_nlink == 0)
		r = -ENOENT;	/* removed between open and lock */
	if (r < 0) {
		(void)close(fd);
		return r;
	}
	vms_owned(vms, id, fd, ret);
	return 0;
}

int vms_own(const struct vms *vms, const char *id, unsigned wait_ms, struct vm_owned *ret, struct err *err)
{
	for (unsigned waited = 0;; waited += LOCK_STEP_MS) {
		int r = try_own(vms, id, false, ret);

		if (r != -EBUSY)
			return r == -ENOENT ? err_set(err, r, "the VM is gone") :
			       r < 0 ? err_set(err, r, "cannot lock the VM: %s", strerror(-r)) : 0;
		if (waited >= wait_ms)
			return err_set(err, r, "another roux command is busy with the VM");
		(void)usleep(LOCK_STEP_MS * 1000);
	}
}

void vm_release(struct vm_owned *owned)
{
	if (owned->lock_fd >= 0)
		(void)close(owned->lock_fd);
	owned->lock_fd = -1;
}

/* ------------------------------------------------------------------ records */

int vms_read_record(const struct vms *vms, const char *id, struct vm_record *record, struct err *err)
{
	char path[PATH_MAX], *text;
	size_t len;
	int r;

	vms_path(vms, id, "/record.json", path);
	r = file_read_all(path, RECORD_MAX, &text, &len, err);
	if (r < 0)
		return r;
	r = record_decode(text, len, record, err);
	free(text);
	if (r == 0 && strcmp(record->id, id) != 0)
		r = err_set(err, -EBADMSG, "it is about another VM");
	return r < 0 ? err_prefix(err, r, "the record of VM %.12s is damaged ('roux rm -f' removes it)", id) : 0;
}

/* As vm_save(), but only as durable as vm_sync() makes it: it costs no wait for the disk. */
static int save_soon(const struct vm_owned *owned, const struct vm_record *record, struct err *err)
{
	char path[PATH_MAX], temp[PATH_MAX], *text = record_encode(record);
	int fd, r;

	if (!text)
		return err_set(err, -ENOMEM, "out of memory");
	r = file_path(path, err, owned->data, "/record.json", NULL);
	if (r == 0)
		r = file_path(temp, err, path, ".new", NULL);
	if (r < 0) {
		free(text);
		return r;
	}
	fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	r = fd < 0 ? -errno : file_write_all(fd, text, strlen(text));
	free(text);
	if (fd >= 0)
		(void)close(fd);
	if (r == 0 && rename(temp, path) < 0)
		r = -errno;
	return r < 0 ? err_set(err, r, "cannot write %.150s: %s", path, strerror(-r)) : 0;
}

int vm_save(const struct vm_owned *owned, const struct vm_record *record, struct err *err)
{
	char path[PATH_MAX], *text;
	int r;

	if (record->config.auto_remove)	/* which does not outlive its host */
		return save_soon(owned, record, err);
	text = record_encode(record);
	r = text ? file_path(path, err, owned->data, "/record.json", NULL) : err_set(err, -ENOMEM, "out of memory");

	if (r == 0)
		r = file_write_atomic(path, text, strlen(text), 0600, err);
	free(text);
	return r;
}

static void sync_file(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	(void)fsync(fd);
	(void)close(fd);
}

void vm_sync(const struct vms *vms, const struct vm_owned *owned)
{
	char path[PATH_MAX];

	if (file_path(path, NULL, owned->data, "/record.json", NULL) == 0)
		sync_file(path);
	(void)file_sync_dir(owned->data);
	vms_path(vms, "", "", path);
	(void)file_sync_dir(path);
	vms_name_path(vms, "", path);
	(void)file_sync_dir(path);
}

/* --------------------------------------------------------- making, removing */

/* The folders and the lock of a fresh id; somebody who cleans up may be faster: once more then. */
static int make_folders(const struct vms *vms, struct vm_record *record, struct vm_owned *ret)
{
	int r = -ENOENT;

	for (unsigned i = 0; r == -ENOENT && i < 3; i++) {
		char path[PATH_MAX];

		r = vm_id_make(record->id);
		if (r < 0)
			break;
		vms_path(vms, record->id, "", path);
		if (mkdir(path, 0700) < 0)
			return -errno;
		r = try_own(vms, record->id, true, ret);
		if (r == -EBUSY)
			r = -ENOENT;
	}
	if (r == 0 && mkdir(ret->state, 0700) < 0)
		r = -errno;
	return r;
}

int vms_create(const struct vms *vms, struct vm_record *record, struct vm_owned *ret, struct err *err)
{
	int r;

	*ret = (struct vm_owned){ .lock_fd = -1 };
	record->created_ns = when_now();
	r = make_folders(vms, record, ret);
	if (r < 0)
		(void)err_set(err, r, "cannot make a folder for the VM below %.150s: %s", vms->data, strerror(-r));
	if (r == 0)
		r = vms_choose_name(vms, record, err);
	if (r == 0)
		r = save_soon(ret, record, err);
	if (r < 0 && ret->lock_fd >= 0) {
		(void)vm_remove(vms, ret, record->name, NULL);
		vm_release(ret);
	}
	return r;
}

int vm_remove(const struct vms *vms, const struct vm_owned *owned, const char *name, struct err *err)
{
	char path[PATH_MAX];
	int r;

	/* Without its record it is half made, and whoever comes next goes on from any point. */
	vms_path(vms, owned->id, "/record.json", path);
	if (unlink(path) < 0 && errno != ENOENT)
		return err_set(err, -errno, "cannot remove %.150s: %s", path, strerror(errno));
	vms_drop_name(vms, name, owned->id);
	(void)file_remove_tree(AT_FDCWD, owned->state);
	r = file_remove_tree(AT_FDCWD, owned->data);
	return r < 0 ? err_set(err, r, "cannot remove %.150s: %s", owned->data, strerror(-r)) : 0;
}

/* ------------------------------------------------------------------ looking */

/* A VM whose owner died says so from now on; its socket is nobody's. */
static void put_right(const struct vms *vms, struct vm_record *record)
{
	struct vm_state *s = &record->state;
	struct vm_owned owned;
	char sock[PATH_MAX];

	if (s->status == VM_CREATED || s->status == VM_EXITED || try_own(vms, record->id, false, &owned) < 0)
		return;
	/* Its owner may have ended properly since the record was read. */
	record_finish(record);
	if (vms_read_record(vms, owned.id, record, NULL) == 0 && s->status != VM_CREATED && s->status != VM_EXITED) {
		s->status = VM_EXITED;
		s->exit_code = KILLED;
		s->has_run = true;
		s->monitor_pid = s->vm_pid = 0;
		s->health = VM_HEALTH_NONE;
		s->finished_ns = when_now();
		free(s->error);
		s->error = strdup("the VM's monitor was killed or the host went down");
		if (record->config.auto_remove)
			(void)vm_remove(vms, &owned, record->name, NULL);
		else
			(void)vm_save(&owned, record, NULL);
	}
	if (file_path(sock, NULL, owned.state, "/sock", NULL) == 0)
		(void)unlink(sock);
	vm_release(&owned);
}

int vms_load(const struct vms *vms, const char *id, struct vm_record *record, bool *ret_alive, struct err *err)
{
	bool alive = vms_is_owned(vms, id);
	int r = vms_read_record(vms, id, record, err);

	if (r < 0)
		return r == -ENOENT ? err_set(err, r, "there is no VM %.12s", id) : r;
	if (!alive) {
		put_right(vms, record);
		if (!record->id[0])
			return err_set(err, -ENOENT, "there is no VM %.12s", id);
		alive = vms_is_owned(vms, id);
	}
	*ret_alive = alive;
	return 0;
}

/* Removes what a crash left: a folder without record that nobody owns. */
static bool removed_half_made(const struct vms *vms, const char *id)
{
	struct vm_owned owned;
	char path[PATH_MAX];

	vms_path(vms, id, "/record.json", path);
	if (access(path, F_OK) == 0)
		return false;
	if (try_own(vms, id, true, &owned) < 0)
		return true;	/* being made or removed at this moment */
	if (access(path, F_OK) != 0) {
		(void)file_remove_tree(AT_FDCWD, owned.state);
		(void)file_remove_tree(AT_FDCWD, owned.data);
	}
	vm_release(&owned);
	return true;
}

int vms_each(const struct vms *vms, vms_fn fn, void *ctx)
{
	char path[PATH_MAX];
	struct dirent *e;
	DIR *dir;
	int r = 0;

	vms_path(vms, "", "", path);
	dir = opendir(path);
	if (!dir)
		return -errno;
	while (r == 0 && (e = readdir(dir)))
		if (vm_id_valid(e->d_name) && !removed_half_made(vms, e->d_name))
			r = fn(ctx, e->d_name);
	(void)closedir(dir);
	return r;
}

struct search {
	const char *prefix;
	size_t len;
	unsigned found;
	char id[VM_ID_SIZE];
};

static int compare_prefix(void *ctx, const char *id)
{
	struct search *s = ctx;

	if (strncmp(id, s->prefix, s->len) == 0) {
		s->found++;
		memcpy(s->id, id, VM_ID_SIZE);
	}
	return 0;
}

int vms_find(const struct vms *vms, const char *what, char ret_id[VM_ID_SIZE], struct err *err)
{
	struct search s = { .prefix = what, .len = strlen(what) };
	char path[PATH_MAX];

	if (vm_name_valid(what) && vms_name_owner(vms, what, ret_id)) {
		vms_path(vms, ret_id, "/record.json", path);
		if (access(path, F_OK) == 0)
			return 0;
	}
	if (s.len && strspn(what, "0123456789abcdef") == s.len)
		(void)vms_each(vms, compare_prefix, &s);
	if (s.found > 1)
		return err_set(err, -ENOTUNIQ, "more than one VM has an id that begins with '%.64s'", what);
	if (!s.found)
		return err_set(err, -ENOENT, "there is no VM '%.64s'; 'roux ps -a' lists them", what);
	memcpy(ret_id, s.id, VM_ID_SIZE);
	return 0;
}
