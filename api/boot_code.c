/* SPDX-License-Identifier: Apache-2.0 */
#include "api/boot_code.h"

#include "api/template.h"
#include "base/sha256.h"
#include "machine/spec.h"
#include "os/file.h"

#include <dirent.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FOLDER "boots"
#define KEY_DIGITS 32u

bool boot_code_path(const struct machine_spec *spec, const char *vmm, char ret_path[PATH_MAX])
{
	char dir[PATH_MAX], hex[SHA256_HEX_SIZE];
	struct sha256 hash;

	if (file_cache_dir(FOLDER, dir, NULL) < 0)
		return false;
	sha256_init(&hash);
	template_add_file(&hash, vmm);
	template_add_file(&hash, spec->kernel);
	sha256_add(&hash, &spec->cpus, sizeof(spec->cpus));
	sha256_finish_hex(&hash, hex);
	hex[KEY_DIGITS] = '\0';
	return file_path(ret_path, NULL, dir, "/", hex, ".code", NULL) == 0;
}

struct found {
	char name[NAME_MAX + 1];
	int64_t used_s;
};

static int by_use(const void *a, const void *b)
{
	int64_t x = ((const struct found *)a)->used_s, y = ((const struct found *)b)->used_s;

	return (x < y) - (x > y);
}

void boot_code_remove_old(bool all)
{
	char path[PATH_MAX];
	struct found *found = NULL, *more;
	struct dirent *e;
	struct stat st;
	size_t n = 0;
	DIR *dir = file_cache_dir(FOLDER, path, NULL) < 0 ? NULL : opendir(path);

	while (dir && (e = readdir(dir))) {
		if (e->d_name[0] == '.' || fstatat(dirfd(dir), e->d_name, &st, 0) < 0)
			continue;
		more = realloc(found, (n + 1) * sizeof(*found));
		if (!more)
			break;
		found = more;
		found[n].used_s = st.st_atim.tv_sec;
		memcpy(found[n++].name, e->d_name, strlen(e->d_name) + 1);
	}
	if (n)
		qsort(found, n, sizeof(*found), by_use);
	while (n > (all ? 0 : BOOT_CODES_MAX))
		(void)unlinkat(dirfd(dir), found[--n].name, 0);
	free(found);
	if (dir)
		(void)closedir(dir);
}
