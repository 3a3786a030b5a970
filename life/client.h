/* SPDX-License-Identifier: Apache-2.0 */
/* The other end of the control socket, for commands: requests that are waited for. */
#ifndef LIFE_CLIENT_H
#define LIFE_CLIENT_H

#include "api/session.h"
#include "life/vms.h"

struct cJSON;
struct err;

/* Connects to a VM's monitor.  A descriptor, or -ENOENT, -ECONNREFUSED (it is gone), ... */
int client_connect(const struct vms *vms, const char *id);

/*
 * Asks to switch to frames.  0 and a session that owns @fd; -EREMOTEIO when the monitor
 * says no, with its sentence in @err and its exit status in *ret_code, or another
 * negative errno; @fd stays the caller's then.
 */
int client_upgrade(int fd, const char *target, const char *body, struct session *ret_session, int *ret_code,
		   struct err *err);

/*
 * Connects, sends a request (@body NULL or JSON), waits for the answer, @timeout_ms (-1:
 * for ever) for each step of it, and takes it apart.  0 and the answer (the caller frees it
 * with cJSON_Delete(); @ret_json may be NULL), -EREMOTEIO when the monitor says no, with
 * its sentence, -ESRCH when there is none or it is just ending, or another negative errno.
 */
int client_ask(const struct vms *vms, const char *id, const char *method, const char *target, const char *body,
	       int timeout_ms, struct cJSON **ret_json, struct err *err);

/*
 * Reads a VM's record, as vms_load(), but asks its monitor when it has one: what is in
 * the file may lag behind.
 */
int client_load(const struct vms *vms, const char *id, struct vm_record *ret_record, bool *ret_alive, struct err *err);

#endif /* LIFE_CLIENT_H */
