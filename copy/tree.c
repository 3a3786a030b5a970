/* SPDX-License-Identifier: Apache-2.0 */
#include "copy/tree.h"

#include "abi/agent.h"
#include "base/frame.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEPTH_MAX 256 /* folders in folders; each holds a descriptor while it is sent */
#define NS_PER_S 1000000000u
#define HEAD_MAX (2 * TREE_PATH_MAX + 256)

/* Without stdio: it would be a third of the agent.  Cut off when it does not fit. */
static void add(char *text, size_t size, const char *more)
{
	size_t len = strlen(text), n = strlen(more);

	if (n > size - 1 - len)
		n = size - 1 - len;
	memcpy(text + len, more, n);
	text[len + n] = '\0';
}

static int fail(struct tree_error *ret, int error, const char *what, const char *path)
{
	ret->error = error;
	ret->what[0] = '\0';
	add(ret->what, sizeof(ret->what), what);
	if (path) {
		add(ret->what, sizeof(ret->what) - 1, " '");
		add(ret->what, sizeof(ret->what) - 1, path);
		add(ret->what, sizeof(ret->what), "'");
	}
	return -1;
}

/* ------------------------------------------------------------------ sending */

struct sender {
	int fd;
	char path[TREE_PATH_MAX];	/* of the present entry, relative to the top */
	struct tree_error *error;
	unsigned depth;
	uint8_t head[HEAD_MAX];
	uint8_t data[FRAME_HEADER + 65536];
};

_Static_assert(AGENT_DATA_MAX == 65536, "a frame of data fits");

static int send_bytes(struct sender *s, const uint8_t *data, size_t len)
{
	while (len) {
		ssize_t n = send(s->fd, data, len, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return fail(s->error, EPIPE, "the other side hung up", NULL);
		data += n;
		len -= (size_t)n;
	}
	return 0;
}

static int send_entry(struct sender *s, const struct stat *st, const char *link)
{
	struct frame_writer w;

	frame_begin(&w, s->head, sizeof(s->head), AGENT_ENTRY);
	field_put_str(&w, AGENT_TAG_PATH, s->path);
	field_put_u32(&w, AGENT_TAG_MODE, st->st_mode);
	field_put_u32(&w, AGENT_TAG_UID, st->st_uid);
	field_put_u32(&w, AGENT_TAG_GID, st->st_gid);
	field_put_u64(&w, AGENT_TAG_MTIME_NS, (uint64_t)st->st_mtim.tv_sec * NS_PER_S + (uint64_t)st->st_mtim.tv_nsec);
	if (S_ISREG(st->st_mode))
		field_put_u64(&w, AGENT_TAG_SIZE, (uint64_t)st->st_size);
	if (link)
		field_put_str(&w, AGENT_TAG_LINK, link);
	return send_bytes(s, s->head, frame_end(&w));
}

/* Exactly as many bytes as were announced: a file that shrinks meanwhile ends in zeros. */
static int send_data(struct sender *s, int fd, uint64_t left)
{
	while (left) {
		size_t want = left < AGENT_DATA_MAX ? (size_t)left : AGENT_DATA_MAX;
		ssize_t n = read(fd, s->data + FRAME_HEADER, want);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return fail(s->error, errno, "cannot read", s->path);
		if (n == 0) {
			memset(s->data + FRAME_HEADER, 0, want);
			n = (ssize_t)want;
		}
		frame_put_header(s->data, AGENT_DATA, (uint32_t)n);
		if (send_bytes(s, s->data, FRAME_HEADER + (size_t)n) < 0)
			return -1;
		left -= (uint64_t)n;
	}
	return 0;
}

static int send_at(struct sender *s, int dirfd, const char *name, bool follow);

/* Everything in the folder open as @fd, which is closed. */
static int send_children(struct sender *s, int fd)
{
	size_t len = strlen(s->path);
	struct dirent *e;
	DIR *dir = fdopendir(fd);
	int r = 0;

	if (!dir) {
		r = fail(s->error, errno, "cannot read", s->path);
		close(fd);
		return r;
	}
	while (r == 0 && (e = readdir(dir))) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		if (len + 1 + strlen(e->d_name) >= sizeof(s->path)) {
			r = fail(s->error, ENAMETOOLONG, "cannot send", s->path);
			break;
		}
		add(s->path, sizeof(s->path), len ? "/" : "");
		add(s->path, sizeof(s->path), e->d_name);
		r = send_at(s, dirfd(dir), e->d_name, false);
		s->path[len] = '\0';
	}
	closedir(dir);
	return r;
}

static int send_folder(struct sender *s, int dirfd, const char *name, bool follow, struct stat *st)
{
	int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | (follow ? 0 : O_NOFOLLOW)), r;

	if (fd < 0)
		return fail(s->error, errno, "cannot open", s->path);
	if (++s->depth > DEPTH_MAX) {
		close(fd);
		return fail(s->error, ELOOP, "folders lie too deep at", s->path);
	}
	r = send_entry(s, st, NULL);
	if (r < 0)
		close(fd);
	else
		r = send_children(s, fd);
	s->depth--;
	return r < 0 ? r : send_entry(s, st, NULL);
}

static int send_file(struct sender *s, int dirfd, const char *name, bool follow)
{
	int fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | (follow ? 0 : O_NOFOLLOW)), r;
	struct stat st;

	if (fd < 0)
		return fail(s->error, errno, "cannot open", s->path);
	/* What was opened counts, not what was there a moment ago. */
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		r = fail(s->error, EAGAIN, "it changes while it is copied:", s->path);
	else
		r = send_entry(s, &st, NULL);
	if (r == 0)
		r = send_data(s, fd, (uint64_t)st.st_size);
	close(fd);
	return r;
}

static int send_link(struct sender *s, int dirfd, const char *name, const struct stat *st)
{
	char target[TREE_PATH_MAX];
	ssize_t n = readlinkat(dirfd, name, target, sizeof(target) - 1);

	if (n < 0)
		return fail(s->error, errno, "cannot read the link", s->path);
	target[n] = '\0';
	return send_entry(s, st, target);
}

static int send_at(struct sender *s, int dirfd, const char *name, bool follow)
{
	struct stat st;

	if (fstatat(dirfd, name, &st, follow ? 0 : AT_SYMLINK_NOFOLLOW) < 0)
		return fail(s->error, errno, "cannot find", *s->path ? s->path : name);
	switch (st.st_mode & S_IFMT) {
	case S_IFDIR:
		return send_folder(s, dirfd, name, follow, &st);
	case S_IFREG:
		return send_file(s, dirfd, name, follow);
	case S_IFLNK:
		return send_link(s, dirfd, name, &st);
	case S_IFIFO:
		return send_entry(s, &st, NULL);
	default:
		return *s->path ? 0 : fail(s->error, EINVAL, "devices and sockets cannot be copied:", name);
	}
}

int tree_send(int fd, const char *path, struct tree_error *ret_error)
{
	static struct sender s;	/* one copy a process; too large for a small stack */

	s.fd = fd;
	s.error = ret_error;
	s.path[0] = '\0';
	s.depth = 0;
	if (send_at(&s, AT_FDCWD, path, true) < 0)
		return -1;
	frame_put_header(s.head, AGENT_END, 0);
	return send_bytes(&s, s.head, FRAME_HEADER);
}

/* ---------------------------------------------------------------- receiving */

struct entry {
	const char *path, *link;	/* borrowed from the input */
	uint32_t mode, uid, gid;
	uint64_t mtime_ns, size;
};

struct receiver {
	struct tree_input *in;
	int root;	/* folder that the tree is made in */
	char top[TREE_PATH_MAX];	/* what its top is called there; "" for the folder itself */
	char name[TREE_PATH_MAX];	/* of the present entry, below root */
	bool keep_owner;
	struct tree_error *error;
};

/* The next frame, all of it in the buffer.  0, or -1 with the error. */
static int next_frame(struct receiver *rc, struct frame *ret)
{
	struct tree_input *in = rc->in;

	for (;;) {
		int r = frame_parse(in->buf + in->at, in->len - in->at, AGENT_DATA_MAX, ret);
		ssize_t n;

		if (r < 0)
			return fail(rc->error, EPROTO, "the other side does not keep to the protocol", NULL);
		if (r > 0) {
			in->at += FRAME_HEADER + ret->len;
			return 0;
		}
		memmove(in->buf, in->buf + in->at, in->len - in->at);
		in->len -= in->at;
		in->at = 0;
		n = recv(in->fd, in->buf + in->len, in->cap - in->len, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return fail(rc->error, EPIPE, "the other side hung up", NULL);
		in->len += (size_t)n;
	}
}

/* ERROR of the sender becomes ours; its message holds the reason already. */
static int sender_failed(struct receiver *rc, const struct frame *f)
{
	struct field_reader reader = { f->data, f->len };
	const char *message = "the other side failed";
	struct field field;

	while (field_next(&reader, &field) == 1)
		if (field.tag == AGENT_TAG_MESSAGE && field_str(&field))
			message = field_str(&field);
	return fail(rc->error, 0, message, NULL);
}

static bool parse_entry(const struct frame *f, struct entry *e)
{
	struct field_reader reader = { f->data, f->len };
	struct field field;
	int r;

	*e = (struct entry){ .path = NULL };
	while ((r = field_next(&reader, &field)) == 1) {
		bool ok = true;

		switch (field.tag) {
		case AGENT_TAG_PATH: ok = (e->path = field_str(&field)) != NULL; break;
		case AGENT_TAG_LINK: ok = (e->link = field_str(&field)) != NULL; break;
		case AGENT_TAG_MODE: ok = field_u32(&field, &e->mode); break;
		case AGENT_TAG_UID: ok = field_u32(&field, &e->uid); break;
		case AGENT_TAG_GID: ok = field_u32(&field, &e->gid); break;
		case AGENT_TAG_MTIME_NS: ok = field_u64(&field, &e->mtime_ns); break;
		case AGENT_TAG_SIZE: ok = field_u64(&field, &e->size); break;
		default: ok = field.tag & AGENT_TAG_OPTIONAL;
		}
		if (!ok)
			return false;
	}
	return r == 0 && e->path && (!S_ISLNK(e->mode) || e->link);
}

/* Relative, and without components that lead anywhere but down. */
static bool path_is_safe(const char *path)
{
	if (!*path)
		return true;
	for (const char *at = path;; at++) {
		size_t len = strcspn(at, "/");

		if (len == 0 || len > 255 || (len == 1 && at[0] == '.') || (len == 2 && at[0] == '.' && at[1] == '.'))
			return false;
		at += len;
		if (!*at)
			return true;
	}
}

/*
 * Opens the folder that holds @path below the root, following no links, and gives the
 * last component.  A descriptor, or -1 with errno.
 */
static int open_parent(const struct receiver *rc, const char *path, const char **ret_last)
{
	int fd = fcntl(rc->root, F_DUPFD_CLOEXEC, 0);
	const char *slash;

	while (fd >= 0 && (slash = strchr(path, '/'))) {
		char part[256];
		int next;

		memcpy(part, path, (size_t)(slash - path));	/* path_is_safe() bounds it */
		part[slash - path] = '\0';
		next = openat(fd, part, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		close(fd);
		fd = next;
		path = slash + 1;
	}
	*ret_last = path;
	return fd;
}

/* What is in the way of something that is no folder goes, unless it is a folder itself. */
static int clear_way(int dir, const char *name)
{
	return unlinkat(dir, name, 0) < 0 && errno != ENOENT ? -1 : 0;
}

static int receive_data(struct receiver *rc, int fd, uint64_t left)
{
	struct frame f;

	while (left) {
		size_t at = 0;

		if (next_frame(rc, &f) < 0)
			return -1;
		if (f.type == AGENT_ERROR)
			return sender_failed(rc, &f);
		if (f.type != AGENT_DATA || f.len == 0 || f.len > left)
			return fail(rc->error, EPROTO, "the other side does not keep to the protocol", NULL);
		while (at < f.len) {
			ssize_t n = write(fd, f.data + at, f.len - at);

			if (n < 0 && errno == EINTR)
				continue;
			if (n < 0)
				return fail(rc->error, errno, "cannot write", rc->name);
			at += (size_t)n;
		}
		left -= f.len;
	}
	return 0;
}

static struct timespec time_of(uint64_t ns)
{
	return (struct timespec){ .tv_sec = (time_t)(ns / NS_PER_S), .tv_nsec = (long)(ns % NS_PER_S) };
}

/*
 * Owner before mode: changing the owner clears the set-id bits.  They are about the
 * owner: a file that becomes the receiver's must not lend out the receiver's rights.
 */
static int set_attributes(struct receiver *rc, int fd, const struct entry *e)
{
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, time_of(e->mtime_ns) };
	mode_t mode = e->mode & (rc->keep_owner ? 07777 : 01777);

	if ((rc->keep_owner && fchown(fd, e->uid, e->gid) < 0) || fchmod(fd, mode) < 0 ||
	    futimens(fd, times) < 0)
		return fail(rc->error, errno, "cannot set owner, mode or time of", rc->name);
	return 0;
}

static int receive_file(struct receiver *rc, int dir, const char *name, const struct entry *e)
{
	int fd, r;

	if (clear_way(dir, name) < 0)
		return fail(rc->error, errno, "cannot replace", rc->name);
	fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return fail(rc->error, errno, "cannot make", rc->name);
	r = receive_data(rc, fd, e->size);
	if (r == 0)
		r = set_attributes(rc, fd, e);
	if (close(fd) < 0 && r == 0)
		r = fail(rc->error, errno, "cannot write", rc->name);
	if (r < 0)
		(void)unlinkat(dir, name, 0);	/* complete or absent */
	return r;
}

/* The second time it is there already, and gets its final times. */
static int receive_folder(struct receiver *rc, int dir, const char *name, const struct entry *e)
{
	int fd, r;

	if (mkdirat(dir, name, 0700) == 0)
		return 0;	/* its own mode may forbid to fill it */
	if (errno != EEXIST)
		return fail(rc->error, errno, "cannot make the folder", rc->name);
	fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return fail(rc->error, errno, "cannot open the folder", rc->name);
	r = set_attributes(rc, fd, e);
	close(fd);
	return r;
}

static int receive_special(struct receiver *rc, int dir, const char *name, const struct entry *e)
{
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, time_of(e->mtime_ns) };
	int r;

	if (clear_way(dir, name) < 0)
		return fail(rc->error, errno, "cannot replace", rc->name);
	r = S_ISLNK(e->mode) ? symlinkat(e->link, dir, name) : mkfifoat(dir, name, e->mode & 0777);
	if (r < 0 || (rc->keep_owner && fchownat(dir, name, e->uid, e->gid, AT_SYMLINK_NOFOLLOW) < 0) ||
	    utimensat(dir, name, times, AT_SYMLINK_NOFOLLOW) < 0)
		return fail(rc->error, errno, "cannot make", rc->name);
	return 0;
}

static int receive_into(struct receiver *rc, int dir, const char *name, const struct entry *e)
{
	switch (e->mode & S_IFMT) {
	case S_IFREG:
		return receive_file(rc, dir, name, e);
	case S_IFDIR:
		return receive_folder(rc, dir, name, e);
	case S_IFLNK:
	case S_IFIFO:
		return receive_special(rc, dir, name, e);
	default:
		return fail(rc->error, EPROTO, "the other side sends what is no file", NULL);
	}
}

static int receive_entry(struct receiver *rc, const struct frame *f)
{
	struct entry e;
	const char *last;
	int dir, r;

	if (!parse_entry(f, &e) || !path_is_safe(e.path) || strlen(rc->top) + strlen(e.path) + 2 > sizeof(rc->name))
		return fail(rc->error, EPROTO, "the other side does not keep to the protocol", NULL);
	if (!*e.path && !*rc->top)	/* the folder itself, whose contents are meant */
		return S_ISDIR(e.mode) ? 0 : fail(rc->error, ENOTDIR, "only a folder has contents to copy", NULL);
	rc->name[0] = '\0';
	add(rc->name, sizeof(rc->name), rc->top);
	add(rc->name, sizeof(rc->name), *rc->top && *e.path ? "/" : "");
	add(rc->name, sizeof(rc->name), e.path);
	dir = open_parent(rc, rc->name, &last);
	if (dir < 0)
		return fail(rc->error, errno, "cannot reach", rc->name);
	r = receive_into(rc, dir, last, &e);
	close(dir);
	return r;
}

/* Finds the folder that takes the tree, and the name of its top there. */
static int open_target(struct receiver *rc, const char *path, const char *name)
{
	const char *slash;
	char parent[TREE_PATH_MAX] = "";
	size_t len = strlen(path);
	struct stat st;

	if (len == 0 || len >= sizeof(parent) || strchr(name, '/') || !path_is_safe(name))
		return fail(rc->error, EINVAL, "that is no path:", path);
	if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) {
		rc->root = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		add(rc->top, sizeof(rc->top), name);
		return rc->root < 0 ? fail(rc->error, errno, "cannot open the folder", path) : 0;
	}
	if (path[len - 1] == '/')
		return fail(rc->error, ENOTDIR, "there is no folder", path);
	slash = strrchr(path, '/');
	memcpy(parent, path, slash ? (size_t)(slash - path) : 0);
	rc->root = open(slash ? *parent ? parent : "/" : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (rc->root < 0)
		return fail(rc->error, errno, "cannot open the folder of", path);
	add(rc->top, sizeof(rc->top), slash ? slash + 1 : path);
	return path_is_safe(rc->top) ? 0 : fail(rc->error, EINVAL, "that is no path:", path);
}

int tree_receive(struct tree_input *in, const char *path, const char *name, bool keep_owner,
		 struct tree_error *ret_error)
{
	static struct receiver rc;	/* one copy a process */
	struct frame f;
	int r;

	rc = (struct receiver){ .in = in, .root = -1, .keep_owner = keep_owner, .error = ret_error };
	r = open_target(&rc, path, name);
	while (r == 0) {
		r = next_frame(&rc, &f);
		if (r < 0 || f.type == AGENT_END)
			break;
		if (f.type == AGENT_ENTRY)
			r = receive_entry(&rc, &f);
		else if (f.type == AGENT_ERROR)
			r = sender_failed(&rc, &f);
		else if (f.type != AGENT_HELLO)
			r = fail(ret_error, EPROTO, "the other side does not keep to the protocol", NULL);
	}
	if (rc.root >= 0)
		close(rc.root);
	return r;
}
