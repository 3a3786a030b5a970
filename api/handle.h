/* SPDX-License-Identifier: Apache-2.0 */
/* What the public handles hold, shared by the files of this folder. */
#ifndef API_HANDLE_H
#define API_HANDLE_H

#include "api/session.h"
#include "machine/control.h"
#include "machine/spec.h"
#include "os/err.h"
#include "roux/roux.h"

#include <pthread.h>
#include <sys/types.h>

struct oci_config;
struct oci_image;
struct store;
struct store_lease;

#define MACHINE_ID_DIGITS 32
#define CONSOLE_TAIL 8192u	/* bytes of console output kept */

/* Called once, from machine_events(): 0 and a stream that passes to the callee, or a negative errno and -1. */
typedef void (*machine_connected_fn)(void *ctx, int result, int fd);

/* A connection to the agent that was asked for and has not come yet. */
struct machine_connect {
	struct machine_connect *next;
	int32_t id;
	machine_connected_fn connected;
	void *ctx;
};

struct roux_machine {
	struct machine_spec spec;
	int seat_fd[SPEC_NETS_MAX];	/* places on named networks, owned; -1: none */
	char *guest_name;	/* there, NULL: none */
	struct cgroup *cgroup;	/* owned, NULL: the host has none for us; the limiter's while that runs */
	struct {	/* makes the control group */
		pthread_t thread;
		bool running;
		pid_t pid, helper;	/* to be moved into it */
	} limiter;
	bool transient;
	struct store *store;	/* owned, NULL unless the image is from there */
	struct store_lease *lease;	/* owned; keeps the image while the machine exists */
	struct oci_image *image;	/* owned, NULL without one */
	const struct oci_config *config;	/* of the image, NULL without one */
	char *vmm;	/* path of the roux command */
	const struct counts *counts;	/* NULL: none yet */
	char *counters;	/* last answer to CONTROL_COUNT, or NULL */
	struct {
		int32_t number;	/* of the question whose answer is waited for, 0: none, or it is there */
		int32_t value;
		struct err err;
		int fd;	/* owned until it is taken, of CONTROL_WATCHED; -1: none */
		char text[64];	/* of that */
	} answer;	/* to the last machine_ask() */
	char *template;	/* path of the one that it comes from or leaves; NULL: it has none */
	dev_t template_dev;	/* which file that was when the machine was made of it */
	ino_t template_ino;
	bool learns;	/* what its process translated may be worth being kept when it ends */
	bool left_template;	/* that later ones of its kind are made of */
	int lessons;	/* that machine_learn_begin() found, enum control_lesson */
	int root_share, root_disk;	/* number of the root in the spec, as what it is; else -1 */
	char *boot_code;	/* path of what boots like its own translated; NULL: there is none */
	struct template_writer *writer, *boot_writer;	/* owned, NULL: none at work */
	struct err boot_failed;	/* what the agent said instead of being ready; code 0: nothing */
	struct {	/* that a restored guest had on its network */
		char addr[2][50];	/* "ADDRESS/BITS", "": none */
		bool known;
	} had;
	bool identified;	/* the guest has been told which machine it is */
	char *hostname, machine_id[MACHINE_ID_DIGITS + 1];
	unsigned start_timeout_ms;	/* 0: none */
	pid_t pid;	/* of the VM's process, 0 before and after */
	pid_t helper;	/* of the process that helps it from outside its jail, 0: none */
	int sock;	/* control socket, -1 */
	int wake_fd;	/* eventfd of roux_machine_interrupt() */
	enum roux_state state;
	char reason[256];
	char engine[16];
	struct control_msg *msg;	/* receive buffer */
	int ready_fd;	/* a connection of the agent's for the first who wants one, -1 */
	bool greeted;	/* both have said HELLO on that */
	char ready_stream[SESSION_STREAM], stream[SESSION_STREAM];	/* names of that, and of the stream that came last */
	struct machine_connect *connects;	/* owned */
	int32_t last_connect;	/* id given out last */
	int32_t last_question;	/* number given out last */
	uint64_t phase[ROUX_PHASES];
	roux_console_fn console;
	void *console_ctx;
	roux_gdb_fn gdb;
	void *gdb_ctx;
	char tail[CONSOLE_TAIL + 1];
	size_t tail_len;
};

/* Copies an internal report to the caller's; returns @code. */
int give_error(struct roux_error *error, const struct err *err, int code);

/* Image, kernel and initramfs into machine->spec.  0 or a negative errno. */
int prepare(struct roux_machine *machine, const struct roux_options *options, struct err *err);

/*
 * A session with the guest's agent.  Each answer of a guest takes a millisecond and its turn on a
 * processor: what comes first is only sent, and after the caller's own request machine_settle() takes
 * the answers to it.  0 or a negative errno with a sentence.
 */
int machine_session(struct roux_machine *machine, struct session *ret_session, struct err *err);
int machine_settle(struct roux_machine *machine, struct session *session, struct err *err);

/*
 * Asks for a stream to the guest's agent without waiting for it.  0, and @fn is called
 * once, from roux_machine_destroy() at the latest; or a negative errno.
 */
int machine_connect_agent(struct roux_machine *machine, machine_connected_fn fn, void *ctx);

/*
 * Gives the VM @shares (2 to 262144) of the CPUs when they are short; 1024 is everybody's.
 * By its control group, else by the nice value of its threads: then only root may give
 * more than 1024.  0 or a negative errno with a sentence.
 */
int machine_set_shares(struct roux_machine *machine, uint32_t shares, struct err *err);

/* --- launch.c --- */
/* Starts the VM's process and sends it the spec.  0 or a negative errno. */
int machine_launch(struct roux_machine *machine, struct err *err);
/* Waits for one that is about to end; *@pid becomes 0. */
void machine_reap(pid_t *pid, int *ret_status);
/* Kills what there is of it; it takes some milliseconds to be gone. */
void machine_kill(struct roux_machine *machine);
/*
 * The same, and waits until nothing of the host is in its hands: no file, no memory, no port, no
 * place on a network; and its template is written.
 */
void machine_let_go(struct roux_machine *machine);
/* What it keeps of its image may be removed: its guest does not run any more. */
void machine_leave_image(struct roux_machine *machine);
/* The same, and waits until it is gone. */
void machine_end_process(struct roux_machine *machine);
/* roux_machine_destroy() of one that nobody has used: there is nothing to learn from it.  NULL is fine. */
void machine_discard(struct roux_machine *machine);

/*
 * Has @machine, which was not started yet, run in the process of @ready: of the same make, from the same template, and
 * never told who it is.  True, and @ready is only to be destroyed; or false, and nothing has changed.
 */
bool machine_take_over(struct roux_machine *machine, struct roux_machine *ready);

/* --- agent.c --- */
#define CONNECT_TIMEOUT_MS 10000u	/* for a guest that is up */
/* Session on the agent's first connection: 0, or what kept the guest from being ready. */
int machine_check_ready(struct roux_machine *machine, uint64_t deadline, struct session *ret_session, struct err *err);
/* A stream to the agent until CLOCK_MONOTONIC @deadline, ns: a descriptor, or a negative errno with a sentence. */
int machine_open_stream(struct roux_machine *machine, uint64_t deadline, struct err *err);
/* Tells those who wait for streams that there will be none. */
void machine_forget_connects(struct roux_machine *machine);

/* --- events.c --- */
/* Takes request @id off those under way; NULL: none has it. */
struct machine_connect *machine_take_connect(struct roux_machine *machine, int32_t id);
/* The VM's process has hung up: finds out why. */
void machine_process_gone(struct roux_machine *machine);
bool machine_ended(const struct roux_machine *machine);
/* Handles what comes next before CLOCK_MONOTONIC @deadline, ns; -ETIMEDOUT when that is over. */
int machine_events_until(struct roux_machine *machine, uint64_t deadline);
/* Asks the VM's process for something that it answers with a result; with descriptor @fd or -1.  0 or a negative errno. */
int machine_ask(struct roux_machine *machine, enum control_type what, int32_t value, int fd, unsigned timeout_ms,
		struct err *err);
/* The same with @len bytes of text. */
int machine_ask_with(struct roux_machine *machine, enum control_type what, int32_t value, const void *text, size_t len, int fd,
		     unsigned timeout_ms, struct err *err);

/* --- checkpoint.c --- */
/*
 * The machine goes on from snapshot @path instead of booting.  @stream: of the guest's connections the one that
 * machine_take_saved() gives.  @own_code: the translated code in the file is ours (checkpoint_notes()).  Between
 * roux_machine_create() and roux_machine_start().  0 or a negative errno.
 */
int machine_restore_from(struct roux_machine *machine, const char *path, const char *stream, bool own_code);

/*
 * The guest's addresses on its first network, "ADDRESS/BITS" each, "" for none.  What machine_addresses() said when
 * a guest was saved is what machine_restore_addresses() has to be told before it starts: it keeps them when they are
 * free, with its connections on the network; else the guest gets others.
 */
void machine_addresses(const struct roux_machine *machine, char ret_addr[2][50]);
void machine_restore_addresses(struct roux_machine *machine, const char *addr4, const char *addr6);

/* And its disk @index, which has an overlay, from layer @path (api/disks.h), which it writes to. */
int machine_restore_layer(struct roux_machine *machine, unsigned index, const char *path);

/*
 * That session, or the one begun in the template that it comes from; after roux_machine_start().  0, or -ENOENT with a
 * sentence.
 */
int machine_take_saved(struct roux_machine *machine, struct session *ret_session, struct err *err);

/*
 * Tells the restored guest the time, and gives it random numbers that no copy of it has; then its programs go on.  0 or a
 * negative errno with a sentence.
 */
int machine_identify(struct roux_machine *machine, struct err *err);

/*
 * The notes of snapshot @path, which the caller frees; NULL when it has none.  @ret_own_code, unless NULL: all of the
 * file and of those that it is on top of is read (os/checked.h), to see whether it is damaged, and whether its translated
 * code was made by this user; somebody else's could be anything.  0 or a negative errno with a sentence.
 */
int checkpoint_notes(const char *path, char **ret_notes, bool *ret_own_code, struct err *err);

/* A snapshot under way. */
struct checkpoint;

/* What it is to be; all zero but @scratch -1: full and as it is. */
struct checkpoint_plan {
	const char *base;	/* borrowed until checkpoint_end(): the snapshot that it goes on top of.  NULL: none */
	const char *base_name;	/* the same: its path from the new file's folder */
	int scratch;	/* borrowed the same, an empty file for memory until it is compressed.  -1: it is not to be */
};

/*
 * Has the guest written to the empty file @fd, which stays the caller's, on a thread: while it runs, and what has
 * changed meanwhile with its programs frozen and it standing still.  It stands until checkpoint_go_on(): so the caller can
 * find out what it has received of it by then.  0 or a negative errno with a sentence, and then it does not stand.
 */
int checkpoint_begin(struct roux_machine *machine, int fd, const struct checkpoint_plan *plan,
		     struct checkpoint **ret_checkpoint, struct err *err);
void checkpoint_go_on(struct roux_machine *machine);

/*
 * Completes the file, with @notes, and frees it.  0, how many bytes of memory it has, and whether there is translated
 * code; or a negative errno with a sentence.
 */
int checkpoint_end(struct checkpoint *checkpoint, const char *notes, uint64_t *ret_bytes, bool *ret_own_code, struct err *err);

/*
 * File @fd is called @path now: it need not be read to find that it is whole, if what it is on top of need not either.
 * Waits for a tick of the clock.
 */
void checkpoint_written(const char *path, int fd, bool own_code);

/* --- rehearse.c --- */
/*
 * A session of its own, whose agent has said HELLO.  0, or a negative errno with a sentence; *@ret_session is the caller's to
 * end in both cases.
 */
int machine_begin_session(struct roux_machine *machine, struct session *ret_session, uint64_t deadline, struct err *err);
/*
 * The agent hangs up too, and then the guest knows of no stream: @result, or instead of a good one -ETIMEDOUT or -EINTR when
 * that could not be waited for.  A session that was never open is fine.
 */
int machine_end_session(struct roux_machine *machine, struct session *session, uint64_t deadline, int result);
/*
 * Has the agent do, @times, what it will do for every machine of the template: run a program, the image's shell or one of its own.
 * What that takes is then there.  0, or a negative errno with a sentence.
 */
int machine_warm_up(struct roux_machine *machine, unsigned times, uint64_t deadline, struct err *err);
/*
 * A program is stopped and goes on, as around a snapshot: what restored guests begin with is translated in all machines of
 * the template then, and in snapshots of them.  0, 1 when that program did not do what it should, or as machine_warm_up().
 */
int machine_rehearse_stop(struct roux_machine *machine, uint64_t deadline, struct err *err);

/* --- start.c --- */
/* Whether the template that @machine was made of is still there, and no other in its place. */
bool machine_template_is_same(const struct roux_machine *machine);

/* --- leave.c --- */
/* Saves the guest, which has booted, as a template.  That fails quietly, as this machine has what it needs: 0, or -EINTR. */
int machine_leave_template(struct roux_machine *machine);
/*
 * Where its machines have read much that the template's memory lacks: starts the machine, which has not started, and has it leave a
 * template that has it.  True when it did, or tried: it is fit for machine_discard() only.
 */
bool machine_improve_template(struct roux_machine *machine);

/* --- read_ahead.c --- */
/* Whether the list of @len bytes at @list (machine/reads.h) is worth a new template. */
bool machine_reads_are_worth_it(const struct roux_machine *machine, const void *list, size_t len);
/*
 * Has the guest of a machine of a template that nobody uses read what is in that list, in its first session, which ends.
 * 1: it has read something worth a new template; 0; or a negative errno with a sentence.
 */
int machine_read_ahead(struct roux_machine *machine, const void *list, size_t len, uint64_t deadline, struct err *err);

/* --- learn.c --- */
/* What the VM's process translated, when at least @least of it is new: 0 and bytes of @fd (machine/code_file.h), 0: none. */
int machine_ask_for_code(struct roux_machine *machine, unsigned least, int fd, uint64_t *ret_bytes);
/* What the boot translated, for the next one.  Without it that takes longer, and nothing else. */
void machine_leave_boot_code(struct roux_machine *machine);
/*
 * Has its template, or others that boot as it did, know what the machine, which is about to end, translated and read: begin()
 * stops the guest, at once, and returns true when there is something to learn.  end() takes tens of milliseconds for that.
 */
bool machine_learn_begin(struct roux_machine *machine);
/* True when that was so much that machines made of the template before are the worse for not having it. */
bool machine_learn_end(struct roux_machine *machine);
/*
 * Handles control messages that are there; blocks up to @timeout_ms for the first,
 * and returns -EINTR when that wait was interrupted.
 */
int machine_events(struct roux_machine *machine, int timeout_ms);

#endif /* API_HANDLE_H */
