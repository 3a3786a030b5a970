/* SPDX-License-Identifier: Apache-2.0 */
/* Files and sectors against a copy in memory. */
#include "tests/stress/stress.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <linux/fs.h>

/* --- A folder --- */

#define FILES 12u
#define FILE_MAX (256u << 10)	/* bytes */

static struct {
	uint8_t *bytes;	/* FILE_MAX */
	size_t size;
	bool exists;
} files[FILES];

static uint8_t buffer[FILE_MAX];

static int open_file(unsigned i, int flags)
{
	char name[16];
	int fd;

	(void)snprintf(name, sizeof(name), "f%u", i);
	fd = open(name, flags | O_CLOEXEC, 0600);
	if (fd < 0)
		fail("%s", name);
	return fd;
}

static void write_file(struct rng *rng, unsigned i)
{
	size_t at = rng_below(rng, FILE_MAX), n = 1 + rng_below(rng, 40000);
	int fd = open_file(i, O_RDWR | O_CREAT);

	n = n < FILE_MAX - at ? n : FILE_MAX - at;
	fill_bytes(rng_next(rng), files[i].bytes + at, n);
	must(pwrite(fd, files[i].bytes + at, n, (off_t)at) == (ssize_t)n);
	if (at + n > files[i].size) {
		if (at > files[i].size)
			memset(files[i].bytes + files[i].size, 0, at - files[i].size);
		files[i].size = at + n;
	}
	files[i].exists = true;
	if (rng_below(rng, 8) == 0)
		must(fsync(fd) == 0);
	must(close(fd) == 0);
}

static void check_file(struct rng *rng, unsigned i)
{
	int fd = open_file(i, O_RDONLY);
	struct stat st;

	must(fstat(fd, &st) == 0 && (size_t)st.st_size == files[i].size);
	if (files[i].size && rng_below(rng, 3) == 0) {
		uint8_t *map = mmap(NULL, files[i].size, PROT_READ, MAP_PRIVATE, fd, 0);

		must(map != MAP_FAILED && memcmp(map, files[i].bytes, files[i].size) == 0);
		must(munmap(map, files[i].size) == 0);
	} else {
		size_t at = files[i].size ? rng_below(rng, (unsigned)files[i].size) : 0, n = files[i].size - at;

		must(pread(fd, buffer, n, (off_t)at) == (ssize_t)n && memcmp(buffer, files[i].bytes + at, n) == 0);
	}
	must(close(fd) == 0);
}

static void cut_file(struct rng *rng, unsigned i)
{
	size_t size = rng_below(rng, FILE_MAX);
	int fd = open_file(i, O_RDWR);

	must(ftruncate(fd, (off_t)size) == 0 && close(fd) == 0);
	if (size > files[i].size)
		memset(files[i].bytes + files[i].size, 0, size - files[i].size);
	files[i].size = size;
}

static void remove_file(unsigned i)
{
	char name[16];

	(void)snprintf(name, sizeof(name), "f%u", i);
	must(unlink(name) == 0);
	must(open(name, O_RDONLY) < 0 && errno == ENOENT);
	files[i].exists = false;
	files[i].size = 0;
}

/* Over the other one, if there is one. */
static void rename_file(unsigned i, unsigned k)
{
	uint8_t *bytes = files[k].bytes;
	char from[16], to[16];

	if (i == k)
		return;
	(void)snprintf(from, sizeof(from), "f%u", i);
	(void)snprintf(to, sizeof(to), "f%u", k);
	must(rename(from, to) == 0);
	files[k] = files[i];
	files[i].bytes = bytes;
	files[i].exists = false;
	files[i].size = 0;
}

static void check_list(void)
{
	DIR *d = opendir(".");
	unsigned seen = 0, expected = 0;
	struct dirent *e;

	must(d);
	while ((e = readdir(d)))
		if (e->d_name[0] == 'f')
			seen |= 1u << atoi(e->d_name + 1);
	must(closedir(d) == 0);
	for (unsigned i = 0; i < FILES; i++)
		expected |= files[i].exists ? 1u << i : 0;
	must(seen == expected);
}

void piece_files(struct work *w)
{
	char name[] = "stress.XXXXXX";

	must(chdir(w->folder) == 0 && mkdtemp(name) && chdir(name) == 0);
	for (unsigned i = 0; i < FILES; i++)
		must((files[i].bytes = malloc(FILE_MAX)));
	for (; !time_is_over(w); w->rounds++) {
		unsigned i = rng_below(&w->rng, FILES), what = rng_below(&w->rng, 16);

		if (what < 6 || !files[i].exists)
			write_file(&w->rng, i);
		else if (what < 12)
			check_file(&w->rng, i);
		else if (what == 12)
			cut_file(&w->rng, i);
		else if (what == 13)
			remove_file(i);
		else if (what == 14)
			rename_file(i, rng_below(&w->rng, FILES));
		else
			check_list();
	}
	for (unsigned i = 0; i < FILES; i++)
		if (files[i].exists) {
			check_file(&w->rng, i);
			remove_file(i);
		}
	must(chdir("..") == 0 && rmdir(name) == 0);
}

/* --- A disk --- */

#define BLOCK 4096u
#define BLOCKS_MAX 4096u
#define RUN_MAX 32u	/* blocks of one request */

static uint64_t seeds[BLOCKS_MAX];	/* of the content of each block; 0: not written yet */

static void write_blocks(struct rng *rng, int fd, uint8_t *bytes, unsigned at, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		seeds[at + i] = rng_next(rng) | 1;
		fill_bytes(seeds[at + i], bytes + i * BLOCK, BLOCK);
	}
	must(pwrite(fd, bytes, n * BLOCK, (off_t)at * BLOCK) == n * BLOCK);
}

static void read_blocks(int fd, uint8_t *bytes, unsigned at, unsigned n)
{
	must(pread(fd, bytes, n * BLOCK, (off_t)at * BLOCK) == n * BLOCK);
	for (unsigned i = 0; i < n; i++)
		must(!seeds[at + i] || same_bytes(seeds[at + i], bytes + i * BLOCK, BLOCK));
}

void piece_disk(struct work *w)
{
	uint8_t *bytes = aligned_alloc(BLOCK, RUN_MAX * BLOCK);
	int cached, direct;
	uint64_t size;
	unsigned blocks;

	errno = 0;
	if (!w->disk)
		fail("no disk was given");
	cached = open(w->disk, O_RDWR | O_CLOEXEC);
	direct = open(w->disk, O_RDWR | O_DIRECT | O_CLOEXEC);
	must(bytes && cached >= 0 && direct >= 0 && ioctl(cached, BLKGETSIZE64, &size) == 0);
	blocks = size / BLOCK < BLOCKS_MAX ? (unsigned)(size / BLOCK) : BLOCKS_MAX;
	must(blocks > RUN_MAX);
	for (; !time_is_over(w); w->rounds++) {
		unsigned n = 1 + rng_below(&w->rng, RUN_MAX), at = rng_below(&w->rng, blocks - n);

		switch (rng_below(&w->rng, 4)) {
		case 0:
			write_blocks(&w->rng, cached, bytes, at, n);
			must(fsync(cached) == 0);
			break;
		case 1:	/* reads and writes past the cache: it must hold nothing older */
			write_blocks(&w->rng, direct, bytes, at, n);
			break;
		case 2:
			read_blocks(direct, bytes, at, n);
			break;
		default:
			read_blocks(cached, bytes, at, n);
			break;
		}
	}
	must(close(cached) == 0 && close(direct) == 0);
	free(bytes);
}
