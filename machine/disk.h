/* SPDX-License-Identifier: Apache-2.0 */
/* A disk as a spec has it (machine/spec.h), opened: a file, several behind one another, copy on write in memory. */
#ifndef MACHINE_DISK_H
#define MACHINE_DISK_H

struct block;
struct err;
struct spec_disk;

/* 0 with a device that the caller owns, or a negative errno with a sentence that names the file. */
int disk_open(const struct spec_disk *disk, struct block **ret_blk, struct err *err);

#endif /* MACHINE_DISK_H */
