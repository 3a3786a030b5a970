/* SPDX-License-Identifier: Apache-2.0 */
/* One connection of the agent protocol (abi/agent.h), served to its end. */
#ifndef GUEST_SESSION_H
#define GUEST_SESSION_H

#include "guest/request.h"

/*
 * What a session tells the process that serves connections, in memory shared
 * with it: it stays true when the session is killed.
 */
struct session_shared {
	int pid;	/* of the session's process; 0: slot free */
	volatile bool primary;	/* power off when the session ends */
	volatile bool power_asked;	/* a POWER request came: @power says how */
	struct power_request power;
};

/*
 * Serves @conn (a stream, made non-blocking, closed before return) until the
 * host hangs up.  Needs SIGCHLD blocked, and a process of its own: buffers are
 * static, so a second session in the same process is not possible.
 */
void session_run(int conn, struct session_shared *shared);

/*
 * Sends HELLO and ERROR with @message on the blocking stream @conn and waits
 * until the host has closed it, at most @timeout_ms.
 */
void session_refuse(int conn, int error, const char *message, int timeout_ms);

#endif /* GUEST_SESSION_H */
