/* SPDX-License-Identifier: Apache-2.0 */
/*
 * While GDB looks at the machine, one vm_pause() is ours (`stopped`).  A vCPU that
 * meets a breakpoint makes a pause of its own, which becomes ours when the event
 * arrives here, or is given back when the machine was stopped already: the vCPU
 * meets the breakpoint again when it goes on.  Only a watchpoint would be lost;
 * it is remembered and told when GDB resumes next.
 */
#include "machine/debugger.h"

#include "base/checked.h"
#include "machine/gdb.h"
#include "os/err.h"
#include "os/log.h"
#include "os/loop.h"
#include "vmm/vm.h"
#include "vmm/walk.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SOFTWARE_MAX 128u
#define HARDWARE_MAX 4u
#define SIGNAL_INT 2
#define SIGNAL_TRAP 5
#define INT3 0xcc

struct software {
	gpa_t gpa;
	uint8_t saved;	/* the byte that INT3 took the place of */
	bool set;
};

struct hardware {
	uint64_t addr;
	uint8_t len;	/* bytes */
	enum gdb_point point;
	bool set;
};

struct event {
	struct debugger *debugger;
	struct vcpu *vcpu;
};

struct debugger {
	struct loop *loop;
	struct vm *vm;
	int listener, conn;	/* conn: -1 without GDB */
	uint16_t port;
	struct loop_source *listen_source, *conn_source;
	struct gdb_target target;
	struct gdb *gdb;	/* NULL without GDB */
	bool stopped;
	struct event event[VCPUS_MAX];	/* of vCPUs on their way here: at most one each */
	unsigned missed;	/* bit per vCPU: vcpu->stop is a watchpoint that GDB has not been told of */
	struct vcpu_state *state[VCPUS_MAX];	/* registers while stopped; owned */
	bool have_state[VCPUS_MAX], changed[VCPUS_MAX];
	struct software software[SOFTWARE_MAX];
	struct hardware hardware[HARDWARE_MAX];
};

/* ----------------------------------------------------------------- registers */

static struct vcpu_state *get_state(void *ctx, unsigned thread, bool change)
{
	struct debugger *d = ctx;
	struct err err = { 0 };

	if (!d->have_state[thread] &&
	    d->vm->engine->get_state(&d->vm->vcpu[thread], d->state[thread], &err) < 0) {
		log_msg(LOG_LEVEL_WARN, "gdb", "%s", err.msg);
		return NULL;
	}
	d->have_state[thread] = true;
	d->changed[thread] |= change;
	return d->state[thread];
}

/* Gives changed registers to the engine and forgets all. */
static void put_states(struct debugger *d)
{
	for (unsigned i = 0; i < d->vm->nvcpus; i++) {
		struct err err = { 0 };

		if (d->have_state[i] && d->changed[i]) {
			d->state[i]->tsc = 0;	/* goes on running */
			if (d->vm->engine->set_state(&d->vm->vcpu[i], d->state[i], &err) < 0)
				log_msg(LOG_LEVEL_WARN, "gdb", "%s", err.msg);
		}
		d->have_state[i] = d->changed[i] = false;
	}
}

/* -------------------------------------------------------------------- memory */

static struct software *find_software(struct debugger *d, gpa_t gpa)
{
	for (unsigned i = 0; i < SOFTWARE_MAX; i++)
		if (d->software[i].set && d->software[i].gpa == gpa)
			return &d->software[i];
	return NULL;
}

/* GDB sees the guest's bytes, not our INT3s. */
static int read_page(struct debugger *d, gpa_t gpa, uint8_t *buf, size_t len)
{
	int r = mem_read(d->vm->mem, gpa, buf, len);

	for (unsigned i = 0; i < SOFTWARE_MAX && r == 0; i++)
		if (d->software[i].set && d->software[i].gpa - gpa < len)
			buf[d->software[i].gpa - gpa] = d->software[i].saved;
	return r;
}

/* What is below an INT3 of ours is kept for later. */
static int write_page(struct debugger *d, gpa_t gpa, const uint8_t *buf, size_t len)
{
	int r = 0;

	for (size_t i = 0; i < len && r == 0; i++) {
		struct software *s = find_software(d, gpa + i);

		if (s)
			s->saved = buf[i];
		else
			r = mem_write(d->vm->mem, gpa + i, &buf[i], 1);
	}
	return r;
}

struct piece {
	gpa_t gpa;
	size_t len;
};

/* The longest piece of [@va, @va + @len) that lies in one page. */
static int next_piece(struct debugger *d, unsigned thread, uint64_t va, size_t len, struct piece *ret)
{
	const struct vcpu_state *s = get_state(d, thread, false);
	size_t room = 4096 - (va & 4095);

	ret->len = len < room ? len : room;
	return s ? walk_linear(d->vm->mem, s, va, &ret->gpa) : -EIO;
}

static int read_memory(void *ctx, unsigned thread, uint64_t va, void *buf, size_t len)
{
	uint8_t *to = buf;
	struct piece p;
	int r = 0;

	for (; len && r == 0; va += p.len, to += p.len, len -= p.len) {
		r = next_piece(ctx, thread, va, len, &p);
		if (r == 0)
			r = read_page(ctx, p.gpa, to, p.len);
	}
	return r;
}

static int write_memory(void *ctx, unsigned thread, uint64_t va, const void *buf, size_t len)
{
	const uint8_t *from = buf;
	struct piece p;
	int r = 0;

	for (; len && r == 0; va += p.len, from += p.len, len -= p.len) {
		r = next_piece(ctx, thread, va, len, &p);
		if (r == 0)
			r = write_page(ctx, p.gpa, from, p.len);
	}
	return r;
}

/* -------------------------------------------------------------------- points */

static int set_software(struct debugger *d, gpa_t gpa)
{
	static const uint8_t int3 = INT3;
	struct software *s = find_software(d, gpa);
	int r;

	for (unsigned i = 0; i < SOFTWARE_MAX && !s; i++)
		if (!d->software[i].set)
			s = &d->software[i];
	if (!s)
		return -ENOSPC;
	if (s->set)
		return 0;
	r = mem_read(d->vm->mem, gpa, &s->saved, 1);
	if (r == 0)
		r = mem_write(d->vm->mem, gpa, &int3, 1);
	s->gpa = gpa;
	s->set = r == 0;
	return r;
}

/* A byte that is no longer our INT3 has been replaced by the guest, and stays. */
static void clear_software(struct debugger *d, struct software *s)
{
	uint8_t now;

	if (mem_read(d->vm->mem, s->gpa, &now, 1) == 0 && now == INT3)
		(void)mem_write(d->vm->mem, s->gpa, &s->saved, 1);
	s->set = false;
}

static int change_hardware(struct debugger *d, enum gdb_point point, uint64_t va, uint64_t len, bool set)
{
	struct hardware *free_one = NULL;

	if (point == GDB_HARDWARE)
		len = 1;	/* "kind": the length of INT3 */
	if ((len != 1 && len != 2 && len != 4 && len != 8) || va & (len - 1))
		return -EINVAL;
	for (unsigned i = 0; i < HARDWARE_MAX; i++) {
		struct hardware *h = &d->hardware[i];

		if (h->set && h->point == point && h->addr == va && h->len == len) {
			h->set = set;
			return 0;
		}
		if (!h->set && !free_one)
			free_one = h;
	}
	if (!set)
		return 0;
	if (!free_one)
		return -ENOSPC;
	*free_one = (struct hardware){ .addr = va, .len = (uint8_t)len, .point = point, .set = true };
	return 0;
}

static int change_point(void *ctx, unsigned thread, enum gdb_point point, uint64_t va, uint64_t len, bool set)
{
	struct debugger *d = ctx;
	struct software *s;
	struct piece p;
	int r;

	if (point != GDB_SOFTWARE)
		return change_hardware(d, point, va, len, set);
	r = next_piece(d, thread, va, 1, &p);
	if (r < 0)
		return r;
	if (set)
		return set_software(d, p.gpa);
	s = find_software(d, p.gpa);
	if (s)
		clear_software(d, s);
	return 0;
}

static void clear_points(struct debugger *d)
{
	for (unsigned i = 0; i < SOFTWARE_MAX; i++)
		if (d->software[i].set)
			clear_software(d, &d->software[i]);
	memset(d->hardware, 0, sizeof(d->hardware));
}

/* DR7 with @n enabled: SDM vol. 3, 17.2.4. */
static uint64_t dr7_bits(unsigned n, const struct hardware *h)
{
	uint64_t rw = h->point == GDB_HARDWARE ? 0 : h->point == GDB_WATCH_WRITE ? 1 : 3;
	uint64_t len = h->len == 8 ? 2 : h->len - 1u;

	return 2ull << 2 * n | (rw | len << 2) << (16 + 4 * n);
}

/* Has the engine report what GDB waits for on one vCPU. */
static void arm(struct debugger *d, unsigned thread, bool step, bool inject_int3)
{
	struct vcpu_debug debug = { .single_step = step, .inject_int3 = inject_int3 };
	struct err err = { 0 };

	for (unsigned i = 0; i < SOFTWARE_MAX; i++)
		debug.int3 |= d->software[i].set;
	for (unsigned i = 0; i < HARDWARE_MAX; i++) {
		if (!d->hardware[i].set)
			continue;
		debug.dr[i] = d->hardware[i].addr;
		debug.dr7 |= dr7_bits(i, &d->hardware[i]);
	}
	if (debug.dr7)
		debug.dr7 |= 0x700;	/* LE and GE, and a bit that is always 1 */
	if (d->vm->engine->debug(&d->vm->vcpu[thread], &debug, &err) < 0)
		log_msg(LOG_LEVEL_WARN, "gdb", "%s", err.msg);
}

/* ------------------------------------------------------------ stop and resume */

static void tell_stop(struct debugger *d, unsigned thread)
{
	const struct vcpu_stop *why = &d->vm->vcpu[thread].stop;
	struct gdb_stop stop = { .thread = thread, .signal = SIGNAL_TRAP, .why = GDB_WHY_POINT };

	switch (why->kind) {
	case VCPU_STOP_STEP:
		stop.why = GDB_WHY_SIGNAL;
		break;
	case VCPU_STOP_INT3:
		stop.point = GDB_SOFTWARE;
		break;
	case VCPU_STOP_BREAKPOINT:
		stop.point = GDB_HARDWARE;
		break;
	case VCPU_STOP_WATCHPOINT:
		stop.point = d->hardware[why->index].point;
		stop.addr = d->hardware[why->index].addr;
		break;
	}
	gdb_stopped(d->gdb, &stop);
}

static bool int3_is_ours(struct debugger *d, unsigned thread)
{
	const struct vcpu_state *s = get_state(d, thread, false);
	gpa_t gpa;

	return s && walk_linear(d->vm->mem, s, s->rip, &gpa) == 0 && find_software(d, gpa);
}

/* The event of a vCPU that has made a pause for it. */
static void on_stop(void *ctx)
{
	struct event *e = ctx;
	struct debugger *d = e->debugger;
	unsigned thread = e->vcpu->index;
	enum vcpu_stop_kind kind = e->vcpu->stop.kind;

	if (!d->gdb || d->stopped) {
		if (d->gdb && kind == VCPU_STOP_WATCHPOINT)
			d->missed |= 1u << thread;
		vm_resume(d->vm);
		return;
	}
	/* The others are parked soon; from here on their registers can be read. */
	vm_pause(d->vm);
	vm_resume(d->vm);
	if (kind == VCPU_STOP_INT3 && !int3_is_ours(d, thread)) {
		put_states(d);
		arm(d, thread, false, true);
		vm_resume(d->vm);
		return;
	}
	d->stopped = true;
	tell_stop(d, thread);
}

/* On the vCPU's thread. */
static void vcpu_stopped(void *ctx, struct vcpu *vcpu)
{
	struct debugger *d = ctx;

	if (loop_post(d->loop, on_stop, &d->event[vcpu->index]) < 0)
		vm_resume(d->vm);
}

static void resume(void *ctx, const enum gdb_action *action)
{
	struct debugger *d = ctx;

	for (unsigned i = 0; i < d->vm->nvcpus; i++)
		if (d->missed >> i & 1 && action[i] != GDB_HOLD) {
			d->missed &= ~(1u << i);
			tell_stop(d, i);
			return;
		}
	put_states(d);
	for (unsigned i = 0; i < d->vm->nvcpus; i++) {
		vm_hold(d->vm, i, action[i] == GDB_HOLD);
		arm(d, i, action[i] == GDB_STEP, false);
	}
	d->stopped = false;
	vm_resume(d->vm);
}

static void interrupt(void *ctx)
{
	struct debugger *d = ctx;
	struct gdb_stop stop = { .signal = SIGNAL_INT, .why = GDB_WHY_SIGNAL };

	if (d->stopped)
		return;
	vm_pause(d->vm);
	d->stopped = true;
	gdb_stopped(d->gdb, &stop);
}

/* Lets the machine go on as if there had never been a GDB. */
static void release(struct debugger *d)
{
	if (!d->stopped)
		vm_pause(d->vm);
	clear_points(d);
	put_states(d);
	d->missed = 0;
	for (unsigned i = 0; i < d->vm->nvcpus; i++) {
		vm_hold(d->vm, i, false);
		arm(d, i, false, false);
	}
	d->stopped = false;
	vm_resume(d->vm);
}

static void detach(void *ctx, bool kill)
{
	struct debugger *d = ctx;

	if (kill)
		vm_request(d->vm, VM_REQUEST_POWEROFF);
	release(d);
}

/* ----------------------------------------------------------------- connection */

/* GDB waits for each of our answers: a socket that is full belongs to something else, and is left to it. */
static void send_bytes(void *ctx, const void *data, size_t len)
{
	struct debugger *d = ctx;

	if (d->conn >= 0 && send(d->conn, data, len, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)len)
		(void)shutdown(d->conn, SHUT_RDWR);	/* seen as its end by on_input() */
}

static void hang_up(struct debugger *d)
{
	loop_remove(d->conn_source);
	d->conn_source = NULL;
	(void)close(d->conn);
	d->conn = -1;
	gdb_destroy(d->gdb);
	d->gdb = NULL;
}

static void on_input(void *ctx, uint32_t events)
{
	struct debugger *d = ctx;
	uint8_t buf[4096];
	ssize_t n = recv(d->conn, buf, sizeof(buf), MSG_DONTWAIT);

	(void)events;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0 && gdb_input(d->gdb, buf, (size_t)n))
		return;
	if (n <= 0)	/* gone without a word */
		release(d);
	hang_up(d);
}

static int take_connection(struct debugger *d, int fd)
{
	struct gdb_stop stop = { .signal = SIGNAL_TRAP, .why = GDB_WHY_SIGNAL };
	struct err err = { 0 };
	int r;

	d->gdb = gdb_create(&d->target, &stop);
	if (!d->gdb)
		return -ENOMEM;
	r = loop_add_fd(d->loop, fd, EPOLLIN, on_input, d, &d->conn_source, &err);
	if (r < 0) {
		gdb_destroy(d->gdb);
		d->gdb = NULL;
		return r;
	}
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int));
	d->conn = fd;
	if (!d->stopped)
		vm_pause(d->vm);
	d->stopped = true;
	return 0;
}

static void on_connection(void *ctx, uint32_t events)
{
	struct debugger *d = ctx;
	int fd = accept4(d->listener, NULL, NULL, SOCK_CLOEXEC);

	(void)events;
	if (fd < 0)
		return;
	if (d->conn >= 0 || take_connection(d, fd) < 0)	/* one at a time */
		(void)close(fd);
}

static int start_listening(struct debugger *d, uint16_t port, struct err *err)
{
	struct sockaddr_in addr = { .sin_family = AF_INET, .sin_port = htons(port),
				    .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof(addr);

	d->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (d->listener >= 0)
		(void)setsockopt(d->listener, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int));
	if (d->listener < 0 || bind(d->listener, (struct sockaddr *)&addr, size) < 0 || listen(d->listener, 1) < 0 ||
	    getsockname(d->listener, (struct sockaddr *)&addr, &size) < 0)
		return err_set(err, -errno, "cannot listen for GDB on 127.0.0.1:%u: %s", port, strerror(errno));
	d->port = ntohs(addr.sin_port);
	return loop_add_fd(d->loop, d->listener, EPOLLIN, on_connection, d, &d->listen_source, err);
}

int debugger_create(struct loop *loop, struct vm *vm, uint16_t port, bool wait, struct debugger **ret_debugger,
		    struct err *err)
{
	struct debugger *d = calloc(1, sizeof(*d));
	int r;

	if (!d)
		return err_set(err, -ENOMEM, "out of host memory");
	d->loop = loop;
	d->vm = vm;
	d->conn = d->listener = -1;
	d->target = (struct gdb_target){ .nthreads = vm->nvcpus, .state = get_state, .read = read_memory,
					 .write = write_memory, .point = change_point, .resume = resume,
					 .interrupt = interrupt, .detach = detach, .send = send_bytes, .ctx = d };
	for (unsigned i = 0; i < vm->nvcpus; i++) {
		d->event[i] = (struct event){ d, &vm->vcpu[i] };
		d->state[i] = malloc(sizeof(*d->state[i]));
		if (!d->state[i]) {
			debugger_destroy(d);
			return err_set(err, -ENOMEM, "out of host memory");
		}
	}
	r = start_listening(d, port, err);
	if (r < 0) {
		debugger_destroy(d);
		return r;
	}
	vm->debug = vcpu_stopped;
	vm->debug_ctx = d;
	if (wait) {
		vm_pause(vm);
		d->stopped = true;
	}
	*ret_debugger = d;
	return 0;
}

uint16_t debugger_port(const struct debugger *d)
{
	return d->port;
}

void debugger_ended(struct debugger *d)
{
	if (d->gdb)
		gdb_exited(d->gdb);
}

void debugger_destroy(struct debugger *d)
{
	if (!d)
		return;
	if (d->conn >= 0) {
		gdb_exited(d->gdb);
		hang_up(d);
	}
	loop_remove(d->listen_source);
	if (d->listener >= 0)
		(void)close(d->listener);
	for (unsigned i = 0; i < ARRAY_SIZE(d->state); i++)
		free(d->state[i]);
	free(d);
}
