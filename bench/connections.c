/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections, measured from where it runs to an echo server.
 *
 *   connections serve PORT                   the server, on the loopback, until killed
 *   connections pingpong ADDR PORT SECONDS   "tcp-roundtrip X us": one byte there and back
 *   connections connects ADDR PORT SECONDS   "tcp-connect X /s": connect, one byte there and back, close
 *   connections many ADDR PORT N             "held N conns", after every one of them has had its
 *                                            byte back; "held-time X s" until then
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define EVENTS 256
#define CONNECTING_MAX 128	/* handshakes at once: listeners have queues */

static void die(const char *what)
{
	(void)fprintf(stderr, "connections: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double now_s(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void allow_many_files(void)
{
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &files);
	}
}

static struct sockaddr_in address(const char *addr, const char *port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port)) };

	if (inet_pton(AF_INET, addr, &a.sin_addr) != 1)
		die("bad address");
	return a;
}

static void at_once(int fd)
{
	const int on = 1;

	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

__attribute__((noreturn)) static void serve(const char *port)
{
	struct sockaddr_in at = address("127.0.0.1", port);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), ep = epoll_create1(0);
	struct epoll_event ev = { .events = EPOLLIN, .data.fd = fd }, events[EVENTS];
	const int on = 1;

	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, (struct sockaddr *)&at, sizeof(at)) < 0 || listen(fd, 4096) < 0 ||
	    epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev) < 0)
		die("cannot serve");
	for (;;) {
		int n = epoll_wait(ep, events, EVENTS, -1);

		for (int i = 0; i < n; i++) {
			int c = events[i].data.fd;
			char buf[4096];
			ssize_t len;

			if (c == fd) {
				while ((c = accept4(fd, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
					at_once(c);
					ev.data.fd = c;
					(void)epoll_ctl(ep, EPOLL_CTL_ADD, c, &ev);
				}
				continue;
			}
			len = read(c, buf, sizeof(buf));
			if (len <= 0 || write(c, buf, (size_t)len) != len)
				(void)close(c);
		}
	}
}

static int open_connection(const struct sockaddr_in *to)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	if (fd < 0 || connect(fd, (const struct sockaddr *)to, sizeof(*to)) < 0)
		die("connect");
	at_once(fd);
	return fd;
}

static void byte_there_and_back(int fd)
{
	char b = 'x';

	if (write(fd, &b, 1) != 1 || read(fd, &b, 1) != 1)
		die("echo");
}

static int pingpong(const struct sockaddr_in *to, double seconds)
{
	int fd = open_connection(to);
	double begin, end;
	unsigned long n = 0;

	for (unsigned i = 0; i < 200; i++)
		byte_there_and_back(fd);
	begin = now_s();
	do {
		byte_there_and_back(fd);
		n++;
		end = now_s();
	} while (end - begin < seconds);
	(void)printf("tcp-roundtrip %.2f us\n", (end - begin) / (double)n * 1e6);
	return 0;
}

static int connects(const struct sockaddr_in *to, double seconds)
{
	const struct linger now = { .l_onoff = 1 };
	double begin = now_s(), end;
	unsigned long n = 0;

	do {
		int fd = open_connection(to);

		byte_there_and_back(fd);
		/* A reset at the end, or ports would run out in TIME_WAIT. */
		(void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
		(void)close(fd);
		n++;
		end = now_s();
	} while (end - begin < seconds);
	(void)printf("tcp-connect %.1f /s\n", (double)n / (end - begin));
	return 0;
}

static int many(const struct sockaddr_in *to, unsigned n)
{
	int ep = epoll_create1(0), *fds = calloc(n, sizeof(*fds));
	unsigned begun = 0, up = 0, back = 0;
	struct epoll_event events[EVENTS];
	double begin = now_s();

	while (back < n) {
		int got;

		for (; begun < n && begun - up < CONNECTING_MAX; begun++) {
			struct epoll_event ev = { .events = EPOLLOUT, .data.u32 = begun };

			fds[begun] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
			if (fds[begun] < 0 || (connect(fds[begun], (const struct sockaddr *)to, sizeof(*to)) < 0 &&
					       errno != EINPROGRESS))
				die("connect");
			(void)epoll_ctl(ep, EPOLL_CTL_ADD, fds[begun], &ev);
		}
		got = epoll_wait(ep, events, EVENTS, 20000);
		if (got <= 0)
			break;
		for (int i = 0; i < got; i++) {
			struct epoll_event ev = { .events = EPOLLIN, .data = events[i].data };
			int fd = fds[ev.data.u32];
			char b = 'x';

			if (events[i].events & EPOLLOUT) {
				if (write(fd, &b, 1) != 1)
					die("write");
				up++;
				(void)epoll_ctl(ep, EPOLL_CTL_MOD, fd, &ev);
			} else if (read(fd, &b, 1) == 1) {
				back++;
			} else {
				die("read");
			}
		}
	}
	(void)printf("held %u conns\nheld-time %.2f s\n", back, now_s() - begin);
	return 0;
}

int main(int argc, char **argv)
{
	struct sockaddr_in to;

	allow_many_files();
	if (argc == 3 && strcmp(argv[1], "serve") == 0)
		serve(argv[2]);
	if (argc != 5) {
		(void)fprintf(stderr, "usage: connections serve PORT | pingpong|connects ADDR PORT SECONDS | many ADDR PORT N\n");
		return 2;
	}
	to = address(argv[2], argv[3]);
	if (strcmp(argv[1], "pingpong") == 0)
		return pingpong(&to, atof(argv[4]));
	if (strcmp(argv[1], "connects") == 0)
		return connects(&to, atof(argv[4]));
	return many(&to, (unsigned)atoi(argv[4]));
}
