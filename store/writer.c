/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Objects on their way in.
 *
 *   known digest    partial/<hex>, locked by its writer, kept when the writer goes
 *   unknown digest  temp/<random>, locked, worthless without its writer
 *
 * Both become blobs/sha256/<hex> by one rename, after the bytes are verified and
 * durable and the digest is leased: a collection between lease and rename finds
 * the lease, one before it waits.
 */
#include "store/private.h"

#include "os/err.h"
#include "os/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define RESERVE_STEP (16u << 20) /* bytes of quota set aside at once for an object of unknown size */

int store_write_begin(struct store_lease *lease, uint64_t max, struct store_writer *ret_writer,
		      struct err *err)
{
	struct store_writer w = { .store = lease->store, .lease = lease, .max = max };

	sha256_init(&w.hash);
	w.fd = store_new_file(lease->store, "temp", w.path, err);
	if (w.fd < 0)
		return w.fd;
	*ret_writer = w;
	return 0;
}

/* Opens and locks the file of an unfinished download, which may be moved away under us. */
static int open_partial(struct store_writer *w, struct err *err)
{
	for (;;) {
		int r, lock = store_lock(w->store, false, err);

		if (lock < 0)
			return lock;
		w->fd = open(w->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
		r = w->fd < 0 ? store_no_room(err, -errno, w->path) : 0;
		if (r == 0 && flock(w->fd, LOCK_EX | LOCK_NB) < 0)
			r = errno == EWOULDBLOCK ? -EWOULDBLOCK
						 : err_set(err, -errno, "cannot lock %s: %s", w->path, strerror(errno));
		close(lock);
		if (r == 0 && store_is_at(w->fd, w->path))
			return 0;
		if (w->fd >= 0)
			close(w->fd);
		w->fd = -1;
		if (r < 0)
			return r;
	}
}

int store_write_resume(struct store_lease *lease, const char *digest, uint64_t size,
		       struct store_writer *ret_writer, struct err *err)
{
	struct store_writer w = { .store = lease->store, .lease = lease, .max = size, .fd = -1 };
	uint64_t have;
	int r = store_lease_add(lease, digest, err);

	if (r < 0)
		return r;
	r = store_size(w.store, digest, &have, err);
	if (r != -ENOENT)
		return r == 0 ? -EEXIST : r;
	memcpy(w.digest, digest, STORE_DIGEST_SIZE);
	sha256_init(&w.hash);
	r = file_path(w.path, err, w.store->path, "/partial/", digest + 7, NULL);
	if (r == 0)
		r = open_partial(&w, err);
	if (r < 0)
		return r;
	/* It may have been completed between the look and the lock. */
	if (store_size(w.store, digest, &have, NULL) == 0) {
		store_write_abort(&w);
		return -EEXIST;
	}
	/* What an earlier download left. */
	r = store_hash(w.fd, &w.hash);
	w.size = w.hash.bytes;
	if (r < 0 || w.size > size)
		r = store_write_restart(&w, err);
	if (r < 0) {
		store_write_abort(&w);
		return r;
	}
	*ret_writer = w;
	return 0;
}

int store_write_restart(struct store_writer *writer, struct err *err)
{
	sha256_init(&writer->hash);
	writer->size = 0;
	if (ftruncate(writer->fd, 0) < 0 || lseek(writer->fd, 0, SEEK_SET) < 0)
		return err_set(err, -errno, "cannot empty %s: %s", writer->path, strerror(errno));
	return 0;
}

int store_write(struct store_writer *writer, const void *data, size_t len, struct err *err)
{
	int r;

	if (len > writer->max - writer->size)
		return err_set(err, -EFBIG, "more bytes than the %llu announced", (unsigned long long)writer->max);
	if (!writer->digest[0] && len > writer->reserved - writer->size) {
		uint64_t left = writer->max - writer->reserved, more = len > RESERVE_STEP ? len : RESERVE_STEP;

		more = more < left ? more : left;
		r = store_lease_reserve(writer->lease, more, err);
		if (r < 0)
			return r;
		writer->reserved += more;
	}
	r = file_write_all(writer->fd, data, len);
	if (r < 0) {
		/* What was written in part must not be hashed twice when it is resumed. */
		if (ftruncate(writer->fd, (off_t)writer->size) == 0)
			(void)lseek(writer->fd, 0, SEEK_END);
		return store_no_room(err, r, writer->store->path);
	}
	sha256_add(&writer->hash, data, len);
	writer->size += len;
	return 0;
}

static void finish(struct store_writer *w)
{
	if (w->reserved)
		store_lease_consumed(w->lease, w->reserved);
	w->reserved = 0;
	close(w->fd);
	w->fd = -1;
}

void store_write_pause(struct store_writer *writer)
{
	if (writer->fd < 0)
		return;
	if (!writer->digest[0] || writer->size == 0)
		(void)unlink(writer->path);
	finish(writer);
}

void store_write_abort(struct store_writer *writer)
{
	if (writer->fd < 0)
		return;
	(void)unlink(writer->path);
	finish(writer);
}

/* Under its lease: gives the file its name. */
static int publish(struct store_writer *w, const char *digest, struct err *err)
{
	char path[PATH_MAX], dir[PATH_MAX];
	int r = store_object_path(w->store, digest, path, err);

	if (r == 0)
		r = file_path(dir, err, w->store->path, "/blobs/sha256", NULL);
	if (r < 0)
		return r;
	if (fchmod(w->fd, 0444) < 0 || fsync(w->fd) < 0 || rename(w->path, path) < 0)
		return store_no_room(err, -errno, path);
	r = file_sync_dir(dir);
	return r < 0 ? err_set(err, r, "cannot make %s durable: %s", path, strerror(-r)) : 0;
}

int store_write_commit(struct store_writer *writer, char ret_digest[STORE_DIGEST_SIZE],
		       struct err *err)
{
	char digest[STORE_DIGEST_SIZE];
	uint64_t have;
	int r = 0;

	store_digest_finish(&writer->hash, digest);
	if (writer->digest[0] && strcmp(digest, writer->digest) != 0)
		r = err_set(err, -EBADMSG, "the bytes have digest %.19s... instead of %.19s...", digest,
			    writer->digest);
	if (r == 0 && !writer->digest[0])
		r = store_lease_add(writer->lease, digest, err);
	if (r == 0 && store_size(writer->store, digest, &have, NULL) == 0)
		store_write_abort(writer);
	else if (r == 0)
		r = publish(writer, digest, err);
	if (r < 0) {
		store_write_abort(writer);
		return r;
	}
	if (writer->fd >= 0)
		finish(writer);
	if (writer->digest[0])
		store_lease_consumed(writer->lease, writer->size);
	if (ret_digest)
		memcpy(ret_digest, digest, sizeof(digest));
	return 0;
}

int store_put(struct store_lease *lease, const void *data, size_t len,
	      char ret_digest[STORE_DIGEST_SIZE], struct err *err)
{
	struct store_writer w;
	int r = store_write_begin(lease, len, &w, err);

	if (r < 0)
		return r;
	r = store_write(&w, data, len, err);
	if (r < 0) {
		store_write_abort(&w);
		return r;
	}
	return store_write_commit(&w, ret_digest, err);
}
