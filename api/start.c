/* SPDX-License-Identifier: Apache-2.0 */
/* The start of a machine: from a template, or by booting, which leaves one. */
#include "api/handle.h"

#include "api/template.h"
#include "os/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Until the agent has called, or in a machine from a template until vCPUs run: its agent waits for calls. */
static bool is_up(const struct roux_machine *m)
{
	return m->spec.restore ? m->phase[ROUX_PHASE_LOADED] : m->ready_fd >= 0;
}

static int wait_until_up(struct roux_machine *m, struct err *err)
{
	uint64_t deadline = monotonic_ns() + m->start_timeout_ms * 1000000ull;
	int r = 0;

	while (r == 0 && !is_up(m) && !machine_ended(m)) {
		r = m->start_timeout_ms ? machine_events_until(m, deadline) : machine_events(m, -1);
		if (r == -ETIMEDOUT)
			r = err_set(err, r, "the guest did not become ready within %u s", m->start_timeout_ms / 1000);
		if (r == -EINTR)
			r = err_set(err, r, "interrupted");
	}
	if (r == 0 && machine_ended(m))
		r = err_set(err, -EIO, "%s", m->reason[0] ? m->reason : "the guest powered off before it was ready");
	return r;
}

static int start(struct roux_machine *m, struct err *err)
{
	int r = machine_launch(m, err);

	return r == 0 ? wait_until_up(m, err) : r;
}

/* With what an earlier boot of that kernel translated, if anything. */
static int boot(struct roux_machine *m, struct err *err)
{
	if (m->boot_code && !m->spec.restore && template_is_there(m->boot_code))
		m->spec.code = strdup(m->boot_code);
	return start(m, err);
}

bool machine_template_is_same(const struct roux_machine *m)
{
	struct stat st;

	return m->template && stat(m->template, &st) == 0 && st.st_dev == m->template_dev && st.st_ino == m->template_ino;
}

/*
 * From the template, if it is there.  A machine that cannot be made of it, as after a change of the
 * host, boots.  1: it runs.
 */
static int start_clone(struct roux_machine *m, struct err *err)
{
	char code[PATH_MAX];
	struct stat st;
	int r;

	if (!m->template || !template_is_there(m->template))
		return 0;
	if (stat(m->template, &st) == 0) {
		m->template_dev = st.st_dev;
		m->template_ino = st.st_ino;
	}
	m->spec.restore = strdup(m->template);
	if (template_code_path(m->template, code) && template_is_there(code))
		m->spec.code = strdup(code);
	r = m->spec.restore ? start(m, err) : -ENOMEM;
	if (r == 0)
		return 1;
	if (m->phase[ROUX_PHASE_LOADED] || r == -EINTR || r == -ENOMEM)
		return r;
	log_msg(LOG_LEVEL_WARN, "template", "%s", err->msg);
	(void)unlink(m->template);
	if (template_code_path(m->template, code))
		(void)unlink(code);
	machine_end_process(m);
	if (m->ready_fd >= 0)
		(void)close(m->ready_fd);
	m->ready_fd = -1;
	m->greeted = false;
	free(m->spec.restore);
	free(m->spec.code);
	m->spec.restore = m->spec.code = NULL;
	m->state = ROUX_CREATED;
	m->reason[0] = '\0';
	*err = (struct err){ 0 };
	return 0;
}

int roux_machine_start(struct roux_machine *m, struct roux_error *error)
{
	struct err err = { 0 };
	int r, clone;

	if (m->pid || machine_ended(m))
		return give_error(error, &err, -EALREADY);
	clone = start_clone(m, &err);
	r = clone == 0 ? boot(m, &err) : clone;
	if (r < 0)
		return give_error(error, &err, r);
	m->phase[ROUX_PHASE_READY] = monotonic_ns();
	m->state = ROUX_RUNNING;
	if (!m->template && !clone)
		machine_leave_boot_code(m);
	if (m->template && !clone && machine_leave_template(m) < 0)
		return give_error(error, &err, err_set(&err, -EINTR, "interrupted"));
	return 0;
}
