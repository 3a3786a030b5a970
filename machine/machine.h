/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A running machine: the composition root.  Only this module names every
 * engine, device and back end.
 *
 *   caller's loop:  console, entropy, vsock, balloon, serial
 *   own I/O thread: file systems and disks, which may wait for the host
 *
 * Interrupt lines: COM1 has 4, virtio devices 5 and up in order of their
 * windows at BOOT_DEVICES.
 *
 * Threads: all functions on the caller's loop thread, or before it runs.
 * Callbacks of struct machine_events arrive there too.
 */
#ifndef MACHINE_MACHINE_H
#define MACHINE_MACHINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct jail;
struct loop;
struct machine;
struct machine_spec;
struct snapshot_id;
struct vm_end;

#define MACHINE_MEMORY_MIN (32ull << 20)	/* bytes */

/* A stream by the ports at both ends; @host_port 0: any. */
struct machine_stream {
	uint32_t guest_port, host_port;
};

struct machine_events {
	/* Required.  The guest stopped by itself. */
	void (*ended)(void *ctx, const struct vm_end *end);
	/* Optional.  Bytes of the serial console. */
	void (*console)(void *ctx, const uint8_t *data, size_t len);
	/*
	 * Optional.  The guest's agent connected to AGENT_READY_PORT: @fd is our end
	 * of the stream, which passes to the callee.
	 */
	void (*ready)(void *ctx, int fd, const struct machine_stream *stream);
	/* Optional.  The switch of network @index has ended: machine_renew_network(). */
	void (*network_lost)(void *ctx, unsigned index);
	/*
	 * Optional, of the jail.  A thread made forbidden system call @nr; the process is
	 * about to be killed.  In a signal handler.
	 */
	void (*forbidden)(long nr);
	void *ctx;
};

/*
 * Builds the machine and loads the guest; no vCPU runs yet.  @spec is borrowed
 * during the call, @loop for the machine's life.  @cache_dir: existing folder for
 * unpacked kernels, or NULL.  @jail: begun by jail_fork(), for machine_start() to
 * close, borrowed for the machine's life; NULL: none.  0, or a negative errno with a
 * sentence.
 */
int machine_create(struct loop *loop, const struct machine_spec *spec, const char *cache_dir, struct jail *jail,
		   const struct machine_events *events, struct machine **ret_machine, struct err *err);

/* Stops and frees.  NULL is fine. */
void machine_destroy(struct machine *machine);

/*
 * Closes the jail, starts the threads and lets the guest run.  From here on the
 * calling thread is confined too (machine/confine.h, main).
 */
int machine_start(struct machine *machine, struct err *err);

/* Drops what the engine keeps to save time: machine_keep() then writes what it uses from here on. */
void machine_forget(struct machine *machine);

/*
 * Saves the guest, which runs, into file @fd of snapshot_size() bytes (machine/snapshot.h), all holes, which passes to
 * the machine; it goes on afterwards, with whoever is restored from the file as its double.  0 or a negative errno with a sentence.
 */
int machine_save(struct machine *machine, int fd, struct err *err);

/*
 * Writes what the engine keeps for machines from the snapshot that was saved last or that this one came from, or for
 * others that boot as this one did when there is none, into
 * file @fd of CODE_FILE_MAX bytes (machine/code_file.h), all holes.  Once.  0, and how many bytes were used: 0 when
 * less than @least is new (engine_ops.learned()).  Or a negative errno with a sentence.
 */
int machine_keep(struct machine *machine, int fd, unsigned least, uint64_t *ret_bytes, struct err *err);

/*
 * After that, file @fd is what machine_save() had written, so that it can be done again; it stays the caller's.  0, or a
 * negative errno with a sentence.
 */
int machine_hold_snapshot(struct machine *machine, int fd, struct err *err);

/* True when machine_keep() may be worth while when it ends. */
bool machine_learns(const struct machine *machine);

/* At its end: stops the guest for good and returns true when at least @least may be new, so that machine_keep() can follow. */
bool machine_halt(struct machine *machine, unsigned least);

/*
 * Writes the guest to @fd, a pipe or stream socket that blocks, for snapshot_build(), which makes snapshot @id of it:
 * machine_checkpoint() while it runs, until little of it changes, and machine_stand() the rest.  From there it is
 * stopped until machine_go_on(), and machine_keep() is of that snapshot.  machine_go_on() may also come in between,
 * and calls it off.  @fd passes to the machine.  0 or a negative errno with a sentence, and then it is called off.
 */
int machine_checkpoint(struct machine *machine, int fd, const struct snapshot_id *id, struct err *err);
int machine_stand(struct machine *machine, struct err *err);
void machine_go_on(struct machine *machine);

/* What machine_watch() tells of a disk: block_file_of(), and its size in bytes. */
struct machine_disk {
	int fd;	/* borrowed */
	uint64_t at, size;
};

/*
 * Notes what is written to disk @index of the spec in @map, which passes to the machine and has CONTROL_WATCH_MAX
 * bytes, until machine_stand() or machine_go_on().  0 or a negative errno with a sentence.
 */
int machine_watch(struct machine *machine, unsigned index, int map, struct machine_disk *ret_disk, struct err *err);

/* True when its processors all wait, have done nothing since the last call, and streams to it are at rest: these are saved. */
bool machine_is_idle(struct machine *machine);

/*
 * While its processors all wait its time goes on at once to the next of its timers, if that is within @most ns.  Returns by
 * how much, in ns; 0: there is none, or the engine cannot; -EAGAIN: one of them runs, or is about to.
 */
int64_t machine_skip_time(struct machine *machine, uint64_t most);

/* True when the helper of the jail goes on as a maker of sockets.  After machine_start(). */
bool machine_has_helper(const struct machine *machine);

/* The memory of machine/counts.h, once: a descriptor that passes to the caller, or -1 without networks. */
int machine_take_counts_fd(struct machine *machine);

/* Writes the counters of engine and balloon to @text, a line "name value" each, NUL-terminated.  Any time after the start. */
void machine_counters(struct machine *machine, char *text, size_t size);
/* Name of the engine in use.  Borrowed. */
const char *machine_engine(const struct machine *machine);

/* The port on 127.0.0.1 that GDB may connect to; 0: none. */
uint16_t machine_gdb_port(const struct machine *machine);

/* Queues bytes of serial input.  Returns how many fitted. */
size_t machine_console_input(struct machine *machine, const uint8_t *data, size_t len);

typedef void (*machine_stream_fn)(void *ctx, int result, int fd, const struct machine_stream *stream);

/*
 * Connects a stream to @port of the guest; @done gets 0, our end of it (which passes to the callee) and its name,
 * or a negative errno and -1.  May call @done at once.
 */
void machine_connect(struct machine *machine, uint32_t port, machine_stream_fn done, void *ctx);

/*
 * Our end of a stream that was saved with the guest: a descriptor that passes to the caller, -ENOENT or another
 * negative errno.  A host port of 0 is any, and becomes the one that it is.
 */
int machine_take_stream(struct machine *machine, struct machine_stream *stream);

/* The restored guest is told that those not taken are gone. */
void machine_abandon_streams(struct machine *machine);

/* Named network @index goes on with a new switch at @fd, taken over (link_port_renew()). */
void machine_renew_network(struct machine *machine, unsigned index, int fd);

/*
 * Asks the guest to do with @bytes of its memory, and to give the rest back to the
 * host; it follows at once with what it does not use, and later with what comes free.  Returns 0, or with a sentence -EINVAL beyond what the
 * machine was made with or below MACHINE_MEMORY_MIN, -EOPNOTSUPP without a balloon,
 * -ENOTCONN while the guest has no driver for it.
 */
int machine_set_memory(struct machine *machine, uint64_t bytes, struct err *err);

/* Parks and releases all vCPUs. */
void machine_pause(struct machine *machine);
void machine_resume(struct machine *machine);

#endif /* MACHINE_MACHINE_H */
