/* SPDX-License-Identifier: Apache-2.0 */
/* Machines saved while they run, and made of what was saved. */
#include "api/handle.h"

#include "api/template.h"
#include "base/sha256.h"
#include "machine/code_file.h"
#include "machine/snapshot.h"
#include "os/file.h"
#include "os/folders.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#define CHECKPOINT_TIMEOUT_MS 600000u	/* the disk may be slow */
#define PIPE_BYTES (1 << 20)
#define KEY_FILE "/code-key"	/* in the data folder */

/* ------------------------------------------------------------------ restored */

int machine_restore_from(struct roux_machine *m, const char *path, const char *stream, bool own_code)
{
	free(m->template);
	m->template = NULL;
	m->spec.restore = strdup(path);
	m->spec.stream = strdup(stream);
	m->spec.no_code = !own_code;
	return m->spec.restore && m->spec.stream ? 0 : -ENOMEM;
}

int machine_take_saved(struct roux_machine *m, struct session *ret_session, struct err *err)
{
	*ret_session = (struct session){ .fd = m->ready_fd };
	memcpy(ret_session->stream, m->ready_stream, sizeof(m->ready_stream));
	m->ready_fd = -1;
	return ret_session->fd >= 0 ? 0 : err_set(err, -ENOENT, "the snapshot does not have the session of the VM's command");
}

int machine_identify(struct roux_machine *m, struct err *err)
{
	struct session s;
	int r = machine_session(m, &s, err);

	if (r < 0)
		return r;
	r = machine_settle(m, &s, err);
	session_close(&s);
	return r;
}

/* ---------------------------------------------------------------------- code */

/* By which we know translated code that we made ourselves: drawn once, and nobody else's to read. */
static int own_key(uint8_t ret_key[SHA256_SIZE])
{
	char path[PATH_MAX], *text = NULL;
	size_t len;
	int r = folder_data(path, sizeof(path) - sizeof(KEY_FILE), NULL);

	if (r < 0)
		return r;
	(void)strcat(path, KEY_FILE);
	r = file_read_all(path, SHA256_SIZE, &text, &len, NULL);
	if (r == -ENOENT) {
		if (getrandom(ret_key, SHA256_SIZE, 0) != SHA256_SIZE)
			return -EIO;
		return file_write_atomic(path, ret_key, SHA256_SIZE, 0600, NULL);
	}
	if (r == 0 && len != SHA256_SIZE)
		r = -EBADMSG;
	else if (r == 0)
		memcpy(ret_key, text, SHA256_SIZE);
	free(text);
	return r;
}

/* The seal of @bytes from @offset of @fd. */
static int seal(int fd, uint64_t offset, uint64_t bytes, uint8_t ret_seal[SHA256_SIZE])
{
	uint8_t key[SHA256_SIZE];
	void *at;
	int r = own_key(key);

	if (r < 0)
		return r;
	at = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, (off_t)offset);
	if (at == MAP_FAILED)
		return -errno;
	sha256_keyed(key, at, bytes, ret_seal);
	(void)munmap(at, bytes);
	return 0;
}

static bool is_own_code(const struct snapshot *s)
{
	uint8_t found[SHA256_SIZE];

	return s->code && seal(s->fd, SNAPSHOT_MEMORY + s->memory, s->code, found) == 0 &&
	       memcmp(found, s->code_seal, sizeof(found)) == 0;
}

int checkpoint_notes(const char *path, char **ret_notes, bool *ret_own_code, struct err *err)
{
	struct snapshot s;
	int r = snapshot_open(path, &s, err);

	if (r == 0 && ret_own_code)
		r = snapshot_check_memory(&s, path, err);
	if (r == 0 && ret_own_code)
		*ret_own_code = is_own_code(&s);
	*ret_notes = r == 0 ? s.notes : NULL;
	if (r == 0)
		s.notes = NULL;
	snapshot_close(&s);
	return r;
}

/* --------------------------------------------------------------------- saved */

struct checkpoint {
	struct snapshot_file file;
	struct snapshot_id id;
	struct err err;
	pthread_t thread;
	int from, fd;
	int code_fd;	/* -1: none */
	uint64_t code;	/* bytes in it */
};

static void *build(void *arg)
{
	struct checkpoint *c = arg;

	(void)snapshot_build(c->from, c->fd, &c->id, &c->file, &c->err);
	/* The VM's process may still be sending: it must not wait for ever. */
	(void)close(c->from);
	return NULL;
}

/* A restored guest would have to be translated anew: it works without. */
static void take_code(struct roux_machine *m, struct checkpoint *c)
{
	c->code_fd = template_begin(CODE_FILE_MAX);
	if (c->code_fd >= 0)
		(void)machine_ask_for_code(m, 0, c->code_fd, &c->code);
}

int checkpoint_begin(struct roux_machine *m, int fd, struct checkpoint **ret_checkpoint, struct err *err)
{
	struct checkpoint *c = calloc(1, sizeof(*c));
	int pipes[2], r;

	if (!c)
		return err_set(err, -ENOMEM, "out of memory");
	if (pipe2(pipes, O_CLOEXEC) < 0) {
		r = err_set(err, -errno, "cannot make a pipe: %s", strerror(errno));
		free(c);
		return r;
	}
	(void)fcntl(pipes[1], F_SETPIPE_SZ, PIPE_BYTES);
	*c = (struct checkpoint){ .from = pipes[0], .fd = fd, .code_fd = -1 };
	snapshot_draw(&c->id);
	r = -pthread_create(&c->thread, NULL, build, c);
	if (r < 0) {
		(void)close(pipes[0]);
		(void)close(pipes[1]);
		free(c);
		return err_set(err, r, "cannot make a thread: %s", strerror(-r));
	}
	r = machine_ask_with(m, CONTROL_CHECKPOINT, 0, &c->id, sizeof(c->id), pipes[1], CHECKPOINT_TIMEOUT_MS, err);
	(void)close(pipes[1]);
	if (r == 0) {
		take_code(m, c);
		*ret_checkpoint = c;
		return 0;
	}
	(void)pthread_join(c->thread, NULL);
	if (c->err.code)	/* as when the disk is full: it says more than that nobody read */
		*err = c->err;
	snapshot_file_free(&c->file);
	free(c);
	return err->code;
}

void checkpoint_go_on(struct roux_machine *m)
{
	(void)control_send(m->sock, CONTROL_GO_ON, 0, 0, NULL, 0, -1);
}

int checkpoint_end(struct checkpoint *c, const char *notes, uint64_t *ret_bytes, struct err *err)
{
	int r;

	(void)pthread_join(c->thread, NULL);
	*err = c->err;
	r = c->err.code;
	if (r == 0 && c->code && seal(c->code_fd, 0, c->code, c->file.code_seal) == 0)
		r = snapshot_add_code(&c->file, c->code_fd, c->code, err);
	if (r == 0)
		r = snapshot_finish(&c->file, notes, err);
	if (c->code_fd >= 0)
		(void)close(c->code_fd);
	*ret_bytes = c->file.written;
	snapshot_file_free(&c->file);
	free(c);
	return r;
}
