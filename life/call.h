/* SPDX-License-Identifier: Apache-2.0 */
/* A request of the monitor's own to the guest's agent, in a session of its own. */
#ifndef LIFE_CALL_H
#define LIFE_CALL_H

#include "life/inside.h"

struct call;

/*
 * Called once: with all frames of the answer but HELLO and output, one behind the
 * other, when OK, ERROR, STATS_REPLY or EXITED has come; with NULL when the guest does
 * not answer in time, hangs up or breaks the protocol.
 */
typedef void (*call_fn)(void *ctx, const uint8_t *frames, size_t len);

/*
 * Sends @request (frames, copied) and waits @timeout_ms for the answer.  A command that
 * runs then is killed.  NULL when it cannot be sent; @fn is not called then.
 */
struct call *call_begin(struct monitor *m, const uint8_t *request, size_t len, int64_t timeout_ms, call_fn fn, void *ctx);

/* Ends it without calling @fn. */
void call_cancel(struct call *call);

#endif /* LIFE_CALL_H */
