/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/snapshot_inside.h"

#include "base/sha256.h"
#include "machine/snapshot_pack.h"
#include "os/blob.h"
#include "os/err.h"
#include "os/file.h"
#include "os/folders.h"
#include "vmm/vm.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

static const char magic[8] = { 'r', 'o', 'u', 'x', 's', 'n', 'a', 'p' };

void snapshot_sum_bytes(const void *bytes, size_t len, uint8_t ret_sum[32])
{
	struct sha256 hash;

	sha256_init(&hash);
	sha256_add(&hash, bytes, len);
	sha256_finish(&hash, ret_sum);
}

void snapshot_seal(struct snapshot_header *h)
{
	h->version = SNAPSHOT_VERSION;
	memcpy(h->magic, magic, sizeof(magic));
	snapshot_sum_bytes(h, offsetof(struct snapshot_header, sum), h->sum);
}

uint64_t snapshot_sum_chunk(const uint8_t *bytes, uint64_t len)
{
	uint64_t found = XXH3_64bits(bytes, len);

	return found ? found : 1;
}

uint64_t snapshot_gather(const uint64_t *pages, uint64_t memory_len, uint64_t chunk, const uint8_t *memory, uint8_t *to)
{
	const uint64_t per_chunk = SNAPSHOT_CHUNK / MEM_PAGE, all = memory_len / MEM_PAGE;
	uint64_t page = chunk * per_chunk, end = page + per_chunk < all ? page + per_chunk : all, done = 0, run;

	for (; page < end; page += run) {
		run = snapshot_run(pages, page, end);
		if (!snapshot_has_page(pages, page))
			continue;
		memcpy(to + done, memory + page * MEM_PAGE, run * MEM_PAGE);
		done += run * MEM_PAGE;
	}
	return done;
}

int snapshot_write(int fd, const struct blob *state, struct vm *vm, struct snapshot_id *ret_id, struct err *err)
{
	size_t size = snapshot_size(vm->mem->size);
	struct snapshot_header header;
	struct stat st;
	uint8_t *at;

	if (state->failed)
		return err_set(err, -ENOMEM, "out of host memory");
	if (state->len > SNAPSHOT_STATE_MAX)
		return err_set(err, -E2BIG, "the state of the VM's devices is too large to be saved");
	if (fstat(fd, &st) < 0 || (uint64_t)st.st_size != size)
		return err_set(err, -EINVAL, "the file for the snapshot has not the size that it needs");
	at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (at == MAP_FAILED)
		return err_set(err, -errno, "cannot write the snapshot: %s", strerror(errno));
	header = (struct snapshot_header){ .state_len = state->len, .memory = vm->mem->size, .stored = vm->mem->size };
	(void)snprintf(header.engine, sizeof(header.engine), "%s", vm->engine->name);
	snapshot_sum_bytes(state->bytes, state->len, header.state_sum);
	(void)getrandom(&header.id, sizeof(header.id), 0);
	snapshot_seal(&header);
	memcpy(at + SNAPSHOT_HEADER, state->bytes, state->len);
	mem_copy(vm->mem, at + SNAPSHOT_MEMORY);
	memcpy(at, &header, sizeof(header));
	(void)munmap(at, size);
	*ret_id = header.id;
	return 0;
}

/* ------------------------------------------------------------------------ open */

int snapshot_read(int fd, void *to, size_t len, uint64_t at)
{
	ssize_t n = file_read_at(fd, to, len, at);

	return n < 0 ? (int)n : (size_t)n == len ? 0 : -EBADMSG;
}

/* Bytes of what says which pages are there. */
static uint64_t map_len(const struct snapshot_header *h)
{
	return (h->flags & HAS_PAGES ? snapshot_pages_len(h->memory) : 0) + (h->flags & IS_PACKED ? snapshot_packed_len(h->memory, h->code) : 0);
}

/* What only a file can be that has all flags that it needs. */
static bool sane_flags(const struct snapshot_header *h)
{
	bool base = h->flags & HAS_BASE;

	if (h->flags & ~(HAS_SUMS | HAS_PAGES | IS_PACKED | HAS_BASE) || (h->flags & HAS_PAGES && !(h->flags & HAS_SUMS)))
		return false;
	if ((base || h->flags & IS_PACKED) && !(h->flags & HAS_PAGES))
		return false;
	return memchr(h->base_path, '\0', sizeof(h->base_path)) && base == (h->base_path[0] != '\0');
}

static bool sane_sizes(const struct snapshot_header *h)
{
	const uint64_t chunks = snapshot_chunks(h->memory) + snapshot_chunks(h->code);

	if (h->state_len > SNAPSHOT_STATE_MAX || h->memory == 0 || h->memory > INT64_MAX / 4 || h->notes_len > SNAPSHOT_NOTES_MAX ||
	    h->code > SNAPSHOT_CODE_MAX)
		return false;
	if (h->flags & IS_PACKED ? h->stored > 2 * (h->memory + h->code) || h->stored % MEM_PAGE : h->stored != h->memory)
		return false;
	if (h->flags & HAS_SUMS && snapshot_sums_at(h->notes_len) + 8 * chunks > SNAPSHOT_MEMORY)
		return false;
	if ((h->code || h->flags & HAS_PAGES) && h->memory % MEM_PAGE)
		return false;
	return !h->code || h->flags & HAS_SUMS;
}

/* Of all. */
static uint64_t map_at(const struct snapshot_header *h)
{
	return SNAPSHOT_MEMORY + h->stored + (h->flags & IS_PACKED ? 0 : h->code);
}

static int check_header(const struct snapshot_header *h, uint64_t file_size, const char *path, struct err *err)
{
	uint8_t found[32];

	if (memcmp(h->magic, magic, sizeof(magic)) != 0)
		return err_set(err, -EBADMSG, "%s is not a snapshot", path);
	if (h->version != SNAPSHOT_VERSION)
		return err_set(err, -ENOTSUP, "snapshot %s is of version %u, and this roux reads version %u; take it again",
			       path, h->version, SNAPSHOT_VERSION);
	snapshot_sum_bytes(h, offsetof(struct snapshot_header, sum), found);
	if (memcmp(found, h->sum, sizeof(found)) != 0 || !sane_flags(h) || !sane_sizes(h) ||
	    memchr(h->engine, '\0', sizeof(h->engine)) == NULL || file_size != map_at(h) + map_len(h))
		return err_set(err, -EBADMSG, "snapshot %s is damaged; take it again", path);
	return 0;
}

/* Allocates @len bytes, if any, reads them from @at and adds them to @hash. */
static int read_part(const struct snapshot *s, uint64_t len, uint64_t at, struct sha256 *hash, void *ret)
{
	void *bytes;
	int r;

	if (!len)
		return 0;
	bytes = malloc(len);
	*(void **)ret = bytes;
	r = bytes ? snapshot_read(s->fd, bytes, len, at) : -ENOMEM;
	if (r == 0)
		sha256_add(hash, bytes, len);
	return r;
}

/* Frames lie one behind the other, in chunks that have pages. */
static bool sane_packed(const struct snapshot *s)
{
	const uint64_t per_chunk = SNAPSHOT_CHUNK / MEM_PAGE, all = s->memory / MEM_PAGE;
	uint64_t sum = 0;

	for (uint64_t i = 0; s->packed && i < snapshot_chunks(s->memory); i++) {
		uint64_t start = i * per_chunk, end = start + per_chunk < all ? start + per_chunk : all;
		bool some = snapshot_has_page(s->pages, start) || snapshot_run(s->pages, start, end) < end - start;

		if (some != (s->packed[i] != 0))
			return false;
		sum += s->packed[i];
	}
	sum = snapshot_whole_pages(sum);
	for (uint64_t i = 0; s->packed && i < snapshot_chunks(s->code); i++)
		sum += s->packed[snapshot_chunks(s->memory) + i];
	return sum <= s->stored;
}

/* Notes, checksums and what says which pages are there, in place of which a template has nothing. */
static int read_notes(struct snapshot *s, const struct snapshot_header *h)
{
	const uint64_t n = h->flags & HAS_SUMS ? snapshot_chunks(h->memory) + snapshot_chunks(h->code) : 0;
	const uint64_t map = map_at(h), pages = h->flags & HAS_PAGES ? snapshot_pages_len(h->memory) : 0;
	struct sha256 hash;
	uint8_t found[32];
	int r;

	if (!n && !h->notes_len)
		return 0;
	sha256_init(&hash);
	r = read_part(s, h->notes_len, SNAPSHOT_NOTES, &hash, &s->notes);
	if (r == 0)
		r = read_part(s, n * sizeof(*s->sums), snapshot_sums_at(h->notes_len), &hash, &s->sums);
	if (r == 0)
		r = read_part(s, pages, map, &hash, &s->pages);
	if (r == 0)
		r = read_part(s, map_len(h) - pages, map + pages, &hash, &s->packed);
	if (r < 0)
		return r;
	sha256_finish(&hash, found);
	return memcmp(found, h->notes_sum, sizeof(found)) == 0 && (!s->notes || !s->notes[h->notes_len - 1]) && sane_packed(s) ?
		0 : -EBADMSG;
}

static int read_state(struct snapshot *s, const struct snapshot_header *h)
{
	uint8_t found[32];
	int r;

	s->state_len = h->state_len;
	s->state = malloc(h->state_len ? h->state_len : 1);
	r = s->state ? snapshot_read(s->fd, s->state, h->state_len, SNAPSHOT_HEADER) : -ENOMEM;
	if (r < 0)
		return r;
	snapshot_sum_bytes(s->state, s->state_len, found);
	return memcmp(found, h->state_sum, sizeof(found)) == 0 ? 0 : -EBADMSG;
}

static void take_header(struct snapshot *s, const struct snapshot_header *h)
{
	s->memory = h->memory;
	s->stored = h->stored;
	s->code = h->code;
	s->id = h->id;
	memcpy(s->code_seal, h->code_seal, sizeof(h->code_seal));
	memcpy(s->engine, h->engine, sizeof(s->engine));
	memcpy(s->sum, h->sum, sizeof(s->sum));
	memcpy(s->base_path, h->base_path, sizeof(s->base_path));
	memcpy(s->base_sum, h->base_sum, sizeof(s->base_sum));
}

int snapshot_read_id(int fd, uint64_t memory, struct snapshot_id *ret_id)
{
	struct snapshot_header h;
	struct stat st;
	void *at;
	int r;

	if (fstat(fd, &st) < 0)
		return -errno;
	if ((uint64_t)st.st_size < SNAPSHOT_MEMORY)
		return -EBADMSG;
	at = mmap(NULL, SNAPSHOT_HEADER, PROT_READ, MAP_SHARED, fd, 0);
	if (at == MAP_FAILED)
		return -errno;
	memcpy(&h, at, sizeof(h));
	(void)munmap(at, SNAPSHOT_HEADER);
	r = check_header(&h, (uint64_t)st.st_size, "", NULL);
	if (r == 0 && (h.memory != memory || (uint64_t)st.st_size < SNAPSHOT_MEMORY + memory))
		r = -EINVAL;
	if (r == 0)
		*ret_id = h.id;
	return r;
}

int snapshot_open(const char *path, struct snapshot *ret, struct err *err)
{
	struct snapshot_header h;
	struct stat st;
	int r;

	*ret = (struct snapshot){ .fd = open(path, O_RDONLY | O_CLOEXEC) };
	if (ret->fd < 0)
		return err_set(err, -errno, "cannot open snapshot %s: %s", path, strerror(errno));
	r = fstat(ret->fd, &st) < 0 ? -errno : snapshot_read(ret->fd, &h, sizeof(h), 0);
	if (r < 0)
		(void)err_set(err, r, r == -EBADMSG ? "%s is not a snapshot" : "cannot read snapshot %s", path);
	else
		r = check_header(&h, (uint64_t)st.st_size, path, err);
	if (r < 0)
		goto fail;
	take_header(ret, &h);
	ret->path = strdup(path);
	r = ret->path ? read_state(ret, &h) : -ENOMEM;
	if (r == 0)
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
	if (s->base) {
		snapshot_close(s->base);
		free(s->base);
	}
	if (s->fd >= 0)
		(void)close(s->fd);
	free(s->path);
	free(s->state);
	free(s->notes);
	free(s->sums);
	free(s->pages);
	free(s->packed);
	*s = (struct snapshot){ .fd = -1 };
}

/* ----------------------------------------------------------------------- bases */

static const char *name_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* Where the base of @s may be, by number; false: there are no more. */
static bool base_place(const struct snapshot *s, unsigned number, char ret_path[PATH_MAX])
{
	const int folder = (int)(name_of(s->path) - s->path);
	char data[PATH_MAX];
	int n = PATH_MAX;

	if (number == 0 && s->base_path[0] == '/')
		n = snprintf(ret_path, PATH_MAX, "%s", s->base_path);
	else if (number == 0)
		n = snprintf(ret_path, PATH_MAX, "%.*s%s", folder, s->path, s->base_path);
	else if (number == 1)
		n = snprintf(ret_path, PATH_MAX, "%.*s%s", folder, s->path, name_of(s->base_path));
	else if (number == 2 && folder_data(data, sizeof(data), NULL) == 0)
		n = snprintf(ret_path, PATH_MAX, "%s/snapshots/%s", data, name_of(s->base_path));
	if (n >= PATH_MAX)
		ret_path[0] = '\0';	/* no file has that name */
	return number <= 2;
}

/* Looks at @path for it.  0, -ENOENT, or another negative errno with a sentence. */
static int try_base(const struct snapshot *s, const char *path, struct snapshot *ret_base, struct err *err)
{
	int r = snapshot_open(path, ret_base, err);

	if (r < 0 || memcmp(ret_base->sum, s->base_sum, sizeof(s->base_sum)) == 0)
		return r;
	snapshot_close(ret_base);
	return err_set(err, -ESTALE, "%s is another one by now; bring the old one back, or save the VM again", path);
}

/* That one and no other, in ->base. */
static int open_base(struct snapshot *s, struct err *err)
{
	struct snapshot *base = malloc(sizeof(*base));
	struct err why = { 0 }, one;
	char path[PATH_MAX];
	int r = -ENOENT;

	if (!base)
		return err_set(err, -ENOMEM, "out of memory");
	for (unsigned i = 0; r < 0 && base_place(s, i, path); i++) {
		r = try_base(s, path, base, &one);
		if (r < 0 && r != -ENOENT && !why.code)
			why = one;
	}
	if (r == 0) {
		s->base = base;
		return 0;
	}
	free(base);
	if (!why.code)
		(void)err_set(&why, -ENOENT, "%s is not there; put it in the same folder", s->base_path);
	return err_set(err, why.code, "snapshot %s needs its base: %s", s->path, why.msg);
}

int snapshot_open_bases(struct snapshot *s, struct err *err)
{
	for (unsigned i = 1; s->base_path[0]; i++) {
		int r = i >= SNAPSHOT_CHAIN_MAX ? err_set(err, -ELOOP, "snapshot %s is on top of more than %u others", s->path,
							  SNAPSHOT_CHAIN_MAX - 1) : open_base(s, err);

		if (r < 0)
			return r;
		if (s->base->memory != s->memory || !s->base->sums)
			return err_set(err, -EBADMSG, "snapshot %s cannot be the base of %s", s->base->path, s->path);
		s = s->base;
	}
	return 0;
}

unsigned snapshot_depth(const struct snapshot *s)
{
	unsigned n = 1;

	while ((s = s->base))
		n++;
	return n;
}

const struct snapshot *snapshot_root(const struct snapshot *s)
{
	while (s->base)
		s = s->base;
	return s;
}

/* ----------------------------------------------------------------------- check */

/* A whole chunk, @len bytes from @at of the file's part at @bytes.  A hole has no data, or only zeros. */
static int check_chunk(const struct snapshot *s, const uint8_t *bytes, uint64_t at, uint64_t len, uint64_t expected)
{
	off_t data;

	if (expected)
		return snapshot_sum_chunk(bytes + at, len) == expected ? 0 : -EBADMSG;
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

	for (uint64_t i = 0; i < snapshot_chunks(len) && r == 0; i++) {
		uint64_t at = i * SNAPSHOT_CHUNK;

		r = check_chunk(s, bytes, start + at, len - at < SNAPSHOT_CHUNK ? len - at : SNAPSHOT_CHUNK, sums[i]);
	}
	return r;
}

/* The pages that are there: what is in place of others means nothing. */
static int check_pages(const struct snapshot *s, const uint8_t *memory)
{
	uint8_t *buffer = malloc(SNAPSHOT_CHUNK);
	int r = buffer ? 0 : -ENOMEM;

	for (uint64_t i = 0; i < snapshot_chunks(s->memory) && r == 0; i++) {
		uint64_t len = snapshot_gather(s->pages, s->memory, i, memory, buffer);

		if ((len ? snapshot_sum_chunk(buffer, len) : 0) != s->sums[i])
			r = -EBADMSG;
	}
	free(buffer);
	return r;
}

static int check_file(const struct snapshot *s, struct err *err)
{
	uint64_t all = s->stored + s->code;
	const uint8_t *bytes;
	int r;

	if (!s->sums || s->packed)
		return 0;
	bytes = mmap(NULL, all, PROT_READ, MAP_SHARED, s->fd, SNAPSHOT_MEMORY);
	if (bytes == MAP_FAILED)
		return err_set(err, -errno, "cannot read snapshot %s: %s", s->path, strerror(errno));
	r = s->pages ? check_pages(s, bytes) : check_part(s, bytes, 0, s->memory, s->sums);
	if (r == 0)
		r = check_part(s, bytes, s->stored, s->code, s->sums + snapshot_chunks(s->memory));
	(void)munmap((void *)(uintptr_t)bytes, all);
	return r < 0 ? err_set(err, r, "snapshot %s is damaged; take it again", s->path) : 0;
}

int snapshot_check_memory(const struct snapshot *s, struct err *err)
{
	int r = 0;

	for (; s && r == 0; s = s->base)
		r = check_file(s, err);
	return r;
}

int snapshot_code(const struct snapshot *s, int *ret_fd, uint64_t *ret_at)
{
	int fd = s->packed ? memfd_create("code", MFD_CLOEXEC) : fcntl(s->fd, F_DUPFD_CLOEXEC, 0), r = 0;

	if (fd < 0)
		return -errno;
	if (s->packed)
		r = snapshot_unpack_code(s, fd);
	if (r < 0) {
		(void)close(fd);
		return r;
	}
	*ret_fd = fd;
	*ret_at = s->packed ? 0 : SNAPSHOT_MEMORY + s->stored;
	return 0;
}
