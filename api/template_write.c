/* SPDX-License-Identifier: Apache-2.0 */
/* What templates are written with: by the VM's process to memory, from there to the disk. */
#include "api/template.h"

#include "os/err.h"
#include "os/file.h"
#include "os/log.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <unistd.h>

int template_begin(uint64_t bytes)
{
	int fd = memfd_create("roux-template", MFD_CLOEXEC);

	if (fd >= 0 && ftruncate(fd, (off_t)bytes) < 0) {
		int r = -errno;

		(void)close(fd);
		return r;
	}
	return fd < 0 ? -errno : fd;
}

/* The first @size bytes; holes stay holes. */
static int copy_sparse(int from, int to, off_t size)
{
	for (off_t at = 0; at < size;) {
		off_t end;

		at = lseek(from, at, SEEK_DATA);
		if (at < 0)
			return errno == ENXIO ? 0 : -errno;
		end = lseek(from, at, SEEK_HOLE);
		if (end < 0 || lseek(to, at, SEEK_SET) < 0)
			return -errno;
		end = end < size ? end : size;
		while (at < end) {
			ssize_t n = sendfile(to, from, &at, (size_t)(end - at));

			if (n <= 0)
				return n < 0 ? -errno : -EIO;
		}
	}
	return 0;
}

/* The first @bytes of @fd as file @path. */
static int commit(int fd, uint64_t bytes, const char *path)
{
	struct file_new file;
	int r = file_new_begin(&file, path, 0600, NULL);

	if (r < 0)
		return r;
	if (ftruncate(file.fd, (off_t)bytes) < 0)
		r = -errno;
	if (r == 0)
		r = copy_sparse(fd, file.fd, (off_t)bytes);
	if (r == 0)
		r = file_seal(file.fd);
	if (r == 0)
		return file_new_commit(&file, NULL);
	file_new_abort(&file);
	return r;
}

void template_commit(int fd, uint64_t bytes, const char *path)
{
	int r = commit(fd, bytes, path);

	if (r < 0)
		log_msg(LOG_LEVEL_WARN, "template", "cannot write %s: %s", path, strerror(-r));
}

struct template_writer {
	pthread_t thread;
	struct template_part part[TEMPLATE_PARTS_MAX];
	unsigned n;
};

static void close_parts(const struct template_part *part, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		(void)close(part[i].fd);
}

static void *writer_main(void *arg)
{
	struct template_writer *w = arg;
	int r = 0;

	for (unsigned i = 0; i < w->n && r == 0; i++) {
		r = commit(w->part[i].fd, w->part[i].bytes, w->part[i].path);
		if (r < 0)
			log_msg(LOG_LEVEL_WARN, "template", "cannot write %s: %s", w->part[i].path, strerror(-r));
	}
	close_parts(w->part, w->n);	/* they are much memory */
	if (r == 0)
		template_remove_old();
	return NULL;
}

struct template_writer *template_commit_later(const struct template_part *part, unsigned n)
{
	struct template_writer *w = malloc(sizeof(*w));

	if (w) {
		w->n = n;
		memcpy(w->part, part, n * sizeof(*part));
		if (pthread_create(&w->thread, NULL, writer_main, w) == 0)
			return w;
	}
	close_parts(part, n);
	free(w);
	return NULL;
}

void template_writer_finish(struct template_writer *w)
{
	if (!w)
		return;
	(void)pthread_join(w->thread, NULL);
	free(w);
}
