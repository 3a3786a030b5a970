/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Control messages as a hostile peer sends them.  The input is a list of packets:
 *
 *   how lenlo lenhi bytes...     how: number of descriptors (0-3) sent along
 *
 * A packet that is refused leaves no descriptor behind, one that is taken says the
 * same when it is sent again.
 */
#include "machine/control.h"
#include "tests/fuzz/check.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define DESCRIPTORS_MAX 3u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void send_packet(int sock, const void *bytes, size_t len, unsigned nfds)
{
	union {
		char buf[CMSG_SPACE(DESCRIPTORS_MAX * sizeof(int))];
		struct cmsghdr align;
	} anc = { { 0 } };
	struct iovec iov = { (void *)(uintptr_t)bytes, len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	const int fds[DESCRIPTORS_MAX] = { sock, sock, sock };

	if (nfds) {
		struct cmsghdr *c = &anc.align;

		msg.msg_control = anc.buf;
		msg.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(nfds * sizeof(int));
		memcpy(CMSG_DATA(c), fds, nfds * sizeof(int));
	}
	(void)sendmsg(sock, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void drive(const int pair[2], const uint8_t *bytes, size_t len, unsigned nfds)
{
	static struct control_msg msg, again;
	int before = free_descriptor(), fd, r;

	send_packet(pair[0], bytes, len, nfds);
	r = control_recv(pair[1], &msg, &fd);
	if (r != 1) {
		if (free_descriptor() != before)
			abort();
		return;
	}
	if (msg.len > CONTROL_TEXT_MAX || msg.text[msg.len] || (fd >= 0) != (nfds == 1))
		abort();
	if (control_send(pair[0], (enum control_type)msg.type, msg.value, msg.value2, msg.text, msg.len, fd) < 0)
		abort();
	if (fd >= 0)
		(void)close(fd);
	if (control_recv(pair[1], &again, &fd) != 1 || (fd >= 0) != (nfds == 1))
		abort();
	if (fd >= 0)
		(void)close(fd);
	if (memcmp(&msg, &again, offsetof(struct control_msg, text) + msg.len + 1) != 0 ||
	    free_descriptor() != before)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		abort();
	while (len >= 3) {
		unsigned nfds = data[0] % (DESCRIPTORS_MAX + 1);
		size_t n = data[1] | (size_t)data[2] << 8;

		data += 3;
		len -= 3;
		if (n > len)
			n = len;
		drive(pair, data, n, nfds);
		data += n;
		len -= n;
	}
	(void)close(pair[0]);
	(void)close(pair[1]);
	return 0;
}
