/* SPDX-License-Identifier: Apache-2.0 */
/* How commands are started, for owners of machines that move the streams themselves. */
#ifndef API_PROCESS_H
#define API_PROCESS_H

#include "api/session.h"
#include "roux/roux.h"

struct err;
struct oci_config;
struct roux_machine;

/*
 * Builds the EXEC frame for @options with what the image's @config (or NULL) adds.
 * stdin_fd only says whether there will be input.  0 and memory that passes to the
 * caller, or a negative errno.
 */
int process_exec_frame(const struct oci_config *config, const struct roux_exec_options *options,
		       uint8_t **ret_frame, size_t *ret_len, struct err *err);

/*
 * Starts a command in a running machine and returns when it runs, with the session that
 * carries its frames.  As roux_exec() otherwise, and options->size is not looked at.
 */
int process_start(struct roux_machine *machine, const struct roux_exec_options *options,
		  struct session *ret_session, struct err *err);

#endif /* API_PROCESS_H */
