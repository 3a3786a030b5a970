/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How much two processors do more than one: a fixed amount of computing by one
 * process, then by each of two at the same time, TIMES times over.
 *
 *   smp TIMES      prints lines "one S s" and "two S s", seconds by the monotonic clock
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SIZE = 128, PRODUCTS = 80, STEPS = 250000000 };

static volatile uint64_t sink;	/* keeps results alive */

static double now(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void integers(void)
{
	uint64_t x = 88172645463325252ull;

	for (int i = 0; i < STEPS; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
	}
	sink = x;
}

static void product(void)
{
	static double a[SIZE][SIZE], b[SIZE][SIZE], c[SIZE][SIZE];

	for (int i = 0; i < SIZE; i++)
		for (int j = 0; j < SIZE; j++)
			a[i][j] = i + j, b[i][j] = i - j;
	for (int i = 0; i < SIZE; i++)
		for (int k = 0; k < SIZE; k++)
			for (int j = 0; j < SIZE; j++)
				c[i][j] += a[i][k] * b[k][j];
	sink = (uint64_t)c[3][5];
}

/* Seconds that @n processes take to do the same work each, all at once; exits when it cannot. */
static double together(int n)
{
	double begin = now();
	int status = 0;

	for (int i = 0; i < n; i++) {
		pid_t p = fork();

		if (p < 0)
			exit(1);
		if (p == 0) {
			integers();
			for (int k = 0; k < PRODUCTS; k++)
				product();
			_exit(0);
		}
	}
	for (int i = 0; i < n; i++)
		if (wait(&status) < 0 || status != 0)
			exit(1);
	return now() - begin;
}

int main(int argc, char **argv)
{
	int times = argc == 2 ? atoi(argv[1]) : 0;

	if (times <= 0)
		return 2;
	(void)together(1);	/* what is translated at its first run is there by now */
	for (int i = 0; i < times; i++) {
		printf("one %.6f s\n", together(1));
		printf("two %.6f s\n", together(2));
		(void)fflush(stdout);
	}
	return 0;
}
