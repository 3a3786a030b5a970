/* SPDX-License-Identifier: Apache-2.0 */
#include "os/memory.h"

#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define KSM_RUN "/sys/kernel/mm/ksm/run"
/* Linux keeps a mebibyte below the first thread's stack free for it (stack_guard_gap), whatever its limit is. */
#define FIRST_STACK_DEPTH (256ul << 10)

struct line {
	const char *name;
	uint64_t bytes;
	bool found;
};

static FILE *open_of(pid_t pid, const char *name)
{
	char path[64];

	(void)snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	return fopen(path, "re");
}

/* Reads the lines "name: number kB" that are wanted. */
static int read_lines(pid_t pid, const char *name, struct line *lines, size_t n)
{
	FILE *f = open_of(pid, name);
	char text[256], key[32];
	unsigned long long kib;
	int r;

	if (!f)
		return errno == ENOENT ? -ESRCH : -errno;
	while (fgets(text, sizeof(text), f))
		for (size_t i = 0; i < n; i++)
			if (sscanf(text, "%31[^:]: %llu kB", key, &kib) == 2 && strcmp(key, lines[i].name) == 0) {
				lines[i].bytes = kib << 10;
				lines[i].found = true;
			}
	r = ferror(f) ? -EIO : 0;
	(void)fclose(f);
	return r;
}

/* Kernels before 6.8 tell it for the process only, in pages; those before 5.19 do not. */
static uint64_t merged_pages(pid_t pid)
{
	FILE *f = open_of(pid, "ksm_merging_pages");
	unsigned long pages = 0;

	if (f) {
		if (fscanf(f, "%lu", &pages) != 1)
			pages = 0;
		(void)fclose(f);
	}
	return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static uint64_t less(uint64_t a, uint64_t b)
{
	return a > b ? a - b : 0;	/* the process runs while we read */
}

int process_memory_add(pid_t pid, struct process_memory *sum)
{
	enum { RSS, PSS, PSS_SHMEM, ANONYMOUS, KSM };
	struct line l[] = { [RSS] = { .name = "Rss" }, [PSS] = { .name = "Pss" }, [PSS_SHMEM] = { .name = "Pss_Shmem" },
			    [ANONYMOUS] = { .name = "Anonymous" }, [KSM] = { .name = "KSM" } };
	struct line shmem = { .name = "RssShmem" };
	uint64_t merged, own, shared;
	int r = read_lines(pid, "smaps_rollup", l, sizeof(l) / sizeof(l[0]));

	if (r == 0)
		r = read_lines(pid, "status", &shmem, 1);
	if (r < 0)
		return r;
	merged = l[KSM].found ? l[KSM].bytes : merged_pages(pid);
	/* A memfd that is mapped twice is resident twice, but is only one. */
	own = less(l[ANONYMOUS].bytes, merged) + l[PSS_SHMEM].bytes;
	shared = less(l[RSS].bytes, l[ANONYMOUS].bytes + shmem.bytes) + merged;
	sum->own += own;
	sum->shared += shared;
	sum->merged += merged;
	sum->saved += less(own + shared, l[PSS].bytes);
	return 0;
}

/* What lies between @low, the end of the stack, and where we are now. */
static void give_back_below_us(uintptr_t low)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
	uintptr_t end = ((uintptr_t)__builtin_frame_address(0) & ~(page - 1)) - page;	/* for the calls below */

	low = (low + page - 1) & ~(page - 1);
	if (low < end)
		(void)madvise((void *)low, end - low, MADV_DONTNEED);	/* goes on where nothing is mapped */
}

void memory_give_back(void)
{
	(void)malloc_trim(0);
	give_back_below_us((uintptr_t)__builtin_frame_address(0) - FIRST_STACK_DEPTH);
}

void memory_give_back_stack(void)
{
	pthread_attr_t attr;
	size_t size;
	void *low;

	if (pthread_getattr_np(pthread_self(), &attr) != 0)
		return;
	if (pthread_attr_getstack(&attr, &low, &size) == 0)
		give_back_below_us((uintptr_t)low);
	(void)pthread_attr_destroy(&attr);
}

bool memory_merges(void)
{
	FILE *f = fopen(KSM_RUN, "re");
	bool runs = f && fgetc(f) == '1';

	if (f)
		(void)fclose(f);
	return runs;
}
