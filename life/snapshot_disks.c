/* SPDX-License-Identifier: Apache-2.0 */
#include "life/snapshot_disks.h"

#include "api/disks.h"
#include "os/err.h"

#include <cjson/cJSON.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define DIGITS 16u	/* of the number that is drawn for each snapshot */
#define BYTES_MAX (1ull << 52)	/* exact in a JSON number */

int snapshot_disks_prefix(const char *path, char ret_prefix[PATH_MAX], struct err *err)
{
	uint64_t lot;

	if (getrandom(&lot, sizeof(lot), 0) != sizeof(lot))
		return err_set(err, -EIO, "no random numbers");
	if (snprintf(ret_prefix, PATH_MAX, "%s.%0*" PRIx64, path, DIGITS, lot) >= PATH_MAX)
		return err_set(err, -ENAMETOOLONG, "the name of the snapshot is too long");
	return 0;
}

/* ------------------------------------------------------------------ described */

static bool describe_file(cJSON *o, const struct disk_save *s)
{
	const char *name = strrchr(s->path, '/');
	char sum[DIGITS + 1];

	(void)snprintf(sum, sizeof(sum), "%0*" PRIx64, DIGITS, s->sum);
	return s->file_size <= BYTES_MAX && cJSON_AddStringToObject(o, "File", name ? name + 1 : s->path) &&
	       cJSON_AddNumberToObject(o, "Bytes", (double)s->file_size) && cJSON_AddStringToObject(o, "Sum", sum);
}

int snapshot_disks_describe(cJSON *notes, const struct vm_config *c, const struct disk_saves *saves, struct err *err)
{
	cJSON *disks = cJSON_AddArrayToObject(notes, "Disks");

	for (uint32_t i = 0; i < c->ndisks; i++) {
		const struct disk_save *save = NULL;
		cJSON *o = cJSON_CreateObject();
		char stamp[DISK_STAMP_SIZE];
		bool ok = cJSON_AddItemToArray(disks, o);
		int r = 0;

		for (unsigned k = 0; k < saves->n; k++)
			if (saves->at[k].index == i)
				save = &saves->at[k];
		if (save)
			ok = ok && describe_file(o, save);
		if (!save || c->disk[i].overlay) {
			r = disk_stamp(c->disk[i].path, stamp);
			ok = ok && r == 0 && cJSON_AddStringToObject(o, "Stamp", stamp);
		}
		if (r < 0)
			return err_set(err, r, "disk %s: %s", c->disk[i].path, strerror(-r));
		if (!ok)
			return err_set(err, -ENOMEM, "out of memory");
	}
	return 0;
}

/* ---------------------------------------------------------------------- tidied */

/* "NAME.0123456789abcdef.disk0", where @name is NAME. */
static bool is_of(const char *file, const char *name)
{
	size_t len = strlen(name);
	unsigned n = 0;

	if (strncmp(file, name, len) != 0 || file[len] != '.')
		return false;
	for (file += len + 1; isxdigit((unsigned char)*file) && n < DIGITS; n++)
		file++;
	return n == DIGITS && strncmp(file, ".disk", 5) == 0 && isdigit((unsigned char)file[5]);
}

typedef void (*file_fn)(void *ctx, int dir, const char *file);

/* Calls @fn with every file of a disk of snapshot @path. */
static void each_file(const char *path, file_fn fn, void *ctx)
{
	const char *name = strrchr(path, '/');
	char folder[PATH_MAX];
	struct dirent *e;
	DIR *dir;

	if (!name || (size_t)(name - path) >= sizeof(folder) - 1)
		return;
	(void)snprintf(folder, sizeof(folder), "%.*s/", (int)(name - path), path);
	dir = opendir(folder);
	while (dir && (e = readdir(dir)))
		if (is_of(e->d_name, name + 1))
			fn(ctx, dirfd(dir), e->d_name);
	if (dir)
		(void)closedir(dir);
}

static void remove_other(void *ctx, int dir, const char *file)
{
	const char *prefix = ctx;

	if (!prefix || strncmp(file, prefix, strlen(prefix)) != 0)
		(void)unlinkat(dir, file, 0);
}

void snapshot_disks_tidy(const char *path, const char *prefix)
{
	const char *name = prefix ? strrchr(prefix, '/') : NULL;

	each_file(path, remove_other, name ? (void *)(uintptr_t)(name + 1) : NULL);
}

static void add_bytes(void *ctx, int dir, const char *file)
{
	struct stat st;

	if (fstatat(dir, file, &st, AT_SYMLINK_NOFOLLOW) == 0)
		*(uint64_t *)ctx += (uint64_t)st.st_blocks * 512;
}

uint64_t snapshot_disks_bytes(const char *path)
{
	uint64_t bytes = 0;

	each_file(path, add_bytes, &bytes);
	return bytes;
}

/* -------------------------------------------------------------------- restored */

static int check_stamp(const struct vm_disk *d, const char *expected, struct err *err)
{
	char stamp[DISK_STAMP_SIZE];
	int r = disk_stamp(d->path, stamp);

	if (r < 0)
		return err_set(err, r, "disk %s: %s", d->path, strerror(-r));
	if (strcmp(stamp, expected) != 0)
		return err_set(err, -ESTALE, "disk %s has changed since the snapshot was made, which does not have its contents",
			       d->path);
	return 0;
}

/* What is beside the snapshot goes to @to. */
static int copy_file(const char *path, const cJSON *disk, const char *to, struct err *err)
{
	const char *file = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(disk, "File"));
	const char *sum = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(disk, "Sum"));
	const cJSON *bytes = cJSON_GetObjectItemCaseSensitive(disk, "Bytes");
	const char *slash = strrchr(path, '/');
	char from[PATH_MAX], *end = NULL;
	uint64_t expected = sum ? strtoull(sum, &end, 16) : 0;

	if (!file || !*file || strchr(file, '/') || !sum || strlen(sum) != DIGITS || *end || !cJSON_IsNumber(bytes) ||
	    !(bytes->valuedouble >= 0 && bytes->valuedouble <= (double)BYTES_MAX) ||
	    snprintf(from, sizeof(from), "%.*s/%s", slash ? (int)(slash - path) : 1, slash ? path : ".", file) >= PATH_MAX)
		return err_set(err, -EBADMSG, "the snapshot's notes say nothing sensible of a disk");
	return disk_restore(from, (uint64_t)bytes->valuedouble, expected, to, err);
}

static int restore_disk(const char *path, const cJSON *disk, const char *folder, unsigned index, struct vm_disk *d,
			struct err *err)
{
	const char *stamp = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(disk, "Stamp"));
	bool file = cJSON_HasObjectItem(disk, "File");
	char to[PATH_MAX];
	int r;

	if ((d->overlay && (!file || !stamp)) || (!file && !stamp) || (file && d->read_only))
		return err_set(err, -EBADMSG, "the snapshot's notes say nothing sensible of a disk");
	r = stamp ? check_stamp(d, stamp, err) : 0;
	if (r < 0 || !file)
		return r;
	if (snprintf(to, sizeof(to), "%s/disk%u%s", folder, index, d->overlay ? ".layer" : "") >= PATH_MAX)
		return err_set(err, -ENAMETOOLONG, "the VM's folder has too long a name");
	r = copy_file(path, disk, to, err);
	if (r == 0 && !d->overlay) {
		char *own = strdup(to);

		if (!own)
			return err_set(err, -ENOMEM, "out of memory");
		free(d->path);
		d->path = own;
	}
	return r;
}

int snapshot_disks_restore(const char *path, const char *text, const char *folder, struct vm_config *c, struct err *err)
{
	cJSON *json = cJSON_Parse(text ? text : "");
	const cJSON *disks = cJSON_GetObjectItemCaseSensitive(json, "Disks");
	int r = 0;

	if ((uint32_t)cJSON_GetArraySize(disks) != c->ndisks)
		r = err_set(err, -EBADMSG, "the snapshot's notes do not name the VM's disks");
	for (uint32_t i = 0; i < c->ndisks && r == 0; i++)
		r = restore_disk(path, cJSON_GetArrayItem(disks, (int)i), folder, i, &c->disk[i], err);
	cJSON_Delete(json);
	return r;
}

bool snapshot_disks_layer(const char *folder, unsigned index, char ret_path[PATH_MAX])
{
	return snprintf(ret_path, PATH_MAX, "%s/disk%u.layer", folder, index) < PATH_MAX && access(ret_path, R_OK | W_OK) == 0;
}
