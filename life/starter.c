/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Preparing a machine may take minutes (a kernel to fetch, an image to unpack) and
 * booting it a while: a thread does both, so that the monitor answers meanwhile.
 */
#include "life/inside.h"

#include "api/handle.h"
#include "api/process.h"
#include "api/template.h"
#include "life/snapshot_disks.h"
#include "os/loop.h"
#include "os/memory.h"
#include "os/prompt.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WARM_UP_NS 5000000000ull

/* Text on its way from the thread to the first client. */
struct note {
	struct monitor *monitor;
	size_t len;
	char text[];
};

static void deliver(void *ctx)
{
	struct note *n = ctx;

	notes_tell(n->monitor, n->text, n->len);
	free(n);
}

static void post_note(struct monitor *m, const char *text, size_t len)
{
	struct note *n = malloc(sizeof(*n) + len);

	if (!n)
		return;
	n->monitor = m;
	n->len = len;
	memcpy(n->text, text, len);
	if (loop_post(m->loop, deliver, n) < 0)
		free(n);
}

static void on_console(void *ctx, const void *data, size_t len)
{
	post_note(ctx, data, len);
}

static void on_gdb(void *ctx, uint16_t port)
{
	char text[96];
	int n = snprintf(text, sizeof(text), "roux: GDB may connect: target remote 127.0.0.1:%u\n", port);

	post_note(ctx, text, (size_t)n);
}

/* What the library takes; everything is borrowed from the record. */
struct wanted {
	struct roux_options machine;
	struct roux_exec_options exec;
	struct roux_share shares[RECORD_SHARES_MAX];
	struct roux_disk disks[RECORD_DISKS_MAX];
	struct roux_network network;
	char machine_id[33];
};

static enum roux_network_kind network_kind(const char *kind)
{
	if (kind && strcmp(kind, "tap") == 0)
		return ROUX_NETWORK_TAP;
	return kind && strcmp(kind, "named") == 0 ? ROUX_NETWORK_NAMED : ROUX_NETWORK_USER;
}

static void fill_network(const struct vm_config *c, struct roux_network *net)
{
	const struct vm_network *n = &c->network;

	*net = (struct roux_network){
		.kind = network_kind(n->kind), .name = n->name,
		.address4 = n->address4, .gateway4 = n->gateway4, .address6 = n->address6, .gateway6 = n->gateway6,
		.publish = (const char *const *)c->publish.v, .npublish = (unsigned)c->publish.n,
		.egress = (const char *const *)c->egress.v, .negress = (unsigned)c->egress.n,
		.host_loopback = c->host_loopback, .pcap = n->pcap, .send_bytes = n->send_bytes,
		.send_frames = n->send_frames, .receive_bytes = n->receive_bytes, .receive_frames = n->receive_frames };
}

static void fill_wanted(const struct vm_record *record, const struct monitor_options *o, bool first_life,
			const volatile int *cancel, struct wanted *w)
{
	const struct vm_config *c = &record->config;

	*w = (struct wanted){ .machine = { .size = sizeof(w->machine), .image = c->image, .engine = c->engine,
					   .cpus = c->cpus, .memory = c->memory, .kernel = c->kernel, .append = c->append,
					   .hostname = c->hostname, .name = record->name, .transient = c->auto_remove,
					   .machine_id = w->machine_id, .shares = w->shares, .nshares = c->nshares,
					   .disks = w->disks, .ndisks = c->ndisks, .networks = &w->network,
					   .nnetworks = c->network.kind ? 1 : 0, .read_only = c->read_only,
					   .no_template = c->no_template || o->console, .merge_memory = c->merge_memory,
					   .pull = c->no_pull ? ROUX_PULL_NEVER : ROUX_PULL_MISSING, .insecure_registry = c->insecure,
					   .cancel = cancel, .vmm = o->vmm,
					   /* The limit of the VM's life has a timer of its own, which comes first. */
					   .start_timeout_ms = c->timeout_s > 50 ? c->timeout_s * 1000 + 10000 : 0,
					   .gdb = first_life && o->gdb, .gdb_port = o->gdb_port,
					   .gdb_wait = o->gdb_wait },
			      .exec = { .size = sizeof(w->exec), .argv = (const char *const *)c->argv.v,
					.use_entrypoint = !c->no_entrypoint, .env = (const char *const *)c->env.v,
					.cwd = c->cwd, .user = c->user, .tty = c->tty, .rows = o->rows, .cols = o->cols,
					.stdin_fd = c->open_stdin ? 0 : -1 } };
	(void)snprintf(w->machine_id, sizeof(w->machine_id), "%.32s", record->id);
	fill_network(c, &w->network);
	for (uint32_t i = 0; i < c->nshares; i++)
		w->shares[i] = (struct roux_share){ c->share[i].host, c->share[i].guest, c->share[i].read_only };
	for (uint32_t i = 0; i < c->ndisks; i++)
		w->disks[i] = (struct roux_disk){ c->disk[i].path, c->disk[i].read_only, c->disk[i].overlay };
}

static void keep_counter(void *ctx, const char *name, uint64_t value)
{
	char **text = ctx, *more;

	if (asprintf(&more, "%s%s %llu\n", *text ? *text : "", name, (unsigned long long)value) < 0)
		return;
	free(*text);
	*text = more;
}

static int status_of(int error)
{
	if (error == -ENOENT)
		return STATUS_NOT_FOUND;
	return error == -EACCES || error == -ENOEXEC || error == -EISDIR ? STATUS_NOT_RUNNABLE : STATUS_FAILED;
}

/* From what has waited for a machine like this, whose end it is in any case. */
static bool take_ready(struct monitor *m, struct roux_machine *machine)
{
	bool taken = m->ready && machine_take_over(machine, m->ready);

	machine_discard(m->ready);
	m->ready = NULL;
	return taken;
}

static int restore_from(struct starter *s, struct roux_machine *machine)
{
	const struct monitor *m = s->monitor;
	char path[PATH_MAX];
	int r = machine_restore_from(machine, m->options.restore, s->notes.stream, s->own_code);

	machine_restore_addresses(machine, s->notes.address[0], s->notes.address[1]);
	for (uint32_t i = 0; i < m->record.config.ndisks && r == 0; i++)
		if (snapshot_disks_layer(m->owned.data, i, path))
			r = machine_restore_layer(machine, i, path);
	return r;
}

static int start_machine(struct starter *s, const struct wanted *w)
{
	struct monitor *m = s->monitor;
	struct roux_machine *machine;
	char tail[32] = "";
	int r = roux_machine_create(&w->machine, &machine, &s->error);

	if (r < 0)
		return r;
	atomic_store(&s->machine, machine);	/* before the flag is looked at: a cancel is seen here or ends a wait */
	if (s->cancel)
		return -EINTR;
	if (s->restored) {
		r = restore_from(s, machine);
		if (r < 0)
			return r;
	}
	if (m->first_life && m->options.console)
		roux_machine_on_console(machine, on_console, m);
	if (m->first_life && m->options.gdb)
		roux_machine_on_gdb(machine, on_gdb, m);
	r = take_ready(m, machine) ? 0 : roux_machine_start(machine, &s->error);
	if (r < 0 && *roux_machine_console_tail(machine) && !m->options.console)
		(void)snprintf(tail, sizeof(tail), " (--console shows more)");
	if (r < 0 && strlen(s->error.message) + sizeof(tail) < sizeof(s->error.message))
		(void)strcat(s->error.message, tail);
	return r;
}

/* The command runs already: only the guest's idea of time and chance is older than it should be. */
static int resume_command(struct starter *s)
{
	struct err err = { 0 };
	int r;

	prompt_set(true);
	r = machine_take_saved(s->machine, &s->session, &err);
	if (r == 0)
		r = machine_identify(s->machine, &err);
	if (r < 0)
		return give_error(&s->error, &err, r);
	s->started_ns = monotonic_ns();
	return 0;
}

static int start_command(struct starter *s, const struct wanted *w)
{
	struct roux_machine *machine = s->machine;
	struct err err = { 0 };
	int r;

	if (s->monitor->first_life && s->monitor->options.counters)
		(void)roux_machine_counters(machine, keep_counter, &s->before, NULL);
	prompt_set(true);
	r = process_start(machine, &w->exec, &s->session, &err);
	if (r < 0)
		return give_error(&s->error, &err, r);
	s->started_ns = monotonic_ns();
	return 0;
}

static int read_notes(struct starter *s)
{
	struct err err = { 0 };
	char *text = NULL;
	int r = checkpoint_notes(s->monitor->options.restore, &text, &s->own_code, &err);

	if (r == 0)
		r = session_notes_read(text, &s->notes, &err);
	free(text);
	return r < 0 ? give_error(&s->error, &err, r) : 0;
}

static void ended(void *ctx)
{
	struct starter *s = ctx;

	(void)pthread_join(s->thread, NULL);
	monitor_started(s->monitor);
}

static void *run(void *ctx)
{
	struct starter *s = ctx;
	struct wanted w;

	fill_wanted(&s->monitor->record, &s->monitor->options, s->monitor->first_life, &s->cancel, &w);
	s->status = STATUS_FAILED;
	s->restored = s->monitor->first_life && s->monitor->options.restore;
	s->result = s->restored ? read_notes(s) : 0;
	if (s->result == 0 && s->restored && w.network.kind == ROUX_NETWORK_NAMED && s->notes.address[0][0])
		w.network.address4 = s->notes.address[0];
	if (s->result == 0)
		s->result = start_machine(s, &w);
	if (s->result == 0) {
		s->result = s->restored ? resume_command(s) : start_command(s, &w);
		s->status = status_of(s->result);
	}
	while (loop_post(s->monitor->loop, ended, s) < 0)
		;	/* no memory for a few bytes: nobody else can tell the monitor */
	memory_give_back_stack();
	return NULL;
}

int starter_make_ready(const struct vm_record *record, const struct monitor_options *options, struct roux_machine **ret_machine,
		       struct roux_error *error)
{
	struct roux_machine *machine;
	struct err err = { 0 };
	struct wanted w;
	int r;

	fill_wanted(record, options, false, NULL, &w);
	w.machine.pull = ROUX_PULL_NEVER;
	r = roux_machine_create(&w.machine, &machine, error);
	if (r == 0 && machine_improve_template(machine)) {
		machine_discard(machine);
		r = roux_machine_create(&w.machine, &machine, error);
	}
	if (r < 0)
		return r;
	r = machine->template && template_is_there(machine->template) ? roux_machine_start(machine, error) : -ENOENT;
	if (r == 0) {
		r = machine_warm_up(machine, 1, monotonic_ns() + WARM_UP_NS, &err);
		r = r < 0 ? give_error(error, &err, r) : 0;
	}
	if (r < 0)
		machine_discard(machine);
	else
		*ret_machine = machine;
	return r;
}

int starter_begin(struct monitor *m)
{
	struct starter *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return -ENOMEM;
	s->monitor = m;
	s->session.fd = -1;
	m->starter = s;
	r = -pthread_create(&s->thread, NULL, run, s);
	if (r < 0) {
		free(s);
		m->starter = NULL;
	}
	return r;
}

void starter_cancel(struct monitor *m)
{
	struct roux_machine *machine;

	if (!m->starter)
		return;
	m->starter->cancel = 1;
	machine = atomic_load(&m->starter->machine);
	if (machine)
		roux_machine_interrupt(machine);
}
