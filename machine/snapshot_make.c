/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/snapshot_make.h"

#include "base/sha256.h"
#include "machine/snapshot_inside.h"
#include "machine/snapshot_memory.h"
#include "machine/snapshot_pack.h"
#include "machine/snapshot_send.h"
#include "os/err.h"
#include "os/file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

/* What is only needed until the guest is there. */
struct making {
	struct snapshot_file *f;
	struct snapshot_view base;	/* zeros where there is none */
	uint64_t *came;	/* a bit for each page that was sent; NULL without a base */
	int to;	/* where memory goes ... */
	uint64_t to_at;	/* ... from this byte on */
};

void snapshot_draw(struct snapshot_id *ret_id)
{
	(void)getrandom(ret_id, sizeof(*ret_id), 0);
}

/* 0, or -EPIPE at an end that comes too early. */
static int take_all(int fd, void *to, uint64_t len)
{
	uint8_t *at = to;

	while (len) {
		ssize_t n = read(fd, at, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EPIPE;
		at += n;
		len -= (uint64_t)n;
	}
	return 0;
}

/* ---------------------------------------------------------------------- memory */

static bool is_zero(const uint8_t *page)
{
	return page[0] == 0 && memcmp(page, page + 1, MEM_PAGE - 1) == 0;
}

/* Not as in the base, or where there is none, not zero. */
static bool differs(const struct making *m, uint64_t page, const uint8_t *bytes)
{
	return m->base.bytes && snapshot_view_there(&m->base, page) ?
		memcmp(bytes, m->base.memory + page * MEM_PAGE, MEM_PAGE) != 0 : !is_zero(bytes);
}

static void mark(uint64_t *pages, uint64_t page, bool there)
{
	if (there)
		pages[page / 64] |= 1ull << page % 64;
	else
		pages[page / 64] &= ~(1ull << page % 64);
}

/* Those of @len bytes that the file needs: what a page no longer differs in stays in the file and means nothing. */
static int put_pages(struct making *m, const uint8_t *bytes, uint64_t len, uint64_t offset)
{
	uint64_t first = offset / MEM_PAGE, end = first + len / MEM_PAGE, run;
	int r = 0;

	if (offset % MEM_PAGE || len % MEM_PAGE)
		return -EPROTO;
	for (uint64_t page = first; page < end; page++) {
		mark(m->f->pages, page, differs(m, page, bytes + (page - first) * MEM_PAGE));
		if (m->came)
			mark(m->came, page, true);
	}
	for (uint64_t page = first; page < end && r == 0; page += run) {
		run = snapshot_run(m->f->pages, page, end);
		if (snapshot_has_page(m->f->pages, page))
			r = file_write_at(m->to, bytes + (page - first) * MEM_PAGE, run * MEM_PAGE, m->to_at + page * MEM_PAGE);
	}
	return r;
}

static int take_run(int from, struct making *m, struct send_run run, uint8_t *buffer)
{
	int r = 0;

	while (run.len && r == 0) {
		uint64_t part = run.len < SNAPSHOT_CHUNK ? run.len : SNAPSHOT_CHUNK;

		r = take_all(from, buffer, part);
		if (r == 0)
			r = m->f->pages ? put_pages(m, buffer, part, run.offset) :
				file_write_at(m->to, buffer, part, m->to_at + run.offset);
		m->f->written += part;
		run.offset += part;
		run.len -= part;
	}
	return r;
}

/* What did not come is zero: also where the base is not.  In the file it is a hole. */
static void note_zeros(struct making *m)
{
	for (uint64_t page = 0; page < m->f->memory / MEM_PAGE; page++)
		if (!snapshot_has_page(m->came, page) && snapshot_view_there(&m->base, page) &&
		    !is_zero(m->base.memory + page * MEM_PAGE))
			mark(m->f->pages, page, true);
}

static int take_state(int from, struct snapshot_file *f)
{
	uint8_t *state = malloc(f->state_len ? f->state_len : 1);
	int r = state ? take_all(from, state, f->state_len) : -ENOMEM;

	if (r == 0)
		r = file_write_at(f->fd, state, f->state_len, SNAPSHOT_HEADER);
	if (r == 0)
		snapshot_sum_bytes(state, f->state_len, f->state_sum);
	free(state);
	return r;
}

/* Memory, in whatever order, then state. */
static int take_guest(int from, struct making *m)
{
	uint8_t *buffer = malloc(SNAPSHOT_CHUNK);
	struct send_run run = { .len = 1 };
	int r = buffer ? 0 : -ENOMEM;

	while (r == 0 && run.len) {
		r = take_all(from, &run, sizeof(run));
		if (r == 0 && run.len && (run.offset > m->f->memory || run.len > m->f->memory - run.offset))
			r = -EPROTO;
		if (r == 0)
			r = take_run(from, m, run, buffer);
	}
	free(buffer);
	if (r == 0 && run.offset > SNAPSHOT_STATE_MAX)
		r = -EPROTO;
	m->f->state_len = run.offset;
	if (r == 0 && m->came)
		note_zeros(m);
	return r < 0 ? r : take_state(from, m->f);
}

/* Of what is in the file: some of it came more than once. */
static int sum_all(struct snapshot_file *f, const uint8_t *memory)
{
	off_t at = SNAPSHOT_MEMORY;

	while ((at = lseek(f->fd, at, SEEK_DATA)) >= 0 && (uint64_t)at < SNAPSHOT_MEMORY + f->memory) {
		uint64_t i = ((uint64_t)at - SNAPSHOT_MEMORY) / SNAPSHOT_CHUNK, start = i * SNAPSHOT_CHUNK;
		uint64_t len = f->memory - start < SNAPSHOT_CHUNK ? f->memory - start : SNAPSHOT_CHUNK;

		f->sums[i] = snapshot_sum_chunk(memory + start, len);
		at = (off_t)(SNAPSHOT_MEMORY + start + len);
	}
	return 0;
}

static int sum_pages(struct snapshot_file *f, const uint8_t *memory)
{
	uint8_t *buffer = malloc(SNAPSHOT_CHUNK);

	for (uint64_t i = 0; buffer && i < snapshot_chunks(f->memory); i++) {
		uint64_t len = snapshot_gather(f->pages, f->memory, i, memory, buffer);

		f->sums[i] = len ? snapshot_sum_chunk(buffer, len) : 0;
	}
	free(buffer);
	return buffer ? 0 : -ENOMEM;
}

static int sum_memory(struct snapshot_file *f)
{
	const uint8_t *memory = mmap(NULL, f->memory, PROT_READ, MAP_SHARED, f->fd, SNAPSHOT_MEMORY);
	int r;

	if (memory == MAP_FAILED)
		return -errno;
	r = f->pages ? sum_pages(f, memory) : sum_all(f, memory);
	(void)munmap((void *)(uintptr_t)memory, f->memory);
	return r;
}

static uint64_t count(const uint64_t *pages, uint64_t len)
{
	uint64_t n = 0;

	for (uint64_t i = 0; i < len / sizeof(*pages); i++)
		n += (uint64_t)__builtin_popcountll(pages[i]);
	return n;
}

static bool sane_head(const struct send_head *h)
{
	return memcmp(h->magic, SNAPSHOT_SEND_MAGIC, sizeof(h->magic)) == 0 && h->memory && h->memory < 1ull << 50 &&
	       snapshot_sums_at(SNAPSHOT_NOTES_MAX) + 8 * (snapshot_chunks(h->memory) + snapshot_chunks(SNAPSHOT_CODE_MAX)) <=
		       SNAPSHOT_MEMORY && memchr(h->engine, '\0', sizeof(h->engine));
}

/* Room for what the plan needs. */
static int prepare(struct making *m, const struct snapshot_plan *plan, const struct send_head *head, struct err *err)
{
	struct snapshot_file *f = m->f;

	f->memory = f->stored = head->memory;
	memcpy(f->engine, head->engine, sizeof(f->engine));
	f->sums = calloc(snapshot_chunks(f->memory) + snapshot_chunks(SNAPSHOT_CODE_MAX), sizeof(*f->sums));
	f->pages = plan->base || plan->scratch >= 0 ? calloc(1, snapshot_pages_len(f->memory)) : NULL;
	f->packed = plan->scratch >= 0 ? calloc(1, snapshot_packed_len(f->memory, SNAPSHOT_CODE_MAX)) : NULL;
	m->came = plan->base ? calloc(1, snapshot_pages_len(f->memory)) : NULL;
	m->to = plan->scratch >= 0 ? plan->scratch : f->fd;
	m->to_at = plan->scratch >= 0 ? 0 : SNAPSHOT_MEMORY;
	if (!f->sums || (!f->pages && (plan->base || plan->scratch >= 0)) || (!f->packed && plan->scratch >= 0) ||
	    (plan->base && !m->came))
		return err_set(err, -ENOMEM, "out of memory");
	if (f->pages && f->memory % MEM_PAGE)
		return err_set(err, -EPROTO, "memory of no whole pages");
	if (plan->base && plan->base->memory != f->memory)
		return err_set(err, -EINVAL, "snapshot %s is of a VM with %llu MiB of memory, and this one has %llu", plan->base->path,
			       (unsigned long long)(plan->base->memory >> 20), (unsigned long long)(f->memory >> 20));
	if (ftruncate(m->to, (off_t)(m->to_at + f->memory)) < 0)
		return err_set(err, -errno, "cannot write the snapshot: %s", strerror(errno));
	return plan->base ? snapshot_view(plan->base, &m->base, err) : 0;
}

/* By what the base is found again. */
static int name_base(struct snapshot_file *f, const struct snapshot_plan *plan, struct err *err)
{
	if (!plan->base)
		return 0;
	if (!plan->base->sums)
		return err_set(err, -EINVAL, "%s was not made by 'roux checkpoint' and cannot be a base", plan->base->path);
	if (snapshot_depth(plan->base) >= SNAPSHOT_CHAIN_MAX)
		return err_set(err, -ELOOP, "snapshot %s is on top of %u others, and there can be no more; save a full one", plan->base->path,
			       SNAPSHOT_CHAIN_MAX - 1);
	if (!plan->base_path[0] || strlen(plan->base_path) >= sizeof(f->base_path))
		return err_set(err, -ENAMETOOLONG, "the path of the base is too long");
	(void)snprintf(f->base_path, sizeof(f->base_path), "%s", plan->base_path);
	memcpy(f->base_sum, plan->base->sum, sizeof(f->base_sum));
	return 0;
}

int snapshot_build(int from, int fd, const struct snapshot_id *id, const struct snapshot_plan *plan, struct snapshot_file *f,
		   struct err *err)
{
	struct making m = { .f = f };
	struct send_head head;
	int r, failed;

	*f = (struct snapshot_file){ .fd = fd, .id = *id };
	r = name_base(f, plan, err);
	if (r < 0)
		return r;
	r = failed = take_all(from, &head, sizeof(head));
	if (r == 0 && !sane_head(&head))
		r = failed = -EPROTO;
	if (r == 0)
		r = prepare(&m, plan, &head, err);
	if (r == 0)
		r = failed = take_guest(from, &m);
	if (r == 0 && f->pages)
		f->written = count(f->pages, snapshot_pages_len(f->memory)) * MEM_PAGE;
	if (r == 0)
		r = failed = f->packed ? snapshot_pack(m.to, f) : sum_memory(f);
	snapshot_view_finish(&m.base);
	free(m.came);
	return failed < 0 ? err_set(err, failed, "cannot write the snapshot: %s", strerror(-failed)) : r;
}

/* ------------------------------------------------------------------- the rest */

int snapshot_add_code(struct snapshot_file *f, int code, uint64_t bytes, struct err *err)
{
	uint64_t *sums = f->sums + snapshot_chunks(f->memory), start = SNAPSHOT_MEMORY + f->stored;
	const uint8_t *at;
	int r = 0;

	if (!bytes || bytes > SNAPSHOT_CODE_MAX)
		return 0;
	at = mmap(NULL, bytes, PROT_READ, MAP_SHARED, code, 0);
	if (at == MAP_FAILED)
		return err_set(err, -errno, "cannot read translated code: %s", strerror(errno));
	if (f->packed)
		r = snapshot_pack_code(at, bytes, f);
	for (uint64_t i = 0; i < snapshot_chunks(bytes) && r == 0 && !f->packed; i++) {
		uint64_t done = i * SNAPSHOT_CHUNK, len = bytes - done < SNAPSHOT_CHUNK ? bytes - done : SNAPSHOT_CHUNK;

		r = file_write_at(f->fd, at + done, len, start + done);
		sums[i] = snapshot_sum_chunk(at + done, len);
	}
	(void)munmap((void *)(uintptr_t)at, bytes);
	f->code = bytes;
	return r < 0 ? err_set(err, r, "cannot write the snapshot: %s", strerror(-r)) : 0;
}

/* Writes @len bytes to @at, and adds them to @hash. */
static int put_part(struct snapshot_file *f, const void *bytes, uint64_t len, uint64_t at, struct sha256 *hash)
{
	if (!bytes)
		return 0;
	sha256_add(hash, bytes, len);
	return file_write_at(f->fd, bytes, len, at);
}

int snapshot_finish(struct snapshot_file *f, const char *notes, struct err *err)
{
	struct snapshot_header h = { .flags = HAS_SUMS | (f->pages ? HAS_PAGES : 0) | (f->packed ? IS_PACKED : 0) |
				     (f->base_path[0] ? HAS_BASE : 0), .state_len = f->state_len, .memory = f->memory, .stored = f->stored,
				     .code = f->code, .id = f->id, .notes_len = notes ? strlen(notes) + 1 : 0 };
	const uint64_t sums_len = (snapshot_chunks(f->memory) + snapshot_chunks(f->code)) * sizeof(*f->sums);
	const uint64_t map = SNAPSHOT_MEMORY + f->stored + (f->packed ? 0 : f->code), pages_len = snapshot_pages_len(f->memory);
	struct sha256 hash;
	int r;

	if (h.notes_len > SNAPSHOT_NOTES_MAX)
		return err_set(err, -E2BIG, "the description of the VM is too long to be saved");
	memcpy(h.engine, f->engine, sizeof(h.engine));
	memcpy(h.state_sum, f->state_sum, sizeof(h.state_sum));
	memcpy(h.code_seal, f->code_seal, sizeof(h.code_seal));
	memcpy(h.base_path, f->base_path, sizeof(h.base_path));
	memcpy(h.base_sum, f->base_sum, sizeof(h.base_sum));
	sha256_init(&hash);
	r = put_part(f, notes, h.notes_len, SNAPSHOT_NOTES, &hash);
	if (r == 0)
		r = put_part(f, f->sums, sums_len, snapshot_sums_at(h.notes_len), &hash);
	if (r == 0)
		r = put_part(f, f->pages, pages_len, map, &hash);
	if (r == 0)
		r = put_part(f, f->packed, snapshot_packed_len(f->memory, f->code), map + pages_len, &hash);
	sha256_finish(&hash, h.notes_sum);
	snapshot_seal(&h);
	if (r == 0)
		r = file_write_at(f->fd, &h, sizeof(h), 0);
	return r < 0 ? err_set(err, r, "cannot write the snapshot: %s", strerror(-r)) : 0;
}

void snapshot_file_free(struct snapshot_file *f)
{
	free(f->sums);
	free(f->pages);
	free(f->packed);
	f->sums = f->pages = NULL;
	f->packed = NULL;
}
