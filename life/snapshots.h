/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VMs that were saved for later: files of machine/snapshot.h, DATA/snapshots/NAME.snap, or
 * anywhere else.  A word with a '/' in it is the path of one.
 */
#ifndef LIFE_SNAPSHOTS_H
#define LIFE_SNAPSHOTS_H

#include "life/vms.h"

#include <stdbool.h>
#include <stddef.h>

/*
 * The file that @what means, absolute; @make makes the folder too.  0, -EINVAL when it can be no name, or another
 * negative errno, with a sentence.
 */
int snapshot_path(const struct vms *vms, const char *what, bool make, char ret_path[PATH_MAX], struct err *err);

/* Reads what the VM was that is saved in @path, as the record of another that has not run; initialised.  0 or a negative errno with a sentence. */
int snapshot_record(const char *path, struct vm_record *ret_record, struct err *err);

/*
 * Copies the disks that are saved with @path into the folder of VM @owned, whose @record then names them and is
 * written.  0 or a negative errno with a sentence.
 */
int snapshot_restore_disks(const char *path, const struct vm_owned *owned, struct vm_record *record, struct err *err);
/* The path of @base from the folder of @file, both absolute: where they have none in common, the absolute one.  0 or a negative errno with a sentence. */
int snapshot_path_between(const char *file, const char *base, char ret_path[PATH_MAX], struct err *err);

/*
 * Whether a snapshot on top of @base (NULL: a full one) may take the place of what is at @path.  0, or -EBUSY with a sentence when
 * another snapshot needs that, or it would need itself.
 */
int snapshot_check_replaced(const struct vms *vms, const char *path, const char *base, struct err *err);

struct snapshot_info {
	char name[NAME_MAX + 1], vm[VM_NAME_MAX];
	char base[PATH_MAX];	/* its name, or path; "": a full one */
	bool compressed;
	uint64_t bytes;	/* of disk */
	int64_t created_s;	/* since 1970 */
};

/* All in the folder, the newest first; the array passes to the caller.  0 or a negative errno with a sentence. */
int snapshots_list(const struct vms *vms, struct snapshot_info **ret_infos, size_t *ret_n, struct err *err);

/* 0, -ENOENT, -EBUSY when others are on top of it and not @force, or another negative errno, with a sentence. */
int snapshot_remove(const struct vms *vms, const char *what, bool force, struct err *err);

#endif /* LIFE_SNAPSHOTS_H */
