/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Up to four layers of a few files with short names, three bytes for each: what
 * it is, in which folder of the layer, its name and what it names.
 */
#include "oci/merge.h"

#include "oci/layer_image.h"
#include "oci/tree_path.h"
#include "os/err.h"
#include "tests/fuzz/check.h"
#include "tests/fuzz/erofs_check.h"
#include "tests/fuzz/merge_check.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define DIRS_MAX 16
#define STEP 3u	/* bytes of an entry */

enum what { FILE_, DIR_, IMPLICIT, OPAQUE, WHITEOUT, SYMLINK, LINK_BELOW, LINK, NEXT_LAYER, WHATS };

static struct err err;	/* sentences are made, too */
static const struct erofs_limits limits = { .entries = 1000, .bytes = 1 << 20 };
static const char *const names[] = { "a", "b", "c", "d" };
static const char *const targets[] = { "a", "b", "/", "..", "a/b", "../c", "/d/a", "a/../b/c" };

struct maker {
	struct erofs_tree *layer;
	struct erofs_node *dir[DIRS_MAX];
	unsigned ndirs;
	struct erofs_node *last;	/* file with a name, or NULL */
};

static void mark(struct maker *m, struct erofs_node *node, const char *xattr, const char *value)
{
	want(erofs_set_xattr(m->layer, node, xattr, value, strlen(value), NULL) == 0);
}

static struct erofs_node *new_node(struct maker *m, enum what what, unsigned target)
{
	static const uint32_t modes[WHATS] = {
		[FILE_] = S_IFREG | 0644, [DIR_] = S_IFDIR | 0700, [IMPLICIT] = S_IFDIR | 0755, [OPAQUE] = S_IFDIR | 0711,
		[WHITEOUT] = S_IFCHR, [SYMLINK] = S_IFLNK | 0777, [LINK_BELOW] = S_IFREG,
	};
	struct erofs_node *node;

	want(erofs_node_new(m->layer, modes[what], &node, NULL) == 0);
	if (what == IMPLICIT)
		mark(m, node, TREE_IMPLICIT_XATTR, "");
	if (what == OPAQUE)
		mark(m, node, LAYER_OPAQUE_XATTR, "y");
	if (what == LINK_BELOW)
		mark(m, node, LAYER_LINK_XATTR, targets[target]);
	if (what == SYMLINK)
		want(erofs_set_target(m->layer, node, targets[target], strlen(targets[target]), NULL) == 0);
	return node;
}

static void add(struct maker *m, const uint8_t entry[STEP])
{
	enum what what = (enum what)(entry[0] % WHATS);
	struct erofs_node *dir = m->dir[entry[1] % m->ndirs], *node = m->last;
	const char *name = names[entry[2] % 4];

	if (what != LINK)
		node = new_node(m, what, entry[2] >> 4 & 7);
	if (!node)
		return;
	if (erofs_link(m->layer, dir, name, strlen(name), node, &err) < 0) {
		if (what != LINK)
			erofs_node_free(node);
		return;
	}
	if (S_ISDIR(node->mode) && m->ndirs < DIRS_MAX)
		m->dir[m->ndirs++] = node;
	if (what == FILE_ || what == SYMLINK)
		m->last = node;
}

/* Entries up to the layer's end; returns the bytes used. */
static size_t make_layer(struct erofs_tree *layer, const uint8_t *data, size_t len)
{
	struct maker m = { .layer = layer, .ndirs = 1 };
	size_t at = 0;

	want(erofs_tree_init(layer, &limits, NULL) == 0);
	m.dir[0] = layer->root;
	while (at + STEP <= len) {
		const uint8_t *entry = data + at;

		at += STEP;
		if (entry[0] % WHATS == NEXT_LAYER)
			return at;
		add(&m, entry);
	}
	return len;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct erofs_tree image, layer;
	int r = 0;

	want(erofs_tree_init(&image, &limits, NULL) == 0);
	for (unsigned i = 0; i < 4 && len && r == 0; i++) {
		size_t n = make_layer(&layer, data, len);

		data += n;
		len -= n;
		r = merge_layer(&image, &layer, &err);
		want(r == 0 || r == -EBADMSG);
		erofs_tree_finish(&layer);
	}
	if (r == 0) {
		merge_check(&image);
		erofs_check_writable(&image, NULL, 0);
	}
	erofs_tree_finish(&image);
	return 0;
}
