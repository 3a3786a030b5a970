/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest stopped between two instructions, in one file.
 *
 *   byte 0                  header, SNAPSHOT_HEADER bytes: see struct in snapshot_inside.h
 *   SNAPSHOT_HEADER         state of processors and devices (machine/state.h)
 *   SNAPSHOT_NOTES          what the owner of the VM has to say of it, and checksums of all that follows, one for each
 *                           SNAPSHOT_CHUNK bytes; a template has neither
 *   SNAPSHOT_MEMORY         guest RAM, bank after bank; zero pages are holes
 *   behind it               what the engine keeps to save time (machine/code_file.h), if anything
 *   behind that             which pages of RAM are in the file, a bit for each, where not all are
 *
 * Not all are there in a file with a base, another snapshot: the others are as they are there.  That one may
 * have a base too: together they are a chain, whose last is a full one.  A base is known by the checksum of its header,
 * which stands for every byte of it (and of its base), and is looked for at the path in the file, relative to that, then
 * beside it, then among the snapshots of this user.
 *
 * In a compressed file there is, in place of RAM, for each SNAPSHOT_CHUNK bytes of it one frame of Zstandard with the
 * pages of the chunk that are in the file, one after another (no frame: none are); their lengths follow the bits.  Zero
 * pages are in no full one.  From the next page on the same for code, of which all is there.
 *
 * Numbers are little-endian.  Checksums show damage and not malice: who may write the
 * file may write any guest.  But code is for the host's processor: whoever takes it has to know from its seal
 * that he made it himself.
 *
 * A template is written by the VM's process (snapshot_write()), through a mapping of a file in memory.  For what
 * people keep that process, which must not write files, only sends the guest through a pipe
 * (snapshot_send_*()), and its owner makes the file (machine/snapshot_make.h).
 */
#ifndef MACHINE_SNAPSHOT_H
#define MACHINE_SNAPSHOT_H

#include <stdbool.h>
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
#define SNAPSHOT_BASE_MAX 1024u	/* bytes of the path of one, NUL included */
#define SNAPSHOT_CHAIN_MAX 16u	/* files: each is one more to be there and whole */

/* By which a snapshot is known: drawn by lot. */
struct snapshot_id {
	uint8_t bytes[16];
};

struct snapshot {
	int fd;	/* owned */
	char *path;	/* owned, for messages */
	char engine[16];	/* that it ran on */
	uint8_t *state;	/* owned */
	size_t state_len;
	uint64_t memory;	/* bytes of guest RAM */
	uint64_t stored;	/* bytes of the file that are RAM: as many, or what is left of them, and of code */
	uint64_t code;	/* bytes behind it */
	uint8_t code_seal[32];	/* sha256_keyed() of them, by who made the file */
	struct snapshot_id id;
	uint8_t sum[32];	/* of the header: stands for all of it */
	char *notes;	/* owned, NUL-terminated; NULL: none */
	uint64_t *sums;	/* owned, of memory; 0: nothing of the chunk is here.  NULL: none */
	uint64_t *pages;	/* owned: a bit for each page that is here.  NULL: all are */
	uint32_t *packed;	/* owned, bytes of each chunk.  NULL: it is not compressed */
	char base_path[SNAPSHOT_BASE_MAX];	/* as in the file; "": it is full */
	uint8_t base_sum[32];
	struct snapshot *base;	/* owned; NULL: none, or not opened yet */
};

/*
 * Bytes of a template for a guest with @memory bytes of RAM.  The writer is given one of this size, all
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
 * Opens and checks, all but memory and code.  0, -ENOENT and the like, -EBADMSG when it is damaged or no snapshot, -ENOTSUP
 * when another version of roux wrote it, with a sentence.
 */
int snapshot_open(const char *path, struct snapshot *ret_snapshot, struct err *err);
void snapshot_close(struct snapshot *snapshot);

/*
 * Which snapshot file @fd is, of a guest with @memory bytes that are in it as they are, through a mapping, as jails allow no
 * other reading of files.  0, -EBADMSG and the like as snapshot_open(), or -EINVAL.
 */
int snapshot_read_id(int fd, uint64_t memory, struct snapshot_id *ret_id);

/*
 * Opens the snapshots that an opened one is on top of, into ->base.  0, -ENOENT when one is not there, -ESTALE when
 * another is in its place, -EBADMSG when it is damaged, or another negative errno, with a sentence.
 */
int snapshot_open_bases(struct snapshot *snapshot, struct err *err);

/* Files of a chain, 1 for a full snapshot; its bases are open. */
unsigned snapshot_depth(const struct snapshot *snapshot);

/* The one at its end, which is full. */
const struct snapshot *snapshot_root(const struct snapshot *snapshot);

/*
 * Code of it, which has some: as byte @ret_at and what follows of file @ret_fd, to be closed by the caller, where it is
 * decompressed.  0, -EBADMSG when that cannot be done, or another negative errno.
 */
int snapshot_code(const struct snapshot *snapshot, int *ret_fd, uint64_t *ret_at);

/*
 * Reads all memory and code of an opened snapshot and its opened bases, and compares them with their checksums, if
 * there are any.  Not what is compressed, of which that is done when it is used (machine/snapshot_memory.h).  0, or -EBADMSG or
 * another negative errno with a sentence.
 */
int snapshot_check_memory(const struct snapshot *snapshot, struct err *err);

/*
 * To pipe @fd, which blocks: that a guest comes; its memory, all that is not zero or the pages of @bitmap
 * (mem_each_marked()), as often as one likes, also while it runs; and its state, which is the end.  0 or a negative errno
 * with a sentence.
 */
int snapshot_send_start(int fd, const struct vm *vm, struct err *err);
int snapshot_send_memory(int fd, const struct vm *vm, const uint64_t *bitmap, struct err *err);
int snapshot_send_end(int fd, const struct blob *state, struct err *err);

#endif /* MACHINE_SNAPSHOT_H */
