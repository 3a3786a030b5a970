/* SPDX-License-Identifier: Apache-2.0 */
/* A root file system, as a tar or a folder, becomes an image of one layer. */
#include "oci/bundle.h"

#include "oci/layer.h"
#include "oci/local.h"
#include "oci/pack.h"
#include "os/err.h"
#include "os/file.h"

#include <archive.h>
#include <archive_entry.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define STEP (256u * 1024u)
#define DEPTH_MAX 512 /* folders in folders */

/* ---- tar ---- */

static struct archive *open_raw(int fd)
{
	struct archive *a = archive_read_new();

	if (!a)
		return NULL;
	archive_read_support_filter_all(a);
	archive_read_support_format_raw(a);
	archive_read_support_format_empty(a);
	if (archive_read_open_fd(a, fd, STEP) == ARCHIVE_OK)
		return a;
	archive_read_free(a);
	return NULL;
}

/* The bytes of the tar as they are: names, owners and attributes stay what they were. */
static int pack_tar(struct pack *pack, int fd, const char *path, struct err *err)
{
	struct archive *a = open_raw(fd);
	struct archive_entry *entry;
	uint8_t *buf = malloc(STEP);
	la_ssize_t n = -1;
	int r = 0;

	if (a && buf && archive_read_next_header(a, &entry) >= ARCHIVE_WARN)
		while (r == 0 && (n = archive_read_data(a, buf, STEP)) > 0)
			r = pack_write(pack, buf, (size_t)n, err);
	if (r == 0 && n < 0)
		r = err_set(err, -EBADMSG, "cannot read %.100s: %.80s", path, a ? archive_error_string(a) : "out of memory");
	if (a)
		archive_read_free(a);
	free(buf);
	return r;
}

/* Reads the layer again as an unpacker would. */
static int check_tar(struct store *store, const struct pack_layer *layer, const char *path, struct err *err)
{
	struct archive_entry *e;
	struct source source = { .is_tar = false };
	char name[MANIFEST_NAME_MAX];
	struct layer in;
	size_t n = 0;
	int got = ARCHIVE_EOF, r = file_path(source.path, err, store_path(store), NULL);

	manifest_blob_name(layer->desc.digest, name);
	if (r == 0)
		r = layer_open(&in, &source, name, oci_limits_default.bytes, err);
	if (r < 0)
		return r;
	while ((got = archive_read_next_header(in.tar, &e)) == ARCHIVE_OK || got == ARCHIVE_WARN)
		n++;
	if (got != ARCHIVE_EOF || n == 0)
		r = err_set(err, -EBADMSG, "%.120s is not a tar of a root file system", path);
	layer_close(&in);
	return r;
}

/* ---- folder ---- */

struct walk {
	struct pack *pack;
	struct archive *disk, *tar;
	struct archive_entry_linkresolver *links;
	dev_t dev;	/* what is mounted below is left out */
	uint8_t *buf;
	struct err *err;
};

static int tar_failed(struct walk *w, const char *path)
{
	return pack_archive_error(w->pack, w->tar, path, w->err);
}

static int write_data(struct walk *w, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	ssize_t n = 0;
	int r = fd < 0 ? err_set(w->err, -errno, "cannot read %.150s: %s", path, strerror(errno)) : 0;

	while (r == 0 && ((n = read(fd, w->buf, STEP)) > 0 || (n < 0 && errno == EINTR)))
		/* More than the header said is cut off: the file grew while it was read. */
		if (n > 0 && archive_write_data(w->tar, w->buf, (size_t)n) < 0)
			r = tar_failed(w, path);
	if (r == 0 && n < 0)
		r = err_set(w->err, -errno, "cannot read %.150s: %s", path, strerror(errno));
	if (fd >= 0)
		close(fd);
	return r;
}

static int write_one(struct walk *w, const char *path, const char *name, struct archive_entry *e)
{
	struct archive_entry *rest = NULL;

	archive_entry_set_pathname(e, name);
	archive_entry_linkify(w->links, &e, &rest);
	if (!e)
		return 0;
	if (archive_write_header(w->tar, e) < ARCHIVE_WARN)
		return tar_failed(w, path);
	return archive_entry_filetype(e) == AE_IFREG && !archive_entry_hardlink(e) ? write_data(w, path) : 0;
}

static int walk(struct walk *w, const char *path, const char *name, int depth);

static int walk_entries(struct walk *w, const char *path, const char *name, int depth)
{
	struct dirent **list;
	int n = scandir(path, &list, NULL, alphasort), r = 0;

	if (n < 0)
		return err_set(w->err, -errno, "cannot read %.150s: %s", path, strerror(errno));
	for (int i = 0; i < n; i++) {
		char below[PATH_MAX], below_name[PATH_MAX];
		const char *entry = list[i]->d_name;

		if (r == 0 && strcmp(entry, ".") != 0 && strcmp(entry, "..") != 0) {
			r = file_path(below, w->err, path, "/", entry, NULL);
			if (r == 0)
				r = file_path(below_name, w->err, name, name[0] ? "/" : "", entry, NULL);
			if (r == 0)
				r = walk(w, below, below_name, depth + 1);
		}
		free(list[i]);
	}
	free(list);
	return r;
}

static int walk(struct walk *w, const char *path, const char *name, int depth)
{
	struct archive_entry *e;
	struct stat st;
	int r = 0;

	if (depth > DEPTH_MAX)
		return err_set(w->err, -ELOOP, "%.150s is nested too deeply", path);
	if (lstat(path, &st) < 0)
		return err_set(w->err, -errno, "cannot look at %.150s: %s", path, strerror(errno));
	if (S_ISSOCK(st.st_mode))	/* nothing that lasts */
		return 0;
	if (name[0]) {
		e = archive_entry_new();
		if (!e)
			return err_set(w->err, -ENOMEM, "out of memory");
		archive_entry_copy_sourcepath(e, path);
		if (archive_read_disk_entry_from_file(w->disk, e, -1, &st) < ARCHIVE_WARN)
			r = err_set(w->err, -EIO, "cannot look at %.120s: %.80s", path, archive_error_string(w->disk));
		/* Names of users are those of this host: the image has its own. */
		archive_entry_set_uname(e, NULL);
		archive_entry_set_gname(e, NULL);
		archive_entry_set_fflags(e, 0, 0);
		if (r == 0)
			r = write_one(w, path, name, e);
		archive_entry_free(e);
	}
	if (r == 0 && S_ISDIR(st.st_mode) && st.st_dev == w->dev)
		r = walk_entries(w, path, name, depth);
	return r;
}

static int pack_folder(struct pack *pack, const char *path, struct err *err)
{
	struct walk w = { .pack = pack, .disk = archive_read_disk_new(), .buf = malloc(STEP),
			  .links = archive_entry_linkresolver_new(), .err = err };
	struct stat st;
	int r = 0;

	if (!w.disk || !w.buf || !w.links)
		r = err_set(err, -ENOMEM, "out of memory");
	else if (stat(path, &st) < 0)
		r = err_set(err, -errno, "cannot open %.120s: %s", path, strerror(errno));
	if (r == 0) {
		w.dev = st.st_dev;
		archive_read_disk_set_symlink_physical(w.disk);
		archive_entry_linkresolver_set_strategy(w.links, ARCHIVE_FORMAT_TAR);
		r = pack_archive(pack, &w.tar, err);
	}
	if (r == 0)
		r = walk(&w, path, "", 0);
	if (r == 0 && archive_write_close(w.tar) != ARCHIVE_OK)
		r = tar_failed(&w, path);
	if (w.disk)
		archive_read_free(w.disk);
	if (w.tar)
		archive_write_free(w.tar);
	if (w.links)
		archive_entry_linkresolver_free(w.links);
	free(w.buf);
	return r;
}

/* ---- image ---- */

static int pack_path(struct pack *pack, const char *path, struct err *err)
{
	bool from_stdin = strcmp(path, "-") == 0;
	struct stat st;
	int r, fd;

	if (!from_stdin && stat(path, &st) == 0 && S_ISDIR(st.st_mode))
		return pack_folder(pack, path, err);
	fd = from_stdin ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return err_set(err, -errno, "cannot open %.120s: %s", path, strerror(errno));
	r = pack_tar(pack, fd, path, err);
	if (!from_stdin)
		close(fd);
	return r;
}

int bundle_import(struct store *store, struct store_lease *lease, const char *path, const char *name,
		   const struct cJSON *config, struct store_ref *ret_ref, struct err *err)
{
	char full[STORE_NAME_MAX], comment[128];
	struct pack_layer layer;
	struct descriptor desc;
	struct reference ref;
	struct pack pack;
	int r = reference_parse(name, &ref, err);

	if (r == 0)
		r = pack_begin(lease, &pack, err);
	if (r < 0)
		return r;
	r = pack_path(&pack, path, err);
	if (r < 0) {
		pack_abort(&pack);
		return r;
	}
	r = pack_finish(&pack, &layer, err);
	if (r == 0)
		r = check_tar(store, &layer, path, err);
	(void)snprintf(comment, sizeof(comment), "Imported from %.100s", path);
	if (r == 0)
		r = pack_image(lease, &layer, 1, config, pack_time(), comment, &desc, err);
	reference_name(&ref, full);
	if (r == 0)
		r = local_set(store, full, &desc, err);
	return r < 0 ? r : store_ref_get(store, LOCAL_KIND, full, ret_ref, err);
}
