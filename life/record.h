/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is known of a VM: how it was asked for and how it fares.  One JSON document,
 * which is the file that survives a reboot, the answer of the control socket and
 * what `roux inspect` prints; its names are those people know from `docker inspect`.
 */
#ifndef LIFE_RECORD_H
#define LIFE_RECORD_H

#include "life/strlist.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cJSON;
struct err;

#define VM_ID_SIZE 65	/* bytes of an id: 64 hex digits and NUL */
#define VM_NAME_MAX 64	/* bytes of a name, NUL included */
#define RECORD_MAX (4u << 20)	/* bytes of the text form */
#define RECORD_SHARES_MAX 16u
#define RECORD_DISKS_MAX 16u

struct vm_share {
	char *host, *guest;	/* absolute paths, owned */
	bool read_only;
};

struct vm_disk {
	char *path;	/* owned */
	bool read_only, overlay;
};

/* A network device as --network names it; strings are owned, NULL when not given. */
struct vm_network {
	char *kind;	/* NULL: no network; "user", "tap", "named" */
	char *name;	/* of the TAP device */
	char *address4, *gateway4, *address6, *gateway6;	/* what the guest is told */
	char *pcap;	/* absolute path */
	uint64_t send_bytes, send_frames, receive_bytes, receive_frames;	/* per second; 0: no limit */
};

enum vm_restart { VM_RESTART_NO, VM_RESTART_ON_FAILURE, VM_RESTART_ALWAYS, VM_RESTART_UNLESS_STOPPED };

/* How a VM was asked for.  Strings are owned, NULL when not given. */
struct vm_config {
	char *image;
	struct strings argv;	/* empty: the image's own command */
	bool no_entrypoint;	/* do not put the image's entrypoint in front */
	struct strings env;	/* "NAME=value" on top of the image's */
	char *cwd, *user;
	bool tty, open_stdin;
	bool stdin_once;	/* input ends with the client that started the VM */
	char *hostname;
	struct strings labels;	/* "key=value" */
	struct strings publish;	/* as publish_format() has them (os/publish.h) */
	struct strings egress;	/* "allow|deny TARGET [PROTOCOL] [PORTS]" */
	bool host_loopback;	/* the guest reaches 127.0.0.1 of the host */
	struct vm_share share[RECORD_SHARES_MAX];
	uint32_t nshares;
	struct vm_disk disk[RECORD_DISKS_MAX];
	uint32_t ndisks;
	bool no_pull;	/* a life does not fetch the image when it is missing */
	bool insecure;	/* fetches it without encryption too */
	struct vm_network network;
	bool read_only;
	bool no_template;	/* it boots, always */
	bool merge_memory;	/* KSM may */
	uint32_t cpus;	/* 0: 1 */
	uint64_t memory;	/* bytes; 0: the default */
	char *engine, *kernel, *append;
	uint32_t restart;	/* enum vm_restart */
	uint32_t restart_max;	/* of on-failure; 0: no limit */
	uint32_t stop_signal;	/* 0: the image's */
	int64_t stop_timeout_ms;	/* until a stop becomes a kill */
	uint32_t timeout_s;	/* the VM ends after this time; 0: never */
	bool auto_remove;
	uint64_t log_max;	/* bytes of output kept; 0: the default */
	struct strings health_cmd;	/* "NONE" | "CMD", words... | "CMD-SHELL", text; empty: the image's */
	int64_t health_interval_ms, health_timeout_ms, health_start_ms;	/* 0: the image's, else the default */
	uint32_t health_retries;
	uint32_t cpu_shares;	/* relative weight, 1024 is everybody's; 0: not set */
};

enum vm_status { VM_CREATED, VM_STARTING, VM_RUNNING, VM_PAUSED, VM_STOPPING, VM_RESTARTING, VM_EXITED };

enum vm_health { VM_HEALTH_NONE, VM_HEALTH_STARTING, VM_HEALTHY, VM_UNHEALTHY };

/* How it fares. */
struct vm_state {
	uint32_t status;	/* enum vm_status */
	uint32_t monitor_pid, vm_pid;	/* 0: none */
	int32_t exit_code;
	bool has_run;	/* exit_code means something */
	char *error;	/* one sentence, or NULL */
	int64_t started_ns, finished_ns;	/* since 1970; 0: never */
	uint32_t restarts;	/* by the restart policy */
	bool stopped_by_user;	/* the restart policy rests until the next start */
	uint32_t health;	/* enum vm_health */
	uint32_t health_failures;	/* in a row */
	uint64_t log_dropped;	/* bytes of output that could not be kept */
	char *engine;
	struct strings command;	/* what runs, with the image's part */
};

struct vm_record {
	char id[VM_ID_SIZE];
	char name[VM_NAME_MAX];
	int64_t created_ns;
	struct vm_config config;
	struct vm_state state;
};

void record_init(struct vm_record *record);
void record_finish(struct vm_record *record);

/* The record of a VM that has not run, of what was asked for alone; times and names stay. */
void record_forget(struct vm_record *record);

/* The document as a tree; the caller frees it with cJSON_Delete().  NULL: no memory. */
struct cJSON *record_to_json(const struct vm_record *record);

/* The document as text with a newline; free() it.  NULL: no memory. */
char *record_encode(const struct vm_record *record);

/*
 * Reads a document of record_encode(), which may be damaged or hostile, into an
 * initialised record.  0, -EBADMSG with a sentence, or -ENOMEM; the record can be
 * finished in every case.
 */
int record_decode(const char *text, size_t len, struct vm_record *ret_record, struct err *err);

const char *vm_status_name(uint32_t status);	/* "running" */
const char *vm_health_name(uint32_t health);	/* "healthy" */

/* Reads "no", "always", "unless-stopped", "on-failure[:N]". */
bool vm_restart_parse(const char *text, uint32_t *ret_restart, uint32_t *ret_max);

#endif /* LIFE_RECORD_H */
