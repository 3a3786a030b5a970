/* SPDX-License-Identifier: Apache-2.0 */
/* What a VM uses, as host and guest see it: answers of the control socket. */
#ifndef LIFE_STATS_H
#define LIFE_STATS_H

#include "life/inside.h"

/* guest_answer_fn: JSON of one sample, JSON of the processes, Prometheus text format 0.0.4. */
void stats_answer(struct conn *c, const uint8_t *frames, size_t len);
void stats_answer_processes(struct conn *c, const uint8_t *frames, size_t len);
void stats_answer_metrics(struct conn *c, const uint8_t *frames, size_t len);

#endif /* LIFE_STATS_H */
