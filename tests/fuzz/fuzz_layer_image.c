/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two layers: the first byte tells after how many blocks of 512 bytes the second
 * begins.  What is made of a layer can be read, and merged if they fit.
 */
#include "oci/layer_image.h"

#include "erofs/format.h"
#include "erofs/read.h"
#include "oci/layer.h"
#include "oci/merge.h"
#include "os/err.h"
#include "tests/fuzz/check.h"
#include "tests/fuzz/erofs_check.h"
#include "tests/fuzz/merge_check.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static struct err err;	/* sentences are made, too */
static const struct erofs_limits memory = { .entries = 1 << 12, .bytes = 1 << 24 };

static int new_file(const void *data, size_t len)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC);

	want(fd >= 0 && write(fd, data, len) == (ssize_t)len);
	return fd;
}

static int write_layer(const uint8_t *data, size_t len, int image)
{
	static const struct oci_limits limits = { .bytes = 1 << 20, .entries = 200 };
	struct source source = { .path = "/proc/self/fd" };
	int fd = new_file(data, len), r;
	struct layer layer;
	char name[16];

	(void)snprintf(name, sizeof(name), "%d", fd);
	r = layer_open(&layer, &source, name, limits.bytes, &err);
	if (r == 0) {
		r = layer_image_write(&layer, image, &limits, &err);
		if (r == 0)
			r = layer_finish(&layer, "", "", &err);
		layer_close(&layer);
	}
	close(fd);
	return r;
}

/* 0, and a tree to be finished. */
static int read_layer(const uint8_t *data, size_t len, uint32_t device, uint32_t *ret_blocks, struct erofs_tree *ret_tree)
{
	int image = new_file("", 0), r = write_layer(data, len, image);
	struct stat st;
	void *bytes;

	if (r == 0) {
		want(fstat(image, &st) == 0 && st.st_size > 0 && st.st_size % EROFS_BLOCK == 0);
		bytes = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, image, 0);
		want(bytes != MAP_FAILED);
		*ret_blocks = (uint32_t)(st.st_size / EROFS_BLOCK);
		want(erofs_read_blocks(bytes, (size_t)st.st_size) == *ret_blocks);
		want(erofs_read(bytes, (size_t)st.st_size, device, &memory, ret_tree, NULL) == 0);
		want(munmap(bytes, (size_t)st.st_size) == 0);
		erofs_check_tree(ret_tree);
	}
	close(image);
	return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct erofs_tree image, layer;
	uint32_t blocks[2];
	size_t first;
	int r;

	if (len < 1)
		return 0;
	first = data[0] * 512u < len - 1 ? data[0] * 512u : len - 1;
	want(erofs_tree_init(&image, &memory, NULL) == 0);
	r = read_layer(data + 1, first, 1, &blocks[0], &layer);
	if (r == 0) {
		r = merge_layer(&image, &layer, &err);
		erofs_tree_finish(&layer);
	}
	if (r == 0)
		r = read_layer(data + 1 + first, len - 1 - first, 2, &blocks[1], &layer);
	if (r == 0) {
		r = merge_layer(&image, &layer, &err);
		erofs_tree_finish(&layer);
	}
	if (r == 0) {
		merge_check(&image);
		erofs_check_writable(&image, blocks, 2);
	}
	erofs_tree_finish(&image);
	return 0;
}
