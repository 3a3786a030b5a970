/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's wall clock follows the host's where that jumps: when somebody sets it, and when the host wakes from
 * suspend, whose time a guest has not seen pass.
 */
#ifndef LIFE_CLOCK_H
#define LIFE_CLOCK_H

struct monitor;

/* While the VM's command runs.  Without memory or descriptors the guest keeps its own time. */
void clock_begin(struct monitor *m);
void clock_end(struct monitor *m);

/* The VM goes on after a pause. */
void clock_catch_up(struct monitor *m);

#endif /* LIFE_CLOCK_H */
