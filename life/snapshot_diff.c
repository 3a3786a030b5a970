/* SPDX-License-Identifier: Apache-2.0 */
#include "life/snapshot_diff.h"

#include "machine/snapshot.h"
#include "machine/snapshot_memory.h"
#include "machine/state.h"
#include "os/err.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGE 4096u	/* bytes */
#define DEPTH_MAX 16u	/* of documents in documents */

/* ---------------------------------------------------------------------- memory */

static const uint8_t zeros[PAGE];

/* NULL: it is zero. */
static const uint8_t *page_of(const struct snapshot_view *v, uint64_t page)
{
	const uint8_t *at = v->memory + page * PAGE;

	return page < v->bytes / PAGE && snapshot_view_there(v, page) && memcmp(at, zeros, PAGE) != 0 ? at : NULL;
}

static void compare_pages(const struct snapshot_view *a, const struct snapshot_view *b, uint64_t from, uint64_t end,
			  struct snapshot_region *r)
{
	for (uint64_t page = from; page < end; page++) {
		const uint8_t *x = page_of(a, page), *y = page_of(b, page);

		if (!x && !y)
			r->zero += PAGE;
		else if (!y)
			r->only_a += PAGE;
		else if (!x)
			r->only_b += PAGE;
		else if (memcmp(x, y, PAGE) == 0)
			r->equal += PAGE;
		else
			r->changed += PAGE;
	}
}

static void add_up(struct snapshot_diff *d)
{
	struct snapshot_region *sum = &d->region[d->nregions];

	*sum = (struct snapshot_region){ .name = "all" };
	for (size_t i = 0; i < d->nregions; i++) {
		sum->zero += d->region[i].zero;
		sum->equal += d->region[i].equal;
		sum->changed += d->region[i].changed;
		sum->only_a += d->region[i].only_a;
		sum->only_b += d->region[i].only_b;
	}
	d->nregions++;
}

/* Firmware's tables and where processors start; the rest below the gap; the rest (vmm/guest_mem.h). */
static void compare_memory(const struct snapshot_view *a, const struct snapshot_view *b, struct snapshot_diff *d)
{
	static const struct {
		const char *name;
		uint64_t end;	/* counting the bytes of all banks */
	} regions[SNAPSHOT_REGIONS] = { { "0..1 MiB", 1ull << 20 }, { "1 MiB..3 GiB", 3ull << 30 }, { "4 GiB..", UINT64_MAX } };
	uint64_t all = a->bytes > b->bytes ? a->bytes : b->bytes, at = 0;

	for (size_t i = 0; i < SNAPSHOT_REGIONS && at < all; i++) {
		uint64_t end = regions[i].end < all ? regions[i].end : all;

		d->region[d->nregions] = (struct snapshot_region){ .name = regions[i].name };
		compare_pages(a, b, at / PAGE, end / PAGE, &d->region[d->nregions++]);
		at = end;
	}
	add_up(d);
}

/* ----------------------------------------------------------------------- state */

/* A part's bytes beside its description, borrowed from the snapshot. */
struct raw_part {
	char name[32];
	const uint8_t *bytes;
	size_t len;
};

struct raw_parts {
	struct raw_part *part;	/* owned */
	size_t n;
	bool failed;
};

static void note_part(void *ctx, const char *name, const uint8_t *bytes, size_t len)
{
	struct raw_parts *p = ctx;
	struct raw_part *more = realloc(p->part, (p->n + 1) * sizeof(*more));

	if (!more) {
		p->failed = true;
		return;
	}
	p->part = more;
	p->part[p->n] = (struct raw_part){ .bytes = bytes, .len = len };
	(void)snprintf(p->part[p->n++].name, sizeof(more->name), "%s", name);
}

static const struct raw_part *part_named(const struct raw_parts *p, const char *name)
{
	for (size_t i = 0; i < p->n; i++)
		if (strcmp(p->part[i].name, name) == 0)
			return &p->part[i];
	return NULL;
}

static size_t bytes_that_differ(const struct raw_part *a, const struct raw_part *b)
{
	size_t least = a->len < b->len ? a->len : b->len, most = a->len < b->len ? b->len : a->len, n = most - least;

	for (size_t i = 0; i < least; i++)
		n += a->bytes[i] != b->bytes[i];
	return n;
}

/* Room for one for each part of both is there. */
static void add_part(struct snapshot_diff *d, const struct raw_part *a, const struct raw_part *b)
{
	struct snapshot_part *p = &d->part[d->nparts++];

	*p = (struct snapshot_part){ .only = !b ? 'A' : !a ? 'B' : 0 };
	memcpy(p->name, a ? a->name : b->name, sizeof(p->name));
	p->bytes = !a ? b->len : !b ? a->len : a->len > b->len ? a->len : b->len;
	p->differ = a && b ? bytes_that_differ(a, b) : p->bytes;
}

static int compare_state(const struct snapshot *a, const struct snapshot *b, struct snapshot_diff *d, struct err *err)
{
	struct raw_parts x = { .n = 0 }, y = { .n = 0 };
	int r = state_each(a->state, a->state_len, note_part, &x);

	if (r == 0)
		r = state_each(b->state, b->state_len, note_part, &y);
	d->part = r == 0 && !x.failed && !y.failed ? calloc(x.n + y.n + 1, sizeof(*d->part)) : NULL;
	if (r == 0 && !d->part)
		r = -ENOMEM;
	for (size_t i = 0; r == 0 && i < x.n; i++)
		add_part(d, &x.part[i], part_named(&y, x.part[i].name));
	for (size_t i = 0; r == 0 && i < y.n; i++)
		if (!part_named(&x, y.part[i].name))
			add_part(d, NULL, &y.part[i]);
	free(x.part);
	free(y.part);
	return r == -EINVAL ? err_set(err, r, "the saved state is not of a machine of this roux") :
	       r < 0 ? err_set(err, r, "out of memory") : 0;
}

/* --------------------------------------------------------------------- machine */

static void add_key(struct snapshot_diff *d, const char *name, char *a, char *b)
{
	struct snapshot_key *more = realloc(d->key, (d->nkeys + 1) * sizeof(*more));

	if (!more) {
		free(a);
		free(b);
		return;
	}
	d->key = more;
	d->key[d->nkeys++] = (struct snapshot_key){ .name = strdup(name), .a = a, .b = b };
}

/* Owned; what is not there is "-". */
static char *text_of(const cJSON *json)
{
	char *text = json ? cJSON_PrintUnformatted(json) : strdup("-");

	return text ? text : strdup("?");
}

static void compare_json(const cJSON *a, const cJSON *b, const char *name, unsigned depth, struct snapshot_diff *d)
{
	char inner[256];
	const cJSON *i;

	if (!cJSON_IsObject(a) || !cJSON_IsObject(b) || depth == DEPTH_MAX) {
		if (!cJSON_Compare(a, b, true) && (a || b))
			add_key(d, name, text_of(a), text_of(b));
		return;
	}
	cJSON_ArrayForEach(i, a) {
		(void)snprintf(inner, sizeof(inner), "%s%s%s", name, *name ? "." : "", i->string);
		compare_json(i, cJSON_GetObjectItemCaseSensitive(b, i->string), inner, depth + 1, d);
	}
	cJSON_ArrayForEach(i, b) {
		(void)snprintf(inner, sizeof(inner), "%s%s%s", name, *name ? "." : "", i->string);
		if (!cJSON_GetObjectItemCaseSensitive(a, i->string))
			compare_json(NULL, i, inner, depth + 1, d);
	}
}

static void compare_machines(const struct snapshot *a, const struct snapshot *b, struct snapshot_diff *d)
{
	cJSON *x = cJSON_Parse(a->notes ? a->notes : ""), *y = cJSON_Parse(b->notes ? b->notes : "");
	const cJSON *of_x = cJSON_GetObjectItemCaseSensitive(x, "Record"), *of_y = cJSON_GetObjectItemCaseSensitive(y, "Record");

	if (strcmp(a->engine, b->engine) != 0)
		add_key(d, "Engine", strdup(a->engine), strdup(b->engine));
	compare_json(cJSON_GetObjectItemCaseSensitive(of_x, "Id"), cJSON_GetObjectItemCaseSensitive(of_y, "Id"), "Id", 0, d);
	compare_json(cJSON_GetObjectItemCaseSensitive(of_x, "Config"), cJSON_GetObjectItemCaseSensitive(of_y, "Config"), "", 0, d);
	cJSON_Delete(x);
	cJSON_Delete(y);
}

/* ------------------------------------------------------------------------- all */

static int open_whole(const char *path, struct snapshot *ret, struct err *err)
{
	int r = snapshot_open(path, ret, err);

	if (r == 0)
		r = snapshot_open_bases(ret, err);
	return r == 0 ? snapshot_check_memory(ret, err) : r;
}

int snapshot_diff(const char *path_a, const char *path_b, struct snapshot_diff *ret, struct err *err)
{
	struct snapshot_view view_a = { .memory = NULL }, view_b = { .memory = NULL };
	struct snapshot a = { .fd = -1 }, b = { .fd = -1 };
	int r = open_whole(path_a, &a, err);

	*ret = (struct snapshot_diff){ .nregions = 0 };
	if (r == 0)
		r = open_whole(path_b, &b, err);
	if (r == 0)
		r = snapshot_view(&a, &view_a, err);
	if (r == 0)
		r = snapshot_view(&b, &view_b, err);
	if (r == 0)
		r = compare_state(&a, &b, ret, err);
	if (r == 0) {
		compare_memory(&view_a, &view_b, ret);
		compare_machines(&a, &b, ret);
	}
	snapshot_view_finish(&view_a);
	snapshot_view_finish(&view_b);
	snapshot_close(&a);
	snapshot_close(&b);
	return r;
}

void snapshot_diff_finish(struct snapshot_diff *d)
{
	for (size_t i = 0; i < d->nkeys; i++) {
		free(d->key[i].name);
		free(d->key[i].a);
		free(d->key[i].b);
	}
	free(d->key);
	free(d->part);
	*d = (struct snapshot_diff){ .nregions = 0 };
}
