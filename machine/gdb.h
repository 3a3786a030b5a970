/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GDB's remote serial protocol (GDB manual, appendix "Remote Protocol") for a
 * machine whose vCPUs are threads 1, 2, ...; all of them stop and go together.
 *
 *   GDB -> gdb_input():  $packet#sum, + and -, 0x03
 *   gdb.send  -> GDB:    + and $reply#sum
 *
 *            resume                     gdb_stopped()
 *   stopped --------> running ---------------------------> stopped, T packet
 *                     0x03: target->interrupt()
 *
 * This module reads and writes packets only; struct gdb_target does what they
 * say.  What comes from the network is hostile: whatever it is, the worst is an
 * error reply.
 *
 * Threads: one.  gdb_input() calls the target, which may call gdb_stopped() at once.
 */
#ifndef MACHINE_GDB_H
#define MACHINE_GDB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct gdb;
struct vcpu_state;

#define GDB_PACKET_MAX 16384u	/* bytes between $ and # */
#define GDB_THREADS_MAX 64u

enum gdb_action { GDB_HOLD, GDB_CONTINUE, GDB_STEP };

/* As in Z packets. */
enum gdb_point { GDB_SOFTWARE, GDB_HARDWARE, GDB_WATCH_WRITE, GDB_WATCH_READ, GDB_WATCH_ACCESS };

enum gdb_why { GDB_WHY_SIGNAL, GDB_WHY_POINT };

struct gdb_stop {
	unsigned thread;	/* 0: the first vCPU */
	int signal;	/* GDB's number: 2 interrupt, 5 trap */
	enum gdb_why why;
	enum gdb_point point;	/* GDB_WHY_POINT: what was met ... */
	uint64_t addr;	/* ... and where, for watchpoints */
};

/* Everything is called while the machine is stopped, but for interrupt(). */
struct gdb_target {
	unsigned nthreads;	/* 1..GDB_THREADS_MAX */
	/* Registers of a vCPU, to change when @change; borrowed until it is resumed.  NULL on failure. */
	struct vcpu_state *(*state)(void *ctx, unsigned thread, bool change);
	/* Guest memory at linear addresses as @thread has it mapped.  0 or a negative errno. */
	int (*read)(void *ctx, unsigned thread, uint64_t va, void *buf, size_t len);
	int (*write)(void *ctx, unsigned thread, uint64_t va, const void *buf, size_t len);
	/* Sets or removes a break- or watchpoint on all vCPUs.  0, or a negative errno. */
	int (*point)(void *ctx, unsigned thread, enum gdb_point point, uint64_t va, uint64_t len, bool set);
	/* Lets each vCPU do action[thread]; gdb_stopped() follows some time. */
	void (*resume)(void *ctx, const enum gdb_action *action);
	/* Stops all; gdb_stopped() follows. */
	void (*interrupt)(void *ctx);
	/* Removes all points and goes on without GDB; @kill: ends the machine instead. */
	void (*detach)(void *ctx, bool kill);
	/* Sends bytes to GDB. */
	void (*send)(void *ctx, const void *data, size_t len);
	void *ctx;
};

/* For a machine that is stopped, by @stop.  @target is borrowed.  NULL when out of memory. */
struct gdb *gdb_create(const struct gdb_target *target, const struct gdb_stop *stop);
void gdb_destroy(struct gdb *gdb);

/* Bytes from GDB, cut anywhere.  False when GDB has detached and is to be hung up on. */
bool gdb_input(struct gdb *gdb, const uint8_t *data, size_t len);

/* The machine has stopped: tells GDB. */
void gdb_stopped(struct gdb *gdb, const struct gdb_stop *stop);

/* The machine has ended: tells GDB. */
void gdb_exited(struct gdb *gdb);

#endif /* MACHINE_GDB_H */
