/* SPDX-License-Identifier: Apache-2.0 */
/* Rate of this host's time stamp counter. */
#ifndef VMM_TSC_H
#define VMM_TSC_H

#include <stdint.h>

/*
 * Returns the rate in kHz, never 0.  The first call may take 10 ms on a host
 * that tells its rate nowhere; the result is kept.  Any thread.
 */
uint32_t host_tsc_khz(void);

/*
 * Spares this process that: reads the rate from file @memo, where an earlier one wrote
 * it since the host was started, or writes it there.  Failures only cost time.
 */
void host_tsc_recall(const char *memo);

#endif /* VMM_TSC_H */
