/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whiteouts hide files of lower layers only, wherever in the layer they stand.
 * So each layer above the first is read twice: whiteouts, then files.  One pass
 * would have to remember which files came from the layer itself.
 */
#include "oci/unpack.h"

#include "oci/layer.h"
#include "oci/source.h"
#include "os/err.h"
#include "os/file.h"

#include <archive.h>
#include <archive_entry.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#define XATTR_NAME_MAX 255
#define XATTR_VALUE_MAX 65536

/* An entry's place: open folder and name in it. */
struct place {
	int dir;	/* borrowed from unpack.parent, or the root */
	char path[PATH_MAX];	/* cleaned, for messages */
	const char *name;	/* last component, in path; "" for the root */
};

static int fail(struct err *err, const struct place *at, const char *what)
{
	int e = errno;

	if (e == ENOSPC || e == EDQUOT)
		return err_set(err, -ENOSPC, "no space left to unpack the image: free some, or set "
			       "ROUX_CACHE to a larger disk");
	return err_set(err, -e, "cannot %s %.120s of the image: %s", what, at->path, strerror(e));
}

/* ---- places ---- */

static int open_below(int root, const char *path)
{
	struct open_how how = {
		.flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
		.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
	};

	return (int)syscall(SYS_openat2, root, path[0] ? path : ".", &how, sizeof(how));
}

/* Folder @path below the root; with @make its missing parts are made. */
static int open_dir(int root, char *path, bool make)
{
	char *slash = strrchr(path, '/');
	int up, fd = open_below(root, path);

	if (fd >= 0 || errno != ENOENT || !make)
		return fd;
	if (slash)
		*slash = '\0';
	up = open_dir(root, slash ? path : (char[]){ "" }, true);
	if (slash)
		*slash = '/';
	if (up < 0)
		return -1;
	/* EEXIST: a dangling link, on which the second try fails with ENOENT. */
	(void)mkdirat(up, slash ? slash + 1 : path, 0755);
	close(up);
	return open_below(root, path);
}

static void forget_parent(struct unpack *u)
{
	if (u->parent >= 0)
		close(u->parent);
	u->parent = -1;
}

/* Entries of one folder follow each other: the last folder is kept open. */
static int use_parent(struct unpack *u, const char *dir, size_t len, bool make)
{
	if (u->parent >= 0 && strlen(u->parent_path) == len && strncmp(u->parent_path, dir, len) == 0)
		return u->parent;
	forget_parent(u);
	memcpy(u->parent_path, dir, len);
	u->parent_path[len] = '\0';
	u->parent = open_dir(u->root, u->parent_path, make);
	return u->parent;
}

/* 0, -ENOENT when a parent is missing and not to be made, or another -errno. */
static int find_place(struct unpack *u, const char *name, bool make, struct place *ret,
		      struct err *err)
{
	const char *slash;

	if (!name || !source_clean_name(name, ret->path))
		return err_set(err, -EBADMSG, "the image has a file name that leaves its root: %.100s",
			       name ? name : "(none)");
	slash = strrchr(ret->path, '/');
	ret->name = slash ? slash + 1 : ret->path;
	ret->dir = slash ? use_parent(u, ret->path, (size_t)(slash - ret->path), make) : u->root;
	if (ret->dir >= 0)
		return 0;
	if (errno == ENOENT && !make)
		return -ENOENT;
	if (errno == ENOSYS)
		return err_set(err, -ENOSYS, "unpacking images needs Linux 5.6 or later (openat2)");
	return fail(err, ret, "make the folder of");
}

/* ---- whiteouts ---- */

static bool is_whiteout(const char *name)
{
	return strncmp(name, LAYER_WHITEOUT, strlen(LAYER_WHITEOUT)) == 0;
}

static int remove_at(struct unpack *u, const struct place *at, const char *name, struct err *err)
{
	int r = file_remove_tree(at->dir, name);

	/* The folder kept open may be gone. */
	if (r == 0 && u->parent != at->dir)
		forget_parent(u);
	errno = -r;
	return r < 0 ? fail(err, at, "remove") : 0;
}

/* An opaque folder: everything that lower layers put into it is gone. */
static int clear_dir(const struct place *at, struct err *err)
{
	int r = 0, fd = openat(at->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	if (!dir) {
		r = fail(err, at, "read the folder of");
		if (fd >= 0)
			close(fd);
		return r;
	}
	while (r == 0 && (e = readdir(dir)))
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			r = file_remove_tree(fd, e->d_name);
	closedir(dir);
	errno = -r;
	return r < 0 ? fail(err, at, "clear the folder of") : 0;
}

static int apply_whiteout(struct unpack *u, const char *name, struct err *err)
{
	const char *slash = strrchr(name, '/');
	const char *hidden = slash ? slash + 1 : name;
	struct place at;
	int r;

	if (!is_whiteout(hidden))
		return 0;
	r = find_place(u, name, false, &at, err);
	if (r == -ENOENT)
		return 0;	/* hides what is not there */
	if (r < 0)
		return r;
	if (strcmp(at.name, LAYER_OPAQUE_NAME) == 0) {
		r = clear_dir(&at, err);
		forget_parent(u);
		return r;
	}
	hidden = at.name + strlen(LAYER_WHITEOUT);
	if (strncmp(hidden, LAYER_WHITEOUT, strlen(LAYER_WHITEOUT)) == 0)
		return 0;	/* notes of an old storage driver */
	if (!hidden[0] || strcmp(hidden, ".") == 0 || strcmp(hidden, "..") == 0)
		return err_set(err, -EBADMSG, "the image has a malformed whiteout: %.100s", at.path);
	r = remove_at(u, &at, hidden, err);
	forget_parent(u);
	return r;
}

/* ---- metadata ---- */

/* What the file system cannot hold goes into an attribute. */
static int record_stat(int fd, const struct place *at, struct archive_entry *e, struct err *err)
{
	mode_t mode = archive_entry_mode(e);
	char text[96];
	int n = snprintf(text, sizeof(text), "%lld:%lld:%o:%u:%u", (long long)archive_entry_uid(e),
			 (long long)archive_entry_gid(e), (unsigned)mode,
			 (unsigned)archive_entry_rdevmajor(e), (unsigned)archive_entry_rdevminor(e));

	if (fsetxattr(fd, OCI_STAT_XATTR, text, (size_t)n, 0) == 0)
		return 0;
	if (errno == ENOTSUP || errno == EPERM)
		return err_set(err, -ENOTSUP, "the cache's file system has no user attributes, which "
			       "owners in images need: set ROUX_CACHE to another");
	return fail(err, at, "record the owner of");
}

static int set_xattrs(int fd, const struct place *at, struct archive_entry *e, struct err *err)
{
	const char *name;
	const void *value;
	size_t len;

	(void)archive_entry_xattr_reset(e);
	while (archive_entry_xattr_next(e, &name, &value, &len) == ARCHIVE_OK) {
		if (!name || !layer_xattr_allowed(name))
			continue;
		if (strlen(name) > XATTR_NAME_MAX || len > XATTR_VALUE_MAX)
			return err_set(err, -EBADMSG, "the image has an attribute that is too large: %.100s",
				       at->path);
		/* Without the rights or a file system for it, the file is as good without. */
		if (fsetxattr(fd, name, value, len, 0) < 0 && errno != ENOTSUP && errno != EPERM)
			return fail(err, at, "set an attribute of");
	}
	return 0;
}

static struct timespec mtime_of(struct archive_entry *e)
{
	return (struct timespec){ .tv_sec = archive_entry_mtime(e),
				  .tv_nsec = archive_entry_mtime_nsec(e) };
}

static void set_mtime(int fd, struct timespec mtime)
{
	const struct timespec times[2] = { mtime, mtime };

	/* A time that the file system cannot hold is not worth failing for. */
	(void)futimens(fd, times);
}

/* Owner and mode of an open file or folder.  Order: chown clears set-id bits. */
static int set_stat(struct unpack *u, int fd, const struct place *at, struct archive_entry *e,
		    struct err *err)
{
	mode_t mode = archive_entry_mode(e), kept = mode & 07777;
	bool dir = S_ISDIR(mode), plain;

	if (u->privileged && fchown(fd, (uid_t)archive_entry_uid(e), (gid_t)archive_entry_gid(e)) == 0)
		return fchmod(fd, kept) < 0 ? fail(err, at, "set the mode of") : 0;
	if (u->privileged && errno != EPERM && errno != EINVAL)
		return fail(err, at, "set the owner of");
	/* We must be able to go on working with it; set-id bits would be ours. */
	kept = (kept & 0777) | (dir ? 0700 : 0600);
	if (fchmod(fd, kept) < 0)
		return fail(err, at, "set the mode of");
	plain = archive_entry_uid(e) == 0 && archive_entry_gid(e) == 0 && kept == (mode & 07777);
	return plain ? 0 : record_stat(fd, at, e, err);
}

/* ---- entries ---- */

static int check_cancel(const struct unpack *u, struct err *err)
{
	return u->left.cancel && *u->left.cancel ? err_set(err, -EINTR, "interrupted") : 0;
}

static int count_bytes(struct unpack *u, uint64_t bytes, struct err *err)
{
	if (bytes > u->left.bytes)
		return err_set(err, -EFBIG, "the image unpacks to more than the limit");
	u->left.bytes -= bytes;
	return check_cancel(u, err);
}

static int write_data(struct unpack *u, struct layer *layer, int fd, const struct place *at,
		      int64_t size, struct err *err)
{
	const void *data;
	la_int64_t off;
	size_t len;
	int r;

	while ((r = archive_read_data_block(layer->tar, &data, &len, &off)) == ARCHIVE_OK) {
		r = count_bytes(u, len, err);
		while (r == 0 && len) {
			ssize_t n = pwrite(fd, data, len, off);

			if (n < 0 && errno != EINTR)
				return fail(err, at, "write");
			if (n > 0) {
				data = (const char *)data + n;
				off += n;
				len -= (size_t)n;
			}
		}
		if (r < 0)
			return r;
	}
	if (r != ARCHIVE_EOF)
		return layer_error(layer, err);
	/* The end of a sparse file may be a hole. */
	return ftruncate(fd, size) < 0 ? fail(err, at, "write") : 0;
}

static int add_file(struct unpack *u, struct layer *layer, struct archive_entry *e,
		    const struct place *at, struct err *err)
{
	int64_t size = archive_entry_size(e);
	int r, fd;

	/* A hole costs nothing here, but would when the file is read. */
	if (size < 0 || (uint64_t)size > u->left.bytes)
		return err_set(err, -EFBIG, "the image unpacks to more than the limit");
	fd = openat(at->dir, at->name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return fail(err, at, "create");
	r = write_data(u, layer, fd, at, size, err);
	if (r == 0)
		r = set_stat(u, fd, at, e, err);
	if (r == 0)
		r = set_xattrs(fd, at, e, err);
	if (r == 0)
		set_mtime(fd, mtime_of(e));
	close(fd);
	return r;
}

static int remember_dir(struct unpack *u, const char *path, struct timespec mtime, struct err *err)
{
	if (u->ndirs == u->cap) {
		size_t cap = u->cap ? u->cap * 2 : 256;
		struct unpack_dir *more = realloc(u->dir, cap * sizeof(*more));

		if (!more)
			return err_set(err, -ENOMEM, "out of memory for the image's folders");
		u->dir = more;
		u->cap = cap;
	}
	u->dir[u->ndirs] = (struct unpack_dir){ .path = strdup(path), .mtime = mtime };
	if (!u->dir[u->ndirs].path)
		return err_set(err, -ENOMEM, "out of memory for the image's folders");
	u->ndirs++;
	return 0;
}

static int add_dir(struct unpack *u, struct archive_entry *e, const struct place *at,
		   struct err *err)
{
	const char *name = at->name[0] ? at->name : ".";
	int r, fd;

	if (at->name[0] && mkdirat(at->dir, name, 0700) < 0 && errno != EEXIST)
		return fail(err, at, "create");
	fd = openat(at->dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return fail(err, at, "open");
	r = set_stat(u, fd, at, e, err);
	if (r == 0)
		r = set_xattrs(fd, at, e, err);
	if (r == 0)
		r = remember_dir(u, at->path, mtime_of(e), err);
	close(fd);
	return r;
}

static int add_symlink(struct unpack *u, struct archive_entry *e, const struct place *at,
		       struct err *err)
{
	const struct timespec times[2] = { mtime_of(e), mtime_of(e) };
	const char *target = archive_entry_symlink(e);

	/* Stored as it is: it means something in the guest only. */
	if (!target || symlinkat(target, at->dir, at->name) < 0)
		return fail(err, at, "create");
	if (u->privileged && fchownat(at->dir, at->name, (uid_t)archive_entry_uid(e),
				      (gid_t)archive_entry_gid(e), AT_SYMLINK_NOFOLLOW) < 0 &&
	    errno != EPERM && errno != EINVAL)
		return fail(err, at, "set the owner of");
	(void)utimensat(at->dir, at->name, times, AT_SYMLINK_NOFOLLOW);
	return 0;
}

/* Where a device node cannot be made, an empty file stands for it. */
static int add_placeholder(struct archive_entry *e, const struct place *at, struct err *err)
{
	int r, fd = openat(at->dir, at->name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (fd < 0)
		return fail(err, at, "create");
	r = record_stat(fd, at, e, err);
	if (r == 0)
		set_mtime(fd, mtime_of(e));
	close(fd);
	return r;
}

static int add_node(struct unpack *u, struct archive_entry *e, const struct place *at,
		    struct err *err)
{
	mode_t mode = archive_entry_mode(e);
	dev_t dev = makedev(archive_entry_rdevmajor(e), archive_entry_rdevminor(e));

	if (!u->privileged)
		return add_placeholder(e, at, err);
	if (mknodat(at->dir, at->name, (mode & S_IFMT) | 0600, dev) < 0)
		return errno == EPERM ? add_placeholder(e, at, err) : fail(err, at, "create");
	if (fchownat(at->dir, at->name, (uid_t)archive_entry_uid(e), (gid_t)archive_entry_gid(e),
		     AT_SYMLINK_NOFOLLOW) < 0 || fchmodat(at->dir, at->name, mode & 07777, 0) < 0)
		return fail(err, at, "set the owner of");
	return 0;
}

static int add_hardlink(struct unpack *u, const char *target, const struct place *at,
			struct err *err)
{
	char path[PATH_MAX];
	char *slash;
	int dir, r;

	if (!source_clean_name(target, path) || !path[0])
		return err_set(err, -EBADMSG, "the image has a link that leaves its root: %.100s", target);
	slash = strrchr(path, '/');
	if (slash)
		*slash = '\0';
	/* Not through use_parent(): at->dir is that one. */
	dir = slash ? open_below(u->root, path) : u->root;
	if (dir < 0)
		return fail(err, at, "find the target of link");
	r = linkat(dir, slash ? slash + 1 : path, at->dir, at->name, 0) < 0 ? fail(err, at, "link") : 0;
	if (dir != u->root)
		close(dir);
	return r;
}

/* Whether the entry may stay: a folder that is there already gets new metadata. */
static int make_way(struct unpack *u, struct archive_entry *e, const struct place *at,
		    struct err *err)
{
	struct stat st;

	if (!at->name[0])
		return archive_entry_filetype(e) == AE_IFDIR
			       ? 0 : err_set(err, -EBADMSG, "the image's root is not a folder");
	if (fstatat(at->dir, at->name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : fail(err, at, "look at");
	if (S_ISDIR(st.st_mode) && archive_entry_filetype(e) == AE_IFDIR && !archive_entry_hardlink(e))
		return 0;
	return remove_at(u, at, at->name, err);
}

static int add_entry(struct unpack *u, struct layer *layer, struct archive_entry *e,
		     struct err *err)
{
	const char *link = archive_entry_hardlink(e);
	struct place at;
	int r = find_place(u, archive_entry_pathname(e), true, &at, err);

	if (r < 0)
		return r;
	if (is_whiteout(at.name))
		return 0;
	r = make_way(u, e, &at, err);
	if (r < 0)
		return r;
	if (link)
		return add_hardlink(u, link, &at, err);
	switch (archive_entry_filetype(e)) {
	case AE_IFREG:
		return add_file(u, layer, e, &at, err);
	case AE_IFDIR:
		return add_dir(u, e, &at, err);
	case AE_IFLNK:
		return add_symlink(u, e, &at, err);
	case AE_IFCHR:
	case AE_IFBLK:
	case AE_IFIFO:
		return add_node(u, e, &at, err);
	default:
		return err_set(err, -EBADMSG, "the image has a file of unknown type: %.100s", at.path);
	}
}

/* ---- layers ---- */

void unpack_begin(struct unpack *unpack, int root, const struct oci_limits *limits)
{
	*unpack = (struct unpack){
		.root = root,
		.privileged = geteuid() == 0,
		.left = *limits,
		.parent = -1,
	};
}

/* Reads the next entry.  1, 0 at the end, or a negative errno. */
static int next_entry(struct unpack *u, struct layer *layer, struct archive_entry **ret,
		      struct err *err)
{
	int r = archive_read_next_header(layer->tar, ret);

	if (r == ARCHIVE_EOF)
		return 0;
	/* A warning is about text that cannot be converted: names are bytes here. */
	if (r != ARCHIVE_OK && r != ARCHIVE_WARN)
		return layer_error(layer, err);
	if (u->left.entries == 0)
		return err_set(err, -EFBIG, "the image has more files than the limit");
	u->left.entries--;
	r = check_cancel(u, err);
	return r < 0 ? r : 1;
}

int unpack_whiteouts(struct unpack *unpack, struct layer *layer, struct err *err)
{
	struct archive_entry *e;
	int r;

	while ((r = next_entry(unpack, layer, &e, err)) == 1) {
		const char *name = archive_entry_pathname(e);

		r = name ? apply_whiteout(unpack, name, err) : 0;
		if (r < 0)
			break;
		unpack->left.entries++;	/* counted with the files */
	}
	forget_parent(unpack);
	return r;
}

int unpack_files(struct unpack *unpack, struct layer *layer, struct err *err)
{
	struct archive_entry *e;
	int r;

	while ((r = next_entry(unpack, layer, &e, err)) == 1) {
		r = add_entry(unpack, layer, e, err);
		if (r < 0)
			break;
	}
	forget_parent(unpack);
	return r;
}

void unpack_end(struct unpack *unpack, bool ok)
{
	for (size_t i = 0; i < unpack->ndirs; i++) {
		struct unpack_dir *d = &unpack->dir[i];
		int at = ok ? open_below(unpack->root, d->path) : -1;
		/* futimens() needs more than O_PATH. */
		int fd = at < 0 ? -1 : openat(at, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

		if (fd >= 0) {	/* a later layer may have removed it */
			set_mtime(fd, d->mtime);
			close(fd);
		}
		if (at >= 0)
			close(at);
		free(d->path);
	}
	free(unpack->dir);
	unpack->dir = NULL;
	unpack->ndirs = unpack->cap = 0;
}
