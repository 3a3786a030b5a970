/* SPDX-License-Identifier: Apache-2.0 */
/* A machine as its owner sees it: the VM's process and the control socket to it. */
#include "api/handle.h"

#include "api/network.h"
#include "api/template.h"
#include "machine/counts.h"
#include "oci/image.h"
#include "store/store.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define START_TIMEOUT_MS 60000u

int give_error(struct roux_error *error, const struct err *err, int code)
{
	if (error) {
		error->code = code;
		(void)snprintf(error->message, sizeof(error->message), "%s", err->msg[0] ? err->msg : strerror(-code));
	}
	return code;
}

const char *roux_version(void)
{
	return ROUX_VERSION;
}

/* Options of an older program are shorter: what is missing is zero. */
static void take_options(struct roux_options *o, const struct roux_options *given)
{
	*o = (struct roux_options){ .size = 0 };
	memcpy(o, given, given->size < sizeof(*o) ? given->size : sizeof(*o));
}

static const char *vmm_path(const struct roux_options *o)
{
	const char *env = getenv("ROUX_VMM");

	return o->vmm ? o->vmm : env && *env ? env : ROUX_VMM_PATH;
}

int roux_machine_create(const struct roux_options *options, struct roux_machine **ret_machine,
			struct roux_error *error)
{
	struct roux_machine *m = calloc(1, sizeof(*m));
	struct roux_options o;
	struct err err = { 0 };
	int r;

	if (!m)
		return give_error(error, &err, -ENOMEM);
	take_options(&o, options);
	m->sock = m->ready_fd = -1;
	for (unsigned i = 0; i < SPEC_NETS_MAX; i++)
		m->seat_fd[i] = -1;
	m->answer.fd = -1;
	m->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	m->phase[ROUX_PHASE_BEGIN] = monotonic_ns();
	m->start_timeout_ms = o.start_timeout_ms || o.gdb ? o.start_timeout_ms : START_TIMEOUT_MS;
	m->msg = malloc(sizeof(*m->msg));
	m->vmm = strdup(vmm_path(&o));
	if (m->wake_fd < 0)
		r = err_set(&err, -errno, "cannot make an eventfd: %s", strerror(errno));
	else
		r = m->msg && m->vmm ? prepare(m, &o, &err) : -ENOMEM;
	if (r < 0) {
		roux_machine_destroy(m);
		return give_error(error, &err, r);
	}
	*ret_machine = m;
	return 0;
}

/* ----------------------------------------------------------------- counters */

static struct roux_network_direction direction(const struct link_direction *d)
{
	return (struct roux_network_direction){ .frames = __atomic_load_n(&d->frames, __ATOMIC_RELAXED),
						.bytes = __atomic_load_n(&d->bytes, __ATOMIC_RELAXED),
						.dropped = __atomic_load_n(&d->dropped, __ATOMIC_RELAXED) };
}

bool roux_machine_network_counts(const struct roux_machine *m, unsigned index, struct roux_network_counts *ret_counts)
{
	if (!m->counts || index >= m->spec.nnets)
		return false;
	ret_counts->sent = direction(&m->counts->net[index].sent);
	ret_counts->received = direction(&m->counts->net[index].received);
	return true;
}

int roux_machine_counters(struct roux_machine *m, roux_counter_fn fn, void *ctx, struct roux_error *error)
{
	struct err err = { 0 };
	char *rest = NULL;
	int r;

	free(m->counters);
	m->counters = NULL;
	r = machine_ask(m, CONTROL_COUNT, 0, -1, CONNECT_TIMEOUT_MS, &err);
	if (r < 0)
		return give_error(error, &err, r);
	for (char *line = strtok_r(m->counters, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
		char *space = strchr(line, ' ');

		if (!space)
			continue;
		*space = '\0';
		fn(ctx, line, strtoull(space + 1, NULL, 10));
	}
	return 0;
}

/* ------------------------------------------------------------------- memory */

int roux_machine_set_memory(struct roux_machine *m, uint64_t bytes, struct roux_error *error)
{
	struct err err = { 0 };

	if (bytes >> 20 > INT32_MAX)
		(void)err_set(&err, -EINVAL, "no VM has so much memory");
	else
		(void)machine_ask(m, CONTROL_RESIZE, (int32_t)(bytes >> 20), -1, CONNECT_TIMEOUT_MS, &err);
	return give_error(error, &err, err.code);
}

/* ------------------------------------------------------------------- others */

void roux_machine_interrupt(struct roux_machine *m)
{
	int saved = errno;	/* a signal handler leaves no trace */
	uint64_t once = 1;

	if (write(m->wake_fd, &once, sizeof(once)) < 0) {
		/* only a counter that is full: interrupted often enough */
	}
	errno = saved;
}

/* After the VM, which used what the lease keeps. */
void machine_leave_image(struct roux_machine *m)
{
	oci_image_close(m->image);
	store_lease_end(m->lease);
	store_close(m->store);
	m->image = NULL;
	m->config = NULL;
	m->lease = NULL;
	m->store = NULL;
}

void roux_machine_destroy(struct roux_machine *m)
{
	if (m && machine_learn_begin(m))
		(void)machine_learn_end(m);
	machine_discard(m);
}

void machine_discard(struct roux_machine *m)
{
	if (!m)
		return;
	machine_forget_connects(m);
	machine_end_process(m);
	if (m->ready_fd >= 0)
		(void)close(m->ready_fd);
	if (m->answer.fd >= 0)
		(void)close(m->answer.fd);
	if (m->wake_fd >= 0)
		(void)close(m->wake_fd);
	machine_leave_image(m);
	leave_networks(m);
	template_writer_finish(m->writer);
	template_writer_finish(m->boot_writer);
	free(m->template);
	free(m->boot_code);
	free(m->hostname);
	free(m->guest_name);
	machine_spec_finish(&m->spec);
	counts_unmap(m->counts);
	free(m->counters);
	free(m->msg);
	free(m->vmm);
	free(m);
}

void roux_machine_on_console(struct roux_machine *m, roux_console_fn fn, void *ctx)
{
	m->console = fn;
	m->console_ctx = ctx;
}

void roux_machine_on_gdb(struct roux_machine *m, roux_gdb_fn fn, void *ctx)
{
	m->gdb = fn;
	m->gdb_ctx = ctx;
}

const char *roux_machine_console_tail(const struct roux_machine *m)
{
	return m->tail;
}

int roux_machine_fd(const struct roux_machine *m)
{
	return m->sock;
}

const char *roux_machine_reason(const struct roux_machine *m)
{
	return m->reason;
}

const char *roux_machine_engine(const struct roux_machine *m)
{
	return m->engine;
}

int roux_machine_pid(const struct roux_machine *m)
{
	return (int)m->pid;
}

uint64_t roux_machine_phase_ns(const struct roux_machine *m, enum roux_phase phase)
{
	return phase < ROUX_PHASES ? m->phase[phase] : 0;
}

int roux_machine_stop_signal(const struct roux_machine *m)
{
	int signo = m->config ? oci_stop_signal(m->config) : SIGTERM;

	return signo > 0 ? signo : SIGTERM;
}
