/* SPDX-License-Identifier: Apache-2.0 */
#include "build/initramfs.h"

#include "base/checked.h"
#include "base/cpio.h"
#include "base/sha256.h"
#include "build/agent_blob.h"
#include "build/kernel.h"
#include "build/module.h"
#include "os/err.h"
#include "os/file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define FORMAT "roux initramfs 1" /* changes whenever equal inputs give other bytes */

/* What a part of a machine needs, in the order of enum initramfs_part's bits. */
static const struct {
	unsigned part;	/* 0: every machine */
	const char *names[8];	/* NULL-ended */
} modules_of[] = {
	{ 0, { "?virtio_mmio", "overlay", "vmw_vsock_virtio_transport", "?virtio_balloon", NULL } },
	{ INITRAMFS_SHARE, { "virtiofs", NULL } },
	{ INITRAMFS_IMAGE, { "virtio_blk", "erofs", NULL } },
	{ INITRAMFS_NET, { "virtio_net", "?af_packet", "?tcp_diag", NULL } },
	{ INITRAMFS_DISK, { "virtio_blk", "?crc32c_generic", "?crc32c_intel", "?ext4", "?erofs", "?squashfs", "?loop",
			    NULL } },
	{ INITRAMFS_OTHER, { "?virtio_pci", "virtio_console", "?virtio_rng", NULL } },
};

#define MODULES_MAX (ARRAY_SIZE(modules_of) * 8)

/* NULL-ended names of the modules for @parts. */
static void choose_modules(unsigned parts, const char *ret_names[MODULES_MAX])
{
	size_t n = 0;

	for (size_t i = 0; i < ARRAY_SIZE(modules_of); i++) {
		if (modules_of[i].part && !(parts & modules_of[i].part))
			continue;
		for (const char *const *name = modules_of[i].names; *name; name++)
			ret_names[n++] = *name;
	}
	ret_names[n] = NULL;
}

/* Names the result by all that it depends on. */
static void hash_inputs(const struct kernel_package *kernel, const char *const modules[],
			char ret_hex[SHA256_HEX_SIZE])
{
	struct sha256 hash;

	sha256_init(&hash);
	sha256_add(&hash, FORMAT, sizeof(FORMAT));
	sha256_add(&hash, agent_blob, agent_blob_size);
	if (kernel) {
		sha256_add(&hash, kernel->id, strlen(kernel->id) + 1);
		for (; *modules; modules++)
			sha256_add(&hash, *modules, strlen(*modules) + 1);
	}
	sha256_finish_hex(&hash, ret_hex);
}

static void put_modules(struct cpio *c, const struct module_list *list, const char *order)
{
	char name[128];

	cpio_dir(c, "modules", 0755);
	for (size_t i = 0; i < list->count; i++) {
		(void)snprintf(name, sizeof(name), "modules/%s.ko", list->at[i].name);
		cpio_file(c, name, 0644, list->at[i].data, (uint32_t)list->at[i].len);
	}
	cpio_file(c, "modules/order", 0644, order, (uint32_t)strlen(order));
}

static size_t put_all(struct cpio *c, const struct module_list *list, const char *order)
{
	cpio_dir(c, "dev", 0755);
	cpio_char_device(c, "dev/console", 0600, 5, 1);
	cpio_file(c, "init", 0755, agent_blob, agent_blob_size);
	if (list->count)
		put_modules(c, list, order);
	return cpio_end(c);
}

/* The text of /modules/order; free() it. */
static char *make_order(const struct module_list *list)
{
	char *text = NULL;
	size_t size;
	FILE *f = open_memstream(&text, &size);

	if (!f)
		return NULL;
	for (size_t i = 0; i < list->count; i++)
		(void)fprintf(f, "%s.ko\n", list->at[i].name);
	if (fclose(f) != 0) {
		free(text);
		return NULL;
	}
	return text;
}

static int write_archive(const char *path, const struct module_list *list, struct err *err)
{
	char *order = make_order(list);
	uint8_t *buf = NULL;
	struct cpio c;
	size_t size;
	int r = -ENOMEM;

	if (!order)
		goto finish;
	cpio_begin(&c, NULL, 0);
	size = put_all(&c, list, order);
	buf = malloc(size);
	if (!buf)
		goto finish;
	cpio_begin(&c, buf, size);
	(void)put_all(&c, list, order);
	r = file_write_sealed(path, buf, size, 0644, err);
finish:
	free(buf);
	free(order);
	return r == -ENOMEM ? err_set(err, r, "out of memory for the initramfs") : r;
}

int initramfs_get(const struct kernel_package *kernel, unsigned parts, char ret_path[PATH_MAX],
		  struct err *err)
{
	struct module_list list = { .count = 0 };
	const char *modules[MODULES_MAX];
	char dir[PATH_MAX], hex[SHA256_HEX_SIZE];
	struct stat st;
	int r = file_cache_dir("initramfs", dir, err);

	choose_modules(parts, modules);
	hash_inputs(kernel, modules, hex);
	if (r == 0)
		r = file_path(ret_path, err, dir, "/", hex, ".cpio", NULL);
	if (r < 0 || (stat(ret_path, &st) == 0 && file_is_sealed(&st)))
		return r;
	if (kernel)
		r = module_list_load(kernel->modules, modules, &list, err);
	if (r == 0)
		r = write_archive(ret_path, &list, err);
	module_list_free(&list);
	return r < 0 ? err_prefix(err, r, "cannot make the initramfs") : 0;
}
