/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libroux: run programs in micro-VMs from C.
 *
 *   roux_machine_create -> roux_machine_start -> roux_exec -> roux_process_wait
 *                       -> roux_machine_destroy
 *
 * Each machine is a process of its own, started from the `roux` command, so the
 * library installs no signal handlers, leaves no threads (only looking up the name of
 * a registry may take one for a moment), never exits and never prints; any number of machines may exist in one program.  Every function
 * returns to its caller, with a sentence a person can act on in struct
 * roux_error when it fails (the pointer may be NULL).
 *
 * Threads: a machine and its processes belong to one thread at a time; different
 * machines may be used from different threads.
 */
#ifndef ROUX_ROUX_H
#define ROUX_ROUX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ROUX_API __attribute__((visibility("default")))

struct roux_error {
	int code;	/* negative errno */
	char message[256];	/* one sentence, no newline */
};

/* A host folder inside the guest (virtio-fs). */
struct roux_share {
	const char *host;	/* folder on the host */
	const char *guest;	/* absolute path in the guest, made when missing */
	bool read_only;
};

/* A disk image (virtio-blk), /dev/vda and so on in order. */
struct roux_disk {
	const char *path;
	bool read_only;
	bool overlay;	/* writes go to memory and are thrown away */
};

/* A network device, eth0 and so on in order. */
enum roux_network_kind {
	ROUX_NETWORK_USER,	/* roux's own TCP/IP: connections leave as sockets of this user */
	ROUX_NETWORK_TAP,	/* frames go to a TAP device of the host */
	ROUX_NETWORK_NAMED,	/* as USER, and together with other machines; see "roux network" in roux(1) */
};

struct roux_network {
	enum roux_network_kind kind;
	const char *name;	/* of the TAP device, or the network */
	/*
	 * TAP: what the guest is told, or NULL: "192.0.2.2/24", "192.0.2.1", "2001:db8::2/64", ...
	 * Named: @address4 is what it gets if that is free.
	 */
	const char *address4, *gateway4, *address6, *gateway6, *nameserver;
	/* User and named: "[ADDRESS:]HOST:GUEST[/tcp|/udp]", ports of the host that lead to the guest. */
	const char *const *publish;
	unsigned npublish;
	/* User and named: what the guest may reach, "allow|deny TARGET [PROTOCOL] [PORTS]"; see roux(1). */
	const char *const *egress;
	unsigned negress;
	bool host_loopback;	/* user, named: the gateway's address is 127.0.0.1 of the host */
	unsigned mtu;	/* bytes, 0: 1500 */
	const char *pcap;	/* file that gets what passes, or NULL */
	/* Limits of what the guest sends and receives per second, 0: none. */
	uint64_t send_bytes, send_frames, receive_bytes, receive_frames;
};

/* When an image is fetched from its registry. */
enum roux_pull { ROUX_PULL_MISSING, ROUX_PULL_ALWAYS, ROUX_PULL_NEVER };

struct roux_options {
	size_t size;	/* sizeof(struct roux_options), for later versions */
	/*
	 * Root file system: a folder, an OCI image layout (folder or tar) or a
	 * docker-archive tar; or, when there is no such file, the name of an image
	 * ("alpine", "localhost:5000/x:1") in the store or a registry.  NULL: only roux's
	 * own init, nothing to run.
	 */
	const char *image;
	const char *engine;	/* "auto" (or NULL), "kvm", "dbt" */
	unsigned cpus;	/* 0: 1 */
	uint64_t memory;	/* bytes, rounded up to 2 MiB; 0: 512 MiB */
	const char *kernel;	/* bzImage or vmlinux; NULL: Debian's, fetched when needed */
	const char *append;	/* added to the kernel command line, or NULL */
	const char *hostname;	/* NULL: "roux" */
	const struct roux_share *shares;
	unsigned nshares;
	const struct roux_disk *disks;
	unsigned ndisks;
	bool read_only;	/* no writes to the root at all, not even thrown-away ones */
	unsigned start_timeout_ms;	/* 0: 60 s */
	/* NULL, or: roux_machine_create() gives up soon after this gets nonzero. */
	const volatile int *cancel;
	const char *vmm;	/* the roux command; NULL: $ROUX_VMM, else the installed one */
	/*
	 * GDB may connect to @gdb_port of 127.0.0.1 (0: a free one) and debug the guest,
	 * all of it: see roux_machine_on_gdb().  Without start_timeout_ms the start then
	 * takes as long as it takes.  @gdb_wait: nothing runs before GDB continues it.
	 */
	bool gdb, gdb_wait;
	uint16_t gdb_port;
	const struct roux_network *networks;
	unsigned nnetworks;	/* 0: the guest has its loopback only */
	enum roux_pull pull;
	bool insecure_registry;	/* plain HTTP, or certificates that nobody vouches for */
	/*
	 * What others on named networks call it, beside its hostname; NULL: nothing.  The name's
	 * address is kept for the next machine of that name, unless this one is the only one.
	 */
	const char *name;
	bool transient;
	/*
	 * Boot, even when there is a template: a machine like this one that was saved when it
	 * had booted, from which it can go on at once.  Without this the first machine of its
	 * kind leaves a template for the others.
	 */
	bool no_template;
	/* The host may keep one copy of what is the same in this machine's memory and others' (KSM). */
	bool merge_memory;
	/* 32 hexadecimal digits for the guest's /etc/machine-id, if its image has one; NULL: drawn by lot. */
	const char *machine_id;
};

struct roux_machine;
struct roux_process;

/*
 * Prepares a machine: image and kernel, which may have to be unpacked or fetched
 * first.  0, -EINTR after options->cancel, or another negative errno.
 */
ROUX_API int roux_machine_create(const struct roux_options *options, struct roux_machine **ret_machine,
				 struct roux_error *error);

/*
 * Boots it and returns when the guest answers.  0, -ETIMEDOUT, -EINTR, or another
 * negative errno with the reason; the machine can then only be destroyed.
 */
ROUX_API int roux_machine_start(struct roux_machine *machine, struct roux_error *error);

/*
 * Makes the wait under way or else the next one return -EINTR: roux_machine_start(),
 * roux_exec(), roux_process_wait().  May be called from a signal handler and from
 * other threads.
 */
ROUX_API void roux_machine_interrupt(struct roux_machine *machine);

/* Ends the guest, at once, and frees everything.  NULL is fine. */
ROUX_API void roux_machine_destroy(struct roux_machine *machine);

/* Receives what the guest's serial console prints, from within other calls. */
typedef void (*roux_console_fn)(void *ctx, const void *data, size_t len);
ROUX_API void roux_machine_on_console(struct roux_machine *machine, roux_console_fn fn, void *ctx);

/* Called once, from within roux_machine_start(), when GDB may connect to 127.0.0.1:@port. */
typedef void (*roux_gdb_fn)(void *ctx, uint16_t port);
ROUX_API void roux_machine_on_gdb(struct roux_machine *machine, roux_gdb_fn fn, void *ctx);

/* The last bytes of console output, NUL-terminated.  Borrowed until the next call. */
ROUX_API const char *roux_machine_console_tail(const struct roux_machine *machine);

/*
 * Something happened to the machine.  roux_machine_fd() is readable when there
 * is an event; roux_machine_dispatch() handles what is there without blocking.
 */
enum roux_state {
	ROUX_CREATED,
	ROUX_RUNNING,	/* the guest answers */
	ROUX_STOPPED,	/* powered off */
	ROUX_FAILED,	/* crashed, or its process is gone; see roux_machine_reason() */
};
ROUX_API int roux_machine_fd(const struct roux_machine *machine);
ROUX_API enum roux_state roux_machine_dispatch(struct roux_machine *machine);
ROUX_API const char *roux_machine_reason(const struct roux_machine *machine);	/* borrowed; "" when fine */
ROUX_API const char *roux_machine_engine(const struct roux_machine *machine);	/* "kvm" or "dbt" */

/*
 * What the engine has counted so far, one call of @fn a counter; engines that
 * count nothing make none.  For people: names may change.  0 or a negative errno.
 */
typedef void (*roux_counter_fn)(void *ctx, const char *name, uint64_t value);
ROUX_API int roux_machine_counters(struct roux_machine *machine, roux_counter_fn fn, void *ctx,
				   struct roux_error *error);

/* What network @index has carried, seen from the guest.  False when there is none, or the VM has not started. */
struct roux_network_direction {
	uint64_t frames, bytes;
	uint64_t dropped;	/* frames */
};
struct roux_network_counts {
	struct roux_network_direction sent, received;
};
ROUX_API bool roux_machine_network_counts(const struct roux_machine *machine, unsigned index,
					  struct roux_network_counts *ret_counts);

/*
 * Asks the guest to do with @bytes (rounded down to MiB) of the memory that the machine
 * was made with, and to give the rest back to the host; it follows as it can, within
 * seconds, and memory that it does not use goes back unasked.  Returns 0, -EINVAL below
 * 32 MiB or beyond what it was made with, -ENOTCONN when the guest has no driver for
 * this or the machine does not run, or another negative errno.
 */
ROUX_API int roux_machine_set_memory(struct roux_machine *machine, uint64_t bytes, struct roux_error *error);

ROUX_API int roux_machine_pid(const struct roux_machine *machine);	/* of the VM's process */

/* When a phase of the start ended, CLOCK_MONOTONIC nanoseconds, 0 when not reached. */
enum roux_phase {
	ROUX_PHASE_BEGIN,	/* roux_machine_create() was called */
	ROUX_PHASE_IMAGE,	/* root file system is there */
	ROUX_PHASE_KERNEL,	/* kernel and initramfs are there */
	ROUX_PHASE_SPAWNED,	/* the VM's process exists */
	ROUX_PHASE_LOADED,	/* guest memory is filled, vCPUs run */
	ROUX_PHASE_READY,	/* the guest answers */
	ROUX_PHASES
};
ROUX_API uint64_t roux_machine_phase_ns(const struct roux_machine *machine, enum roux_phase phase);

struct roux_exec_options {
	size_t size;	/* sizeof(struct roux_exec_options) */
	/* NULL-ended; NULL or empty: the image's own command. */
	const char *const *argv;
	bool use_entrypoint;	/* put the image's entrypoint in front of argv */
	const char *const *env;	/* "NAME=value" on top of the image's; NULL-ended or NULL */
	const char *cwd;	/* NULL: the image's, else "/" */
	const char *user;	/* "name|uid[:group|gid]"; NULL: the image's, else root */
	bool tty;	/* run on a pseudo-terminal of @rows x @cols */
	uint16_t rows, cols;
	/* Descriptors, borrowed until the process is freed; -1: /dev/null. */
	int stdin_fd, stdout_fd, stderr_fd;
	bool primary;	/* the machine powers off when it ends */
	bool detached;	/* outlives this session, without streams; only its start is waited for */
};

/* How a process ended. */
struct roux_exit {
	int status;	/* 0..255; 128 + signal when killed, as a shell says it */
	int signal;	/* 0, or what killed it */
};

/*
 * Starts a process in a running machine.  Returns 0 when it runs; a negative
 * errno otherwise, -ENOENT and -EACCES when the program cannot be run (then
 * *ret_process is NULL).
 */
ROUX_API int roux_exec(struct roux_machine *machine, const struct roux_exec_options *options,
		       struct roux_process **ret_process, struct roux_error *error);

/*
 * Moves data until the process ends.  Returns 0 and fills @ret_exit, -ETIMEDOUT
 * after @timeout_ms (-1: never), -EINTR after roux_machine_interrupt(), or -EIO
 * when the machine ended before the process.  After the first two it may be called again.
 */
ROUX_API int roux_process_wait(struct roux_process *process, int timeout_ms, struct roux_exit *ret_exit,
			       struct roux_error *error);

/* Sends a signal, or a new terminal size.  0 or a negative errno. */
ROUX_API int roux_process_signal(struct roux_process *process, int signo);
ROUX_API int roux_process_resize(struct roux_process *process, uint16_t rows, uint16_t cols);

/* Hangs up on a process that still runs, and frees.  NULL is fine. */
ROUX_API void roux_process_destroy(struct roux_process *process);

/* The image's stop signal number; SIGTERM when it names none. */
ROUX_API int roux_machine_stop_signal(const struct roux_machine *machine);

ROUX_API const char *roux_version(void);

#ifdef __cplusplus
}
#endif

#endif /* ROUX_ROUX_H */
