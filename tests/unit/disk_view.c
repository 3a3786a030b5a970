/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/disk_view.h"

#include "erofs/format.h"
#include "erofs/read.h"
#include "os/err.h"
#include "os/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <cmocka.h>

void disk_view_open(struct disk_view *view, char *const *paths, size_t count)
{
	static const struct erofs_limits limits = { .entries = 1 << 20, .bytes = 1 << 28 };
	struct err err = { 0 };

	disk_view_close(view);
	for (size_t i = 0; i < count; i++) {
		char *data;
		size_t len;

		assert_int_equal(file_read_all(paths[i], 1 << 30, &data, &len, NULL), 0);
		assert_int_equal(len % EROFS_BLOCK, 0);
		view->bytes = realloc(view->bytes, view->size + len);
		assert_non_null(view->bytes);
		memcpy(view->bytes + view->size, data, len);
		view->size += len;
		free(data);
	}
	assert_int_equal(erofs_read_blocks(view->bytes, view->size), view->size / EROFS_BLOCK);
	if (erofs_read(view->bytes, view->size, 0, &limits, &view->tree, &err) < 0)
		fail_msg("%s", err.msg);
}

void disk_view_close(struct disk_view *view)
{
	erofs_tree_finish(&view->tree);
	free(view->bytes);
	*view = (struct disk_view){ 0 };
}

const struct erofs_node *disk_view_find(const struct disk_view *view, const char *path)
{
	const struct erofs_node *node = view->tree.root;

	while (node && *path) {
		size_t len = strcspn(path, "/");
		const struct erofs_entry *e = S_ISDIR(node->mode) ? erofs_find(node, path, len) : NULL;

		node = e ? e->node : NULL;
		path += len + strspn(path + len, "/");
	}
	return node;
}

const void *disk_view_data(const struct disk_view *view, const struct erofs_node *node)
{
	assert_true(S_ISREG(node->mode));
	return view->bytes + (uint64_t)node->block * EROFS_BLOCK;	/* the reader has checked */
}

struct listing {
	const struct disk_view *view;
	FILE *out;
	const char *path;	/* of the folder, with its '/' */
};

static char type_of(uint32_t mode)
{
	return S_ISDIR(mode) ? 'd' : S_ISREG(mode) ? 'f' : S_ISLNK(mode) ? 'l' : S_ISCHR(mode) ? 'c' :
	       S_ISBLK(mode) ? 'b' : S_ISFIFO(mode) ? 'p' : '?';
}

static int list_entry(void *ctx, struct erofs_entry *entry)
{
	const struct listing *l = ctx;
	const struct erofs_node *n = entry->node;

	(void)fprintf(l->out, "%c ", type_of(n->mode));
	if (!S_ISLNK(n->mode))
		(void)fprintf(l->out, "%o %u:%u ", n->mode & 07777, n->uid, n->gid);
	if (S_ISCHR(n->mode) || S_ISBLK(n->mode))
		(void)fprintf(l->out, "%u:%u ", n->rdev >> 8 & 0xfff, (n->rdev & 0xff) | (n->rdev >> 12 & 0xfff00));
	(void)fprintf(l->out, "%s%.*s", l->path, (int)entry->name_len, entry->name);
	if (n->nlink > 1)
		(void)fprintf(l->out, " *%u", n->nlink);
	for (const struct erofs_xattr *x = n->xattrs; x; x = x->next)
		(void)fprintf(l->out, " {%s%.*s=%.*s}", erofs_xattr_prefix(x->index), x->name_len,
			      (const char *)x->bytes, x->value_len, (const char *)erofs_xattr_value(x));
	if (S_ISLNK(n->mode))
		(void)fprintf(l->out, " -> %s", n->target);
	if (S_ISREG(n->mode) && n->size)
		(void)fprintf(l->out, " = %.*s", (int)n->size, (const char *)disk_view_data(l->view, n));
	(void)fputc('\n', l->out);
	if (S_ISDIR(n->mode)) {
		char *path = NULL;

		assert_true(asprintf(&path, "%s%.*s/", l->path, (int)entry->name_len, entry->name) > 0);
		(void)erofs_for_each(n, list_entry, &(struct listing){ l->view, l->out, path });
		free(path);
	}
	return 0;
}

char *disk_view_list(const struct disk_view *view)
{
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	assert_non_null(out);
	(void)erofs_for_each(view->tree.root, list_entry, &(struct listing){ view, out, "" });
	assert_int_equal(fclose(out), 0);
	return text;
}
