/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between the process that runs a VM and whoever started it: messages on a
 * SOCK_SEQPACKET socket, one descriptor at most with each.
 *
 *   owner                                 VM process
 *          <----------------------------- BORN (value: process id of the VM process)
 *   SPEC (text of machine/spec.h) ------>
 *          <----------------------------- STARTED (text: engine; value: port for GDB;
 *                                         value2: CONTROL_HAS_*) + memory of
 *                                         machine/counts.h, with networks | FAILED
 *          <----------------------------- CONSOLE*  bytes of the serial port
 *          <----------------------------- READY     + stream to the guest's agent; before STARTED when it
 *                                         was saved with the guest
 *   CONNECT (value: id, port) ---------->
 *          <----------------------------- CONNECTED (value: id, result) + stream
 *   COUNT ------------------------------>
 *          <----------------------------- COUNTERS of the engine, as text
 *          <----------------------------- NETWORK_LOST (value: number of the network)
 *   NETWORK (value: its number) -------> + connection to a new switch
 *   RESIZE (value: MiB) ---------------->
 *          <----------------------------- RESIZED (value: result)
 *   FORGET ---------------------------->
 *   SAVE ------------------------------> + file of machine/snapshot.h to fill
 *          <----------------------------- SAVED (value: result)
 *   WATCH (value: number of a disk) ---> + memory for block_watch()
 *          <----------------------------- WATCHED (value: result; text: "AT SIZE") + the disk's file
 *   CHECKPOINT ------------------------> + pipe for snapshot_build()
 *          <----------------------------- CHECKPOINTED (value: result)
 *   STAND ----------------------------->
 *          <----------------------------- CHECKPOINTED (value: result)
 *   GO_ON ----------------------------->
 *   KEEP (value: what it is worth) ----> + file of machine/code_file.h to fill
 *          <----------------------------- KEPT (value: result; value2: pages)
 *   HOLD ------------------------------> + file of machine/snapshot.h
 *          <----------------------------- KEPT (value: result)
 *   READS -----------------------------> + file of machine/reads.h to fill
 *          <----------------------------- KEPT (value: result)
 *          <----------------------------- FORBIDDEN (value: system call); it is being killed
 *          <----------------------------- ENDED     the guest stopped; the process exits
 *
 * Either side ends it by closing: a VM whose owner is gone stops.
 */
#ifndef MACHINE_CONTROL_H
#define MACHINE_CONTROL_H

#include <stddef.h>
#include <stdint.h>

struct err;

#define CONTROL_TEXT_MAX 65536u	/* bytes of text in a message */
#define CONTROL_WATCH_MAX (64ull << 20)	/* bytes, of which few are ever there: for disks of 32 TiB */

enum control_type {
	CONTROL_SPEC = 1,
	CONTROL_CONNECT,	/* value: request id; value2: port */
	CONTROL_CONSOLE_INPUT,	/* text: bytes for the serial port */
	CONTROL_COUNT,	/* asks for COUNTERS; value2: the question's number, which its answer repeats, as of all that have one */
	CONTROL_NETWORK,	/* value: number of a named network; descriptor: as link_port_renew() */
	CONTROL_RESIZE,	/* value: MiB of its memory that the guest is to keep */
	CONTROL_FORGET,	/* what the engine has to save time; it begins anew.  No answer */
	CONTROL_SAVE,	/* value: 1: when the guest is idle, and has done what it put off; descriptor: a file of snapshot_size()
			 * bytes, all holes */
	CONTROL_CHECKPOINT,	/* descriptor: a pipe for machine_checkpoint(); text: bytes of the struct snapshot_id */
	CONTROL_WATCH,	/* value: number of a disk, until it stands; descriptor: CONTROL_WATCH_MAX bytes of memory for block_watch() */
	CONTROL_STAND,	/* for machine_stand() */
	CONTROL_GO_ON,	/* after either of them.  No answer */
	CONTROL_HALT,	/* for good, when KEEP is worth while; value: as for that.  KEPT answers, value: enum control_lesson */
	CONTROL_KEEP,	/* once each, of its boot, of the snapshot that was saved or that it came from, or before GO_ON; value: how much must be new, as
			 * engine_ops.learned() has it; descriptor: a file of CODE_FILE_MAX bytes, all holes */
	CONTROL_HOLD,	/* descriptor: a file for machine_hold_snapshot(): KEEP can be asked once more */
	CONTROL_READS,	/* descriptor: a file of READS_FILE_MAX bytes, all holes, for machine_write_reads() */

	CONTROL_BORN = 63,	/* from the helper: value: process id of the VM process */
	CONTROL_STARTED,	/* text: name of the engine; value: port that GDB may connect to, 0: none;
				 * value2: CONTROL_HAS_*; descriptor: memory of machine/counts.h, when
				 * there are networks */
	CONTROL_FAILED,	/* value: negative errno; text: a sentence */
	CONTROL_CONSOLE,	/* text: bytes */
	CONTROL_READY,	/* descriptor: stream to the agent; text: its ports, "GUEST:HOST"; value: 1 when it was saved with
			 * the guest, both having said HELLO */
	CONTROL_CONNECTED,	/* value: request id; value2: 0 or negative errno; descriptor; text: its ports, "GUEST:HOST" */
	CONTROL_NETWORK_LOST,	/* value: number of a named network whose switch has ended */
	/* Answers: value2 is the number of the question. */
	CONTROL_COUNTERS,	/* text: lines "name value" */
	CONTROL_RESIZED,	/* value: 0 or negative errno; text: a sentence */
	CONTROL_SAVED,	/* value: 0 or negative errno; text: a sentence */
	CONTROL_CHECKPOINTED,	/* the same */
	CONTROL_WATCHED,	/* value: 0 or negative errno; text: what block_file_of() says, and bytes of the disk, in decimal, or a
				 * sentence; descriptor: the file */
	CONTROL_KEPT,	/* as SAVED; value: pages of the file that were used, 0: it is not worth one; of READS bytes */
	CONTROL_FORBIDDEN,	/* value: number of the system call that the jail has stopped it for */
	CONTROL_ENDED,	/* value: enum control_end; text: a sentence, empty for a plain power-off */
};

enum {
	CONTROL_HAS_HELPER = 1,	/* that goes on, as a maker of sockets */
	CONTROL_HAS_LESSONS = 2,	/* KEEP may be worth while when it ends */
};

enum control_lesson {
	CONTROL_LESSON_CODE = 1,	/* KEEP is worth while, and the guest stopped */
	CONTROL_LESSON_READS = 2,	/* READS is: its template's memory lacks much that it has read */
};

enum control_end { CONTROL_END_POWEROFF, CONTROL_END_RESET, CONTROL_END_CRASH, CONTROL_END_ERROR };

struct control_msg {
	uint32_t type;	/* enum control_type */
	int32_t value, value2;
	uint32_t len;	/* bytes of text */
	char text[CONTROL_TEXT_MAX + 1];	/* NUL added by control_recv() */
};

/*
 * Sends one message, with descriptor @fd unless it is -1 (it stays the
 * caller's).  Returns 0, -EAGAIN when the socket is full, -EPIPE when the other
 * side is gone, or another negative errno.
 */
int control_send(int sock, enum control_type type, int32_t value, int32_t value2, const void *text,
		 size_t len, int fd);

/* Sends FORBIDDEN for system call @nr.  Async-signal-safe, and by write(2) only. */
void control_send_forbidden(int sock, long nr);

/*
 * Receives one message.  Returns 1 and fills @ret_msg and @ret_fd (-1 or a
 * descriptor that passes to the caller), 0 at the end, -EAGAIN, -EPROTO for a
 * malformed message, or another negative errno.
 */
int control_recv(int sock, struct control_msg *ret_msg, int *ret_fd);

#endif /* MACHINE_CONTROL_H */
