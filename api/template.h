/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Templates: machines that were booted once and saved when their agent answered, so that
 * later ones of the same kind go on from there instead of booting.
 *
 * A template is found by everything that a guest can see of its machine at that time:
 * the program, engine, kernel, initramfs, command line, memory, devices, and the part
 * of the network's set-up that is in the guest.  What tells machines apart comes
 * after it (AGENT_IDENTITY).
 *
 *   <cache>/templates/<key>.snap	machine/snapshot.h, sealed (os/file.h); its time of access is when
 *					it was used last
 */
#ifndef API_TEMPLATE_H
#define API_TEMPLATE_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TEMPLATES_MAX 16u	/* more are removed, those first that were not used for longest */

struct err;
struct machine_spec;
struct template_writer;

/*
 * Fills @ret_path for a machine of @spec that program @vmm runs.  False when there can be none: something of the
 * machine cannot be saved, or has an identity that its guest does not know how to change.
 */
bool template_path(const struct machine_spec *spec, const char *vmm, char ret_path[PATH_MAX]);

/* Whether it is there, complete; it is then in use now, which template_list() tells. */
bool template_is_there(const char *path);

struct template_info {
	char id[33];	/* the key */
	uint64_t bytes;	/* of disk */
	uint64_t memory;	/* bytes that the guest has */
	int64_t used_s;	/* last, since 1970 */
};

/* All of them, the one used last first; the array passes to the caller.  0 or a negative errno with a sentence. */
int template_list(struct template_info **ret_infos, size_t *ret_n, struct err *err);

/* Machines that came from it are not affected.  0, -ENOENT or another negative errno with a sentence. */
int template_remove(const char *id, struct err *err);

/* A file in memory for the VM's process to fill, owned by the caller; or a negative errno. */
int template_begin(const struct machine_spec *spec);

/*
 * Makes what was written to @fd, which passes to it, the template at @path, on a thread: NULL
 * when that is not to be had.  A failure shows in the next machine, which boots.
 */
struct template_writer *template_commit_later(int fd, const char *path);
/* Waits for it, and frees it.  NULL is fine. */
void template_writer_finish(struct template_writer *writer);

#endif /* API_TEMPLATE_H */
