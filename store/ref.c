/* SPDX-License-Identifier: Apache-2.0 */
/*
 * References.  A name may be longer than a file's and has slashes, so the file is
 * named by the name's hash and has the name inside:
 *
 *   roux reference 1
 *   name docker.io/library/alpine:3
 *   digest sha256:...
 *   type application/vnd.oci.image.index.v1+json
 *   size 1853
 */
#include "store/private.h"

#include "os/err.h"
#include "os/file.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEAD "roux reference 1\n"
#define TEXT_MAX 2048u /* bytes of a reference's file */

/* The next line "KEY VALUE" with that key: its value, of at most @size bytes with the NUL. */
static bool take_line(const char **at, const char *end, const char *key, char *ret, size_t size)
{
	size_t klen = strlen(key), len;
	const char *eol = memchr(*at, '\n', (size_t)(end - *at));

	if (!eol || (size_t)(eol - *at) < klen || memcmp(*at, key, klen) != 0)
		return false;
	len = (size_t)(eol - *at) - klen;
	if (len == 0 || len >= size || memchr(*at, '\0', len + klen))
		return false;
	memcpy(ret, *at + klen, len);
	ret[len] = '\0';
	*at = eol + 1;
	return true;
}

int store_ref_parse(const char *text, size_t len, struct store_ref *ret_ref, struct err *err)
{
	const char *at = text, *end = text + len;
	struct store_ref ref = { .size = 0 };
	char size[24], *stop = size;

	if (len > strlen(HEAD) && memcmp(text, HEAD, strlen(HEAD)) == 0) {
		at += strlen(HEAD);
		if (take_line(&at, end, "name ", ref.name, sizeof(ref.name)) &&
		    take_line(&at, end, "digest ", ref.digest, sizeof(ref.digest)) &&
		    take_line(&at, end, "type ", ref.type, sizeof(ref.type)) &&
		    take_line(&at, end, "size ", size, sizeof(size)) && isdigit((unsigned char)size[0]))
			ref.size = strtoull(size, &stop, 10);
	}
	if (at != end || stop == size || *stop || !store_digest_ok(ref.digest))
		return err_set(err, -EBADMSG, "a reference file is damaged");
	*ret_ref = ref;
	return 0;
}

static int ref_path(struct store *store, const char *kind, const char *name, char ret[PATH_MAX],
		    struct err *err)
{
	char digest[STORE_DIGEST_SIZE];

	store_digest(name, strlen(name), digest);
	return file_path(ret, err, store->path, "/refs/", kind, "/", digest + 7, NULL);
}

int store_ref_set(struct store *store, const char *kind, const struct store_ref *ref,
		  struct err *err)
{
	char path[PATH_MAX], dir[PATH_MAX], text[TEXT_MAX];
	int n = snprintf(text, sizeof(text), HEAD "name %s\ndigest %s\ntype %s\nsize %" PRIu64 "\n", ref->name,
			 ref->digest, ref->type, ref->size);
	int lock, r = ref_path(store, kind, ref->name, path, err);

	if (r == 0)
		r = file_path(dir, err, store->path, "/refs/", kind, NULL);
	if (r < 0)
		return r;
	if (!ref->name[0] || !ref->type[0] || strchr(ref->name, '\n') || strchr(ref->type, '\n') ||
	    !store_digest_ok(ref->digest))
		return err_set(err, -EINVAL, "'%.100s' cannot be a reference", ref->name);
	lock = store_lock(store, false, err);
	if (lock < 0)
		return lock;
	r = file_mkdirs(dir, 0700, err);
	if (r == 0)
		r = file_write_atomic(path, text, (size_t)n, 0644, err);
	close(lock);
	return r;
}

static int read_ref(const char *path, struct store_ref *ret_ref, struct err *err)
{
	struct stat st;
	char *text;
	size_t len;
	int r = file_read_all(path, TEXT_MAX, &text, &len, err);

	if (r < 0)
		return r;
	r = store_ref_parse(text, len, ret_ref, err);
	free(text);
	if (r < 0)
		return err_prefix(err, r, "%.120s (remove it and pull again)", path);
	ret_ref->changed = stat(path, &st) == 0 ? st.st_mtime : 0;
	return 0;
}

int store_ref_get(struct store *store, const char *kind, const char *name,
		  struct store_ref *ret_ref, struct err *err)
{
	char path[PATH_MAX];
	int r = ref_path(store, kind, name, path, err);

	return r < 0 ? r : read_ref(path, ret_ref, err);
}

int store_ref_remove(struct store *store, const char *kind, const char *name, struct err *err)
{
	char path[PATH_MAX], dir[PATH_MAX];
	int lock, r = ref_path(store, kind, name, path, err);

	if (r == 0)
		r = file_path(dir, err, store->path, "/refs/", kind, NULL);
	if (r < 0)
		return r;
	lock = store_lock(store, false, err);
	if (lock < 0)
		return lock;
	if (unlink(path) < 0)
		r = errno == ENOENT ? -ENOENT : err_set(err, -errno, "cannot remove %s: %s", path, strerror(errno));
	else
		r = file_sync_dir(dir);
	close(lock);
	return r;
}

static int by_name(const void *a, const void *b)
{
	const struct store_ref *x = a, *y = b;

	return strcmp(x->name, y->name);
}

static bool is_hex_name(const char *name)
{
	return strlen(name) == HEX_LEN && strspn(name, "0123456789abcdef") == HEX_LEN;
}

int store_ref_list(struct store *store, const char *kind, struct store_ref **ret_refs,
		   size_t *ret_count, struct err *err)
{
	char dir_path[PATH_MAX], path[PATH_MAX];
	struct store_ref *refs = NULL;
	size_t n = 0, cap = 0;
	struct dirent *e;
	DIR *dir;
	int r = file_path(dir_path, err, store->path, "/refs/", kind, NULL);

	if (r < 0)
		return r;
	dir = opendir(dir_path);
	if (!dir && errno != ENOENT)
		return err_set(err, -errno, "cannot read %s: %s", dir_path, strerror(errno));
	while (dir && r == 0 && (e = readdir(dir))) {
		if (!is_hex_name(e->d_name))	/* a temporary name of a write that was cut off */
			continue;
		if (n == cap) {
			struct store_ref *more = realloc(refs, (cap = cap ? cap * 2 : 16) * sizeof(*refs));

			if (!more) {
				r = err_set(err, -ENOMEM, "out of memory for references");
				break;
			}
			refs = more;
		}
		r = file_path(path, err, dir_path, "/", e->d_name, NULL);
		if (r == 0)
			r = read_ref(path, &refs[n], err);
		if (r == 0)
			n++;
		else if (r == -ENOENT)	/* removed meanwhile */
			r = 0;
	}
	if (dir)
		closedir(dir);
	if (r < 0) {
		free(refs);
		return r;
	}
	if (n)
		qsort(refs, n, sizeof(*refs), by_name);
	*ret_refs = refs;
	*ret_count = n;
	return 0;
}
