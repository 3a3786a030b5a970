/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Device side of a split virtqueue (VIRTIO 1.2, 2.7), with indirect descriptors
 * and event indices.
 *
 *   driver -> avail ring -> queue_pop() -> struct chain -> device works on it
 *   driver <- used ring  <- queue_push() <--------------------------'
 *             interrupt  <- queue_wants_interrupt()
 *
 * The rings are the guest's memory: every index, length and link in them is
 * checked on a copy.  queue_pop() turns a whole chain into host vectors at once
 * and visits a bounded number of descriptors, so a chain that loops ends in an
 * error.
 *
 * Threads: the owner of the device's lock (virtio/device.h) uses the queue.
 */
#ifndef VIRTIO_QUEUE_H
#define VIRTIO_QUEUE_H

#include "vmm/guest_mem.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#define QUEUE_SIZE_MAX 1024u	/* entries; the largest any device of ours offers */
#define CHAIN_SEGS_MAX 512u	/* buffers a chain may have after adjoining ones are merged */

/* One request: what the device may read, then what it may write. */
struct chain {
	uint16_t head;	/* names the chain in the used ring */
	uint32_t starts;	/* the queue's when it was popped */
	unsigned nread, nwrite;	/* entries of iov[]: readable first, then writable */
	uint32_t read_len, write_len;	/* bytes */
	struct iovec iov[CHAIN_SEGS_MAX];	/* borrowed guest bytes */
	gpa_t gpa[CHAIN_SEGS_MAX];	/* of each entry */
};

struct queue {
	/* Set by the transport before queue_start(). */
	const struct mem *mem;	/* borrowed */
	gpa_t desc, avail, used;	/* as the driver wrote them */
	uint16_t size;	/* entries, a power of two */
	uint16_t size_max;
	bool event_idx, indirect;	/* features negotiated */

	/* Private. */
	bool ready;
	uint32_t starts;	/* times the queue was started: chains from before belong to nobody */
	const uint8_t *desc_host, *avail_host;	/* guest memory never moves */
	uint8_t *used_host;
	uint16_t next_avail, next_used;	/* free-running, modulo 2^16 */
	uint16_t signalled;	/* next_used when the last interrupt was considered */
	bool signalled_valid;
};

/*
 * Checks size and addresses and makes the queue ready, going on at next_avail
 * and next_used.  0, or -EINVAL when size or alignment is against the spec or a
 * ring lies outside guest memory.
 */
int queue_start(struct queue *queue);

/* Back to the state before the driver touched it; keeps mem and size_max. */
void queue_reset(struct queue *queue);

/*
 * Takes the next available chain.  Returns 1 and fills @ret_chain, 0 when there
 * is none (and asks the driver to notify about the next), -EPROTO for a ring
 * index, link, length or flag against the spec, or a loop, -EFAULT for a buffer
 * outside guest memory.  After an error the device is broken.
 */
int queue_pop(struct queue *queue, struct chain *ret_chain);

/* Gives back the chain popped last, as if it had not been popped; again, the one before. */
void queue_unpop(struct queue *queue);

/* True when queue_pop() would find something. */
bool queue_pending(const struct queue *queue);

/*
 * Returns @chain to the driver, telling it that the first @written bytes of the
 * writable part were written.  Reports the write to mem_wrote() first.  When the
 * queue was stopped meanwhile, also if it was started again, that is all it does.
 */
void queue_push(struct queue *queue, const struct chain *chain, uint32_t written);

/* A chain of several that are returned together: what its struct chain is not needed for any more. */
struct queue_done {
	uint16_t head;
	uint32_t written;	/* bytes, reported by queue_wrote() already */
};

/*
 * Returns @n chains, all popped since the queue was started, at once: the driver
 * sees none of them or all.  At most size of the queue.
 */
void queue_push_all(struct queue *queue, const struct queue_done *done, unsigned n);

/* False when the queue was stopped since @chain was popped. */
bool queue_owns(const struct queue *queue, const struct chain *chain);

/*
 * Reports the first @len writable bytes of @chain to mem_wrote().  Only for
 * buffers that were written further than queue_push() will be told.
 */
void queue_wrote(const struct queue *queue, const struct chain *chain, uint32_t len);

/* True when the driver wants an interrupt for what was pushed since the last call. */
bool queue_wants_interrupt(struct queue *queue);

/* Copies up to @len bytes at @off of the readable part; returns the bytes copied. */
size_t chain_read(const struct chain *chain, size_t off, void *buf, size_t len);

/* Copies up to @len bytes to @off of the writable part; returns the bytes copied. */
size_t chain_write(const struct chain *chain, size_t off, const void *buf, size_t len);

/*
 * Cuts bytes [@off, @off + @len) out of the readable or writable part into
 * @ret_iov, which has CHAIN_SEGS_MAX entries.  Returns the number of entries;
 * fewer bytes than @len when the part ends before.
 */
unsigned chain_slice_read(const struct chain *chain, size_t off, size_t len, struct iovec *ret_iov);
unsigned chain_slice_write(const struct chain *chain, size_t off, size_t len, struct iovec *ret_iov);

#endif /* VIRTIO_QUEUE_H */
