/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What comes from an image.  The first byte chooses: a JSON document or a whole
 * image file.  fuzz_layer_image is about layers.
 */
#include "oci/image.h"
#include "oci/manifest.h"
#include "os/err.h"
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

static void drive_image(const uint8_t *data, size_t len)
{
	static const struct oci_limits limits = { .bytes = 1 << 20, .entries = 200 };
	int fd = fill_memfd(data, len);
	struct oci_image *image;
	struct err err = { 0 };
	char *const *paths;
	size_t count;
	char name[32];

	snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
	if (oci_image_open(name, &image, &err) == 0) {
		(void)oci_image_disk(image, &limits, &paths, &count, &err);
		oci_image_close(image);
	}
	close(fd);
	(void)file_remove_tree(AT_FDCWD, base);	/* nothing is known from the input before */
}

static void clean_up(void)
{
	(void)file_remove_tree(AT_FDCWD, base);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static bool ready;

	if (!ready && (!mkdtemp(base) || atexit(clean_up) != 0 || setenv("ROUX_CACHE", base, 1) < 0))
		abort();
	ready = true;
	if (len == 0)
		return 0;
	if (data[0] == 0)
		drive_json(data + 1, len - 1);
	else
		drive_image(data + 1, len - 1);
	return 0;
}
