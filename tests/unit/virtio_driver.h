/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tiny virtio-mmio driver for tests and fuzzing: drives a device through its
 * registers and rings as a guest does, in one thread with the device's loop.
 *
 *   0x000000  queue i at 0x1000 + i * 0x8000: descriptors, avail, used
 *   0x040000  data, for the test to lay out
 */
#ifndef TESTS_VIRTIO_DRIVER_H
#define TESTS_VIRTIO_DRIVER_H

#include "os/loop.h"
#include "virtio/device.h"
#include "virtio/mmio.h"
#include "vmm/guest_mem.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define DRV_RAM (4u << 20)	/* bytes */
#define DRV_DATA 0x40000u
#define DRV_FEATURES_ALL UINT64_MAX

enum { DRV_READ = 0, DRV_NEXT = 1, DRV_WRITE = 2, DRV_INDIRECT = 4 };

struct drv_queue {
	uint16_t size, next_desc, avail_idx, used_idx;
	gpa_t desc, avail, used;
};

struct drv {
	uint8_t *ram;
	struct mem mem;
	struct loop *loop;
	struct virtio_device *dev;
	struct virtio_mmio *mmio;
	struct bus_range range;
	atomic_uint irqs;
	uint64_t wrote;	/* bytes reported to mem_wrote() */
	struct drv_queue q[VIRTIO_QUEUES_MAX];
	bool has_thread;	/* the test runs the loop on a thread of its own */
};

struct drv_seg {
	gpa_t gpa;
	uint32_t len;
	bool write;
};

static inline void drv_irq(void *ctx)
{
	struct drv *d = ctx;

	atomic_fetch_add(&d->irqs, 1);
}

static inline void drv_mem_wrote(void *ctx, gpa_t gpa, uint64_t len)
{
	(void)gpa;
	__atomic_fetch_add(&((struct drv *)ctx)->wrote, len, __ATOMIC_RELAXED);
}

static inline void drv_put(struct drv *d, gpa_t at, const void *bytes, size_t len)
{
	memcpy(d->ram + at, bytes, len);
}

static inline void drv_put16(struct drv *d, gpa_t at, uint16_t v)
{
	__atomic_store_n((uint16_t *)(void *)(d->ram + at), v, __ATOMIC_SEQ_CST);
}

static inline uint16_t drv_get16(struct drv *d, gpa_t at)
{
	return __atomic_load_n((uint16_t *)(void *)(d->ram + at), __ATOMIC_SEQ_CST);
}

static inline void drv_write(struct drv *d, uint64_t reg, uint32_t value)
{
	d->range.ops->write(d->range.dev, reg, 4, value);
}

static inline uint32_t drv_read(struct drv *d, uint64_t reg)
{
	return (uint32_t)d->range.ops->read(d->range.dev, reg, 4);
}

/* The memory and the loop come first: device constructors want the loop. */
static inline void drv_init(struct drv *d)
{
	memset(d, 0, sizeof(*d));
	d->ram = mmap(NULL, DRV_RAM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (d->ram == MAP_FAILED || loop_create(&d->loop, NULL) < 0)
		abort();
	mem_init_borrowed(&d->mem, d->ram, 0, DRV_RAM);
	d->mem.watch = (struct mem_watch){ .wrote = drv_mem_wrote, .ctx = d };
}

/* Takes over @dev. */
static inline void drv_attach(struct drv *d, struct virtio_device *dev)
{
	d->dev = dev;
	if (virtio_mmio_create(dev, &d->mem, 0xd0000000u, drv_irq, d, &d->mmio, NULL) < 0)
		abort();
	d->range = virtio_mmio_range(d->mmio);
}

static inline void drv_finish(struct drv *d)
{
	virtio_mmio_destroy(d->mmio);
	virtio_device_destroy(d->dev);
	loop_destroy(d->loop);
	(void)munmap(d->ram, DRV_RAM);
}

static inline uint64_t drv_features(struct drv *d)
{
	uint64_t f;

	drv_write(d, 0x14, 0);
	f = drv_read(d, 0x10);
	drv_write(d, 0x14, 1);
	return f | (uint64_t)drv_read(d, 0x10) << 32;
}

static inline void drv_setup_queue(struct drv *d, unsigned i)
{
	struct drv_queue *q = &d->q[i];

	drv_write(d, 0x30, i);
	*q = (struct drv_queue){ .size = (uint16_t)drv_read(d, 0x34), .desc = 0x1000 + i * 0x8000u };
	if (q->size > 512)
		q->size = 512;
	q->avail = q->desc + 16u * q->size;
	q->used = (q->avail + 6u + 2u * q->size + 63u) & ~63ull;
	memset(d->ram + q->desc, 0, 0x8000);
	drv_write(d, 0x38, q->size);
	drv_write(d, 0x80, (uint32_t)q->desc);
	drv_write(d, 0x84, 0);
	drv_write(d, 0x90, (uint32_t)q->avail);
	drv_write(d, 0x94, 0);
	drv_write(d, 0xa0, (uint32_t)q->used);
	drv_write(d, 0xa4, 0);
	drv_write(d, 0x44, 1);
}

/* Resets, negotiates what both want of @features, sets up all queues.  Returns the status. */
static inline uint32_t drv_start(struct drv *d, uint64_t features)
{
	uint64_t f;

	drv_write(d, 0x70, 0);
	drv_write(d, 0x70, 1 | 2);
	f = drv_features(d) & features;
	drv_write(d, 0x24, 0);
	drv_write(d, 0x20, (uint32_t)f);
	drv_write(d, 0x24, 1);
	drv_write(d, 0x20, (uint32_t)(f >> 32));
	drv_write(d, 0x70, 1 | 2 | 8);
	for (unsigned i = 0; i < d->dev->nqueues; i++)
		drv_setup_queue(d, i);
	drv_write(d, 0x70, 1 | 2 | 8 | 4);
	return drv_read(d, 0x70);
}

static inline void drv_desc(struct drv *d, gpa_t table, unsigned i, gpa_t addr, uint32_t len,
			    uint16_t flags, uint16_t next)
{
	drv_put(d, table + 16 * i, &addr, 8);
	drv_put(d, table + 16 * i + 8, &len, 4);
	drv_put16(d, table + 16 * i + 12, flags);
	drv_put16(d, table + 16 * i + 14, next);
}

/* Makes the chain that starts at descriptor @head available. */
static inline void drv_offer(struct drv *d, unsigned qi, uint16_t head)
{
	struct drv_queue *q = &d->q[qi];

	drv_put16(d, q->avail + 4 + 2u * (q->avail_idx % q->size), head);
	drv_put16(d, q->avail + 2, ++q->avail_idx);
}

/* Adds a chain of @n buffers; returns its head. */
static inline uint16_t drv_add(struct drv *d, unsigned qi, const struct drv_seg *seg, unsigned n)
{
	struct drv_queue *q = &d->q[qi];
	uint16_t head = q->next_desc;

	for (unsigned i = 0; i < n; i++) {
		uint16_t at = q->next_desc, next = (uint16_t)((at + 1) % q->size);

		drv_desc(d, q->desc, at, seg[i].gpa, seg[i].len,
			 (uint16_t)((seg[i].write ? DRV_WRITE : 0) | (i + 1 < n ? DRV_NEXT : 0)), next);
		q->next_desc = next;
	}
	drv_offer(d, qi, head);
	return head;
}

static inline void drv_stop_loop(void *ctx)
{
	loop_quit(ctx);
}

/* Lets the device's loop handle all that is ready. */
static inline void drv_pump(struct drv *d)
{
	if (d->has_thread)
		return;
	(void)loop_post(d->loop, drv_stop_loop, d->loop);
	(void)loop_run(d->loop, NULL);
}

static inline void drv_kick(struct drv *d, unsigned qi)
{
	drv_write(d, 0x50, qi);
	drv_pump(d);
}

/* Takes one used entry; false when there is none. */
static inline bool drv_used(struct drv *d, unsigned qi, uint32_t *ret_id, uint32_t *ret_len)
{
	struct drv_queue *q = &d->q[qi];
	gpa_t at = q->used + 4 + 8u * (q->used_idx % q->size);

	if (drv_get16(d, q->used + 2) == q->used_idx)
		return false;
	memcpy(ret_id, d->ram + at, 4);
	memcpy(ret_len, d->ram + at + 4, 4);
	q->used_idx++;
	return true;
}

/* Adds, kicks, waits up to 5 s.  Returns the used length, or -1. */
static inline int64_t drv_request(struct drv *d, unsigned qi, const struct drv_seg *seg, unsigned n)
{
	const struct timespec nap = { .tv_nsec = 200000 };
	uint32_t id, len;

	(void)drv_add(d, qi, seg, n);
	drv_kick(d, qi);
	for (int i = 0; i < 25000; i++) {
		if (drv_used(d, qi, &id, &len))
			return len;
		if (drv_read(d, 0x70) & 64)
			return -1;
		(void)nanosleep(&nap, NULL);
		drv_pump(d);
	}
	return -1;
}

#endif /* TESTS_VIRTIO_DRIVER_H */
