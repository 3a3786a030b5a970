/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Health checks, as the image's HEALTHCHECK or the --health options have them: a command
 * in the guest every so often, whose status 0 means healthy.
 */
#ifndef LIFE_HEALTH_H
#define LIFE_HEALTH_H

#include "life/record.h"

struct monitor;

void health_begin(struct monitor *m);	/* the machine runs */
void health_end(struct monitor *m);

/* What one more result makes of it; @grace: the start period lasts. */
void health_count(struct vm_state *state, bool ok, bool grace, uint32_t retries);

#endif /* LIFE_HEALTH_H */
