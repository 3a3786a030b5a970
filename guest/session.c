/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation.  One poll loop moves bytes between four bounded buffers;
 * nothing in it blocks:
 *
 *   conn --read--> in[] --frames--> requests
 *                              `--> input ring --write--> command's stdin
 *   command's stdout, stderr --read--> out[] --write--> conn
 *
 *   state      frames taken                  leaves when
 *   GREETING   HELLO                         HELLO taken
 *   REQUESTS   MOUNT CLOCK IDENTITY FREEZE THAW PING POWER EXEC   EXEC started a command (RUNNING), failed or left it
 *              STATS PROCESSES GET PUT       alone (CLOSING); a copy was made, blocking (CLOSING)
 *   RUNNING    STDIN* RESIZE SIGNAL PING     command dead and its output read: EXITED queued
 *   CLOSING    any, ignored                  host closed, or CLOSE_TIMEOUT_MS passed
 *
 * Room in out[]: output of the command leaves REPLY_ROOM free, replies may use
 * it, and a frame that causes a reply is only taken while that much is free.
 * Frames without reply (input, signals) are therefore always taken, whatever
 * the host fails to read.
 */
#include "guest/session.h"

#include "abi/agent.h"
#include "copy/tree.h"
#include "guest/facts.h"
#include "guest/files.h"
#include "guest/freeze.h"
#include "guest/identity.h"
#include "guest/read_ahead.h"
#include "guest/spawn.h"
#include "guest/text.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CLOSE_TIMEOUT_MS 5000
#define TTY_RETRY_MS 50 /* how often a terminal that nobody has open is looked at */
#define REPLY_ROOM 1024u /* bytes; the largest reply has a text of TEXT_MAX */
#define OUT_MIN 4096u /* bytes of room worth a read of the command's output */
#define LAST_OUTPUT_MAX (1024u * 1024u) /* bytes read after the command is dead */

_Static_assert(REPLY_ROOM > TEXT_MAX + 128, "an ERROR frame must fit");

enum state { GREETING, REQUESTS, RUNNING, CLOSING };

struct session {
	struct session_shared *shared;
	enum state state;
	int conn, sig_fd;
	bool hung_up;	/* the host is gone, or broke the protocol */

	struct child child;
	bool dead;	/* the command's process ended with wait_status */
	int wait_status;
	uint32_t last_output;	/* bytes read since it died */
	bool tty_unused;	/* no process has the terminal open at the moment */

	uint8_t in[FRAME_HEADER + AGENT_FRAME_MAX];
	size_t in_len;
	uint8_t out[2 * (FRAME_HEADER + AGENT_DATA_MAX)];
	size_t out_at, out_len;	/* bytes [out_at, out_len) are not sent yet */

	uint8_t input[AGENT_STDIN_WINDOW];
	size_t input_at, input_len;	/* ring */
	bool input_eof;	/* no more STDIN frames */
	uint32_t credit;	/* input bytes to give back */

	struct exec_request exec;	/* here because it is large */
};

static struct session session;

/* ---- output buffer ---- */

static size_t out_room(struct session *s)
{
	if (s->out_at == s->out_len)
		s->out_at = s->out_len = 0;
	if (s->out_at > sizeof(s->out) / 2) {
		memmove(s->out, s->out + s->out_at, s->out_len - s->out_at);
		s->out_len -= s->out_at;
		s->out_at = 0;
	}
	return sizeof(s->out) - s->out_len;
}

static void out_begin(struct session *s, struct frame_writer *w, uint8_t type)
{
	size_t room = out_room(s);

	frame_begin(w, s->out + s->out_len, room, type);
}

static void out_end(struct session *s, struct frame_writer *w)
{
	size_t size = frame_end(w);

	/* Callers keep REPLY_ROOM: not fitting would be our own error, and fatal. */
	if (size == 0)
		s->hung_up = true;
	s->out_len += size;
}

static void put_hello(struct frame_writer *w)
{
	struct timespec now;

	field_put_u32(w, AGENT_TAG_MAGIC, AGENT_MAGIC);
	field_put_u32(w, AGENT_TAG_VERSION, AGENT_VERSION);
	field_put_u32(w, AGENT_TAG_VERSION_MIN, AGENT_VERSION_MIN);
	if (clock_gettime(CLOCK_BOOTTIME, &now) == 0)
		field_put_u64(w, AGENT_TAG_UPTIME_NS,
			      (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec);
}

static void put_error(struct frame_writer *w, int error, int status, const char *message)
{
	field_put_u32(w, AGENT_TAG_ERRNO, (uint32_t)error);
	field_put_u32(w, AGENT_TAG_STATUS, (uint32_t)status);
	field_put_str(w, AGENT_TAG_MESSAGE, message);
}

static void send_empty(struct session *s, uint8_t type)
{
	struct frame_writer w;

	out_begin(s, &w, type);
	out_end(s, &w);
}

static void send_u32(struct session *s, uint8_t type, uint16_t tag, uint32_t value)
{
	struct frame_writer w;

	out_begin(s, &w, type);
	field_put_u32(&w, tag, value);
	out_end(s, &w);
}

static void send_error(struct session *s, int error, int status, const char *message)
{
	struct frame_writer w;

	out_begin(s, &w, AGENT_ERROR);
	put_error(&w, error, status, message);
	out_end(s, &w);
}

/* OK, or ERROR made of @what and errno. */
static void send_result(struct session *s, bool ok, const char *what)
{
	struct text message = { .len = 0 };
	int error = errno;

	if (ok) {
		send_empty(s, AGENT_OK);
		return;
	}
	text_add(&message, what);
	text_add_errno(&message, error);
	send_error(s, error, 0, message.str);
}

/* The host broke the protocol: one message, then hang up. */
static void broken(struct session *s, const char *message)
{
	if (out_room(s) >= REPLY_ROOM)
		send_error(s, EPROTO, 0, message);
	if (s->state == RUNNING && !s->dead)
		(void)kill(-s->child.pid, SIGHUP);
	s->state = CLOSING;
}

static void flush_out(struct session *s)
{
	while (s->out_at < s->out_len) {
		ssize_t n = write(s->conn, s->out + s->out_at, s->out_len - s->out_at);

		if (n <= 0) {
			if (n < 0 && errno == EINTR)
				continue;
			if (n == 0 || errno != EAGAIN)
				s->hung_up = true;
			return;
		}
		s->out_at += (size_t)n;
	}
}

/* ---- the command's input ---- */

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* Bytes that nobody will read are given back, so that the host never stalls. */
static void drop_input(struct session *s)
{
	s->credit += (uint32_t)s->input_len;
	s->input_len = 0;
	close_fd(&s->child.in_fd);
}

static void end_input(struct session *s)
{
	const char eot = 4;	/* VEOF of a fresh terminal */

	if (!s->input_eof || s->input_len || s->child.in_fd < 0)
		return;
	if (s->child.tty && write(s->child.in_fd, &eot, 1) < 0 && errno == EAGAIN)
		return;
	close_fd(&s->child.in_fd);
}

static void flush_input(struct session *s)
{
	while (s->input_len && s->child.in_fd >= 0) {
		size_t n = sizeof(s->input) - s->input_at;
		ssize_t done;

		if (n > s->input_len)
			n = s->input_len;
		done = write(s->child.in_fd, s->input + s->input_at, n);
		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0 && errno == EAGAIN)
			return;
		if (done <= 0) {
			drop_input(s);
			return;
		}
		s->input_at = (s->input_at + (size_t)done) % sizeof(s->input);
		s->input_len -= (size_t)done;
		s->credit += (uint32_t)done;
	}
	end_input(s);
}

static void take_input(struct session *s, const struct frame *f)
{
	size_t tail, first;

	if (f->len > sizeof(s->input) - s->input_len || s->input_eof) {
		broken(s, "more input than the window allows");
		return;
	}
	if (s->child.in_fd < 0) {
		s->credit += f->len;
		return;
	}
	tail = (s->input_at + s->input_len) % sizeof(s->input);
	first = sizeof(s->input) - tail;
	if (first > f->len)
		first = f->len;
	memcpy(s->input + tail, f->data, first);
	memcpy(s->input, f->data + first, f->len - first);
	s->input_len += f->len;
	flush_input(s);
}

/* ---- requests ---- */

static void on_hello(struct session *s, const struct frame *f)
{
	struct hello hello;

	if (f->type != AGENT_HELLO || request_hello(f, &hello) < 0) {
		broken(s, "a session starts with HELLO");
		return;
	}
	if (hello.version < AGENT_VERSION_MIN || hello.version_min > AGENT_VERSION) {
		broken(s, "host and guest agent have no protocol version in common: "
			  "rebuild the initramfs with this roux");
		return;
	}
	s->state = REQUESTS;
}

static void on_exec(struct session *s, const struct frame *f)
{
	struct spawn_error error;

	if (request_exec(f, &s->exec) < 0) {
		broken(s, "malformed EXEC request");
		return;
	}
	s->shared->primary = s->exec.primary;
	if (spawn(&s->exec, &s->child, &error) < 0) {
		send_error(s, error.error, error.status, error.message.str);
		s->state = CLOSING;
		return;
	}
	send_u32(s, AGENT_STARTED, AGENT_TAG_PID, (uint32_t)s->child.pid);
	if (s->exec.detached) {	/* whoever is pid 1 inherits it */
		s->state = CLOSING;
		return;
	}
	s->state = RUNNING;
	s->input_eof = !s->exec.has_stdin;
	if (s->input_eof)
		close_fd(&s->child.in_fd);
}

/*
 * A copy is all that its session does, so from here on it may block.  What has been
 * received already belongs to it, and what is queued goes first.
 */
static void on_copy(struct session *s, const struct frame *f)
{
	bool put = f->type == AGENT_PUT;
	size_t used = (size_t)(f->data + f->len - s->in);
	/* The request's strings stay where they are: the tree begins behind them. */
	struct tree_input in = { .fd = s->conn, .buf = s->in + used, .cap = sizeof(s->in) - used, .len = s->in_len - used };
	struct text message = { .len = 0 };
	struct copy_request req = { .name = "" };
	struct tree_error error;
	int r;

	if (in.cap < TREE_BUF_MIN || request_copy(f, &req) < 0) {
		broken(s, "malformed GET or PUT request");
		return;
	}
	(void)fcntl(s->conn, F_SETFL, fcntl(s->conn, F_GETFL) & ~O_NONBLOCK);
	flush_out(s);
	r = put ? tree_receive(&in, req.path, req.name, true, &error) : tree_send(s->conn, req.path, &error);
	if (r < 0) {
		text_add(&message, error.what);
		if (error.error)
			text_add_errno(&message, error.error);
		send_error(s, error.error ? error.error : EIO, 0, message.str);
	} else if (put) {
		send_empty(s, AGENT_OK);
	}
	(void)fcntl(s->conn, F_SETFL, fcntl(s->conn, F_GETFL) | O_NONBLOCK);
	s->in_len = used;
	s->state = CLOSING;
}

static void on_stats(struct session *s)
{
	struct frame_writer w;

	out_begin(s, &w, AGENT_STATS_REPLY);
	facts_machine(&w);
	out_end(s, &w);
}

/* As many as there is room for: thousands would be too many to read anyway. */
static void on_processes(struct session *s)
{
	struct facts_processes list;
	struct frame_writer w;

	if (facts_open(&list) == 0)
		while (out_room(s) >= 2 * REPLY_ROOM) {
			out_begin(s, &w, AGENT_PROCESS);
			if (!facts_next(&list, &w))
				break;
			out_end(s, &w);
		}
	facts_close(&list);
	send_empty(s, AGENT_OK);
}

static void on_mount(struct session *s, const struct frame *f)
{
	struct mount_request req;

	if (request_mount(f, &req) < 0) {
		broken(s, "malformed MOUNT request");
		return;
	}
	send_result(s, file_mount(&req) == 0, "cannot mount");
}

static void on_clock(struct session *s, const struct frame *f)
{
	struct timespec now;
	uint64_t ns;

	if (request_clock(f, &ns) < 0) {
		broken(s, "malformed CLOCK request");
		return;
	}
	now = (struct timespec){ .tv_sec = (time_t)(ns / 1000000000u),
				 .tv_nsec = (long)(ns % 1000000000u) };
	send_result(s, clock_settime(CLOCK_REALTIME, &now) == 0, "cannot set the clock");
}

static void on_identity(struct session *s, const struct frame *f)
{
	struct identity_request req;

	if (request_identity(f, &req) < 0) {
		broken(s, "malformed IDENTITY request");
		return;
	}
	if (identity_take(&req) == 0) {
		send_empty(s, AGENT_OK);
		return;
	}
	send_result(s, false, "cannot take on an identity");
	s->state = CLOSING;	/* an EXEC may be under way already */
}

static void on_read_ahead(struct session *s, const struct frame *f)
{
	struct read_ahead_request req = { .read = read_ahead };
	struct frame_writer w;

	if (request_read_ahead(f, &req) < 0) {
		broken(s, "malformed READ_AHEAD request");
		return;
	}
	out_begin(s, &w, AGENT_OK);
	field_put_u64(&w, AGENT_TAG_SIZE, req.done);
	out_end(s, &w);
}

static void on_freeze(struct session *s)
{
	send_result(s, freeze_begin() == 0, "cannot stop the guest's programs");
}

static void on_thaw(struct session *s)
{
	freeze_end();
	send_empty(s, AGENT_OK);
}

static void on_power(struct session *s, const struct frame *f)
{
	struct power_request req;

	if (request_power(f, &req) < 0) {
		broken(s, "malformed POWER request");
		return;
	}
	s->shared->power = req;
	s->shared->power_asked = true;
	send_empty(s, AGENT_OK);
	s->state = CLOSING;
}

static void on_resize(struct session *s, const struct frame *f)
{
	uint16_t rows, cols;

	if (request_resize(f, &rows, &cols) < 0)
		broken(s, "malformed RESIZE");
	else
		spawn_resize(&s->child, rows, cols);
}

static void on_signal(struct session *s, const struct frame *f)
{
	uint32_t signo;

	if (request_signal(f, &signo) < 0)
		broken(s, "malformed SIGNAL");
	else if (!s->dead)	/* a reaped pid may belong to somebody else */
		(void)kill(s->child.pid, (int)signo);
}

static void on_request(struct session *s, const struct frame *f)
{
	switch (f->type) {
	case AGENT_EXEC:
		on_exec(s, f);
		break;
	case AGENT_MOUNT:
		on_mount(s, f);
		break;
	case AGENT_CLOCK:
		on_clock(s, f);
		break;
	case AGENT_IDENTITY:
		on_identity(s, f);
		break;
	case AGENT_READ_AHEAD:
		on_read_ahead(s, f);
		break;
	case AGENT_FREEZE:
		on_freeze(s);
		break;
	case AGENT_THAW:
		on_thaw(s);
		break;
	case AGENT_POWER:
		on_power(s, f);
		break;
	case AGENT_PING:
		send_empty(s, AGENT_OK);
		break;
	case AGENT_STATS:
		on_stats(s);
		break;
	case AGENT_PROCESSES:
		on_processes(s);
		break;
	case AGENT_GET:
	case AGENT_PUT:
		on_copy(s, f);
		break;
	default:
		broken(s, "not a request");
	}
}

static void on_running(struct session *s, const struct frame *f)
{
	switch (f->type) {
	case AGENT_STDIN:
		take_input(s, f);
		break;
	case AGENT_STDIN_EOF:
		s->input_eof = true;
		end_input(s);
		break;
	case AGENT_RESIZE:
		on_resize(s, f);
		break;
	case AGENT_SIGNAL:
		on_signal(s, f);
		break;
	case AGENT_PING:
		send_empty(s, AGENT_OK);
		break;
	default:
		broken(s, "not allowed while a command runs");
	}
}

static bool causes_reply(uint8_t type)
{
	return type < AGENT_STDIN || type > AGENT_SIGNAL;
}

static void take_frame(struct session *s, const struct frame *f)
{
	switch (s->state) {
	case GREETING:
		on_hello(s, f);
		break;
	case REQUESTS:
		on_request(s, f);
		break;
	case RUNNING:
		on_running(s, f);
		break;
	case CLOSING:
		break;
	}
}

static void take_frames(struct session *s)
{
	size_t at = 0;
	struct frame f;
	int r = 0;

	while ((r = frame_parse(s->in + at, s->in_len - at, AGENT_FRAME_MAX, &f)) == 1) {
		if (causes_reply(f.type) && out_room(s) < REPLY_ROOM)
			break;
		take_frame(s, &f);
		at += FRAME_HEADER + f.len;
	}
	if (r < 0) {
		broken(s, "broken frame");
		at = s->in_len;
	}
	memmove(s->in, s->in + at, s->in_len - at);
	s->in_len -= at;
}

static void read_conn(struct session *s)
{
	ssize_t n;

	if (s->in_len == sizeof(s->in))
		return;
	n = read(s->conn, s->in + s->in_len, sizeof(s->in) - s->in_len);
	if (n > 0)
		s->in_len += (size_t)n;
	else if (n == 0 || (errno != EAGAIN && errno != EINTR))
		s->hung_up = true;
}

/* ---- the command's output and end ---- */

/*
 * Moves what the command wrote into frames of @type.  Returns false when there
 * is nothing more to come for now: end of file (then *fd is closed) or EAGAIN.
 */
static bool read_output(struct session *s, int *fd, uint8_t type)
{
	while (*fd >= 0) {
		size_t room = out_room(s);
		uint8_t *at = s->out + s->out_len;
		ssize_t n;

		if (room < FRAME_HEADER + OUT_MIN + REPLY_ROOM)
			return true;
		room -= FRAME_HEADER + REPLY_ROOM;
		n = read(*fd, at + FRAME_HEADER, room < AGENT_DATA_MAX ? room : AGENT_DATA_MAX);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return false;
		if (n < 0 && s->child.tty && !s->dead) {
			/*
			 * EIO: the command has closed its terminal, but lives and may open
			 * it again.  Closing our end would kill it with SIGHUP.
			 */
			s->tty_unused = true;
			return false;
		}
		if (n <= 0) {
			close_fd(fd);
			return false;
		}
		frame_put_header(at, type, (uint32_t)n);
		s->out_len += FRAME_HEADER + (size_t)n;
		if (s->dead)
			s->last_output += (uint32_t)n;
		/* One frame at a time: the other stream and signals get their turn. */
		return true;
	}
	return false;
}

static void reap_child(struct session *s)
{
	struct signalfd_siginfo info;

	while (read(s->sig_fd, &info, sizeof(info)) > 0)
		;
	if (s->state == RUNNING && !s->dead &&
	    waitpid(s->child.pid, &s->wait_status, WNOHANG) == s->child.pid)
		s->dead = true;
}

static void send_exited(struct session *s)
{
	if (WIFSIGNALED(s->wait_status))
		send_u32(s, AGENT_EXITED, AGENT_TAG_SIGNO, (uint32_t)WTERMSIG(s->wait_status));
	else
		send_u32(s, AGENT_EXITED, AGENT_TAG_STATUS, (uint32_t)WEXITSTATUS(s->wait_status));
	s->state = CLOSING;
}

static void run_child(struct session *s)
{
	bool more;

	flush_input(s);
	if (s->credit && out_room(s) >= REPLY_ROOM) {
		send_u32(s, AGENT_CREDIT, AGENT_TAG_CREDIT_BYTES, s->credit);
		s->credit = 0;
	}
	more = read_output(s, &s->child.out_fd, AGENT_STDOUT);
	more |= read_output(s, &s->child.err_fd, AGENT_STDERR);
	/*
	 * All it wrote is in the pipes by now.  Children it left behind may hold
	 * them open, or write for ever: they do not delay its end.
	 */
	if (s->dead && (!more || s->last_output > LAST_OUTPUT_MAX) && out_room(s) >= REPLY_ROOM)
		send_exited(s);
}

/* ---- the loop ---- */

enum { WAIT_CONN, WAIT_SIGNAL, WAIT_IN, WAIT_OUT, WAIT_ERR, WAIT_COUNT };

/* Waits until something can be done.  Returns false after @timeout_ms without. */
static bool wait_events(struct session *s, int timeout_ms)
{
	bool room = out_room(s) >= FRAME_HEADER + OUT_MIN + REPLY_ROOM;
	bool running = s->state == RUNNING;
	bool output = running && room && !s->tty_unused;
	struct pollfd p[WAIT_COUNT] = {
		[WAIT_CONN] = { .fd = s->conn },
		[WAIT_SIGNAL] = { .fd = s->sig_fd, .events = POLLIN },
		[WAIT_IN] = { .fd = running && (s->input_len || s->input_eof) ? s->child.in_fd : -1,
			      .events = POLLOUT },
		/* Not polled without use: POLLHUP would not let us sleep. */
		[WAIT_OUT] = { .fd = output ? s->child.out_fd : -1, .events = POLLIN },
		[WAIT_ERR] = { .fd = output ? s->child.err_fd : -1, .events = POLLIN },
	};
	int r;

	/* Once it is dead, what is in the pipes counts, not what may still come. */
	if (s->dead && output)
		timeout_ms = 0;
	if (s->in_len < sizeof(s->in))
		p[WAIT_CONN].events |= POLLIN;
	if (s->out_at < s->out_len)
		p[WAIT_CONN].events |= POLLOUT;
	r = poll(p, WAIT_COUNT, timeout_ms);
	if (r <= 0)
		return r < 0;
	if (p[WAIT_CONN].revents & (POLLIN | POLLHUP | POLLERR)) {
		if (s->in_len == sizeof(s->in))
			s->hung_up = true;	/* only POLLHUP wakes us with a full buffer */
		read_conn(s);
	}
	if (p[WAIT_SIGNAL].revents)
		reap_child(s);
	return true;
}

/*
 * Tells the host the rest, and lets it close first so that nothing is lost.  A
 * serial port loses nothing, and what comes next on it is the next session's.
 */
static void wait_close(struct session *s)
{
	bool ended = false;

	for (;;) {
		flush_out(s);
		if (!ended && s->out_at == s->out_len) {
			ended = shutdown(s->conn, SHUT_WR) == 0;
			if (!ended)
				break;
		}
		if (s->hung_up || !wait_events(s, CLOSE_TIMEOUT_MS))
			break;
		s->in_len = 0;
	}
}

void session_run(int conn, struct session_shared *shared)
{
	struct session *s = &session;
	struct frame_writer w;
	sigset_t set;
	int flags = fcntl(conn, F_GETFL);

	/* The rest is zero, and stays untouched until used: pages cost start-up time. */
	s->shared = shared;
	s->conn = conn;
	s->child = (struct child){ .in_fd = -1, .out_fd = -1, .err_fd = -1 };
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	s->sig_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (flags < 0 || fcntl(conn, F_SETFL, flags | O_NONBLOCK) < 0 || s->sig_fd < 0)
		goto finish;

	out_begin(s, &w, AGENT_HELLO);
	put_hello(&w);
	out_end(s, &w);
	while (!s->hung_up && s->state != CLOSING) {
		flush_out(s);
		if (s->hung_up)
			break;
		(void)wait_events(s, s->tty_unused ? TTY_RETRY_MS : -1);
		s->tty_unused = false;
		take_frames(s);
		if (s->state == RUNNING)
			run_child(s);
	}
	if (s->state == RUNNING && !s->dead)
		(void)kill(-s->child.pid, SIGHUP);
	wait_close(s);
finish:
	close_fd(&s->child.in_fd);
	close_fd(&s->child.out_fd);
	close_fd(&s->child.err_fd);
	close_fd(&s->sig_fd);
	close(conn);
}

void session_refuse(int conn, int error, const char *message, int timeout_ms)
{
	struct pollfd p = { .fd = conn, .events = POLLIN };
	struct frame_writer w;
	uint8_t buf[REPLY_ROOM];
	size_t len;

	frame_begin(&w, buf, sizeof(buf), AGENT_HELLO);
	put_hello(&w);
	len = frame_end(&w);
	if (write(conn, buf, len) != (ssize_t)len)
		return;
	frame_begin(&w, buf, sizeof(buf), AGENT_ERROR);
	put_error(&w, error, 0, message);
	len = frame_end(&w);
	if (write(conn, buf, len) != (ssize_t)len)
		return;
	(void)shutdown(conn, SHUT_WR);
	while (poll(&p, 1, timeout_ms) > 0 && read(conn, buf, sizeof(buf)) > 0)
		;
}
