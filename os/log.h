/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Diagnostics from library code to whatever the program shows them on.
 *
 * A library never prints: it calls log_msg(), and the program decides with
 * log_set_sink() where lines go.  Without a sink they vanish.  Failures that a
 * caller must act on travel in struct err instead (os/err.h).
 */
#ifndef OS_LOG_H
#define OS_LOG_H

#include <stdbool.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* @msg: one line without newline, valid during the call.  Any thread. */
typedef void (*log_sink_fn)(void *ctx, enum log_level level, const char *module, const char *msg);

/*
 * Sends lines of @max_level and more important ones to @fn(@ctx); NULL drops
 * all.  Call it before other threads log: the change is not atomic for them.
 */
void log_set_sink(log_sink_fn fn, void *ctx, enum log_level max_level);

/* True when a line of @level would reach the sink: to skip costly arguments. */
bool log_enabled(enum log_level level);

/* Logs one line.  @module is the short name of the caller, e.g. "virtio-fs". */
void log_msg(enum log_level level, const char *module, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

#endif /* OS_LOG_H */
