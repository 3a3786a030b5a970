/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads and writes of one file or disk, in order and at random places:
 *
 *   io PATH MIB SECONDS direct|buffered
 *
 * Prints `name value unit` lines.  A file is created with MIB MiB; a disk must
 * be as large.  Each pass ends when it has covered MIB MiB or after SECONDS.
 *
 * Buffered writes count until fsync() returned, so that a cache alone is not what
 * is measured; before buffered reads the cache of the kernel that runs this is
 * dropped (not the host's when that is a guest).  On the host the program is
 * therefore started with a further argument `warm`, which keeps it: both then
 * read what the host holds in memory.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LARGE (1u << 20)	/* bytes a request in order */
#define SMALL 4096u	/* bytes a request at random places */

struct job {
	int fd;
	uint64_t size;	/* bytes */
	double seconds;
	const char *kind;	/* "direct" or "buffered" */
	bool warm;
	char *buf;	/* LARGE bytes, aligned for O_DIRECT */
};

static double now(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

__attribute__((noreturn)) static void die(const char *what)
{
	(void)fprintf(stderr, "io: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void drop_cache(const struct job *job)
{
	struct stat st;

	if (job->warm || fstat(job->fd, &st) < 0)
		return;
	if (S_ISBLK(st.st_mode))
		(void)ioctl(job->fd, BLKFLSBUF);
	else
		(void)posix_fadvise(job->fd, 0, 0, POSIX_FADV_DONTNEED);
}

/* One pass; @len bytes a request, at random places or in order. */
static void pass(const struct job *job, const char *name, bool write, bool random, uint32_t len)
{
	uint64_t count = job->size / len, place = 0, n = 0, seed = 88172645463325252ull;
	double begin, end;

	if (!write)
		drop_cache(job);
	begin = end = now();
	for (; n < count && end - begin < job->seconds; n++, end = now()) {
		ssize_t done;

		seed ^= seed << 13;
		seed ^= seed >> 7;
		seed ^= seed << 17;
		place = (random ? seed % count : n) * len;
		done = write ? pwrite(job->fd, job->buf, len, (off_t)place) :
			pread(job->fd, job->buf, len, (off_t)place);
		if (done != (ssize_t)len)
			die(name);
	}
	if (write && fsync(job->fd) < 0)
		die("fsync");
	end = now();
	if (random)
		printf("%s-%s %.1f ops/s\n", name, job->kind, (double)n / (end - begin));
	else
		printf("%s-%s %.2f MB/s\n", name, job->kind, (double)n * len / (end - begin) / 1e6);
}

/* Gives a file its size and real blocks; a disk has them. */
static void fill(const struct job *job)
{
	memset(job->buf, 0x5a, LARGE);
	for (uint64_t at = 0; at < job->size; at += LARGE)
		if (pwrite(job->fd, job->buf, LARGE, (off_t)at) != (ssize_t)LARGE)
			die("cannot fill the file");
	if (fsync(job->fd) < 0)
		die("fsync");
}

int main(int argc, char **argv)
{
	struct job job = { 0 };
	bool direct;

	if (argc < 5) {
		(void)fprintf(stderr, "usage: io PATH MIB SECONDS direct|buffered [warm]\n");
		return 2;
	}
	job.size = strtoull(argv[2], NULL, 10) << 20;
	job.seconds = strtod(argv[3], NULL);
	job.kind = argv[4];
	job.warm = argc > 5;
	direct = strcmp(job.kind, "direct") == 0;
	job.buf = aligned_alloc(SMALL, LARGE);
	job.fd = open(argv[1], O_RDWR | O_CREAT | O_CLOEXEC | (direct ? O_DIRECT : 0), 0600);
	if (!job.buf || job.fd < 0 || job.size < LARGE)
		die(argv[1]);
	fill(&job);
	pass(&job, "seq-write", true, false, LARGE);
	pass(&job, "seq-read", false, false, LARGE);
	pass(&job, "rand-write", true, true, SMALL);
	pass(&job, "rand-read", false, true, SMALL);
	return 0;
}
