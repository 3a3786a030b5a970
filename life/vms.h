/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The VMs of this user, as folders.  Whoever reads them needs nobody's help, and what
 * a killed process left is put right by the next one that looks.
 *
 *   DATA/vms/ID/lock          held while somebody owns the VM: its monitor, or whoever
 *                             is creating, starting or removing it
 *              /record.json   life/record.h; a folder without it is half made and goes
 *              /log.N         life/output.h
 *   DATA/names/NAME           symbolic link to ID: what makes a name unique
 *   STATE/vms/ID/sock         control socket of the monitor, gone after a reboot
 *
 * DATA and STATE are folders of os/folders.h, made with mode 0700.
 *
 * The lock is an open file description lock (fcntl(2)): it ends with its process, also
 * by kill -9, and others can look at it without taking it.
 */
#ifndef LIFE_VMS_H
#define LIFE_VMS_H

#include "life/record.h"

#include <limits.h>

struct err;

struct vms {
	char data[PATH_MAX - 256], state[PATH_MAX - 256];	/* room for the names below them */
};

/* A VM that this process holds the lock of. */
struct vm_owned {
	char id[VM_ID_SIZE];
	int lock_fd;	/* owned; forked processes share the lock until they close it */
	char data[PATH_MAX], state[PATH_MAX];	/* its folders */
};

/* Finds (and makes) the folders.  0 or a negative errno. */
int vms_open(struct vms *ret_vms, struct err *err);

/*
 * Makes a VM of @record, whose id is chosen here, and its name too when it is empty.
 * 0 and the lock in @ret_owned, -EEXIST when the name is taken, or another negative errno.
 * The record, which says that it is there to be started (VM_CREATED), or that it starts, is there for others at once,
 * and durable after vm_sync().
 */
int vms_create(const struct vms *vms, struct vm_record *record, struct vm_owned *ret_owned, struct err *err);

/*
 * Finds the VM with this name, id or unambiguous beginning of an id.  0, -ENOENT, or
 * -ENOTUNIQ, always with a sentence.
 */
int vms_find(const struct vms *vms, const char *what, char ret_id[VM_ID_SIZE], struct err *err);

/* Calls @fn for every VM until it returns nonzero; returns that.  Removes half-made ones. */
typedef int (*vms_fn)(void *ctx, const char *id);
int vms_each(const struct vms *vms, vms_fn fn, void *ctx);

/*
 * Reads a VM's record, put right when its owner has died; *ret_alive tells whether it
 * has one.  0, -ENOENT when there is no such VM (any more), or another negative errno.
 */
int vms_load(const struct vms *vms, const char *id, struct vm_record *ret_record, bool *ret_alive, struct err *err);

/* True when somebody holds the lock of the VM: it runs, or is being changed. */
bool vms_is_owned(const struct vms *vms, const char *id);

/* Takes the lock of a VM, waiting for it at most @wait_ms.  0, -EBUSY, -ENOENT, ... */
int vms_own(const struct vms *vms, const char *id, unsigned wait_ms, struct vm_owned *ret_owned, struct err *err);

/* Gives the lock back. */
void vm_release(struct vm_owned *owned);

/* Writes the record, durably unless the VM goes when it ends.  0 or a negative errno; the file is then as it was. */
int vm_save(const struct vm_owned *owned, const struct vm_record *record, struct err *err);

/* Makes durable what vms_create() wrote. */
void vm_sync(const struct vms *vms, const struct vm_owned *owned);

/* Gives the VM another name; the record is written.  0, -EEXIST, -EINVAL, ... */
int vm_rename(const struct vms *vms, const struct vm_owned *owned, struct vm_record *record, const char *name,
	      struct err *err);

/* Removes all of the VM but the lock, which vm_release() gives back. */
int vm_remove(const struct vms *vms, const struct vm_owned *owned, const char *name, struct err *err);

#endif /* LIFE_VMS_H */
