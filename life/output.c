/* SPDX-License-Identifier: Apache-2.0 */
#include "life/output.h"

#include "os/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#define NONE UINT64_MAX /* no such file number */
#define BUF_SIZE (OUTPUT_HEADER + OUTPUT_RECORD_MAX)

static void put_le(uint8_t *at, uint64_t v, unsigned bytes)
{
	for (unsigned i = 0; i < bytes; i++)
		at[i] = (uint8_t)(v >> (8 * i));
}

static uint64_t get_le(const uint8_t *at, unsigned bytes)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < bytes; i++)
		v |= (uint64_t)at[i] << (8 * i);
	return v;
}

static void file_name(const char *folder, uint64_t number, char ret[PATH_MAX])
{
	(void)snprintf(ret, PATH_MAX, "%s/log.%llu", folder, (unsigned long long)number);
}

/* Number of the file called @name, NONE when it is no log. */
static uint64_t number_of(const char *name)
{
	size_t digits;

	if (strncmp(name, "log.", 4) != 0)
		return NONE;
	digits = strspn(name + 4, "0123456789");
	return digits == 0 || digits > 18 || name[4 + digits] ? NONE : strtoull(name + 4, NULL, 10);
}

/* Lowest number not below @from and highest of all; NONE without any. */
static void find_files(const char *folder, uint64_t from, uint64_t *ret_next, uint64_t *ret_last)
{
	struct dirent *e;
	DIR *dir = opendir(folder);

	*ret_next = *ret_last = NONE;
	if (!dir)
		return;
	while ((e = readdir(dir))) {
		uint64_t n = number_of(e->d_name);

		if (n == NONE)
			continue;
		if (*ret_last == NONE || n > *ret_last)
			*ret_last = n;
		if (n >= from && n < *ret_next)
			*ret_next = n;
	}
	(void)closedir(dir);
}

/* ------------------------------------------------------------------ writing */

static void next_file(struct output_writer *w)
{
	char path[PATH_MAX];

	if (w->fd >= 0)
		(void)close(w->fd);
	w->number++;
	if (w->number >= OUTPUT_FILES) {
		file_name(w->folder, w->number - OUTPUT_FILES, path);
		(void)unlink(path);
	}
	file_name(w->folder, w->number, path);
	w->fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0600);
	w->size = 0;
}

void output_open(struct output_writer *w, const char *folder, uint64_t max)
{
	uint64_t first, last;

	*w = (struct output_writer){ .fd = -1, .size_max = (max ? max : OUTPUT_DEFAULT_MAX) / OUTPUT_FILES };
	(void)snprintf(w->folder, sizeof(w->folder), "%s", folder);
	find_files(folder, 0, &first, &last);
	w->number = last == NONE ? 0 : last;
}

void output_close(struct output_writer *w)
{
	if (w->fd >= 0)
		(void)close(w->fd);
	w->fd = -1;
}

static void write_record(struct output_writer *w, enum output_stream stream, int64_t time_ns, const uint8_t *data,
			 size_t len)
{
	uint8_t head[OUTPUT_HEADER] = { 0 };
	struct iovec iov[2] = { { head, sizeof(head) }, { (void *)(uintptr_t)data, len } };
	ssize_t n;

	if (w->fd < 0 || w->size + sizeof(head) + len > w->size_max)
		next_file(w);
	put_le(head, len, 4);
	head[4] = (uint8_t)stream;
	put_le(head + 8, (uint64_t)time_ns, 8);
	n = w->fd < 0 ? -1 : writev(w->fd, iov, 2);
	if (n == (ssize_t)(sizeof(head) + len)) {
		w->size += (uint64_t)n;
		return;
	}
	w->dropped += len;
	if (n > 0 && ftruncate(w->fd, (off_t)w->size) < 0)
		w->size = w->size_max;	/* half a record: what follows goes to another file */
}

void output_write(struct output_writer *w, enum output_stream stream, int64_t time_ns, const void *data, size_t len)
{
	const uint8_t *at = data;

	while (len) {
		size_t n = len < OUTPUT_RECORD_MAX ? len : OUTPUT_RECORD_MAX;

		write_record(w, stream, time_ns, at, n);
		at += n;
		len -= n;
	}
}

/* ------------------------------------------------------------------ reading */

long output_parse(const uint8_t *buf, size_t len, struct output_record *ret)
{
	uint64_t size;

	if (len < OUTPUT_HEADER)
		return 0;
	size = get_le(buf, 4);
	if (size == 0 || size > OUTPUT_RECORD_MAX || (buf[4] != OUTPUT_STDOUT && buf[4] != OUTPUT_STDERR) || buf[5] ||
	    buf[6] || buf[7])
		return -1;
	if (len < OUTPUT_HEADER + size)
		return 0;
	*ret = (struct output_record){ .data = buf + OUTPUT_HEADER, .len = (uint32_t)size, .stream = buf[4],
				       .time_ns = (int64_t)get_le(buf + 8, 8) };
	return (long)(OUTPUT_HEADER + size);
}

int output_reader_open(struct output_reader *r, const char *folder)
{
	*r = (struct output_reader){ .fd = -1, .buf = malloc(BUF_SIZE) };
	(void)snprintf(r->folder, sizeof(r->folder), "%s", folder);
	return r->buf ? 0 : -ENOMEM;
}

void output_reader_close(struct output_reader *r)
{
	if (r->fd >= 0)
		(void)close(r->fd);
	free(r->buf);
	*r = (struct output_reader){ .fd = -1 };
}

/* Goes on with file @next.  False when it is gone. */
static bool reader_next_file(struct output_reader *r, uint64_t next)
{
	char path[PATH_MAX];
	int fd;

	file_name(r->folder, next, path);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;	/* rotated away just now: the caller comes again */
	if (r->fd >= 0)
		(void)close(r->fd);
	r->fd = fd;
	r->number = next;
	r->len = r->at = 0;
	return true;
}

/* Reads more of the present file.  False at its end. */
static bool fill(struct output_reader *r)
{
	ssize_t n;

	memmove(r->buf, r->buf + r->at, r->len - r->at);
	r->len -= r->at;
	r->at = 0;
	n = r->fd < 0 || r->len == BUF_SIZE ? 0 : read(r->fd, r->buf + r->len, BUF_SIZE - r->len);
	if (n <= 0)
		return false;
	r->len += (size_t)n;
	return true;
}

/* Takes lines off the front of a record that are to be skipped. */
static void skip_lines(struct output_reader *r, struct output_record *record)
{
	while (r->skip_lines && record->len) {
		const uint8_t *end = memchr(record->data, '\n', record->len);
		uint32_t n = end ? (uint32_t)(end + 1 - record->data) : record->len;

		r->skip_lines -= end != NULL;
		record->data += n;
		record->len -= n;
	}
}

/* The next record of the present file: 1, or 0 at its end (or damage, which ends it too). */
static int read_here(struct output_reader *r, struct output_record *ret)
{
	for (;;) {
		long n = output_parse(r->buf + r->at, r->len - r->at, ret);

		if (n < 0)
			return 0;
		if (n > 0) {
			r->at += (size_t)n;
			skip_lines(r, ret);
			if (ret->len)
				return 1;
		} else if (!fill(r)) {
			return 0;
		}
	}
}

int output_read(struct output_reader *r, struct output_record *ret)
{
	for (;;) {
		uint64_t next, last;

		if (read_here(r, ret))
			return 1;
		find_files(r->folder, r->fd < 0 ? 0 : r->number + 1, &next, &last);
		if (next == NONE)
			return 0;
		/* What was written between our last look at this file and the birth of the next. */
		if (read_here(r, ret))
			return 1;
		if (!reader_next_file(r, next))
			return 0;
	}
}

int output_seek_tail(struct output_reader *r, uint64_t lines)
{
	struct output_record record;
	struct output_reader count;
	uint64_t total = 0;
	uint8_t final = '\n';

	if (output_reader_open(&count, r->folder) < 0)
		return -ENOMEM;
	while (output_read(&count, &record)) {
		for (const uint8_t *at = record.data, *end = at + record.len; (at = memchr(at, '\n', (size_t)(end - at))); at++)
			total++;
		final = record.data[record.len - 1];
	}
	output_reader_close(&count);
	total += final != '\n';
	r->skip_lines = total > lines ? total - lines : 0;
	return 0;
}
