/* SPDX-License-Identifier: Apache-2.0 */
#include "virtio/queue.h"

#include "base/checked.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

enum { DESC_F_NEXT = 1, DESC_F_WRITE = 2, DESC_F_INDIRECT = 4 };
enum { AVAIL_F_NO_INTERRUPT = 1 };

struct desc {	/* VIRTIO 1.2, 2.7.5; all fields little-endian */
	uint64_t addr;
	uint32_t len;
	uint16_t flags;
	uint16_t next;
};
_Static_assert(sizeof(struct desc) == 16, "descriptor layout is fixed by the spec");

struct used_elem {	/* VIRTIO 1.2, 2.7.8 */
	uint32_t id, len;
};

/*
 * avail: le16 flags, le16 idx, le16 ring[size], le16 used_event   (2.7.6)
 * used:  le16 flags, le16 idx, elem ring[size], le16 avail_event  (2.7.8)
 */
#define RING_FLAGS 0u
#define RING_IDX 2u
#define RING_ENTRIES 4u

static uint64_t avail_bytes(uint16_t size)
{
	return RING_ENTRIES + 2ull * size + 2;
}

static uint64_t used_bytes(uint16_t size)
{
	return RING_ENTRIES + sizeof(struct used_elem) * (uint64_t)size + 2;
}

int queue_start(struct queue *q)
{
	if (!is_pow2(q->size) || q->size > q->size_max || q->desc % 16 || q->avail % 2 || q->used % 4)
		return -EINVAL;
	q->desc_host = mem_at(q->mem, q->desc, sizeof(struct desc) * (uint64_t)q->size);
	q->avail_host = mem_at(q->mem, q->avail, avail_bytes(q->size));
	q->used_host = mem_at(q->mem, q->used, used_bytes(q->size));
	if (!q->desc_host || !q->avail_host || !q->used_host)
		return -EINVAL;
	q->signalled = q->next_used;
	q->signalled_valid = false;
	q->starts++;
	q->ready = true;
	return 0;
}

void queue_reset(struct queue *q)
{
	*q = (struct queue){ .mem = q->mem, .size = q->size_max, .size_max = q->size_max, .starts = q->starts };
}

static uint16_t load16(const uint8_t *at)
{
	/* Both rings are 2-aligned in the guest and banks are page-aligned. */
	return le16toh(__atomic_load_n((const uint16_t *)(const void *)at, __ATOMIC_ACQUIRE));
}

static void store16(const struct queue *q, uint64_t off, uint16_t v)
{
	__atomic_store_n((uint16_t *)(void *)(q->used_host + off), htole16(v), __ATOMIC_RELEASE);
	mem_wrote(q->mem, q->used + off, sizeof(v));
}

bool queue_pending(const struct queue *q)
{
	return q->ready && load16(q->avail_host + RING_IDX) != q->next_avail;
}

/* Tells the driver up to where we have seen the ring; false when more came meanwhile. */
static bool ask_for_notification(struct queue *q)
{
	if (!q->event_idx)
		return true;	/* used.flags stays 0: always notify */
	store16(q, used_bytes(q->size) - 2, q->next_avail);
	/* The driver writes idx, then reads avail_event; we the other way round.
	 * Both need the full barrier, or each could miss the other (2.7.10). */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return load16(q->avail_host + RING_IDX) == q->next_avail;
}

/* Adds one buffer to the chain, merged with the one before when they adjoin. */
static int add_segment(const struct queue *q, struct chain *c, const struct desc *d)
{
	bool writable = le16toh(d->flags) & DESC_F_WRITE;
	uint32_t *total = writable ? &c->write_len : &c->read_len;
	uint64_t len = le32toh(d->len);
	gpa_t gpa = le64toh(d->addr);
	unsigned n = c->nread + c->nwrite;
	struct iovec *last = n ? &c->iov[n - 1] : NULL;
	uint8_t *host;

	if (!writable && c->nwrite)
		return -EPROTO;	/* readable after writable: 2.7.4.2 */
	if (!len)
		return 0;
	host = mem_at(q->mem, gpa, len);
	if (!host)
		return -EFAULT;
	if (__builtin_add_overflow(*total, (uint32_t)len, total))
		return -EPROTO;	/* more than 4 GiB: 2.7.4.2 */
	if (last && gpa == c->gpa[n - 1] + last->iov_len && writable == (c->nwrite > 0) &&
	    host == (uint8_t *)last->iov_base + last->iov_len) {
		last->iov_len += len;
		return 0;
	}
	if (n == CHAIN_SEGS_MAX)
		return -EPROTO;
	c->iov[n] = (struct iovec){ .iov_base = host, .iov_len = len };
	c->gpa[n] = gpa;
	if (writable)
		c->nwrite++;
	else
		c->nread++;
	return 0;
}

/* Follows links inside one table of @size descriptors, starting at @index. */
static int walk(const struct queue *q, const uint8_t *table, uint32_t size, uint32_t index,
		bool is_indirect, struct chain *c);

static int walk_indirect(const struct queue *q, const struct desc *d, struct chain *c)
{
	uint32_t len = le32toh(d->len);
	const uint8_t *table;

	/* 2.7.5.3.1: negotiated, not chained further, not nested, whole entries. */
	if (!q->indirect || le16toh(d->flags) & DESC_F_NEXT || len == 0 || len % sizeof(struct desc))
		return -EPROTO;
	table = mem_at(q->mem, le64toh(d->addr), len);
	if (!table)
		return -EFAULT;
	return walk(q, table, len / sizeof(struct desc), 0, true, c);
}

static int walk(const struct queue *q, const uint8_t *table, uint32_t size, uint32_t index,
		bool is_indirect, struct chain *c)
{
	/* A legal chain visits no descriptor twice; ours are short besides. */
	uint32_t left = size < QUEUE_SIZE_MAX ? size : QUEUE_SIZE_MAX;
	struct desc d;
	uint16_t flags;
	int r;

	do {
		if (left-- == 0 || index >= size)
			return -EPROTO;
		memcpy(&d, table + sizeof(d) * index, sizeof(d));
		flags = le16toh(d.flags);
		if (flags & DESC_F_INDIRECT)
			return is_indirect ? -EPROTO : walk_indirect(q, &d, c);
		r = add_segment(q, c, &d);
		if (r < 0)
			return r;
		index = le16toh(d.next);
	} while (flags & DESC_F_NEXT);
	return 0;
}

int queue_pop(struct queue *q, struct chain *ret_chain)
{
	uint16_t idx, head;
	int r;

	if (!q->ready)
		return 0;
	/* The acquire load orders the entries after the index that covers them. */
	idx = load16(q->avail_host + RING_IDX);
	if (idx == q->next_avail) {
		if (ask_for_notification(q))
			return 0;
		idx = load16(q->avail_host + RING_IDX);
	}
	if ((uint16_t)(idx - q->next_avail) > q->size)
		return -EPROTO;
	head = load16(q->avail_host + RING_ENTRIES + 2ull * (q->next_avail & (q->size - 1u)));
	if (head >= q->size)
		return -EPROTO;

	ret_chain->head = head;
	ret_chain->starts = q->starts;
	ret_chain->nread = ret_chain->nwrite = 0;
	ret_chain->read_len = ret_chain->write_len = 0;
	r = walk(q, q->desc_host, q->size, head, false, ret_chain);
	if (r < 0)
		return r;
	q->next_avail++;
	return 1;
}

void queue_unpop(struct queue *q)
{
	q->next_avail--;
}

void queue_wrote(const struct queue *q, const struct chain *c, uint32_t len)
{
	for (unsigned i = c->nread; len && i < c->nread + c->nwrite; i++) {
		uint32_t part = (uint32_t)c->iov[i].iov_len;

		if (part > len)
			part = len;
		mem_wrote(q->mem, c->gpa[i], part);
		len -= part;
	}
}

bool queue_owns(const struct queue *q, const struct chain *c)
{
	return q->ready && c->starts == q->starts;
}

static void put_used(struct queue *q, uint16_t at, uint16_t head, uint32_t written)
{
	struct used_elem elem = { .id = htole32(head), .len = htole32(written) };
	uint64_t off = RING_ENTRIES + sizeof(elem) * (uint64_t)(at & (q->size - 1u));

	memcpy(q->used_host + off, &elem, sizeof(elem));
	mem_wrote(q->mem, q->used + off, sizeof(elem));
}

void queue_push(struct queue *q, const struct chain *c, uint32_t written)
{
	queue_wrote(q, c, written);
	if (!queue_owns(q, c))
		return;
	put_used(q, q->next_used++, c->head, written);
	store16(q, RING_IDX, q->next_used);	/* release: data and entry come first */
}

void queue_push_all(struct queue *q, const struct queue_done *done, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		put_used(q, q->next_used++, done[i].head, done[i].written);
	store16(q, RING_IDX, q->next_used);
}

bool queue_wants_interrupt(struct queue *q)
{
	uint16_t used_event, old = q->signalled;
	bool had_old = q->signalled_valid;

	if (!q->ready || old == q->next_used)
		return false;
	/* Our idx must be visible before we read what the driver asked for. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	q->signalled = q->next_used;
	q->signalled_valid = true;
	if (!q->event_idx)
		return !(load16(q->avail_host + RING_FLAGS) & AVAIL_F_NO_INTERRUPT);
	used_event = load16(q->avail_host + RING_ENTRIES + 2ull * q->size);
	return !had_old || (uint16_t)(q->next_used - used_event - 1) < (uint16_t)(q->next_used - old);
}

static unsigned slice(const struct iovec *iov, unsigned niov, size_t off, size_t len,
		      struct iovec *ret_iov)
{
	unsigned n = 0;

	for (unsigned i = 0; i < niov && len; i++) {
		size_t part = iov[i].iov_len;

		if (off >= part) {
			off -= part;
			continue;
		}
		part -= off;
		if (part > len)
			part = len;
		ret_iov[n++] = (struct iovec){ .iov_base = (uint8_t *)iov[i].iov_base + off,
					       .iov_len = part };
		len -= part;
		off = 0;
	}
	return n;
}

unsigned chain_slice_read(const struct chain *c, size_t off, size_t len, struct iovec *ret_iov)
{
	return slice(c->iov, c->nread, off, len, ret_iov);
}

unsigned chain_slice_write(const struct chain *c, size_t off, size_t len, struct iovec *ret_iov)
{
	return slice(c->iov + c->nread, c->nwrite, off, len, ret_iov);
}

/* Copies between @buf and a vector; @to_vec gives the direction. */
static size_t copy(const struct iovec *iov, unsigned niov, size_t off, uint8_t *buf, size_t len,
		   bool to_vec)
{
	size_t done = 0;

	for (unsigned i = 0; i < niov && done < len; i++) {
		size_t part = iov[i].iov_len;
		uint8_t *at = iov[i].iov_base;

		if (off >= part) {
			off -= part;
			continue;
		}
		at += off;
		part -= off;
		if (part > len - done)
			part = len - done;
		if (to_vec)
			memcpy(at, buf + done, part);
		else
			memcpy(buf + done, at, part);
		done += part;
		off = 0;
	}
	return done;
}

size_t chain_read(const struct chain *c, size_t off, void *buf, size_t len)
{
	return copy(c->iov, c->nread, off, buf, len, false);
}

size_t chain_write(const struct chain *c, size_t off, const void *buf, size_t len)
{
	/* The cast drops const only; copy() reads from buf in this direction. */
	return copy(c->iov + c->nread, c->nwrite, off, (uint8_t *)(uintptr_t)buf, len, true);
}
