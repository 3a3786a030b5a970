/* SPDX-License-Identifier: Apache-2.0 */
#include "os/checked.h"

#include "os/boot.h"
#include "os/file.h"
#include "os/folders.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#define NAME "/checked"
#define NOTES_MAX 256u

#ifndef XFS_SUPER_MAGIC
#define XFS_SUPER_MAGIC 0x58465342
#endif

/* Others may take times from a server's clock, or keep only seconds. */
static bool has_our_times(int fd)
{
	static const unsigned long good[] = { EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC, F2FS_SUPER_MAGIC, TMPFS_MAGIC };
	struct statfs fs;

	if (fstatfs(fd, &fs) < 0)
		return false;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		if ((unsigned long)fs.f_type == good[i])
			return true;
	return false;
}

static bool is_before(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec != b->tv_sec ? a->tv_sec < b->tv_sec : a->tv_nsec < b->tv_nsec;
}

int checked_state(const int *fds, unsigned n, const uint8_t key[SHA256_SIZE], struct checked_state *ret)
{
	char boot[BOOT_ID_SIZE];
	struct sha256 hash;

	if (!boot_id(boot))
		return -EOPNOTSUPP;
	sha256_init(&hash);
	sha256_add(&hash, key, SHA256_SIZE);
	sha256_add(&hash, boot, sizeof(boot));
	for (unsigned i = 0; i < n; i++) {
		struct timespec now;
		struct stat st;

		/* The clock that file systems take their times from. */
		if (clock_gettime(CLOCK_REALTIME_COARSE, &now) < 0 || fstat(fds[i], &st) < 0 || !has_our_times(fds[i]))
			return -EOPNOTSUPP;
		if (!is_before(&st.st_ctim, &now))
			return -EAGAIN;
		sha256_add(&hash, &st.st_dev, sizeof(st.st_dev));
		sha256_add(&hash, &st.st_ino, sizeof(st.st_ino));
		sha256_add(&hash, &st.st_size, sizeof(st.st_size));
		sha256_add(&hash, &st.st_mtim, sizeof(st.st_mtim));
		sha256_add(&hash, &st.st_ctim, sizeof(st.st_ctim));
	}
	sha256_finish(&hash, ret->digest);
	return 0;
}

/* One that is noted with @tag. */
static void name_note(const struct checked_state *state, unsigned tag, uint8_t ret_note[SHA256_SIZE])
{
	struct sha256 hash;

	sha256_init(&hash);
	sha256_add(&hash, state->digest, sizeof(state->digest));
	sha256_add(&hash, &(uint8_t){ (uint8_t)tag }, 1);
	sha256_finish(&hash, ret_note);
}

static bool path_of_notes(char ret_path[PATH_MAX])
{
	char folder[PATH_MAX];

	return folder_data(folder, sizeof(folder), NULL) == 0 && file_path(ret_path, NULL, folder, NAME, NULL) == 0;
}

bool checked_recall(const struct checked_state *state, unsigned *ret_tag)
{
	char path[PATH_MAX], *text;
	bool found = false;
	size_t len;

	if (!path_of_notes(path) || file_read_all(path, NOTES_MAX * SHA256_SIZE, &text, &len, NULL) < 0)
		return false;
	for (unsigned tag = 0; tag < CHECKED_TAGS && !found; tag++) {
		uint8_t note[SHA256_SIZE];

		name_note(state, tag, note);
		for (size_t at = 0; at + SHA256_SIZE <= len && !found; at += SHA256_SIZE)
			found = memcmp(text + at, note, SHA256_SIZE) == 0;
		if (found)
			*ret_tag = tag;
	}
	free(text);
	return found;
}

void checked_note(const struct checked_state *state, unsigned tag)
{
	uint8_t notes[NOTES_MAX * SHA256_SIZE];
	char path[PATH_MAX], temp[PATH_MAX], *text;
	size_t len = 0;
	int fd;

	if (!path_of_notes(path) || snprintf(temp, sizeof(temp), "%s.%d", path, (int)getpid()) >= (int)sizeof(temp))
		return;
	name_note(state, tag, notes);
	if (file_read_all(path, sizeof(notes), &text, &len, NULL) == 0) {
		len = len > sizeof(notes) - SHA256_SIZE ? sizeof(notes) - SHA256_SIZE : len;
		memcpy(notes + SHA256_SIZE, text, len);
		free(text);
	}
	/* It need not survive a crash, and none of what is in it does: nobody waits for the disk. */
	fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return;
	if (file_write_all(fd, notes, SHA256_SIZE + len) < 0 || rename(temp, path) < 0)
		(void)unlink(temp);
	(void)close(fd);
}
