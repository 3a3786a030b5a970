/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fuzz/erofs_check.h"

#include "erofs/format.h"
#include "erofs/read.h"
#include "erofs/write.h"
#include "tests/fuzz/check.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- one tree ---- */

static int check_entry(void *ctx, struct erofs_entry *entry);

static void check_dir(const struct erofs_node *dir)
{
	struct erofs_node *const counted = (struct erofs_node *)(uintptr_t)dir;

	counted->data_block = counted->dir_size = 0;	/* the writer's, free for the counts here */
	(void)erofs_for_each(dir, check_entry, counted);
	want(dir->data_block == dir->count && dir->dir_size == dir->subdirs);
}

static int check_entry(void *ctx, struct erofs_entry *entry)
{
	struct erofs_node *dir = ctx, *node = entry->node;

	want(erofs_find(dir, entry->name, entry->name_len) == entry);
	want(entry->name_len && entry->name_len <= EROFS_NAME_MAX && !memchr(entry->name, '/', entry->name_len));
	dir->data_block++;
	if (S_ISDIR(node->mode)) {
		dir->dir_size++;
		want(node->nlink == 1 && node->parent == dir && node->depth == dir->depth + 1);
		check_dir(node);
	}
	want(!S_ISLNK(node->mode) || (node->target && node->size == strlen(node->target)));
	return 0;
}

/* Every file is named as often as it says: its names counted down, and restored. */
static int count_names(void *ctx, struct erofs_entry *entry)
{
	bool down = *(const bool *)ctx;
	struct erofs_node *node = entry->node;

	if (S_ISDIR(node->mode))
		return erofs_for_each(node, count_names, ctx);
	if (down) {
		want(node->dir_size < node->nlink);
		node->dir_size++;
	} else {
		want(node->dir_size == node->nlink);
	}
	return 0;
}

static int reset_names(void *ctx, struct erofs_entry *entry)
{
	if (S_ISDIR(entry->node->mode))
		return erofs_for_each(entry->node, reset_names, ctx);
	entry->node->dir_size = 0;
	return 0;
}

void erofs_check_tree(const struct erofs_tree *tree)
{
	bool down = true;

	want(tree->root->parent == tree->root && !tree->removed);
	check_dir(tree->root);
	(void)erofs_for_each(tree->root, reset_names, NULL);
	(void)erofs_for_each(tree->root, count_names, &down);
	down = false;
	(void)erofs_for_each(tree->root, count_names, &down);
}

/* ---- two trees ---- */

static int compare_entry(void *ctx, struct erofs_entry *entry)
{
	const struct erofs_entry *other = erofs_find(ctx, entry->name, entry->name_len);

	want(other);
	erofs_check_same(entry->node, other->node);
	return 0;
}

void erofs_check_same(const struct erofs_node *a, const struct erofs_node *b)
{
	const struct erofs_xattr *x = a->xattrs, *y = b->xattrs;

	want(a->mode == b->mode && a->uid == b->uid && a->gid == b->gid && a->rdev == b->rdev);
	want(a->mtime == b->mtime && a->mtime_ns == b->mtime_ns && a->nlink == b->nlink && a->size == b->size);
	want(!a->target == !b->target && (!a->target || strcmp(a->target, b->target) == 0));
	for (; x && y; x = x->next, y = y->next)
		want(x->index == y->index && x->name_len == y->name_len && x->value_len == y->value_len &&
		      memcmp(x->bytes, y->bytes, (size_t)x->name_len + x->value_len) == 0);
	want(!x && !y);
	want(a->count == b->count && a->subdirs == b->subdirs);
	(void)erofs_for_each(a, compare_entry, (void *)(uintptr_t)b);
}

/* ---- written and read ---- */

/* Sizes that no disk of the test has become what one has. */
static int shrink(void *ctx, struct erofs_entry *entry)
{
	struct erofs_node *node = entry->node;

	if (S_ISDIR(node->mode))
		return erofs_for_each(node, shrink, ctx);
	if (S_ISREG(node->mode)) {
		node->size = node->device ? node->size % EROFS_BLOCK : 0;
		node->block = 0;
	}
	return 0;
}

void erofs_check_writable(struct erofs_tree *tree, const uint32_t *part_blocks, unsigned nparts)
{
	static const struct erofs_limits limits = { .entries = 1 << 16, .bytes = 1 << 26 };
	int fd = memfd_create("image", MFD_CLOEXEC);
	const struct erofs_write_options opt = { .fd = fd, .meta_block = 1, .part_blocks = part_blocks, .nparts = nparts };
	struct erofs_tree again;
	uint64_t blocks;
	void *bytes;
	int r;

	want(fd >= 0);
	(void)erofs_for_each(tree->root, shrink, NULL);
	r = erofs_write(tree, &opt, &blocks, NULL);
	want(r == 0 || r == -EFBIG);
	if (r == 0) {
		want(ftruncate(fd, (off_t)(blocks * EROFS_BLOCK)) == 0);
		bytes = mmap(NULL, blocks * EROFS_BLOCK, PROT_READ, MAP_SHARED, fd, 0);
		want(bytes != MAP_FAILED);
		want(erofs_read(bytes, blocks * EROFS_BLOCK, 0, &limits, &again, NULL) == 0);
		want(munmap(bytes, blocks * EROFS_BLOCK) == 0);
		erofs_check_tree(&again);
		erofs_check_same(tree->root, again.root);
		erofs_tree_finish(&again);
	}
	close(fd);
}
