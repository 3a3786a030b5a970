/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files made durable: what is written is either complete or absent, also after
 * kill -9 or loss of power at any point.
 *
 *   no name -> write -> fsync -> link (over an old file: beside it, rename) -> fsync of the folder
 *
 * A file that has no name is gone with the process that writes it.  File
 * systems without O_TMPFILE give it a temporary one from the beginning.
 *
 * Threads: no shared state; any thread.
 */
#ifndef OS_FILE_H
#define OS_FILE_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

struct err;

/*
 * Writes @len bytes to a new file and puts it in the place of @path, with
 * permissions @mode (umask not applied).  Returns 0 or a negative errno; on
 * failure the old file is as it was.
 */
int file_write_atomic(const char *path, const void *data, size_t len, mode_t mode,
		      struct err *err);

/* The same in steps, for content that does not fit in memory. */
struct file_new {
	int fd;	/* write here; owned */
	char path[PATH_MAX];	/* what it will become */
	char temp[PATH_MAX];	/* what it is called until then, "" for nothing */
};

/* Returns 0 or a negative errno.  On success commit or abort must follow. */
int file_new_begin(struct file_new *file, const char *path, mode_t mode, struct err *err);
/* The same for the holder of a lock on @path, who takes the place of what a crash left. */
int file_new_begin_locked(struct file_new *file, const char *path, mode_t mode, struct err *err);
/* Makes the file durable under its name.  On failure it is as after an abort. */
int file_new_commit(struct file_new *file, struct err *err);
void file_new_abort(struct file_new *file);

/* A file on the disk of @path that nobody sees, for the caller to close.  Its descriptor, or a negative errno. */
int file_scratch(const char *path, struct err *err);

/*
 * A file that is only derived from others, kept to save time: sealed when it is
 * complete, and made anew when the seal is broken.  The seal is a modification
 * time that no clock gives and that depends on the size, so any later write
 * breaks it, and copies that keep times keep it.  0 or a negative errno.
 */
int file_seal(int fd);
bool file_is_sealed(const struct stat *st);

/* file_write_atomic() of a sealed file. */
int file_write_sealed(const char *path, const void *data, size_t len, mode_t mode, struct err *err);

/*
 * Reads the whole file at @path into fresh memory with a NUL after the last
 * byte (not counted).  Returns 0 and passes ownership in @ret_data, -EFBIG when
 * it has more than @max bytes, or another negative errno.  @err gets no
 * sentence for -ENOENT: callers know better what a missing file means.
 */
int file_read_all(const char *path, size_t max, char **ret_data, size_t *ret_len,
		  struct err *err);

/* Writes all of @data to @fd.  Returns 0 or a negative errno. */
int file_write_all(int fd, const void *data, size_t len);
/* The same at byte @off, wherever the file stands. */
int file_write_at(int fd, const void *data, size_t len, uint64_t off);
/* Reads @len bytes at @off.  Returns how many there were, fewer only at the end of the file, or a negative errno. */
ssize_t file_read_at(int fd, void *to, size_t len, uint64_t off);

/* Makes @path and its missing parents with @mode.  0 or a negative errno. */
int file_mkdirs(const char *path, mode_t mode, struct err *err);

/*
 * Removes @name in folder @dirfd with all that is below it.  Follows no links
 * and crosses no mount points.  Returns 0 (also when it is absent) or a
 * negative errno.
 */
int file_remove_tree(int dirfd, const char *name);

/* Makes the entries of the folder at @path durable.  0 or a negative errno. */
int file_sync_dir(const char *path);

/*
 * Path of folder @sub in roux's cache: $ROUX_CACHE, else $XDG_CACHE_HOME/roux,
 * else ~/.cache/roux.  Made (mode 0700) when missing.  Returns 0 and fills
 * @ret_path, or a negative errno.
 */
int file_cache_dir(const char *sub, char ret_path[PATH_MAX], struct err *err);

/* Joins strings into @ret_path; ends with NULL.  0 or -ENAMETOOLONG. */
int file_path(char ret_path[PATH_MAX], struct err *err, const char *part, ...)
	__attribute__((sentinel));

/*
 * Takes the advisory lock of file @path (made when missing) and waits for it
 * unless @try_only.  Returns a descriptor, whose close() releases the lock (so
 * does the end of the process), -EWOULDBLOCK when somebody else has it, or
 * another negative errno.
 */
int file_lock(const char *path, bool try_only, struct err *err);

#endif /* OS_FILE_H */
