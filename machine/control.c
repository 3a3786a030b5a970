/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/control.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* As struct control_msg begins; all of it is much for a stack, and does not fit on a signal's. */
struct header {
	uint32_t type;
	int32_t value, value2;
	uint32_t len;
};

#define HEADER sizeof(struct header)

_Static_assert(HEADER == offsetof(struct control_msg, text), "a message without text");

union ancillary {
	char buf[CMSG_SPACE(sizeof(int))];
	struct cmsghdr align;
};

int control_send(int sock, enum control_type type, int32_t value, int32_t value2, const void *text,
		 size_t len, int fd)
{
	struct header head = { .type = type, .value = value, .value2 = value2, .len = (uint32_t)len };
	struct iovec iov[2] = { { &head, HEADER }, { (void *)(uintptr_t)text, len } };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = len ? 2 : 1 };
	union ancillary anc = { { 0 } };

	if (len > CONTROL_TEXT_MAX)
		return -E2BIG;
	if (fd >= 0) {
		struct cmsghdr *c;

		msg.msg_control = anc.buf;
		msg.msg_controllen = sizeof(anc.buf);
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	}
	while (sendmsg(sock, &msg, MSG_NOSIGNAL) < 0)
		if (errno != EINTR)
			return -errno;
	return 0;
}

void control_send_forbidden(int sock, long nr)
{
	struct header head = { .type = CONTROL_FORBIDDEN, .value = (int32_t)nr };

	if (write(sock, &head, sizeof(head)) < 0) {
		/* The wait status still says SIGSYS. */
	}
}

static int take_descriptor(struct msghdr *msg)
{
	int fd = -1;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c))
		if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof(int)))
			memcpy(&fd, CMSG_DATA(c), sizeof(fd));
	return fd;
}

int control_recv(int sock, struct control_msg *ret_msg, int *ret_fd)
{
	struct iovec iov = { ret_msg, HEADER + CONTROL_TEXT_MAX };
	union ancillary anc;
	/* Without the padding, where a second descriptor would fit: more than one truncate. */
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = anc.buf,
			      .msg_controllen = CMSG_LEN(sizeof(int)) };
	ssize_t n;

	do
		n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == ECONNRESET ? 0 : -errno;
	*ret_fd = take_descriptor(&msg);	/* an empty packet, which looks like the end, may carry one too */
	if ((size_t)n < HEADER || (size_t)n != HEADER + ret_msg->len || msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) {
		if (*ret_fd >= 0)
			(void)close(*ret_fd);
		return n == 0 ? 0 : -EPROTO;
	}
	ret_msg->text[ret_msg->len] = '\0';
	return 1;
}
