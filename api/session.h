/* SPDX-License-Identifier: Apache-2.0 */
/* Host side of one agent session (abi/agent.h): frames in and out of a stream. */
#ifndef API_SESSION_H
#define API_SESSION_H

#include "base/frame.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;

#define SESSION_STREAM 24u	/* bytes of a stream's name */

struct session {
	int fd;	/* stream to the agent, owned; -1 when closed */
	uint8_t *in;	/* received bytes, owned */
	size_t in_len, in_cap;
	size_t taken;	/* bytes of the frame handed out last */
	char stream[SESSION_STREAM];	/* its ports, "GUEST:HOST"; empty: not known */
	bool hello_due, identity_due;	/* answers that will come before any other: machine_settle() */
};

/* Takes over @fd and says HELLO.  0 or a negative errno. */
int session_open(struct session *s, int fd, struct err *err);
void session_close(struct session *s);

/* Sends one frame with raw payload.  Blocks; 0 or a negative errno. */
int session_send(struct session *s, uint8_t type, const void *data, size_t len);

/* Sends a frame built with base/frame.h. */
int session_send_frame(struct session *s, const void *frame, size_t len);

/*
 * Takes a frame already received.  Returns 1 and fills @ret_frame, valid until the
 * next session_fill(); 0 when more must be read, -EPROTO for a broken frame.
 */
int session_next(struct session *s, struct frame *ret_frame);

/* Reads what is there with one read(2).  0, -EPIPE at the end of the stream, -ENOMEM, ... */
int session_fill(struct session *s);

/*
 * Waits for one frame until CLOCK_MONOTONIC @deadline_ns.  0, -ETIMEDOUT, -EINTR
 * when the eventfd @wake_fd (-1: none) was signalled, which resets it, or as above.
 */
int session_wait(struct session *s, uint64_t deadline_ns, int wake_fd, struct frame *ret_frame);

/*
 * Waits for the agent's HELLO.  0, -EPROTO when something else came or both know
 * no common version, or as session_wait(); always with a sentence.
 */
int session_hello(struct session *s, uint64_t deadline_ns, int wake_fd, struct err *err);

/* Turns an ERROR frame into a negative errno and a sentence. */
int session_error(const struct frame *frame, struct err *err);

/* Value of field @tag of a frame; 0 when it has none. */
uint32_t session_u32(const struct frame *frame, uint16_t tag);

/*
 * Takes EXITED apart: what killed the command (or 0), and its status, 128 + signal when
 * killed.  0, or -EPROTO.
 */
int session_exited(const struct frame *frame, int *ret_signal, int *ret_status);

uint64_t monotonic_ns(void);

#endif /* API_SESSION_H */
