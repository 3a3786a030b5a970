/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Payloads of the requests of abi/agent.h, parsed into structs.  No I/O: this
 * is what the fuzzer drives.  All strings are borrowed from the payload.
 */
#ifndef GUEST_REQUEST_H
#define GUEST_REQUEST_H

#include "base/frame.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define REQUEST_STRINGS_MAX 8192 /* arguments, and as many environment entries */

struct exec_request {
	const char *argv[REQUEST_STRINGS_MAX + 1];	/* NULL-terminated */
	const char *env[REQUEST_STRINGS_MAX + 1];
	unsigned argc, nenv;
	const char *cwd;	/* absolute */
	const char *user;	/* NULL: root */
	uint16_t rows, cols;	/* 0: not given */
	bool tty, has_stdin, primary, detached;
};

struct mount_request {
	const char *type, *target;	/* target is absolute */
	const char *source, *options;	/* "" when not given */
	uint32_t flags;	/* enum agent_mount_flag */
};

struct power_request {
	uint32_t how;	/* enum agent_power */
	uint32_t grace_ms;
};

struct copy_request {
	const char *path;	/* absolute */
	const char *name;	/* PUT only; "" when not given */
};

#define IDENTITY_SEED_MAX 512
#define IDENTITY_ADDRESSES_MAX 4u
#define IDENTITY_MACHINE_ID 32u	/* digits */

struct identity_request {
	uint64_t clock_ns;	/* 0: not given */
	const uint8_t *seed;
	size_t seed_len;	/* bytes, at most IDENTITY_SEED_MAX; 0: not given */
	const char *hostname;	/* NULL: not given */
	bool reset;	/* TCP connections end but those with hosts of kept that are not in outside */
	const char *kept[IDENTITY_ADDRESSES_MAX], *outside[IDENTITY_ADDRESSES_MAX];	/* "ADDRESS/BITS"; "ADDRESS" */
	const char *left[IDENTITY_ADDRESSES_MAX], *taken[IDENTITY_ADDRESSES_MAX];	/* of the first interface */
	unsigned nkept, noutside, nleft, ntaken;
	const uint8_t *mac;	/* of it, 6 bytes; NULL: not given */
	const char *machine_id;	/* 32 hexadecimal digits; NULL: not given */
};

struct hello {
	uint32_t version, version_min;
};

struct read_ahead_request {
	void (*read)(struct read_ahead_request *req);	/* is called with each range in the fields below */
	const char *path;	/* absolute */
	uint64_t offset, size;	/* bytes; no more than INT64_MAX together */
	uint64_t done;	/* @read's: bytes that were read */
};

/*
 * Each returns 0 and fills its struct, or -1 for a payload that breaks the
 * protocol: a field missing, unknown, of the wrong size or out of range.
 */
int request_hello(const struct frame *frame, struct hello *ret_hello);
int request_exec(const struct frame *frame, struct exec_request *ret_exec);
int request_mount(const struct frame *frame, struct mount_request *ret_mount);
int request_power(const struct frame *frame, struct power_request *ret_power);
int request_copy(const struct frame *frame, struct copy_request *ret_copy);
int request_read_ahead(const struct frame *frame, struct read_ahead_request *req);
int request_clock(const struct frame *frame, uint64_t *ret_ns);
int request_identity(const struct frame *frame, struct identity_request *ret_identity);
int request_signal(const struct frame *frame, uint32_t *ret_signo);
int request_resize(const struct frame *frame, uint16_t *ret_rows, uint16_t *ret_cols);

#endif /* GUEST_REQUEST_H */
