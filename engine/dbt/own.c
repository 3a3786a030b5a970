/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Translated code that is shared with other processes.
 *
 * What came from a file is mapped privately in both places, executable and readable, and nobody
 * writes to it.  In front of the first change of a unit of it, a copy in our own memory takes its place:
 * that was mapped all along, twice more behind cc->spare_rx and cc->spare_rw, and moves from there.
 * Moving needs no right to make memory executable, which the jail has taken.
 */
#include "engine/dbt/block.h"

#include "base/checked.h"
#include "engine/dbt/cpu.h"
#include "engine/dbt/run.h"

#include <sys/mman.h>
#include <sys/syscall.h>

/*
 * Having a unit of one's own takes some 50 us, going through the dispatcher instead of by a link a hundredth of that; most exits
 * that are new to a machine are taken once or twice.
 */
#define HEAT_ENOUGH 64u

static bool move(uint8_t *from, size_t bytes, uint8_t *to)
{
	long r = raw_syscall5(SYS_mremap, (long)(uintptr_t)from, (long)bytes, (long)bytes, MREMAP_MAYMOVE | MREMAP_FIXED,
			      (long)(uintptr_t)to);

	return r == (long)(uintptr_t)to;
}

static bool is_shared(const struct code_cache *cc, size_t unit)
{
	return cc->shared[unit / 64] >> unit % 64 & 1;
}

/* Other vCPUs may run that code: the kernel has them wait while it changes from one mapping to the other. */
static bool own(struct code_cache *cc, size_t first, size_t units)
{
	size_t at = first << cc->unit_bits, bytes = units << cc->unit_bits;

	if (!move(cc->spare_rw + at, bytes, cc->rw + at) || !move(cc->spare_rx + at, bytes, cc->rx + at))
		return false;
	for (size_t i = first; i < first + units; i++)
		cc->shared[i / 64] &= ~(1ull << i % 64);
	return true;
}

bool code_own(struct code_cache *cc, const uint8_t *rw, size_t len)
{
	size_t at = (size_t)(rw - cc->rw);

	if (!cc->unit_bits)
		return true;
	for (size_t unit = at >> cc->unit_bits; unit <= (at + len - 1) >> cc->unit_bits; unit++) {
		if (!is_shared(cc, unit))
			continue;
		at = unit << cc->unit_bits;
		copy_bytes(cc->spare_rw + at, cc->rw + at, 1ul << cc->unit_bits);
		if (!own(cc, unit, 1))
			return false;
	}
	return true;
}

bool code_worth_owning(struct code_cache *cc, const uint8_t *rw)
{
	size_t at = (size_t)(rw - cc->rw);
	uint8_t *heat = &cc->heat[at / 4 % ARRAY_SIZE(cc->heat)];	/* others with the same remainder add to it */

	if (!cc->unit_bits || !is_shared(cc, at >> cc->unit_bits))
		return true;
	return *heat == HEAT_ENOUGH || ++*heat == HEAT_ENOUGH;
}

void code_own_all(struct code_cache *cc)
{
	size_t units = cc->unit_bits ? cc->size >> cc->unit_bits : 0;

	for (size_t i = 0; i < units; i++) {
		size_t run = 0;

		while (i + run < units && is_shared(cc, i + run))
			run++;
		if (run && !own(cc, i, run))
			__builtin_trap();	/* old code would run as if it were new */
		i += run;
	}
}
