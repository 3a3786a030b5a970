/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest stopped between two instructions, in one file.
 *
 *   byte 0                  header, SNAPSHOT_HEADER bytes: see struct in snapshot.c
 *   SNAPSHOT_HEADER         state of processors and devices (machine/state.h)
 *   SNAPSHOT_MEMORY         guest RAM, bank after bank; zero pages are holes
 *
 * Numbers are little-endian.  Header and state are under a checksum, which shows
 * damage and not malice: who may write the file may write any guest.
 */
#ifndef MACHINE_SNAPSHOT_H
#define MACHINE_SNAPSHOT_H

#include <stddef.h>
#include <stdint.h>

struct blob;
struct err;
struct vm;

#define SNAPSHOT_HEADER 4096u
#define SNAPSHOT_MEMORY (16ull << 20)

/* By which a snapshot is known: drawn by lot. */
struct snapshot_id {
	uint8_t bytes[16];
};

struct snapshot {
	int fd;	/* owned */
	char engine[16];	/* that it ran on */
	uint8_t *state;	/* owned */
	size_t state_len;
	uint64_t memory;	/* bytes of guest RAM */
	struct snapshot_id id;
};

/*
 * Bytes of the file for a guest with @memory bytes of RAM.  The writer is given one of this size, all
 * holes.
 */
static inline uint64_t snapshot_size(uint64_t memory)
{
	return SNAPSHOT_MEMORY + memory;
}

/*
 * Fills file @fd, which stays the caller's, with the guest of @vm, which is paused, through a mapping: it needs memory or disk, and a
 * process that has run out of either gets SIGBUS.  0, -E2BIG, or another negative errno with a sentence.
 */
int snapshot_write(int fd, const struct blob *state, struct vm *vm, struct snapshot_id *ret_id, struct err *err);

/*
 * Opens and checks.  0, -ENOENT and the like, -EBADMSG when it is damaged or no snapshot, -ENOTSUP
 * when another version of roux wrote it, with a sentence.
 */
int snapshot_open(const char *path, struct snapshot *ret_snapshot, struct err *err);
void snapshot_close(struct snapshot *snapshot);

#endif /* MACHINE_SNAPSHOT_H */
