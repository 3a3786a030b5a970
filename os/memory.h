/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host's memory: what a process has of it, what it gives back, and whether equal pages become one (KSM).
 *
 *   resident    own                    shared with other processes
 *              |----------------------|-------------|-----------|
 *               anonymous, memfd        files         merged
 *   saved                                  the parts of it that others bear
 *
 * A page that n processes share counts one n-th for each of them (proc_pid_smaps(5), Pss); the rest is saved.
 */
#ifndef OS_MEMORY_H
#define OS_MEMORY_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Bytes that are resident; what has been swapped out is in none. */
struct process_memory {
	uint64_t own;	/* comes free with the process */
	uint64_t shared;	/* the pages of files, which others may have too, and of @merged */
	uint64_t merged;	/* of @shared: pages that were its own until the kernel found others like them */
	uint64_t saved;	/* of @own and @shared: what is there once for several */
};

/* Adds what @pid has to @sum.  0, or a negative errno: -ESRCH when it is gone, -EACCES when it is not ours. */
int process_memory_add(pid_t pid, struct process_memory *sum);

/*
 * What the process has freed, and what its first thread's stack reached beyond where it is now, is the host's again.  For the
 * first thread of a process that has nothing to do for a while.
 */
void memory_give_back(void);

/* The latter for another thread, which is about to end while its stack is kept. */
void memory_give_back_stack(void);

/* Whether this host's kernel looks for equal pages now, in memory that allows it. */
bool memory_merges(void);

#endif /* OS_MEMORY_H */
