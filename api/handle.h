/* SPDX-License-Identifier: Apache-2.0 */
/* What the public handles hold, shared by the files of this folder. */
#ifndef API_HANDLE_H
#define API_HANDLE_H

#include "api/session.h"
#include "machine/control.h"
#include "machine/spec.h"
#include "os/err.h"
#include "roux/roux.h"

#include <sys/types.h>

struct oci_config;
struct oci_image;
struct store;
struct store_lease;

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
	struct cgroup *cgroup;	/* owned, NULL: the host has none for us */
	bool transient;
	struct store *store;	/* owned, NULL unless the image is from there */
	struct store_lease *lease;	/* owned; keeps the image while the machine exists */
	struct oci_image *image;	/* owned, NULL without one */
	const struct oci_config *config;	/* of the image, NULL without one */
	char *vmm;	/* path of the roux command */
	const struct counts *counts;	/* NULL: none yet */
	char *counters;	/* last answer to CONTROL_COUNT, or NULL */
	struct {
		bool done;
		struct err err;
	} resize;	/* last answer to CONTROL_RESIZE */
	unsigned start_timeout_ms;	/* 0: none */
	pid_t pid;	/* of the VM's process, 0 before and after */
	pid_t helper;	/* of the process that helps it from outside its jail, 0: none */
	int sock;	/* control socket, -1 */
	int wake_fd;	/* eventfd of roux_machine_interrupt() */
	enum roux_state state;
	char reason[256];
	char engine[16];
	struct control_msg *msg;	/* receive buffer */
	int ready_fd;	/* the agent's first connection until somebody uses it, -1 */
	struct machine_connect *connects;	/* owned */
	int32_t last_connect;	/* id given out last */
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

/* A stream to the guest's agent with HELLO exchanged.  0 or a negative errno. */
int machine_session(struct roux_machine *machine, struct session *ret_session, struct err *err);

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

/*
 * Handles control messages that are there; blocks up to @timeout_ms for the first,
 * and returns -EINTR when that wait was interrupted.
 */
int machine_events(struct roux_machine *machine, int timeout_ms);

#endif /* API_HANDLE_H */
