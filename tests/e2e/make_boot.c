/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For end-to-end tests: make_boot CONF OUT fetches the default kernel, writes an
 * initramfs with the configuration file CONF to OUT, and prints the kernel's path.
 */
#include "base/cpio.h"
#include "build/initramfs.h"
#include "build/kernel.h"
#include "os/err.h"
#include "os/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int write_boot(const char *conf_path, const char *out, struct err *err)
{
	char initramfs[PATH_MAX], *conf, *base, *both;
	static struct kernel_package kernel;
	size_t conf_len, base_len, size;
	struct cpio c;
	int r = kernel_package_get(false, NULL, &kernel, err);

	if (r == 0)
		r = initramfs_get(&kernel, INITRAMFS_ALL, initramfs, err);
	if (r == 0)
		r = file_read_all(conf_path, 16384, &conf, &conf_len, err);
	if (r == 0)
		r = file_read_all(initramfs, 64u << 20, &base, &base_len, err);
	if (r < 0)
		return r;
	both = malloc(base_len + conf_len + 1024);
	if (!both)
		return -1;
	memcpy(both, base, base_len);
	cpio_begin(&c, both + base_len, conf_len + 1024);
	cpio_file(&c, "roux.conf", 0600, conf, (uint32_t)conf_len);
	size = cpio_end(&c);
	r = file_write_atomic(out, both, base_len + size, 0644, err);
	printf("%s\n", kernel.vmlinuz);
	free(both);
	free(base);
	free(conf);
	return r;
}

int main(int argc, char **argv)
{
	struct err err = { 0 };

	if (argc != 3)
		return 2;
	if (write_boot(argv[1], argv[2], &err) == 0)
		return 0;
	fprintf(stderr, "make_boot: %s\n", err.msg[0] ? err.msg : "failed");
	return 1;
}
