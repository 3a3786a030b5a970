/* SPDX-License-Identifier: Apache-2.0 */
/* Collection: marks what leases and references lead to, and removes the rest. */
#include "store/private.h"

#include "os/err.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* ---- set of digests ---- */

/* Open addressing; digests are random, so their first bytes are the hash. */
struct set {
	uint8_t (*slot)[SHA256_SIZE];
	bool *used;
	size_t count, cap;	/* cap is a power of two or 0 */
};

static void set_free(struct set *set)
{
	free(set->slot);
	free(set->used);
	*set = (struct set){ .count = 0 };
}

static void from_hex(const char *digest, uint8_t ret[SHA256_SIZE])
{
	for (int i = 0; i < SHA256_SIZE; i++) {
		char hi = digest[7 + 2 * i], lo = digest[8 + 2 * i];

		ret[i] = (uint8_t)((hi <= '9' ? hi - '0' : hi - 'a' + 10) << 4 | (lo <= '9' ? lo - '0' : lo - 'a' + 10));
	}
}

/* Where @key is or would be. */
static size_t set_find(const struct set *set, const uint8_t key[SHA256_SIZE])
{
	size_t at;

	memcpy(&at, key, sizeof(at));
	for (at &= set->cap - 1; set->used[at] && memcmp(set->slot[at], key, SHA256_SIZE) != 0;)
		at = (at + 1) & (set->cap - 1);
	return at;
}

static bool set_has(const struct set *set, const char *digest)
{
	uint8_t key[SHA256_SIZE];

	from_hex(digest, key);
	return set->cap && set->used[set_find(set, key)];
}

static int set_grow(struct set *set)
{
	struct set more = { .cap = set->cap ? set->cap * 2 : 256, .count = set->count };

	more.slot = calloc(more.cap, sizeof(*more.slot));
	more.used = calloc(more.cap, sizeof(*more.used));
	if (!more.slot || !more.used) {
		set_free(&more);
		return -ENOMEM;
	}
	for (size_t i = 0; i < set->cap; i++)
		if (set->used[i]) {
			size_t at = set_find(&more, set->slot[i]);

			memcpy(more.slot[at], set->slot[i], SHA256_SIZE);
			more.used[at] = true;
		}
	set_free(set);
	*set = more;
	return 0;
}

/* 1 when it is new, 0 when it was there, or -ENOMEM. */
static int set_add(struct set *set, const char *digest)
{
	uint8_t key[SHA256_SIZE];
	size_t at;

	if (set->count * 2 >= set->cap && set_grow(set) < 0)
		return -ENOMEM;
	from_hex(digest, key);
	at = set_find(set, key);
	if (set->used[at])
		return 0;
	memcpy(set->slot[at], key, SHA256_SIZE);
	set->used[at] = true;
	set->count++;
	return 1;
}

/* ---- marking ---- */

struct mark {
	struct set live;
	char (*todo)[STORE_DIGEST_SIZE];	/* live, children not looked at */
	size_t ntodo, cap;
};

static int mark_one(void *ctx, const char *digest)
{
	struct mark *m = ctx;
	int r;

	if (!store_digest_ok(digest))
		return 0;	/* an algorithm that the store does not have */
	r = set_add(&m->live, digest);
	if (r <= 0)
		return r;
	if (m->ntodo == m->cap) {
		size_t cap = m->cap ? m->cap * 2 : 64;
		void *more = realloc(m->todo, cap * sizeof(*m->todo));

		if (!more)
			return -ENOMEM;
		m->todo = more;
		m->cap = cap;
	}
	memcpy(m->todo[m->ntodo++], digest, STORE_DIGEST_SIZE);
	return 0;
}

static void mark_finish(struct mark *m)
{
	set_free(&m->live);
	free(m->todo);
}

static int mark_refs(struct store *store, const char *kind, struct mark *m, struct err *err)
{
	struct store_ref *refs;
	size_t n;
	int r = store_ref_list(store, kind, &refs, &n, err);

	if (r < 0)
		return r;
	for (size_t i = 0; r == 0 && i < n; i++)
		r = mark_one(m, refs[i].digest);
	free(refs);
	return r;
}

static int mark_all_refs(struct store *store, struct mark *m, struct err *err)
{
	struct dirent *e;
	DIR *dir;
	int r = store_open_folder(store, "refs", &dir, err);

	if (r < 0)
		return r;
	while (r == 0 && (e = readdir(dir)))
		if (e->d_name[0] != '.')
			r = mark_refs(store, e->d_name, m, err);
	closedir(dir);
	return r;
}

/* All that lives.  Needs the lock; leases first, because a reference may take over from one. */
static int mark(struct store *store, bool exclusive, store_children_fn children, struct mark *m,
		struct err *err)
{
	int r;

	*m = (struct mark){ .ntodo = 0 };
	r = store_lease_walk(store, exclusive, mark_one, m, NULL, err);
	if (r == 0)
		r = mark_all_refs(store, m, err);
	while (r == 0 && m->ntodo && children) {
		char digest[STORE_DIGEST_SIZE];
		uint64_t size;

		memcpy(digest, m->todo[--m->ntodo], sizeof(digest));
		r = store_size(store, digest, &size, err);
		if (r == 0)
			r = children(store, digest, mark_one, m, err);
		else if (r == -ENOENT)	/* leased before it is fetched, or of another platform */
			r = 0;
	}
	if (r < 0) {
		mark_finish(m);
		return r == -ENOMEM ? err_set(err, r, "out of memory for the store's objects") : r;
	}
	return 0;
}

/* ---- objects ---- */

static int by_digest(const void *a, const void *b)
{
	const struct store_object *x = a, *y = b;

	return strcmp(x->digest, y->digest);
}

static int list_objects(struct store *store, const struct mark *m, struct store_object **ret,
			size_t *ret_count, struct err *err)
{
	struct store_object *list = NULL;
	size_t n = 0, cap = 0;
	struct dirent *e;
	struct stat st;
	DIR *dir;
	int r = store_open_folder(store, "blobs/sha256", &dir, err);

	if (r < 0)
		return r;
	while ((e = readdir(dir))) {
		struct store_object o;

		if (strlen(e->d_name) != HEX_LEN)
			continue;
		memcpy(o.digest, "sha256:", 7);
		memcpy(o.digest + 7, e->d_name, SHA256_HEX_SIZE);
		if (!store_digest_ok(o.digest) || fstatat(dirfd(dir), e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		o.size = (uint64_t)st.st_size;
		o.live = set_has(&m->live, o.digest);
		if (n == cap) {
			struct store_object *more = realloc(list, (cap = cap ? cap * 2 : 256) * sizeof(*list));

			if (!more) {
				r = err_set(err, -ENOMEM, "out of memory for the store's objects");
				break;
			}
			list = more;
		}
		list[n++] = o;
	}
	closedir(dir);
	if (r < 0) {
		free(list);
		return r;
	}
	if (n)
		qsort(list, n, sizeof(*list), by_digest);
	*ret = list;
	*ret_count = n;
	return 0;
}

int store_list(struct store *store, store_children_fn children, struct store_object **ret_objects,
	       size_t *ret_count, struct err *err)
{
	int r, lock = store_lock(store, false, err);
	struct mark m;

	if (lock < 0)
		return lock;
	r = mark(store, false, children, &m, err);
	if (r == 0) {
		r = list_objects(store, &m, ret_objects, ret_count, err);
		mark_finish(&m);
	}
	close(lock);
	return r;
}

int store_usage(struct store *store, store_children_fn children, struct store_usage *ret_usage,
		struct err *err)
{
	struct store_usage usage = { .objects = 0 };
	struct store_object *list;
	size_t n;
	int r = store_list(store, children, &list, &n, err);

	if (r < 0)
		return r;
	usage.objects = n;
	for (size_t i = 0; i < n; i++) {
		usage.bytes += list[i].size;
		usage.live_objects += list[i].live;
		usage.live_bytes += list[i].live ? list[i].size : 0;
	}
	free(list);
	r = store_measure(store, "partial", false, &usage.partial_bytes, &usage.partial, err);
	if (r == 0)
		r = store_quota_get(store, &usage.quota, err);
	if (r == 0)
		*ret_usage = usage;
	return r;
}

/* ---- removing ---- */

/* Files of @sub that nobody has locked and that are @age_s old. */
static int sweep_unlocked(struct store *store, const char *sub, unsigned age_s, bool dry_run,
			  uint64_t *ret_count, uint64_t *ret_bytes, struct err *err)
{
	time_t now = time(NULL);
	struct dirent *e;
	struct stat st;
	DIR *dir;
	int r = store_open_folder(store, sub, &dir, err);

	if (r < 0)
		return r;
	while ((e = readdir(dir))) {
		int fd = e->d_name[0] == '.' ? -1 : store_try_lock(dir, e->d_name);

		if (fd < 0)
			continue;
		if (fstat(fd, &st) == 0 && st.st_mtime <= now - (time_t)age_s) {
			*ret_bytes += (uint64_t)st.st_size;
			++*ret_count;
			if (!dry_run)
				(void)unlinkat(dirfd(dir), e->d_name, 0);
		}
		close(fd);
	}
	closedir(dir);
	return 0;
}

static int sweep_objects(struct store *store, const struct mark *m, bool dry_run,
			 store_removed_fn removed, void *ctx, struct store_collected *c,
			 struct err *err)
{
	struct store_object *list;
	char path[PATH_MAX];
	size_t n;
	int r = list_objects(store, m, &list, &n, err);

	if (r < 0)
		return r;
	for (size_t i = 0; r == 0 && i < n; i++) {
		if (list[i].live)
			continue;
		r = store_object_path(store, list[i].digest, path, err);
		if (r == 0 && !dry_run && unlink(path) < 0)
			r = err_set(err, -errno, "cannot remove %s: %s", path, strerror(errno));
		if (r == 0) {
			c->objects++;
			c->bytes += list[i].size;
			if (removed)
				removed(ctx, list[i].digest, list[i].size);
		}
	}
	free(list);
	return r;
}

/* What a cut off store_ref_set() left: whoever sets one holds the lock, so nobody does now. */
static void sweep_ref_temps(struct store *store)
{
	struct dirent *kind, *e;
	DIR *dir, *sub;

	if (store_open_folder(store, "refs", &dir, NULL) < 0)
		return;
	while ((kind = readdir(dir))) {
		int fd = kind->d_name[0] == '.' ? -1 : openat(dirfd(dir), kind->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

		sub = fd < 0 ? NULL : fdopendir(fd);
		while (sub && (e = readdir(sub)))
			if (strstr(e->d_name, ".new-"))
				(void)unlinkat(fd, e->d_name, 0);
		if (sub)
			closedir(sub);
	}
	closedir(dir);
}

int store_collect(struct store *store, store_children_fn children, bool dry_run,
		  unsigned partial_age_s, store_removed_fn removed, void *ctx,
		  struct store_collected *ret_collected, struct err *err)
{
	struct store_collected c = { .objects = 0 };
	uint64_t files = 0, bytes = 0;
	struct mark m;
	int r, lock = store_lock(store, true, err);

	if (lock < 0)
		return lock;
	r = mark(store, !dry_run, children, &m, err);
	if (r == 0) {
		r = sweep_objects(store, &m, dry_run, removed, ctx, &c, err);
		mark_finish(&m);
	}
	if (r == 0)
		r = sweep_unlocked(store, "partial", partial_age_s, dry_run, &c.partial, &c.partial_bytes, err);
	if (r == 0)
		r = sweep_unlocked(store, "temp", 0, dry_run, &files, &bytes, err);
	if (r == 0 && !dry_run)
		sweep_ref_temps(store);
	close(lock);
	if (r == 0)
		*ret_collected = c;
	return r;
}
