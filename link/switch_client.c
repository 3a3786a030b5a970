/* SPDX-License-Identifier: Apache-2.0 */
#include "link/switch_client.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define PATIENCE_S 10	/* for a switch to answer */

int switch_connect(const char *path)
{
	const struct timeval patience = { .tv_sec = PATIENCE_S };
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd, r;

	if (strlen(path) >= sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	memcpy(addr.sun_path, path, strlen(path));
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) == 0 &&
	    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) == 0)
		return fd;
	r = -errno;
	(void)close(fd);
	return r;
}

ssize_t switch_ask(int fd, const void *m, size_t len, enum switch_type want, void *ret, size_t size)
{
	struct switch_answer answer;
	ssize_t n;

	if (send(fd, m, len, MSG_NOSIGNAL) < 0)
		return -errno;
	n = recv(fd, ret, size, 0);
	if (n < 0)
		return errno == EAGAIN ? -ETIMEDOUT : -errno;
	if (n < (ssize_t)sizeof(answer))
		return -EPIPE;
	memcpy(&answer, ret, sizeof(answer));
	if (answer.type == SWITCH_REFUSED)
		return answer.error < 0 ? answer.error : -EPROTO;
	return answer.type == want ? n : -EPROTO;
}
