/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/stress/stress.h"

#include <netinet/in.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* --- fork --- */

#define SHARED_BYTES 65536u	/* written by both sides of a fork */
#define PROCESSES 6u

static int status_of(pid_t pid)
{
	int status;

	must(waitpid(pid, &status, 0) == pid);
	return status;
}

static pid_t start_program(uint64_t seed)
{
	char number[24];
	char *argv[] = { (char []){ "stress" }, (char []){ "child" }, number, NULL }, *env[] = { NULL };
	pid_t pid;

	(void)snprintf(number, sizeof(number), "%llu", (unsigned long long)seed);
	if (seed & 1) {
		must(posix_spawn(&pid, "/proc/self/exe", NULL, NULL, argv, env) == 0);
		return pid;
	}
	pid = fork();
	must(pid >= 0);
	if (pid == 0) {
		(void)execve("/proc/self/exe", argv, env);
		_exit(255);
	}
	return pid;
}

static void start_programs(struct rng *rng)
{
	uint64_t seeds[PROCESSES];
	pid_t pid[PROCESSES];

	for (unsigned i = 0; i < PROCESSES; i++) {
		seeds[i] = rng_next(rng);
		pid[i] = start_program(seeds[i]);
	}
	for (unsigned i = 0; i < PROCESSES; i++) {
		int status = status_of(pid[i]);

		must(WIFEXITED(status) && WEXITSTATUS(status) == child_status(seeds[i]));
	}
}

/* Both sides write their copy and find in it what they wrote, and what the other did not. */
static void copy_on_write(struct rng *rng, uint8_t *bytes)
{
	uint64_t before = rng_next(rng), child = rng_next(rng), parent = rng_next(rng);
	unsigned at = rng_below(rng, SHARED_BYTES / 2);
	pid_t pid;

	fill_bytes(before, bytes, SHARED_BYTES);
	pid = fork();
	must(pid >= 0);
	fill_bytes(pid ? parent : child, bytes + at, 5000);
	if (pid == 0)
		_exit(same_bytes(child, bytes + at, 5000) && same_bytes(before, bytes, at) ? 0 : 1);
	must(same_bytes(parent, bytes + at, 5000) && same_bytes(before, bytes, at));
	must(status_of(pid) == 0);
}

static void kill_one(struct rng *rng)
{
	int sig = rng_below(rng, 2) ? SIGKILL : SIGTERM, status;
	pid_t pid = fork();

	must(pid >= 0);
	if (pid == 0)
		for (volatile uint64_t n = 0;; n++)
			;
	must(kill(pid, sig) == 0);
	status = status_of(pid);
	must(WIFSIGNALED(status) && WTERMSIG(status) == sig);
}

void piece_fork(struct work *w)
{
	uint8_t *bytes = mmap(NULL, SHARED_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	must(bytes != MAP_FAILED);
	for (; !time_is_over(w); w->rounds++) {
		start_programs(&w->rng);
		copy_on_write(&w->rng, bytes);
		kill_one(&w->rng);
	}
}

/* --- pipes --- */

#define CHAIN 4u	/* processes between the first and the last */
#define STREAM_MAX (1u << 20)	/* bytes */

enum link_kind { LINK_PIPE, LINK_UNIX, LINK_TCP, LINK_KINDS };

static void make_tcp(int fd[2])
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(at);
	int listener = socket(AF_INET, SOCK_STREAM, 0);

	must(listener >= 0 && bind(listener, (struct sockaddr *)&at, sizeof(at)) == 0 && listen(listener, 1) == 0);
	must(getsockname(listener, (struct sockaddr *)&at, &len) == 0);
	fd[1] = socket(AF_INET, SOCK_STREAM, 0);
	must(fd[1] >= 0 && connect(fd[1], (struct sockaddr *)&at, sizeof(at)) == 0);
	fd[0] = accept(listener, NULL, NULL);
	must(fd[0] >= 0 && close(listener) == 0);
}

/* fd[0] reads what fd[1] is written. */
static void make_link(enum link_kind kind, int fd[2])
{
	if (kind == LINK_PIPE)
		must(pipe(fd) == 0);
	else if (kind == LINK_UNIX)
		must(socketpair(AF_UNIX, SOCK_STREAM, 0, fd) == 0);
	else
		make_tcp(fd);
}

static void write_all(int fd, const uint8_t *bytes, size_t n)
{
	while (n) {
		ssize_t r = write(fd, bytes, n);

		must(r > 0);
		bytes += r;
		n -= (size_t)r;
	}
}

static size_t read_all(int fd, uint8_t *bytes, size_t max)
{
	size_t n = 0;
	ssize_t r;

	while (n < max && (r = read(fd, bytes + n, max - n)) != 0) {
		must(r > 0);
		n += (size_t)r;
	}
	return n;
}

/* Passes on what comes, each byte changed, in pieces of odd sizes. */
static void relay(int in, int out, struct rng rng)
{
	static uint8_t bytes[20000];
	ssize_t n;

	while ((n = read(in, bytes, 1 + rng_below(&rng, sizeof(bytes)))) > 0) {
		for (ssize_t i = 0; i < n; i++)
			bytes[i] ^= 0x5a;
		write_all(out, bytes, (size_t)n);
	}
	must(n == 0);
	_exit(0);
}

/* Sends @n bytes through CHAIN relays, an even number, and back into this process. */
static void run_chain(struct rng *rng, uint8_t *bytes, size_t n)
{
	uint64_t seed = rng_next(rng);
	int first[2], in, link[2];
	pid_t pid[CHAIN], writer;

	make_link((enum link_kind)rng_below(rng, LINK_KINDS), first);
	in = first[0];
	for (unsigned i = 0; i < CHAIN; i++) {
		make_link((enum link_kind)rng_below(rng, LINK_KINDS), link);
		pid[i] = fork();
		must(pid[i] >= 0);
		if (pid[i] == 0) {
			must(close(first[1]) == 0 && close(link[0]) == 0);
			relay(in, link[1], *rng);
		}
		must(close(in) == 0 && close(link[1]) == 0);
		in = link[0];
	}
	writer = fork();
	must(writer >= 0);
	if (writer == 0) {
		must(close(in) == 0);
		fill_bytes(seed, bytes, n);
		write_all(first[1], bytes, n);
		_exit(0);
	}
	must(close(first[1]) == 0);
	must(read_all(in, bytes, STREAM_MAX) == n && same_bytes(seed, bytes, n));
	must(close(in) == 0);
	for (unsigned i = 0; i < CHAIN; i++)
		must(status_of(pid[i]) == 0);
	must(status_of(writer) == 0);
}

void piece_pipes(struct work *w)
{
	uint8_t *bytes = malloc(STREAM_MAX);

	must(bytes);
	for (; !time_is_over(w); w->rounds++)
		run_chain(&w->rng, bytes, 1 + rng_below(&w->rng, STREAM_MAX - 1));
	free(bytes);
}
