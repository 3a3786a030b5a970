/* SPDX-License-Identifier: Apache-2.0 */
#include "oci/disk.h"

#include "erofs/format.h"
#include "erofs/read.h"
#include "erofs/write.h"
#include "oci/layer.h"
#include "oci/layer_image.h"
#include "oci/merge.h"
#include "os/err.h"
#include "os/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define LAYERS "/layers"
#define IMAGES "/images"

struct maker {
	const struct disk_source *source;
	const struct oci_limits *limits;
	char **path;	/* of the parts; the first is the metadata's */
	uint32_t *blocks;	/* of the layers' parts, owned */
	uint64_t bytes_left;	/* limit for the layers together */
	struct err *err;
};

/* Writes the file of one part.  0 or -errno. */
typedef int (*write_fn)(struct maker *m, size_t i, int fd);

/* ---- cached files ---- */

static bool is_there(const char *path, uint64_t *ret_size)
{
	struct stat st;

	if (stat(path, &st) < 0 || !file_is_sealed(&st) || st.st_size % EROFS_BLOCK)
		return false;
	*ret_size = (uint64_t)st.st_size;
	return true;
}

static int write_new(struct maker *m, size_t i, const char *path, write_fn write)
{
	struct file_new file;
	int r = file_new_begin_locked(&file, path, 0644, m->err);

	if (r < 0)
		return r;
	r = write(m, i, file.fd);
	if (r == -ENOSPC || r == -EDQUOT)
		r = err_set(m->err, -ENOSPC, "no space left for the image: free some, or set ROUX_CACHE to a larger disk");
	if (r == 0) {
		r = file_seal(file.fd);
		if (r < 0)
			(void)err_set(m->err, r, "cannot write %s: %s", path, strerror(-r));
	}
	if (r == 0)
		return file_new_commit(&file, m->err);
	file_new_abort(&file);
	return r;
}

/* Makes the file if it is not there; one process does, others wait for it. */
static int get_file(struct maker *m, size_t i, const char *path, write_fn write, uint64_t *ret_size)
{
	char lock_path[PATH_MAX];
	int lock, r;

	if (is_there(path, ret_size))
		return 0;
	r = file_path(lock_path, m->err, path, ".lock", NULL);
	if (r < 0)
		return r;
	lock = file_lock(lock_path, false, m->err);
	if (lock < 0)
		return lock;
	if (!is_there(path, ret_size)) {
		r = write_new(m, i, path, write);
		if (r == 0 && !is_there(path, ret_size))
			r = err_set(m->err, -EIO, "%s is not what was written to it", path);
	}
	close(lock);
	return r;
}

/* ---- layers ---- */

static int write_layer(struct maker *m, size_t i, int fd)
{
	struct oci_limits limits = *m->limits;
	struct layer layer;
	int r = m->source->open(m->source->ctx, i, &layer, m->limits->bytes, m->err);

	if (r < 0)
		return r;
	limits.bytes = m->bytes_left;
	r = layer_image_write(&layer, fd, &limits, m->err);
	if (r == 0)
		r = m->source->verify(m->source->ctx, i, &layer, m->err);
	layer_close(&layer);
	return r;
}

static int get_layer(struct maker *m, size_t i)
{
	uint64_t size;
	int r = get_file(m, i, m->path[1 + i], write_layer, &size);

	if (r < 0)
		return r;
	if (size / EROFS_BLOCK > UINT32_MAX)
		return err_set(m->err, -EFBIG, "a layer of the image is too large");
	m->blocks[i] = (uint32_t)(size / EROFS_BLOCK);
	m->bytes_left -= size < m->bytes_left ? size : m->bytes_left;
	return 0;
}

/* ---- the image ---- */

static int map(const char *path, const void **ret_bytes, size_t *ret_size, struct err *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	void *bytes = MAP_FAILED;

	if (fd >= 0 && fstat(fd, &st) == 0)
		bytes = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	if (bytes == MAP_FAILED) {
		int r = err_set(err, -errno, "cannot read %s: %s", path, strerror(errno));

		if (fd >= 0)
			close(fd);
		return r;
	}
	close(fd);
	*ret_bytes = bytes;
	*ret_size = (size_t)st.st_size;
	return 0;
}

static void unmap(const void *bytes, size_t size)
{
	(void)munmap((void *)(uintptr_t)bytes, size);
}

static int merge_part(struct maker *m, size_t i, struct erofs_tree *tree)
{
	struct erofs_tree layer = { .root = NULL };
	const void *bytes;
	size_t size;
	int r = map(m->path[1 + i], &bytes, &size, m->err);

	if (r < 0)
		return r;
	r = erofs_read(bytes, size, (uint32_t)(1 + i), &tree->left, &layer, m->err);
	unmap(bytes, size);
	if (r < 0)
		return err_prefix(m->err, r, "%s", m->path[1 + i]);
	tree->left.bytes = layer.left.bytes;	/* its files become the image's */
	r = merge_layer(tree, &layer, m->err);
	erofs_tree_finish(&layer);
	return r;
}

static int write_image(struct maker *m, size_t unused, int fd)
{
	const struct erofs_limits memory = { .entries = m->limits->entries, .bytes = LAYER_MEMORY_MAX };
	const struct erofs_write_options opt = { .fd = fd, .meta_block = 1, .part_blocks = m->blocks,
						 .nparts = (unsigned)m->source->nlayers };
	struct erofs_tree tree;
	uint64_t blocks;
	int r = erofs_tree_init(&tree, &memory, m->err);

	for (size_t i = 0; i < m->source->nlayers && r == 0; i++)
		r = merge_part(m, i, &tree);
	if (r == 0)
		r = erofs_write(&tree, &opt, &blocks, m->err);
	erofs_tree_finish(&tree);
	return r;
}

/* Whether the metadata belong to the parts that are there. */
static bool fits(const struct maker *m, uint64_t size)
{
	uint64_t blocks = size / EROFS_BLOCK;
	const void *bytes;
	size_t len;
	uint32_t said;

	if (map(m->path[0], &bytes, &len, NULL) < 0)
		return false;
	said = erofs_read_blocks(bytes, len);
	unmap(bytes, len);
	for (size_t i = 0; i < m->source->nlayers; i++)
		blocks += m->blocks[i];
	return blocks == said;
}

static int get_image(struct maker *m)
{
	uint64_t size;
	int r = get_file(m, 0, m->path[0], write_image, &size);

	if (r < 0 || fits(m, size))
		return r;
	/* Some layer was made anew by another version of roux. */
	if (unlink(m->path[0]) < 0 && errno != ENOENT)
		return err_set(m->err, -errno, "cannot remove %s: %s", m->path[0], strerror(errno));
	return get_file(m, 0, m->path[0], write_image, &size);
}

/* ---- all ---- */

static int make_name(char **ret, const char *dir, const char *sub, const char *key, struct err *err)
{
	char path[PATH_MAX];
	int r = file_path(path, err, dir, sub, "/", key, ".erofs", NULL);

	if (r < 0)
		return r;
	*ret = strdup(path);
	return *ret ? 0 : err_set(err, -ENOMEM, "out of memory for an image");
}

static int make_names(struct maker *m, const char *dir)
{
	char path[PATH_MAX];
	int r = file_path(path, m->err, dir, LAYERS, NULL);

	if (r == 0)
		r = file_mkdirs(path, 0700, m->err);
	if (r == 0)
		r = file_path(path, m->err, dir, IMAGES, NULL);
	if (r == 0)
		r = file_mkdirs(path, 0700, m->err);
	if (r == 0)
		r = make_name(&m->path[0], dir, IMAGES, m->source->image_key, m->err);
	for (size_t i = 0; i < m->source->nlayers && r == 0; i++)
		r = make_name(&m->path[1 + i], dir, LAYERS, m->source->layer_key[i], m->err);
	return r;
}

int disk_make(const char *dir, const struct disk_source *source, const struct oci_limits *limits,
	      char *ret_path[], struct err *err)
{
	struct maker m = { .source = source, .limits = limits, .path = ret_path, .bytes_left = limits->bytes,
			   .err = err };
	int r;

	memset(ret_path, 0, (source->nlayers + 1) * sizeof(ret_path[0]));
	m.blocks = calloc(source->nlayers + 1, sizeof(*m.blocks));
	r = m.blocks ? make_names(&m, dir) : err_set(err, -ENOMEM, "out of memory for an image");
	for (size_t i = 0; i < source->nlayers && r == 0; i++)
		r = get_layer(&m, i);
	if (r == 0)
		r = get_image(&m);
	free(m.blocks);
	for (size_t i = 0; r < 0 && i <= source->nlayers; i++) {
		free(ret_path[i]);
		ret_path[i] = NULL;
	}
	return r;
}

/* ---- files of the whole ---- */

struct walker {
	disk_file_fn fn;
	void *ctx;
	char path[PATH_MAX];
	size_t len;	/* of the path so far */
};

static int walk_entry(void *ctx, struct erofs_entry *e)
{
	struct walker *w = ctx;
	const struct erofs_node *n = e->node;
	size_t len = w->len;
	int r = 0;

	if (len + 1 + e->name_len >= sizeof(w->path))
		return 0;	/* no guest can open it by this name */
	w->path[w->len++] = '/';
	memcpy(w->path + w->len, e->name, e->name_len);
	w->len += e->name_len;
	w->path[w->len] = '\0';
	if (S_ISDIR(n->mode))
		r = erofs_for_each(n, walk_entry, w);
	else if (S_ISREG(n->mode) && n->size)
		r = w->fn(w->ctx, w->path, (uint64_t)n->block * EROFS_BLOCK, n->size);
	w->len = len;
	return r;
}

int disk_each_file(const char *path, disk_file_fn fn, void *ctx, struct err *err)
{
	const struct erofs_limits memory = { .entries = oci_limits_default.entries, .bytes = LAYER_MEMORY_MAX };
	struct walker w = { .fn = fn, .ctx = ctx };
	struct erofs_tree tree;
	const void *bytes;
	size_t size;
	int r = map(path, &bytes, &size, err);

	if (r < 0)
		return r;
	r = erofs_read_first_part(bytes, size, &memory, &tree, err);
	unmap(bytes, size);
	if (r < 0)
		return err_prefix(err, r, "%s", path);
	r = erofs_for_each(tree.root, walk_entry, &w);
	erofs_tree_finish(&tree);
	return r;
}
