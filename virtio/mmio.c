/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The register window.  Writes of DeviceStatus drive the state machine:
 *
 *   written bit     accepted when                      effect
 *   0 (reset)       always                             drain, forget everything
 *   FEATURES_OK     features a subset, VERSION_1 in    features are fixed
 *   DRIVER_OK       FEATURES_OK set                    device runs
 *   others          always                             remembered
 *
 * NEEDS_RESET is ours: set by the device, cleared by reset only.
 */
#include "virtio/mmio.h"

#include "os/blob.h"
#include "os/err.h"
#include "os/loop.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define MAGIC 0x74726976u	/* "virt" */
#define VERSION 2u
#define VENDOR 0x58554f52u	/* "ROUX" */
#define STATE_VERSION 1u

enum reg {	/* VIRTIO 1.2, table 4.1 */
	REG_MAGIC = 0x000,
	REG_VERSION = 0x004,
	REG_DEVICE_ID = 0x008,
	REG_VENDOR_ID = 0x00c,
	REG_DEVICE_FEATURES = 0x010,
	REG_DEVICE_FEATURES_SEL = 0x014,
	REG_DRIVER_FEATURES = 0x020,
	REG_DRIVER_FEATURES_SEL = 0x024,
	REG_QUEUE_SEL = 0x030,
	REG_QUEUE_NUM_MAX = 0x034,
	REG_QUEUE_NUM = 0x038,
	REG_QUEUE_READY = 0x044,
	REG_QUEUE_NOTIFY = 0x050,
	REG_INTERRUPT_STATUS = 0x060,
	REG_INTERRUPT_ACK = 0x064,
	REG_STATUS = 0x070,
	REG_QUEUE_DESC_LOW = 0x080,
	REG_QUEUE_DESC_HIGH = 0x084,
	REG_QUEUE_DRIVER_LOW = 0x090,
	REG_QUEUE_DRIVER_HIGH = 0x094,
	REG_QUEUE_DEVICE_LOW = 0x0a0,
	REG_QUEUE_DEVICE_HIGH = 0x0a4,
	REG_SHM_LEN_LOW = 0x0b0,
	REG_SHM_LEN_HIGH = 0x0b4,
	REG_SHM_BASE_LOW = 0x0b8,
	REG_SHM_BASE_HIGH = 0x0bc,
	REG_CONFIG_GENERATION = 0x0fc,
	REG_CONFIG = 0x100,
};

enum { INTERRUPT_QUEUE = 1, INTERRUPT_CONFIG = 2 };
enum { STATUS_DRIVER_OK = 4, STATUS_FEATURES_OK = 8, STATUS_NEEDS_RESET = 64 };

struct notifier {
	struct virtio_mmio *mmio;
	unsigned index;
	int fd;	/* owned eventfd */
	struct loop_source *source;
};

struct virtio_mmio {
	struct virtio_device *dev;	/* borrowed */
	uint64_t base;
	virtio_irq_fn irq;
	void *irq_ctx;
	struct notifier notifier[VIRTIO_QUEUES_MAX];

	/* Without lock. */
	_Atomic uint32_t interrupt_status, status, generation;

	/* Under dev->lock. */
	uint32_t device_features_sel, driver_features_sel, queue_sel;
	bool resetting;	/* a vCPU waits in reset: status writes of others are void */
};

static void raise_interrupt(struct virtio_mmio *m, uint32_t bits)
{
	if (bits & ~atomic_fetch_or(&m->interrupt_status, bits))
		m->irq(m->irq_ctx);
}

static void on_queue_used(void *ctx)
{
	raise_interrupt(ctx, INTERRUPT_QUEUE);
}

static void on_config_changed(void *ctx)
{
	struct virtio_mmio *m = ctx;

	atomic_fetch_add(&m->generation, 1);
	if (atomic_load(&m->status) & STATUS_DRIVER_OK)
		raise_interrupt(m, INTERRUPT_CONFIG);
}

static void on_needs_reset(void *ctx)
{
	struct virtio_mmio *m = ctx;

	/* 2.1.2: only a driver that got as far as DRIVER_OK is interrupted. */
	if (atomic_fetch_or(&m->status, STATUS_NEEDS_RESET) & STATUS_DRIVER_OK)
		raise_interrupt(m, INTERRUPT_CONFIG);
}

static void ring(const struct notifier *n)
{
	uint64_t one = 1;

	/* Fails only when the counter is full, and then the loop wakes anyway. */
	if (write(n->fd, &one, sizeof(one)) < 0)
		return;
}

static void on_turn_over(void *ctx, unsigned index)
{
	ring(&((struct virtio_mmio *)ctx)->notifier[index]);
}

static void on_doorbell(void *ctx, uint32_t events)
{
	struct notifier *n = ctx;
	struct virtio_device *dev = n->mmio->dev;
	uint64_t count;

	if (read(n->fd, &count, sizeof(count)) < 0)
		return;
	virtio_lock(dev);
	dev->turn = VIRTIO_TURN;
	if (dev->running && dev->queue[n->index].ready)
		dev->ops->notified(dev, n->index);
	virtio_unlock(dev);
}

static void ring_all(struct virtio_mmio *m)
{
	for (unsigned i = 0; i < m->dev->nqueues; i++)
		ring(&m->notifier[i]);
}

static void forget_driver(struct virtio_mmio *m)
{
	struct virtio_device *dev = m->dev;

	dev->running = false;
	dev->acked = 0;
	for (unsigned i = 0; i < dev->nqueues; i++)
		queue_reset(&dev->queue[i]);
	m->device_features_sel = m->driver_features_sel = m->queue_sel = 0;
	atomic_store(&m->interrupt_status, 0);
	atomic_store(&m->status, 0);
}

static void drain(struct virtio_device *dev)
{
	if (dev->ops->drain)
		dev->ops->drain(dev);
}

static void reset(struct virtio_mmio *m)
{
	struct virtio_device *dev = m->dev;

	m->resetting = true;
	dev->running = false;	/* nothing new is begun while we wait */
	drain(dev);
	dev->ops->reset(dev);
	forget_driver(m);
	m->resetting = false;
}

static bool features_are_good(const struct virtio_device *dev)
{
	return !(dev->acked & ~dev->features) && dev->acked & VIRTIO_FEATURE_VERSION_1;
}

static void write_status(struct virtio_mmio *m, uint32_t value)
{
	struct virtio_device *dev = m->dev;
	uint32_t old = atomic_load(&m->status), set = value & 0xff & ~old;

	if (m->resetting)
		return;
	if (value == 0) {
		reset(m);
		return;
	}
	set &= ~(uint32_t)STATUS_NEEDS_RESET;
	if (set & STATUS_FEATURES_OK && !features_are_good(dev))
		set &= ~(uint32_t)STATUS_FEATURES_OK;	/* the driver reads back: 3.1.1 */
	if (!((old | set) & STATUS_FEATURES_OK))
		set &= ~(uint32_t)STATUS_DRIVER_OK;
	old |= atomic_fetch_or(&m->status, set);
	if (set & STATUS_DRIVER_OK && !(old & STATUS_NEEDS_RESET)) {
		dev->running = true;
		ring_all(m);	/* buffers may be waiting already */
	}
}

static void write_queue_ready(struct virtio_mmio *m, struct queue *q, bool ready)
{
	struct virtio_device *dev = m->dev;

	if (ready == q->ready)
		return;
	if (!ready) {
		q->ready = false;	/* pushes of requests under way are dropped ... */
		drain(dev);	/* ... and none touches its buffers after this */
		q->next_avail = q->next_used = 0;
		return;
	}
	q->event_idx = dev->acked & VIRTIO_FEATURE_EVENT_IDX;
	q->indirect = dev->acked & VIRTIO_FEATURE_INDIRECT;
	if (queue_start(q) < 0)
		virtio_broken(dev, "a queue lies outside guest memory or is misaligned");
}

static void set_half(uint64_t *v, bool high, uint32_t half)
{
	*v = high ? (*v & 0xffffffffu) | (uint64_t)half << 32 : (*v & ~0xffffffffull) | half;
}

/* Registers of the queue chosen by QueueSel. */
static void write_queue(struct virtio_mmio *m, uint64_t off, uint32_t value)
{
	struct queue *q;

	if (m->queue_sel >= m->dev->nqueues || m->resetting)
		return;
	q = &m->dev->queue[m->queue_sel];
	if (off == REG_QUEUE_READY) {
		write_queue_ready(m, q, value & 1);
		return;
	}
	if (q->ready)
		return;	/* 4.2.2.2: fixed while ready */
	switch (off) {
	case REG_QUEUE_NUM:
		q->size = (uint16_t)(value <= q->size_max ? value : 0);	/* 0: refused when made ready */
		break;
	case REG_QUEUE_DESC_LOW:
	case REG_QUEUE_DESC_HIGH:
		set_half(&q->desc, off == REG_QUEUE_DESC_HIGH, value);
		break;
	case REG_QUEUE_DRIVER_LOW:
	case REG_QUEUE_DRIVER_HIGH:
		set_half(&q->avail, off == REG_QUEUE_DRIVER_HIGH, value);
		break;
	case REG_QUEUE_DEVICE_LOW:
	case REG_QUEUE_DEVICE_HIGH:
		set_half(&q->used, off == REG_QUEUE_DEVICE_HIGH, value);
		break;
	default:
		break;
	}
}

static void write_driver_features(struct virtio_mmio *m, uint32_t value)
{
	if (atomic_load(&m->status) & STATUS_FEATURES_OK)
		return;	/* fixed by FEATURES_OK */
	if (m->driver_features_sel < 2)
		set_half(&m->dev->acked, m->driver_features_sel == 1, value);
	else if (value)
		m->dev->acked |= 1ull << 63;	/* offered by nobody: FEATURES_OK will fail */
}

static void write_config(struct virtio_mmio *m, uint64_t off, unsigned size, uint64_t value)
{
	struct virtio_device *dev = m->dev;
	uint64_t at = off - REG_CONFIG;

	/* The machine is little-endian, and so is config space. */
	if (dev->ops->config_write && at + size <= dev->config_len && !m->resetting)
		dev->ops->config_write(dev, (uint32_t)at, &value, size);
}

static void write_locked(struct virtio_mmio *m, uint64_t off, uint32_t value)
{
	switch (off) {
	case REG_DEVICE_FEATURES_SEL:
		m->device_features_sel = value;
		break;
	case REG_DRIVER_FEATURES_SEL:
		m->driver_features_sel = value;
		break;
	case REG_DRIVER_FEATURES:
		write_driver_features(m, value);
		break;
	case REG_QUEUE_SEL:
		m->queue_sel = value;
		break;
	case REG_STATUS:
		write_status(m, value);
		break;
	default:
		write_queue(m, off, value);
		break;
	}
}

static void mmio_write(void *ctx, uint64_t off, unsigned size, uint64_t value)
{
	struct virtio_mmio *m = ctx;

	if (off < REG_CONFIG && (size != 4 || off % 4))
		return;	/* 4.2.2.2: registers are accessed by aligned words */
	switch (off) {
	case REG_QUEUE_NOTIFY:
		if (value < m->dev->nqueues)
			ring(&m->notifier[value]);
		return;
	case REG_INTERRUPT_ACK:
		atomic_fetch_and(&m->interrupt_status, ~(uint32_t)value);
		return;
	default:
		break;
	}
	virtio_lock(m->dev);
	if (off >= REG_CONFIG)
		write_config(m, off, size, value);
	else
		write_locked(m, off, (uint32_t)value);
	virtio_unlock(m->dev);
}

static uint64_t read_config(const struct virtio_mmio *m, uint64_t off, unsigned size)
{
	const struct virtio_device *dev = m->dev;
	uint64_t at = off - REG_CONFIG, value = 0;

	if (at + size <= dev->config_len)
		memcpy(&value, (const uint8_t *)dev->config + at, size);
	return value;
}

static uint32_t read_locked(const struct virtio_mmio *m, uint64_t off)
{
	const struct virtio_device *dev = m->dev;
	bool has_queue = m->queue_sel < dev->nqueues;

	switch (off) {
	case REG_DEVICE_FEATURES:
		return m->device_features_sel < 2 ?
			(uint32_t)(dev->features >> 32 * m->device_features_sel) : 0;
	case REG_QUEUE_NUM_MAX:
		return has_queue ? dev->queue[m->queue_sel].size_max : 0;
	case REG_QUEUE_READY:
		return has_queue ? dev->queue[m->queue_sel].ready : 0;
	default:
		return 0;
	}
}

static uint64_t mmio_read(void *ctx, uint64_t off, unsigned size)
{
	struct virtio_mmio *m = ctx;
	uint64_t value;

	if (off < REG_CONFIG && (size != 4 || off % 4))
		return 0;
	switch (off) {
	case REG_MAGIC:
		return MAGIC;
	case REG_VERSION:
		return VERSION;
	case REG_DEVICE_ID:
		return m->dev->ops->id;
	case REG_VENDOR_ID:
		return VENDOR;
	case REG_INTERRUPT_STATUS:
		return atomic_load(&m->interrupt_status);
	case REG_STATUS:
		return atomic_load(&m->status);
	case REG_CONFIG_GENERATION:
		return atomic_load(&m->generation);
	case REG_SHM_LEN_LOW:
	case REG_SHM_LEN_HIGH:
	case REG_SHM_BASE_LOW:
	case REG_SHM_BASE_HIGH:
		return 0xffffffffu;	/* no region has any id */
	default:
		break;
	}
	virtio_lock(m->dev);
	value = off >= REG_CONFIG ? read_config(m, off, size) : read_locked(m, off);
	virtio_unlock(m->dev);
	return value;
}

static const struct bus_ops mmio_ops = { .read = mmio_read, .write = mmio_write };

struct bus_range virtio_mmio_range(struct virtio_mmio *m)
{
	return (struct bus_range){ .base = m->base, .size = VIRTIO_MMIO_WINDOW, .ops = &mmio_ops,
				   .dev = m, .name = m->dev->ops->name };
}

unsigned virtio_mmio_doorbells(struct virtio_mmio *m,
			       struct bus_doorbell ret_doorbells[VIRTIO_QUEUES_MAX])
{
	for (unsigned i = 0; i < m->dev->nqueues; i++)
		ret_doorbells[i] = (struct bus_doorbell){ .addr = m->base + REG_QUEUE_NOTIFY, .size = 4,
							  .match = true, .value = i,
							  .fd = m->notifier[i].fd };
	return m->dev->nqueues;
}

static int add_notifier(struct virtio_mmio *m, unsigned index, struct err *err)
{
	struct notifier *n = &m->notifier[index];

	n->mmio = m;
	n->index = index;
	n->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (n->fd < 0)
		return err_set(err, -errno, "eventfd: %s", strerror(errno));
	return loop_add_fd(m->dev->loop, n->fd, EPOLLIN, on_doorbell, n, &n->source, err);
}

int virtio_mmio_create(struct virtio_device *dev, const struct mem *mem, uint64_t base,
		       virtio_irq_fn irq, void *irq_ctx, struct virtio_mmio **ret_mmio,
		       struct err *err)
{
	struct virtio_mmio *m = calloc(1, sizeof(*m));
	int r;

	if (!m)
		return err_set(err, -ENOMEM, "%s: out of memory", dev->ops->name);
	m->dev = dev;
	m->base = base;
	m->irq = irq;
	m->irq_ctx = irq_ctx;
	for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++)
		m->notifier[i].fd = -1;
	for (unsigned i = 0; i < dev->nqueues; i++) {
		r = add_notifier(m, i, err);
		if (r < 0) {
			virtio_mmio_destroy(m);
			return err_prefix(err, r, "%s", dev->ops->name);
		}
		dev->queue[i].mem = mem;
	}
	virtio_lock(dev);
	dev->transport = (struct virtio_transport){ .queue_used = on_queue_used,
						    .config_changed = on_config_changed,
						    .needs_reset = on_needs_reset,
						    .ring = on_turn_over, .ctx = m };
	virtio_unlock(dev);
	*ret_mmio = m;
	return 0;
}

void virtio_mmio_destroy(struct virtio_mmio *m)
{
	if (!m)
		return;
	virtio_lock(m->dev);
	reset(m);
	m->dev->transport = (struct virtio_transport){ 0 };
	virtio_unlock(m->dev);
	for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++) {
		loop_remove(m->notifier[i].source);
		if (m->notifier[i].fd >= 0)
			(void)close(m->notifier[i].fd);
	}
	free(m);
}

static void save_queue(const struct queue *q, struct blob *out)
{
	blob_put_u64(out, q->desc);
	blob_put_u64(out, q->avail);
	blob_put_u64(out, q->used);
	blob_put_u16(out, q->size);
	blob_put_u16(out, q->ready);
	blob_put_u16(out, q->next_avail);
	blob_put_u16(out, q->next_used);
}

void virtio_mmio_pause(struct virtio_mmio *m)
{
	virtio_lock(m->dev);
	m->dev->paused = true;
	drain(m->dev);
	virtio_unlock(m->dev);
}

void virtio_mmio_resume(struct virtio_mmio *m)
{
	virtio_lock(m->dev);
	m->dev->paused = false;
	ring_all(m);	/* a doorbell may have been answered with nothing meanwhile */
	virtio_unlock(m->dev);
}

void virtio_mmio_save(struct virtio_mmio *m, struct blob *out)
{
	struct virtio_device *dev = m->dev;
	struct blob own = { 0 };

	virtio_lock(dev);
	/* First, as the device may answer requests it cannot save. */
	if (dev->ops->save)
		dev->ops->save(dev, &own);
	blob_put_u32(out, STATE_VERSION);
	blob_put_u32(out, dev->ops->id);
	blob_put_u64(out, dev->acked);
	blob_put_u32(out, atomic_load(&m->status));
	blob_put_u32(out, atomic_load(&m->interrupt_status));
	blob_put_u32(out, atomic_load(&m->generation));
	blob_put_u32(out, m->device_features_sel);
	blob_put_u32(out, m->driver_features_sel);
	blob_put_u32(out, m->queue_sel);
	blob_put_u32(out, dev->running);
	blob_put_u32(out, dev->nqueues);
	for (unsigned i = 0; i < dev->nqueues; i++)
		save_queue(&dev->queue[i], out);
	blob_put(out, own.bytes, own.len);
	out->failed |= own.failed;
	blob_finish(&own);
	virtio_unlock(dev);
}

static int restore_queue(struct virtio_device *dev, struct queue *q, struct blob_reader *in)
{
	bool ready;

	q->desc = blob_take_u64(in);
	q->avail = blob_take_u64(in);
	q->used = blob_take_u64(in);
	q->size = blob_take_u16(in);
	ready = blob_take_u16(in);
	q->next_avail = blob_take_u16(in);
	q->next_used = blob_take_u16(in);
	q->event_idx = dev->acked & VIRTIO_FEATURE_EVENT_IDX;
	q->indirect = dev->acked & VIRTIO_FEATURE_INDIRECT;
	return ready ? queue_start(q) : 0;
}

static int restore_locked(struct virtio_mmio *m, struct blob_reader *in)
{
	struct virtio_device *dev = m->dev;
	int r, changed = 0;
	bool running;

	if (blob_take_u32(in) != STATE_VERSION || blob_take_u32(in) != dev->ops->id)
		return -EINVAL;
	dev->acked = blob_take_u64(in);
	atomic_store(&m->status, blob_take_u32(in));
	atomic_store(&m->interrupt_status, blob_take_u32(in));
	atomic_store(&m->generation, blob_take_u32(in));
	m->device_features_sel = blob_take_u32(in);
	m->driver_features_sel = blob_take_u32(in);
	m->queue_sel = blob_take_u32(in);
	running = blob_take_u32(in);
	if (dev->acked & ~dev->features || blob_take_u32(in) != dev->nqueues)
		return -EINVAL;
	for (unsigned i = 0; i < dev->nqueues; i++) {
		r = restore_queue(dev, &dev->queue[i], in);
		if (r < 0)
			return r;
	}
	if (dev->ops->restore) {
		changed = dev->ops->restore(dev, in);
		if (changed < 0)
			return changed;
	}
	if (in->failed)
		return -EINVAL;
	dev->running = running;
	return changed;
}

int virtio_mmio_restore(struct virtio_mmio *m, struct blob_reader *in, struct err *err)
{
	struct virtio_device *dev = m->dev;
	int r;

	virtio_lock(dev);
	reset(m);
	r = restore_locked(m, in);
	if (r < 0) {
		reset(m);
		virtio_unlock(dev);
		return err_set(err, r, "%s: saved state does not fit this device", dev->ops->name);
	}
	ring_all(m);	/* whatever the driver offered meanwhile */
	if (atomic_load(&m->interrupt_status))
		m->irq(m->irq_ctx);	/* the edge may have been lost with the old machine */
	virtio_unlock(dev);
	return r;
}
