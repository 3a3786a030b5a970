/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an engine keeps to save time (vmm/engine.h: translated code), in a file beside the snapshot
 * that it belongs to, or behind the memory in that; it may be missing, and a file be replaced at any time.
 *
 *   byte 0            header, CODE_FILE_HEADER bytes: see struct in code_file.c
 *   CODE_FILE_HEADER  what the engine wrote
 *
 * The header is under a checksum; the rest is the engine's, and as little proof against malice as
 * the program itself.
 */
#ifndef MACHINE_CODE_FILE_H
#define MACHINE_CODE_FILE_H

#include <stdint.h>

struct err;
struct snapshot_id;
struct vm;

#define CODE_FILE_HEADER 4096u
#define CODE_FILE_MAX (1ull << 30)

/*
 * Fills file @fd, of CODE_FILE_MAX bytes, all holes, with what the engine of @vm, which is paused, keeps
 * for guests from snapshot @id, through a mapping, as snapshot_write() does; @generation counts how often
 * that was done.  0, and how many bytes of the file were used (0: there is nothing to keep), or a negative errno
 * with a sentence.
 */
int code_file_write(int fd, const struct snapshot_id *id, uint32_t generation, struct vm *vm, uint64_t *ret_bytes,
		    struct err *err);

/*
 * Gives bytes [@offset, @offset + @bytes) of file @fd, which must not change later, to the engine of @vm, whose memory
 * is that of snapshot @id and which has not run.  0 and its generation, or a negative errno with a sentence: the VM
 * works all the same.
 */
int code_file_take(int fd, uint64_t offset, uint64_t bytes, const struct snapshot_id *id, struct vm *vm,
		   uint32_t *ret_generation, struct err *err);

/* The same for all of file @path. */
int code_file_take_path(const char *path, const struct snapshot_id *id, struct vm *vm, uint32_t *ret_generation,
			struct err *err);

#endif /* MACHINE_CODE_FILE_H */
