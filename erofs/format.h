/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The part of the EROFS on-disk format that roux writes and reads: Linux 6.1,
 * Documentation/filesystems/erofs.rst and the structures of fs/erofs/erofs_fs.h;
 * all integers little-endian, blocks of 4096 bytes.
 *
 *   0     1024 zero bytes, then the superblock
 *   ...   file data, from block boundaries
 *   ...   metadata from superblock.meta_block: inodes in slots of 32 bytes; an
 *         inode's number (nid) is its slot.  After the inode come its extended
 *         attributes and, in layout INLINE, the data after its last whole block.
 *
 * Inodes are of the extended kind throughout: the compact one has no time.
 */
#ifndef EROFS_FORMAT_H
#define EROFS_FORMAT_H

#include <stdint.h>

#define EROFS_MAGIC 0xe0f5e1e2u
#define EROFS_SUPER_OFF 1024u	/* bytes */
#define EROFS_BLOCK_BITS 12u
#define EROFS_BLOCK 4096u	/* bytes */
#define EROFS_SLOT 32u	/* bytes */
#define EROFS_NAME_MAX 255u	/* bytes of a file's name */

struct erofs_super {
	uint32_t magic, checksum, feature_compat;
	uint8_t block_bits, ext_slots;
	uint16_t root_nid;
	uint64_t inodes;
	uint64_t build_time;	/* seconds */
	uint32_t build_time_ns;
	uint32_t blocks;	/* of the whole disk */
	uint32_t meta_block, xattr_block;
	uint8_t uuid[16], label[16];
	uint32_t feature_incompat;
	uint16_t compression;
	uint16_t extra_devices, device_slot;
	uint8_t dir_block_bits, reserved[37];
};
_Static_assert(sizeof(struct erofs_super) == 128, "on-disk layout");

enum { EROFS_LAYOUT_PLAIN = 0, EROFS_LAYOUT_INLINE = 2 };
#define EROFS_FORMAT(layout) (1u | (layout) << 1)	/* of an extended inode */

struct erofs_inode {
	uint16_t format;	/* EROFS_FORMAT() */
	uint16_t xattr_count;	/* 0: none; else 12 + 4 * (count - 1) bytes follow */
	uint16_t mode, reserved;
	uint64_t size;	/* bytes */
	uint32_t block;	/* first block of the data; of devices the number, see erofs_rdev() */
	uint32_t ino;	/* for 32-bit stat() */
	uint32_t uid, gid;
	uint64_t mtime;	/* seconds, two's complement */
	uint32_t mtime_ns;
	uint32_t nlink;
	uint8_t reserved2[16];
};
_Static_assert(sizeof(struct erofs_inode) == 64, "on-disk layout");

/* Before an inode's attributes.  @shared ids of 4 bytes follow, then entries. */
struct erofs_xattr_header {
	uint32_t filter;
	uint8_t shared, reserved[7];
};
_Static_assert(sizeof(struct erofs_xattr_header) == 12, "on-disk layout");

/* Name and value follow, then bytes up to a multiple of 4. */
struct erofs_xattr_entry {
	uint8_t name_len, index;	/* index: enum erofs_xattr_index, replaces a prefix */
	uint16_t value_len;
};
_Static_assert(sizeof(struct erofs_xattr_entry) == 4, "on-disk layout");

enum erofs_xattr_index {
	EROFS_XATTR_USER = 1, EROFS_XATTR_ACL_ACCESS = 2, EROFS_XATTR_ACL_DEFAULT = 3,
	EROFS_XATTR_TRUSTED = 4, EROFS_XATTR_SECURITY = 6,
};

/*
 * A block of a folder: entries, then their names.  The first name's offset tells
 * the number of entries; the last name ends with the data or at a NUL.  Names
 * are in order of their bytes, "." and ".." among them.
 */
struct __attribute__((packed)) erofs_dirent {
	uint64_t nid;
	uint16_t name_off;	/* bytes, in the block */
	uint8_t type;	/* enum erofs_type */
	uint8_t reserved;
};
_Static_assert(sizeof(struct erofs_dirent) == 12, "on-disk layout");

enum erofs_type {
	EROFS_FT_FILE = 1, EROFS_FT_DIR, EROFS_FT_CHAR, EROFS_FT_BLOCK, EROFS_FT_FIFO, EROFS_FT_SOCKET,
	EROFS_FT_SYMLINK,
};

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the structures are copied as they are"
#endif

#endif /* EROFS_FORMAT_H */
