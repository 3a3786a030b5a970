/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Applies layers to a folder, lowest first (OCI image specification, "Image
 * Layer Filesystem Changeset").
 *
 * Names and links in a layer may point anywhere.  Every access resolves the
 * folder part below the root (openat2 with RESOLVE_IN_ROOT, so symbolic links
 * mean what they would mean in the guest) and acts on the last component
 * without following it.
 */
#ifndef OCI_UNPACK_H
#define OCI_UNPACK_H

#include "oci/image.h"

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <time.h>

struct err;
struct layer;

/* A folder whose time is set at the end, when nothing more changes it. */
struct unpack_dir {
	char *path;
	struct timespec mtime;
};

struct unpack {
	int root;	/* folder, borrowed */
	bool privileged;	/* may set owners and make device nodes */
	struct oci_limits left;
	int parent;	/* last folder used, O_PATH; -1: none */
	char parent_path[PATH_MAX];
	struct unpack_dir *dir;	/* owned */
	size_t ndirs, cap;
};

void unpack_begin(struct unpack *unpack, int root, const struct oci_limits *limits);

/* Removes what the whiteouts of @layer hide.  Not needed for the lowest layer. */
int unpack_whiteouts(struct unpack *unpack, struct layer *layer, struct err *err);

/* Adds the files of @layer.  Both: 0, -EBADMSG, -EFBIG, -ENOSPC or another -errno. */
int unpack_files(struct unpack *unpack, struct layer *layer, struct err *err);

/* Sets the folders' times, when @ok, and frees memory. */
void unpack_end(struct unpack *unpack, bool ok);

#endif /* OCI_UNPACK_H */
