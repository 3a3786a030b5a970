/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ownership for shares served by an ordinary user ("squash").
 *
 * Our user and group appear as root in the guest, everybody else as themselves.
 * What the guest sets beyond that is kept in the extended attribute
 * OWNER_XATTR of regular files and folders, as text without a NUL:
 *
 *   UID:GID:MODE:MAJOR:MINOR     decimal, MODE octal with the file type
 *
 * so device nodes, FIFOs and sockets are empty regular files with that
 * attribute.  The real mode keeps the owner's own access.  Symbolic links cannot
 * carry it and always belong to the guest's root.
 */
#ifndef VIRTIO_FS_OWNER_H
#define VIRTIO_FS_OWNER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#define OWNER_XATTR "user.roux.stat"
#define OWNER_XATTR_PREFIX "user.roux."	/* hidden from the guest */

/* What the guest sees of an object. */
struct owner {
	uint32_t uid, gid;
	uint32_t mode;	/* type and permissions */
	uint32_t rdev_major, rdev_minor;
};

/* The view without an attribute. */
struct owner owner_default(const struct statx *stx);

/* Reads the attribute of @fd over @owner.  Absent or malformed: unchanged. */
void owner_load(int fd, struct owner *owner);

/* Writes the attribute and gives the object the nearest real mode.  0 or -errno. */
int owner_store(int fd, const struct owner *owner);

/* Parses the attribute's text; true when well-formed, else @ret_owner is untouched. */
bool owner_parse(const char *text, size_t len, struct owner *ret_owner);

#endif /* VIRTIO_FS_OWNER_H */
