/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a processor does all day, in nine short programs: integers, branches,
 * floating point, memory, system calls, processes, page faults.  One line each:
 *
 *   name value unit      rates in millions a second, times in microseconds
 *
 * Runs unchanged on the host and in guests; keep the programs as they are, or
 * results of before cannot be compared.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static volatile uint64_t sink;	/* keeps results alive */

static double now(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Prints and flushes: a child of fork() must not inherit buffered lines. */
static void report(const char *name, double value, const char *unit)
{
	printf("%s %.4f %s\n", name, value, unit);
	(void)fflush(stdout);
}

static void rate(const char *name, double seconds, double ops, const char *unit)
{
	report(name, ops / seconds / 1e6, unit);
}

static void xorshift(void)
{
	double t = now();
	uint64_t x = 88172645463325252ull;

	for (int i = 0; i < 100000000; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
	}
	sink = x;
	rate("xorshift", now() - t, 1e8, "Mit/s");
}

static int compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static void sort(void)
{
	int n = 2000000;
	uint32_t *a = malloc(4 * (size_t)n), s = 1;
	double t;

	for (int i = 0; i < n; i++)
		a[i] = s = s * 1664525 + 1013904223;
	t = now();
	qsort(a, (size_t)n, 4, compare);
	rate("qsort", now() - t, n, "Mel/s");
	free(a);
}

static void matmul(void)
{
	enum { n = 256 };
	static double a[n][n], b[n][n], c[n][n];
	double t;

	for (int i = 0; i < n; i++)
		for (int j = 0; j < n; j++)
			a[i][j] = i + j, b[i][j] = i - j;
	t = now();
	for (int rep = 0; rep < 4; rep++)
		for (int i = 0; i < n; i++)
			for (int k = 0; k < n; k++) {
				double v = a[i][k];

				for (int j = 0; j < n; j++)
					c[i][j] += v * b[k][j];
			}
	sink = (uint64_t)c[3][5];
	rate("matmul-f64", now() - t, 4.0 * 2 * n * n * n, "MFLOP/s");
}

static void copy(void)
{
	size_t n = 64 << 20;
	char *a = malloc(n), *b = malloc(n);
	double t;

	memset(a, 1, n);
	memset(b, 2, n);
	t = now();
	for (int i = 0; i < 8; i++) {
		memcpy(b, a, n);
		a[i]++;
	}
	sink = (uint64_t)b[5];
	rate("memcpy", now() - t, 8.0 * (double)n, "MB/s");
	free(a);
	free(b);
}

static void chase(void)
{
	uint32_t n = 1 << 20, s = 7, p = 0;
	uint32_t *next = malloc(4 * (size_t)n);
	double t;

	for (uint32_t i = 0; i < n; i++)
		next[i] = i;
	for (uint32_t i = n - 1; i > 0; i--) {
		uint32_t j, q;

		s = s * 1664525 + 1013904223;
		j = s % i;
		q = next[i];
		next[i] = next[j];
		next[j] = q;
	}
	t = now();
	for (int i = 0; i < 5000000; i++)
		p = next[p];
	sink = p;
	rate("ptrchase", now() - t, 5e6, "Mhop/s");
	free(next);
}

static void calls(void)
{
	double t = now();

	for (int i = 0; i < 500000; i++)
		(void)syscall(SYS_getppid);
	rate("syscall", now() - t, 5e5, "Mcall/s");
}

static void forks(void)
{
	double t = now();
	int n = 300;

	for (int i = 0; i < n; i++) {
		pid_t p = fork();

		if (p == 0)
			_exit(0);
		(void)waitpid(p, NULL, 0);
	}
	report("fork+wait", (now() - t) / n * 1e6, "us");
}

static void answer(int from, int to, int rounds)
{
	char c = 0;

	for (int i = 0; i < rounds; i++)
		if (read(from, &c, 1) != 1 || write(to, &c, 1) != 1)
			_exit(1);
	_exit(0);
}

static void ping_pong(void)
{
	enum { rounds = 20000 };
	int a[2], b[2];
	char c = 0;
	double t;
	pid_t p;

	if (pipe(a) < 0 || pipe(b) < 0)
		return;
	p = fork();
	if (p == 0)
		answer(a[0], b[1], rounds);
	t = now();
	for (int i = 0; i < rounds; i++)
		if (write(a[1], &c, 1) != 1 || read(b[0], &c, 1) != 1)
			return;
	report("pipe-pingpong", (now() - t) / rounds * 1e6, "us");
	(void)waitpid(p, NULL, 0);
}

static void faults(void)
{
	int size = 16 << 20;
	double t = now();

	for (int k = 0; k < 20; k++) {
		char *m = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		for (int i = 0; i < size; i += 4096)
			m[i] = 1;
		(void)munmap(m, (size_t)size);
	}
	report("pagefault", (now() - t) / (20 * 4096) * 1e6, "us");
}

int main(void)
{
	xorshift();
	sort();
	matmul();
	copy();
	chase();
	calls();
	forks();
	ping_pong();
	faults();
	return 0;
}
