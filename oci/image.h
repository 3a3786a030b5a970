/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Images as they are here: what a machine's root file system is made of and how its main
 * program is started.  Told apart by content:
 *
 *   folder with oci-layout     OCI image layout (OCI image specification 1.1)
 *   any other folder           a root file system as it is, without configuration
 *   tar with oci-layout        OCI image layout in a tar, also from recent "docker save"
 *   tar with manifest.json     docker-archive, as "docker save" wrote before
 *
 * or given by its digest in the store.
 *
 * Tars may be compressed; layers are tar, gzip or zstd.  An image comes from
 * anywhere, so everything in it is checked: digests of all blobs, names, sizes
 * and counts.
 *
 * Threads: an image belongs to one thread at a time.
 */
#ifndef OCI_IMAGE_H
#define OCI_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct oci_image;
struct store;

/* What the image says about its program.  Lists end with NULL and are never NULL. */
struct oci_config {
	char **entrypoint, **cmd;
	char **env;	/* "NAME=value" */
	char **exposed_ports;	/* "80/tcp" */
	char **volumes;	/* absolute paths */
	char **labels;	/* "key=value" */
	char *user;	/* "name|uid[:group|gid]"; strings are "" when not given */
	char *working_dir;
	char *stop_signal;	/* as os/signame.h has them */
	char **health_test;	/* "NONE" | "CMD", words... | "CMD-SHELL", text; empty: nothing said */
	int64_t health_interval_ns, health_timeout_ns, health_start_ns;	/* 0: not said */
	uint32_t health_retries;	/* 0: not said */
};

/* What an image may cost at most.  See oci_limits_default. */
struct oci_limits {
	uint64_t bytes;	/* of all files, and of each layer's tar */
	uint64_t entries;	/* files, folders and links in all layers */
	const volatile int *cancel;	/* NULL, or reading layers ends soon after this gets nonzero */
};

extern const struct oci_limits oci_limits_default;

/*
 * Opens the image at @path.  A layout or archive with several images needs
 * "@path:name" or "@path:tag" to say which.  Reads and checks all but the layers.
 *
 * Returns 0 and passes ownership in @ret_image, -ENOENT when there is none,
 * -ENOEXEC when it is for another processor or system, -EBADMSG when it is
 * damaged, -ENOTSUP for features roux does not have, or another negative errno.
 */
int oci_image_open(const char *path, struct oci_image **ret_image, struct err *err);

/*
 * Whether oci_image_open() would find something at @path, however damaged: else it
 * may be the name of an image in the store.
 */
bool oci_image_is_path(const char *path);

/*
 * Opens the image that @digest in @store leads to: a manifest, or an index with one
 * for guests here.  The caller has it leased, and keeps the store open, until
 * oci_image_close().  @name is for messages.  As oci_image_open().
 */
int oci_image_open_stored(struct store *store, const char *digest, const char *name,
			  struct oci_image **ret_image, struct err *err);
void oci_image_close(struct oci_image *image);	/* NULL is fine */

/* Borrowed, valid until oci_image_close(). */
const struct oci_config *oci_image_config(const struct oci_image *image);

/*
 * Number of the signal that asks the image's program to stop: SIGTERM when the
 * image does not say, -EINVAL when it names none that exists.
 */
int oci_stop_signal(const struct oci_config *config);

/* Digest that identifies the image, "sha256:..."; "" for a plain folder.  Borrowed. */
const char *oci_image_digest(const struct oci_image *image);

/* Absolute path of a plain folder; NULL: the image has layers, see oci_image_disk().  Borrowed. */
const char *oci_image_folder(const struct oci_image *image);

/*
 * The image's files as a disk with an EROFS file system: paths of files that,
 * one after the other, are the disk (oci/disk.h), made in the cache when they
 * are not there yet.  Owners, modes, devices and attributes are in the file
 * system, whoever makes it.
 *
 * Files are complete or absent at any time; safe against other processes.
 * @limits NULL: oci_limits_default.  Returns 0 and @ret_count paths (borrowed,
 * until close), -EINVAL for a plain folder, which is no disk, -EBADMSG for damaged
 * or hostile layers, -EFBIG beyond the limits, -ENOSPC, -EINTR after
 * limits->cancel, or another negative errno.
 */
int oci_image_disk(struct oci_image *image, const struct oci_limits *limits, char *const **ret_paths,
		   size_t *ret_count, struct err *err);

#endif /* OCI_IMAGE_H */
