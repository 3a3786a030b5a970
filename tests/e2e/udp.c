/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Datagrams, for tests in guests that have no other program for them.
 *
 *   udp echo PORT             sends each back to whoever sent it, until killed
 *   udp send ADDR PORT SIZE   sends one of SIZE bytes until it comes back; prints "SIZE came back"
 *   udp flood ADDR PORT SIZE  sends them as fast as it can, until killed
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static unsigned char out[65536], in[65536];

static socklen_t address(struct sockaddr_storage *to, const char *text, const char *port)
{
	struct sockaddr_in *in4 = (struct sockaddr_in *)to;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)to;

	memset(to, 0, sizeof(*to));
	if (strchr(text, ':')) {
		in6->sin6_family = AF_INET6;
		in6->sin6_port = htons((unsigned short)atoi(port));
		return inet_pton(AF_INET6, text, &in6->sin6_addr) == 1 ? sizeof(*in6) : 0;
	}
	in4->sin_family = AF_INET;
	in4->sin_port = htons((unsigned short)atoi(port));
	return inet_pton(AF_INET, text, &in4->sin_addr) == 1 ? sizeof(*in4) : 0;
}

static int echo(const char *port)
{
	struct sockaddr_storage at, from;
	socklen_t len = address(&at, "0.0.0.0", port), from_len;
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	ssize_t n;

	if (fd < 0 || bind(fd, (struct sockaddr *)&at, len) < 0)
		return 1;
	puts("up");
	(void)fflush(stdout);
	for (;;) {
		from_len = sizeof(from);
		n = recvfrom(fd, in, sizeof(in), 0, (struct sockaddr *)&from, &from_len);
		if (n >= 0)
			(void)sendto(fd, in, (size_t)n, 0, (struct sockaddr *)&from, from_len);
	}
}

static int send_one(const char *addr, const char *port, const char *size_text)
{
	const struct timeval wait = { .tv_sec = 1 };
	size_t size = strtoul(size_text, NULL, 10);
	struct sockaddr_storage to;
	socklen_t len = address(&to, addr, port);
	int fd = socket(to.ss_family, SOCK_DGRAM, 0);

	if (!len || fd < 0 || size > sizeof(out) || connect(fd, (struct sockaddr *)&to, len) < 0)
		return 1;
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
	for (size_t i = 0; i < size; i++)
		out[i] = (unsigned char)(i * 7 + i / 251);
	for (int attempt = 0; attempt < 5; attempt++) {
		if (send(fd, out, size, 0) == (ssize_t)size && recv(fd, in, sizeof(in), 0) == (ssize_t)size &&
		    memcmp(in, out, size) == 0) {
			printf("%zu came back\n", size);
			return 0;
		}
	}
	return 1;
}

static int flood(const char *addr, const char *port, const char *size_text)
{
	size_t size = strtoul(size_text, NULL, 10);
	struct sockaddr_storage to;
	socklen_t len = address(&to, addr, port);
	int fd = socket(to.ss_family, SOCK_DGRAM, 0);

	if (!len || fd < 0 || size > sizeof(out) || setsockopt(fd, SOL_SOCKET, SO_BROADCAST, &(int){ 1 }, sizeof(int)) < 0)
		return 1;
	for (;;)	/* what comes back as an error is no reason to stop */
		(void)sendto(fd, out, size, 0, (struct sockaddr *)&to, len);
}

int main(int argc, char **argv)
{
	if (argc == 5 && strcmp(argv[1], "flood") == 0)
		return flood(argv[2], argv[3], argv[4]);
	if (argc == 3 && strcmp(argv[1], "echo") == 0)
		return echo(argv[2]);
	return argc == 5 && strcmp(argv[1], "send") == 0 ? send_one(argv[2], argv[3], argv[4]) : 2;
}
