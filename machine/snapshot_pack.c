/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Chunks are taken by whichever thread is free.  Frames get their place in the file in the order of the chunks: a
 * thread that is ready too early waits for its turn.
 */
#include "machine/snapshot_pack.h"

#include "machine/snapshot_inside.h"
#include "machine/snapshot_make.h"
#include "os/file.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zstd.h>

#define LEVEL 1	/* of zstd: three times as fast as its own choice, for a tenth more bytes */
#define THREADS_MAX 4u

struct work {
	int (*one)(struct work *w, uint64_t chunk, uint8_t *buffer, uint8_t *frame);
	uint64_t first, chunks;	/* from which one on, of all of the file; how many */
	size_t frame_max;	/* bytes */
	_Atomic uint64_t next;	/* nobody works at it yet */
	_Atomic int result;

	/* Compressing. */
	struct snapshot_file *file;
	const uint8_t *memory;	/* or code */
	uint64_t code;	/* bytes of that; 0: it is memory */
	pthread_mutex_t lock;	/* guards the two below */
	pthread_cond_t changed;
	uint64_t turn;	/* the chunk whose frame is written next */
	uint64_t at;	/* bytes of frames that are written */

	/* Decompressing. */
	const struct snapshot *snapshot;
	const uint8_t *frames;
	const uint64_t *frame_at;	/* of each chunk from @first on */
	uint8_t *to;	/* of the first chunk */
};

static void *work(void *arg)
{
	struct work *w = arg;
	uint8_t *buffer = malloc(SNAPSHOT_CHUNK + w->frame_max);
	uint64_t i;

	if (!buffer)
		atomic_store(&w->result, -ENOMEM);
	while (buffer && (i = atomic_fetch_add(&w->next, 1)) < w->chunks) {
		int r = w->one(w, i, buffer, buffer + SNAPSHOT_CHUNK);

		if (r < 0)
			atomic_store(&w->result, r);
		if (r < 0)
			break;
	}
	if (atomic_load(&w->result) < 0) {	/* nobody waits for the turn of one that has gone */
		pthread_mutex_lock(&w->lock);
		pthread_cond_broadcast(&w->changed);
		pthread_mutex_unlock(&w->lock);
	}
	free(buffer);
	return NULL;
}

static int do_all(struct work *w)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	pthread_t thread[THREADS_MAX];
	unsigned n = 0;

	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->changed, NULL);
	while (n + 1 < THREADS_MAX && n + 1 < (unsigned)cpus && n + 1 < w->chunks && pthread_create(&thread[n], NULL, work, w) == 0)
		n++;
	(void)work(w);
	while (n)
		(void)pthread_join(thread[--n], NULL);
	pthread_cond_destroy(&w->changed);
	pthread_mutex_destroy(&w->lock);
	return atomic_load(&w->result);
}

/* ---------------------------------------------------------------------- there */

static int write_in_turn(struct work *w, uint64_t chunk, const uint8_t *frame, size_t len)
{
	uint64_t at;
	int r;

	pthread_mutex_lock(&w->lock);
	while (w->turn != chunk && atomic_load(&w->result) == 0)
		pthread_cond_wait(&w->changed, &w->lock);
	at = w->at;
	r = atomic_load(&w->result);
	if (r == 0) {
		w->at += len;
		w->turn++;
		pthread_cond_broadcast(&w->changed);
	}
	pthread_mutex_unlock(&w->lock);
	return r == 0 && len ? file_write_at(w->file->fd, frame, len, SNAPSHOT_MEMORY + at) : r;
}

/* What chunk @i of the work has, at *@ret_bytes: bytes. */
static uint64_t contents(const struct work *w, uint64_t i, uint8_t *buffer, const uint8_t **ret_bytes)
{
	uint64_t at = i * SNAPSHOT_CHUNK;

	*ret_bytes = w->code ? w->memory + at : buffer;
	if (w->code)
		return w->code - at < SNAPSHOT_CHUNK ? w->code - at : SNAPSHOT_CHUNK;
	return snapshot_gather(w->file->pages, w->file->memory, i, w->memory, buffer);
}

static int pack_one(struct work *w, uint64_t i, uint8_t *buffer, uint8_t *frame)
{
	const uint8_t *bytes;
	uint64_t len = contents(w, i, buffer, &bytes);
	size_t packed = len ? ZSTD_compress(frame, w->frame_max, bytes, len, LEVEL) : 0;

	if (ZSTD_isError(packed))
		return -ENOMEM;	/* there is room for any */
	w->file->sums[w->first + i] = len ? snapshot_sum_chunk(bytes, len) : 0;
	w->file->packed[w->first + i] = (uint32_t)packed;
	return write_in_turn(w, i, frame, packed);
}

/* @w says what of; to where the file's frames end. */
static int pack(struct work *w, struct snapshot_file *f)
{
	int r;

	w->one = pack_one;
	w->frame_max = ZSTD_compressBound(SNAPSHOT_CHUNK);
	w->file = f;
	w->at = f->stored;
	r = do_all(w);
	f->stored = snapshot_whole_pages(w->at);
	return r == 0 && ftruncate(f->fd, (off_t)(SNAPSHOT_MEMORY + f->stored)) < 0 ? -errno : r;
}

int snapshot_pack(int scratch, struct snapshot_file *f)
{
	struct work w = { .chunks = snapshot_chunks(f->memory) };
	void *at = mmap(NULL, f->memory, PROT_READ, MAP_SHARED, scratch, 0);
	int r;

	if (at == MAP_FAILED)
		return -errno;
	w.memory = at;
	f->stored = 0;
	r = pack(&w, f);
	(void)munmap(at, f->memory);
	return r;
}

int snapshot_pack_code(const uint8_t *code, uint64_t bytes, struct snapshot_file *f)
{
	struct work w = { .chunks = snapshot_chunks(bytes), .first = snapshot_chunks(f->memory), .memory = code, .code = bytes };

	return pack(&w, f);
}

/* -------------------------------------------------------------------- and back */

/* The other way round than snapshot_gather(). */
static void scatter(const struct snapshot *s, uint64_t first, uint64_t end, const uint8_t *from, uint8_t *to)
{
	for (uint64_t page = first, run; page < end; page += run) {
		run = snapshot_run(s->pages, page, end);
		if (!snapshot_has_page(s->pages, page))
			continue;
		memcpy(to + (page - first) * MEM_PAGE, from, run * MEM_PAGE);
		from += run * MEM_PAGE;
	}
}

static int unpack_one(struct work *w, uint64_t i, uint8_t *buffer, uint8_t *frame)
{
	const struct snapshot *s = w->snapshot;
	const uint64_t chunk = w->first + i, per_chunk = SNAPSHOT_CHUNK / MEM_PAGE, first = chunk * per_chunk, all = s->memory / MEM_PAGE;
	const uint64_t end = first + per_chunk < all ? first + per_chunk : all;
	uint64_t len = w->code ? w->code - i * SNAPSHOT_CHUNK : 0;
	uint8_t *whole;
	size_t n;

	if (!s->packed[chunk])
		return w->code ? -EBADMSG : 0;
	for (uint64_t page = first; page < end && !w->code; page++)
		len += snapshot_has_page(s->pages, page) ? MEM_PAGE : 0;
	len = len < SNAPSHOT_CHUNK ? len : SNAPSHOT_CHUNK;
	whole = w->code || len == SNAPSHOT_CHUNK ? w->to + i * SNAPSHOT_CHUNK : buffer;	/* without a detour */
	n = ZSTD_decompress(whole, len, w->frames + w->frame_at[i], s->packed[chunk]);
	if (ZSTD_isError(n) || n != len || snapshot_sum_chunk(whole, n) != s->sums[chunk])
		return -EBADMSG;
	if (whole == buffer)
		scatter(s, first, end, buffer, w->to + i * SNAPSHOT_CHUNK);
	return 0;
}

/* @w says what of and where to. */
static int unpack(struct work *w, const struct snapshot *s)
{
	const uint64_t of_memory = snapshot_chunks(s->memory);
	uint64_t *frame_at = calloc(w->chunks, sizeof(*frame_at)), at = 0;
	void *frames = s->stored ? mmap(NULL, s->stored, PROT_READ, MAP_SHARED, s->fd, SNAPSHOT_MEMORY) : NULL;
	int r = frame_at && frames != MAP_FAILED ? 0 : -ENOMEM;

	for (uint64_t i = 0; i < w->first + w->chunks && r == 0; at += s->packed[i++]) {
		if (i == of_memory)
			at = snapshot_whole_pages(at);
		if (i >= w->first)
			frame_at[i - w->first] = at;
	}
	w->one = unpack_one;
	w->snapshot = s;
	w->frames = frames;
	w->frame_at = frame_at;
	if (r == 0)
		r = do_all(w);
	if (frames && frames != MAP_FAILED)
		(void)munmap(frames, s->stored);
	free(frame_at);
	return r;
}

int snapshot_unpack(const struct snapshot *s, uint64_t offset, uint64_t len, uint8_t *to)
{
	struct work w = { .chunks = snapshot_chunks(len), .first = offset / SNAPSHOT_CHUNK, .to = to };

	return unpack(&w, s);
}

int snapshot_unpack_code(const struct snapshot *s, int fd)
{
	struct work w = { .chunks = snapshot_chunks(s->code), .first = snapshot_chunks(s->memory), .code = s->code };
	void *at;
	int r;

	if (ftruncate(fd, (off_t)s->code) < 0)
		return -errno;
	at = mmap(NULL, s->code, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (at == MAP_FAILED)
		return -errno;
	w.to = at;
	r = unpack(&w, s);
	(void)munmap(at, s->code);
	return r;
}
