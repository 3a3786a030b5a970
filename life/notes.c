/* SPDX-License-Identifier: Apache-2.0 */
/* What the client that started the VM is told on its standard error, when it asked for it. */
#include "life/inside.h"

#include "api/handle.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void notes_tell(struct monitor *m, const char *text, size_t len)
{
	for (struct conn *c = m->conns; c; c = c->next)
		if (c->creator && c->mode == CONN_ATTACHED)
			conn_note(c, text, len);
}

static void add_text(char **text, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void add_text(char **text, const char *fmt, ...)
{
	char *more, *joined;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&more, fmt, ap);
	va_end(ap);
	if (n < 0)
		return;
	if (asprintf(&joined, "%s%s", *text ? *text : "", more) >= 0) {
		free(*text);
		*text = joined;
	}
	free(more);
}

void notes_tell_phases(struct monitor *m)
{
	static const char *const names[ROUX_PHASES] = {
		[ROUX_PHASE_IMAGE] = "image", [ROUX_PHASE_KERNEL] = "kernel", [ROUX_PHASE_SPAWNED] = "spawn",
		[ROUX_PHASE_LOADED] = "load", [ROUX_PHASE_READY] = "boot" };
	uint64_t begin = roux_machine_phase_ns(m->machine, ROUX_PHASE_BEGIN), before = begin, now = monotonic_ns();
	char *text = NULL;

	add_text(&text, "{\"engine\": \"%s\", \"phases_ms\": {", roux_machine_engine(m->machine));
	for (unsigned i = ROUX_PHASE_IMAGE; i < ROUX_PHASES; i++) {
		uint64_t at = roux_machine_phase_ns(m->machine, (enum roux_phase)i);

		add_text(&text, "\"%s\": %.3f, ", names[i], at ? (double)(at - before) / 1e6 : 0.0);
		before = at ? at : before;
	}
	add_text(&text, "\"exec\": %.3f, \"command\": %.3f}, \"total_ms\": %.3f}\n",
		 (double)(m->command_ns - before) / 1e6, (double)(now - m->command_ns) / 1e6, (double)(now - begin) / 1e6);
	if (text)
		notes_tell(m, text, strlen(text));
	free(text);
}

struct table {
	const struct monitor *m;
	char *text;
	double seconds;	/* the command ran */
};

static void add_counter(void *ctx, const char *name, uint64_t value)
{
	struct table *t = ctx;
	size_t len = strlen(name);
	uint64_t before = 0;
	int64_t more;

	for (const char *at = t->m->counters; at && *at; at = strchr(at, '\n') + 1)
		if (strncmp(at, name, len) == 0 && at[len] == ' ')
			before = strtoull(at + len, NULL, 10);
	more = (int64_t)(value - before);	/* some may have become less */
	add_text(&t->text, "%-12s %14llu %14lld %14.0f\n", name, (unsigned long long)before, (long long)more,
		 (double)more / t->seconds);
}

void notes_tell_counters(struct monitor *m)
{
	struct table t = { .m = m, .seconds = (double)(monotonic_ns() - m->command_ns) / 1e9 };
	struct roux_error error = { 0 };

	add_text(&t.text, "%-12s %14s %14s %14s\n", roux_machine_engine(m->machine), "start-up", "command", "a second");
	if (roux_machine_counters(m->machine, add_counter, &t, &error) < 0)
		add_text(&t.text, "roux: %s\n", error.message);
	if (t.text)
		notes_tell(m, t.text, strlen(t.text));
	free(t.text);
}
