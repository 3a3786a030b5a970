/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Content-addressed store: immutable objects named by the SHA-256 of their bytes,
 * references that give names to them, leases that keep them while they are used.
 *
 *   <store>/blobs/sha256/<hex>   objects, mode 0444; a file is there only when complete,
 *                                verified and durable (the same place as in an OCI layout)
 *   <store>/refs/<kind>/<hex>    references: a small text, named by the hash of their name
 *   <store>/leases/<id>          what a process uses, locked (flock) for as long as it lives
 *   <store>/partial/<hex>        downloads that have begun; locked while one goes on
 *   <store>/temp/<id>            objects whose digest is not known yet; locked likewise
 *   <store>/lock                 shared by those who add, exclusive for those who remove
 *   <store>/quota                bytes, when there is a limit
 *   <store>/format               "1"
 *
 * Who wants an object to stay does, in this order: lease it, see whether it is
 * there, add it when it is not, name it (or something that leads to it) by a
 * reference, release the lease.  Collection holds the lock alone: it marks what
 * leases and references lead to and removes the rest, so nothing can appear or
 * be leased meanwhile.  A process that dies loses its locks, therefore its leases.
 * Every step leaves a store that is whole: kill -9 costs at most unfinished work.
 *
 * Threads: a store may be used by several; a lease or writer by one at a time.
 */
#ifndef STORE_STORE_H
#define STORE_STORE_H

#include "base/sha256.h"

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

struct err;
struct store;
struct store_lease;

#define STORE_DIGEST_SIZE (7 + SHA256_HEX_SIZE) /* "sha256:", 64 digits, NUL */
#define STORE_NAME_MAX 768 /* bytes of a reference's name, NUL included */
#define STORE_TYPE_MAX 128 /* bytes of a media type, NUL included */

/*
 * Opens the store at @path, making it when missing.  NULL: $ROUX_STORE, else as
 * root /var/lib/roux, else $XDG_DATA_HOME/roux, else ~/.local/share/roux.
 * Returns 0, -ENOTSUP for a format of another version, or another negative errno.
 */
int store_open(const char *path, struct store **ret_store, struct err *err);
void store_close(struct store *store);	/* NULL is fine */
const char *store_path(const struct store *store);	/* borrowed */

/* Whether @text is "sha256:" and 64 lower-case hexadecimal digits. */
bool store_digest_ok(const char *text);
void store_digest(const void *data, size_t len, char ret_digest[STORE_DIGEST_SIZE]);
/* The same of what was added to @hash, which ends with it. */
void store_digest_finish(struct sha256 *hash, char ret_digest[STORE_DIGEST_SIZE]);

/* ---- leases ---- */

/* Begins an empty lease.  Children that the process forks share it.  0 or a negative errno. */
int store_lease_begin(struct store *store, struct store_lease **ret_lease, struct err *err);
void store_lease_end(struct store_lease *lease);	/* NULL is fine */

/*
 * Keeps @digest and all it leads to, present or not, until the lease ends.  Waits
 * for a collection that goes on.  0 or a negative errno.
 */
int store_lease_add(struct store_lease *lease, const char *digest, struct err *err);

/*
 * Sets @bytes of the quota aside for objects that store_write_resume() will begin;
 * what they have added is subtracted.  Objects of unknown digest do it themselves.
 * 0, -EDQUOT when it does not fit, or another negative errno.
 */
int store_lease_reserve(struct store_lease *lease, uint64_t bytes, struct err *err);

/* ---- objects ---- */

/* Size of an object in bytes.  0, -ENOENT without message, or another negative errno. */
int store_size(struct store *store, const char *digest, uint64_t *ret_size, struct err *err);
int store_object_path(struct store *store, const char *digest, char ret_path[PATH_MAX],
		      struct err *err);
/* A descriptor to read it, or -ENOENT without message, or another negative errno. */
int store_open_object(struct store *store, const char *digest, struct err *err);

/*
 * Reads a whole object of at most @max bytes and checks its digest.  The memory is
 * the caller's and has a NUL after the last byte.  0, -ENOENT without message,
 * -EBADMSG when it is damaged, -EFBIG, or another negative errno.
 */
int store_read(struct store *store, const char *digest, size_t max, char **ret_data,
	       size_t *ret_len, struct err *err);

/* An object on its way in.  Fields are private but for @size. */
struct store_writer {
	struct store *store;	/* borrowed */
	struct store_lease *lease;	/* borrowed */
	struct sha256 hash;
	uint64_t size;	/* bytes so far */
	uint64_t max;	/* bytes it may have */
	uint64_t reserved;	/* bytes of the quota set aside by the writer itself */
	int fd;	/* -1: none */
	char path[PATH_MAX];
	char digest[STORE_DIGEST_SIZE];	/* what it must become; "": not known */
};

/* Begins an object of at most @max bytes whose digest will be known at its end. */
int store_write_begin(struct store_lease *lease, uint64_t max, struct store_writer *ret_writer,
		      struct err *err);

/*
 * Begins or resumes object @digest of exactly @size bytes, which the lease gets
 * too: ret_writer->size bytes of it are there already.  0, -EEXIST (no message)
 * when the object is complete, -EWOULDBLOCK (no message) while somebody else is
 * writing it, or another negative errno.
 */
int store_write_resume(struct store_lease *lease, const char *digest, uint64_t size,
		       struct store_writer *ret_writer, struct err *err);

/* Appends.  0, -EFBIG beyond the size announced, -ENOSPC, ... */
int store_write(struct store_writer *writer, const void *data, size_t len, struct err *err);
int store_write_restart(struct store_writer *writer, struct err *err);	/* drops what is there */

/*
 * Verifies, makes durable and leases the object.  Ends the writer in any case.
 * Returns 0 and fills @ret_digest (may be NULL), -EBADMSG when the bytes are not
 * those of the digest (they are thrown away), or another negative errno.
 */
int store_write_commit(struct store_writer *writer, char ret_digest[STORE_DIGEST_SIZE],
		       struct err *err);
void store_write_pause(struct store_writer *writer);	/* keeps the bytes for store_write_resume() */
void store_write_abort(struct store_writer *writer);	/* forgets them */

/* A whole object from memory. */
int store_put(struct store_lease *lease, const void *data, size_t len,
	      char ret_digest[STORE_DIGEST_SIZE], struct err *err);

/* ---- references ---- */

struct store_ref {
	char name[STORE_NAME_MAX];
	char digest[STORE_DIGEST_SIZE];
	char type[STORE_TYPE_MAX];	/* media type of the object */
	uint64_t size;	/* bytes of it */
	time_t changed;	/* when it was set; ignored by store_ref_set() */
};

/* Sets or replaces.  @kind is a short word such as "images".  0 or a negative errno. */
int store_ref_set(struct store *store, const char *kind, const struct store_ref *ref,
		  struct err *err);
/* 0, -ENOENT without message, or another negative errno. */
int store_ref_get(struct store *store, const char *kind, const char *name,
		  struct store_ref *ret_ref, struct err *err);
int store_ref_remove(struct store *store, const char *kind, const char *name, struct err *err);
/* All of a kind in fresh memory, sorted by name.  0 or a negative errno. */
int store_ref_list(struct store *store, const char *kind, struct store_ref **ret_refs,
		   size_t *ret_count, struct err *err);

/* Parses the text of a reference file.  0 or -EBADMSG. */
int store_ref_parse(const char *text, size_t len, struct store_ref *ret_ref, struct err *err);

/* ---- the whole store ---- */

/*
 * Tells what an object leads to: calls @add(@add_ctx, digest) for each child.
 * Returns 0 or a negative errno, which ends the collection before anything is
 * removed.
 */
typedef int (*store_add_fn)(void *add_ctx, const char *digest);
typedef int (*store_children_fn)(struct store *store, const char *digest, store_add_fn add,
				 void *add_ctx, struct err *err);

struct store_usage {
	uint64_t objects, bytes;
	uint64_t live_objects, live_bytes;	/* what references and leases lead to */
	uint64_t partial, partial_bytes;	/* unfinished downloads */
	uint64_t quota;	/* bytes, 0: none */
};

/* 0 or a negative errno. */
int store_usage(struct store *store, store_children_fn children, struct store_usage *ret_usage,
		struct err *err);

struct store_collected {
	uint64_t objects, bytes;	/* removed */
	uint64_t partial, partial_bytes;
};

/* Told of each object removed, or to be removed; may be NULL. */
typedef void (*store_removed_fn)(void *ctx, const char *digest, uint64_t size);

/*
 * Removes what nothing leads to, and unfinished downloads last touched
 * @partial_age_s seconds ago or earlier.  @dry_run: only counts.  0 or a negative errno.
 */
int store_collect(struct store *store, store_children_fn children, bool dry_run,
		  unsigned partial_age_s, store_removed_fn removed, void *ctx,
		  struct store_collected *ret_collected, struct err *err);

/* One object with its size in bytes and whether something leads to it. */
struct store_object {
	char digest[STORE_DIGEST_SIZE];
	uint64_t size;
	bool live;
};

/* All objects in fresh memory, sorted by digest.  @children NULL: only what is named directly is live. */
int store_list(struct store *store, store_children_fn children, struct store_object **ret_objects,
	       size_t *ret_count, struct err *err);

/*
 * Reads an object and compares.  @remove: a damaged one is removed, so that it is
 * fetched again.  0, -EBADMSG when it is damaged, or another negative errno.
 */
int store_verify(struct store *store, const char *digest, bool remove, struct err *err);

/* Limit of the store in bytes; 0: none. */
int store_quota_get(struct store *store, uint64_t *ret_bytes, struct err *err);
int store_quota_set(struct store *store, uint64_t bytes, struct err *err);

#endif /* STORE_STORE_H */
