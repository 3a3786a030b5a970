/* SPDX-License-Identifier: Apache-2.0 */
#include "oci/source.h"

#include "os/err.h"
#include "os/file.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define STEP (256u * 1024u) /* bytes read at once */
#define LINKS_MAX 4 /* from name to name inside a tar */
#define ENTRIES_MAX 100000 /* of the outer tar */

bool source_clean_name(const char *name, char ret_clean[PATH_MAX])
{
	size_t len = 0;

	while (*(name += strspn(name, "/"))) {
		size_t n = strcspn(name, "/");

		if (n == 2 && name[0] == '.' && name[1] == '.')
			return false;
		if (n == 1 && name[0] == '.') {
			name += n;
			continue;
		}
		if (len + n + 2 > PATH_MAX)
			return false;
		if (len)
			ret_clean[len++] = '/';
		memcpy(ret_clean + len, name, n);
		len += n;
		name += n;
	}
	ret_clean[len] = '\0';
	return true;
}

static int open_file(const struct source *source, const char *name, struct source_file *ret_file,
		     struct err *err)
{
	char path[PATH_MAX];
	struct stat st;
	int r = file_path(path, err, source->path, "/", name, NULL);

	if (r < 0)
		return r;
	ret_file->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (ret_file->fd < 0)
		return errno == ENOENT ? -ENOENT : err_set(err, -errno, "%s: %s", path, strerror(errno));
	if (fstat(ret_file->fd, &st) < 0 || !S_ISREG(st.st_mode)) {
		source_close(ret_file);
		return err_set(err, -EBADMSG, "%s is not a regular file", path);
	}
	ret_file->buf = malloc(STEP);
	if (!ret_file->buf) {
		source_close(ret_file);
		return err_set(err, -ENOMEM, "%s: out of memory", path);
	}
	return 0;
}

static int tar_err(struct err *err, const char *path, struct archive *a)
{
	const char *why = archive_error_string(a);

	return err_set(err, -EBADMSG, "%s cannot be read as a tar: %s", path, why ? why : "unknown form");
}

/* The name that a link of @name to @target means: old archives link equal layers. */
static bool follow(const char *name, const char *target, bool hard, char ret_name[PATH_MAX])
{
	char joined[PATH_MAX], dir[PATH_MAX];
	char *slash;

	if (hard)
		return source_clean_name(target, ret_name);
	if (target[0] == '/' || file_path(dir, NULL, name, NULL) < 0)
		return false;
	slash = strrchr(dir, '/');
	if (slash)
		*slash = '\0';
	else
		dir[0] = '\0';
	/* Only "../<id>/layer.tar" from "<id>/layer.tar" occurs. */
	if (strncmp(target, "../", 3) == 0) {
		if (!dir[0])
			return false;
		slash = strrchr(dir, '/');
		*(slash ? slash : dir) = '\0';
		target += 3;
	}
	return file_path(joined, NULL, dir, "/", target, NULL) == 0 &&
	       source_clean_name(joined, ret_name);
}

static struct archive *open_tar(const char *path, struct err *err)
{
	struct archive *a = archive_read_new();

	if (!a) {
		err_set(err, -ENOMEM, "%s: out of memory", path);
		return NULL;
	}
	archive_read_support_filter_gzip(a);
	archive_read_support_filter_zstd(a);
	archive_read_support_filter_xz(a);
	archive_read_support_format_tar(a);
	if (archive_read_open_filename(a, path, STEP) == ARCHIVE_OK)
		return a;
	tar_err(err, path, a);
	archive_read_free(a);
	return NULL;
}

/*
 * Looks for @name.  0: *ret_tar stands at its data.  1: it is a link, @ret_link
 * says where to.  Or -ENOENT, or another negative errno.
 */
static int seek_tar(const char *path, const char *name, struct archive **ret_tar,
		    char ret_link[PATH_MAX], struct err *err)
{
	struct archive *a = open_tar(path, err);
	struct archive_entry *e;
	char clean[PATH_MAX];
	int got = ARCHIVE_OK, r = -ENOENT;

	if (!a)
		return -EBADMSG;
	for (int n = 0; n < ENTRIES_MAX && (got = archive_read_next_header(a, &e)) == ARCHIVE_OK; n++) {
		const char *have = archive_entry_pathname(e);
		const char *hard = archive_entry_hardlink(e), *soft = archive_entry_symlink(e);

		if (!have || !source_clean_name(have, clean) || strcmp(clean, name) != 0)
			continue;
		if (hard || soft)
			r = follow(name, hard ? hard : soft, hard != NULL, ret_link) ? 1 : -EBADMSG;
		else
			r = archive_entry_filetype(e) == AE_IFREG ? 0 : -EBADMSG;
		if (r < 0)
			err_set(err, r, "%s: %.100s is not a file", path, name);
		break;
	}
	if (r == -ENOENT && got != ARCHIVE_OK && got != ARCHIVE_EOF)
		r = tar_err(err, path, a);
	if (r == 0)
		*ret_tar = a;
	else
		archive_read_free(a);
	return r;
}

static int open_member(const struct source *source, const char *name, struct source_file *ret_file,
		       struct err *err)
{
	char now[PATH_MAX], next[PATH_MAX];
	int r = file_path(now, err, name, NULL);

	if (r < 0)
		return r;
	for (int i = 0; i < LINKS_MAX; i++) {
		r = seek_tar(source->path, now, &ret_file->tar, next, err);
		if (r != 1)
			return r;
		memcpy(now, next, sizeof(now));
	}
	return err_set(err, -ELOOP, "%s: %.100s links in a circle", source->path, name);
}

int source_open(const struct source *source, const char *name, struct source_file *ret_file,
		struct err *err)
{
	*ret_file = (struct source_file){ .fd = -1 };
	return source->is_tar ? open_member(source, name, ret_file, err)
			      : open_file(source, name, ret_file, err);
}

ssize_t source_next(struct source_file *file, const void **ret_data, struct err *err)
{
	la_int64_t off;
	size_t len;
	ssize_t n;
	int r;

	if (file->fd >= 0) {
		do
			n = read(file->fd, file->buf, STEP);
		while (n < 0 && errno == EINTR);
		*ret_data = file->buf;
		return n < 0 ? err_set(err, -errno, "cannot read the image: %s", strerror(errno)) : n;
	}
	do	/* an empty block is not the end */
		r = archive_read_data_block(file->tar, ret_data, &len, &off);
	while (r == ARCHIVE_OK && len == 0);
	if (r == ARCHIVE_EOF)
		return 0;
	return r == ARCHIVE_OK ? (ssize_t)len : tar_err(err, "the image", file->tar);
}

void source_close(struct source_file *file)
{
	if (file->fd >= 0)
		close(file->fd);
	if (file->tar)
		archive_read_free(file->tar);
	free(file->buf);
	*file = (struct source_file){ .fd = -1 };
}

int source_read(const struct source *source, const char *name, size_t max, char **ret_data,
		size_t *ret_len, struct err *err)
{
	struct source_file file;
	const void *part;
	char *data = NULL;
	size_t len = 0;
	ssize_t n = 0;
	int r = source_open(source, name, &file, err);

	if (r < 0)
		return r;
	data = calloc(1, 1);
	while (data && (n = source_next(&file, &part, err)) > 0) {
		char *more;

		if ((size_t)n > max - len) {
			n = err_set(err, -EFBIG, "%.100s in the image is larger than %zu bytes", name, max);
			break;
		}
		more = realloc(data, len + (size_t)n + 1);
		if (!more) {
			n = err_set(err, -ENOMEM, "out of memory for the image");
			break;
		}
		data = more;
		memcpy(data + len, part, (size_t)n);
		len += (size_t)n;
		data[len] = '\0';
	}
	source_close(&file);
	if (!data)
		return err_set(err, -ENOMEM, "out of memory for the image");
	if (n < 0) {
		free(data);
		return (int)n;
	}
	*ret_data = data;
	*ret_len = len;
	return 0;
}
