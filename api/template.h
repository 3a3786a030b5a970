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
 *   <cache>/templates/<key>.code	machine/code_file.h, sealed; made anew when machines translated more
 *   <cache>/templates/<key>.reads	machine/reads.h, sealed: what the next machine reads, to leave a new template
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
struct sha256;
struct template_writer;

/*
 * Fills @ret_path for a machine of @spec that program @vmm runs.  False when there can be none: something of the
 * machine cannot be saved, or has an identity that its guest does not know how to change.
 */
bool template_path(const struct machine_spec *spec, const char *vmm, char ret_path[PATH_MAX]);

/* Adds the name of a file and what shows a change of it. */
void template_add_file(struct sha256 *hash, const char *path);

/* Whether it is there, complete; it is then in use now, which template_list() tells. */
bool template_is_there(const char *path);

/* Where the translated code of the template at @path is.  False: the name is too long. */
bool template_code_path(const char *path, char ret_path[PATH_MAX]);

/* And where what its machines read is. */
bool template_reads_path(const char *path, char ret_path[PATH_MAX]);

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

/* The same for all, which are then told as by template_list(); what a killed monitor left goes too. */
int template_remove_all(struct template_info **ret_infos, size_t *ret_n, struct err *err);
/* Removes those that are too many. */
void template_remove_old(void);

/* --- template_write.c --- */
/* A file in memory of @bytes, all holes, for the VM's process to fill, owned by the caller; or a negative errno. */
int template_begin(uint64_t bytes);

#define TEMPLATE_PARTS_MAX 2u

struct template_part {
	int fd;	/* from template_begin() */
	uint64_t bytes;	/* of it in use */
	char path[PATH_MAX];
};

/*
 * Makes files of the @n parts, which pass to it, one after the other until one fails, on a thread: NULL
 * when that is not to be had.  A failure shows in the next machine, which boots or translates.
 */
struct template_writer *template_commit_later(const struct template_part *part, unsigned n);
/* Waits for it, and frees it.  NULL is fine. */
void template_writer_finish(struct template_writer *writer);

/* Makes the first @bytes of @fd the file at @path, sealed.  A failure costs later machines time. */
void template_commit(int fd, uint64_t bytes, const char *path);

#endif /* API_TEMPLATE_H */
