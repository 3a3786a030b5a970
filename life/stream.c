/* SPDX-License-Identifier: Apache-2.0 */
#include "life/stream.h"

#include "api/session.h"
#include "os/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void watch(struct stream *s)
{
	uint32_t events = 0;

	if (!s->paused && !s->finishing && !s->ended && s->in_len < s->in_max)
		events |= EPOLLIN;
	/* Writable at once when nothing is queued: the end comes from the loop in every case. */
	if (s->out_at < s->out_len || s->finishing)
		events |= EPOLLOUT;
	if (s->source)
		(void)loop_set_events(s->source, events);
}

void stream_close(struct stream *s)
{
	loop_remove(s->source);
	if (s->fd >= 0)
		(void)close(s->fd);
	free(s->in);
	free(s->out);
	s->source = NULL;
	s->in = s->out = NULL;
	s->in_len = s->out_at = s->out_len = s->out_cap = 0;
	s->fd = -1;
}

/* The other side is gone. */
static void broken(struct stream *s)
{
	s->out_at = s->out_len = 0;
	s->ended = true;
	s->ops->on_closed(s->ctx);
}

/* Sends what goes.  0 or -EPIPE. */
static int flush(struct stream *s)
{
	while (s->out_at < s->out_len) {
		ssize_t n = send(s->fd, s->out + s->out_at, s->out_len - s->out_at, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? 0 : -EPIPE;
		s->out_at += (size_t)n;
		s->moved_ns = monotonic_ns();
	}
	s->out_at = s->out_len = 0;
	return 0;
}

static void on_writable(struct stream *s)
{
	bool had = s->out_at < s->out_len;

	if (flush(s) < 0) {
		broken(s);
		return;
	}
	if (s->out_len)
		return;
	if (s->finishing)
		broken(s);
	else if (had && s->ops->on_drained)
		s->ops->on_drained(s->ctx);
}

static void on_readable(struct stream *s)
{
	ssize_t n = recv(s->fd, s->in + s->in_len, s->in_max - s->in_len, MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		broken(s);
		return;
	}
	s->in_len += (size_t)n;
	s->ops->on_data(s->ctx);
}

bool stream_drain(struct stream *s)
{
	while (s->fd >= 0 && !s->ended) {
		ssize_t n;

		if (s->in_len == s->in_max)
			return false;
		n = recv(s->fd, s->in + s->in_len, s->in_max - s->in_len, MSG_DONTWAIT);
		if (n <= 0)
			break;	/* an end is told as usual */
		s->in_len += (size_t)n;
		s->ops->on_data(s->ctx);
	}
	return true;
}

static void on_events(void *ctx, uint32_t events)
{
	struct stream *s = ctx;
	int fd = s->fd;

	if (events & EPOLLOUT)
		on_writable(s);
	if (s->fd != fd)
		return;
	/* A hang-up is told although nothing is watched: then it is the end even before the last byte is read. */
	if ((events & EPOLLIN) || ((events & (EPOLLHUP | EPOLLERR)) && !s->paused && s->in_len < s->in_max))
		on_readable(s);
	else if ((events & (EPOLLHUP | EPOLLERR)) && !s->ended)
		broken(s);
	if (s->fd == fd)
		watch(s);
}

int stream_open(struct stream *s, struct loop *loop, int fd, size_t in_max, const struct stream_ops *ops, void *ctx)
{
	int r = 0;

	*s = (struct stream){ .loop = loop, .fd = fd, .ops = ops, .ctx = ctx, .in_max = in_max, .in = malloc(in_max) };
	if (!s->in)
		r = -ENOMEM;
	if (r == 0)
		r = loop_add_fd(loop, fd, EPOLLIN, on_events, s, &s->source, NULL);
	if (r < 0)
		stream_close(s);
	return r;
}

size_t stream_queued(const struct stream *s)
{
	return s->out_len - s->out_at;
}

static int make_room(struct stream *s, size_t len)
{
	size_t cap = s->out_cap ? s->out_cap : 4096;
	uint8_t *more;

	if (s->out_at) {
		memmove(s->out, s->out + s->out_at, s->out_len - s->out_at);
		s->out_len -= s->out_at;
		s->out_at = 0;
	}
	while (cap - s->out_len < len)
		cap *= 2;
	more = cap == s->out_cap ? s->out : realloc(s->out, cap);
	if (!more)
		return -ENOMEM;
	s->out = more;
	s->out_cap = cap;
	return 0;
}

/* Makes room for @len more bytes behind the queue.  0, or -ENOMEM, -EPIPE (nobody will read them). */
static int reserve(struct stream *s, size_t len)
{
	if (s->fd < 0 || s->ended)
		return -EPIPE;
	return s->out_cap - s->out_len < len ? make_room(s, len) : 0;
}

static void append(struct stream *s, const void *data, size_t len)
{
	if (len)	/* there may be no buffer yet */
		memcpy(s->out + s->out_len, data, len);
	s->out_len += len;
}

/* Sends what has been appended, when nothing waited before it. */
static void start(struct stream *s, bool was_empty)
{
	if (!was_empty)
		return;
	s->moved_ns = monotonic_ns();
	/* A broken stream is told by the loop, not from within its user's call. */
	(void)flush(s);
	watch(s);
}

int stream_write(struct stream *s, const void *data, size_t len)
{
	bool was_empty = stream_queued(s) == 0;
	int r = reserve(s, len);

	if (r < 0)
		return r;
	append(s, data, len);
	start(s, was_empty);
	return 0;
}

int stream_frame(struct stream *s, uint8_t type, const void *data, size_t len)
{
	bool was_empty = stream_queued(s) == 0;
	uint8_t head[FRAME_HEADER];
	int r = reserve(s, sizeof(head) + len);

	if (r < 0)
		return r;
	frame_put_header(head, type, (uint32_t)len);
	append(s, head, sizeof(head));
	if (len)
		append(s, data, len);
	start(s, was_empty);
	return 0;
}

void stream_take(struct stream *s, size_t len)
{
	memmove(s->in, s->in + len, s->in_len - len);
	s->in_len -= len;
	watch(s);
}

void stream_pause(struct stream *s, bool paused)
{
	if (s->fd < 0 || s->paused == paused)
		return;
	s->paused = paused;
	watch(s);
}

void stream_finish(struct stream *s)
{
	if (s->fd < 0 || s->finishing)
		return;
	s->finishing = true;
	watch(s);
}
