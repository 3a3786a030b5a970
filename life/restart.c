/* SPDX-License-Identifier: Apache-2.0 */
#include "life/restart.h"

#define FIRST_NS 100000000ull
#define LAST_NS 60000000000ull
#define LONG_LIFE_NS 10000000000ull

bool restart_wanted(const struct vm_record *record, int status)
{
	const struct vm_config *c = &record->config;

	switch ((enum vm_restart)c->restart) {
	case VM_RESTART_NO:
		return false;
	case VM_RESTART_ON_FAILURE:
		return status != 0 && (!c->restart_max || record->state.restarts < c->restart_max);
	case VM_RESTART_ALWAYS:
	case VM_RESTART_UNLESS_STOPPED:
		return true;
	}
	return false;
}

uint64_t restart_delay(uint64_t last_ns, uint64_t lived_ns)
{
	if (!last_ns || lived_ns >= LONG_LIFE_NS)
		return FIRST_NS;
	return last_ns * 2 < LAST_NS ? last_ns * 2 : LAST_NS;
}
