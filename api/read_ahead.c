/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What machines of a template read of their root, each anew and into memory of its own, their template is to have:
 *
 *   a machine ends that has read much   its list is kept beside the template (machine/reads.h)
 *   before the next one is made         a machine of the template reads all that, and leaves a new template
 *
 * Nothing else of a machine that ends is in it: the new one comes of a machine that was never told who it is.
 */
#include "api/handle.h"

#include "abi/agent.h"
#include "machine/reads.h"
#include "oci/disk.h"
#include "os/blob.h"
#include "os/file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define REQUEST_ROOM (64u << 10)	/* bytes of one request to the agent */
#define RANGE_ROOM (PATH_MAX + 64u)	/* of one file's part in it */
/* A template of more bytes than the first is written anew only for a part of what it has more. */
#define TEMPLATE_USUAL (64u << 20)
#define TEMPLATE_GROWTH 16u

struct extent {
	uint64_t from, end;	/* bytes of the disk */
};

struct reader {
	struct roux_machine *m;
	struct session *session;
	uint64_t deadline;	/* CLOCK_MONOTONIC, ns */
	struct frame_writer request;
	uint8_t buf[REQUEST_ROOM];
	uint64_t left;	/* bytes that may be asked for still */
	uint64_t done;	/* and that have been read */
	struct extent *extent;	/* owned; of the root's disk, in order */
	size_t nextents, room;
};

static int send_request(struct reader *r)
{
	int result = session_send_frame(r->session, r->buf, frame_end(&r->request));
	struct field_reader fields;
	struct frame f = { 0 };
	struct field field;
	uint64_t n;

	frame_begin(&r->request, r->buf, sizeof(r->buf), AGENT_READ_AHEAD);
	if (result == 0)
		result = session_wait(r->session, r->deadline, r->m->wake_fd, &f);
	if (result < 0 || f.type != AGENT_OK)
		return result < 0 ? result : -EPROTO;
	fields = (struct field_reader){ f.data, f.len };
	while (field_next(&fields, &field) == 1)
		if (field.tag == AGENT_TAG_SIZE && field_u64(&field, &n))
			r->done += n;
	return 0;
}

/* Bytes [@from, @from + @len) of file @path, which is absolute. */
static int want(struct reader *r, const char *path, uint64_t from, uint64_t len)
{
	if (len > r->left)
		return 0;	/* and perhaps a smaller one */
	r->left -= len;
	field_put_str(&r->request, AGENT_TAG_PATH, path);
	field_put_u64(&r->request, AGENT_TAG_OFFSET, from);
	field_put_u64(&r->request, AGENT_TAG_SIZE, len);
	return r->request.len + RANGE_ROOM > sizeof(r->buf) ? send_request(r) : 0;
}

/* The parts that are wanted of a file of @size bytes at @at of the disk. */
static int on_disk_file(void *ctx, const char *path, uint64_t at, uint64_t size)
{
	struct reader *r = ctx;
	size_t low = 0, high = r->nextents;
	int result = 0;

	while (low < high) {	/* the first that ends behind @at */
		size_t mid = low + (high - low) / 2;

		if (r->extent[mid].end <= at)
			low = mid + 1;
		else
			high = mid;
	}
	for (; result == 0 && low < r->nextents && r->extent[low].from < at + size; low++) {
		uint64_t from = r->extent[low].from > at ? r->extent[low].from : at;
		uint64_t end = r->extent[low].end < at + size ? r->extent[low].end : at + size;

		result = want(r, path, from - at, end - from);
	}
	return result;
}

static int add_extent(struct reader *r, const struct reads_range *range)
{
	if (r->nextents && range->from < r->extent[r->nextents - 1].end)
		return -EBADMSG;
	if (r->nextents == r->room) {
		size_t room = r->room ? r->room * 2 : 64;
		struct extent *more = realloc(r->extent, room * sizeof(*more));

		if (!more)
			return -ENOMEM;
		r->extent = more;
		r->room = room;
	}
	r->extent[r->nextents++] = (struct extent){ range->from, range->from + range->len };
	return 0;
}

static bool is_of_root(const struct roux_machine *m, const struct reads_range *range)
{
	return (int)range->index == (range->of == READS_OF_DISK ? m->root_disk : m->root_share);
}

/* Of the root only: what is in other shares and disks is of one machine. */
static int take_range(struct reader *r, const struct reads_range *range)
{
	char path[PATH_MAX];

	if (!is_of_root(r->m, range))
		return 0;
	if (range->of == READS_OF_DISK)
		return add_extent(r, range);
	return file_path(path, NULL, "/", range->path, NULL) < 0 ? 0 : want(r, path, range->from, range->len);
}

static int read_list(struct reader *r, const void *list, size_t len, struct err *err)
{
	struct blob_reader in = { .at = list, .left = len };
	struct reads_range range;
	int result = 0, more;

	frame_begin(&r->request, r->buf, sizeof(r->buf), AGENT_READ_AHEAD);
	while (result == 0 && (more = reads_take(&in, &range)) != 0)
		result = more < 0 ? more : take_range(r, &range);
	if (result == 0 && r->nextents)
		result = disk_each_file(r->m->spec.disk[r->m->root_disk].path, on_disk_file, r, err);
	if (result == 0)
		result = send_request(r);
	return result < 0 && !err->code ? err_set(err, result, "a template cannot read what its machines read: %s", strerror(-result)) : result;
}

/* ---- the new template ---- */

bool machine_reads_are_worth_it(const struct roux_machine *m, const void *list, size_t len)
{
	struct blob_reader in = { .at = list, .left = len };
	struct reads_range range;
	uint64_t bytes = 0, has;
	struct stat st;

	while (bytes < INT64_MAX && reads_take(&in, &range) == 1)
		bytes += is_of_root(m, &range) ? range.len : 0;
	has = stat(m->template, &st) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
	return bytes >= READS_LEAST + (has > TEMPLATE_USUAL ? (has - TEMPLATE_USUAL) / TEMPLATE_GROWTH : 0);
}

int machine_read_ahead(struct roux_machine *m, const void *list, size_t len, uint64_t deadline, struct err *err)
{
	struct reader *r = calloc(1, sizeof(*r));
	struct session s = { .fd = -1 };
	uint64_t done = 0;
	int result = r ? machine_take_saved(m, &s, err) : -ENOMEM;

	if (result == 0) {
		*r = (struct reader){ .m = m, .session = &s, .deadline = deadline, .left = m->spec.memory / 8 };
		result = read_list(r, list, len, err);
		done = r->done;
		free(r->extent);
	}
	free(r);
	result = machine_end_session(m, &s, deadline, result);
	return result < 0 ? result : done >= READS_LEAST;
}
