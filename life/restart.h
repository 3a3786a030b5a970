/* SPDX-License-Identifier: Apache-2.0 */
/* Whether and when a VM that ended by itself starts again. */
#ifndef LIFE_RESTART_H
#define LIFE_RESTART_H

#include "life/record.h"

/* True when the policy starts it again after @status. */
bool restart_wanted(const struct vm_record *record, int status);

/*
 * How long to wait, in nanoseconds: 100 ms, then twice as long each time up to a minute;
 * from the beginning after a life of ten seconds.
 */
uint64_t restart_delay(uint64_t last_ns, uint64_t lived_ns);

#endif /* LIFE_RESTART_H */
