/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a guest has read of shares and disks that it cannot write to, as a list of ranges: what its template does not have
 * in memory, and later guests will read too.
 *
 *   range:  u16 enum reads_of, u16 number in the spec, u64 offset, u64 length, u16 length of the path, path
 *
 * All little-endian (os/blob.h).  A list comes from a process that a guest may have taken over.
 */
#ifndef MACHINE_READS_H
#define MACHINE_READS_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct blob;
struct blob_reader;
struct machine;

#define READS_FILE_MAX (1u << 20)	/* bytes of a list */
#define READS_LEAST (256u << 10)	/* bytes read that are worth a new template */

enum reads_of { READS_OF_SHARE = 1, READS_OF_DISK = 2 };

struct reads_range {
	enum reads_of of;
	unsigned index;	/* of the share or disk in the spec */
	uint64_t from, len;	/* bytes of the file or of the disk; no more than INT64_MAX together */
	char path[PATH_MAX];	/* of the file, below the share; "" of disks */
};

void reads_put(struct blob *list, const struct reads_range *range);
/* Takes one.  1, 0 at the end, or -EBADMSG. */
int reads_take(struct blob_reader *list, struct reads_range *ret_range);

/* About how many bytes the guest has read. */
uint64_t machine_bytes_read(struct machine *machine);

/* It has read nothing from here on, as when a template has been made of it. */
void machine_forget_reads(struct machine *machine);

/*
 * Fills file @fd, of READS_FILE_MAX bytes, all holes, with the list, or the part of it that fits; it stays the caller's.
 * How many bytes were used, or a negative errno.
 */
int machine_write_reads(struct machine *machine, int fd);

#endif /* MACHINE_READS_H */
