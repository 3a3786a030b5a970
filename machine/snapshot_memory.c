/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/snapshot_memory.h"

#include "machine/snapshot_inside.h"
#include "machine/snapshot_pack.h"
#include "os/err.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MAPPED_LEAST 64u	/* pages in a row that are worth a mapping; fewer are copied */
#define MAPPINGS_MAX 8192u	/* of one file: a process has 65530 (vm.max_map_count) */

static int map(int fd, uint8_t *to, uint64_t len, uint64_t at)
{
	if (mmap(to, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, fd, (off_t)at) == MAP_FAILED)
		return -errno;
	(void)madvise(to, len, MADV_DONTDUMP);
	return 0;
}

/* The pages of [@offset, @offset + @len) that are in the file, over what is at @to. */
static int lay_pages(const struct snapshot *s, uint64_t offset, uint64_t len, uint8_t *to)
{
	const uint64_t first = offset / MEM_PAGE, end = first + len / MEM_PAGE;
	unsigned mappings = 0;
	uint64_t run;
	int r = 0;

	for (uint64_t page = first; page < end && r == 0; page += run) {
		uint8_t *at = to + (page - first) * MEM_PAGE;
		uint64_t where = SNAPSHOT_MEMORY + page * MEM_PAGE;

		run = snapshot_run(s->pages, page, end);
		if (!snapshot_has_page(s->pages, page))
			continue;
		if (run < MAPPED_LEAST || mappings == MAPPINGS_MAX) {
			r = snapshot_read(s->fd, at, run * MEM_PAGE, where);
		} else {
			r = map(s->fd, at, run * MEM_PAGE, where);
			mappings++;
		}
	}
	return r;
}

/* All that the files of a chain have of that, the lowest first; but not what the root has where it is just RAM. */
static int lay_chain(const struct snapshot *s, uint64_t offset, uint64_t len, uint8_t *to, struct err *err)
{
	int r = s->base ? lay_chain(s->base, offset, len, to, err) : 0;

	if (r < 0)
		return r;
	r = s->packed ? snapshot_unpack(s, offset, len, to) : s->pages ? lay_pages(s, offset, len, to) : 0;
	return r == -EBADMSG ? err_set(err, r, "snapshot %s is damaged; take it again", s->path) :
	       r < 0 ? err_set(err, r, "cannot read snapshot %s: %s", s->path, strerror(-r)) : 0;
}

int snapshot_memory(const struct snapshot *s, struct mem **ret_mem, struct err *err)
{
	const struct snapshot *root = snapshot_root(s);
	struct mem *mem = NULL;
	int r;

	r = root->pages ? mem_create(s->memory, &mem, err) : mem_create_from(root->fd, SNAPSHOT_MEMORY, s->memory, &mem, err);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < mem->nbanks && r == 0; i++) {
		struct mem_bank *b = &mem->bank[i];

		r = lay_chain(s, b->offset, b->size, b->host, err);
		for (const struct snapshot *level = s; level; level = level->base)
			b->file |= !level->packed;
		if (s != root)
			b->nbare = 0;	/* they have pages of the other files now */
	}
	if (r < 0)
		mem_destroy(mem);
	else
		*ret_mem = mem;
	return r;
}

/* ------------------------------------------------------------------------ view */

static void set_bits(uint64_t *bits, uint64_t from, uint64_t end)
{
	for (; from < end; from++)
		bits[from / 64] |= 1ull << from % 64;
}

/* Where a file that has all of RAM has no hole. */
static void note_data(const struct snapshot *s, uint64_t *there)
{
	off_t at = SNAPSHOT_MEMORY, end = (off_t)(SNAPSHOT_MEMORY + s->memory);

	while (at < end && (at = lseek(s->fd, at, SEEK_DATA)) >= 0 && at < end) {
		off_t hole = lseek(s->fd, at, SEEK_HOLE);

		if (hole < 0 || hole > end)
			hole = end;
		set_bits(there, ((uint64_t)at - SNAPSHOT_MEMORY) / MEM_PAGE,
			 ((uint64_t)hole - SNAPSHOT_MEMORY + MEM_PAGE - 1) / MEM_PAGE);
		at = hole;
	}
}

static void note_there(const struct snapshot *s, uint64_t *there)
{
	for (; s; s = s->base) {
		if (!s->pages)
			note_data(s, there);
		for (uint64_t i = 0; s->pages && i < snapshot_pages_len(s->memory) / 8; i++)
			there[i] |= s->pages[i];
	}
}

int snapshot_view(const struct snapshot *s, struct snapshot_view *ret, struct err *err)
{
	const struct snapshot *root = snapshot_root(s);
	void *at = mmap(NULL, s->memory, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE | (root->pages ? MAP_ANONYMOUS : 0),
			root->pages ? -1 : root->fd, root->pages ? 0 : SNAPSHOT_MEMORY);
	int r;

	*ret = (struct snapshot_view){ .bytes = s->memory };
	ret->memory = at == MAP_FAILED ? NULL : at;
	ret->there = calloc(1, snapshot_pages_len(s->memory));
	if (!ret->memory || !ret->there)
		r = err_set(err, -ENOMEM, "cannot map snapshot %s: out of memory", s->path);
	else
		r = lay_chain(s, 0, s->memory, ret->memory, err);
	if (r < 0)
		snapshot_view_finish(ret);
	else
		note_there(s, ret->there);
	return r;
}

void snapshot_view_finish(struct snapshot_view *view)
{
	if (view->memory)
		(void)munmap(view->memory, view->bytes);
	free(view->there);
	*view = (struct snapshot_view){ .memory = NULL };
}
