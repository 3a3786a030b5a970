/* SPDX-License-Identifier: Apache-2.0 */
/* What a machine leaves for others like it when it ends: what it translated, and what its guest read. */
#include "api/handle.h"

#include "api/template.h"
#include "machine/code_file.h"
#include "machine/reads.h"
#include "os/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define ANSWER_TIMEOUT_MS 1000u
#define LESSON 64u	/* translations that are worth a new file */
#define LESSON_OF_BOOT 4000u	/* of some 40,000 */
#define MUCH 16u	/* parts of a file, of which one more than there was is much */

int machine_ask_for_code(struct roux_machine *m, unsigned least, int fd, uint64_t *ret_bytes)
{
	struct err err = { 0 };
	int r = machine_ask(m, CONTROL_KEEP, (int32_t)least, fd, ANSWER_TIMEOUT_MS, &err);

	*ret_bytes = r == 0 && m->answer.value > 0 ? (uint64_t)m->answer.value * 4096 : 0;
	return r;
}

void machine_leave_boot_code(struct roux_machine *m)
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

/* Whether others are made of the template that it came from, or left; else they boot as it did. */
static bool is_of_template(const struct roux_machine *m)
{
	return m->template && (m->spec.restore || m->left_template);
}

/* Translations that are worth a new file, for what machines like this one begin with. */
static unsigned lesson(const struct roux_machine *m)
{
	return is_of_template(m) ? LESSON : m->spec.code ? LESSON_OF_BOOT : 1;
}

bool machine_learn_begin(struct roux_machine *m)
{
	bool of_template = is_of_template(m);
	bool code = m->learns && (of_template || (!m->spec.restore && m->boot_code));
	struct err err = { 0 };

	m->lessons = 0;
	if (m->spec.restore && !machine_template_is_same(m))
		return false;	/* another has taken its place, and has learnt more */
	if ((!code && !of_template) || m->state != ROUX_RUNNING || m->sock < 0)
		return false;
	if (machine_ask(m, CONTROL_HALT, (int32_t)lesson(m), -1, ANSWER_TIMEOUT_MS, &err) == 0)
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
	r = machine_ask(m, CONTROL_HOLD, 0, fd, ANSWER_TIMEOUT_MS, &err);
	(void)close(fd);
	return r;
}

/* True when that is much more than there was. */
static bool keep_code(struct roux_machine *m)
{
	struct stat st = { 0 };
	char path[PATH_MAX];
	uint64_t bytes;
	int fd;

	if (is_of_template(m) ? !template_code_path(m->template, path) : file_path(path, NULL, m->boot_code, NULL) < 0)
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

/* True when there is a list that is worth a new template: much may have been read of other shares and disks than the root. */
static bool keep_reads(struct roux_machine *m)
{
	char path[PATH_MAX], *list = malloc(READS_FILE_MAX);
	struct err err = { 0 };
	ssize_t len = 0;
	int fd = list && template_reads_path(m->template, path) ? template_begin(READS_FILE_MAX) : -1;

	if (fd >= 0 && machine_ask(m, CONTROL_READS, 0, fd, ANSWER_TIMEOUT_MS, &err) == 0 && m->answer.value > 0 &&
	    m->answer.value <= (int32_t)READS_FILE_MAX)
		len = file_read_at(fd, list, (size_t)m->answer.value, 0);
	if (len > 0 && !machine_reads_are_worth_it(m, list, (size_t)len))
		len = 0;
	if (len > 0)
		template_commit(fd, (uint64_t)len, path);
	if (fd >= 0)
		(void)close(fd);
	free(list);
	return len > 0;
}

bool machine_learn_end(struct roux_machine *m)
{
	bool much = m->lessons & CONTROL_LESSON_CODE && keep_code(m);

	if (m->lessons & CONTROL_LESSON_READS)
		much |= keep_reads(m);
	return much;
}
