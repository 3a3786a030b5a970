/* SPDX-License-Identifier: Apache-2.0 */
#include "api/template.h"

#include "base/sha256.h"
#include "machine/snapshot.h"
#include "machine/spec.h"
#include "os/err.h"
#include "os/file.h"
#include "os/log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#define KEY_DIGITS 32u

/* Anything that a guest may have read and that is changed later would be seen in part. */
static bool can_be_saved(const struct machine_spec *s)
{
	if (s->gdb || !s->vsock || s->restore)
		return false;
	for (unsigned i = 0; i < s->ndisks; i++)
		if (!s->disk[i].read_only)
			return false;
	for (unsigned i = 0; i < s->nnets; i++)
		if (s->net[i].kind != SPEC_NET_USER)
			return false;
	return true;
}

/* A file by its name and what shows a change of it. */
static void add_file(struct sha256 *hash, const char *path)
{
	struct stat st = { 0 };

	(void)stat(path, &st);
	sha256_add(hash, path, strlen(path) + 1);
	sha256_add(hash, &st.st_ino, sizeof(st.st_ino));
	sha256_add(hash, &st.st_size, sizeof(st.st_size));
	sha256_add(hash, &st.st_mtim, sizeof(st.st_mtim));
}

/* The text of the spec without what only the host's side of a network knows. */
static char *guest_text(const struct machine_spec *spec)
{
	struct machine_spec s = *spec;	/* its strings stay the original's */

	for (unsigned i = 0; i < s.nnets; i++) {
		struct spec_net *n = &s.net[i];

		*n = (struct spec_net){ .kind = n->kind, .mtu = n->mtu, .guest = n->guest, .gateway = n->gateway,
					.dns = n->dns };
	}
	return machine_spec_text(&s);
}

bool template_path(const struct machine_spec *spec, const char *vmm, char ret_path[PATH_MAX])
{
	char dir[PATH_MAX], hex[SHA256_HEX_SIZE];
	struct sha256 hash;
	char *text;

	if (!can_be_saved(spec) || file_cache_dir("templates", dir, NULL) < 0)
		return false;
	text = guest_text(spec);
	if (!text)
		return false;
	sha256_init(&hash);
	add_file(&hash, vmm);
	sha256_add(&hash, text, strlen(text));
	free(text);
	add_file(&hash, spec->kernel);
	for (unsigned i = 0; i < spec->initrd.n; i++)
		add_file(&hash, spec->initrd.at[i]);
	for (unsigned i = 0; i < spec->ndisks; i++)
		add_file(&hash, spec->disk[i].path);
	for (unsigned i = 0; i < spec->nshares; i++)
		add_file(&hash, spec->share[i].path);
	sha256_finish_hex(&hash, hex);
	hex[KEY_DIGITS] = '\0';
	return file_path(ret_path, NULL, dir, "/", hex, ".snap", NULL) == 0;
}

bool template_is_there(const char *path)
{
	struct stat st;

	const struct timespec now[2] = { { .tv_nsec = UTIME_NOW }, { .tv_nsec = UTIME_OMIT } };	/* the seal is the other */

	if (stat(path, &st) < 0 || !file_is_sealed(&st))
		return false;
	(void)utimensat(AT_FDCWD, path, now, 0);
	return true;
}

static int by_use(const void *a, const void *b)
{
	int64_t x = ((const struct template_info *)a)->used_s, y = ((const struct template_info *)b)->used_s;

	return (x < y) - (x > y);
}

static bool describe(int dir, const char *name, struct template_info *ret_info)
{
	size_t len = strlen(name);
	struct stat st;

	if (len != KEY_DIGITS + 5 || strcmp(name + KEY_DIGITS, ".snap") != 0 || fstatat(dir, name, &st, 0) < 0 ||
	    !file_is_sealed(&st))
		return false;
	*ret_info = (struct template_info){ .bytes = (uint64_t)st.st_blocks * 512, .used_s = st.st_atim.tv_sec,
					    .memory = (uint64_t)st.st_size - snapshot_size(0) };
	memcpy(ret_info->id, name, KEY_DIGITS);
	return true;
}

int template_list(struct template_info **ret_infos, size_t *ret_n, struct err *err)
{
	char path[PATH_MAX];
	struct template_info *infos = NULL, one, *more;
	struct dirent *e;
	size_t n = 0;
	int r = file_cache_dir("templates", path, err);
	DIR *dir = r < 0 ? NULL : opendir(path);

	if (r < 0)
		return r;
	if (!dir)
		return err_set(err, -errno, "cannot read %s: %s", path, strerror(errno));
	while (r == 0 && (e = readdir(dir))) {
		if (!describe(dirfd(dir), e->d_name, &one))
			continue;
		more = realloc(infos, (n + 1) * sizeof(*infos));
		if (!more) {
			r = err_set(err, -ENOMEM, "out of memory");
			continue;
		}
		infos = more;
		infos[n++] = one;
	}
	(void)closedir(dir);
	if (r < 0) {
		free(infos);
		return r;
	}
	if (n)
		qsort(infos, n, sizeof(*infos), by_use);
	*ret_infos = infos;
	*ret_n = n;
	return 0;
}

int template_remove(const char *id, struct err *err)
{
	char dir[PATH_MAX], path[PATH_MAX];
	int r = file_cache_dir("templates", dir, err);

	if (r == 0 && (strlen(id) != KEY_DIGITS || strspn(id, "0123456789abcdef") != KEY_DIGITS))
		return err_set(err, -ENOENT, "there is no template %s; 'roux template ls' lists them", id);
	if (r == 0)
		r = file_path(path, err, dir, "/", id, ".snap", NULL);
	if (r == 0 && unlink(path) < 0)
		r = errno == ENOENT ? err_set(err, -ENOENT, "there is no template %s; 'roux template ls' lists them", id) :
			err_set(err, -errno, "cannot remove %s: %s", path, strerror(errno));
	return r;
}

static void remove_old(void)
{
	struct template_info *infos;
	size_t n;

	if (template_list(&infos, &n, NULL) < 0)
		return;
	while (n > TEMPLATES_MAX)
		(void)template_remove(infos[--n].id, NULL);
	free(infos);
}

int template_begin(const struct machine_spec *spec)
{
	int fd = memfd_create("roux-template", MFD_CLOEXEC);

	if (fd >= 0 && ftruncate(fd, (off_t)snapshot_size(spec->memory)) < 0) {
		int r = -errno;

		(void)close(fd);
		return r;
	}
	return fd < 0 ? -errno : fd;
}

/* Holes stay holes. */
static int copy_sparse(int from, int to, off_t size)
{
	for (off_t at = 0; at < size;) {
		off_t end;

		at = lseek(from, at, SEEK_DATA);
		if (at < 0)
			return errno == ENXIO ? 0 : -errno;
		end = lseek(from, at, SEEK_HOLE);
		if (end < 0 || lseek(to, at, SEEK_SET) < 0)
			return -errno;
		while (at < end) {
			ssize_t n = sendfile(to, from, &at, (size_t)(end - at));

			if (n <= 0)
				return n < 0 ? -errno : -EIO;
		}
	}
	return 0;
}

static int commit(int fd, const char *path)
{
	struct file_new file;
	struct stat st;
	int r = fstat(fd, &st) < 0 ? -errno : file_new_begin(&file, path, 0600, NULL);

	if (r < 0)
		return r;
	if (ftruncate(file.fd, st.st_size) < 0)
		r = -errno;
	if (r == 0)
		r = copy_sparse(fd, file.fd, st.st_size);
	if (r == 0)
		r = file_seal(file.fd);
	if (r == 0)
		return file_new_commit(&file, NULL);
	file_new_abort(&file);
	return r;
}

struct template_writer {
	pthread_t thread;
	int fd;
	char path[PATH_MAX];
};

static void *writer_main(void *arg)
{
	struct template_writer *w = arg;
	int r = commit(w->fd, w->path);

	if (r < 0)
		log_msg(LOG_LEVEL_WARN, "template", "cannot write %s: %s", w->path, strerror(-r));
	else
		remove_old();
	return NULL;
}

struct template_writer *template_commit_later(int fd, const char *path)
{
	struct template_writer *w = malloc(sizeof(*w));

	if (w && file_path(w->path, NULL, path, NULL) == 0) {
		w->fd = fd;
		if (pthread_create(&w->thread, NULL, writer_main, w) == 0)
			return w;
	}
	(void)close(fd);
	free(w);
	return NULL;
}

void template_writer_finish(struct template_writer *w)
{
	if (!w)
		return;
	(void)pthread_join(w->thread, NULL);
	(void)close(w->fd);
	free(w);
}
