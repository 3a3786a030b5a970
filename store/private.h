/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the store share. */
#ifndef STORE_PRIVATE_H
#define STORE_PRIVATE_H

#include "store/store.h"

#include <dirent.h>
#include <sys/types.h>

#define HEX_LEN (SHA256_HEX_SIZE - 1)

struct store {
	char path[PATH_MAX];
};

struct store_lease {
	struct store *store;	/* borrowed */
	int fd;	/* locked */
	char path[PATH_MAX];
};

/* Takes the lock of the whole store; waits.  A descriptor to close, or a negative errno. */
int store_lock(struct store *store, bool exclusive, struct err *err);

/* Opens folder @sub of the store.  0 or a negative errno. */
int store_open_folder(struct store *store, const char *sub, DIR **ret_dir, struct err *err);

/* Opens and locks file @name of @dir.  A descriptor, or -1: it is gone, or somebody has it. */
int store_try_lock(DIR *dir, const char *name);

/* Adds what is to be read from @fd to @hash.  0 or -errno. */
int store_hash(int fd, struct sha256 *hash);

/* The same file, not yet removed or renamed, is at @path. */
bool store_is_at(int fd, const char *path);

/*
 * Makes file <store>/<dir>/<random> and locks it, under the shared lock so that no
 * collection sees it unlocked.  A descriptor and its path, or a negative errno.
 */
int store_new_file(struct store *store, const char *dir, char ret_path[PATH_MAX],
		   struct err *err);

/*
 * What the leases of living processes hold, added up: @add for each digest (NULL:
 * not wanted), *@ret_reserved bytes (NULL: not wanted).  Needs the lock; removes
 * leases of the dead when @exclusive.
 */
int store_lease_walk(struct store *store, bool exclusive, store_add_fn add, void *add_ctx,
		     uint64_t *ret_reserved, struct err *err);

/* Records that the lease has added @bytes of what it reserved. */
void store_lease_consumed(struct store_lease *lease, uint64_t bytes);

/* Files of folder @sub: bytes and number.  @unlocked: only those nobody has locked. */
int store_measure(struct store *store, const char *sub, bool unlocked, uint64_t *ret_bytes,
		  uint64_t *ret_count, struct err *err);

/* Whether a failed write was for want of space; the sentence says what to do. */
int store_no_room(struct err *err, int r, const char *what);

#endif /* STORE_PRIVATE_H */
