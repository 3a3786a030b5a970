/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tree of files in memory, without their data: what an EROFS image is written
 * from and read into.  Names, sizes and attributes may come from anywhere; what
 * the tree may cost is bounded by struct erofs_limits.
 *
 * A folder has one name; other files have as many as there are entries of them.
 *
 * Threads: a tree belongs to one thread at a time.
 */
#ifndef EROFS_TREE_H
#define EROFS_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;

#define EROFS_DEPTH_MAX 2048u	/* folders in folders: functions recurse over them */

struct erofs_limits {
	uint64_t entries;	/* names in the tree */
	uint64_t bytes;	/* of memory */
};

/* An attribute.  @name is what follows the prefix that @index stands for; both share an allocation. */
struct erofs_xattr {
	struct erofs_xattr *next;
	uint8_t index, name_len;
	uint16_t value_len;
	uint32_t shared_id;	/* the writer's; 0: kept with the inode */
	uint8_t bytes[];	/* name, then value */
};

/* An inode. */
struct erofs_node {
	uint32_t mode;	/* type and permissions, as st_mode */
	uint32_t uid, gid;
	uint32_t rdev;	/* of devices; erofs_rdev() */
	uint32_t mtime_ns;
	int64_t mtime;	/* seconds */
	uint64_t size;	/* bytes of a file's data or of a link's target */
	uint32_t nlink;	/* entries that name it; 0: in no tree */
	uint32_t device;	/* of a file's data: number of the part of the disk... */
	uint32_t block;	/* ... and first block in it */
	struct erofs_xattr *xattrs;	/* owned, in order of index and name */
	char *target;	/* owned; of symbolic links, NUL-terminated */

	/* Folders only. */
	struct erofs_node *parent;	/* itself for the root */
	struct erofs_node *next_removed;
	void *entries;	/* tsearch() tree of struct erofs_entry by name, owned */
	uint32_t count, subdirs;
	uint32_t depth;	/* 0 for the root */

	/* The writer's. */
	uint64_t nid;
	uint32_t data_block, dir_size, xattr_size;
	uint8_t layout;
	bool placed;
};

struct erofs_entry {
	struct erofs_node *node;
	const char *name;	/* 1 to EROFS_NAME_MAX bytes, without '/', not "." or ".." */
	size_t name_len;
};

struct erofs_tree {
	struct erofs_node *root;
	struct erofs_limits left;
	uint64_t entries;	/* in it */
	struct erofs_node *removed;	/* folders, owned; see erofs_sweep() */
};

/* An empty folder of root's, mode 0755.  0, -ENOMEM or -EFBIG. */
int erofs_tree_init(struct erofs_tree *tree, const struct erofs_limits *limits, struct err *err);
void erofs_tree_finish(struct erofs_tree *tree);	/* a zeroed one is fine */

/* Entry @name (@len bytes) of @dir, or NULL.  Borrowed until it is removed. */
struct erofs_entry *erofs_find(const struct erofs_node *dir, const char *name, size_t len);

/*
 * A new file of type and permissions @mode, named by nothing yet: pass it to
 * erofs_link() or erofs_node_free().  0, -ENOMEM, or -EFBIG above the limits.
 */
int erofs_node_new(struct erofs_tree *tree, uint32_t mode, struct erofs_node **ret_node, struct err *err);
void erofs_node_free(struct erofs_node *node);	/* NULL is fine */

/*
 * Sets the target (@len bytes, copied) of a symbolic link.  0, -EINVAL when it is
 * empty or longer than Linux allows, -EFBIG above the limits, -ENOMEM.
 */
int erofs_set_target(struct erofs_tree *tree, struct erofs_node *node, const char *target, size_t len,
		     struct err *err);

/*
 * Gives @node, which may have names already unless it is a folder, the name
 * @name in @dir, where it must not exist.  Returns 0, -EEXIST, -EINVAL for a
 * name that is none, -ENAMETOOLONG for one too long or too deep, -EFBIG above
 * the limits, -EMLINK or -ENOMEM.
 */
int erofs_link(struct erofs_tree *tree, struct erofs_node *dir, const char *name, size_t len,
	       struct erofs_node *node, struct err *err);

/*
 * Removes @entry of @dir with all that is below it.  Folders stay allocated, with
 * no entries, until erofs_sweep(): somebody may be at work in them.
 */
void erofs_remove(struct erofs_tree *tree, struct erofs_node *dir, struct erofs_entry *entry);
/* Removes all entries of @dir. */
void erofs_clear(struct erofs_tree *tree, struct erofs_node *dir);
/* Frees removed folders, and what was put into them since. */
void erofs_sweep(struct erofs_tree *tree);

/*
 * Calls @fn for every entry of @dir in order of names, until it returns nonzero,
 * which is returned.  @fn may remove nothing and add nothing to @dir.
 */
typedef int (*erofs_entry_fn)(void *ctx, struct erofs_entry *entry);
int erofs_for_each(const struct erofs_node *dir, erofs_entry_fn fn, void *ctx);

/*
 * Sets attribute @name, e.g. "user.note".  Returns 0, -ENOTSUP for a name that
 * EROFS has no prefix for, -ERANGE for one too long, -EFBIG above the limits,
 * -ENOMEM.
 */
int erofs_set_xattr(struct erofs_tree *tree, struct erofs_node *node, const char *name, const void *value,
		    size_t len, struct err *err);
/* NULL when @node has no such attribute. */
const struct erofs_xattr *erofs_get_xattr(const struct erofs_node *node, const char *name);
static inline const void *erofs_xattr_value(const struct erofs_xattr *x)
{
	return x->bytes + x->name_len;
}
void erofs_drop_xattr(struct erofs_node *node, const char *name);
void erofs_drop_xattrs(struct erofs_node *node);	/* all */

/* Prefix of attribute names that @index stands for, "user." and the like; NULL: none. */
const char *erofs_xattr_prefix(unsigned index);

/* Number of a device as inodes have it; false when it cannot be expressed. */
bool erofs_rdev(uint64_t major, uint64_t minor, uint32_t *ret_rdev);

#endif /* EROFS_TREE_H */
