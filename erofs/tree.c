/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Entries are kept in tsearch() trees: balanced whatever the names, so that no
 * layer can choose names that make them slow, and walked in the order in which
 * they are written.
 */
#include "erofs/tree.h"

#include "erofs/format.h"
#include "os/err.h"

#include <errno.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define ENTRY_COST 64u	/* bytes of an entry's memory beside its name: itself and its place in the tree */

static int out_of_memory(struct err *err)
{
	return err_set(err, -ENOMEM, "out of memory for the names of an image's files");
}

static int pay(struct erofs_tree *tree, uint64_t bytes, struct err *err)
{
	if (bytes > tree->left.bytes)
		return err_set(err, -EFBIG, "the names and attributes in the image take more memory than the limit");
	tree->left.bytes -= bytes;
	return 0;
}

/* ---- nodes ---- */

int erofs_node_new(struct erofs_tree *tree, uint32_t mode, struct erofs_node **ret_node, struct err *err)
{
	int r = pay(tree, sizeof(**ret_node), err);
	struct erofs_node *node = r < 0 ? NULL : calloc(1, sizeof(*node));

	if (!node)
		return r < 0 ? r : out_of_memory(err);
	node->mode = mode;
	*ret_node = node;
	return 0;
}

void erofs_node_free(struct erofs_node *node)
{
	if (!node)
		return;
	erofs_drop_xattrs(node);
	free(node->target);
	free(node);
}

int erofs_set_target(struct erofs_tree *tree, struct erofs_node *node, const char *target, size_t len,
		     struct err *err)
{
	int r;

	if (len == 0 || len >= EROFS_BLOCK || memchr(target, '\0', len))
		return err_set(err, -EINVAL, "the image has a symbolic link that is empty or too long");
	r = pay(tree, len + 1, err);
	if (r < 0)
		return r;
	free(node->target);
	node->target = strndup(target, len);
	node->size = len;
	return node->target ? 0 : out_of_memory(err);
}

bool erofs_rdev(uint64_t major, uint64_t minor, uint32_t *ret_rdev)
{
	if (major > 0xfff || minor > 0xfffff)
		return false;
	*ret_rdev = (uint32_t)((minor & 0xff) | major << 8 | (minor & ~0xffull) << 12);
	return true;
}

/* ---- entries ---- */

static int compare_names(const void *a, const void *b)
{
	const struct erofs_entry *x = a, *y = b;
	int d = memcmp(x->name, y->name, x->name_len < y->name_len ? x->name_len : y->name_len);

	return d ? d : x->name_len < y->name_len ? -1 : x->name_len > y->name_len;
}

struct erofs_entry *erofs_find(const struct erofs_node *dir, const char *name, size_t len)
{
	const struct erofs_entry key = { .name = name, .name_len = len };
	struct erofs_entry **found = tfind(&key, &dir->entries, compare_names);

	return found ? *found : NULL;
}

static int check_link(const struct erofs_node *dir, const char *name, size_t len, const struct erofs_node *node,
		      struct err *err)
{
	if (len > EROFS_NAME_MAX)
		return err_set(err, -ENAMETOOLONG, "the image has a file name with more than %u bytes: %.60s...",
			       EROFS_NAME_MAX, name);
	if (len == 0 || memchr(name, '/', len) || memchr(name, '\0', len) || (len == 1 && name[0] == '.') ||
	    (len == 2 && memcmp(name, "..", 2) == 0))
		return err_set(err, -EINVAL, "the image has a malformed file name");
	if (S_ISDIR(node->mode) && dir->depth + 1 > EROFS_DEPTH_MAX)
		return err_set(err, -ENAMETOOLONG, "the image has more than %u folders in each other", EROFS_DEPTH_MAX);
	if (node->nlink == UINT32_MAX || (S_ISDIR(node->mode) && node->nlink))
		return err_set(err, -EMLINK, "the image has too many links to one file");
	return 0;
}

int erofs_link(struct erofs_tree *tree, struct erofs_node *dir, const char *name, size_t len,
	       struct erofs_node *node, struct err *err)
{
	struct erofs_entry *entry, **at;
	int r = check_link(dir, name, len, node, err);

	if (r < 0)
		return r;
	if (tree->left.entries == 0)
		return err_set(err, -EFBIG, "the image has more files than the limit");
	r = pay(tree, ENTRY_COST + len, err);
	if (r < 0)
		return r;
	entry = malloc(sizeof(*entry) + len);
	if (!entry)
		return out_of_memory(err);
	*entry = (struct erofs_entry){ .node = node, .name = memcpy(entry + 1, name, len), .name_len = len };
	at = tsearch(entry, &dir->entries, compare_names);
	if (!at || *at != entry) {
		free(entry);
		return at ? err_set(err, -EEXIST, "the image has two files of one name") : out_of_memory(err);
	}
	node->nlink++;
	if (S_ISDIR(node->mode)) {
		node->parent = dir;
		node->depth = dir->depth + 1;
		dir->subdirs++;
	}
	dir->count++;
	tree->entries++;
	tree->left.entries--;
	return 0;
}

/* Memory stays paid for: whoever replaces files without end pays without end. */
void erofs_remove(struct erofs_tree *tree, struct erofs_node *dir, struct erofs_entry *entry)
{
	struct erofs_node *node = entry->node;

	(void)tdelete(entry, &dir->entries, compare_names);
	free(entry);
	dir->count--;
	tree->entries--;
	tree->left.entries++;
	node->nlink--;
	if (S_ISDIR(node->mode)) {
		dir->subdirs--;
		erofs_clear(tree, node);
		node->next_removed = tree->removed;
		tree->removed = node;
	} else if (node->nlink == 0) {
		erofs_node_free(node);
	}
}

void erofs_clear(struct erofs_tree *tree, struct erofs_node *dir)
{
	/* The root of a search tree is the one entry that is found without looking. */
	while (dir->entries)
		erofs_remove(tree, dir, *(struct erofs_entry **)dir->entries);
}

void erofs_sweep(struct erofs_tree *tree)
{
	while (tree->removed) {
		struct erofs_node *dir = tree->removed;

		tree->removed = dir->next_removed;
		erofs_clear(tree, dir);
		erofs_node_free(dir);
	}
}

struct each {
	erofs_entry_fn fn;
	void *ctx;
	int result;
};

static void each_entry(const void *at, VISIT visit, void *closure)
{
	struct each *each = closure;

	if ((visit == postorder || visit == leaf) && each->result == 0)
		each->result = each->fn(each->ctx, *(struct erofs_entry *const *)at);
}

int erofs_for_each(const struct erofs_node *dir, erofs_entry_fn fn, void *ctx)
{
	struct each each = { .fn = fn, .ctx = ctx };

	twalk_r(dir->entries, each_entry, &each);
	return each.result;
}

/* ---- attributes ---- */

static const char *const prefixes[] = {
	[EROFS_XATTR_USER] = "user.",
	[EROFS_XATTR_ACL_ACCESS] = "system.posix_acl_access",
	[EROFS_XATTR_ACL_DEFAULT] = "system.posix_acl_default",
	[EROFS_XATTR_TRUSTED] = "trusted.",
	[EROFS_XATTR_SECURITY] = "security.",
};

const char *erofs_xattr_prefix(unsigned index)
{
	return index < sizeof(prefixes) / sizeof(prefixes[0]) ? prefixes[index] : NULL;
}

/* The index for @name, and what follows the prefix; 0: there is none. */
static uint8_t split_name(const char *name, const char **ret_rest)
{
	for (uint8_t i = 1; i < sizeof(prefixes) / sizeof(prefixes[0]); i++) {
		size_t len = prefixes[i] ? strlen(prefixes[i]) : 0;

		/* A prefix with a dot needs a name behind it; one without is the whole name. */
		if (len && strncmp(name, prefixes[i], len) == 0 &&
		    (prefixes[i][len - 1] == '.') == (name[len] != '\0')) {
			*ret_rest = name + len;
			return i;
		}
	}
	return 0;
}

/* Where the attribute is, or would be. */
static struct erofs_xattr **find_xattr(struct erofs_node *node, uint8_t index, const char *name, size_t len,
				       bool *ret_found)
{
	struct erofs_xattr **at = &node->xattrs;

	for (*ret_found = false; *at; at = &(*at)->next) {
		const struct erofs_xattr *x = *at;
		int d = x->index - index;

		if (!d)
			d = memcmp(x->bytes, name, x->name_len < len ? x->name_len : len);
		if (!d)
			d = x->name_len - (int)len;
		if (d >= 0) {
			*ret_found = d == 0;
			break;
		}
	}
	return at;
}

int erofs_set_xattr(struct erofs_tree *tree, struct erofs_node *node, const char *name, const void *value,
		    size_t len, struct err *err)
{
	struct erofs_xattr *x, **at;
	const char *rest;
	uint8_t index = split_name(name, &rest);
	size_t name_len;
	bool found;
	int r;

	if (!index)
		return err_set(err, -ENOTSUP, "attribute %.60s cannot be kept", name);
	name_len = strlen(rest);
	if (name_len > UINT8_MAX || len > UINT16_MAX)
		return err_set(err, -ERANGE, "attribute %.60s is too large", name);
	r = pay(tree, sizeof(*x) + name_len + len, err);
	if (r < 0)
		return r;
	x = malloc(sizeof(*x) + name_len + len);
	if (!x)
		return out_of_memory(err);
	at = find_xattr(node, index, rest, name_len, &found);
	*x = (struct erofs_xattr){ .next = *at, .index = index, .name_len = (uint8_t)name_len,
				   .value_len = (uint16_t)len };
	memcpy(x->bytes, rest, name_len);
	if (len)
		memcpy(x->bytes + name_len, value, len);
	if (found) {
		x->next = (*at)->next;
		free(*at);
	}
	*at = x;
	return 0;
}

static struct erofs_xattr **find_named(struct erofs_node *node, const char *name)
{
	const char *rest;
	uint8_t index = split_name(name, &rest);
	struct erofs_xattr **at;
	bool found;

	if (!index)
		return NULL;
	at = find_xattr(node, index, rest, strlen(rest), &found);
	return found ? at : NULL;
}

const struct erofs_xattr *erofs_get_xattr(const struct erofs_node *node, const char *name)
{
	/* Nothing is changed: the writable pointer is for erofs_drop_xattr(). */
	struct erofs_xattr **at = find_named((struct erofs_node *)(uintptr_t)node, name);

	return at ? *at : NULL;
}

void erofs_drop_xattr(struct erofs_node *node, const char *name)
{
	struct erofs_xattr **at = find_named(node, name), *x;

	if (at) {
		x = *at;
		*at = x->next;
		free(x);
	}
}

void erofs_drop_xattrs(struct erofs_node *node)
{
	while (node->xattrs) {
		struct erofs_xattr *x = node->xattrs;

		node->xattrs = x->next;
		free(x);
	}
}

/* ---- trees ---- */

int erofs_tree_init(struct erofs_tree *tree, const struct erofs_limits *limits, struct err *err)
{
	int r;

	*tree = (struct erofs_tree){ .left = *limits };
	r = erofs_node_new(tree, S_IFDIR | 0755, &tree->root, err);
	if (r < 0)
		return r;
	tree->root->parent = tree->root;
	tree->root->nlink = 1;
	return 0;
}

void erofs_tree_finish(struct erofs_tree *tree)
{
	if (!tree->root)
		return;
	erofs_clear(tree, tree->root);
	erofs_sweep(tree);
	erofs_node_free(tree->root);
	tree->root = NULL;
}
