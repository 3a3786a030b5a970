/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The KVM clock for engines whose host does not provide it: a page through which
 * the guest turns its TSC into nanoseconds without leaving guest code.
 *
 * One struct kvmclock serves a machine whose vCPUs share one TSC.  Because rate
 * and offset never change while it runs, each page is written once, when the
 * guest names it, and again after a restore.
 *
 * Source: Documentation/virt/kvm/x86/msr.rst of Linux.
 */
#ifndef VMM_KVMCLOCK_H
#define VMM_KVMCLOCK_H

#include "vmm/guest_mem.h"

#include <stdint.h>

struct kvmclock {
	const struct mem *mem;	/* borrowed */
	uint32_t tsc_to_ns_mul;	/* ns = (tsc << shift) * mul >> 32 */
	int8_t tsc_shift;
	uint64_t tsc_base;	/* guest TSC at which ... */
	uint64_t ns_base;	/* ... the clock shows this */
};

/* Starts the clock at @ns when the guest's TSC is @tsc and runs at @tsc_khz. */
void kvmclock_init(struct kvmclock *clock, const struct mem *mem, uint32_t tsc_khz, uint64_t tsc,
		   uint64_t ns);

/* The clock, in nanoseconds, when the guest's TSC is @tsc. */
uint64_t kvmclock_ns(const struct kvmclock *clock, uint64_t tsc);

/*
 * The guest wrote @value to MSR_KVM_SYSTEM_TIME_NEW: bit 0 enables, the rest is
 * the address, 4-byte aligned.  Returns 0, or -1 when WRMSR must raise #GP
 * (address outside RAM).
 */
int kvmclock_write_system_time(const struct kvmclock *clock, uint64_t value);

/* The same for MSR_KVM_WALL_CLOCK_NEW, where 0 names no address; @tsc is the guest's TSC now. */
int kvmclock_write_wall_clock(const struct kvmclock *clock, uint64_t value, uint64_t tsc);

#endif /* VMM_KVMCLOCK_H */
