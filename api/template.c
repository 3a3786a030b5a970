/* SPDX-License-Identifier: Apache-2.0 */
#include "api/template.h"

#include "api/boot_code.h"
#include "base/checked.h"
#include "base/sha256.h"
#include "machine/snapshot.h"
#include "machine/spec.h"
#include "os/err.h"
#include "os/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define KEY_DIGITS 32u
#define LEFT_OVER_S 3600	/* no monitor writes for so long */

/* What belongs to a template, beside it. */
#define CODE ".code"
#define READS ".reads"
static const char *const companions[] = { CODE, READS };

/* Anything that a guest may have read and that is changed later would be seen in part. */
static bool can_be_saved(const struct machine_spec *s)
{
	if (s->gdb || !s->vsock || s->restore)
		return false;
	for (unsigned i = 0; i < s->ndisks; i++)
		if (!s->disk[i].read_only)
			return false;
	/* With the identity come addresses of one network. */
	return s->nnets == 0 || (s->nnets == 1 && s->net[0].kind != SPEC_NET_TAP);
}

void template_add_file(struct sha256 *hash, const char *path)
{
	struct stat st = { 0 };

	(void)stat(path, &st);
	sha256_add(hash, path, strlen(path) + 1);
	sha256_add(hash, &st.st_dev, sizeof(st.st_dev));
	sha256_add(hash, &st.st_ino, sizeof(st.st_ino));
	sha256_add(hash, &st.st_size, sizeof(st.st_size));
	sha256_add(hash, &st.st_mtim, sizeof(st.st_mtim));
}

/* What is in it may change: the guest asks again, and a restored share looks for what was replaced. */
static void add_folder(struct sha256 *hash, const char *path)
{
	struct stat st = { 0 };

	(void)stat(path, &st);
	sha256_add(hash, &st.st_dev, sizeof(st.st_dev));
	sha256_add(hash, &st.st_ino, sizeof(st.st_ino));
}

/* The text of the spec without what only the host's side knows: of networks, and of memory. */
static char *guest_text(const struct machine_spec *spec)
{
	struct machine_spec s = *spec;	/* its strings stay the original's */

	s.merge = false;
	for (unsigned i = 0; i < s.nnets; i++) {
		struct spec_net *n = &s.net[i];

		*n = (struct spec_net){ .kind = n->kind, .mtu = n->mtu, .gateway = n->gateway, .dns = n->dns,
					.internal = n->internal,
					.guest = n->kind == SPEC_NET_NAMED ? (struct spec_list){ 0 } : n->guest };
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
	template_add_file(&hash, vmm);
	sha256_add(&hash, text, strlen(text));
	free(text);
	template_add_file(&hash, spec->kernel);
	for (unsigned i = 0; i < spec->initrd.n; i++)
		template_add_file(&hash, spec->initrd.at[i]);
	for (unsigned i = 0; i < spec->ndisks; i++)
		template_add_file(&hash, spec->disk[i].path);
	for (unsigned i = 0; i < spec->nshares; i++)
		add_folder(&hash, spec->share[i].path);
	sha256_finish_hex(&hash, hex);
	hex[KEY_DIGITS] = '\0';
	return file_path(ret_path, NULL, dir, "/", hex, ".snap", NULL) == 0;
}

/* The file beside the template at @path. */
static bool beside(const char *path, const char *suffix, char ret_path[PATH_MAX])
{
	size_t len = strlen(path);
	char stem[PATH_MAX];

	if (len < 5 || len >= sizeof(stem))
		return false;
	memcpy(stem, path, len - 5);	/* .snap */
	stem[len - 5] = '\0';
	return file_path(ret_path, NULL, stem, suffix, NULL) == 0;
}

bool template_code_path(const char *path, char ret_path[PATH_MAX])
{
	return beside(path, CODE, ret_path);
}

bool template_reads_path(const char *path, char ret_path[PATH_MAX])
{
	return beside(path, READS, ret_path);
}

bool template_is_there(const char *path)
{
	const struct timespec now[2] = { { .tv_nsec = UTIME_NOW }, { .tv_nsec = UTIME_OMIT } };	/* the seal is the other */
	struct stat st;

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
	char code[KEY_DIGITS + 8];
	struct stat st;

	if (len != KEY_DIGITS + 5 || strcmp(name + KEY_DIGITS, ".snap") != 0 || fstatat(dir, name, &st, 0) < 0 ||
	    !file_is_sealed(&st))
		return false;
	*ret_info = (struct template_info){ .bytes = (uint64_t)st.st_blocks * 512, .used_s = st.st_atim.tv_sec,
					    .memory = (uint64_t)st.st_size - snapshot_size(0) };
	memcpy(ret_info->id, name, KEY_DIGITS);
	(void)snprintf(code, sizeof(code), "%s.code", ret_info->id);
	if (fstatat(dir, code, &st, 0) == 0)
		ret_info->bytes += (uint64_t)st.st_blocks * 512;
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
	char dir[PATH_MAX], path[PATH_MAX], other[PATH_MAX];
	int r = file_cache_dir("templates", dir, err);

	if (r == 0 && (strlen(id) != KEY_DIGITS || strspn(id, "0123456789abcdef") != KEY_DIGITS))
		return err_set(err, -ENOENT, "there is no template %s; 'roux template ls' lists them", id);
	if (r == 0)
		r = file_path(path, err, dir, "/", id, ".snap", NULL);
	for (unsigned i = 0; r == 0 && i < ARRAY_SIZE(companions); i++)
		if (beside(path, companions[i], other))
			(void)unlink(other);
	if (r == 0 && unlink(path) < 0)
		r = errno == ENOENT ? err_set(err, -ENOENT, "there is no template %s; 'roux template ls' lists them", id) :
			err_set(err, -errno, "cannot remove %s: %s", path, strerror(errno));
	return r;
}

/* Whether @name is what a killed monitor left, or belongs to a template that is gone. */
static bool is_left_over(int dir, const char *name, bool all)
{
	const char *dot = strchr(name, '.');
	char snap[NAME_MAX + 1];
	struct stat st;

	for (unsigned i = 0; dot && i < ARRAY_SIZE(companions); i++)
		if (strcmp(dot, companions[i]) == 0 && snprintf(snap, sizeof(snap), "%.*s.snap", (int)(dot - name), name) < NAME_MAX)
			return fstatat(dir, snap, &st, 0) < 0;
	return dot && strstr(dot, ".new") && (all || (fstatat(dir, name, &st, 0) == 0 && time(NULL) - st.st_mtime > LEFT_OVER_S));
}

static void sweep(bool all)
{
	char path[PATH_MAX];
	struct dirent *e;
	DIR *dir = file_cache_dir("templates", path, NULL) < 0 ? NULL : opendir(path);

	while (dir && (e = readdir(dir)))
		if (is_left_over(dirfd(dir), e->d_name, all))
			(void)unlinkat(dirfd(dir), e->d_name, 0);
	if (dir)
		(void)closedir(dir);
}

void template_remove_old(void)
{
	struct template_info *infos;
	size_t n;

	sweep(false);
	boot_code_remove_old(false);
	if (template_list(&infos, &n, NULL) < 0)
		return;
	while (n > TEMPLATES_MAX)
		(void)template_remove(infos[--n].id, NULL);
	free(infos);
}

int template_remove_all(struct template_info **ret_infos, size_t *ret_n, struct err *err)
{
	int r = template_list(ret_infos, ret_n, err);

	for (size_t i = 0; r == 0 && i < *ret_n; i++)
		r = template_remove((*ret_infos)[i].id, err);
	if (r < 0) {
		free(*ret_infos);
		return r;
	}
	sweep(true);
	boot_code_remove_old(true);
	return 0;
}
