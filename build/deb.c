/* SPDX-License-Identifier: Apache-2.0 */
#include "build/deb.h"

#include "build/archive_file.h"
#include "os/err.h"
#include "os/file.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define FILE_SIZE_MAX (512ll * 1024 * 1024) /* bytes of one file of the package */
#define ENTRIES_MAX 100000 /* files of the package */
#define STEP (256u * 1024u) /* bytes read at once */

static bool has_dotdot(const char *path)
{
	for (const char *at = path; (at = strstr(at, "..")); at += 2)
		if ((at == path || at[-1] == '/') && (at[2] == '/' || at[2] == '\0'))
			return true;
	return false;
}

static int write_entry(struct archive *a, const char *path, const char *deb, struct err *err)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
	int r = 0;

	if (fd < 0)
		return err_set(err, -errno, "cannot write %s: %s", path, strerror(errno));
	if (archive_read_data_into_fd(a, fd) != ARCHIVE_OK)
		r = archive_err(err, a, deb);
	else if ((r = file_seal(fd)) < 0)
		err_set(err, r, "cannot finish %s: %s", path, strerror(-r));
	close(fd);
	return r;
}

static int unpack_entry(struct archive *a, struct archive_entry *entry, const char *deb,
			const char *into, deb_choose_fn choose, void *ctx, struct err *err)
{
	char rel[PATH_MAX], path[PATH_MAX], dir[PATH_MAX];
	const char *name = archive_entry_pathname(entry);
	int r;

	if (!name || archive_entry_filetype(entry) != AE_IFREG || archive_entry_hardlink(entry) ||
	    !choose(ctx, name, rel))
		return 0;
	if (has_dotdot(rel) || archive_entry_size(entry) > FILE_SIZE_MAX)
		return err_set(err, -EBADMSG, "%s: unreasonable file %.100s", deb, name);
	r = file_path(path, err, into, "/", rel, NULL);
	if (r == 0)
		r = file_path(dir, err, path, NULL);
	if (r < 0)
		return r;
	*strrchr(dir, '/') = '\0';
	r = file_mkdirs(dir, 0755, err);
	return r < 0 ? r : write_entry(a, path, deb, err);
}

static int unpack_data(struct archive *outer, const char *deb, const char *into, deb_choose_fn choose, void *ctx,
		       struct err *err)
{
	struct archive_entry *entry;
	int r = 0, got = ARCHIVE_OK;
	struct archive *a = archive_open_inner(outer, deb, err);

	if (!a)
		return -EBADMSG;
	for (int n = 0; r == 0 && (got = archive_read_next_header(a, &entry)) == ARCHIVE_OK; n++)
		r = n < ENTRIES_MAX ? unpack_entry(a, entry, deb, into, choose, ctx, err)
				    : err_set(err, -EBADMSG, "%s: too many files", deb);
	if (r == 0 && got != ARCHIVE_EOF)
		r = archive_err(err, a, deb);
	archive_read_free(a);
	return r;
}

int deb_unpack(const char *deb, const char *into, deb_choose_fn choose, void *ctx, struct err *err)
{
	struct archive *a = archive_read_new();
	struct archive_entry *entry;
	int r = -ENODATA;

	if (!a)
		return err_set(err, -ENOMEM, "out of memory for %s", deb);
	archive_read_support_format_ar(a);
	if (archive_read_open_filename(a, deb, STEP) != ARCHIVE_OK) {
		r = archive_err(err, a, deb);
		goto finish;
	}
	while (r == -ENODATA && archive_read_next_header(a, &entry) == ARCHIVE_OK) {
		const char *name = archive_entry_pathname(entry);

		if (name && strncmp(name, "data.tar", 8) == 0)
			r = unpack_data(a, deb, into, choose, ctx, err);
	}
	if (r == -ENODATA)
		r = err_set(err, -EBADMSG, "%s is not a Debian package", deb);
finish:
	archive_read_free(a);
	return r;
}
