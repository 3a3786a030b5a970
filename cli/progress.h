/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shows how objects move, on standard error: bars that are drawn over on a
 * terminal, one line for each that is done elsewhere.
 */
#ifndef CLI_PROGRESS_H
#define CLI_PROGRESS_H

#include "oci/transfer.h"

#include <stdbool.h>

#define PROGRESS_LINES_MAX 300

struct progress_line {
	char id[13];	/* of the digest, NUL-terminated */
	enum oci_step step;
	uint64_t done, total;	/* bytes */
};

struct progress {
	bool quiet, terminal;
	const char *verb;	/* "Pull" or "Push" */
	struct progress_line line[PROGRESS_LINES_MAX];
	unsigned count, drawn;	/* lines known, and on the screen */
};

void progress_begin(struct progress *progress, const char *verb, bool quiet);
/* An oci_progress_fn; @ctx is the struct progress. */
void progress_show(void *ctx, const struct oci_progress *what);

#endif /* CLI_PROGRESS_H */
