/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A byte stream on an event loop: reads into a bounded buffer, queues what the other
 * side does not take yet.  Nothing blocks.  Callbacks may destroy nothing but through
 * stream_close(); the owner frees the struct when on_closed has been called or later.
 */
#ifndef LIFE_STREAM_H
#define LIFE_STREAM_H

#include "base/frame.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct loop;
struct loop_source;

struct stream_ops {
	void (*on_data)(void *ctx);	/* required: there is more in stream->in */
	void (*on_closed)(void *ctx);	/* required: the other side ended it, or it broke; not after stream_close() */
	void (*on_drained)(void *ctx);	/* or NULL: all that was queued is gone */
};

struct stream {
	struct loop *loop;	/* borrowed */
	struct loop_source *source;
	int fd;	/* owned, -1 when closed */
	const struct stream_ops *ops;
	void *ctx;
	uint8_t *in, *out;	/* owned */
	size_t in_len, in_max;	/* bytes; reading rests while in_len is in_max */
	size_t out_at, out_len, out_cap;
	bool paused;	/* reads nothing */
	bool finishing;	/* closes when all is sent */
	bool ended;	/* the other side sent its last byte */
	uint64_t moved_ns;	/* CLOCK_MONOTONIC of the last byte sent, or of the queue getting non-empty */
};

/* Takes over @fd.  0 or a negative errno (the descriptor is closed then). */
int stream_open(struct stream *s, struct loop *loop, int fd, size_t in_max, const struct stream_ops *ops, void *ctx);

/* Queues bytes and sends what goes at once.  0, or -ENOMEM, -EPIPE (nobody will read them). */
int stream_write(struct stream *s, const void *data, size_t len);

/* The same for a frame of raw bytes (abi/agent.h), all of it or nothing. */
int stream_frame(struct stream *s, uint8_t type, const void *data, size_t len);

/* Bytes queued. */
size_t stream_queued(const struct stream *s);

/* Drops @len bytes from the front of the input. */
void stream_take(struct stream *s, size_t len);

void stream_pause(struct stream *s, bool paused);

/* Takes what has arrived already, paused or not.  False: there is no room for all of it. */
bool stream_drain(struct stream *s);

/* Closes when everything queued is sent; input is ignored from now on. */
void stream_finish(struct stream *s);

/* Closes now, without a callback. */
void stream_close(struct stream *s);

#endif /* LIFE_STREAM_H */
