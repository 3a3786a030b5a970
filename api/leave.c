/* SPDX-License-Identifier: Apache-2.0 */
/* Templates as machines leave them: the one that has booted, and one that has read what others did. */
#include "api/handle.h"

#include "api/template.h"
#include "machine/code_file.h"
#include "machine/reads.h"
#include "machine/snapshot.h"
#include "os/file.h"
#include "os/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TEMPLATE_TIMEOUT_MS 10000u	/* in all */
#define SAVE_TIMEOUT_MS 10000u
#define WARM_UPS 3u	/* what one needs for the first time only is not all that later ones need */

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

int machine_leave_template(struct roux_machine *m)
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
	machine_leave_boot_code(m);
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

/* The list beside the template, which is nobody else's from then on; -ENOENT: one of the two is not there. */
static int take_reads(const struct roux_machine *m, char **ret_list, size_t *ret_len)
{
	char path[PATH_MAX];
	int r;

	if (!m->template || !template_reads_path(m->template, path) || !template_is_there(path) || !template_is_there(m->template))
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

	if (take_reads(m, &list, &len) < 0)
		return false;
	/* One that had to boot has left a template already. */
	if (roux_machine_start(m, NULL) == 0 && m->spec.restore && machine_read_ahead(m, list, len, deadline, &err) == 1)
		(void)save_with_session(m, deadline, &err);
	if (err.code)
		log_msg(LOG_LEVEL_INFO, "template", "%s", err.msg);
	free(list);
	return true;
}
