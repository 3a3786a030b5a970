/* SPDX-License-Identifier: Apache-2.0 */
/* The start of a machine: from a template, or by booting, which leaves one. */
#include "api/handle.h"

#include "api/template.h"
#include "machine/code_file.h"
#include "machine/reads.h"
#include "machine/snapshot.h"
#include "os/file.h"
#include "os/log.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define TEMPLATE_TIMEOUT_MS 10000u	/* in all */
#define SAVE_TIMEOUT_MS 10000u
#define KEEP_TIMEOUT_MS 1000u
#define HALT_TIMEOUT_MS 1000u
#define LESSON 64u	/* translations that are worth a new file */
#define LESSON_OF_BOOT 4000u	/* of some 40,000 */
#define MUCH 16u	/* parts of a file, of which one more than there was is much */
#define WARM_UPS 3u	/* what one needs for the first time only is not all that later ones need */

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

int machine_ask_for_code(struct roux_machine *m, unsigned least, int fd, uint64_t *ret_bytes)
{
	struct err err = { 0 };
	int r = machine_ask(m, CONTROL_KEEP, (int32_t)least, fd, KEEP_TIMEOUT_MS, &err);

	*ret_bytes = r == 0 && m->answer.value > 0 ? (uint64_t)m->answer.value * 4096 : 0;
	return r;
}

/* What the boot translated, for the next one.  Without it that takes longer, and nothing else. */
static void leave_boot_code(struct roux_machine *m)
{
	struct template_part part = { .fd = -1 };

	if (!m->learns || !m->boot_code || template_is_there(m->boot_code) ||
	    file_path(part.path, NULL, m->boot_code, NULL) < 0)
		return;
	part.fd = template_begin(CODE_FILE_MAX);
	if (part.fd < 0)
		return;
	if (machine_ask_for_code(m, 0, part.fd, &part.bytes) == 0 && part.bytes)
		m->boot_writer = template_commit_later(&part, 1);
	else
		(void)close(part.fd);
}

static int save_template(struct roux_machine *m, struct err *err)
{
	struct template_part part[2] = { { .bytes = snapshot_size(m->spec.memory) }, { .fd = -1 } };
	int r = file_path(part[0].path, err, m->template, NULL);

	if (r < 0)
		return r;
	part[0].fd = template_begin(part[0].bytes);
	if (part[0].fd < 0)
		return part[0].fd;
	if (template_code_path(m->template, part[1].path))
		part[1].fd = template_begin(CODE_FILE_MAX);
	r = machine_ask(m, CONTROL_SAVE, 1, part[0].fd, SAVE_TIMEOUT_MS, err);
	if (r == 0 && part[1].fd >= 0)
		r = machine_ask_for_code(m, 0, part[1].fd, &part[1].bytes);
	if (part[1].fd >= 0 && (r < 0 || !part[1].bytes)) {
		(void)close(part[1].fd);
		part[1].fd = -1;
	}
	if (r == 0)
		m->writer = template_commit_later(part, part[1].fd >= 0 ? 2 : 1);
	else
		(void)close(part[0].fd);
	return r;
}

/* A session that has begun is saved too, for the first command. */
static int save_with_session(struct roux_machine *m, uint64_t deadline, struct err *err)
{
	struct session s;
	int r = machine_begin_session(m, &s, deadline, err);

	if (r == 0) {
		r = save_template(m, err);
		m->ready_fd = s.fd;
		m->greeted = true;
		memcpy(m->ready_stream, m->stream, sizeof(m->stream));
		s.fd = -1;
	}
	session_close(&s);
	return r;
}

/* Translations that are worth a new file, for what machines like this one begin with. */
static unsigned lesson(const struct roux_machine *m)
{
	return m->spec.restore || m->left_template ? LESSON : m->spec.code ? LESSON_OF_BOOT : 1;
}

bool machine_learn_begin(struct roux_machine *m)
{
	bool of_template = m->template && (m->spec.restore || m->left_template);
	bool code = m->learns && (of_template || (!m->spec.restore && m->boot_code));
	struct err err = { 0 };

	m->lessons = 0;
	if ((!code && !of_template) || m->state != ROUX_RUNNING || m->sock < 0)
		return false;
	if (machine_ask(m, CONTROL_HALT, (int32_t)lesson(m), -1, HALT_TIMEOUT_MS, &err) == 0)
		m->lessons = m->answer.value & ((code ? CONTROL_LESSON_CODE : 0) | (of_template ? CONTROL_LESSON_READS : 0));
	return m->lessons != 0;
}

/* Its VM's process has let go of the template's memory, which was not on the disk yet. */
static int hold_template(struct roux_machine *m)
{
	struct err err = { 0 };
	int fd, r;

	template_writer_finish(m->writer);
	m->writer = NULL;
	fd = open(m->template, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = machine_ask(m, CONTROL_HOLD, 0, fd, KEEP_TIMEOUT_MS, &err);
	(void)close(fd);
	return r;
}

/* True when that is much more than there was. */
static bool keep_code(struct roux_machine *m)
{
	bool of_template = m->spec.restore || m->left_template;
	struct stat st = { 0 };
	char path[PATH_MAX];
	uint64_t bytes;
	int fd;

	if (of_template ? !template_code_path(m->template, path) : file_path(path, NULL, m->boot_code, NULL) < 0)
		return false;
	if (m->left_template && hold_template(m) < 0)
		return false;
	fd = template_begin(CODE_FILE_MAX);
	if (fd < 0)
		return false;
	if (machine_ask_for_code(m, lesson(m), fd, &bytes) < 0)
		bytes = 0;
	(void)stat(path, &st);
	if (bytes)
		template_commit(fd, bytes, path);
	(void)close(fd);
	return bytes > (uint64_t)st.st_size + (uint64_t)st.st_size / MUCH;
}

bool machine_learn_end(struct roux_machine *m)
{
	bool much = m->lessons & CONTROL_LESSON_CODE && keep_code(m);

	if (m->lessons & CONTROL_LESSON_READS)
		machine_keep_reads(m);
	return much || m->lessons & CONTROL_LESSON_READS;
}

void machine_discard(struct roux_machine *m)
{
	if (m)
		m->learns = false;
	roux_machine_destroy(m);
}

/*
 * Saves the guest as a template for others.  That fails quietly, as this machine has what it
 * needs: 0, or -EINTR when it was interrupted.
 */
static int leave_template(struct roux_machine *m)
{
	uint64_t deadline = monotonic_ns() + TEMPLATE_TIMEOUT_MS * 1000000ull;
	struct session s;
	struct err err = { 0 };
	int r;

	/* The guest says on this connection whether it is well.  It ends first: a template has none that only one side knows. */
	r = machine_check_ready(m, deadline, &s, &err);
	if (r < 0) {
		(void)err_set(&m->boot_failed, err.code, "%s", err.msg);
		session_close(&s);
		return r == -EINTR ? r : 0;
	}
	r = machine_end_session(m, &s, deadline, 0);
	leave_boot_code(m);
	m->learns = false;
	if (r == 0)
		r = control_send(m->sock, CONTROL_FORGET, 0, 0, NULL, 0, -1);
	if (r == 0)
		r = machine_warm_up(m, WARM_UPS, deadline, &err);
	if (r == 0)
		r = machine_rehearse_stop(m, deadline, &err);
	if (r >= 0)
		r = save_with_session(m, deadline, &err);
	m->learns = m->left_template = r == 0 && m->writer;	/* from here on its code is the template's */
	return r == -EINTR ? r : 0;
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
		leave_boot_code(m);
	if (m->template && !clone && leave_template(m) < 0)
		return give_error(error, &err, err_set(&err, -EINTR, "interrupted"));
	return 0;
}

/* The list beside the template, which is nobody else's from then on; -ENOENT: there is none. */
static int take_reads(const struct roux_machine *m, char **ret_list, size_t *ret_len)
{
	char path[PATH_MAX];
	int r;

	if (!m->template || !template_reads_path(m->template, path) || !template_is_there(path))
		return -ENOENT;
	r = file_read_all(path, READS_FILE_MAX, ret_list, ret_len, NULL);
	if (r == 0 && unlink(path) < 0) {
		free(*ret_list);
		r = -errno;
	}
	return r;
}

bool machine_improve_template(struct roux_machine *m)
{
	uint64_t deadline = monotonic_ns() + TEMPLATE_TIMEOUT_MS * 1000000ull;
	struct err err = { 0 };
	char *list;
	size_t len;
	int r;

	if (take_reads(m, &list, &len) < 0)
		return false;
	if (!machine_reads_are_worth_it(m, list, len)) {
		free(list);
		return false;
	}
	r = start_clone(m, &err);
	if (r == 1) {
		m->phase[ROUX_PHASE_READY] = monotonic_ns();
		m->state = ROUX_RUNNING;
		r = machine_read_ahead(m, list, len, deadline, &err);
	}
	if (r == 1)
		r = save_with_session(m, deadline, &err);
	if (r < 0)
		log_msg(LOG_LEVEL_INFO, "template", "%s", err.msg);
	free(list);
	return true;
}
