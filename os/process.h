/* SPDX-License-Identifier: Apache-2.0 */
/* Runs another program to its end and collects what it prints. */
#ifndef OS_PROCESS_H
#define OS_PROCESS_H

#include <stddef.h>

struct err;

struct process_result {
	int status;	/* exit status 0..255, or 128 + signal number */
	char *out;	/* standard output, NUL-terminated, owned; free() it */
	size_t out_len;	/* bytes */
	char errors[512];	/* the last bytes of standard error, NUL-terminated */
};

/*
 * Runs argv[0] (looked up in PATH) in folder @cwd (NULL: the caller's) with
 * standard input from /dev/null.  @env: more "NAME=value" entries, NULL-ended,
 * or NULL.  @cancel: NULL, or the program is killed soon after this gets nonzero.
 *
 * Returns 0 when the program ran, whatever its status, -ENOENT when there is no
 * such program, -EFBIG when it printed more than @out_max bytes (it is killed),
 * -EINTR after @cancel, or another negative errno.  @ret_result is filled on 0 only.
 */
int process_run(const char *const argv[], const char *cwd, const char *const env[],
		size_t out_max, const volatile int *cancel, struct process_result *ret_result,
		struct err *err);

/* The same in the caller's folder and environment, with the text @input as standard input. */
int process_run_input(const char *const argv[], const char *input, size_t out_max,
		      struct process_result *ret_result, struct err *err);

#endif /* OS_PROCESS_H */
