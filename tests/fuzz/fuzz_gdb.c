/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a hostile GDB sends.  The first byte chooses: '<' bytes as they are; anything
 * else: a packet a line, which the harness frames, with 0x03 sent as itself.
 *
 * The target is a machine of bytes that checks what it is asked, and that what is
 * sent to GDB is packets with good sums.
 */
#include "machine/gdb.h"
#include "vmm/vcpu_state.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define THREADS 3u
#define MEMORY 65536u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static struct vcpu_state states[THREADS];
static uint8_t memory[MEMORY];
static struct gdb *gdb;
static bool running;
static unsigned stops;

static void must(bool ok)
{
	if (!ok)
		abort();
}

static struct vcpu_state *state(void *ctx, unsigned thread, bool change)
{
	must(thread < THREADS);
	return &states[thread];
}

static int read_memory(void *ctx, unsigned thread, uint64_t va, void *buf, size_t len)
{
	must(thread < THREADS && !running);
	if (va > MEMORY || len > MEMORY - va)
		return -EFAULT;
	memcpy(buf, memory + va, len);
	return 0;
}

static int write_memory(void *ctx, unsigned thread, uint64_t va, const void *buf, size_t len)
{
	must(thread < THREADS && !running);
	if (va > MEMORY || len > MEMORY - va)
		return -EFAULT;
	memcpy(memory + va, buf, len);
	return 0;
}

static int point(void *ctx, unsigned thread, enum gdb_point kind, uint64_t va, uint64_t len, bool set)
{
	must(thread < THREADS && !running && kind <= GDB_WATCH_ACCESS);
	return len > 8 ? -EINVAL : 0;
}

/* Every other time the machine stops again at once. */
static void resume(void *ctx, const enum gdb_action *action)
{
	struct gdb_stop stop = { .thread = stops % THREADS, .signal = 5, .why = GDB_WHY_POINT,
				 .point = (enum gdb_point)(stops % 5), .addr = stops };
	bool any = false;

	must(!running);
	for (unsigned i = 0; i < THREADS; i++)
		any |= action[i] != GDB_HOLD;
	must(any);
	running = true;
	if (stops++ % 2) {
		running = false;
		gdb_stopped(gdb, &stop);
	}
}

static void interrupt(void *ctx)
{
	struct gdb_stop stop = { .signal = 2 };

	must(running);
	running = false;
	gdb_stopped(gdb, &stop);
}

static void detach(void *ctx, bool kill)
{
	must(!running);
}

static void check_sent(void *ctx, const void *data, size_t len)
{
	const char *p = data;
	unsigned sum = 0;
	char want[3];

	if (len == 1) {
		must(*p == '+' || *p == '-');
		return;
	}
	must(len >= 4 && p[0] == '$' && p[len - 3] == '#');
	for (size_t i = 1; i < len - 3; i++) {
		must(p[i] != '$' && p[i] != '#' && p[i] != '}');
		sum += (uint8_t)p[i];
	}
	(void)snprintf(want, sizeof(want), "%02x", sum & 0xff);
	must(memcmp(want, p + len - 2, 2) == 0);
}

static const struct gdb_target target = {
	.nthreads = THREADS, .state = state, .read = read_memory, .write = write_memory, .point = point,
	.resume = resume, .interrupt = interrupt, .detach = detach, .send = check_sent,
};

static bool send_framed(const uint8_t *data, size_t len)
{
	uint8_t sum = 0;
	char end[4];

	if (len == 1 && data[0] == 3)
		return gdb_input(gdb, data, 1);
	for (size_t i = 0; i < len; i++)
		sum += data[i];
	(void)snprintf(end, sizeof(end), "#%02x", sum);
	return gdb_input(gdb, (const uint8_t *)"$", 1) && gdb_input(gdb, data, len) &&
	       gdb_input(gdb, (const uint8_t *)end, 3);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct gdb_stop stop = { .signal = 5 };
	const uint8_t *end = data + len;

	running = false;
	stops = 0;
	memset(states, 0x5a, sizeof(states));
	gdb = gdb_create(&target, &stop);
	if (!gdb)
		return 0;
	if (len && data[0] == '<') {
		(void)gdb_input(gdb, data + 1, len - 1);
	} else {
		while (data < end) {
			const uint8_t *nl = memchr(data, '\n', (size_t)(end - data));
			size_t n = nl ? (size_t)(nl - data) : (size_t)(end - data);

			if (!send_framed(data, n))
				break;
			data += n + 1;
			if (!nl)
				break;
		}
	}
	gdb_destroy(gdb);
	return 0;
}
