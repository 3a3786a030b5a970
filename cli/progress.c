/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/progress.h"

#include "cli/image.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define BAR 30 /* characters */

void progress_begin(struct progress *progress, const char *verb, bool quiet)
{
	*progress = (struct progress){ .verb = verb, .quiet = quiet, .terminal = isatty(STDERR_FILENO) };
}

static void print_line(const struct progress *p, const struct progress_line *l)
{
	char bar[BAR + 1], done[16], total[16];
	unsigned fill = l->total ? (unsigned)(l->done * BAR / l->total) : BAR;

	switch (l->step) {
	case OCI_STEP_HAVE:
		(void)fprintf(stderr, "%s: Already exists", l->id);
		break;
	case OCI_STEP_DONE:
		(void)fprintf(stderr, "%s: %s complete", l->id, p->verb);
		break;
	case OCI_STEP_WAIT:
		(void)fprintf(stderr, "%s: Waiting", l->id);
		break;
	case OCI_STEP_MOVE:
		memset(bar, ' ', BAR);
		memset(bar, '=', fill < BAR ? fill : BAR);
		if (fill < BAR)
			bar[fill] = '>';
		bar[BAR] = '\0';
		(void)fprintf(stderr, "%s: [%s] %s/%s", l->id, bar, image_size(l->done, done), image_size(l->total, total));
		break;
	}
}

/* The last lines that fit on the screen, over what was drawn before. */
static void draw(struct progress *p)
{
	struct winsize ws;
	unsigned rows = ioctl(STDERR_FILENO, TIOCGWINSZ, &ws) == 0 && ws.ws_row > 2 ? ws.ws_row - 1u : 20;
	unsigned from = p->count > rows ? p->count - rows : 0;

	if (p->drawn)
		(void)fprintf(stderr, "\033[%uA", p->drawn);
	for (unsigned i = from; i < p->count; i++) {
		print_line(p, &p->line[i]);
		(void)fputs("\033[K\n", stderr);
	}
	p->drawn = p->count - from;
	(void)fflush(stderr);
}

void progress_show(void *ctx, const struct oci_progress *what)
{
	struct progress *p = ctx;
	const char *id = what->digest + strlen("sha256:");
	unsigned i = 0;

	if (p->quiet)
		return;
	while (i < p->count && strncmp(p->line[i].id, id, 12) != 0)
		i++;
	if (i == PROGRESS_LINES_MAX)
		return;
	if (i == p->count) {
		p->count++;
		memcpy(p->line[i].id, id, 12);
	}
	p->line[i].step = what->step;
	p->line[i].done = what->done;
	p->line[i].total = what->total;
	if (p->terminal) {
		draw(p);
	} else if (what->step == OCI_STEP_DONE || what->step == OCI_STEP_HAVE) {
		print_line(p, &p->line[i]);
		(void)fputc('\n', stderr);
	}
}
