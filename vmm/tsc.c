/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sources in the order of their worth: what the processor says, what a
 * hypervisor below says, what the kernel tells every user of perf events, and
 * only then a measurement.
 */
#include "vmm/tsc.h"

#include "os/boot.h"
#include "os/file.h"

#include <cpuid.h>
#include <fcntl.h>
#include <linux/perf_event.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>


/* SDM vol. 2, CPUID leaf 15H: TSC = crystal * EBX / EAX; ECX, in Hz, may be missing. */
static uint32_t khz_from_cpu(void)
{
	uint32_t a, b, c, d;

	if (!__get_cpuid(0x15, &a, &b, &c, &d) || !a || !b || !c)
		return 0;
	return (uint32_t)((uint64_t)c / 1000 * b / a);
}

/* Leaf 40000010H, EAX: the kHz that most hypervisors tell their guests. */
static uint32_t khz_from_hypervisor(void)
{
	uint32_t a, b, c, d;

	__cpuid(1, a, b, c, d);
	if (!(c & (1u << 31)))
		return 0;
	__cpuid(0x40000000, a, b, c, d);
	if (a < 0x40000010 || a > 0x400000ff)
		return 0;
	__cpuid(0x40000010, a, b, c, d);
	return a;
}

/* perf_event_mmap_page: ns = (tsc * time_mult) >> time_shift. */
static uint32_t khz_from_perf(void)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_SOFTWARE,
		.size = sizeof(attr),
		.config = PERF_COUNT_SW_DUMMY,
		.exclude_kernel = 1,
		.exclude_hv = 1,
		.disabled = 1,
	};
	long page = sysconf(_SC_PAGESIZE);
	struct perf_event_mmap_page *p;
	uint32_t khz = 0;
	int fd = (int)syscall(SYS_perf_event_open, &attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);

	if (fd < 0)
		return 0;
	p = mmap(NULL, (size_t)page, PROT_READ, MAP_SHARED, fd, 0);
	if (p != MAP_FAILED) {
		if (p->cap_user_time && p->time_mult)
			khz = (uint32_t)(((unsigned __int128)1000000 << p->time_shift) / p->time_mult);
		(void)munmap(p, (size_t)page);
	}
	(void)close(fd);
	return khz;
}

static uint64_t monotonic_ns(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC_RAW, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static uint32_t khz_measured(void)
{
	const struct timespec pause = { .tv_nsec = 10 * 1000 * 1000 };
	uint64_t ns = monotonic_ns(), tsc = __rdtsc();

	(void)nanosleep(&pause, NULL);
	ns = monotonic_ns() - ns;
	tsc = __rdtsc() - tsc;
	return (uint32_t)((unsigned __int128)tsc * 1000000 / (ns ? ns : 1));
}

static _Atomic uint32_t known;

uint32_t host_tsc_khz(void)
{
	uint32_t khz = atomic_load(&known);

	if (khz)
		return khz;
	khz = khz_from_cpu();
	if (!khz)
		khz = khz_from_hypervisor();
	if (!khz)
		khz = khz_from_perf();
	if (!khz)
		khz = khz_measured();
	atomic_store(&known, khz ? khz : 1);
	return khz ? khz : 1;
}

void host_tsc_recall(const char *memo)
{
	/* A counter may run at another rate when the host was started anew, on another machine perhaps. */
	char boot[BOOT_ID_SIZE], line[BOOT_ID_SIZE + 16], *text;
	uint32_t khz;
	size_t len;

	if (atomic_load(&known) || !boot_id(boot))
		return;
	if (file_read_all(memo, sizeof(line), &text, &len, NULL) == 0) {
		khz = strncmp(text, boot, BOOT_ID_SIZE - 1) == 0 ? (uint32_t)strtoul(text + BOOT_ID_SIZE - 1, NULL, 10) : 0;
		free(text);
		if (khz) {
			atomic_store(&known, khz);
			return;
		}
	}
	(void)snprintf(line, sizeof(line), "%s %u\n", boot, host_tsc_khz());
	(void)file_write_atomic(memo, line, strlen(line), 0600, NULL);
}
