/* SPDX-License-Identifier: Apache-2.0 */
/* The little that the agent does with files. */
#ifndef GUEST_FILES_H
#define GUEST_FILES_H

#include "guest/request.h"

#include <sys/stat.h>
#include <sys/types.h>

/* Reads at most @cap bytes of the file at @path.  Returns how many, or -1 with errno. */
ssize_t file_read(const char *path, char *buf, size_t cap);

/* Writes @text to the file at @path, which exists, in one piece.  0, or -1 with errno. */
int file_put(const char *path, const char *text);

/* Makes @path (absolute) and its parents.  0, or -1 with errno; existing is fine. */
int file_mkdirs(const char *path, mode_t mode);

/* Sets how willingly the kernel kills this process for memory.  0, or -1 with errno. */
int file_set_oom_score(const char *score);

/* Carries out a mount request; makes the target.  0, or -1 with errno. */
int file_mount(const struct mount_request *req);

#endif /* GUEST_FILES_H */
