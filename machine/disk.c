/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/disk.h"

#include "block/block.h"
#include "machine/spec.h"
#include "os/err.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

/* Puts the rest of the disk's files behind @first, which is taken over in any case. */
static int open_parts(const struct spec_disk *disk, struct block *first, struct block **ret_blk, struct err *err)
{
	static const struct block_file_options opt = { .read_only = true };
	struct block *part[SPEC_PARTS_MAX] = { first };
	unsigned n = 1;
	int r = 0;

	for (; n <= disk->more.n && r == 0; n += r == 0)
		r = block_file_open(disk->more.at[n - 1], &opt, &part[n], err);
	if (r == 0)
		r = block_concat_create(part, n, ret_blk, err);
	while (r < 0 && n)
		block_destroy(part[--n]);
	return r;
}

int disk_open(const struct spec_disk *disk, struct block **ret_blk, struct err *err)
{
	struct block_file_options opt = { .read_only = disk->read_only || disk->overlay };
	struct block *base;
	int r = block_file_open(disk->path, &opt, &base, err);

	if (r == 0 && disk->more.n)
		r = open_parts(disk, base, &base, err);
	if (r < 0 || !disk->overlay) {
		*ret_blk = base;
		return r;
	}
	if (disk->layer && access(disk->layer, F_OK) < 0)
		r = err_set(err, -errno, "%s: %s", disk->layer, strerror(errno));
	else
		r = block_overlay_create(base, disk->layer, 0, ret_blk, err);
	if (r < 0)
		block_destroy(base);
	return r;
}
