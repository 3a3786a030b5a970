/* SPDX-License-Identifier: Apache-2.0 */
#include "api/disks.h"

#include "api/handle.h"
#include "os/err.h"
#include "os/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#define PIECE 65536ull	/* as BLOCK_PIECE of block/block.h, which the notes of the VM's process are in */
#define WATCH_TIMEOUT_MS 10000u

_Static_assert(SPEC_DISKS_MAX <= DISK_SAVES_MAX, "all disks of a machine can be saved");

/* -------------------------------------------------------------------- pieces */

static bool is_zero(const uint8_t *piece, uint64_t len)
{
	return len == 0 || (piece[0] == 0 && memcmp(piece, piece + 1, len - 1) == 0);
}

typedef int (*piece_fn)(void *ctx, uint8_t *piece, uint64_t at, uint64_t len);

/* Calls @fn with the pieces of [@at, @end) that are data and not zero; a device has no holes to tell. */
static int each_piece(int fd, uint64_t at, uint64_t end, piece_fn fn, void *ctx)
{
	uint8_t *piece = malloc(PIECE);
	int r = piece ? 0 : -ENOMEM;

	while (r == 0 && at < end) {
		off_t data = lseek(fd, (off_t)at, SEEK_DATA);
		uint64_t len;
		ssize_t n;

		if (data < 0 && errno == ENXIO)
			break;
		if (data > (off_t)at)
			at = (uint64_t)data / PIECE * PIECE > at ? (uint64_t)data / PIECE * PIECE : at;
		len = PIECE - at % PIECE < end - at ? PIECE - at % PIECE : end - at;
		n = at < end ? file_read_at(fd, piece, len, at) : 0;
		if (n <= 0) {
			r = (int)n;
			break;
		}
		if (!is_zero(piece, (uint64_t)n))
			r = fn(ctx, piece, at, (uint64_t)n);
		at += (uint64_t)n;
	}
	free(piece);
	return r;
}

static int put_piece(void *ctx, uint8_t *piece, uint64_t at, uint64_t len)
{
	return file_write_at(*(const int *)ctx, piece, len, at);
}

/* One piece as it is now, also when that is zeros. */
static int renew_piece(const struct disk_save *s, uint8_t *piece, uint64_t at, uint64_t len)
{
	ssize_t n = file_read_at(s->from, piece, len, at);

	if (n < 0)
		return (int)n;
	if (is_zero(piece, (uint64_t)n) &&
	    fallocate(s->to, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)at, (off_t)len) == 0)
		return 0;
	return file_write_at(s->to, piece, (uint64_t)n, at);
}

static int sum_piece(void *ctx, uint8_t *piece, uint64_t at, uint64_t len)
{
	(void)XXH3_64bits_update(ctx, &at, sizeof(at));
	(void)XXH3_64bits_update(ctx, piece, len);
	return 0;
}

/* Of all that is not zero and its places: holes make no difference. */
static int disk_sum(int fd, uint64_t size, uint64_t *ret_sum)
{
	XXH3_state_t state;
	int r;

	(void)XXH3_64bits_reset(&state);
	r = each_piece(fd, 0, size, sum_piece, &state);
	*ret_sum = XXH3_64bits_digest(&state);
	return r;
}

/* --------------------------------------------------------------------- saved */

/* The VM's process is asked for the file, which may be in its memory only. */
static int watch(struct disk_save *s, struct roux_machine *m, struct err *err)
{
	int map = memfd_create("roux-watch", MFD_CLOEXEC), r = 0;
	struct stat st;

	if (map < 0 || ftruncate(map, CONTROL_WATCH_MAX) < 0)
		r = err_set(err, -errno, "cannot note what is written: %s", strerror(errno));
	if (r == 0) {
		void *at = mmap(NULL, CONTROL_WATCH_MAX, PROT_READ, MAP_SHARED, map, 0);

		s->map = at == MAP_FAILED ? NULL : at;
		r = s->map ? machine_ask(m, CONTROL_WATCH, (int32_t)s->index, map, WATCH_TIMEOUT_MS, err) :
			err_set(err, -ENOMEM, "out of memory");
	}
	if (map >= 0)
		(void)close(map);
	s->from = m->answer.fd;
	m->answer.fd = -1;
	if (r < 0)
		return r;
	/* What it says is not to be trusted blindly: a pipe would never end. */
	if (s->from < 0 || fstat(s->from, &st) < 0 || (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) ||
	    sscanf(m->answer.text, "%" SCNu64 " %" SCNu64, &s->at, &s->size) != 2 || s->at % PIECE ||
	    __builtin_add_overflow(s->at, s->size, &s->file_size) || s->file_size > INT64_MAX ||
	    (s->size + 8 * PIECE - 1) / (8 * PIECE) > CONTROL_WATCH_MAX)
		return err_set(err, -EPROTO, "the VM's process says nothing sensible of disk %u", s->index + 1);
	return 0;
}

static int told(const struct disk_save *s, int r, struct err *err)
{
	return r < 0 ? err_set(err, r, "cannot save disk %u in %s: %s", s->index + 1, s->path, strerror(-r)) : 0;
}

int disks_begin(struct disk_saves *saves, struct roux_machine *m, unsigned index, const char *prefix, struct err *err)
{
	struct disk_save *s = &saves->at[saves->n];
	int r = 0;

	if (saves->n == DISK_SAVES_MAX)
		return err_set(err, -E2BIG, "too many disks to save");
	*s = (struct disk_save){ .index = index, .from = -1, .to = -1 };
	saves->n++;
	if (snprintf(s->path, sizeof(s->path), "%s.disk%u", prefix, index) >= PATH_MAX) {
		s->path[0] = '\0';
		return err_set(err, -ENAMETOOLONG, "the name of the snapshot is too long");
	}
	r = watch(s, m, err);
	if (r < 0) {
		s->path[0] = '\0';
		return r;
	}
	s->to = open(s->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (s->to < 0) {
		r = told(s, -errno, err);
		s->path[0] = '\0';
		return r;
	}
	/* Also makes the host write what it has put off, while nobody waits for it. */
	s->cloned = ioctl(s->to, FICLONE, s->from) == 0;
	if (!s->cloned && ftruncate(s->to, (off_t)s->file_size) < 0)
		r = -errno;
	if (r == 0 && !s->cloned)
		r = each_piece(s->from, 0, s->file_size, put_piece, &s->to);
	return told(s, r, err);
}

/* What a layer has before the disk's bytes, and the pieces that were written. */
static int copy_again(struct disk_save *s)
{
	uint8_t *piece = malloc(PIECE);
	int r = piece ? 0 : -ENOMEM;

	for (uint64_t at = 0; at < s->at && r == 0; at += PIECE)
		r = renew_piece(s, piece, at, s->at - at < PIECE ? s->at - at : PIECE);
	for (uint64_t n = 0; n * PIECE < s->size && r == 0; n++)
		if (s->map[n / 8] >> n % 8 & 1)
			r = renew_piece(s, piece, s->at + n * PIECE, s->size - n * PIECE < PIECE ? s->size - n * PIECE : PIECE);
	free(piece);
	return r;
}

int disks_stand(struct disk_saves *saves, struct err *err)
{
	int r = 0;

	for (unsigned i = 0; i < saves->n && r == 0; i++) {
		struct disk_save *s = &saves->at[i];

		if (s->cloned && ioctl(s->to, FICLONE, s->from) < 0)
			r = -errno;
		else if (!s->cloned)
			r = copy_again(s);
		r = told(s, r, err);
	}
	return r;
}

int disks_finish(struct disk_saves *saves, struct err *err)
{
	int r = 0;

	for (unsigned i = 0; i < saves->n && r == 0; i++) {
		struct disk_save *s = &saves->at[i];

		r = disk_sum(s->to, s->file_size, &s->sum);
		if (r == 0 && fsync(s->to) < 0)
			r = -errno;
		r = told(s, r, err);
	}
	return r;
}

void disks_close(struct disk_saves *saves, bool keep)
{
	for (unsigned i = 0; i < saves->n; i++) {
		struct disk_save *s = &saves->at[i];

		if (!keep && s->path[0])
			(void)unlink(s->path);
		if (s->from >= 0)
			(void)close(s->from);
		if (s->to >= 0)
			(void)close(s->to);
		if (s->map)
			(void)munmap(s->map, CONTROL_WATCH_MAX);
	}
	saves->n = 0;
}

/* ------------------------------------------------------------------ restored */

int disk_restore(const char *from, uint64_t size, uint64_t sum, const char *to, struct err *err)
{
	int in = open(from, O_RDONLY | O_CLOEXEC), out = -1, r = in < 0 ? -errno : 0;
	struct stat st;
	uint64_t found = 0;

	if (r == 0 && (fstat(in, &st) < 0 || !S_ISREG(st.st_mode) || (uint64_t)st.st_size < size))
		r = -EBADMSG;
	if (r == 0) {
		out = open(to, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		r = out < 0 ? -errno : 0;
	}
	if (r == 0 && ioctl(out, FICLONE, in) < 0) {
		r = ftruncate(out, (off_t)size) < 0 ? -errno : 0;
		if (r == 0)
			r = each_piece(in, 0, size, put_piece, &out);
	}
	if (r == 0)
		r = disk_sum(out, size, &found);
	if (r == 0 && found != sum)
		r = -EBADMSG;
	if (r < 0 && out >= 0)
		(void)unlink(to);
	if (in >= 0)
		(void)close(in);
	if (out >= 0)
		(void)close(out);
	if (r == -EBADMSG)
		return err_set(err, r, "%s, a disk of the snapshot, is damaged", from);
	return r < 0 ? err_set(err, r, "cannot copy %s, a disk of the snapshot: %s", from, strerror(-r)) : 0;
}

int disk_stamp(const char *path, char ret_stamp[DISK_STAMP_SIZE])
{
	struct stat st;

	if (stat(path, &st) < 0)
		return -errno;
	(void)snprintf(ret_stamp, DISK_STAMP_SIZE, "%lld:%lld.%09ld", (long long)st.st_size, (long long)st.st_mtim.tv_sec,
		       st.st_mtim.tv_nsec);
	return 0;
}
