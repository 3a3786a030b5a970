/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Chunks come in a few sizes.  What is reserved is large, what was committed may be
 * little: then the bytes move to a small chunk, or ten thousand half-idle connections
 * would hold 64 KiB each.
 */
#include "net/chunks.h"
#include "net/core.h"

struct chunk {
	struct chunk *next;
	uint32_t start, end;	/* bytes in use, of data */
	uint32_t capacity;	/* bytes of data */
	uint32_t class;
	uint8_t data[];
};

static const uint32_t class_size[CHUNK_CLASSES] = { 1024, 4096, 16384, 65536 };	/* with header */

#define CACHE_BYTES (1u << 20)	/* of one class, kept for reuse */

static unsigned class_for(size_t want)
{
	unsigned class = 0;

	while (class < CHUNK_CLASSES - 1 && class_size[class] - sizeof(struct chunk) < want)
		class++;
	return class;
}

static struct chunk *chunk_new(struct net *net, unsigned class)
{
	struct chunk *chunk = net->cache.free[class];

	if (chunk) {
		net->cache.free[class] = chunk->next;
		net->cache.count[class]--;
	} else {
		chunk = net_alloc(net, class_size[class]);
		if (!chunk)
			return NULL;
		chunk->class = class;
		chunk->capacity = class_size[class] - (uint32_t)sizeof(*chunk);
	}
	chunk->next = NULL;
	chunk->start = chunk->end = 0;
	return chunk;
}

static void chunk_free(struct net *net, struct chunk *chunk)
{
	unsigned class = chunk->class;

	if ((net->cache.count[class] + 1) * class_size[class] > CACHE_BYTES) {
		net_free(net, chunk, class_size[class]);
		return;
	}
	chunk->next = net->cache.free[class];
	net->cache.free[class] = chunk;
	net->cache.count[class]++;
}

void chunk_cache_destroy(struct net *net)
{
	struct chunk *chunk;

	for (unsigned class = 0; class < CHUNK_CLASSES; class++) {
		while ((chunk = net->cache.free[class])) {
			net->cache.free[class] = chunk->next;
			net_free(net, chunk, class_size[class]);
		}
		net->cache.count[class] = 0;
	}
}

size_t chunks_reserve(struct net *net, struct chunks *queue, size_t want, struct net_room *rooms,
		      unsigned max, unsigned *ret_count)
{
	struct chunk **link = queue->tail ? &queue->tail : &queue->head;
	size_t total = 0;
	unsigned count = 0;

	while (count < max && total < want) {
		struct chunk *chunk = *link;
		size_t room;

		if (!chunk) {
			chunk = chunk_new(net, class_for(want - total));
			if (!chunk)
				break;
			*link = chunk;
			if (!queue->tail)
				queue->tail = chunk;
		}
		room = min_of((size_t)(chunk->capacity - chunk->end), want - total);
		if (room) {
			rooms[count++] = (struct net_room){ chunk->data + chunk->end, room };
			total += room;
		}
		link = &chunk->next;
	}
	queue->reserved = true;
	*ret_count = count;
	return total;
}

static void free_after(struct net *net, struct chunk *chunk)
{
	struct chunk *next;

	for (struct chunk *at = chunk->next; at; at = next) {
		next = at->next;
		chunk_free(net, at);
	}
	chunk->next = NULL;
}

/* Moves a few bytes that are alone in a large last chunk to a small one. */
static void shrink_tail(struct net *net, struct chunks *queue, struct chunk *before)
{
	struct chunk *tail = queue->tail, *small;
	uint32_t len = tail->end - tail->start;
	unsigned class = class_for(len);

	if (class >= tail->class || len * 4 > tail->capacity || class > 1)
		return;
	small = chunk_new(net, class);
	if (!small)
		return;
	__builtin_memcpy(small->data, tail->data + tail->start, len);
	small->end = len;
	if (before)
		before->next = small;
	else
		queue->head = small;
	if (queue->cursor == tail)
		queue->cursor = NULL;
	queue->tail = small;
	chunk_free(net, tail);
}

void chunks_commit(struct net *net, struct chunks *queue, size_t len)
{
	struct chunk *before = NULL;
	bool fresh = false;

	queue->reserved = false;
	if (!queue->tail)
		return;
	queue->len += (uint32_t)len;
	for (;;) {
		struct chunk *tail = queue->tail;
		size_t part = min_of(len, (size_t)(tail->capacity - tail->end));

		fresh = tail->end == 0;
		tail->end += (uint32_t)part;
		len -= part;
		if (!len || !tail->next)
			break;
		before = tail;
		queue->tail = tail->next;
	}
	free_after(net, queue->tail);
	if (!queue->len)
		chunks_clear(net, queue);
	else if (fresh && (before || queue->head == queue->tail))
		shrink_tail(net, queue, before);
}

size_t chunks_append(struct net *net, struct chunks *queue, const struct net_span *spans,
		     unsigned count)
{
	struct net_room rooms[8];
	unsigned pieces, span = 0;
	size_t total = 0, left = 0, room, done = 0, skip = 0;

	for (unsigned i = 0; i < count; i++)
		left += spans[i].len;
	while (left && (room = chunks_reserve(net, queue, left, rooms, 8, &pieces))) {
		for (unsigned i = 0; i < pieces; i++) {
			for (done = 0; done < rooms[i].len;) {
				size_t part = min_of(spans[span].len - skip, rooms[i].len - done);

				__builtin_memcpy((uint8_t *)rooms[i].data + done,
						 (const uint8_t *)spans[span].data + skip, part);
				done += part;
				skip += part;
				if (skip == spans[span].len) {
					span++;
					skip = 0;
				}
			}
		}
		chunks_commit(net, queue, room);
		left -= room;
		total += room;
	}
	return total;
}

unsigned chunks_peek(struct chunks *queue, size_t offset, size_t len, struct net_span *spans,
		     unsigned max, size_t *ret_len)
{
	struct chunk *chunk = queue->cursor;
	size_t at = queue->cursor_at, total = 0;
	unsigned count = 0;

	if (!chunk || at > offset) {
		chunk = queue->head;
		at = 0;
	}
	while (chunk && count < max && total < len) {
		size_t have = chunk->end - chunk->start;
		size_t skip = offset - at;

		if (skip < have) {
			size_t part = min_of(have - skip, len - total);

			spans[count++] = (struct net_span){ chunk->data + chunk->start + skip, part };
			total += part;
			offset += part;
			if (skip + part < have)
				break;
		}
		if (!chunk->next || chunk == queue->tail)
			break;
		at += have;
		chunk = chunk->next;
	}
	queue->cursor = chunk;
	queue->cursor_at = (uint32_t)at;
	*ret_len = total;
	return count;
}

void chunks_consume(struct net *net, struct chunks *queue, size_t len)
{
	queue->len -= (uint32_t)len;
	if (!queue->len && !queue->reserved) {
		chunks_clear(net, queue);
		return;
	}
	queue->cursor_at = queue->cursor_at > len ? queue->cursor_at - (uint32_t)len : 0;
	while (len) {
		struct chunk *chunk = queue->head;
		size_t have = chunk->end - chunk->start;

		if (len < have || chunk == queue->tail) {	/* the tail may be reserved */
			chunk->start += (uint32_t)len;
			if (queue->cursor == chunk)
				queue->cursor = NULL;
			break;
		}
		len -= have;
		queue->head = chunk->next;
		if (queue->cursor == chunk)
			queue->cursor = NULL;
		chunk_free(net, chunk);
	}
}

void chunks_clear(struct net *net, struct chunks *queue)
{
	struct chunk *next;

	for (struct chunk *chunk = queue->head; chunk; chunk = next) {
		next = chunk->next;
		chunk_free(net, chunk);
	}
	*queue = (struct chunks){ 0 };
}
