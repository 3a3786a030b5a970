/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A debugger outside the guest: outside ENGINE.  A few instructions run in a
 * machine with machine/debugger.h, whose only client is this program.  Exit
 * status 77 when the engine does not work here.
 */
#include "base/checked.h"
#include "engine/dbt/engine_dbt.h"
#include "engine/kvm/kvm.h"
#include "machine/debugger.h"
#include "os/err.h"
#include "os/loop.h"
#include "vmm/boot.h"
#include "vmm/guest_mem.h"
#include "vmm/vm.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define CODE 0x10000u
#define LOOP 0x10007u
#define STORE 0x10009u
#define AFTER_STORE 0x10010u
#define AFTER_NOP 0x10011u
#define COUNTER 0x20000u
#define EXIT_SKIP 77

static const uint8_t code[] = {
	0xbc, 0x00, 0x80, 0x01, 0x00,	/* mov esp, 0x18000 */
	0x31, 0xc0,	/* xor eax, eax */
	0xff, 0xc0,	/* LOOP: inc eax */
	0x89, 0x04, 0x25, 0x00, 0x00, 0x02, 0x00,	/* STORE: mov [COUNTER], eax */
	0x90,	/* nop */
	0x8b, 0x0c, 0x25, 0x00, 0x00, 0x02, 0x00,	/* mov ecx, [COUNTER] */
	0xeb, 0xed,	/* jmp LOOP */
};

static struct mem *mem;
static struct vm *vm;
static struct loop *loop;
static struct debugger *debugger;
static int conn = -1;

static void die(const char *what, const char *got)
{
	(void)fprintf(stderr, "FAIL %s: %s\n", what, got);
	exit(1);
}

/* ------------------------------------------------------------------- client */

static void send_packet(const char *packet)
{
	char framed[256];
	uint8_t sum = 0;
	int n;

	for (const char *p = packet; *p; p++)
		sum += (uint8_t)*p;
	n = snprintf(framed, sizeof(framed), "$%s#%02x", packet, sum);
	if (send(conn, framed, (size_t)n, 0) != n)
		die(packet, "cannot send");
}

static char next_byte(void)
{
	char c;

	if (recv(conn, &c, 1, 0) != 1)
		die("receive", "nothing came");
	return c;
}

/* The next reply without its frame. */
static const char *receive(void)
{
	static char reply[8192];
	size_t n = 0;
	char c;

	while (next_byte() != '$')
		;
	while ((c = next_byte()) != '#' && n + 1 < sizeof(reply))
		reply[n++] = c;
	reply[n] = '\0';
	(void)next_byte();
	(void)next_byte();
	return reply;
}

static const char *ask(const char *packet)
{
	send_packet(packet);
	return receive();
}

static void expect(const char *packet, const char *want)
{
	const char *got = ask(packet);

	if (strcmp(got, want) != 0) {
		(void)fprintf(stderr, "%s: expected %s\n", packet, want);
		die(packet, got);
	}
}

/* A register's value, by its number. */
static uint64_t reg(unsigned n)
{
	const char *text;
	char packet[16];
	uint64_t v = 0;

	(void)snprintf(packet, sizeof(packet), "p%x", n);
	text = ask(packet);
	for (size_t i = strlen(text) / 2; i-- > 0;) {
		char byte[3] = { text[2 * i], text[2 * i + 1], 0 };

		v = v << 8 | strtoul(byte, NULL, 16);
	}
	return v;
}

static void expect_at(const char *what, uint64_t rip, uint64_t rax)
{
	char got[64];

	(void)snprintf(got, sizeof(got), "rip 0x%llx rax %llu", (unsigned long long)reg(16), (unsigned long long)reg(0));
	if (reg(16) != rip || reg(0) != rax)
		die(what, got);
}

static void connect_client(void)
{
	struct sockaddr_in addr = { .sin_family = AF_INET, .sin_port = htons(debugger_port(debugger)),
				    .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct timeval limit = { .tv_sec = 20 };

	conn = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	(void)setsockopt(conn, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	if (conn < 0 || connect(conn, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		die("connect", "refused");
}

/* ------------------------------------------------------------------- checks */

/* @int3: the engine can report INT3; an emulating KVM need not. */
static void test_stops(bool int3)
{
	expect("?", "T05thread:1;");
	expect("QStartNoAckMode", "OK");
	expect("qfThreadInfo", "m1,2");
	if (reg(16) != CODE)
		die("a machine that waits", "has run");
	expect("Z1,10010,1", "OK");
	expect("vCont;c", "T05thread:1;");
	expect_at("hardware breakpoint", AFTER_STORE, 1);
	expect("z1,10010,1", "OK");
	expect("vCont;s:1", "T05thread:1;");
	expect_at("single step", AFTER_NOP, 1);
	expect(int3 ? "Z0,10007,1" : "Z1,10007,1", "OK");
	expect("vCont;c", "T05thread:1;");
	expect_at("software breakpoint", LOOP, 1);
	expect("m10007,2", "ffc0");
	expect(int3 ? "z0,10007,1" : "z1,10007,1", "OK");
	expect("vCont;s:1", "T05thread:1;");
	expect_at("the instruction below it", STORE, 2);
	expect("P0=6400000000000000", "OK");
	expect("vCont;s:1;c", "T05thread:1;");
	expect("m20000,4", "64000000");
}

static void check_watchpoint(const char *got, const char *word)
{
	char want[64];

	(void)snprintf(want, sizeof(want), "T05thread:1;%s:20000;", word);
	if (strcmp(got, want) != 0)
		die(word, got);
}

static void test_watchpoints(void)
{
	expect("Z2,20000,4", "OK");
	check_watchpoint(ask("vCont;c"), "watch");
	expect("z2,20000,4", "OK");
	expect("Z4,20000,4", "OK");
	check_watchpoint(ask("vCont;c"), "awatch");
	expect("z4,20000,4", "OK");
}

static void test_interrupt(void)
{
	send_packet("vCont;c");
	(void)usleep(50000);
	(void)send(conn, "\x03", 1, 0);
	if (strcmp(receive(), "T02thread:1;") != 0)
		die("interrupt", "another reason");
}

static uint32_t counter(void)
{
	return __atomic_load_n((uint32_t *)mem_at(mem, COUNTER, 4), __ATOMIC_RELAXED);
}

static void test_detach(void)
{
	uint32_t before;

	expect("Z0,10007,1", "OK");
	expect("Z1,10009,1", "OK");
	expect("D", "OK");
	before = counter();
	for (unsigned i = 0; i < 1000 && counter() == before; i++)
		(void)usleep(10000);
	if (counter() == before)
		die("detach", "the guest does not go on");
	if (memcmp(mem_at(mem, CODE, sizeof(code)), code, sizeof(code)) != 0)
		die("detach", "an INT3 is left");
}

/* ------------------------------------------------------------------ machine */

static void *loop_main(void *arg)
{
	(void)loop_run(loop, arg);
	return NULL;
}

static int make_machine(const struct engine_ops *engine, struct err *err)
{
	struct vcpu_state state;
	int r = mem_create(4ull << 20, &mem, err);

	if (r == 0)
		r = loop_create(&loop, err);
	if (r == 0)
		r = vm_create(engine, mem, 2, &vm, err);
	if (r == 0)
		r = boot_tables(mem, err);
	if (r == 0)
		r = mem_write(mem, CODE, code, sizeof(code));
	boot_long_mode_state(0, CODE, 0, &state);
	if (r == 0)
		r = engine->set_state(&vm->vcpu[0], &state, err);
	if (r == 0)
		r = debugger_create(loop, vm, 0, true, &debugger, err);
	return r == 0 ? vm_start(vm, err) : r;
}

int main(int argc, char **argv)
{
	const struct engine_ops *engine = argc > 1 && strcmp(argv[1], "kvm") == 0 ? &kvm_engine : &dbt_engine;
	struct err err = { 0 };
	pthread_t thread;
	bool real;

	if (engine == &kvm_engine && access("/dev/kvm", R_OK | W_OK) < 0) {
		(void)fprintf(stderr, "skipped: no usable /dev/kvm\n");
		return EXIT_SKIP;
	}
	real = engine->probe(&err) == 0;
	if (make_machine(engine, &err) < 0)
		die("machine", err.msg);
	if (pthread_create(&thread, NULL, loop_main, NULL))
		die("thread", "not started");
	connect_client();
	test_stops(real);
	if (real)	/* nor need it have them */
		test_watchpoints();
	test_interrupt();
	test_detach();
	loop_quit(loop);
	(void)pthread_join(thread, NULL);
	vm_stop(vm);
	debugger_destroy(debugger);
	vm_destroy(vm);
	loop_destroy(loop);
	mem_destroy(mem);
	(void)close(conn);
	return 0;
}
