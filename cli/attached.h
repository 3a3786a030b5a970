/* SPDX-License-Identifier: Apache-2.0 */
/* roux as the window to a command in a VM: run, attach, start -a, exec. */
#ifndef CLI_ATTACHED_H
#define CLI_ATTACHED_H

#include "api/session.h"
#include "cli/terminal.h"

struct attached {
	bool input;	/* pass standard input */
	bool output;	/* show what the command writes */
	bool tty;	/* the command has a terminal */
	bool signals;	/* pass signals on; otherwise they end roux alone */
	bool until_started;	/* leave when the command runs */
	bool linger;	/* return when the other side has closed: then all is over */
	struct detach_keys keys;
	uint64_t deadline_ns;	/* CLOCK_MONOTONIC when the VM ends by itself, 0: never */
	unsigned timeout_s;	/* for the sentence that tells it */
	const char *lost;	/* a sentence for a stream that ends without a status; NULL: the monitor is gone */
	const char *name;	/* of the VM, for the sentence after detaching; or NULL */
};

/*
 * Blocks the signals that attached_run() handles, so that none is lost from here on.
 * Processes forked later must reset their mask.
 */
void attached_signals(void);

/* Takes over @session; returns the exit status after complaining where needed. */
int attached_run(struct session *session, const struct attached *options);

#endif /* CLI_ATTACHED_H */
