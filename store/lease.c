/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Leases.  The file of a lease has one line for each thing it holds, written with
 * one write(2) under the store's shared lock, so that a collection reads whole
 * lines:
 *
 *   keep sha256:...     an object and what it leads to
 *   reserve BYTES       of the quota; negative for what has been added since
 */
#include "store/private.h"

#include "os/err.h"
#include "os/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define LEASE_MAX (16u * 1024u * 1024u) /* bytes of a lease's file */

int store_lease_begin(struct store *store, struct store_lease **ret_lease, struct err *err)
{
	struct store_lease *lease = calloc(1, sizeof(*lease));

	if (!lease)
		return err_set(err, -ENOMEM, "out of memory for a lease");
	lease->store = store;
	lease->fd = store_new_file(store, "leases", lease->path, err);
	if (lease->fd < 0) {
		int r = lease->fd;

		free(lease);
		return r;
	}
	*ret_lease = lease;
	return 0;
}

void store_lease_end(struct store_lease *lease)
{
	if (!lease)
		return;
	(void)unlink(lease->path);
	close(lease->fd);
	free(lease);
}

/* Appends a line; the caller holds the lock.  A line that fits only in part is taken back. */
static int append(struct store_lease *lease, const char *line, size_t len, struct err *err)
{
	off_t end = lseek(lease->fd, 0, SEEK_END);
	int r = end < 0 ? -errno : file_write_all(lease->fd, line, len);

	if (r == 0)
		return 0;
	if (end >= 0 && ftruncate(lease->fd, end) < 0)
		return err_set(err, -errno, "cannot repair %s: %s", lease->path, strerror(errno));
	return store_no_room(err, r, lease->path);
}

int store_lease_add(struct store_lease *lease, const char *digest, struct err *err)
{
	char line[16 + STORE_DIGEST_SIZE];
	int n, lock, r;

	if (!store_digest_ok(digest))
		return err_set(err, -EINVAL, "'%.80s' is not a digest: it is sha256: and 64 digits", digest);
	n = snprintf(line, sizeof(line), "keep %s\n", digest);
	lock = store_lock(lease->store, false, err);
	if (lock < 0)
		return lock;
	r = append(lease, line, (size_t)n, err);
	close(lock);
	return r;
}

static int reserve_line(struct store_lease *lease, int64_t bytes, struct err *err)
{
	char line[48];
	int n = snprintf(line, sizeof(line), "reserve %" PRId64 "\n", bytes);

	return append(lease, line, (size_t)n, err);
}

/* Room below the quota, with the lock held exclusively.  Files being written count as reserved. */
static int check_quota(struct store *store, uint64_t quota, uint64_t bytes, struct err *err)
{
	uint64_t objects, partial, reserved, count;
	int r = store_measure(store, "blobs/sha256", false, &objects, &count, err);

	if (r == 0)
		r = store_measure(store, "partial", true, &partial, &count, err);
	if (r == 0)
		r = store_lease_walk(store, true, NULL, NULL, &reserved, err);
	if (r < 0)
		return r;
	if (bytes <= quota && objects + partial + reserved <= quota - bytes)
		return 0;
	return err_set(err, -EDQUOT, "the store's quota of %" PRIu64 " MiB has %" PRIu64 " MiB in use and %"
		       PRIu64 " MiB more are wanted: 'roux store gc' or 'roux rmi' frees some, 'roux store "
		       "quota SIZE' changes it", quota >> 20, (objects + partial + reserved) >> 20,
		       (bytes + (1 << 20) - 1) >> 20);
}

int store_lease_reserve(struct store_lease *lease, uint64_t bytes, struct err *err)
{
	uint64_t quota;
	int lock, r = store_quota_get(lease->store, &quota, err);

	if (r < 0 || quota == 0)
		return r;
	if (bytes > INT64_MAX)
		return err_set(err, -EDQUOT, "nothing of that size fits in the store");
	lock = store_lock(lease->store, true, err);
	if (lock < 0)
		return lock;
	r = check_quota(lease->store, quota, bytes, err);
	if (r == 0)
		r = reserve_line(lease, (int64_t)bytes, err);
	close(lock);
	return r;
}

void store_lease_consumed(struct store_lease *lease, uint64_t bytes)
{
	int lock = store_lock(lease->store, false, NULL);

	/* When it fails, too much stays reserved until the lease ends: no harm beyond that. */
	if (lock >= 0) {
		(void)reserve_line(lease, -(int64_t)bytes, NULL);
		close(lock);
	}
}

/* Lines of one lease.  What is not understood is of a later version and no reason to stop. */
static int read_lines(char *text, store_add_fn add, void *add_ctx, uint64_t *reserved, struct err *err)
{
	int64_t sum = 0;
	int r = 0;

	for (char *line = text, *next; r == 0 && line && *line; line = next) {
		next = strchr(line, '\n');
		if (!next)	/* its writer died while writing it */
			break;
		*next++ = '\0';
		if (add && strncmp(line, "keep ", 5) == 0 && store_digest_ok(line + 5))
			r = add(add_ctx, line + 5);
		else if (strncmp(line, "reserve ", 8) == 0 &&
			 __builtin_add_overflow(sum, strtoll(line + 8, NULL, 10), &sum))
			return err_set(err, -EBADMSG, "a lease of the store reserves more than there is");
	}
	if (reserved && sum > 0)
		*reserved += (uint64_t)sum;
	return r;
}

int store_lease_walk(struct store *store, bool exclusive, store_add_fn add, void *add_ctx,
		     uint64_t *ret_reserved, struct err *err)
{
	char path[PATH_MAX], *text;
	struct dirent *e;
	size_t len;
	DIR *dir;
	int r = store_open_folder(store, "leases", &dir, err);

	if (r < 0)
		return r;
	if (ret_reserved)
		*ret_reserved = 0;
	while (r == 0 && (e = readdir(dir))) {
		int fd;

		if (e->d_name[0] == '.')
			continue;
		r = file_path(path, err, store->path, "/leases/", e->d_name, NULL);
		if (r < 0)
			break;
		fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
		if (fd < 0)	/* ended meanwhile */
			continue;
		if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
			if (exclusive)
				(void)unlink(path);
		} else {
			r = file_read_all(path, LEASE_MAX, &text, &len, err);
			if (r == 0) {
				r = read_lines(text, add, add_ctx, ret_reserved, err);
				free(text);
			} else if (r == -ENOENT) {
				r = 0;
			}
		}
		close(fd);
	}
	closedir(dir);
	return r;
}
