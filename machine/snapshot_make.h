/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file of a snapshot (machine/snapshot.h) made of what snapshot_send_*() send.
 *
 *   snapshot_build -> [ snapshot_add_code ] -> snapshot_finish -> snapshot_file_free
 *
 * Pages come in any order and more than once.  Of those that are as in the base nothing is written.  What is to be
 * compressed goes to a scratch file first: only at the end is it known what a page is.
 *
 * Threads: one file, one thread at a time.
 */
#ifndef MACHINE_SNAPSHOT_MAKE_H
#define MACHINE_SNAPSHOT_MAKE_H

#include "machine/snapshot.h"

/* What the file is to be; all zero but @scratch -1: full and as it is. */
struct snapshot_plan {
	const struct snapshot *base;	/* borrowed, with its bases, until snapshot_build() is done.  NULL: none */
	const char *base_path;	/* borrowed: what to call it in the file */
	int scratch;	/* borrowed, an empty file for memory until it is compressed.  -1: it is not to be */
};

struct snapshot_file {
	int fd;	/* borrowed */
	struct snapshot_id id;	/* drawn by snapshot_draw() */
	uint64_t state_len, memory, stored, code;
	uint64_t written;	/* bytes of memory that it has, before compression */
	char engine[16];
	uint8_t state_sum[32], code_seal[32];	/* the second is the owner's to fill in */
	uint64_t *sums;	/* owned */
	uint64_t *pages;	/* owned; as in struct snapshot */
	uint32_t *packed;	/* owned; the same */
	char base_path[SNAPSHOT_BASE_MAX];
	uint8_t base_sum[32];
};

void snapshot_draw(struct snapshot_id *ret_id);

/*
 * Reads all of it from @from into the empty file @fd, snapshot @id.  0, or a negative errno with a sentence: -EBADMSG
 * when the base is damaged, -EINVAL when it is of another machine.  To be freed in every case.
 */
int snapshot_build(int from, int fd, const struct snapshot_id *id, const struct snapshot_plan *plan,
		   struct snapshot_file *ret_file, struct err *err);

/* Puts the first @bytes of file @code, a multiple of the page size, behind the memory.  Once.  0 or a negative errno with a sentence. */
int snapshot_add_code(struct snapshot_file *file, int code, uint64_t bytes, struct err *err);

/*
 * Writes notes, which may be NULL, and the header: the file is a snapshot from then on.  0 or a negative errno with a
 * sentence.
 */
int snapshot_finish(struct snapshot_file *file, const char *notes, struct err *err);
void snapshot_file_free(struct snapshot_file *file);

#endif /* MACHINE_SNAPSHOT_MAKE_H */
