/* SPDX-License-Identifier: Apache-2.0 */
#include "guest/vsock.h"

#include <errno.h>
#include <stdint.h>
#include <sys/socket.h>
#include <unistd.h>

#define CID_ANY 0xffffffffu
#define CID_HOST 2u

struct sockaddr_vsock {	/* struct sockaddr_vm of the kernel */
	uint16_t family;
	uint16_t reserved;
	uint32_t port, cid;
	uint8_t flags, zero[3];
};
_Static_assert(sizeof(struct sockaddr_vsock) == 16, "fixed by the kernel");

/* The type that the socket calls want. */
union address {
	struct sockaddr_vsock vsock;
	struct sockaddr any;
};

static int give_up(int fd)
{
	int error = errno;

	close(fd);
	errno = error;
	return -1;
}

static int open_socket(unsigned cid, unsigned port, union address *ret_address)
{
	ret_address->vsock = (struct sockaddr_vsock){ .family = AF_VSOCK, .port = port, .cid = cid };
	return socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

int vsock_listen(unsigned port)
{
	union address a;
	int fd = open_socket(CID_ANY, port, &a);

	if (fd < 0)
		return -1;
	if (bind(fd, &a.any, sizeof(a.vsock)) < 0 || listen(fd, 64) < 0)
		return give_up(fd);
	return fd;
}

int vsock_connect_host(unsigned port)
{
	union address a;
	int fd = open_socket(CID_HOST, port, &a);

	if (fd < 0)
		return -1;
	if (connect(fd, &a.any, sizeof(a.vsock)) < 0)
		return give_up(fd);
	return fd;
}
