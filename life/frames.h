/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What goes over a connection of the control socket after "Upgrade: roux-frames": the
 * frames of abi/agent.h as between a host and an agent that has taken EXEC, that is
 *
 *   client                                monitor
 *          <----------------------------- HELLO?  STARTED | ERROR
 *   STDIN* STDIN_EOF RESIZE* SIGNAL* --->
 *          <----------------------------- STDOUT* STDERR* CREDIT* NOTE*
 *          <----------------------------- EXITED | ERROR
 *
 * with the windows of abi/agent.h, and those below.
 */
#ifndef LIFE_FRAMES_H
#define LIFE_FRAMES_H

enum life_frame {
	LIFE_DETACH = 200,	/* client: it leaves, and the command's input stays open */
	LIFE_NOTE = 201,	/* monitor: raw text for the client's standard error */
};

#endif /* LIFE_FRAMES_H */
