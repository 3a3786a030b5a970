/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/snapshot.h"

#include "base/sha256.h"
#include "os/blob.h"
#include "os/err.h"
#include "vmm/vm.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define VERSION 3u
#define STATE_MAX (SNAPSHOT_NOTES - SNAPSHOT_HEADER)
#define HAS_SUMS 1u

static const char magic[8] = { 'r', 'o', 'u', 'x', 's', 'n', 'a', 'p' };

struct header {
	char magic[8];
	uint32_t version;
	uint32_t flags;	/* HAS_* */
	uint64_t state_len;
	uint64_t memory;
	uint64_t notes_len;	/* bytes, NUL included; 0: none */
	uint64_t code;	/* bytes behind the memory */
	struct snapshot_id id;
	char engine[16];	/* NUL-terminated */
	uint8_t state_sum[32];	/* SHA-256 of the state */
	uint8_t notes_sum[32];	/* of notes and checksums */
	uint8_t code_seal[32];	/* see struct snapshot */
	uint8_t sum[32];	/* of the header in front of this */
};

_Static_assert(sizeof(struct header) == 208, "no padding");

static void sum(const void *bytes, size_t len, uint8_t ret_sum[32])
{
	struct sha256 hash;

	sha256_init(&hash);
	sha256_add(&hash, bytes, len);
	sha256_finish(&hash, ret_sum);
}

/* Of memory, and of code behind it: in a chunk of its own where it begins. */
static uint64_t chunks(uint64_t bytes)
{
	return (bytes + SNAPSHOT_CHUNK - 1) / SNAPSHOT_CHUNK;
}

/* Where checksums are, behind the notes. */
static uint64_t sums_at(uint64_t notes_len)
{
	return SNAPSHOT_NOTES + ((notes_len + 7) & ~7ull);
}

void snapshot_draw(struct snapshot_id *ret_id)
{
	(void)getrandom(ret_id, sizeof(*ret_id), 0);
}

static void seal(struct header *h)
{
	h->version = VERSION;
	memcpy(h->magic, magic, sizeof(magic));
	sum(h, offsetof(struct header, sum), h->sum);
}

int snapshot_write(int fd, const struct blob *state, struct vm *vm, struct snapshot_id *ret_id, struct err *err)
{
	size_t size = snapshot_size(vm->mem->size);
	struct header header;
	struct stat st;
	uint8_t *at;

	if (state->failed)
		return err_set(err, -ENOMEM, "out of host memory");
	if (state->len > STATE_MAX)
		return err_set(err, -E2BIG, "the state of the VM's devices is too large to be saved");
	if (fstat(fd, &st) < 0 || (uint64_t)st.st_size != size)
		return err_set(err, -EINVAL, "the file for the snapshot has not the size that it needs");
	at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (at == MAP_FAILED)
		return err_set(err, -errno, "cannot write the snapshot: %s", strerror(errno));
	header = (struct header){ .state_len = state->len, .memory = vm->mem->size };
	(void)snprintf(header.engine, sizeof(header.engine), "%s", vm->engine->name);
	sum(state->bytes, state->len, header.state_sum);
	snapshot_draw(&header.id);
	seal(&header);
	memcpy(at + SNAPSHOT_HEADER, state->bytes, state->len);
	mem_copy(vm->mem, at + SNAPSHOT_MEMORY);
	memcpy(at, &header, sizeof(header));
	(void)munmap(at, size);
	*ret_id = header.id;
	return 0;
}

static int read_all(int fd, void *to, size_t len, off_t at)
{
	ssize_t n = pread(fd, to, len, at);

	return n < 0 ? -errno : (size_t)n == len ? 0 : -EBADMSG;
}

static int check_header(const struct header *h, uint64_t file_size, const char *path, struct err *err)
{
	uint8_t found[32];

	if (memcmp(h->magic, magic, sizeof(magic)) != 0)
		return err_set(err, -EBADMSG, "%s is not a snapshot", path);
	if (h->version != VERSION)
		return err_set(err, -ENOTSUP, "snapshot %s is of version %u, and this roux reads version %u; take it again",
			       path, h->version, VERSION);
	sum(h, offsetof(struct header, sum), found);
	if (memcmp(found, h->sum, sizeof(found)) != 0 || h->state_len > STATE_MAX || h->memory == 0 ||
	    h->memory > INT64_MAX / 2 || h->flags & ~HAS_SUMS || h->notes_len > SNAPSHOT_NOTES_MAX ||
	    (h->flags & HAS_SUMS && sums_at(h->notes_len) + 8 * (chunks(h->memory) + chunks(h->code)) > SNAPSHOT_MEMORY) ||
	    (h->code && (!(h->flags & HAS_SUMS) || h->memory % 4096 || h->code > SNAPSHOT_CODE_MAX)) ||
	    memchr(h->engine, '\0', sizeof(h->engine)) == NULL || file_size != snapshot_size(h->memory) + h->code)
		return err_set(err, -EBADMSG, "snapshot %s is damaged; take it again", path);
	return 0;
}

/* Notes and checksums, in place of which a template has nothing. */
static int read_notes(struct snapshot *s, const struct header *h)
{
	uint64_t n = h->flags & HAS_SUMS ? chunks(h->memory) + chunks(h->code) : 0;
	struct sha256 hash;
	uint8_t found[32];
	int r = 0;

	if (!n && !h->notes_len)
		return 0;
	s->notes = h->notes_len ? malloc(h->notes_len) : NULL;
	s->sums = n ? malloc(n * sizeof(*s->sums)) : NULL;
	if ((h->notes_len && !s->notes) || (n && !s->sums))
		return -ENOMEM;
	sha256_init(&hash);
	if (s->notes) {
		r = read_all(s->fd, s->notes, h->notes_len, SNAPSHOT_NOTES);
		sha256_add(&hash, s->notes, h->notes_len);
	}
	if (r == 0 && n) {
		r = read_all(s->fd, s->sums, n * sizeof(*s->sums), (off_t)sums_at(h->notes_len));
		sha256_add(&hash, s->sums, n * sizeof(*s->sums));
	}
	if (r < 0)
		return r;
	sha256_finish(&hash, found);
	return memcmp(found, h->notes_sum, sizeof(found)) == 0 && (!s->notes || !s->notes[h->notes_len - 1]) ? 0 : -EBADMSG;
}

int snapshot_open(const char *path, struct snapshot *ret, struct err *err)
{
	struct header h;
	uint8_t found[32];
	struct stat st;
	int r;

	*ret = (struct snapshot){ .fd = open(path, O_RDONLY | O_CLOEXEC) };
	if (ret->fd < 0)
		return err_set(err, -errno, "cannot open snapshot %s: %s", path, strerror(errno));
	r = fstat(ret->fd, &st) < 0 ? -errno : read_all(ret->fd, &h, sizeof(h), 0);
	if (r < 0)
		(void)err_set(err, r, r == -EBADMSG ? "%s is not a snapshot" : "cannot read snapshot %s", path);
	else
		r = check_header(&h, (uint64_t)st.st_size, path, err);
	if (r < 0)
		goto fail;
	ret->memory = h.memory;
	ret->code = h.code;
	memcpy(ret->code_seal, h.code_seal, sizeof(h.code_seal));
	ret->id = h.id;
	memcpy(ret->engine, h.engine, sizeof(ret->engine));
	ret->state_len = h.state_len;
	ret->state = malloc(h.state_len ? h.state_len : 1);
	r = ret->state ? read_all(ret->fd, ret->state, h.state_len, SNAPSHOT_HEADER) : -ENOMEM;
	if (r == 0) {
		sum(ret->state, ret->state_len, found);
		r = memcmp(found, h.state_sum, sizeof(found)) == 0 ? 0 : -EBADMSG;
	}
	if (r < 0) {
		(void)err_set(err, r, r == -EBADMSG ? "snapshot %s is damaged; take it again" : "cannot read snapshot %s", path);
		goto fail;
	}
	r = read_notes(ret, &h);
	if (r == 0)
		return 0;
	(void)err_set(err, r, r == -EBADMSG ? "snapshot %s is damaged; take it again" : "cannot read snapshot %s", path);

fail:
	snapshot_close(ret);
	return r;
}

void snapshot_close(struct snapshot *s)
{
	if (s->fd >= 0)
		(void)close(s->fd);
	free(s->state);
	free(s->notes);
	free(s->sums);
	*s = (struct snapshot){ .fd = -1 };
}

/* Never 0, which stands for a hole. */
static uint64_t snapshot_sum(const uint8_t *bytes, uint64_t len)
{
	uint64_t found = XXH3_64bits(bytes, len);

	return found ? found : 1;
}

/* @len bytes from @at of what begins with the memory.  A hole has no data, or only zeros. */
static int check_chunk(const struct snapshot *s, const uint8_t *bytes, uint64_t at, uint64_t len, uint64_t expected)
{
	off_t data;

	if (expected)
		return snapshot_sum(bytes + at, len) == expected ? 0 : -EBADMSG;
	data = lseek(s->fd, (off_t)(SNAPSHOT_MEMORY + at), SEEK_DATA);
	if (data < 0 || (uint64_t)data >= SNAPSHOT_MEMORY + at + len)
		return 0;
	for (uint64_t k = 0; k < len; k++)
		if (bytes[at + k])
			return -EBADMSG;
	return 0;
}

static int check_part(const struct snapshot *s, const uint8_t *bytes, uint64_t start, uint64_t len, const uint64_t *sums)
{
	int r = 0;

	for (uint64_t i = 0; i < chunks(len) && r == 0; i++) {
		uint64_t at = i * SNAPSHOT_CHUNK;

		r = check_chunk(s, bytes, start + at, len - at < SNAPSHOT_CHUNK ? len - at : SNAPSHOT_CHUNK, sums[i]);
	}
	return r;
}

int snapshot_check_memory(const struct snapshot *s, const char *path, struct err *err)
{
	uint64_t all = s->memory + s->code;
	const uint8_t *bytes;
	int r;

	if (!s->sums)
		return 0;
	bytes = mmap(NULL, all, PROT_READ, MAP_SHARED, s->fd, SNAPSHOT_MEMORY);
	if (bytes == MAP_FAILED)
		return err_set(err, -errno, "cannot read snapshot %s: %s", path, strerror(errno));
	r = check_part(s, bytes, 0, s->memory, s->sums);
	if (r == 0)
		r = check_part(s, bytes, s->memory, s->code, s->sums + chunks(s->memory));
	(void)munmap((void *)(uintptr_t)bytes, all);
	return r < 0 ? err_set(err, r, "snapshot %s is damaged; take it again", path) : 0;
}

/* ------------------------------------------------------------ through a pipe */

static const char send_magic[8] = { 'r', 'o', 'u', 'x', 's', 'e', 'n', 'd' };

struct send_head {
	char magic[8];
	uint64_t memory;
	char engine[16];
};

/* Memory that follows; 0 bytes: there is no more, and state of @offset bytes follows. */
struct send_run {
	uint64_t offset, len;
};

static int send_all(int fd, const void *bytes, uint64_t len)
{
	const uint8_t *at = bytes;

	while (len) {
		ssize_t n = write(fd, at, len < (1u << 30) ? len : 1u << 30);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		at += n;
		len -= (uint64_t)n;
	}
	return 0;
}

static int send_run(void *ctx, uint64_t offset, const uint8_t *bytes, uint64_t len)
{
	const struct send_run run = { offset, len };
	int fd = *(int *)ctx, r = send_all(fd, &run, sizeof(run));

	return r < 0 ? r : send_all(fd, bytes, len);
}

static int sent(int r, struct err *err)
{
	return r < 0 ? err_set(err, r, "cannot send the guest: %s", strerror(-r)) : 0;
}

int snapshot_send_start(int fd, const struct vm *vm, struct err *err)
{
	struct send_head head = { .memory = vm->mem->size };

	memcpy(head.magic, send_magic, sizeof(send_magic));
	(void)snprintf(head.engine, sizeof(head.engine), "%s", vm->engine->name);
	return sent(send_all(fd, &head, sizeof(head)), err);
}

int snapshot_send_memory(int fd, const struct vm *vm, const uint64_t *bitmap, struct err *err)
{
	return sent(bitmap ? mem_each_marked(vm->mem, bitmap, send_run, &fd) : mem_each(vm->mem, send_run, &fd), err);
}

int snapshot_send_end(int fd, const struct blob *state, struct err *err)
{
	const struct send_run end = { .offset = state->len };
	int r = state->failed ? -ENOMEM : send_all(fd, &end, sizeof(end));

	return sent(r < 0 ? r : send_all(fd, state->bytes, state->len), err);
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

static int put_all(int fd, const void *bytes, uint64_t len, uint64_t to)
{
	const uint8_t *at = bytes;

	while (len) {
		ssize_t n = pwrite(fd, at, len, (off_t)to);

		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		at += n;
		to += (uint64_t)n;
		len -= (uint64_t)n;
	}
	return 0;
}

static int take_state(int from, struct snapshot_file *f)
{
	uint8_t *state = malloc(f->state_len ? f->state_len : 1);
	int r = state ? take_all(from, state, f->state_len) : -ENOMEM;

	if (r == 0)
		r = put_all(f->fd, state, f->state_len, SNAPSHOT_HEADER);
	if (r == 0)
		sum(state, f->state_len, f->state_sum);
	free(state);
	return r;
}

static int take_run(int from, struct snapshot_file *f, struct send_run run, uint8_t *buffer)
{
	int r = 0;

	while (run.len && r == 0) {
		uint64_t part = run.len < SNAPSHOT_CHUNK ? run.len : SNAPSHOT_CHUNK;

		r = take_all(from, buffer, part);
		if (r == 0)
			r = put_all(f->fd, buffer, part, SNAPSHOT_MEMORY + run.offset);
		f->written += part;
		run.offset += part;
		run.len -= part;
	}
	return r;
}

/* Memory, in whatever order, then state. */
static int take_guest(int from, struct snapshot_file *f)
{
	uint8_t *buffer = malloc(SNAPSHOT_CHUNK);
	struct send_run run = { .len = 1 };
	int r = buffer ? 0 : -ENOMEM;

	while (r == 0 && run.len) {
		r = take_all(from, &run, sizeof(run));
		if (r == 0 && run.len && (run.offset > f->memory || run.len > f->memory - run.offset))
			r = -EPROTO;
		if (r == 0)
			r = take_run(from, f, run, buffer);
	}
	free(buffer);
	if (r == 0 && run.offset > STATE_MAX)
		r = -EPROTO;
	f->state_len = run.offset;
	return r < 0 ? r : take_state(from, f);
}

/* Of what is in the file: some of it came more than once. */
static int sum_memory(struct snapshot_file *f)
{
	const uint8_t *memory = mmap(NULL, f->memory, PROT_READ, MAP_SHARED, f->fd, SNAPSHOT_MEMORY);
	off_t at = SNAPSHOT_MEMORY;

	if (memory == MAP_FAILED)
		return -errno;
	while ((at = lseek(f->fd, at, SEEK_DATA)) >= 0 && (uint64_t)at < SNAPSHOT_MEMORY + f->memory) {
		uint64_t i = ((uint64_t)at - SNAPSHOT_MEMORY) / SNAPSHOT_CHUNK, start = i * SNAPSHOT_CHUNK;
		uint64_t len = f->memory - start < SNAPSHOT_CHUNK ? f->memory - start : SNAPSHOT_CHUNK;

		f->sums[i] = snapshot_sum(memory + start, len);
		at = (off_t)(SNAPSHOT_MEMORY + start + len);
	}
	(void)munmap((void *)(uintptr_t)memory, f->memory);
	return 0;
}

int snapshot_build(int from, int fd, const struct snapshot_id *id, struct snapshot_file *f, struct err *err)
{
	struct send_head head;
	int r = take_all(from, &head, sizeof(head));

	*f = (struct snapshot_file){ .fd = fd, .id = *id };
	if (r == 0 && (memcmp(head.magic, send_magic, sizeof(send_magic)) != 0 || head.memory == 0 ||
		       sums_at(SNAPSHOT_NOTES_MAX) + 8 * (chunks(head.memory) + chunks(SNAPSHOT_CODE_MAX)) > SNAPSHOT_MEMORY ||
		       !memchr(head.engine, '\0', sizeof(head.engine))))
		r = -EPROTO;
	if (r == 0) {
		f->memory = head.memory;
		memcpy(f->engine, head.engine, sizeof(f->engine));
		f->sums = calloc(chunks(head.memory) + chunks(SNAPSHOT_CODE_MAX), sizeof(*f->sums));
		r = !f->sums ? -ENOMEM : ftruncate(fd, (off_t)snapshot_size(head.memory)) < 0 ? -errno : take_guest(from, f);
	}
	if (r == 0)
		r = sum_memory(f);
	return r < 0 ? err_set(err, r, "cannot write the snapshot: %s", strerror(-r)) : 0;
}

int snapshot_add_code(struct snapshot_file *f, int code, uint64_t bytes, struct err *err)
{
	uint64_t *sums = f->sums + chunks(f->memory), start = SNAPSHOT_MEMORY + f->memory;
	const uint8_t *at;
	int r = 0;

	if (!bytes || bytes > SNAPSHOT_CODE_MAX)
		return 0;
	at = mmap(NULL, bytes, PROT_READ, MAP_SHARED, code, 0);
	if (at == MAP_FAILED)
		return err_set(err, -errno, "cannot read translated code: %s", strerror(errno));
	for (uint64_t i = 0; i < chunks(bytes) && r == 0; i++) {
		uint64_t done = i * SNAPSHOT_CHUNK, len = bytes - done < SNAPSHOT_CHUNK ? bytes - done : SNAPSHOT_CHUNK;

		r = put_all(f->fd, at + done, len, start + done);
		sums[i] = snapshot_sum(at + done, len);
	}
	(void)munmap((void *)(uintptr_t)at, bytes);
	f->code = bytes;
	return r < 0 ? err_set(err, r, "cannot write the snapshot: %s", strerror(-r)) : 0;
}

int snapshot_finish(struct snapshot_file *f, const char *notes, struct err *err)
{
	struct header h = { .flags = HAS_SUMS, .state_len = f->state_len, .memory = f->memory, .code = f->code,
			    .id = f->id, .notes_len = notes ? strlen(notes) + 1 : 0 };
	uint64_t sums_len = (chunks(f->memory) + chunks(f->code)) * sizeof(*f->sums);
	struct sha256 hash;
	int r;

	if (h.notes_len > SNAPSHOT_NOTES_MAX)
		return err_set(err, -E2BIG, "the description of the VM is too long to be saved");
	memcpy(h.engine, f->engine, sizeof(h.engine));
	memcpy(h.state_sum, f->state_sum, sizeof(h.state_sum));
	memcpy(h.code_seal, f->code_seal, sizeof(h.code_seal));
	sha256_init(&hash);
	if (notes)
		sha256_add(&hash, notes, h.notes_len);
	sha256_add(&hash, f->sums, sums_len);
	sha256_finish(&hash, h.notes_sum);
	seal(&h);
	r = put_all(f->fd, notes, h.notes_len, SNAPSHOT_NOTES);
	if (r == 0)
		r = put_all(f->fd, f->sums, sums_len, sums_at(h.notes_len));
	if (r == 0)
		r = put_all(f->fd, &h, sizeof(h), 0);
	return r < 0 ? err_set(err, r, "cannot write the snapshot: %s", strerror(-r)) : 0;
}

void snapshot_file_free(struct snapshot_file *f)
{
	free(f->sums);
	f->sums = NULL;
}
