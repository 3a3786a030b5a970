/* SPDX-License-Identifier: Apache-2.0 */
#include "link/capture.h"

#include "os/err.h"
#include "os/log.h"
#include "os/loop.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MAGIC_NS 0xa1b23c4du
#define LINKTYPE_ETHERNET 1u
#define FLUSH_NS 1000000000ull
#define BUFFER (256u * 1024u)
#define RECORD_MAX (sizeof(struct record) + LINK_FRAME_MAX)

struct file_header {
	uint32_t magic;
	uint16_t major, minor;
	uint32_t reserved[2];
	uint32_t snap_len;
	uint32_t link_type;
};

struct record {
	uint32_t s, ns;	/* since 1970 */
	uint32_t captured, len;
};

struct link_capture {
	int fd;	/* -1 after an error */
	struct loop_source *timer;
	size_t used;
	uint8_t buffer[BUFFER];
};

static void flush(struct link_capture *c)
{
	size_t done = 0;

	while (c->fd >= 0 && done < c->used) {
		ssize_t n = write(c->fd, c->buffer + done, c->used - done);

		if (n >= 0) {
			done += (size_t)n;
		} else if (errno != EINTR) {
			log_msg(LOG_LEVEL_WARN, "pcap", "the capture ends here: %s", strerror(errno));
			(void)close(c->fd);
			c->fd = -1;
		}
	}
	c->used = 0;
}

static void on_timer(void *ctx)
{
	flush(ctx);
}

int capture_create(struct loop *loop, int fd, struct link_capture **ret_capture, struct err *err)
{
	static const struct file_header header = { .magic = MAGIC_NS, .major = 2, .minor = 4,
						   .snap_len = LINK_FRAME_MAX, .link_type = LINKTYPE_ETHERNET };
	struct link_capture *c = malloc(sizeof(*c));
	int r = -ENOMEM;

	if (!c) {
		(void)close(fd);
		return err_set(err, r, "out of host memory");
	}
	c->fd = fd;
	c->timer = NULL;
	memcpy(c->buffer, &header, sizeof(header));
	c->used = sizeof(header);
	r = loop_add_timer(loop, on_timer, c, &c->timer, err);
	if (r == 0)
		r = loop_set_timer(c->timer, FLUSH_NS, FLUSH_NS);
	if (r < 0) {
		capture_destroy(c);
		return r;
	}
	*ret_capture = c;
	return 0;
}

void capture_destroy(struct link_capture *c)
{
	if (!c)
		return;
	flush(c);
	loop_remove(c->timer);
	if (c->fd >= 0)
		(void)close(c->fd);
	free(c);
}

void capture_frame(struct link_capture *c, const struct link_frame *frame)
{
	struct record rec = { .captured = frame->len, .len = frame->len };
	struct timespec t;

	if (c->fd < 0 || frame->len > LINK_FRAME_MAX)
		return;
	if (BUFFER - c->used < RECORD_MAX)
		flush(c);
	(void)clock_gettime(CLOCK_REALTIME, &t);
	rec.s = (uint32_t)t.tv_sec;
	rec.ns = (uint32_t)t.tv_nsec;
	memcpy(c->buffer + c->used, &rec, sizeof(rec));
	c->used += sizeof(rec);
	for (unsigned i = 0; i < frame->niov; i++) {
		memcpy(c->buffer + c->used, frame->iov[i].iov_base, frame->iov[i].iov_len);
		c->used += frame->iov[i].iov_len;
	}
}
