/* SPDX-License-Identifier: Apache-2.0 */
#include "life/standby.h"

#include "api/handle.h"
#include "base/sha256.h"
#include "life/inside.h"
#include "life/names.h"
#include "life/vms_inside.h"
#include "os/context.h"
#include "os/file.h"
#include "os/folders.h"
#include "os/loop.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define FOLDER "/standby"	/* in the folder of states */
#define KEY_DIGITS 32u
#define LOCK ".lock"
#define NEW ".new"	/* a socket that nobody listens on yet */
#define MAKING_STEP_US 10000u	/* between looks at a process that makes its machine */
#define MAKING_TRIES 200u
#define REAP_STEP_US 2000u	/* between looks whether a process that has said that it ends has ended */
#define REAP_TRIES 50u
#define WAIT_S 60u	/* for a VM */
#define KINDS_MAX 8u	/* that machines wait of at once */
#define TALK_S 1	/* for an answer: whoever has nothing else to do answers sooner */
#define HEAR_US 100000	/* for what the other side says at once */
#define PREPARE_NS 50000000u
#define RECORD_FD 3

extern char **environ;

/* What a command asks for. */
struct request {
	char id[VM_ID_SIZE];	/* of its VM; empty: end */
	uint8_t fresh, phases, counters;	/* as struct monitor_options has them */
	uint16_t rows, cols;
};

enum { REQUEST_FDS = 2 };	/* client, lock: behind the answer */

enum { ANSWER_READY = 'r', ANSWER_GO = 'g' };

/* --------------------------------------------------------------------- kinds */

static bool is_relative(const char *variable)
{
	const char *text = getenv(variable);

	return text && *text && *text != '/';
}

/* 0: none waits.  What a command means by a relative folder is not known in another one. */
static unsigned wait_seconds(void)
{
	const char *text = getenv("ROUX_STANDBY");
	char *end;
	unsigned long n;

	if (is_relative("ROUX_STATE") || is_relative("ROUX_STORE") || is_relative("ROUX_CACHE"))
		return 0;
	if (!text || !*text)
		return WAIT_S;
	n = strtoul(text, &end, 10);
	return *end || n > 86400 ? WAIT_S : (unsigned)n;
}

static void add_text(struct sha256 *hash, const char *text)
{
	sha256_add(hash, text ? text : "", text ? strlen(text) + 1 : 1);
}

static void add_list(struct sha256 *hash, const struct strings *list)
{
	for (size_t i = 0; i < list->n; i++)
		add_text(hash, list->v[i]);
	sha256_add(hash, "", 1);
}

/* What the spec of a machine is made of, and the program that makes it. */
static void add_config(struct sha256 *hash, const struct vm_config *c, const char *vmm)
{
	struct stat st = { 0 };

	(void)stat(vmm, &st);
	add_text(hash, vmm);
	sha256_add(hash, &st.st_ino, sizeof(st.st_ino));
	sha256_add(hash, &st.st_mtim, sizeof(st.st_mtim));
	add_text(hash, c->image);
	add_text(hash, c->engine);
	add_text(hash, c->kernel);
	add_text(hash, c->append);
	add_text(hash, c->network.kind ? c->hostname : NULL);	/* else it is not in the spec */
	sha256_add(hash, &c->cpus, sizeof(c->cpus));
	sha256_add(hash, &c->memory, sizeof(c->memory));
	sha256_add(hash, &(uint8_t){ c->read_only }, 1);
	sha256_add(hash, &(uint8_t){ c->host_loopback }, 1);
	sha256_add(hash, &(uint8_t){ c->merge_memory }, 1);
	for (uint32_t i = 0; i < c->nshares; i++) {
		add_text(hash, c->share[i].host);
		add_text(hash, c->share[i].guest);
		sha256_add(hash, &(uint8_t){ c->share[i].read_only }, 1);
	}
	add_list(hash, &c->egress);
	add_text(hash, c->network.kind);
	add_text(hash, c->network.address4);
	add_text(hash, c->network.gateway4);
	add_text(hash, c->network.address6);
	add_text(hash, c->network.gateway6);
	sha256_add(hash, &(uint64_t[4]){ c->network.send_bytes, c->network.send_frames, c->network.receive_bytes,
					 c->network.receive_frames }, 4 * sizeof(uint64_t));
}

bool standby_holds_nothing(const struct vm_config *c)
{
	return !c->ndisks && !c->publish.n && !c->network.pcap && (!c->network.kind || strcmp(c->network.kind, "user") == 0);
}

/* Whether a machine can wait for this VM: it is made of a template, and holds nothing that only one VM can have. */
static bool may_wait(const struct vm_config *c, const struct monitor_options *o)
{
	return !c->no_template && !o->console && !o->gdb && !o->restore && standby_holds_nothing(c) && wait_seconds() > 0;
}

static bool name_kind(const struct vm_config *c, const struct monitor_options *o, char ret_key[SHA256_HEX_SIZE])
{
	struct sha256 hash;

	if (!may_wait(c, o))
		return false;
	sha256_init(&hash);
	add_config(&hash, c, o->vmm);
	if (context_add(&hash) < 0)
		return false;
	sha256_finish_hex(&hash, ret_key);
	ret_key[KEY_DIGITS] = '\0';
	return true;
}

static int open_folder(const struct vms *vms)
{
	char path[PATH_MAX];
	int fd;

	(void)snprintf(path, sizeof(path), "%s%s", vms->state, FOLDER);
	fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* Takes the lock of the kind, which whoever makes a machine of it or has one holds.  A descriptor or a negative errno. */
static int lock_kind(const struct vms *vms, const char *key)
{
	char path[PATH_MAX];
	struct stat st;
	int fd = -EAGAIN;

	if (folder_make(vms->state, FOLDER, "ROUX_STATE", NULL) < 0)
		return -ENOENT;
	(void)snprintf(path, sizeof(path), "%s%s/%s" LOCK, vms->state, FOLDER, key);
	for (unsigned i = 0; fd == -EAGAIN && i < 3; i++) {
		fd = file_lock(path, true, NULL);
		if (fd >= 0 && (fstat(fd, &st) < 0 || st.st_nlink == 0)) {	/* removed between open and lock */
			(void)close(fd);
			fd = -EAGAIN;
		}
	}
	return fd;
}

static void unlock_kind(int lock, int folder, const char *key)
{
	char name[SHA256_HEX_SIZE + sizeof(LOCK)];

	(void)snprintf(name, sizeof(name), "%s" LOCK, key);
	(void)unlinkat(folder, name, 0);
	(void)close(lock);
}

union address {
	struct sockaddr_un un;
	struct sockaddr any;
};

/* The folder's own path may be longer than an address of a socket. */
static union address address_of(int folder, const char *name)
{
	union address a = { .un = { .sun_family = AF_UNIX } };

	(void)snprintf(a.un.sun_path, sizeof(a.un.sun_path), "/proc/self/fd/%d/%.80s", folder, name);
	return a;
}

/* ------------------------------------------------------------------- command */

static int connect_to(int folder, const char *name)
{
	const struct timeval patience = { .tv_sec = TALK_S };
	union address a = address_of(folder, name);
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), r;

	if (fd < 0)
		return -errno;
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	if (connect(fd, &a.any, sizeof(a.un)) == 0)
		return fd;
	r = -errno;
	(void)close(fd);
	return r;
}

union descriptors {
	char buf[CMSG_SPACE(REQUEST_FDS * sizeof(int))];
	struct cmsghdr align;
};

static bool send_descriptors(int sock, const int fds[REQUEST_FDS])
{
	union descriptors anc = { { 0 } };
	char go = ANSWER_GO;
	struct iovec iov = { &go, 1 };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = anc.buf, .msg_controllen = sizeof(anc.buf) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(REQUEST_FDS * sizeof(int));
	memcpy(CMSG_DATA(c), fds, REQUEST_FDS * sizeof(int));
	return sendmsg(sock, &msg, MSG_NOSIGNAL) == 1;
}

static bool say(int sock, char what)
{
	return send(sock, &what, 1, MSG_NOSIGNAL) == 1;
}

static bool hear(int sock, char what)
{
	char got;

	return recv(sock, &got, 1, 0) == 1 && got == what;
}

/*
 * It does nothing before it has the descriptors, and gets them when it has shown that it is awake: in the hands of one
 * that sleeps they would keep the VM's lock and the connection.
 */
static bool ask(int sock, const struct request *rq, const int fds[REQUEST_FDS])
{
	return send(sock, rq, sizeof(*rq), MSG_NOSIGNAL) == (ssize_t)sizeof(*rq) && hear(sock, ANSWER_READY) && send_descriptors(sock, fds);
}

bool standby_start(const struct vms *vms, const struct vm_owned *owned, const struct vm_record *record,
		   const struct monitor_options *options, int client)
{
	struct request rq = { .fresh = options->fresh, .phases = options->phases, .counters = options->counters,
			      .rows = options->rows, .cols = options->cols };
	const int fds[REQUEST_FDS] = { client, owned->lock_fd };
	char key[SHA256_HEX_SIZE];
	int folder = open_folder(vms), sock = -1;
	bool done = false;

	if (folder >= 0 && name_kind(&record->config, options, key))
		sock = connect_to(folder, key);
	if (sock >= 0) {
		memcpy(rq.id, owned->id, sizeof(rq.id));
		done = ask(sock, &rq, fds);
		(void)close(sock);
	}
	if (folder >= 0)
		(void)close(folder);
	return done;
}

/* Whether the machine of kind @key was made of template @id; NULL: of any. */
static bool is_of(int folder, const char *key, const char *id)
{
	char path[PATH_MAX], *text;
	bool same;
	size_t len;

	if (!id)
		return true;
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d/%s" LOCK, folder, key);
	if (file_read_all(path, NAME_MAX, &text, &len, NULL) < 0)
		return false;
	same = strcmp(text, id) == 0;
	free(text);
	return same;
}

/* Takes what a killed process left of kind @key away.  False: there is a process. */
static bool is_left_over(const struct vms *vms, int folder, const char *key)
{
	int lock = lock_kind(vms, key);

	if (lock == -EWOULDBLOCK)
		return false;
	(void)unlinkat(folder, key, 0);
	if (lock >= 0)
		unlock_kind(lock, folder, key);
	return true;
}

/* The process of kind @key, which may still be making its machine: that is waited for if @patient.  -1: none. */
static int connect_to_kind(const struct vms *vms, int folder, const char *key, bool patient)
{
	int sock;

	for (unsigned i = 0; (sock = connect_to(folder, key)) < 0 && !is_left_over(vms, folder, key); i++)
		if (!patient || i == MAKING_TRIES || usleep(MAKING_STEP_US) < 0)
			return -1;
	return sock;
}

/* Waits for that. */
static void ask_to_end(int sock)
{
	const struct request rq = { .id = "" };

	if (send(sock, &rq, sizeof(rq), MSG_NOSIGNAL) > 0)
		(void)hear(sock, ANSWER_READY);	/* the end: it has let go of everything */
}

unsigned standby_count(const struct vms *vms, const char *id, bool end)
{
	int folder = open_folder(vms), sock;
	char path[PATH_MAX], key[KEY_DIGITS + 1] = "";
	struct dirent *e;
	unsigned n = 0;
	DIR *dir;

	if (folder < 0)
		return 0;
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", folder);
	dir = opendir(path);
	while (dir && (e = readdir(dir))) {
		if (strlen(e->d_name) != KEY_DIGITS + strlen(LOCK) || strcmp(e->d_name + KEY_DIGITS, LOCK) != 0)
			continue;
		memcpy(key, e->d_name, KEY_DIGITS);
		sock = is_of(folder, key, id) ? connect_to_kind(vms, folder, key, end) : -1;
		if (sock < 0)
			continue;
		n++;
		if (end)
			ask_to_end(sock);
		(void)close(sock);
	}
	if (dir)
		(void)closedir(dir);
	(void)close(folder);
	return n;
}

/* ------------------------------------------------------------------- monitor */

static void on_standby_ended(void *ctx, uint32_t events)
{
	struct monitor *m = ctx;

	(void)events;
	(void)waitpid(m->standby.pid, NULL, 0);
	loop_remove(m->standby.source);
	(void)close(m->standby.pidfd);
	m->standby.source = NULL;
	m->standby.pid = 0;
}

/* A file in memory with the record, from its beginning. */
static int record_file(const struct vm_record *record)
{
	char *text = record_encode(record);
	int fd = text ? memfd_create("roux-record", MFD_CLOEXEC) : -1;
	int high = -1;

	if (fd >= 0 && file_write_all(fd, text, strlen(text)) == 0 && lseek(fd, 0, SEEK_SET) == 0)
		high = fcntl(fd, F_DUPFD_CLOEXEC, RECORD_FD + 1);	/* dup2() onto itself would keep close-on-exec */
	if (fd >= 0)
		(void)close(fd);
	free(text);
	return high;
}

static pid_t spawn(const char *vmm, int record_fd)
{
	char *const argv[] = { (char *)(uintptr_t)vmm, (char *)(uintptr_t)"standby", NULL };
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	sigset_t set;
	pid_t pid = 0;
	int r;

	(void)posix_spawn_file_actions_init(&actions);
	(void)posix_spawnattr_init(&attr);
	(void)posix_spawn_file_actions_adddup2(&actions, record_fd, RECORD_FD);
	(void)sigemptyset(&set);
	(void)posix_spawnattr_setsigmask(&attr, &set);
	(void)posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK);
	r = posix_spawn(&pid, vmm, &actions, &attr, argv, environ);
	(void)posix_spawn_file_actions_destroy(&actions);
	(void)posix_spawnattr_destroy(&attr);
	return r ? 0 : pid;
}

/* Has @m's record in a file for a process that is to make a machine; -1: none is needed. */
static int needed_record(struct monitor *m)
{
	char key[SHA256_HEX_SIZE];
	int lock;

	if (!m->standby.possible || m->standby.pid || !name_kind(&m->record.config, &m->options, key))
		return -1;
	lock = lock_kind(&m->vms, key);
	if (lock < 0)
		return -1;
	(void)close(lock);	/* the process takes it */
	return record_file(&m->record);
}

static void make_one(struct monitor *m)
{
	int fd = needed_record(m);

	if (fd < 0)
		return;
	m->standby.pid = spawn(m->options.vmm, fd);
	(void)close(fd);
	if (!m->standby.pid)
		return;
	/* Without it a process that has ended stays in the table until we end. */
	m->standby.pidfd = pidfd_open(m->standby.pid, 0);
	if (m->standby.pidfd >= 0)
		(void)loop_add_fd(m->loop, m->standby.pidfd, EPOLLIN, on_standby_ended, m, &m->standby.source, NULL);
}

static void on_prepare(void *ctx)
{
	make_one(ctx);
}

/* Somebody who waits for the command's output has the processors first. */
void standby_prepare(struct monitor *m)
{
	bool waited_for = false;

	for (const struct conn *c = m->conns; c; c = c->next)
		waited_for |= c->mode == CONN_ATTACHED && c->output;
	if (!m->standby.possible || !m->machine->spec.restore)	/* one that has booted is still writing the template */
		return;
	if (!waited_for)
		make_one(m);
	else if (m->standby.timer || loop_add_timer(m->loop, on_prepare, m, &m->standby.timer, NULL) == 0)
		(void)loop_set_timer(m->standby.timer, PREPARE_NS, 0);
}

/* What waits for the next VM of the kind, if anything does, ends. */
static void end_kind(struct monitor *m)
{
	int folder = open_folder(&m->vms), sock = -1;
	char key[SHA256_HEX_SIZE];

	if (folder >= 0 && name_kind(&m->record.config, &m->options, key))
		sock = connect_to_kind(&m->vms, folder, key, true);
	if (sock >= 0) {
		ask_to_end(sock);
		(void)close(sock);
	}
	if (folder >= 0)
		(void)close(folder);
	/* It may be a child of ours, which whoever we are next knows nothing of; or have become the monitor of a VM. */
	for (unsigned i = 0; sock >= 0 && m->standby.pid && i < REAP_TRIES && waitpid(m->standby.pid, NULL, WNOHANG) == 0; i++)
		(void)usleep(REAP_STEP_US);
	m->standby.pid = 0;
}

void standby_instead(struct monitor *m, bool anew)
{
	char *const argv[] = { (char *)(uintptr_t)m->options.vmm, (char *)(uintptr_t)"standby", NULL };
	sigset_t none;
	int fd;

	if (anew && m->standby.possible)
		end_kind(m);
	fd = needed_record(m);
	if (fd < 0 || dup2(fd, RECORD_FD) < 0)
		return;
	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	(void)execve(m->options.vmm, argv, environ);
}

/* ------------------------------------------------------------------- process */

struct standby {
	struct vms vms;
	struct vm_record record;	/* of a VM like those to come, until there is a machine */
	struct monitor_options options;
	struct roux_machine *machine;
	char key[SHA256_HEX_SIZE];
	int lock, folder, listen, asker;
};

static int read_record(int fd, struct vm_record *ret_record, struct err *err)
{
	struct stat st;
	char *text;
	int r;

	if (fstat(fd, &st) < 0 || st.st_size > RECORD_MAX)
		return err_set(err, -EINVAL, "no record of a VM");
	text = malloc((size_t)st.st_size + 1);
	if (!text)
		return err_set(err, -ENOMEM, "out of memory");
	r = read(fd, text, (size_t)st.st_size) == st.st_size ? 0 : err_set(err, -EINVAL, "no record of a VM");
	text[st.st_size] = '\0';
	if (r == 0)
		r = record_decode(text, (size_t)st.st_size, ret_record, err);
	free(text);
	return r;
}

/* Whoever finds the socket is heard. */
static int listen_for(struct standby *s, struct err *err)
{
	char name[SHA256_HEX_SIZE + sizeof(NEW)];
	mode_t mask = umask(0177);
	union address a;
	int r = 0;

	(void)snprintf(name, sizeof(name), "%s" NEW, s->key);
	(void)unlinkat(s->folder, name, 0);
	a = address_of(s->folder, name);
	s->listen = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (s->listen < 0 || bind(s->listen, &a.any, sizeof(a.un)) < 0 || listen(s->listen, 8) < 0 ||
	    renameat(s->folder, name, s->folder, s->key) < 0)
		r = err_set(err, -errno, "cannot make a socket in %.150s%s: %s", s->vms.state, FOLDER, strerror(errno));
	(void)umask(mask);
	return r;
}

/* The lock's file says which template it is, by its id. */
static void note_template(struct standby *s)
{
	const char *name = s->machine->template ? strrchr(s->machine->template, '/') : NULL;
	size_t len = name ? strcspn(name + 1, ".") : 0;

	if (ftruncate(s->lock, 0) == 0 && pwrite(s->lock, name ? name + 1 : "", len, 0) < 0) {
		/* It is only not found by its template. */
	}
}

/* From here on nobody finds us. */
static void leave(struct standby *s)
{
	(void)unlinkat(s->folder, s->key, 0);
	(void)close(s->listen);
	unlock_kind(s->lock, s->folder, s->key);
	(void)close(s->folder);
}

static bool receive_request(int sock, struct request *ret_rq)
{
	return recv(sock, ret_rq, sizeof(*ret_rq), MSG_TRUNC) == (ssize_t)sizeof(*ret_rq) &&
	       memchr(ret_rq->id, '\0', sizeof(ret_rq->id)) && (!ret_rq->id[0] || vm_id_valid(ret_rq->id));
}

static bool receive_descriptors(int sock, int ret_fds[REQUEST_FDS])
{
	union descriptors anc;
	char go = 0;
	struct iovec iov = { &go, 1 };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = anc.buf, .msg_controllen = sizeof(anc.buf) };
	ssize_t n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
	struct cmsghdr *c = n < 0 ? NULL : CMSG_FIRSTHDR(&msg);
	int got[REQUEST_FDS];
	size_t count;

	if (!c || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
		return false;
	count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
	memcpy(got, CMSG_DATA(c), count * sizeof(int));
	if (n == 1 && go == ANSWER_GO && count == REQUEST_FDS && !(msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC))) {
		memcpy(ret_fds, got, sizeof(got));
		return true;
	}
	for (size_t i = 0; i < count; i++)
		(void)close(got[i]);
	return false;
}

static bool is_ours(int sock)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);

	return getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 && peer.uid == geteuid();
}

static bool is_alive(struct standby *s)
{
	(void)machine_events(s->machine, 0);
	return !machine_ended(s->machine);
}

/* What one that has connected wants: 1: a monitor, whose request and descriptors are filled in; 0: nothing; -1: our end. */
static int serve(struct standby *s, int sock, struct request *rq, int fds[REQUEST_FDS])
{
	const struct timeval patience = { .tv_usec = HEAR_US };

	(void)setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	if (!is_ours(sock) || !receive_request(sock, rq))
		return 0;
	if (!rq->id[0])
		return -1;
	return is_alive(s) && say(sock, ANSWER_READY) && receive_descriptors(sock, fds);
}

/* Until a command is there, whose request is filled in: 1; or nobody wants us any more: 0. */
static int wait_for_command(struct standby *s, struct request *rq, int fds[REQUEST_FDS])
{
	uint64_t deadline = monotonic_ns() + wait_seconds() * 1000000000ull;

	for (uint64_t now; (now = monotonic_ns()) < deadline && is_alive(s);) {
		struct pollfd p[2] = { { .fd = s->listen, .events = POLLIN }, { .fd = roux_machine_fd(s->machine), .events = POLLIN } };
		int sock, r;

		if (poll(p, 2, (int)((deadline - now) / 1000000 + 1)) <= 0 || !p[0].revents)
			continue;
		sock = accept4(s->listen, NULL, NULL, SOCK_CLOEXEC);
		if (sock < 0)
			continue;
		r = serve(s, sock, rq, fds);
		if (r < 0)
			s->asker = sock;	/* who hears our end by it */
		else
			(void)close(sock);
		if (r)
			return r > 0;
	}
	return 0;
}

__attribute__((noreturn)) static void become_monitor(struct standby *s, const struct request *rq, const int fds[REQUEST_FDS])
{
	static struct monitor m;
	struct err err = { 0 };

	m = (struct monitor){ .vms = s->vms, .options = s->options, .ready = s->machine };
	m.options.fresh = rq->fresh;
	m.options.phases = rq->phases;
	m.options.counters = rq->counters;
	m.options.rows = rq->rows;
	m.options.cols = rq->cols;
	vms_owned(&s->vms, rq->id, fds[1], &m.owned);
	record_init(&m.record);
	(void)prctl(PR_SET_NAME, "roux-monitor");
	(void)err_set(&err, vms_read_record(&s->vms, rq->id, &m.record, &err), "%s", err.msg);
	monitor_main(&m, fds[0], &err);
}

int standby_main(int fd, const char *vmm, struct err *err)
{
	static struct standby s;
	struct roux_error error = { 0 };
	struct request rq;
	int fds[REQUEST_FDS], r;

	s.options.vmm = vmm;
	s.lock = s.folder = s.listen = s.asker = -1;
	(void)prctl(PR_SET_NAME, "roux-standby");
	(void)signal(SIGPIPE, SIG_IGN);
	record_init(&s.record);
	r = vms_open(&s.vms, err);
	if (r == 0)
		r = chdir("/") < 0 ? -errno : read_record(fd, &s.record, err);	/* no folder stays busy because of us */
	(void)close(fd);
	if (r < 0)
		return r;
	if (!name_kind(&s.record.config, &s.options, s.key) || (s.lock = lock_kind(&s.vms, s.key)) < 0 ||
	    standby_count(&s.vms, NULL, false) >= KINDS_MAX)
		return err_set(err, -EBUSY, "such a machine waits already, or there are enough, or it cannot wait");
	s.folder = open_folder(&s.vms);
	r = s.folder < 0 ? s.folder : starter_make_ready(&s.record, &s.options, &s.machine, &error);
	if (r < 0) {
		leave(&s);
		return err_set(err, r, "%s", error.message[0] ? error.message : strerror(-r));
	}
	record_finish(&s.record);	/* what the VM before was told is none of the next one's business */
	note_template(&s);
	r = listen_for(&s, err);
	if (r == 0)
		r = wait_for_command(&s, &rq, fds);
	leave(&s);
	if (r > 0)
		become_monitor(&s, &rq, fds);
	machine_discard(s.machine);
	return r;
}
