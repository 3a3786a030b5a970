/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Moves requests between the queues and the FUSE server.
 *
 *   popped --> performed on the loop thread --> pushed
 *                 |            |
 *                 |            '-- a lock is busy: parked, tried again when one
 *                 |                may have been dropped, and by a timer because
 *                 |                other processes drop theirs unannounced
 *                 '--------------- would wait: performed on the pool --> pushed
 *
 * Requests run without the device's lock; `busy` counts them, and drain waits
 * for zero.
 */
#include "virtio/fs/fs.h"

#include "os/err.h"
#include "os/loop.h"
#include "os/pool.h"
#include "virtio/fs/fuse.h"

#include <endian.h>
#include <errno.h>
#include <linux/virtio_fs.h>
#include <stdlib.h>
#include <string.h>

#define WORKERS_DEFAULT 2u
#define QUEUE_SIZE 512u	/* a request of FUSE_PAGES_MAX pages fits without indirect ones */
#define RETRY_MIN_NS 2000000ull
#define RETRY_MAX_NS 50000000ull

struct fs_request {
	struct pool_job job;	/* first: see on_pool() */
	struct fs *fs;
	struct fs_request *next;	/* in fs->parked or fs->spare */
	unsigned queue;
	struct chain chain;
	struct request fuse;
};

struct fs {
	struct virtio_device dev;	/* first */
	struct virtio_fs_config config;
	struct share *share;	/* owned */
	struct pool *pool;	/* owned */
	struct loop_source *retry;

	/* Under dev.lock. */
	pthread_cond_t idle;	/* busy became 0 */
	unsigned busy;	/* requests being performed */
	struct fs_request *parked;	/* waiting for a lock; oldest first */
	struct fs_request *spare;
	uint64_t retry_ns;	/* delay of the timer; 0: not armed */
};

static struct fs *fs_of(struct virtio_device *dev)
{
	return (struct fs *)dev;
}

static struct fs_request *take_spare(struct fs *fs)
{
	struct fs_request *r = fs->spare;

	if (r)
		fs->spare = r->next;
	else
		r = malloc(sizeof(*r));
	if (r)
		r->fs = fs;
	return r;
}

static void give_spare(struct fs *fs, struct fs_request *r)
{
	r->next = fs->spare;
	fs->spare = r;
}

static void finish(struct fs *fs, struct fs_request *r, int64_t written)
{
	/* A read may have filled pages before it failed. */
	if (r->fuse.in.opcode == FUSE_READ && written == (int64_t)sizeof(struct fuse_out_header))
		queue_wrote(&fs->dev.queue[r->queue], &r->chain, r->chain.write_len);
	virtio_push(&fs->dev, r->queue, &r->chain, (uint32_t)written);
	give_spare(fs, r);
}

static void end_busy(struct fs *fs)
{
	if (--fs->busy == 0)
		(void)pthread_cond_broadcast(&fs->idle);
}

static void arm_retry(struct fs *fs, uint64_t delay_ns)
{
	fs->retry_ns = delay_ns;
	(void)loop_set_timer(fs->retry, delay_ns, 0);
}

static void park(struct fs *fs, struct fs_request *r)
{
	struct fs_request **end = &fs->parked;

	while (*end)
		end = &(*end)->next;
	r->next = NULL;
	*end = r;
	if (!fs->retry_ns)
		arm_retry(fs, RETRY_MIN_NS);
}

static void on_pool(struct pool_job *job)
{
	struct fs_request *r = (struct fs_request *)job;
	struct fs *fs = r->fs;
	int64_t written;

	r->fuse.may_wait = true;
	written = request_perform(&r->fuse);
	virtio_lock(&fs->dev);
	finish(fs, r, written);
	end_busy(fs);
	virtio_unlock(&fs->dev);
}

/* Performs a request and disposes of it.  Lock held, dropped meanwhile. */
static void perform(struct fs *fs, struct fs_request *r)
{
	int64_t written;

	fs->busy++;
	virtio_unlock(&fs->dev);
	written = request_perform(&r->fuse);
	if (written == REQUEST_NEEDS_WAIT) {
		r->job.run = on_pool;
		if (pool_submit(fs->pool, &r->job) == 0) {
			virtio_lock(&fs->dev);
			return;	/* still busy */
		}
		r->fuse.may_wait = true;	/* no thread to be had: better slow than not */
		written = request_perform(&r->fuse);
	}
	virtio_lock(&fs->dev);
	if (written == REQUEST_LOCK_BUSY)
		park(fs, r);
	else
		finish(fs, r, written);
	end_busy(fs);
}

/* Tries every parked request once; those still busy park again, in order. */
static void retry_parked(struct fs *fs)
{
	struct fs_request *list = fs->parked, *next;

	fs->parked = NULL;
	for (; list; list = next) {
		next = list->next;
		if (fs->dev.running && !fs->dev.paused)
			perform(fs, list);
		else
			park(fs, list);
	}
}

static void on_retry(void *ctx)
{
	struct fs *fs = ctx;
	uint64_t delay;

	virtio_lock(&fs->dev);
	delay = fs->retry_ns * 2 < RETRY_MAX_NS ? fs->retry_ns * 2 : RETRY_MAX_NS;
	retry_parked(fs);
	arm_retry(fs, fs->parked ? delay : 0);
	virtio_unlock(&fs->dev);
}

/* FUSE_INTERRUPT: a process gave up waiting.  Only locks are waited for. */
static void interrupt(struct fs *fs, uint64_t unique)
{
	for (struct fs_request **at = &fs->parked; *at; at = &(*at)->next) {
		struct fs_request *r = *at;

		if (r->fuse.in.unique != unique)
			continue;
		*at = r->next;
		finish(fs, r, request_fail(&r->fuse, -EINTR));
		return;
	}
}

static void serve(struct fs *fs, struct fs_request *r)
{
	struct fuse_interrupt_in in;
	bool unlocks;

	if (request_read(&r->fuse, fs->share, &r->chain) < 0) {
		virtio_push(&fs->dev, r->queue, &r->chain, 0);	/* no header: nobody to answer */
		give_spare(fs, r);
		return;
	}
	if (r->fuse.in.opcode == FUSE_INTERRUPT) {
		if (r->fuse.args_len >= sizeof(in)) {
			memcpy(&in, r->fuse.args, sizeof(in));
			interrupt(fs, in.unique);
		}
		finish(fs, r, 0);
		return;
	}
	unlocks = request_may_unlock(&r->fuse);
	perform(fs, r);
	if (unlocks && fs->parked)
		retry_parked(fs);
}

static void fs_notified(struct virtio_device *dev, unsigned index)
{
	struct fs *fs = fs_of(dev);

	for (;;) {
		struct fs_request *r = take_spare(fs);

		if (!r) {
			virtio_broken(dev, "out of host memory");
			return;
		}
		r->queue = index;
		if (!virtio_pop(dev, index, &r->chain)) {
			give_spare(fs, r);
			return;
		}
		serve(fs, r);
	}
}

static void fs_drain(struct virtio_device *dev)
{
	struct fs *fs = fs_of(dev);

	while (fs->busy)
		(void)pthread_cond_wait(&fs->idle, &dev->lock);
}

static void fs_reset(struct virtio_device *dev)
{
	struct fs *fs = fs_of(dev);
	struct fs_request *r;

	while ((r = fs->parked)) {
		fs->parked = r->next;
		give_spare(fs, r);
	}
	share_reset(fs->share);
}

/* Requests that wait for a lock cannot travel: their callers may ask again. */
static void fs_save(struct virtio_device *dev, struct blob *out)
{
	struct fs *fs = fs_of(dev);
	struct fs_request *r;

	while ((r = fs->parked)) {
		fs->parked = r->next;
		finish(fs, r, request_fail(&r->fuse, -EINTR));
	}
	share_save(fs->share, out);
}

static int fs_restore(struct virtio_device *dev, struct blob_reader *in)
{
	return share_restore(fs_of(dev)->share, in);
}

void virtio_fs_reads(struct virtio_device *dev, virtio_fs_read_fn fn, void *ctx)
{
	share_reads(fs_of(dev)->share, fn, ctx);
}

void virtio_fs_forget_reads(struct virtio_device *dev)
{
	share_forget_reads(fs_of(dev)->share);
}

uint64_t virtio_fs_bytes_read(struct virtio_device *dev)
{
	struct share *s = fs_of(dev)->share;
	uint64_t bytes;

	(void)pthread_mutex_lock(&s->lock);
	bytes = s->bytes_read;
	(void)pthread_mutex_unlock(&s->lock);
	return bytes;
}

const char *virtio_fs_lost(struct virtio_device *dev)
{
	return fs_of(dev)->share->lost;
}

static void free_list(struct fs_request *r)
{
	struct fs_request *next;

	for (; r; r = next) {
		next = r->next;
		free(r);
	}
}

static void fs_destroy(struct virtio_device *dev)
{
	struct fs *fs = fs_of(dev);

	pool_destroy(fs->pool);
	loop_remove(fs->retry);
	free_list(fs->parked);
	free_list(fs->spare);
	share_destroy(fs->share);
	(void)pthread_cond_destroy(&fs->idle);
	virtio_device_finish(dev);
	free(fs);
}

static const struct virtio_device_ops fs_ops = {
	.name = "virtio-fs",
	.id = 26,
	.nqueues = 2,
	.queue_size = { QUEUE_SIZE, QUEUE_SIZE },
	.notified = fs_notified,
	.drain = fs_drain,
	.reset = fs_reset,
	.save = fs_save,
	.restore = fs_restore,
	.destroy = fs_destroy,
};

int virtio_fs_create(struct loop *loop, const struct virtio_fs_options *opt,
		     struct virtio_device **ret_dev, struct err *err)
{
	size_t tag_len = opt->tag ? strlen(opt->tag) : 0;
	struct fs *fs;
	int r;

	if (tag_len == 0 || tag_len > sizeof(fs->config.tag))
		return err_set(err, -EINVAL, "share '%s': the tag must have 1 to %zu bytes", opt->path,
			       sizeof(fs->config.tag));
	fs = calloc(1, sizeof(*fs));
	if (!fs)
		return err_set(err, -ENOMEM, "share '%s': out of memory", opt->path);
	virtio_device_init(&fs->dev, &fs_ops, loop, 0);
	(void)pthread_cond_init(&fs->idle, NULL);
	fs->dev.config = &fs->config;
	fs->dev.config_len = sizeof(fs->config);
	memcpy(fs->config.tag, opt->tag, tag_len);
	fs->config.num_request_queues = htole32(1);
	r = share_create(opt, &fs->share, err);
	if (r == 0)
		r = pool_create(opt->workers ? opt->workers : WORKERS_DEFAULT, &fs->pool, err);
	if (r == 0)
		r = loop_add_timer(loop, on_retry, fs, &fs->retry, err);
	if (r < 0) {
		fs_destroy(&fs->dev);
		return r;
	}
	*ret_dev = &fs->dev;
	return 0;
}
