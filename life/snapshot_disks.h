/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the notes of a snapshot say of the VM's disks, in the order of its record:
 *
 *   "Disks": [ { "File": "NAME.snap.0123456789abcdef.disk0", "Bytes": 1048576, "Sum": "0123456789abcdef" },
 *              { "Stamp": "1048576:1700000000.000000000" } ]
 *
 * File: the disk, or the layer of its overlay, beside the snapshot.  Stamp: the file that the record names has to be
 * the one it was (api/disks.h); both for an overlay and its base.  A VM restored from it has copies in its own folder:
 *
 *   diskN        a disk: its record names it
 *   diskN.layer  the layer of an overlay, for its first life
 */
#ifndef LIFE_SNAPSHOT_DISKS_H
#define LIFE_SNAPSHOT_DISKS_H

#include "life/record.h"

#include <limits.h>

struct cJSON;
struct disk_saves;
struct err;

/* What the files of the next snapshot at @path begin with: another each time.  0 or a negative errno with a sentence. */
int snapshot_disks_prefix(const char *path, char ret_prefix[PATH_MAX], struct err *err);

/* Adds "Disks" to @notes.  0 or a negative errno with a sentence. */
int snapshot_disks_describe(struct cJSON *notes, const struct vm_config *config, const struct disk_saves *saves, struct err *err);

/* Removes files of disks that belong to snapshot @path but do not begin with @prefix; NULL: all of them. */
void snapshot_disks_tidy(const char *path, const char *prefix);

/* Bytes that those of snapshot @path have on the host's disk, if nothing is shared. */
uint64_t snapshot_disks_bytes(const char *path);

/*
 * Copies the disks of snapshot @path with notes @text into @folder, and has @config name them.  0, -EBADMSG when they
 * are damaged, -ESTALE when one that was not saved has changed, or another negative errno with a sentence.
 */
int snapshot_disks_restore(const char *path, const char *text, const char *folder, struct vm_config *config, struct err *err);

/* Path of the layer of disk @index in @folder.  True when it is there. */
bool snapshot_disks_layer(const char *folder, unsigned index, char ret_path[PATH_MAX]);

#endif /* LIFE_SNAPSHOT_DISKS_H */
