/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/reads.h"

#include "machine/inside.h"
#include "os/blob.h"
#include "virtio/blk.h"
#include "virtio/fs/fs.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define RANGE_ROOM (2u + 2u + 8u + 8u + 2u + PATH_MAX)	/* bytes that one has at most */

void reads_put(struct blob *list, const struct reads_range *range)
{
	size_t len = strlen(range->path);

	blob_put_u16(list, (uint16_t)range->of);
	blob_put_u16(list, (uint16_t)range->index);
	blob_put_u64(list, range->from);
	blob_put_u64(list, range->len);
	blob_put_u16(list, (uint16_t)len);
	blob_put(list, range->path, len);
}

int reads_take(struct blob_reader *list, struct reads_range *ret_range)
{
	const char *path;
	size_t len;

	if (!list->left)
		return 0;
	ret_range->of = blob_take_u16(list);
	ret_range->index = blob_take_u16(list);
	ret_range->from = blob_take_u64(list);
	ret_range->len = blob_take_u64(list);
	len = blob_take_u16(list);
	path = blob_take(list, len);
	if (list->failed || !path || len >= sizeof(ret_range->path) || memchr(path, '\0', len) || ret_range->from > INT64_MAX ||
	    ret_range->len > INT64_MAX - ret_range->from)
		return -EBADMSG;
	if (ret_range->of == READS_OF_SHARE ? len == 0 : ret_range->of != READS_OF_DISK || len != 0)
		return -EBADMSG;
	memcpy(ret_range->path, path, len);
	ret_range->path[len] = '\0';
	return 1;
}

uint64_t machine_bytes_read(struct machine *m)
{
	uint64_t bytes = 0;

	for (unsigned i = 0; i < SPEC_SHARES_MAX; i++)
		bytes += m->share[i] ? virtio_fs_bytes_read(m->share[i]) : 0;
	for (unsigned i = 0; i < SPEC_DISKS_MAX; i++)
		bytes += m->disk[i].dev ? virtio_blk_bytes_read(m->disk[i].dev) : 0;
	return bytes;
}

void machine_forget_reads(struct machine *m)
{
	for (unsigned i = 0; i < SPEC_SHARES_MAX; i++)
		if (m->share[i])
			virtio_fs_forget_reads(m->share[i]);
	for (unsigned i = 0; i < SPEC_DISKS_MAX; i++)
		if (m->disk[i].dev)
			virtio_blk_forget_reads(m->disk[i].dev);
}

struct lister {
	struct blob list;
	struct reads_range range;
};

static void add_range(struct lister *l, uint64_t from, uint64_t len)
{
	l->range.from = from;
	l->range.len = len;
	if (l->list.len + RANGE_ROOM <= READS_FILE_MAX)
		reads_put(&l->list, &l->range);
}

static void on_file(void *ctx, const char *path, uint64_t from, uint64_t len)
{
	struct lister *l = ctx;

	memcpy(l->range.path, path, strlen(path) + 1);
	add_range(l, from, len);
}

static void on_disk(void *ctx, uint64_t from, uint64_t len)
{
	add_range(ctx, from, len);
}

int machine_write_reads(struct machine *m, int fd)
{
	struct lister l = { .range.of = READS_OF_SHARE };
	void *at;
	int r;

	for (unsigned i = 0; i < SPEC_SHARES_MAX; i++) {
		l.range.index = i;
		if (m->share[i])
			virtio_fs_reads(m->share[i], on_file, &l);
	}
	l.range.of = READS_OF_DISK;
	l.range.path[0] = '\0';
	for (unsigned i = 0; i < SPEC_DISKS_MAX; i++) {
		l.range.index = i;
		if (m->disk[i].dev)
			virtio_blk_reads(m->disk[i].dev, on_disk, &l);
	}
	/* Through a mapping: the jail may allow no writing to files. */
	at = l.list.failed ? MAP_FAILED : mmap(NULL, READS_FILE_MAX, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	r = l.list.failed ? -ENOMEM : at == MAP_FAILED ? -errno : (int)l.list.len;
	if (r > 0)
		memcpy(at, l.list.bytes, l.list.len);
	if (at != MAP_FAILED)
		(void)munmap(at, READS_FILE_MAX);
	blob_finish(&l.list);
	return r;
}
