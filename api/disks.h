/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks that a VM writes to, as of the moment that it was saved at: a file for each beside the snapshot.
 *
 *   disks_begin()   the disk is copied while the guest runs, and what it writes meanwhile is noted; or
 *                   there is hope for FICLONE
 *   disks_stand()   the guest stands still: what it wrote is copied again, or all is cloned in an instant
 *   disks_finish()  it goes on: checksums, and fsync
 *
 * Holes stay holes.  A disk with an overlay is saved as its layer (block/block.h), which is small; the base is the
 * user's, and has to be the same when the VM is restored.
 */
#ifndef API_DISKS_H
#define API_DISKS_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

struct err;
struct roux_machine;

#define DISK_SAVES_MAX 8u
#define DISK_STAMP_SIZE 64u	/* bytes */

struct disk_save {
	unsigned index;	/* of the machine's disks */
	int from, to;	/* owned */
	char path[PATH_MAX];	/* of the copy */
	bool cloned;
	uint64_t at, size;	/* the disk in the file: first byte, bytes */
	uint64_t file_size;
	uint8_t *map;	/* owned, CONTROL_WATCH_MAX bytes: the pieces written since it was copied */
	uint64_t sum;	/* of disk_sum() */
};

struct disk_saves {
	struct disk_save at[DISK_SAVES_MAX];
	unsigned n;
};

/*
 * Begins with disk @index, whose copy is to be "@prefix.diskINDEX".  0 or a negative errno with a sentence.
 * disks_close() is to be called in every case.
 */
int disks_begin(struct disk_saves *saves, struct roux_machine *machine, unsigned index, const char *prefix, struct err *err);

/* While the guest stands still.  0 or a negative errno with a sentence. */
int disks_stand(struct disk_saves *saves, struct err *err);

/* Any time later.  0 or a negative errno with a sentence. */
int disks_finish(struct disk_saves *saves, struct err *err);

/* Unless @keep the copies are removed. */
void disks_close(struct disk_saves *saves, bool keep);

/*
 * Makes a copy of a saved disk, the @size bytes of file @from, at @to, which must not be there, and compares it with
 * its checksum.  0, -EBADMSG when it is another, or another negative errno with a sentence.
 */
int disk_restore(const char *from, uint64_t size, uint64_t sum, const char *to, struct err *err);

/* By which a file that is not saved is known again: its size and when it was written last.  0 or a negative errno. */
int disk_stamp(const char *path, char ret_stamp[DISK_STAMP_SIZE]);

#endif /* API_DISKS_H */
