/* SPDX-License-Identifier: Apache-2.0 */
/* What vms.c (folders, locks, records) and vms_names.c share. */
#ifndef LIFE_VMS_INSIDE_H
#define LIFE_VMS_INSIDE_H

#include "life/vms.h"

/* DATA/vms/ID with @file behind it, and DATA/names/NAME. */
void vms_path(const struct vms *vms, const char *id, const char *file, char ret[PATH_MAX]);
void vms_name_path(const struct vms *vms, const char *name, char ret[PATH_MAX]);

/* VM @id as owned by whoever has @lock_fd, which passes to it. */
void vms_owned(const struct vms *vms, const char *id, int lock_fd, struct vm_owned *ret_owned);

/* Reads the record as it is in its file.  0, -ENOENT, -EBADMSG with a sentence, ... */
int vms_read_record(const struct vms *vms, const char *id, struct vm_record *record, struct err *err);

/* What the link of @name says; false when there is none. */
bool vms_name_owner(const struct vms *vms, const char *name, char ret_id[VM_ID_SIZE]);

/* Takes the name in @record, or a random one into it when there is none.  0, -EEXIST, -EINVAL, ... */
int vms_choose_name(const struct vms *vms, struct vm_record *record, struct err *err);

/* Gives @name back if it is the VM's. */
void vms_drop_name(const struct vms *vms, const char *name, const char *id);

#endif /* LIFE_VMS_INSIDE_H */
