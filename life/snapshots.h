/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VMs that were saved for later: files of machine/snapshot.h, DATA/snapshots/NAME.snap, or
 * anywhere else.  A word with a '/' in it is the path of one.
 */
#ifndef LIFE_SNAPSHOTS_H
#define LIFE_SNAPSHOTS_H

#include "life/vms.h"

#include <stddef.h>

/*
 * The file that @what means, absolute; @make makes the folder too.  0, -EINVAL when it can be no name, or another
 * negative errno, with a sentence.
 */
int snapshot_path(const struct vms *vms, const char *what, bool make, char ret_path[PATH_MAX], struct err *err);

/* Reads what the VM was that is saved in @path, as the record of another that has not run; initialised.  0 or a negative errno with a sentence. */
int snapshot_record(const char *path, struct vm_record *ret_record, struct err *err);

struct snapshot_info {
	char name[NAME_MAX + 1], vm[VM_NAME_MAX];
	uint64_t bytes;	/* of disk */
	int64_t created_s;	/* since 1970 */
};

/* All in the folder, the newest first; the array passes to the caller.  0 or a negative errno with a sentence. */
int snapshots_list(const struct vms *vms, struct snapshot_info **ret_infos, size_t *ret_n, struct err *err);

/* 0, -ENOENT or another negative errno, with a sentence. */
int snapshot_remove(const struct vms *vms, const char *what, struct err *err);

#endif /* LIFE_SNAPSHOTS_H */
