/* SPDX-License-Identifier: Apache-2.0 */
/* What verbs about existing VMs share. */
#ifndef CLI_PICK_H
#define CLI_PICK_H

#include "life/vms.h"

struct cJSON;
struct session;

enum { EXIT_VERB = 1 };	/* the VM is unknown, or in the wrong state */

/* Opens the folders.  0, or an exit status after a complaint. */
int pick_open(struct vms *ret_vms);

/*
 * Finds the VM called @what and loads what is known of it (the caller finishes the
 * record).  0, or EXIT_VERB after a complaint.
 */
int pick_vm(const struct vms *vms, const char *what, struct vm_record *ret_record, bool *ret_alive);

/* Complains that the VM does not run; returns EXIT_VERB. */
int pick_not_running(const struct vm_record *record);

/* As pick_vm(), and complains unless its monitor lives. */
int pick_running(const struct vms *vms, const char *what, struct vm_record *ret_record);

#define PICK_JUST_ENDED_MS 10000u	/* to wait for the monitor of a VM that has just ended */

/*
 * Takes the lock of a VM that does not run, waiting for it at most @wait_ms, and loads its
 * record anew.  0 and both, or EXIT_VERB after a complaint and none.
 */
int pick_own(const struct vms *vms, const char *id, unsigned wait_ms, struct vm_owned *ret_owned,
	     struct vm_record *ret_record);

/* Asks the VM's monitor; @body is consumed (NULL: none).  0, or EXIT_VERB after a complaint. */
int pick_ask(const struct vms *vms, const struct vm_record *record, const char *method, const char *target,
	     struct cJSON *body, struct cJSON **ret_json);

/*
 * Asks the VM's monitor to speak frames; @body is borrowed (NULL: none).  0 and the
 * session, or after a complaint the exit status that the monitor gives, or @otherwise
 * when it gives none.
 */
int pick_upgrade(const struct vms *vms, const struct vm_record *record, const char *target, const struct cJSON *body,
		 int otherwise, struct session *ret_session);

/* Calls @fn for each word of argv[optind..argc); returns the last failure, as docker does. */
typedef int (*pick_fn)(const struct vms *vms, const char *what, const void *ctx);
int pick_each(int argc, char **argv, const char *verb, pick_fn fn, const void *ctx);

/* A verb whose only option is --json: calls @fn as pick_each(); its @ctx is a const bool, true for JSON. */
int pick_facts(int argc, char **argv, const char *verb, const char *help, pick_fn fn);

/* Prints @json, which is consumed, as a line. */
void pick_print(struct cJSON *json);

/* Prints @json, which is borrowed, indented.  0, or an exit status after a complaint. */
int pick_print_indented(const struct cJSON *json);

/* For an option that is not the verb's own: prints @help (0), or complains (an exit status). */
int pick_usage(const char *verb, const char *help, int option);

#define PICK_HELP 1000 /* value of "--help" in the verbs' tables of options */

#endif /* CLI_PICK_H */
