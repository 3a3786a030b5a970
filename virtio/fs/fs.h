/* SPDX-License-Identifier: Apache-2.0 */
/*
 * File system device (VIRTIO 1.2, 5.11): shares a host folder with the guest.
 * The FUSE server (protocol 7.38, linux/fuse.h) runs in this process.
 *
 *   hiprio queue  (forget)  --.
 *   request queue (the rest) --+--> loop thread: most requests, at once
 *                                      '--> pool: those that would wait for a
 *                                           disk (uncached read, fsync, copy)
 *
 * Data moves between guest buffers and files by preadv/pwritev, without a copy.
 *
 * Containment: the guest names objects by (node, one name component).  A name
 * with '/' and the names "." and ".." are refused, links are opened without
 * following, so nothing outside the shared folder has a name.  What a symbolic
 * link means is the guest's business: it gets the text.
 *
 * Cache policies, by who may change the folder while the guest uses it:
 *
 *   policy   attributes and names kept   file data kept
 *   always   a day; absent names too     always; opens are not even sent
 *   auto     1 s                         when unchanged since the last open
 *   none     not at all                  not at all
 *
 * Ownership: with OWNER_HOST files carry the guest's user and group ids, which
 * takes root.  With OWNER_SQUASH every file belongs to our user, who appears as
 * the guest's root; what that loses (owners, modes, device nodes) is kept in
 * the extended attribute described in virtio/fs/owner.h.
 *
 * POSIX locks become open-file-description locks and flock() locks stay what
 * they are, so guest and host exclude each other.  A lock that must be waited
 * for holds up nobody: the request is set aside and tried again.
 */
#ifndef VIRTIO_FS_FS_H
#define VIRTIO_FS_FS_H

#include "virtio/device.h"

enum virtio_fs_cache { VIRTIO_FS_CACHE_AUTO, VIRTIO_FS_CACHE_NONE, VIRTIO_FS_CACHE_ALWAYS };
enum virtio_fs_owner {
	VIRTIO_FS_OWNER_AUTO,	/* host when we are root, else squash */
	VIRTIO_FS_OWNER_HOST,
	VIRTIO_FS_OWNER_SQUASH,
};

struct virtio_fs_options {
	const char *tag;	/* 1 to 36 bytes; what the guest mounts */
	const char *path;	/* the folder shared */
	bool read_only;	/* every change ends in EROFS */
	enum virtio_fs_cache cache;	/* ALWAYS only makes sense for folders nobody changes */
	enum virtio_fs_owner owner;
	bool writeback;	/* let the guest delay writes; nobody else may write then */
	bool no_xattr;	/* no extended attributes for the guest */
	/*
	 * Detach the folder from the mounts around it (os/jail.h), so that not even a
	 * server taken over by its guest finds a way out.  Takes rights over mounts.
	 */
	bool detach;
	unsigned workers;	/* threads for requests that wait; 0: the default */
	unsigned fd_budget;	/* descriptors for idle nodes, and for open files; 0: the default */
};

/*
 * Shares a folder.  @opt is borrowed during the call.  Reads /proc, so it must
 * run before the process jails itself and in the process that serves.
 *
 * Returns 0 with ownership in @ret_dev, -EINVAL for bad options, -ENOTDIR and
 * the like for the path.
 */
int virtio_fs_create(struct loop *loop, const struct virtio_fs_options *opt,
		     struct virtio_device **ret_dev, struct err *err);

/*
 * Calls @fn for what the guest has read of a share that it cannot write to, file by file: its path below the folder, and
 * bytes [@from, @from + @len) or a little more.  Under a lock: @fn calls nothing of the device.  Any thread.
 */
typedef void (*virtio_fs_read_fn)(void *ctx, const char *path, uint64_t from, uint64_t len);
void virtio_fs_reads(struct virtio_device *dev, virtio_fs_read_fn fn, void *ctx);
/* About how many bytes that is. */
uint64_t virtio_fs_bytes_read(struct virtio_device *dev);
/* It has read nothing from here on: what it has read, a template has too. */
void virtio_fs_forget_reads(struct virtio_device *dev);

/* After a restore that returned 2: a file that the guest has open and that is gone or another, below the folder; "": unknown. */
const char *virtio_fs_lost(struct virtio_device *dev);

#endif /* VIRTIO_FS_FS_H */
