/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to net/: a queue of bytes in chunks of memory, filled at its end in place
 * and read at any offset.  An empty queue has no memory, so that connections at rest
 * are cheap; freed chunks are used again first, while they are in the cache.
 */
#ifndef NET_CHUNKS_H
#define NET_CHUNKS_H

#include "net/types.h"

struct net;
struct chunk;

#define CHUNK_CLASSES 4u	/* sizes of chunks */

struct chunks {
	struct chunk *head;
	struct chunk *tail;	/* the one being filled; those after it are reserved and empty */
	struct chunk *cursor;	/* where chunks_peek() ended; NULL: start at head */
	uint32_t cursor_at;	/* offset of the cursor's first byte in the queue */
	uint32_t len;	/* bytes */
	bool reserved;	/* between chunks_reserve() and chunks_commit() */
};

struct chunk_cache {
	struct chunk *free[CHUNK_CLASSES];
	uint32_t count[CHUNK_CLASSES];
};

/* Room for up to @want bytes in up to @max pieces; returns how many bytes, sets *@ret_count. */
size_t chunks_reserve(struct net *net, struct chunks *queue, size_t want, struct net_room *rooms,
		      unsigned max, unsigned *ret_count);
/* Appends the first @len bytes of what was reserved. */
void chunks_commit(struct net *net, struct chunks *queue, size_t len);

/* Appends a copy; returns how many bytes there was memory for. */
size_t chunks_append(struct net *net, struct chunks *queue, const struct net_span *spans,
		     unsigned count);

/*
 * The bytes from @offset on, up to @len and @max pieces.  Returns the number of
 * pieces, sets *@ret_len to the number of bytes.
 */
unsigned chunks_peek(struct chunks *queue, size_t offset, size_t len, struct net_span *spans,
		     unsigned max, size_t *ret_len);

/* Drops @len bytes, at most queue->len, at the front. */
void chunks_consume(struct net *net, struct chunks *queue, size_t len);
void chunks_clear(struct net *net, struct chunks *queue);

void chunk_cache_destroy(struct net *net);

#endif /* NET_CHUNKS_H */
