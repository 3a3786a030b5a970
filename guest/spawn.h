/* SPDX-License-Identifier: Apache-2.0 */
/* Starts the command of an EXEC request with pipes or on a pseudo-terminal. */
#ifndef GUEST_SPAWN_H
#define GUEST_SPAWN_H

#include "guest/request.h"
#include "guest/text.h"

#include <sys/types.h>

/* The agent's ends; -1: none.  With a terminal in_fd and out_fd are its master. */
struct child {
	pid_t pid;	/* leader of its own session and process group */
	int in_fd, out_fd, err_fd;	/* non-blocking, close-on-exec */
	bool tty;
};

/* Why a command could not be started. */
struct spawn_error {
	int error;	/* positive errno */
	int status;	/* what a shell would report: 127 not found, 126 otherwise */
	struct text message;	/* one sentence */
};

/*
 * Starts @req and returns when execve() has succeeded or failed.  Returns 0 and
 * passes the descriptors to the caller in @ret_child, or -1 with @ret_error.
 */
int spawn(const struct exec_request *req, struct child *ret_child, struct spawn_error *ret_error);

/* Sets the size of the child's terminal; without one nothing happens. */
void spawn_resize(const struct child *child, uint16_t rows, uint16_t cols);

#endif /* GUEST_SPAWN_H */
