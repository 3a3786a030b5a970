/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stress SEED FOLDER DISK PART...
 *
 * Runs the parts one after the other.  A part is "NAME[+NAME...]:SECONDS": the pieces
 * named run beside each other for that long.  DISK is a block device whose content is
 * lost, or "-".  Prints when a part begins and ends, and for each piece its seed and how many
 * rounds it did.  The exit status is 1 when a piece found something wrong.
 */
#include "tests/stress/stress.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PIECES_MAX 16

static const struct {
	const char *name;
	piece_fn run;
} pieces[] = {
	{ "fork", piece_fork },
	{ "pipes", piece_pipes },
	{ "memory", piece_memory },
	{ "code", piece_code },
	{ "fill", piece_fill },
	{ "files", piece_files },
	{ "disk", piece_disk },
	{ "timers", piece_timers },
	{ "threads", piece_threads },
};

static const char *current = "stress";	/* piece of this process, for messages */

void fail(const char *fmt, ...)
{
	int number = errno;
	va_list ap;

	(void)fprintf(stderr, "stress: %s: ", current);
	va_start(ap, fmt);
	(void)vfprintf(stderr, fmt, ap);
	va_end(ap);
	(void)fprintf(stderr, number ? " (%s)\n" : "\n", strerror(number));
	_exit(1);
}

uint64_t now_ns(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

bool time_is_over(const struct work *w)
{
	return now_ns() >= w->until;
}

uint64_t rng_next(struct rng *r)	/* splitmix64 */
{
	uint64_t z = r->s += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

unsigned rng_below(struct rng *r, unsigned n)
{
	return (unsigned)((rng_next(r) >> 32) * n >> 32);
}

void fill_bytes(uint64_t seed, void *dst, size_t n)
{
	struct rng r = { seed };
	uint8_t *at = dst;

	for (size_t i = 0; i < n; i += 8) {
		uint64_t v = rng_next(&r);

		memcpy(at + i, &v, n - i < 8 ? n - i : 8);
	}
}

bool same_bytes(uint64_t seed, const void *src, size_t n)
{
	struct rng r = { seed };
	const uint8_t *at = src;

	for (size_t i = 0; i < n; i += 8) {
		uint64_t v = rng_next(&r);

		if (memcmp(at + i, &v, n - i < 8 ? n - i : 8) != 0)
			return false;
	}
	return true;
}

int child_status(uint64_t seed)
{
	struct rng r = { seed };
	uint64_t sum = 0;

	for (int i = 0; i < 1000; i++)
		sum += rng_next(&r);
	return (int)(sum >> 32 & 0x7f);
}

static int run_piece(unsigned i, struct work *w)
{
	uint64_t seed = w->rng.s;
	pid_t pid = fork();

	if (pid < 0)
		fail("fork");
	if (pid)
		return pid;
	current = pieces[i].name;
	pieces[i].run(w);
	(void)printf("%s seed %llu rounds %llu\n", current, (unsigned long long)seed, (unsigned long long)w->rounds);
	(void)fflush(stdout);
	_exit(w->rounds ? 0 : 1);
}

static unsigned find_piece(const char *name, size_t len)
{
	for (unsigned i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++)
		if (strlen(pieces[i].name) == len && strncmp(pieces[i].name, name, len) == 0)
			return i;
	errno = 0;
	fail("no piece is named '%.*s'", (int)len, name);
}

/* What the guest keeps of files goes, so that the host can see what it keeps of them itself. */
static void drop_caches(void)
{
	int fd = open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return;	/* not root */
	sync();
	must(write(fd, "3", 1) == 1 && close(fd) == 0);
}

/* False when a piece of the part failed. */
static bool run_part(const char *part, struct work *w)
{
	const char *colon = strchr(part, ':');
	pid_t pid[PIECES_MAX];
	unsigned n = 0;
	bool good = true;

	errno = 0;
	if (!colon)
		fail("'%s' has no time", part);
	(void)printf("begin %s\n", part);
	(void)fflush(stdout);
	w->until = now_ns() + strtoull(colon + 1, NULL, 10) * 1000000000u;
	for (const char *p = part; p < colon && n < PIECES_MAX;) {
		size_t len = strcspn(p, "+:");

		(void)rng_next(&w->rng);
		pid[n++] = run_piece(find_piece(p, len), w);
		p += len + 1;
	}
	while (n) {
		pid_t one = pid[--n];
		int status;

		if (waitpid(one, &status, 0) != one)
			fail("waitpid");
		if (WIFSIGNALED(status))
			(void)fprintf(stderr, "stress: a piece of %s was killed by signal %d\n", part, WTERMSIG(status));
		good &= status == 0;
	}
	drop_caches();
	(void)printf("end %s\n", part);
	(void)fflush(stdout);
	return good;
}

int main(int argc, char **argv)
{
	struct work w = { 0 };
	bool good = true;

	if (argc == 3 && strcmp(argv[1], "child") == 0)
		return child_status(strtoull(argv[2], NULL, 10));
	if (argc < 5) {
		(void)fprintf(stderr, "usage: stress SEED FOLDER DISK NAME[+NAME...]:SECONDS...\n");
		return 2;
	}
	w.rng.s = strtoull(argv[1], NULL, 10);
	w.folder = argv[2];
	w.disk = strcmp(argv[3], "-") ? argv[3] : NULL;
	for (int i = 4; i < argc; i++)
		good &= run_part(argv[i], &w);
	return good ? 0 : 1;
}
