/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names of VMs: a symbolic link is made by one process only, and that is what makes a
 * name unique.  Links are never trusted alone: one to a VM that is gone, was never
 * finished or is called otherwise is stale, and whoever wants the name takes it.
 */
#include "life/vms_inside.h"

#include "life/names.h"
#include "os/err.h"
#include "os/file.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define NAME_TRIES 20u

bool vms_name_owner(const struct vms *vms, const char *name, char ret_id[VM_ID_SIZE])
{
	char path[PATH_MAX], target[VM_ID_SIZE + 1];
	ssize_t n;

	vms_name_path(vms, name, path);
	n = readlink(path, target, sizeof(target));
	if (n != VM_ID_SIZE - 1)
		return false;
	target[n] = '\0';
	memcpy(ret_id, target, VM_ID_SIZE);
	return vm_id_valid(ret_id);
}

/* True when the VM that a name belongs to is gone, was never finished, or has another name. */
static bool name_is_stale(const struct vms *vms, const char *name)
{
	struct vm_record record;
	char id[VM_ID_SIZE];
	bool stale;

	if (!vms_name_owner(vms, name, id))
		return true;
	if (vms_is_owned(vms, id))
		return false;	/* it may be in the middle of being made or renamed */
	record_init(&record);
	stale = vms_read_record(vms, id, &record, NULL) == -ENOENT || (record.name[0] && strcmp(record.name, name) != 0);
	record_finish(&record);
	return stale;
}

/*
 * Links @name to @id.  A stale link is replaced by whoever holds the lock of the
 * folder, so that no one replaces a link that has just been made.
 */
static int take_name(const struct vms *vms, const char *name, const char *id)
{
	char path[PATH_MAX], lock[PATH_MAX];
	int fd, r;

	vms_name_path(vms, name, path);
	if (symlink(id, path) == 0)
		return 0;
	if (errno != EEXIST)
		return -errno;
	if (!name_is_stale(vms, name))
		return -EEXIST;
	(void)snprintf(lock, sizeof(lock), "%s/vms/.names.lock", vms->data);
	fd = file_lock(lock, false, NULL);
	if (fd < 0)
		return fd;
	if (!name_is_stale(vms, name))
		r = -EEXIST;
	else
		r = (unlink(path) < 0 && errno != ENOENT) || symlink(id, path) < 0 ? -errno : 0;
	(void)close(fd);
	return r;
}

static int check_name(const char *name, struct err *err)
{
	return vm_name_valid(name) ? 0 :
	       err_set(err, -EINVAL, "'%.64s' cannot be a name: it needs letters, digits, '_', '.' and '-', and a letter or "
		       "digit first", name);
}

int vms_choose_name(const struct vms *vms, struct vm_record *record, struct err *err)
{
	bool given = record->name[0];
	int r = -EEXIST;

	if (given && check_name(record->name, err) < 0)
		return -EINVAL;
	for (unsigned i = 0; r == -EEXIST && i < (given ? 1 : NAME_TRIES); i++) {
		if (!given)
			vm_name_make(i, record->name);
		r = take_name(vms, record->name, record->id);
	}
	if (r == -EEXIST)
		return err_set(err, r, "the name '%s' is taken; remove that VM ('roux rm %s') or choose another", record->name,
			       record->name);
	return r < 0 ? err_set(err, r, "cannot take the name '%s': %s", record->name, strerror(-r)) : 0;
}

void vms_drop_name(const struct vms *vms, const char *name, const char *id)
{
	char path[PATH_MAX], owner[VM_ID_SIZE];

	if (!vm_name_valid(name) || !vms_name_owner(vms, name, owner) || strcmp(owner, id) != 0)
		return;
	vms_name_path(vms, name, path);
	(void)unlink(path);
}

int vm_rename(const struct vms *vms, const struct vm_owned *owned, struct vm_record *record, const char *name,
	      struct err *err)
{
	char before[VM_NAME_MAX];
	int r = check_name(name, err);

	if (r < 0)
		return r;
	if (strcmp(name, record->name) == 0)
		return err_set(err, -EEXIST, "that is its name already");
	r = take_name(vms, name, record->id);
	if (r < 0)
		return err_set(err, r, r == -EEXIST ? "the name '%s' is taken" : "cannot take the name '%s'", name);
	memcpy(before, record->name, sizeof(before));
	(void)snprintf(record->name, sizeof(record->name), "%s", name);
	r = vm_save(owned, record, err);
	if (r < 0)
		memcpy(record->name, before, sizeof(before));
	vms_drop_name(vms, r < 0 ? name : before, record->id);
	return r;
}
