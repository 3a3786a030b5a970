/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pieces of a mixed load that check their own results.  A piece runs in a process of
 * its own until its time is over; what it does is decided by its seed and by timing.
 * stress.c is the list of pieces, run.py what starts them in guests.
 */
#ifndef TESTS_STRESS_STRESS_H
#define TESTS_STRESS_STRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct rng {
	uint64_t s;
};

/* What a piece is given. */
struct work {
	struct rng rng;
	uint64_t until;	/* CLOCK_MONOTONIC, ns */
	const char *folder;	/* for files; borrowed */
	const char *disk;	/* block device to overwrite, or NULL; borrowed */
	uint64_t rounds;	/* counted by the piece */
};

typedef void (*piece_fn)(struct work *w);

/* Each returns when the time is over; a wrong result ends the process through fail(). */
void piece_fork(struct work *w);	/* processes: fork, exec, copy on write, signals that kill */
void piece_pipes(struct work *w);	/* a chain of processes by pipes, socket pairs, TCP on loopback */
void piece_memory(struct work *w);	/* mmap, munmap, mprotect, mremap, madvise and the faults they mean */
void piece_code(struct work *w);	/* functions written, protected, called, changed, called again */
void piece_fill(struct work *w);	/* ever new code, more than a translator keeps */
void piece_files(struct work *w);	/* a folder of files against a copy in memory */
void piece_disk(struct work *w);	/* sectors of a disk against what was written */
void piece_timers(struct work *w);	/* signals of timers into a loop whose result is known; clocks */
void piece_threads(struct work *w);	/* mutexes, conditions, barriers, a queue */

/* One line on standard error, then the end of the process with status 1.  errno 0 is not printed. */
void fail(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));

#define must(what) do { \
	if (!(what)) \
		fail("%s:%d: not so: %s", __FILE__, __LINE__, #what); \
} while (0)

uint64_t now_ns(void);	/* CLOCK_MONOTONIC */
bool time_is_over(const struct work *w);
uint64_t rng_next(struct rng *r);
unsigned rng_below(struct rng *r, unsigned n);	/* n is not 0 */
void fill_bytes(uint64_t seed, void *dst, size_t n);
/* False where @src is not what fill_bytes() makes of @seed. */
bool same_bytes(uint64_t seed, const void *src, size_t n);
/* What a program started as "stress child SEED" ends with. */
int child_status(uint64_t seed);

#endif /* TESTS_STRESS_STRESS_H */
