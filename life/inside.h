/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the monitor share.  All of it lives on the thread of the loop, but
 * for struct starter while its thread runs.
 *
 *   fork.c      the process; standby.c: one that was there before
 *   monitor.c   lives: start, end, restart, stop
 *   notes.c     what the first client is told besides: phases, counters
 *   starter.c   the thread that prepares and boots a machine
 *   command.c   the command that is the VM's purpose: its streams, log and clients
 *   server.c    connections and HTTP
 *   service.c   what is served: one function a route
 *   guest.c     other sessions with the agent: a client's exec or copy, and questions on its behalf
 *   call.c      one request to the agent and its answer
 *   checkpoint.c  the VM in a file, with the command's session, and back
 *   health.c    the checks; stats.c: what statistics are told as
 */
#ifndef LIFE_INSIDE_H
#define LIFE_INSIDE_H

#include "api/session.h"
#include "life/frames.h"
#include "life/http.h"
#include "life/monitor.h"
#include "life/output.h"
#include "life/stream.h"
#include "os/err.h"
#include "roux/roux.h"

#include <pthread.h>
#include <stdatomic.h>

struct cJSON;
struct conn;
struct loop;
struct loop_source;
struct monitor;

/* Exit statuses of roux itself where the command has none, as docker's. */
enum {
	STATUS_TIMEOUT = 124,
	STATUS_FAILED = 125,
	STATUS_NOT_RUNNABLE = 126,
	STATUS_NOT_FOUND = 127,
	STATUS_KILLED = 128 + 9,
};

/* ------------------------------------------------------------------ starter */

/* Where a session was when the VM was saved. */
struct session_notes {
	char stream[SESSION_STREAM];
	uint8_t *in, *out;	/* owned: received and not understood yet; to be sent */
	size_t in_len, out_len;
	uint32_t window;
	bool eof_sent;
	char address[2][50];	/* of the guest: "ADDRESS/BITS", IPv4 and IPv6; "": it had none */
};

/* A start under way: a machine and its command, or why there is none. */
struct starter {
	struct monitor *monitor;	/* borrowed; the thread only posts to its loop */
	pthread_t thread;
	volatile int cancel;	/* stops the preparations */
	_Atomic(struct roux_machine *) machine;
	/* Valid when it has ended. */
	int result;	/* 0 or a negative errno */
	int status;	/* exit status that tells the failure */
	struct roux_error error;
	struct session session;	/* of the command */
	bool restored, own_code;	/* it goes on from a snapshot, whose translated code is ours */
	struct session_notes notes;	/* of that */
	uint64_t started_ns;	/* CLOCK_MONOTONIC when the command ran */
	char *before;	/* counters before the command ran, or NULL */
};

/* Begins; monitor_started() is called when it has ended.  0 or a negative errno. */
int starter_begin(struct monitor *m);

/*
 * A machine for VMs like that of @record, made of their template, which has not been told who it is.  0 or a negative
 * errno with a sentence.
 */
int starter_make_ready(const struct vm_record *record, const struct monitor_options *options, struct roux_machine **ret_machine,
		       struct roux_error *error);

/* Asks it to end soon; it still calls monitor_started(). */
void starter_cancel(struct monitor *m);

/* ------------------------------------------------------------------ command */

struct command {
	struct stream stream;	/* to its agent session; fd -1 when it does not run */
	char name[SESSION_STREAM];	/* of that, as struct session has it */
	uint32_t window;	/* bytes of input the agent takes */
	bool eof_sent;
};

/* @notes: of a session that goes on, or NULL. */
int command_begin(struct monitor *m, struct session *session, const struct session_notes *notes);
void command_end(struct monitor *m);

/* Sends it a signal.  0, or -ESRCH when nothing runs. */
int command_signal(struct monitor *m, int signo);
void command_resize(struct monitor *m, uint16_t rows, uint16_t cols);

/* A frame from an attached client.  False when it breaks the protocol. */
bool command_client_frame(struct conn *c, const struct frame *f);

/* A client has come: tell it where the command is. */
void command_greet(struct conn *c);
/* A client is leaving. */
void command_client_gone(struct conn *c);

/* Goes on reading output when no client holds it up. */
void command_unblock(struct monitor *m);

/* -------------------------------------------------------------- connections */

enum conn_mode { CONN_HTTP, CONN_WAITING, CONN_ATTACHED, CONN_RELAY, CONN_DEAD };

struct conn {
	struct conn *next;
	struct monitor *m;
	struct stream stream;
	enum conn_mode mode;
	bool keep_alive;	/* of the request being answered */
	/* CONN_WAITING: called when the VM has reached a resting state (stopped, or started again). */
	void (*answer)(struct conn *c);
	bool until_started;	/* waits for a start rather than for the end */
	/* CONN_ATTACHED */
	bool creator;	/* started the VM; never dropped for being slow */
	bool output;	/* wants what the command writes */
	bool detached;	/* said that it leaves, so that its end is not the end of the input */
	uint8_t *input;	/* what the command has not taken yet; owned */
	size_t input_len;
	bool input_eof;
	/* CONN_RELAY: the guest's end of it. */
	struct relay *relay;
	struct question *question;	/* that the guest is asked on its behalf, or NULL */
};

int server_listen(struct monitor *m, struct err *err);
/* Takes over a connected descriptor.  NULL when there are too many, or no memory. */
struct conn *server_add(struct monitor *m, int fd);
/* Closes all connections when their output is sent; the loop ends with the last one. */
void server_finish(struct monitor *m);
void conn_close(struct conn *c);	/* at once; freed soon */
void conn_finish(struct conn *c);	/* when its output is sent */

/* Answers with JSON, which passes to the callee (NULL: an empty object). */
void conn_json(struct conn *c, int status, struct cJSON *json);
void conn_text(struct conn *c, int status, const char *type, const char *text, size_t len);
/* Answers {"message": ..., "code": exit status}. */
void conn_error(struct conn *c, int status, int code, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
/* Answers 101; what follows are frames of abi/agent.h. */
void conn_upgrade(struct conn *c);

/* Sends EXITED, or ERROR with a sentence (may be ""). */
void conn_exited(struct conn *c, int status);
void conn_failed(struct conn *c, int error, int status, const char *message);
/* A frame with text for the client's standard error; see LIFE_NOTE. */
void conn_note(struct conn *c, const char *text, size_t len);

/* Handles a request; @body is NUL-terminated. */
void service_request(struct conn *c, const struct http_request *rq, const char *body);

/* -------------------------------------------------------------------- guest */

/*
 * Connects a client with a session of its own in the guest, in which the command of
 * @frame (EXEC, passes to the callee) runs.
 */
void guest_exec(struct conn *c, uint8_t *frame, size_t len);
/* There is more to pass on, or room for it. */
void guest_relay(struct conn *c);
void relay_end(struct conn *c);

/*
 * Called once with every frame of the agent's answer but HELLO, one behind the other;
 * @frames NULL when the guest does not answer.
 */
typedef void (*guest_answer_fn)(struct conn *c, const uint8_t *frames, size_t len);

/* Asks the agent on behalf of a client, which waits. */
void guest_ask(struct conn *c, const uint8_t *request, size_t len, guest_answer_fn answer);

/* The client has gone: the answer is nobody's. */
void guest_forget(struct conn *c);

/* The monitor's own business with the guest: its share of CPUs, health checks. */
void guest_begin(struct monitor *m);	/* the machine runs */
void guest_end(struct monitor *m);	/* it is about to be destroyed */

/* --------------------------------------------------------------- checkpoint */

struct checkpoint_options {
	const char *path;	/* absolute, of the file */
	const char *base;	/* the same of the snapshot that it goes on top of.  NULL: it is a full one */
	bool compress, stop;	/* @stop: end the VM then */
	bool keep_disks;	/* disks that it writes to are not saved: they have to be as they are when it is restored */
};

/* Saves the VM.  0 and bytes of memory in the file, before compression, or a negative errno with a sentence. */
int checkpoint_write(struct monitor *m, const struct checkpoint_options *options, uint64_t *ret_bytes, struct err *err);

/* What @text, the notes of a snapshot, says of the session.  0 or -EBADMSG with a sentence; to be finished in both cases. */
int session_notes_read(const char *text, struct session_notes *ret_notes, struct err *err);
void session_notes_finish(struct session_notes *notes);

/* -------------------------------------------------------------------- notes */

/* Tells the client that started the VM @text, if it is still there. */
void notes_tell(struct monitor *m, const char *text, size_t len);
/* How long each phase of the start took, as one line of JSON. */
void notes_tell_phases(struct monitor *m);
/* What the engine counted before and while the command ran. */
void notes_tell_counters(struct monitor *m);

/* ------------------------------------------------------------------ monitor */

struct monitor {
	struct vms vms;
	struct vm_owned owned;
	struct vm_record record;
	struct monitor_options options;
	struct loop *loop;
	struct loop_source *listen, *signals, *events;	/* events: of the machine */
	int listen_fd, signal_fd;
	struct conn *conns;
	unsigned nconns;
	struct starter *starter;	/* a start is under way, or NULL */
	struct roux_machine *machine;	/* NULL: none */
	struct roux_machine *dying;	/* killed, and not waited for yet.  NULL: none */
	bool learnt;	/* the template has, much, from the machines of these lives */
	bool learning;	/* @dying stands still instead, for its template to learn from it when clients are gone */
	struct command command;
	struct output_writer output;
	uint64_t command_ns;	/* CLOCK_MONOTONIC of its start */
	char *counters;	/* of the engine when it started, or NULL */
	struct loop_source *restart_timer, *stop_timer, *limit_timer, *slow_timer, *rest_timer;
	bool unsynced;	/* it has started, and its record is not written and durable yet: see on_rest() */
	bool begun;	/* the client that starts the VM is there to see it */
	bool first_life;
	bool stopping;	/* the end was asked for */
	bool killing;	/* and cannot wait any longer */
	bool restart_asked;	/* it is to start again after that */
	bool called_off;	/* the client that started it left before it ran */
	int end_status;	/* exit status the end was asked for with, 0: the command's own */
	char end_reason[128];
	uint64_t backoff_ns;
	bool finished;
	bool forget;	/* it never became anything: its record goes */
	struct health *health;	/* owned, NULL without checks */
	struct clock_watch *clock;	/* owned, NULL: the guest keeps its own time */
	struct roux_machine *ready;	/* owned: one that has waited for this VM; NULL: none */
	struct {	/* what makes one for the next VM */
		bool possible;	/* it can be made of a template */
		pid_t pid;	/* 0: none at work */
		int pidfd;
		struct loop_source *source, *timer;
	} standby;
};

/*
 * Serves the VM until it has ended, and ends the process.  @client is the connection to the command that starts the VM.
 * @err: what has failed already, which that is told; code 0: nothing.
 */
__attribute__((noreturn)) void monitor_main(struct monitor *m, int client, struct err *err);

/* The client that starts the VM has attached: its first life begins. */
void monitor_begin(struct monitor *m);
/* That client is gone: without a life begun there is nothing to do. */
void monitor_unwanted(struct monitor *m);

/* From starter.c, on the loop's thread. */
void monitor_started(struct monitor *m);

/* The command ended with @status. */
void monitor_exited(struct monitor *m, int status);
/* The VM ended in another way; @status is the exit status that tells it. */
void monitor_failed(struct monitor *m, int status, const char *why);

/* Asks for the end: stop signal, after @timeout_ms (negative: never) SIGKILL. */
void monitor_stop(struct monitor *m, int64_t timeout_ms);
/* Ends the machine within moments, whatever the guest does. */
void monitor_kill(struct monitor *m);
/* Ends it soon, without asking the guest, which may stand still. */
void monitor_end(struct monitor *m);
/* The client that wanted the VM left before it ran. */
void monitor_call_off(struct monitor *m, int status);

/* Makes its timers.  0 or a negative errno. */
int monitor_set_up(struct monitor *m, struct err *err);

void monitor_save(struct monitor *m);
/* It has done something, and may have nothing to do from now on. */
void monitor_rests(struct monitor *m);
bool monitor_running(const struct monitor *m);
int monitor_stop_signal(const struct monitor *m);

#define CLIENT_QUEUE_MAX (256u << 10)	/* bytes queued for a client at which the command's output waits */
#define CLIENT_SLOW_MS 10000u	/* after which a client that takes nothing is dropped */

#endif /* LIFE_INSIDE_H */
