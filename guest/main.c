/* SPDX-License-Identifier: Apache-2.0 */
/*
 * As pid 1 this program is a guest's init.  As an ordinary process it serves the
 * same sessions on a unix socket, which is how the protocol is tested on a host:
 *
 *   roux-agent --serve unix:PATH
 */
#include "guest/init.h"
#include "guest/server.h"
#include "guest/text.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int listen_unix(const char *path)
{
	union {
		struct sockaddr_un un;
		struct sockaddr any;
	} a = { .un = { .sun_family = AF_UNIX } };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (strlen(path) >= sizeof(a.un.sun_path)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	memcpy(a.un.sun_path, path, strlen(path));
	if (fd < 0 || bind(fd, &a.any, sizeof(a.un)) < 0 || listen(fd, 64) < 0)
		return -1;
	return fd;
}

int main(int argc, char **argv)
{
	struct server server = { .first_fd = -1 };
	struct power_request end;

	if (getpid() == 1)
		init_run();
	if (argc != 3 || strcmp(argv[1], "--serve") != 0 || strncmp(argv[2], "unix:", 5) != 0) {
		say("usage: roux-agent --serve unix:PATH", 0);
		return 2;
	}
	server.listen_fd = listen_unix(argv[2] + 5);
	if (server.listen_fd < 0) {
		say(argv[2], errno);
		return 1;
	}
	return server_run(&server, &end) < 0;
}
