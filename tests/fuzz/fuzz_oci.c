/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What comes from an image.  The first byte chooses: a JSON document, a layer
 * that is unpacked over a small tree, or a whole image file.  Whatever happens,
 * nothing may appear beside the root.
 */
#include "oci/layer.h"
#include "oci/manifest.h"
#include "oci/unpack.h"
#include "os/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static char base[] = "/dev/shm/roux-fuzz-XXXXXX";
static char root_path[64];

static void drive_json(const uint8_t *data, size_t len)
{
	static struct manifest manifest;
	static struct archive_manifest archive;
	static struct config_facts facts;
	struct oci_config config;
	struct index index;
	struct err err = { 0 };
	const char *json = (const char *)data;

	if (manifest_parse_index(json, len, &index, &err) == 0)
		manifest_free_index(&index);
	(void)manifest_parse(json, len, &manifest, &err);
	(void)manifest_parse_archive(json, len, NULL, &archive, &err);
	(void)manifest_parse_archive(json, len, "v1", &archive, &err);
	if (manifest_parse_config(json, len, &config, &facts, &err) == 0)
		manifest_free_config(&config);
}

static int fill_memfd(const uint8_t *data, size_t len)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC);

	if (fd < 0 || write(fd, data, len) != (ssize_t)len)
		abort();
	return fd;
}

static void make_tree(void)
{
	(void)file_remove_tree(AT_FDCWD, root_path);
	if (mkdir(root_path, 0755) < 0)
		abort();
}

static void drive_layer(const uint8_t *data, size_t len)
{
	static const struct oci_limits limits = { .bytes = 1 << 20, .entries = 200 };
	struct source source = { .path = "/proc/self/fd" };
	int fd = fill_memfd(data, len), root;
	struct layer layer;
	struct unpack u;
	struct err err = { 0 };
	char name[16];
	int r = 0;

	make_tree();
	root = open(root_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (root < 0 || mkdirat(root, "d", 0755) < 0 || symlinkat("/", root, "up") < 0)
		abort();
	snprintf(name, sizeof(name), "%d", fd);
	unpack_begin(&u, root, &limits);
	for (int pass = 0; pass < 2 && r == 0; pass++) {
		r = layer_open(&layer, &source, name, limits.bytes, &err);
		if (r < 0)
			break;
		r = pass == 0 ? unpack_whiteouts(&u, &layer, &err) : unpack_files(&u, &layer, &err);
		if (r == 0 && pass == 1)
			r = layer_finish(&layer, "", "", &err);
		layer_close(&layer);
	}
	unpack_end(&u, r == 0);
	close(root);
	close(fd);
	if (rmdir(base) == 0 || errno != ENOTEMPTY)	/* the root is still there */
		abort();
}

static void drive_image(const uint8_t *data, size_t len)
{
	static const struct oci_limits limits = { .bytes = 1 << 20, .entries = 200 };
	int fd = fill_memfd(data, len);
	struct oci_image *image;
	struct err err = { 0 };
	const char *path;
	char name[32];

	snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
	make_tree();
	if (oci_image_open(name, &image, &err) == 0) {
		(void)oci_image_rootfs(image, &limits, &path, &err);
		oci_image_close(image);
	}
	close(fd);
}

static void clean_up(void)
{
	(void)file_remove_tree(AT_FDCWD, base);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	if (!root_path[0]) {
		if (!mkdtemp(base) || atexit(clean_up) != 0)
			abort();
		snprintf(root_path, sizeof(root_path), "%s/root", base);
		setenv("ROUX_CACHE", root_path, 1);
	}
	if (len == 0)
		return 0;
	if (data[0] == 0)
		drive_json(data + 1, len - 1);
	else if (data[0] == 1)
		drive_layer(data + 1, len - 1);
	else
		drive_image(data + 1, len - 1);
	return 0;
}
