/* SPDX-License-Identifier: Apache-2.0 */
/* What the verbs of the roux command share. */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* Exit statuses of roux itself, as docker's. */
enum { EXIT_ROUX = 125, EXIT_NOT_RUNNABLE = 126, EXIT_NOT_FOUND = 127, EXIT_TIMEOUT = 124 };

/* How the list of verbs is divided. */
enum verb_group { VERB_COMMON, VERB_LIFE, VERB_IMAGES, VERB_OTHER };

struct verb {
	const char *name;
	const char *summary;	/* one line for the list of verbs; NULL: not listed */
	/* argv[0] is the verb.  Returns the exit status. */
	int (*run)(int argc, char **argv);
	enum verb_group group;
};

/* All of them, in the order they are shown; the last has no name. */
extern const struct verb verbs[];

int verb_run(int argc, char **argv);
int verb_create(int argc, char **argv);
int verb_attach(int argc, char **argv);
int verb_complete(int argc, char **argv);
int verb_completion(int argc, char **argv);
int verb_checkpoint(int argc, char **argv);
int verb_restore(int argc, char **argv);
int verb_snapshot(int argc, char **argv);
int verb_cp(int argc, char **argv);
int verb_events(int argc, char **argv);
int verb_exec(int argc, char **argv);
int verb_inspect(int argc, char **argv);
int verb_kill(int argc, char **argv);
int verb_logs(int argc, char **argv);
int verb_pause(int argc, char **argv);
int verb_port(int argc, char **argv);
int verb_ps(int argc, char **argv);
int verb_rename(int argc, char **argv);
int verb_restart(int argc, char **argv);
int verb_rm(int argc, char **argv);
int verb_start(int argc, char **argv);
int verb_stats(int argc, char **argv);
int verb_stop(int argc, char **argv);
int verb_top(int argc, char **argv);
int verb_unpause(int argc, char **argv);
int verb_update(int argc, char **argv);
int verb_wait(int argc, char **argv);
int verb_pull(int argc, char **argv);
int verb_push(int argc, char **argv);
int verb_images(int argc, char **argv);
int verb_rmi(int argc, char **argv);
int verb_tag(int argc, char **argv);
int verb_save(int argc, char **argv);
int verb_load(int argc, char **argv);
int verb_import(int argc, char **argv);
int verb_login(int argc, char **argv);
int verb_logout(int argc, char **argv);
int verb_store(int argc, char **argv);
int verb_doctor(int argc, char **argv);
int verb_kernel(int argc, char **argv);
int verb_network(int argc, char **argv);
int verb_template(int argc, char **argv);
int verb_switch(int argc, char **argv);
int verb_standby(int argc, char **argv);
int verb_vmm(int argc, char **argv);
int verb_version(int argc, char **argv);

/* Prints "roux: <message>" and a newline on standard error; returns @status. */
int complain(int status, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/*
 * A size such as 512, 512M, 2G or 1.5GiB (powers of two; without unit MiB).
 * False when it is none.
 */
bool parse_size(const char *text, uint64_t *ret_bytes);

/* Prints @text as a JSON string. */
void json_string(FILE *out, const char *text);

/*
 * Reads the argument of -e: NAME=VALUE, or NAME with the value that it has here.  0 and
 * memory to free, NULL for a NAME that is not set; or an exit status after a complaint.
 */
int take_env(const char *arg, char **ret_pair);

#endif /* CLI_CLI_H */
