/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Named files of an image: below a folder, or entries of a tar.  A tar is read
 * from its start for every file; its members are large and few.
 */
#ifndef OCI_SOURCE_H
#define OCI_SOURCE_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct archive;
struct err;

struct source {
	char path[PATH_MAX];
	bool is_tar;
};

/* A file of a source, being read. */
struct source_file {
	int fd;	/* folder; else -1 */
	struct archive *tar;	/* tar; else NULL */
	void *buf;	/* owned; used with fd */
};

/* Opens @name (relative, as in the image).  0, -ENOENT without message, or another -errno. */
int source_open(const struct source *source, const char *name, struct source_file *ret_file,
		struct err *err);

/*
 * Next bytes, borrowed until the next call.  Returns their number, 0 at the end,
 * or a negative errno.
 */
ssize_t source_next(struct source_file *file, const void **ret_data, struct err *err);
void source_close(struct source_file *file);

/*
 * Reads @name into fresh memory, NUL-terminated.  0, -ENOENT without message,
 * -EFBIG above @max bytes, or another -errno.
 */
int source_read(const struct source *source, const char *name, size_t max, char **ret_data,
		size_t *ret_len, struct err *err);

/*
 * Removes "." and empty components and leading slashes from @name.  False when
 * it does not fit or has a ".." component.  The root is "".
 */
bool source_clean_name(const char *name, char ret_clean[PATH_MAX]);

#endif /* OCI_SOURCE_H */
