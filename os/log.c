/* SPDX-License-Identifier: Apache-2.0 */
#include "os/log.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#define LINE_MAX_BYTES 512	/* longer lines are cut */

/* The one piece of process-wide state: a program has one log. */
static struct {
	log_sink_fn fn;
	void *ctx;
	enum log_level max_level;
} sink;

void log_set_sink(log_sink_fn fn, void *ctx, enum log_level max_level)
{
	sink.fn = fn;
	sink.ctx = ctx;
	sink.max_level = max_level;
}

bool log_enabled(enum log_level level)
{
	return sink.fn && level <= sink.max_level;
}

void log_msg(enum log_level level, const char *module, const char *fmt, ...)
{
	char line[LINE_MAX_BYTES];
	va_list ap;

	if (!log_enabled(level))
		return;
	va_start(ap, fmt);
	(void)vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	sink.fn(sink.ctx, level, module, line);
}
