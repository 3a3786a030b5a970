/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host's side of a command that runs (abi/agent.h): moves bytes between the
 * stream that carries its frames and ordinary descriptors.  Nothing in it blocks
 * but its poll(2).
 */
#ifndef API_PUMP_H
#define API_PUMP_H

#include "api/session.h"

#include <poll.h>
#include <stdbool.h>
#include <sys/types.h>

#define PUMP_EXTRA_MAX 4u	/* descriptors of the caller that are polled too */

struct pump {
	struct session session;	/* owned; pump_finish() */
	int stdin_fd, stdout_fd, stderr_fd;	/* borrowed, -1: none; stdin_fd -1 after its end */
	bool in_line;	/* what came for stderr_fd last did not end its line */
	/*
	 * Sees every frame that is not about a running command, or is NULL: such
	 * frames then break the protocol.  0, or a negative errno that ends pump_step().
	 */
	int (*other)(void *ctx, const struct frame *frame);
	/*
	 * Sees input before it is sent, or is NULL.  Returns how many of the @len bytes
	 * are to be sent, or a negative errno that ends pump_step().
	 */
	ssize_t (*filter)(void *ctx, uint8_t *data, size_t len);
	void *ctx;

	uint32_t window;	/* bytes of input the other side still takes */
	bool congested;	/* the stream is full: input waits */
	/* Output not yet written: inside the session's buffer, so nothing is received before it is gone. */
	const uint8_t *out;
	size_t out_left;
	int out_fd;
	bool exited;	/* EXITED came: what follows is valid */
	int signal;	/* what killed the command, or 0 */
	int status;	/* 0..255; 128 + signal when killed */
};

/* Starts with a session, which changes owner; the descriptors are -1 and window full. */
void pump_init(struct pump *pump, const struct session *session);
void pump_finish(struct pump *pump);

/*
 * Waits once, at most @timeout_ms (-1: for ever), also for the @nextra descriptors of
 * @extra, whose revents it fills, and moves what can be moved.  0, -EPIPE at the end
 * of the stream, -EPROTO, or what a callback returned.
 */
int pump_step(struct pump *pump, struct pollfd *extra, unsigned nextra, int timeout_ms);

/* True when the command has ended and all its output is written. */
bool pump_done(const struct pump *pump);

int pump_signal(struct pump *pump, int signo);
int pump_resize(struct pump *pump, uint16_t rows, uint16_t cols);

#endif /* API_PUMP_H */
