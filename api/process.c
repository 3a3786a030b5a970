/* SPDX-License-Identifier: Apache-2.0 */
/* A process in a guest: starts it and waits for it while its streams move. */
#include "api/handle.h"
#include "api/process.h"
#include "api/pump.h"

#include "abi/agent.h"
#include "oci/image.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct roux_process {
	struct roux_machine *machine;	/* borrowed */
	struct pump pump;
};

/* ----------------------------------------------------------------- starting */

static unsigned count(char *const *list)
{
	unsigned n = 0;

	while (list && list[n])
		n++;
	return n;
}

static void put_args(struct frame_writer *w, char *const *list)
{
	for (unsigned i = 0; i < count(list); i++)
		field_put_str(w, AGENT_TAG_ARG, list[i]);
}

/* Entrypoint, then the caller's words or else the image's (OCI run-time rules). */
static int put_command(struct frame_writer *w, const struct oci_config *config, const struct roux_exec_options *o,
		       struct err *err)
{
	char *const *argv = (char *const *)(uintptr_t)o->argv;
	bool image_words = count(argv) == 0;
	size_t before = w->len;

	if (config && (image_words || o->use_entrypoint))
		put_args(w, config->entrypoint);
	if (!image_words)
		put_args(w, argv);
	else if (config)
		put_args(w, config->cmd);
	if (w->len == before)
		return err_set(err, -EINVAL, "no command given, and the image names none");
	return 0;
}

static const char *first_of(const char *a, const char *b)
{
	return a && *a ? a : b && *b ? b : NULL;
}

int process_exec_frame(const struct oci_config *config, const struct roux_exec_options *o, uint8_t **ret_frame,
		       size_t *ret_len, struct err *err)
{
	const char *cwd = first_of(o->cwd, config ? config->working_dir : NULL);
	const char *user = first_of(o->user, config ? config->user : NULL);
	uint8_t *buf = malloc(AGENT_FRAME_MAX + FRAME_HEADER);
	struct frame_writer w;
	int r;

	if (!buf)
		return err_set(err, -ENOMEM, "out of memory");
	frame_begin(&w, buf, AGENT_FRAME_MAX + FRAME_HEADER, AGENT_EXEC);
	r = put_command(&w, config, o, err);
	for (unsigned i = 0; config && i < count(config->env); i++)
		field_put_str(&w, AGENT_TAG_ENV, config->env[i]);
	for (unsigned i = 0; o->env && o->env[i]; i++)
		field_put_str(&w, AGENT_TAG_ENV, o->env[i]);
	if (cwd)
		field_put_str(&w, AGENT_TAG_CWD, cwd);
	if (user)
		field_put_str(&w, AGENT_TAG_USER, user);
	if (o->tty) {
		field_put_u32(&w, AGENT_TAG_TTY, 1);
		field_put_u32(&w, AGENT_TAG_ROWS, o->rows ? o->rows : 24);
		field_put_u32(&w, AGENT_TAG_COLS, o->cols ? o->cols : 80);
	}
	field_put_u32(&w, AGENT_TAG_STDIN, o->stdin_fd >= 0);
	field_put_u32(&w, AGENT_TAG_PRIMARY, o->primary);
	if (o->detached)
		field_put_u32(&w, AGENT_TAG_DETACHED, 1);
	*ret_len = frame_end(&w);
	if (r == 0 && *ret_len == 0)
		r = err_set(err, -E2BIG, "command and environment are longer than 1 MiB");
	if (r < 0)
		free(buf);
	else
		*ret_frame = buf;
	return r;
}

static int send_exec(const struct roux_machine *m, struct session *s, const struct roux_exec_options *o,
		     struct err *err)
{
	uint8_t *frame;
	size_t len;
	int r = process_exec_frame(m->config, o, &frame, &len, err);

	if (r < 0)
		return r;
	r = session_send_frame(s, frame, len);
	free(frame);
	return r < 0 ? err_set(err, r, "the guest hung up") : 0;
}

static int wait_started(struct roux_machine *m, struct session *s, struct err *err)
{
	struct frame f;

	for (;;) {
		int r = session_wait(s, UINT64_MAX, m->wake_fd, &f);

		if (r == -EINTR)
			return r;
		if (r < 0) {
			(void)machine_events(m, 100);
			return err_set(err, r, "%s", m->reason[0] ? m->reason : "the guest hung up");
		}
		if (f.type == AGENT_STARTED)
			return 0;
		if (f.type == AGENT_ERROR)
			return session_error(&f, err);
	}
}

int process_start(struct roux_machine *m, const struct roux_exec_options *o, struct session *ret_session,
		  struct err *err)
{
	int r = machine_session(m, ret_session, err);

	if (r == 0)
		r = send_exec(m, ret_session, o, err);
	if (r == 0)
		r = machine_settle(m, ret_session, err);
	if (r == 0)
		r = wait_started(m, ret_session, err);
	if (r < 0)
		session_close(ret_session);
	return r;
}

int roux_exec(struct roux_machine *machine, const struct roux_exec_options *options,
	      struct roux_process **ret_process, struct roux_error *error)
{
	struct roux_exec_options o = { .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1 };
	struct roux_process *p = calloc(1, sizeof(*p));
	struct session session = { .fd = -1 };
	struct err err = { 0 };
	int r;

	*ret_process = NULL;
	if (!p)
		return give_error(error, &err, -ENOMEM);
	memcpy(&o, options, options->size < sizeof(o) ? options->size : sizeof(o));
	r = process_start(machine, &o, &session, &err);
	if (r < 0) {
		free(p);
		return give_error(error, &err, r);
	}
	p->machine = machine;
	pump_init(&p->pump, &session);
	p->pump.stdin_fd = o.stdin_fd;
	p->pump.stdout_fd = o.stdout_fd;
	p->pump.stderr_fd = o.stderr_fd;
	*ret_process = p;
	return 0;
}

/* ------------------------------------------------------------------ running */

/* Moves data once; handles what the VM's process says meanwhile.  -EINTR when interrupted. */
static int step(struct roux_process *p, int timeout_ms)
{
	struct pollfd extra[2] = { { .fd = p->machine->sock, .events = POLLIN },
				   { .fd = p->machine->wake_fd, .events = POLLIN } };
	uint64_t times;
	int r = pump_step(&p->pump, extra, 2, timeout_ms);

	if (extra[0].revents)
		(void)machine_events(p->machine, 0);
	if (extra[1].revents && read(p->machine->wake_fd, &times, sizeof(times)) > 0)
		return -EINTR;
	return r;
}

int roux_process_wait(struct roux_process *p, int timeout_ms, struct roux_exit *ret_exit, struct roux_error *error)
{
	uint64_t deadline = timeout_ms < 0 ? UINT64_MAX : monotonic_ns() + (uint64_t)timeout_ms * 1000000u;
	struct err err = { 0 };

	while (!pump_done(&p->pump)) {
		uint64_t now = monotonic_ns();
		int r, left = -1;

		if (timeout_ms >= 0 && now >= deadline)
			return give_error(error, &err, -ETIMEDOUT);
		if (timeout_ms >= 0)
			left = (int)((deadline - now) / 1000000 + 1);
		r = step(p, left);
		if (r == -EINTR)
			return give_error(error, &err, -EINTR);
		if (r < 0 && !p->pump.exited) {
			(void)machine_events(p->machine, 200);
			(void)err_set(&err, -EIO, "%s", p->machine->reason[0] ? p->machine->reason :
				      r == -EPROTO ? "the guest's agent does not keep to its protocol" :
				      "the machine ended before the process did");
			return give_error(error, &err, -EIO);
		}
	}
	*ret_exit = (struct roux_exit){ .status = p->pump.status, .signal = p->pump.signal };
	return 0;
}

int roux_process_signal(struct roux_process *p, int signo)
{
	return pump_signal(&p->pump, signo);
}

int roux_process_resize(struct roux_process *p, uint16_t rows, uint16_t cols)
{
	return pump_resize(&p->pump, rows, cols);
}

void roux_process_destroy(struct roux_process *p)
{
	if (!p)
		return;
	pump_finish(&p->pump);
	free(p);
}
