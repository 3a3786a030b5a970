/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest stopped between two instructions, in one file.
 *
 *   byte 0                  header, SNAPSHOT_HEADER bytes: see struct in snapshot.c
 *   SNAPSHOT_HEADER         state of processors and devices (machine/state.h)
 *   SNAPSHOT_NOTES          what the owner of the VM has to say of it, and checksums of all that follows, one for each
 *                           SNAPSHOT_CHUNK bytes; a template has neither
 *   SNAPSHOT_MEMORY         guest RAM, bank after bank; zero pages are holes
 *   behind it               what the engine keeps to save time (machine/code_file.h), if anything
 *
 * Numbers are little-endian.  Checksums show damage and not malice: who may write the
 * file may write any guest.  But code is for the host's processor: whoever takes it has to know from its seal
 * that he made it himself.
 *
 * A template is written by the VM's process (snapshot_write()), through a mapping of a file in memory.  For what
 * people keep that process, which must not write files, only sends the guest through a pipe
 * (snapshot_send_*()), and its owner makes the file (snapshot_build(), snapshot_finish()).
 */
#ifndef MACHINE_SNAPSHOT_H
#define MACHINE_SNAPSHOT_H

#include <stddef.h>
#include <stdint.h>

struct blob;
struct err;
struct vm;

#define SNAPSHOT_HEADER 4096u
#define SNAPSHOT_NOTES (8ull << 20)
#define SNAPSHOT_MEMORY (16ull << 20)
#define SNAPSHOT_CHUNK (2ull << 20)
#define SNAPSHOT_NOTES_MAX (4ull << 20)	/* bytes */
#define SNAPSHOT_CODE_MAX (64ull << 20)

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
	uint64_t code;	/* bytes behind it */
	uint8_t code_seal[32];	/* sha256_keyed() of them, by who made the file */
	struct snapshot_id id;
	char *notes;	/* owned, NUL-terminated; NULL: none */
	uint64_t *sums;	/* owned, of memory; 0: the chunk is a hole.  NULL: none */
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

/*
 * Reads all memory of an opened snapshot of file @path and compares it with its checksums, if there are any.  0, or
 * -EBADMSG or another negative errno with a sentence.
 */
int snapshot_check_memory(const struct snapshot *snapshot, const char *path, struct err *err);

/*
 * To pipe @fd, which blocks: that a guest comes; its memory, all that is not zero or the pages of @bitmap
 * (mem_each_marked()), as often as one likes, also while it runs; and its state, which is the end.  0 or a negative errno
 * with a sentence.
 */
int snapshot_send_start(int fd, const struct vm *vm, struct err *err);
int snapshot_send_memory(int fd, const struct vm *vm, const uint64_t *bitmap, struct err *err);
int snapshot_send_end(int fd, const struct blob *state, struct err *err);

/* A file that is being made of that. */
struct snapshot_file {
	int fd;	/* borrowed */
	struct snapshot_id id;	/* drawn by snapshot_draw() */
	uint64_t state_len, memory, code, written;	/* @written: bytes of memory that came */
	char engine[16];
	uint8_t state_sum[32], code_seal[32];	/* the second is the owner's to fill in */
	uint64_t *sums;	/* owned */
};

void snapshot_draw(struct snapshot_id *ret_id);

/*
 * Reads all of it from @from into the empty file @fd, snapshot @id.  0 or a negative errno with a sentence; to be freed
 * in every case.
 */
int snapshot_build(int from, int fd, const struct snapshot_id *id, struct snapshot_file *ret_file, struct err *err);

/* Puts the first @bytes of file @code, a multiple of the page size, behind the memory.  Once.  0 or a negative errno with a sentence. */
int snapshot_add_code(struct snapshot_file *file, int code, uint64_t bytes, struct err *err);

/*
 * Writes notes, which may be NULL, and the header: the file is a snapshot from then on.  0 or a negative errno with a
 * sentence.
 */
int snapshot_finish(struct snapshot_file *file, const char *notes, struct err *err);
void snapshot_file_free(struct snapshot_file *file);

#endif /* MACHINE_SNAPSHOT_H */
