/* SPDX-License-Identifier: Apache-2.0 */
/* What the files that read and write snapshots share (machine/snapshot.h). */
#ifndef MACHINE_SNAPSHOT_INSIDE_H
#define MACHINE_SNAPSHOT_INSIDE_H

#include "machine/snapshot.h"

#include "vmm/guest_mem.h"

#define SNAPSHOT_VERSION 4u
#define SNAPSHOT_STATE_MAX (SNAPSHOT_NOTES - SNAPSHOT_HEADER)

#define HAS_SUMS 1u
#define HAS_PAGES 2u	/* not all are there */
#define IS_PACKED 4u	/* and they are compressed */
#define HAS_BASE 8u	/* those that are not there are in another file; otherwise they are zero */

struct snapshot_header {
	char magic[8];
	uint32_t version;
	uint32_t flags;
	uint64_t state_len;
	uint64_t memory;
	uint64_t notes_len;	/* bytes, NUL included; 0: none */
	uint64_t code;	/* bytes behind the memory */
	struct snapshot_id id;
	char engine[16];	/* NUL-terminated */
	uint8_t state_sum[32];	/* SHA-256 of the state */
	uint8_t notes_sum[32];	/* of notes, checksums, and which pages are there */
	uint8_t code_seal[32];	/* see struct snapshot */
	uint64_t stored;	/* the same */
	uint8_t base_sum[32];
	char base_path[SNAPSHOT_BASE_MAX];	/* NUL-terminated */
	uint8_t sum[32];	/* of the header in front of this */
};

_Static_assert(sizeof(struct snapshot_header) == 1272 && sizeof(struct snapshot_header) <= SNAPSHOT_HEADER, "no padding");

void snapshot_sum_bytes(const void *bytes, size_t len, uint8_t ret_sum[32]);
/* Version, magic and checksum. */
void snapshot_seal(struct snapshot_header *header);
/* Of one chunk.  Never 0, which stands for nothing. */
uint64_t snapshot_sum_chunk(const uint8_t *bytes, uint64_t len);

/* Of memory, and of code behind it: in a chunk of its own where it begins. */
static inline uint64_t snapshot_chunks(uint64_t bytes)
{
	return (bytes + SNAPSHOT_CHUNK - 1) / SNAPSHOT_CHUNK;
}

/* Where checksums are, behind the notes. */
static inline uint64_t snapshot_sums_at(uint64_t notes_len)
{
	return SNAPSHOT_NOTES + ((notes_len + 7) & ~7ull);
}

/* Bytes of a bit for each page. */
static inline uint64_t snapshot_pages_len(uint64_t memory)
{
	return (memory / MEM_PAGE + 63) / 64 * 8;
}

/* Bytes of the lengths of compressed chunks, those of code behind those of memory. */
static inline uint64_t snapshot_packed_len(uint64_t memory, uint64_t code)
{
	return (snapshot_chunks(memory) + snapshot_chunks(code)) * sizeof(uint32_t);
}

static inline uint64_t snapshot_whole_pages(uint64_t bytes)
{
	return (bytes + MEM_PAGE - 1) / MEM_PAGE * MEM_PAGE;
}

static inline bool snapshot_has_page(const uint64_t *pages, uint64_t page)
{
	return pages[page / 64] >> page % 64 & 1;
}

/* How many pages from @page on, before @end, are there, or are not, as that one. */
static inline uint64_t snapshot_run(const uint64_t *pages, uint64_t page, uint64_t end)
{
	bool there = snapshot_has_page(pages, page);
	uint64_t at = page + 1;

	while (at < end && snapshot_has_page(pages, at) == there)
		at += at % 64 == 0 && end - at >= 64 && pages[at / 64] == (there ? ~0ull : 0) ? 64 : 1;
	return at - page;
}

/* Those of chunk @chunk's pages that are there, of memory at @memory, one after another to @to, which has room for all; bytes. */
uint64_t snapshot_gather(const uint64_t *pages, uint64_t memory_len, uint64_t chunk, const uint8_t *memory, uint8_t *to);

/* Reads all of @len bytes at @at.  0, -EBADMSG when the file ends before, or another negative errno. */
int snapshot_read(int fd, void *to, size_t len, uint64_t at);

#endif /* MACHINE_SNAPSHOT_INSIDE_H */
