/* SPDX-License-Identifier: Apache-2.0 */
#include "api/session.h"

#include "abi/agent.h"
#include "os/err.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

uint64_t monotonic_ns(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

int session_send_frame(struct session *s, const void *frame, size_t len)
{
	const uint8_t *p = frame;

	while (len) {
		ssize_t n = send(s->fd, p, len, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN) {
			(void)poll(&(struct pollfd){ .fd = s->fd, .events = POLLOUT }, 1, -1);
			continue;
		}
		if (n < 0)
			return -errno;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

int session_send(struct session *s, uint8_t type, const void *data, size_t len)
{
	uint8_t head[FRAME_HEADER];
	int r;

	frame_put_header(head, type, (uint32_t)len);
	r = session_send_frame(s, head, sizeof(head));
	return r < 0 || !len ? r : session_send_frame(s, data, len);
}

int session_open(struct session *s, int fd, struct err *err)
{
	uint8_t buf[64];
	struct frame_writer w;
	int r;

	*s = (struct session){ .fd = fd };
	frame_begin(&w, buf, sizeof(buf), AGENT_HELLO);
	field_put_u32(&w, AGENT_TAG_MAGIC, AGENT_MAGIC);
	field_put_u32(&w, AGENT_TAG_VERSION, AGENT_VERSION);
	field_put_u32(&w, AGENT_TAG_VERSION_MIN, AGENT_VERSION_MIN);
	r = session_send_frame(s, buf, frame_end(&w));
	if (r < 0) {
		session_close(s);
		return err_set(err, r, "the guest hung up");
	}
	return 0;
}

void session_close(struct session *s)
{
	if (s->fd >= 0)
		(void)close(s->fd);
	free(s->in);
	*s = (struct session){ .fd = -1 };
}

int session_fill(struct session *s)
{
	ssize_t n;

	if (s->taken) {
		memmove(s->in, s->in + s->taken, s->in_len - s->taken);
		s->in_len -= s->taken;
		s->taken = 0;
	}
	if (s->in_cap - s->in_len < AGENT_DATA_MAX + FRAME_HEADER) {
		size_t cap = s->in_cap ? s->in_cap * 2 : 2 * (AGENT_DATA_MAX + FRAME_HEADER);
		uint8_t *more = cap > 4 * AGENT_FRAME_MAX ? NULL : realloc(s->in, cap);

		if (!more)
			return -ENOMEM;
		s->in = more;
		s->in_cap = cap;
	}
	do
		n = recv(s->fd, s->in + s->in_len, s->in_cap - s->in_len, 0);
	while (n < 0 && errno == EINTR);
	if (n <= 0)
		return n == 0 || errno == ECONNRESET ? -EPIPE : -errno;
	s->in_len += (size_t)n;
	return 0;
}

int session_next(struct session *s, struct frame *ret_frame)
{
	int r;

	if (s->taken == s->in_len)
		return 0;
	r = frame_parse(s->in + s->taken, s->in_len - s->taken, AGENT_FRAME_MAX, ret_frame);
	if (r < 0)
		return -EPROTO;
	if (r == 1)
		s->taken += FRAME_HEADER + ret_frame->len;
	return r;
}

/* True, and reset, when the eventfd has been signalled. */
static bool woken(const struct pollfd *wake)
{
	uint64_t times;

	return wake->revents && read(wake->fd, &times, sizeof(times)) > 0;
}

int session_wait(struct session *s, uint64_t deadline_ns, int wake_fd, struct frame *ret_frame)
{
	struct pollfd fds[2] = { { .fd = s->fd, .events = POLLIN }, { .fd = wake_fd, .events = POLLIN } };

	for (;;) {
		uint64_t now = monotonic_ns();
		int r = session_next(s, ret_frame);

		if (r != 0)
			return r < 0 ? r : 0;
		if (now >= deadline_ns)
			return -ETIMEDOUT;
		r = poll(fds, 2, deadline_ns == UINT64_MAX ? -1 : (int)((deadline_ns - now) / 1000000 + 1));
		if (r < 0 && errno != EINTR)
			return -errno;
		if (r > 0 && woken(&fds[1]))
			return -EINTR;
		if (r > 0 && fds[0].revents) {
			r = session_fill(s);
			if (r < 0)
				return r;
		}
	}
}

/* True when the fields of HELLO name our protocol and a version that both know. */
static bool is_ours(const struct frame *frame)
{
	struct field_reader fr = { frame->data, frame->len };
	uint32_t magic = 0, version = 0, version_min = UINT32_MAX;
	struct field f;
	int r;

	while ((r = field_next(&fr, &f)) == 1) {
		if (f.tag == AGENT_TAG_MAGIC)
			(void)field_u32(&f, &magic);
		else if (f.tag == AGENT_TAG_VERSION)
			(void)field_u32(&f, &version);
		else if (f.tag == AGENT_TAG_VERSION_MIN)
			(void)field_u32(&f, &version_min);
		else if (!(f.tag & AGENT_TAG_OPTIONAL))
			return false;
	}
	return r == 0 && magic == AGENT_MAGIC && version >= AGENT_VERSION_MIN && version_min <= AGENT_VERSION;
}

int session_hello(struct session *s, uint64_t deadline_ns, int wake_fd, struct err *err)
{
	struct frame f;
	int r = session_wait(s, deadline_ns, wake_fd, &f);

	if (r == 0 && (f.type != AGENT_HELLO || !is_ours(&f)))
		r = -EPROTO;
	return r < 0 ? err_set(err, r, "the guest's agent does not answer: %s", strerror(-r)) : 0;
}

int session_error(const struct frame *frame, struct err *err)
{
	struct field_reader fr = { frame->data, frame->len };
	const char *msg = "the guest's agent reported an error";
	uint32_t code = EIO;
	struct field f;

	while (field_next(&fr, &f) == 1) {
		if (f.tag == AGENT_TAG_ERRNO)
			(void)field_u32(&f, &code);
		else if (f.tag == AGENT_TAG_MESSAGE && field_str(&f))
			msg = field_str(&f);
	}
	return err_set(err, code && code < 4096 ? -(int)code : -EIO, "%s", msg);
}

uint32_t session_u32(const struct frame *frame, uint16_t tag)
{
	struct field_reader fr = { frame->data, frame->len };
	struct field f;
	uint32_t v = 0;

	while (field_next(&fr, &f) == 1)
		if (f.tag == tag)
			(void)field_u32(&f, &v);
	return v;
}

int session_exited(const struct frame *frame, int *ret_signal, int *ret_status)
{
	uint32_t signo = session_u32(frame, AGENT_TAG_SIGNO), status = session_u32(frame, AGENT_TAG_STATUS);

	if (signo >= NSIG || status > 255)
		return -EPROTO;
	*ret_signal = (int)signo;
	*ret_status = signo ? 128 + (int)signo : (int)status;
	return 0;
}
