/* SPDX-License-Identifier: Apache-2.0 */
#include "link/capture.h"

#include "os/err.h"
#include "os/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MAGIC_NS 0xa1b23c4du
#define LINKTYPE_ETHERNET 1u

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
};

/* Writes all of @iov or ends the capture: half a record would spoil what follows. */
static int put(struct link_capture *c, const struct iovec *iov, int n, size_t len)
{
	ssize_t done = writev(c->fd, iov, n);
	int r = done < 0 ? -errno : (size_t)done < len ? -ENOSPC : 0;

	if (r < 0) {
		log_msg(LOG_LEVEL_WARN, "pcap", "the capture ends here: %s", strerror(-r));
		(void)close(c->fd);
		c->fd = -1;
	}
	return r;
}

int capture_create(int fd, struct link_capture **ret_capture, struct err *err)
{
	struct file_header header = { .magic = MAGIC_NS, .major = 2, .minor = 4, .snap_len = LINK_FRAME_MAX,
				      .link_type = LINKTYPE_ETHERNET };
	const struct iovec iov = { &header, sizeof(header) };
	struct link_capture *c = malloc(sizeof(*c));
	int r;

	if (!c) {
		(void)close(fd);
		return err_set(err, -ENOMEM, "out of host memory");
	}
	c->fd = fd;
	r = put(c, &iov, 1, sizeof(header));
	if (r < 0) {
		free(c);
		return err_set(err, r, "cannot write the capture: %s", strerror(-r));
	}
	*ret_capture = c;
	return 0;
}

void capture_destroy(struct link_capture *c)
{
	if (c && c->fd >= 0)
		(void)close(c->fd);
	free(c);
}

void capture_frame(struct link_capture *c, const struct link_frame *frame)
{
	struct record rec = { .captured = frame->len, .len = frame->len };
	struct iovec iov[LINK_IOV_MAX + 1];
	struct timespec t;

	if (c->fd < 0 || frame->niov > LINK_IOV_MAX)
		return;
	(void)clock_gettime(CLOCK_REALTIME, &t);
	rec.s = (uint32_t)t.tv_sec;
	rec.ns = (uint32_t)t.tv_nsec;
	iov[0] = (struct iovec){ &rec, sizeof(rec) };
	memcpy(&iov[1], frame->iov, frame->niov * sizeof(iov[0]));
	(void)put(c, iov, (int)frame->niov + 1, sizeof(rec) + frame->len);
}
