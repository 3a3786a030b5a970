/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/kvmclock.h"

#include <stddef.h>
#include <string.h>
#include <time.h>

#define FLAG_TSC_STABLE 1u	/* monotonic across vCPUs */
#define ENABLE 1ull

/* Layouts fixed by msr.rst; a reader retries while the version is odd or changed. */
struct vcpu_time {
	uint32_t version;
	uint32_t pad0;
	uint64_t tsc_timestamp;
	uint64_t system_time;
	uint32_t tsc_to_system_mul;
	int8_t tsc_shift;
	uint8_t flags;
	uint8_t pad[2];
};
_Static_assert(sizeof(struct vcpu_time) == 32, "layout is fixed");

struct wall_clock {
	uint32_t version;
	uint32_t sec;
	uint32_t nsec;
};
_Static_assert(sizeof(struct wall_clock) == 12, "layout is fixed");

/* Scales so that the multiplier keeps 32 significant bits. */
static void set_rate(struct kvmclock *clock, uint32_t tsc_khz)
{
	uint64_t hz = (uint64_t)tsc_khz * 1000, ns = 1000000000;
	int shift = 0;

	while (hz > ns * 2) {
		hz >>= 1;
		shift--;
	}
	while (hz <= ns) {
		hz <<= 1;
		shift++;
	}
	clock->tsc_shift = (int8_t)shift;
	clock->tsc_to_ns_mul = (uint32_t)((ns << 32) / hz);
}

void kvmclock_init(struct kvmclock *clock, const struct mem *mem, uint32_t tsc_khz, uint64_t tsc,
		   uint64_t ns)
{
	*clock = (struct kvmclock){ .mem = mem, .tsc_base = tsc, .ns_base = ns };
	set_rate(clock, tsc_khz);
}

uint64_t kvmclock_ns(const struct kvmclock *clock, uint64_t tsc)
{
	uint64_t delta = tsc - clock->tsc_base;

	if (clock->tsc_shift < 0)
		delta >>= -clock->tsc_shift;
	else
		delta <<= clock->tsc_shift;
	return clock->ns_base + (uint64_t)((unsigned __int128)delta * clock->tsc_to_ns_mul >> 32);
}

/*
 * Writes @len bytes of a structure whose first word is the version: odd while the
 * rest changes.  x86 stores are not reordered; the compiler's are held by atomics.
 */
static int publish(const struct mem *mem, gpa_t gpa, const void *bytes, size_t len)
{
	uint8_t *host = mem_at(mem, gpa, len);
	uint32_t version, *word;

	if (!host || gpa % 4)
		return -1;
	word = (uint32_t *)(void *)host;
	version = __atomic_load_n(word, __ATOMIC_RELAXED) & ~1u;
	__atomic_store_n(word, version + 1, __ATOMIC_SEQ_CST);
	memcpy(host + 4, (const uint8_t *)bytes + 4, len - 4);
	__atomic_store_n(word, version + 2, __ATOMIC_SEQ_CST);
	mem_wrote(mem, gpa, len);
	return 0;
}

int kvmclock_write_system_time(const struct kvmclock *clock, uint64_t value)
{
	const struct vcpu_time page = {
		.tsc_timestamp = clock->tsc_base,
		.system_time = clock->ns_base,
		.tsc_to_system_mul = clock->tsc_to_ns_mul,
		.tsc_shift = clock->tsc_shift,
		.flags = FLAG_TSC_STABLE,
	};

	return value & ENABLE ? publish(clock->mem, value & ~ENABLE, &page, sizeof(page)) : 0;
}

int kvmclock_write_wall_clock(const struct kvmclock *clock, uint64_t value, uint64_t tsc)
{
	struct wall_clock page = { 0 };
	struct timespec now;
	uint64_t boot_ns;

	if (!value)
		return 0;
	(void)clock_gettime(CLOCK_REALTIME, &now);
	/* Wall clock at the moment the guest's clock showed 0. */
	boot_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec -
		  kvmclock_ns(clock, tsc);
	page.sec = (uint32_t)(boot_ns / 1000000000u);
	page.nsec = (uint32_t)(boot_ns % 1000000000u);
	return publish(clock->mem, value, &page, sizeof(page));
}
