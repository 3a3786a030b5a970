/* SPDX-License-Identifier: Apache-2.0 */
#include "virtio/fs/owner.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#define TEXT_MAX 64	/* bytes; five numbers of at most 11 digits */

struct owner owner_default(const struct statx *stx)
{
	return (struct owner){
		.uid = stx->stx_uid == geteuid() ? 0 : stx->stx_uid,
		.gid = stx->stx_gid == getegid() ? 0 : stx->stx_gid,
		.mode = stx->stx_mode,
		.rdev_major = stx->stx_rdev_major,
		.rdev_minor = stx->stx_rdev_minor,
	};
}

bool owner_parse(const char *text, size_t len, struct owner *ret_owner)
{
	char copy[TEXT_MAX];
	struct owner o;
	int end = 0;

	if (len >= sizeof(copy))
		return false;
	memcpy(copy, text, len);
	copy[len] = '\0';
	if (sscanf(copy, "%10" SCNu32 ":%10" SCNu32 ":%7" SCNo32 ":%10" SCNu32 ":%10" SCNu32 "%n", &o.uid,
		   &o.gid, &o.mode, &o.rdev_major, &o.rdev_minor, &end) != 5 || (size_t)end != len)
		return false;
	*ret_owner = o;
	return true;
}

/* A regular file may stand for a special one; a folder is always a folder. */
static bool type_is_possible(uint32_t real, uint32_t shown)
{
	switch (shown & S_IFMT) {
	case S_IFREG:
	case S_IFCHR:
	case S_IFBLK:
	case S_IFIFO:
	case S_IFSOCK:
		return S_ISREG(real);
	case S_IFDIR:
		return S_ISDIR(real);
	default:
		return false;
	}
}

void owner_load(int fd, struct owner *owner)
{
	char text[TEXT_MAX];
	ssize_t n = fgetxattr(fd, OWNER_XATTR, text, sizeof(text));
	struct owner o;

	if (n > 0 && owner_parse(text, (size_t)n, &o) && type_is_possible(owner->mode, o.mode))
		*owner = o;
}

int owner_store(int fd, const struct owner *owner)
{
	/* Set-id bits stay out of the real mode: they would name the wrong user. */
	mode_t real = S_ISDIR(owner->mode) ? (owner->mode & 0777) | 0700 : (owner->mode & 0777) | 0600;
	char text[TEXT_MAX];
	int n = snprintf(text, sizeof(text), "%" PRIu32 ":%" PRIu32 ":%" PRIo32 ":%" PRIu32 ":%" PRIu32,
			 owner->uid, owner->gid, owner->mode, owner->rdev_major, owner->rdev_minor);

	if (fsetxattr(fd, OWNER_XATTR, text, (size_t)n, 0) < 0)
		return -errno;
	return fchmod(fd, real) < 0 ? -errno : 0;
}
