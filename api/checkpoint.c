/* SPDX-License-Identifier: Apache-2.0 */
/* Machines saved while they run, and made of what was saved. */
#include "api/handle.h"

#include "abi/agent.h"
#include "api/session.h"
#include "api/template.h"
#include "base/sha256.h"
#include "machine/code_file.h"
#include "machine/snapshot_make.h"
#include "os/checked.h"
#include "os/file.h"
#include "os/folders.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define CHECKPOINT_TIMEOUT_MS 600000u	/* the disk may be slow */
#define PIPE_BYTES (1 << 20)
#define TICK_MAX_MS 20u	/* within which the clock of file systems ticks, whatever the kernel's rate */
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

void machine_addresses(const struct roux_machine *m, char ret_addr[2][50])
{
	const struct spec_net *n = &m->spec.net[0];

	for (unsigned i = 0; i < 2; i++)
		(void)snprintf(ret_addr[i], 50, "%s", m->spec.nnets && i < n->guest.n ? n->guest.at[i] : "");
}

void machine_restore_addresses(struct roux_machine *m, const char *addr4, const char *addr6)
{
	(void)snprintf(m->had.addr[0], sizeof(m->had.addr[0]), "%s", addr4);
	(void)snprintf(m->had.addr[1], sizeof(m->had.addr[1]), "%s", addr6);
	m->had.known = true;
}

int machine_restore_layer(struct roux_machine *m, unsigned index, const char *path)
{
	if (index >= m->spec.ndisks || !m->spec.disk[index].overlay)
		return -EINVAL;
	free(m->spec.disk[index].layer);
	m->spec.disk[index].layer = strdup(path);
	return m->spec.disk[index].layer ? 0 : -ENOMEM;
}

int machine_take_saved(struct roux_machine *m, struct session *ret_session, struct err *err)
{
	*ret_session = (struct session){ .fd = m->ready_fd };
	memcpy(ret_session->stream, m->ready_stream, sizeof(m->ready_stream));
	m->ready_fd = -1;
	return ret_session->fd >= 0 ? 0 : err_set(err, -ENOENT, "the snapshot does not have the session of the VM's command");
}

/* One request in a session of its own, with a field unless @len is 0. */
static int ask_agent_with(struct roux_machine *m, uint8_t type, uint16_t tag, const void *data, size_t len, struct err *err)
{
	uint8_t buf[256];
	struct frame_writer w;
	uint64_t deadline = monotonic_ns() + CONNECT_TIMEOUT_MS * 1000000ull;
	struct session s;
	struct frame f;
	int r = machine_session(m, &s, err);

	if (r < 0)
		return r;
	frame_begin(&w, buf, sizeof(buf), type);
	if (len)
		field_put(&w, tag, data, len);
	r = session_send_frame(&s, buf, frame_end(&w));
	if (r == 0)
		r = machine_settle(m, &s, err);
	else
		(void)err_set(err, r, "the guest hung up");
	if (r == 0) {
		r = session_wait(&s, deadline, m->wake_fd, &f);
		if (r < 0)
			(void)err_set(err, r, "the guest's agent does not answer: %s", strerror(-r));
		else if (f.type != AGENT_OK)
			r = f.type == AGENT_ERROR ? session_error(&f, err) :
				err_set(err, -EPROTO, "the guest's agent does not keep to its protocol");
	}
	session_close(&s);
	return r;
}

static int ask_agent(struct roux_machine *m, uint8_t type, struct err *err)
{
	return ask_agent_with(m, type, 0, NULL, 0, err);
}

/*
 * What a restored guest does first, done before it is saved: so there is translated code for it in the snapshot.  All that comes
 * of it are better random numbers.
 */
static void rehearse(struct roux_machine *m)
{
	struct err err = { 0 };
	uint8_t seed[64];

	if (getrandom(seed, sizeof(seed), 0) == (ssize_t)sizeof(seed))
		(void)ask_agent_with(m, AGENT_IDENTITY, AGENT_TAG_SEED, seed, sizeof(seed), &err);
}

int machine_identify(struct roux_machine *m, struct err *err)
{
	return ask_agent(m, AGENT_THAW, err);
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

/* 0, or -EBADMSG with a sentence when it cannot be decompressed. */
static int check_code(const struct snapshot *s, bool *ret_own, struct err *err)
{
	uint8_t found[SHA256_SIZE];
	uint64_t at;
	int fd, r;

	*ret_own = false;
	r = s->code ? snapshot_code(s, &fd, &at) : 0;
	if (r < 0)
		return err_set(err, r, r == -EBADMSG ? "snapshot %s is damaged; take it again" : "cannot read snapshot %s", s->path);
	if (!s->code)
		return 0;
	*ret_own = seal(fd, at, s->code, found) == 0 && memcmp(found, s->code_seal, sizeof(found)) == 0;
	(void)close(fd);
	return 0;
}

/* What is noted says whose the code is, and so is for whoever has the key now. */
static int state_of_files(const struct snapshot *s, struct checked_state *ret)
{
	uint8_t key[SHA256_SIZE];
	int fds[SNAPSHOT_CHAIN_MAX];
	unsigned n = 0;
	int r = own_key(key);

	for (; s && n < SNAPSHOT_CHAIN_MAX; s = s->base)
		fds[n++] = s->fd;
	return r < 0 ? r : checked_state(fds, n, key, ret);
}

static bool is_known_whole(const struct snapshot *s)
{
	struct checked_state state;
	unsigned tag;

	return state_of_files(s, &state) == 0 && checked_recall(&state, &tag);
}

/* Memory and code; the tag of the note is whether the code is ours. */
static int check(const struct snapshot *s, bool *ret_own, struct err *err)
{
	struct checked_state before, after;
	bool known = state_of_files(s, &before) == 0;
	unsigned own = 0;
	int r;

	if (known && checked_recall(&before, &own)) {
		*ret_own = own;
		return 0;
	}
	r = snapshot_check_memory(s, err);
	if (r == 0)
		r = check_code(s, ret_own, err);
	if (r == 0 && known && state_of_files(s, &after) == 0 && memcmp(&before, &after, sizeof(before)) == 0)
		checked_note(&before, *ret_own);
	return r;
}

int checkpoint_notes(const char *path, char **ret_notes, bool *ret_own_code, struct err *err)
{
	struct snapshot s;
	int r = snapshot_open(path, &s, err);

	if (r == 0 && ret_own_code)
		r = snapshot_open_bases(&s, err);
	if (r == 0 && ret_own_code)
		r = check(&s, ret_own_code, err);
	*ret_notes = r == 0 ? s.notes : NULL;
	if (r == 0)
		s.notes = NULL;
	snapshot_close(&s);
	return r;
}

/* --------------------------------------------------------------------- saved */

struct checkpoint {
	struct checkpoint_plan plan;
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
	struct snapshot base = { .fd = -1 };
	struct snapshot_plan plan = { .base_path = c->plan.base_name, .scratch = c->plan.scratch };
	int r = c->plan.base ? snapshot_open(c->plan.base, &base, &c->err) : 0;

	/* What is not whole can be nobody's base: it would only be found out when the guest is needed. */
	if (r == 0 && c->plan.base)
		r = snapshot_open_bases(&base, &c->err);
	if (r == 0 && c->plan.base)
		r = is_known_whole(&base) ? 0 : snapshot_check_memory(&base, &c->err);
	plan.base = c->plan.base ? &base : NULL;
	if (r == 0)
		(void)snapshot_build(c->from, c->fd, &c->id, &plan, &c->file, &c->err);
	snapshot_close(&base);
	/* The VM's process may still be sending: it must not wait for ever. */
	(void)close(c->from);
	return NULL;
}

/* What is left when its programs do nothing more, so that in a copy they wait for its identity. */
static int stand(struct roux_machine *m, struct err *err)
{
	int r = ask_agent(m, AGENT_FREEZE, err);

	if (r < 0 && r != -ENOENT)	/* kernels without control groups: the agent is only likely to be first */
		return r;
	return machine_ask(m, CONTROL_STAND, 0, -1, CHECKPOINT_TIMEOUT_MS, err);
}

/* A restored guest would have to be translated anew: it works without. */
static void take_code(struct roux_machine *m, struct checkpoint *c)
{
	c->code_fd = template_begin(CODE_FILE_MAX);
	if (c->code_fd >= 0)
		(void)machine_ask_for_code(m, 0, c->code_fd, &c->code);
}

int checkpoint_begin(struct roux_machine *m, int fd, const struct checkpoint_plan *plan, struct checkpoint **ret_checkpoint,
		     struct err *err)
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
	*c = (struct checkpoint){ .plan = *plan, .from = pipes[0], .fd = fd, .code_fd = -1 };
	snapshot_draw(&c->id);
	r = -pthread_create(&c->thread, NULL, build, c);
	if (r < 0) {
		(void)close(pipes[0]);
		(void)close(pipes[1]);
		free(c);
		return err_set(err, r, "cannot make a thread: %s", strerror(-r));
	}
	rehearse(m);
	r = machine_ask_with(m, CONTROL_CHECKPOINT, 0, &c->id, sizeof(c->id), pipes[1], CHECKPOINT_TIMEOUT_MS, err);
	(void)close(pipes[1]);
	if (r == 0) {
		r = stand(m, err);
		if (r < 0)
			checkpoint_go_on(m);
	}
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
	(void)ask_agent(m, AGENT_THAW, NULL);
}

int checkpoint_end(struct checkpoint *c, const char *notes, uint64_t *ret_bytes, bool *ret_own_code, struct err *err)
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
	*ret_own_code = c->file.code;
	snapshot_file_free(&c->file);
	free(c);
	return r;
}

static void note_written(const struct snapshot *s, bool own_code)
{
	const struct timespec moment = { .tv_nsec = 1000000 };
	struct checked_state state;
	int r = state_of_files(s, &state);

	for (unsigned ms = 0; r == -EAGAIN && ms < TICK_MAX_MS; ms++) {
		(void)nanosleep(&moment, NULL);
		r = state_of_files(s, &state);
	}
	if (r == 0)
		checked_note(&state, own_code);
}

static bool is_same_file(int a, int b)
{
	struct stat sa, sb;

	return fstat(a, &sa) == 0 && fstat(b, &sb) == 0 && sa.st_dev == sb.st_dev && sa.st_ino == sb.st_ino;
}

void checkpoint_written(const char *path, int fd, bool own_code)
{
	struct snapshot s;
	int r = snapshot_open(path, &s, NULL);

	if (r == 0)
		r = snapshot_open_bases(&s, NULL);
	if (r == 0 && is_same_file(fd, s.fd) && (!s.base || is_known_whole(s.base)))
		note_written(&s, own_code);
	snapshot_close(&s);
}
