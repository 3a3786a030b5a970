/* SPDX-License-Identifier: Apache-2.0 */
/*
 * As pid 1 this program is a guest's init.  As an ordinary process it serves the
 * same sessions on a unix socket, which is how the protocol is tested on a host:
 *
 *   roux-agent --serve unix:PATH
 *
 * It is a command, too, for guests whose image has none that is known:
 *
 *   roux-agent --rehearse
 */
#include "abi/agent.h"
#include "guest/init.h"
#include "guest/server.h"
#include "guest/text.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
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

/* What commands do first: memory, a process, input and output. */
static int rehearse(void)
{
	char buf[256];
	pid_t pid = fork();

	if (pid == 0)
		_exit(0);
	if (pid < 0 || waitpid(pid, NULL, 0) < 0)
		return 1;
	while (read(STDIN_FILENO, buf, sizeof(buf)) > 0)
		;
	return write(STDOUT_FILENO, "\n", 1) < 0;
}

int main(int argc, char **argv)
{
	struct server server = { .first_fd = -1 };
	struct power_request end;

	if (getpid() == 1)
		init_run();
	if (argc == 2 && strcmp(argv[1], AGENT_SELF_REHEARSE) == 0)
		return rehearse();
	if (argc != 3 || strcmp(argv[1], "--serve") != 0 || strncmp(argv[2], "unix:", 5) != 0) {
		say("usage: roux-agent --serve unix:PATH | --rehearse", 0);
		return 2;
	}
	server.listen_fd = listen_unix(argv[2] + 5);
	if (server.listen_fd < 0) {
		say(argv[2], errno);
		return 1;
	}
	return server_run(&server, &end) < 0;
}
