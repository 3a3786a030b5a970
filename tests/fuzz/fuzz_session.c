/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host's side of the agent protocol, and of the control protocol below it.  The
 * input begins with a byte and a length of 16 bits: whether a descriptor comes with a
 * control packet of the VM's process (1) and whether it is asked for counters (2),
 * that packet, and then what the agent says.
 */
#include "abi/agent.h"
#include "api/handle.h"
#include "tests/fuzz/check.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define STEPS_MAX 100

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void check_exit(const struct roux_exit *how)
{
	if (how->status < 0 || how->status > 255 || how->signal < 0 || (how->signal && how->status != 128 + how->signal))
		abort();
}

static void on_counter(void *ctx, const char *name, uint64_t value)
{
	if (strlen(name) > CONTROL_TEXT_MAX)
		abort();
}

static void run(struct roux_machine *m, int input)
{
	static const char *const argv[] = { "true", NULL };
	const struct roux_exec_options o = { .size = sizeof(o), .argv = argv, .stdin_fd = input,
					     .stdout_fd = input, .stderr_fd = -1 };
	struct roux_error error = { 0 };
	struct roux_process *p;
	struct roux_exit how;

	if (roux_exec(m, &o, &p, &error) < 0) {
		if (p || !error.code || !error.message[0])
			abort();
		return;
	}
	for (int i = 0; i < STEPS_MAX; i++) {
		int r = roux_process_wait(p, 0, &how, &error);

		if (r == 0)
			check_exit(&how);
		if (r != -ETIMEDOUT)
			break;
		(void)roux_process_signal(p, 15);
	}
	roux_process_destroy(p);
}

/* A machine whose VM, at the other end of @control, answers one request for a stream and ends. */
static struct roux_machine *machine(uint8_t how, const uint8_t *packet, size_t len, int stream, int control[2])
{
	struct roux_machine *m = calloc(1, sizeof(*m));

	if (!m || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, control) < 0)
		abort();
	*m = (struct roux_machine){ .sock = control[0], .ready_fd = -1, .identified = how & 2,
				    .msg = malloc(sizeof(*m->msg)), .wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) };
	if (len >= 12)	/* type, value, value2 */
		(void)control_send(control[1], (enum control_type)packet[0], (int8_t)packet[4], (int8_t)packet[8],
				   packet + 12, len - 12, how & 1 ? stream : -1);
	(void)control_send(control[1], CONTROL_CONNECTED, 1, 0, NULL, 0, stream);
	(void)shutdown(control[1], SHUT_WR);
	return m;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	int before = free_descriptor(), stream[2], control[2], input = memfd_create("input", MFD_CLOEXEC);
	struct roux_machine *m;
	size_t packet_len;

	if (input < 0 || write(input, data, len) < 0 || lseek(input, 0, SEEK_SET) < 0 ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, stream) < 0)
		abort();
	if (len < 3)
		len = 0;
	packet_len = len ? data[1] | (size_t)data[2] << 8 : 0;
	if (len && packet_len > len - 3)
		packet_len = len - 3;
	m = machine(len ? data[0] : 0, data + 3, packet_len, stream[0], control);
	(void)close(stream[0]);
	if (len)
		(void)send(stream[1], data + 3 + packet_len, len - 3 - packet_len, MSG_DONTWAIT | MSG_NOSIGNAL);
	(void)shutdown(stream[1], SHUT_WR);
	if (len && data[0] & 2)
		(void)roux_machine_counters(m, on_counter, NULL, NULL);
	run(m, input);
	if (strlen(m->tail) > CONSOLE_TAIL || strlen(m->reason) >= sizeof(m->reason))
		abort();
	roux_machine_destroy(m);
	(void)close(control[1]);
	(void)close(stream[1]);
	(void)close(input);
	if (free_descriptor() != before)
		abort();
	return 0;
}
