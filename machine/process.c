/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/process.h"

#include "abi/agent.h"
#include "link/broker.h"
#include "machine/control.h"
#include "machine/machine.h"
#include "machine/reads.h"
#include "machine/snapshot.h"
#include "machine/spec.h"
#include "os/err.h"
#include "os/jail.h"
#include "os/loop.h"
#include "os/memory.h"
#include "vmm/vm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#define REST_NS 2000000000u	/* from a machine's start until its process gives back what it took for that */
#define SAVE_PAUSE_NS 1000000u	/* a guest that is about to be idle is so soon */
#define SAVE_TRIES 2000u
#define SAVE_QUIET 4u	/* what a guest waits for from its devices does not take them so long */
/*
 * Kernels put off much of what boots leave to do, some by 5 s.  Linux reseeds its generator each time that the time since the boot has
 * grown by half, until that is two minutes, and once a minute from then on.
 */
#define SAVE_AHEAD_NS 150000000000u
#define SAVE_SKIPS 200u	/* but no guest whose timers never rest holds up its template */

struct process {
	int sock;
	const char *cache_dir;
	struct loop *loop;
	struct loop_source *source;
	struct loop_source *rest_timer;	/* both timers there from the start: the jail allows no new ones */
	struct machine *machine;
	struct control_msg *msg;
	struct jail *jail;
	bool failed;
	struct {
		struct loop_source *timer;
		int fd;	/* -1: nobody wants it */
		int32_t number;	/* of the question */
		bool idle;
		unsigned tries, quiet;	/* times that it was not idle, and that it was, in a row */
		uint64_t ahead;	/* what its time has been moved on by, in ns */
		unsigned skips;	/* and how often */
	} save;
};

static void fail(struct process *p, const struct err *err)
{
	const char *advice = err->code == -EMFILE ? "; allow more open files (ulimit -n)" : "";
	char text[sizeof(err->msg) + 64];
	int n = snprintf(text, sizeof(text), "%s%s", err->msg, advice);

	(void)control_send(p->sock, CONTROL_FAILED, err->code, 0, text, (size_t)n, -1);
	p->failed = true;
	loop_quit(p->loop);
}

static void on_ended(void *ctx, const struct vm_end *end)
{
	struct process *p = ctx;
	enum control_end kind = end->exit == VCPU_EXIT_POWEROFF ? CONTROL_END_POWEROFF :
		end->exit == VCPU_EXIT_RESET ? CONTROL_END_RESET :
		end->exit == VCPU_EXIT_SHUTDOWN ? CONTROL_END_CRASH : CONTROL_END_ERROR;

	(void)control_send(p->sock, CONTROL_ENDED, (int32_t)kind, 0, end->reason, strlen(end->reason), -1);
	loop_quit(p->loop);
}

/* An owner that does not read loses console bytes rather than stopping the guest. */
static void on_console(void *ctx, const uint8_t *data, size_t len)
{
	struct process *p = ctx;

	(void)control_send(p->sock, CONTROL_CONSOLE, 0, 0, data, len, -1);
}

/* With the stream's ports; takes @fd. */
static void send_stream(struct process *p, enum control_type type, int32_t value, int32_t value2, int fd,
			const struct machine_stream *stream)
{
	char text[32];
	int n = snprintf(text, sizeof(text), "%u:%u", stream->guest_port, stream->host_port);

	(void)control_send(p->sock, type, value, value2, text, (size_t)n, fd);
	if (fd >= 0)
		(void)close(fd);
}

static void on_ready(void *ctx, int fd, const struct machine_stream *stream)
{
	send_stream(ctx, CONTROL_READY, 0, 0, fd, stream);
}

static void on_network_lost(void *ctx, unsigned index)
{
	struct process *p = ctx;

	(void)control_send(p->sock, CONTROL_NETWORK_LOST, (int32_t)index, 0, NULL, 0, -1);
}

static int forbidden_sock;	/* for the signal handler */

static void on_forbidden(long nr)
{
	control_send_forbidden(forbidden_sock, nr);
}

/* A session that the agent of a restored guest has begun already. */
static void offer_session(struct process *p, const struct machine_spec *spec)
{
	struct machine_stream stream = { .guest_port = AGENT_PORT };
	int fd;

	if (!spec->restore)
		return;
	if (spec->stream && sscanf(spec->stream, "%u:%u", &stream.guest_port, &stream.host_port) != 2)
		stream.guest_port = 0;	/* of nobody */
	fd = machine_take_stream(p->machine, &stream);
	if (fd >= 0)
		send_stream(p, CONTROL_READY, 1, 0, fd, &stream);
	machine_abandon_streams(p->machine);
}

static void start(struct process *p, const struct control_msg *msg)
{
	struct machine_events events = { .ended = on_ended, .console = on_console, .ready = on_ready, .network_lost = on_network_lost,
					 .forbidden = on_forbidden, .ctx = p };
	struct machine_spec spec;
	struct err err = { 0 };
	int r, counts_fd;

	machine_spec_init(&spec);
	r = p->machine ? err_set(&err, -EALREADY, "the machine exists already") :
		machine_spec_read(&spec, msg->text, msg->len, &err);
	if (r == 0)
		r = machine_create(p->loop, &spec, p->cache_dir, p->jail, &events, &p->machine, &err);
	if (r == 0)
		offer_session(p, &spec);
	if (r == 0)
		r = machine_start(p->machine, &err);
	machine_spec_finish(&spec);
	if (r < 0) {
		fail(p, &err);
		return;
	}
	counts_fd = machine_take_counts_fd(p->machine);
	(void)control_send(p->sock, CONTROL_STARTED, machine_gdb_port(p->machine),
			   (machine_has_helper(p->machine) ? CONTROL_HAS_HELPER : 0) |
				   (machine_learns(p->machine) ? CONTROL_HAS_LESSONS : 0),
			   machine_engine(p->machine),
			   strlen(machine_engine(p->machine)), counts_fd);
	if (counts_fd >= 0)
		(void)close(counts_fd);
	(void)loop_set_timer(p->rest_timer, REST_NS, 0);
}

struct request {
	struct process *process;
	int32_t id;
};

static void on_connected(void *ctx, int result, int fd, const struct machine_stream *stream)
{
	struct request *rq = ctx;

	send_stream(rq->process, CONTROL_CONNECTED, rq->id, result, fd, stream);
	free(rq);
}

static void connect_guest(struct process *p, const struct control_msg *msg)
{
	struct request *rq = p->machine ? malloc(sizeof(*rq)) : NULL;

	if (!rq) {
		(void)control_send(p->sock, CONTROL_CONNECTED, msg->value, -ENOTCONN, NULL, 0, -1);
		return;
	}
	*rq = (struct request){ .process = p, .id = msg->value };
	machine_connect(p->machine, (uint32_t)msg->value2, on_connected, rq);
}

/* Answers question @number by @result: 0 or more, or a negative errno, which @err has a sentence for. */
static void answer(struct process *p, enum control_type type, int32_t number, int32_t result, const struct err *err)
{
	(void)control_send(p->sock, type, result, number, err->msg, strlen(err->msg), -1);
}

static void send_counters(struct process *p)
{
	char text[2048] = "";

	if (p->machine)
		machine_counters(p->machine, text, sizeof(text));
	(void)control_send(p->sock, CONTROL_COUNTERS, 0, p->msg->value2, text, strlen(text), -1);
}

static void resize(struct process *p, const struct control_msg *msg)
{
	struct err err = { 0 };
	int r = !p->machine || msg->value < 0 ? err_set(&err, -EINVAL, "there is no machine, or it cannot have this size") :
		machine_set_memory(p->machine, (uint64_t)msg->value << 20, &err);

	answer(p, CONTROL_RESIZED, msg->value2, r, &err);
}

/*
 * A guest that is to be saved when it is idle does first what it has put off: else each guest made of it would do that
 * again, and write to as many pages.
 */
static void wait_for_rest(struct process *p)
{
	int64_t skipped = 0;

	p->save.quiet = machine_is_idle(p->machine) ? p->save.quiet + 1 : 0;
	if (p->save.quiet && p->save.skips < SAVE_SKIPS)
		skipped = machine_skip_time(p->machine, SAVE_AHEAD_NS - p->save.ahead);
	if (skipped > 0) {
		p->save.ahead += (uint64_t)skipped;
		p->save.skips++;
	}
	if (skipped)
		p->save.quiet = 0;
}

static void try_save(void *ctx)
{
	struct process *p = ctx;
	struct err err = { 0 };
	bool wait = p->save.idle && p->save.quiet < SAVE_QUIET;
	int r;

	if (wait)
		wait_for_rest(p);
	if (wait && p->save.tries++ < SAVE_TRIES && loop_set_timer(p->save.timer, SAVE_PAUSE_NS, 0) == 0)
		return;
	if (wait) {
		r = err_set(&err, -EBUSY, "the guest does not come to rest");
		(void)close(p->save.fd);
	} else {
		r = machine_save(p->machine, p->save.fd, &err);
	}
	p->save.fd = -1;
	answer(p, CONTROL_SAVED, p->save.number, r, &err);
}

/* Takes @fd. */
static void save(struct process *p, bool idle, int fd)
{
	struct err err = { 0 };

	if (!p->machine || p->save.fd >= 0) {
		(void)err_set(&err, -EINVAL, "there is no machine to save, or it is being saved");
		(void)close(fd);
		answer(p, CONTROL_SAVED, p->msg->value2, err.code, &err);
		return;
	}
	p->save.fd = fd;
	p->save.number = p->msg->value2;
	p->save.idle = idle;
	p->save.tries = p->save.quiet = 0;
	p->save.ahead = 0;
	p->save.skips = 0;
	try_save(p);
}

/* Takes @fd. */
static void keep(struct process *p, unsigned least, int fd)
{
	struct err err = { 0 };
	uint64_t bytes = 0;
	int r = p->machine ? machine_keep(p->machine, fd, least, &bytes, &err) : err_set(&err, -EINVAL, "there is no machine");

	(void)close(fd);
	answer(p, CONTROL_KEPT, p->msg->value2, r < 0 ? r : (int32_t)(bytes / 4096), &err);
}

/* Takes @fd. */
static void hold(struct process *p, int fd)
{
	struct err err = { 0 };
	int r = p->machine ? machine_hold_snapshot(p->machine, fd, &err) : err_set(&err, -EINVAL, "there is no machine");

	(void)close(fd);
	answer(p, CONTROL_KEPT, p->msg->value2, r, &err);
}

static void halt(struct process *p, unsigned least)
{
	int32_t lessons = 0;

	if (p->machine && machine_halt(p->machine, least))
		lessons |= CONTROL_LESSON_CODE;
	if (p->machine && machine_bytes_read(p->machine) >= READS_LEAST)
		lessons |= CONTROL_LESSON_READS;
	answer(p, CONTROL_KEPT, p->msg->value2, lessons, &(struct err){ 0 });
}

/* Takes @fd. */
static void write_reads(struct process *p, int fd)
{
	int r = p->machine ? machine_write_reads(p->machine, fd) : -EINVAL;
	struct err err = { 0 };

	(void)close(fd);
	if (r < 0)
		(void)err_set(&err, r, "cannot list what the guest has read: %s", strerror(-r));
	answer(p, CONTROL_KEPT, p->msg->value2, r, &err);
}

/* Takes @fd.  Whoever reads it is there: another process, which reads on whatever happens. */
static void checkpoint(struct process *p, int fd)
{
	struct err err = { 0 };
	struct snapshot_id id;
	int r;

	if (!p->machine || p->msg->len != sizeof(id)) {
		r = err_set(&err, -EINVAL, "there is no machine, or the snapshot has no id");
		(void)close(fd);
	} else {
		memcpy(&id, p->msg->text, sizeof(id));
		r = machine_checkpoint(p->machine, fd, &id, &err);
	}
	answer(p, CONTROL_CHECKPOINTED, p->msg->value2, r, &err);
}

/* Takes @map. */
static void watch(struct process *p, unsigned index, int map)
{
	struct machine_disk disk = { .fd = -1 };
	struct err err = { 0 };
	char text[64];
	int n, r;

	if (p->machine) {
		r = machine_watch(p->machine, index, map, &disk, &err);
	} else {
		r = err_set(&err, -EINVAL, "there is no machine");
		(void)close(map);
	}
	n = snprintf(text, sizeof(text), "%llu %llu", (unsigned long long)disk.at, (unsigned long long)disk.size);
	if (r < 0)
		answer(p, CONTROL_WATCHED, p->msg->value2, r, &err);
	else
		(void)control_send(p->sock, CONTROL_WATCHED, 0, p->msg->value2, text, (size_t)n, disk.fd);
}

static void stand(struct process *p)
{
	struct err err = { 0 };
	int r = p->machine ? machine_stand(p->machine, &err) : err_set(&err, -EINVAL, "there is no machine");

	answer(p, CONTROL_CHECKPOINTED, p->msg->value2, r, &err);
}

static void on_message(void *ctx, uint32_t events)
{
	struct process *p = ctx;
	int fd, r = control_recv(p->sock, p->msg, &fd);

	(void)events;
	if (r == -EAGAIN)
		return;
	if (r <= 0) {	/* the owner is gone */
		loop_quit(p->loop);
		return;
	}
	if (p->msg->type == CONTROL_NETWORK && p->machine && fd >= 0) {
		machine_renew_network(p->machine, (unsigned)p->msg->value, fd);
		return;
	}
	if (p->msg->type == CONTROL_SAVE && fd >= 0) {
		save(p, p->msg->value, fd);
		return;
	}
	if (p->msg->type == CONTROL_CHECKPOINT && fd >= 0) {
		checkpoint(p, fd);
		return;
	}
	if (p->msg->type == CONTROL_WATCH && fd >= 0) {
		watch(p, (unsigned)p->msg->value, fd);
		return;
	}
	if (p->msg->type == CONTROL_KEEP && fd >= 0) {
		keep(p, (unsigned)p->msg->value, fd);
		return;
	}
	if (p->msg->type == CONTROL_HOLD && fd >= 0) {
		hold(p, fd);
		return;
	}
	if (p->msg->type == CONTROL_READS && fd >= 0) {
		write_reads(p, fd);
		return;
	}
	if (fd >= 0)
		(void)close(fd);	/* no other message of ours carries one */
	switch (p->msg->type) {
	case CONTROL_SPEC:
		start(p, p->msg);
		break;
	case CONTROL_CONNECT:
		connect_guest(p, p->msg);
		break;
	case CONTROL_COUNT:
		send_counters(p);
		break;
	case CONTROL_FORGET:
		if (p->machine)
			machine_forget(p->machine);
		break;
	case CONTROL_STAND:
		stand(p);
		break;
	case CONTROL_HALT:
		halt(p, (unsigned)p->msg->value);
		break;
	case CONTROL_GO_ON:
		if (p->machine)
			machine_go_on(p->machine);
		break;
	case CONTROL_RESIZE:
		resize(p, p->msg);
		break;
	case CONTROL_CONSOLE_INPUT:
		if (p->machine)
			(void)machine_console_input(p->machine, (const uint8_t *)p->msg->text, p->msg->len);
		break;
	default:
		break;
	}
}

static void on_rest(void *ctx)
{
	(void)ctx;
	memory_give_back();
}

int machine_process(int sock, const char *cache_dir, struct jail *jail)
{
	struct process p = { .sock = sock, .cache_dir = cache_dir, .jail = jail, .save.fd = -1 };
	struct err err = { 0 };
	int r;

	p.msg = malloc(sizeof(*p.msg));
	if (!p.msg || loop_create(&p.loop, &err) < 0) {
		free(p.msg);
		return 1;
	}
	(void)fcntl(sock, F_SETFL, fcntl(sock, F_GETFL) | O_NONBLOCK);
	r = loop_add_fd(p.loop, sock, EPOLLIN, on_message, &p, &p.source, &err);
	if (r == 0)
		r = loop_add_timer(p.loop, try_save, &p, &p.save.timer, &err);
	if (r == 0)
		r = loop_add_timer(p.loop, on_rest, &p, &p.rest_timer, &err);
	if (r == 0)
		r = loop_run(p.loop, &err);
	if (r < 0)
		fail(&p, &err);
	if (p.save.fd >= 0)
		(void)close(p.save.fd);
	machine_destroy(p.machine);
	loop_remove(p.save.timer);
	loop_remove(p.rest_timer);
	loop_remove(p.source);
	loop_destroy(p.loop);
	free(p.msg);
	return p.failed || r < 0 ? 1 : 0;
}

int machine_process_jailed(int sock, const char *cache_dir)
{
	struct err err = { 0 };
	struct jail jail;
	pid_t pid = jail_fork(&jail, &err);
	int r = (int)pid;

	if (pid > 0) {	/* we are the helper, and the owner knows us no longer */
		(void)control_send(sock, CONTROL_BORN, (int32_t)pid, 0, NULL, 0, -1);
		(void)close(sock);
		return jail_help(&jail, pid) && broker_serve(jail.helper) < 0;
	}
	(void)prctl(PR_SET_NAME, "roux-vm");
	if (r == 0)
		r = jail_wait(&jail, &err);
	if (r < 0) {
		(void)control_send(sock, CONTROL_FAILED, r, 0, err.msg, strlen(err.msg), -1);
		return 1;
	}
	forbidden_sock = sock;
	return machine_process(sock, cache_dir, &jail);
}
