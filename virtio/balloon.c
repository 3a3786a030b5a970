/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Giving pages up costs the host far more than the guest pays to offer them, so a
 * chain counts for as many of the device's turn as it has pages to give up.
 */
#include "virtio/balloon.h"

#include "base/checked.h"
#include "os/blob.h"
#include "os/err.h"
#include "os/loop.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FEATURE_STATS (1ull << 1)
#define FEATURE_DEFLATE_ON_OOM (1ull << 2)
#define FEATURE_REPORTING (1ull << 5)

#define PAGES_MAX 4096u	/* page numbers in a chain; Linux sends 256 */
#define BATCH 256u	/* that are copied at once */
#define STATS_MAX 64u	/* entries looked at; there are ten kinds */
#define STAT_BYTES 10u	/* le16 tag, le64 value, not padded (5.5.6.3) */
#define LARGE_PAGE (2u << 20)
#define RESERVE ((32u << 20) / MEM_PAGE)	/* pages that the guest keeps for what it starts next */
#define PERIOD_NS 1000000000ull	/* between looks at what the guest can spare by now */

enum { QUEUE_INFLATE, QUEUE_DEFLATE, QUEUE_STATS, QUEUE_3, QUEUE_4, QUEUES };

enum { STAT_FREE = 4, STAT_TOTAL = 5, STAT_AVAILABLE = 6 };

/* The part of config space that there is without hints and poison (5.5.4). */
struct balloon_config {
	uint32_t num_pages;	/* the host asks for */
	uint32_t actual;	/* the driver says it has given up; the only part it writes */
};

struct balloon {
	struct virtio_device dev;	/* first */
	struct balloon_config config;
	uint32_t wanted;	/* pages; config.num_pages goes there in steps */
	struct virtio_balloon_state state;	/* but for what config and @wanted have */
	struct loop_source *timer;	/* runs until all that is wanted was asked for */
	struct chain chain;	/* the request being served */
	struct chain stats;	/* the buffer that is kept, when @has_stats */
	bool has_stats;
};

static struct balloon *balloon_of(struct virtio_device *dev)
{
	return (struct balloon *)dev;
}

static void charge(struct virtio_device *dev, uint64_t chains)
{
	dev->turn -= chains < dev->turn ? (unsigned)chains : dev->turn;
}

/* ----------------------------------------------------------------- inflating */

/* A run of pages; a driver that allocates them one by one often gets neighbours. */
struct run {
	uint64_t first, n;	/* in pages */
};

static bool run_takes(struct run *run, uint64_t page)
{
	if (page == run->first + run->n) {
		run->n++;
	} else if (page + 1 == run->first) {
		run->first--;
		run->n++;
	} else {
		return false;
	}
	return true;
}

static int run_discard(struct balloon *b, const struct run *run)
{
	charge(&b->dev, 1 + run->n * MEM_PAGE / LARGE_PAGE);
	return mem_discard(b->dev.queue[QUEUE_INFLATE].mem, run->first * MEM_PAGE, run->n * MEM_PAGE);
}

/* The chain carries le32 page numbers (5.5.6.1). */
static int inflate(struct balloon *b)
{
	struct run run = { 0, 0 };
	uint32_t page[BATCH];
	int r = 0;

	if (b->chain.read_len % sizeof(page[0]) || b->chain.read_len > PAGES_MAX * sizeof(page[0]))
		return -EPROTO;
	for (size_t off = 0; off < b->chain.read_len;) {
		size_t n = chain_read(&b->chain, off, page, sizeof(page));

		off += n;
		for (size_t i = 0; i < n / sizeof(page[0]) && r == 0; i++) {
			if (run.n && run_takes(&run, page[i]))
				continue;
			if (run.n)
				r = run_discard(b, &run);
			run = (struct run){ page[i], 1 };
		}
		if (r < 0)
			return r;
	}
	return run.n ? run_discard(b, &run) : 0;
}

/* ----------------------------------------------------------------- reporting */

/* The chain's writable part is the free pages themselves (5.5.6.7). */
static int discard_reported(struct balloon *b, unsigned index)
{
	const struct chain *c = &b->chain;
	int r = 0;

	charge(&b->dev, c->write_len / LARGE_PAGE);
	for (unsigned i = c->nread; i < c->nread + c->nwrite && r == 0; i++) {
		r = mem_discard(b->dev.queue[index].mem, c->gpa[i], c->iov[i].iov_len);
		if (r == 0)
			b->state.reported += c->iov[i].iov_len;
	}
	return r;
}

/* ---------------------------------------------------------------- statistics */

static void read_stats(struct balloon *b)
{
	uint8_t entry[STAT_BYTES];

	b->state.total = b->state.free = b->state.available = 0;
	for (unsigned i = 0; i < STATS_MAX; i++) {
		uint64_t value;
		uint16_t tag;

		if (chain_read(&b->stats, i * sizeof(entry), entry, sizeof(entry)) < sizeof(entry))
			return;
		memcpy(&tag, entry, sizeof(tag));
		memcpy(&value, entry + sizeof(tag), sizeof(value));
		if (tag == STAT_TOTAL)
			b->state.total = value;
		else if (tag == STAT_FREE)
			b->state.free = value;
		else if (tag == STAT_AVAILABLE)
			b->state.available = value;
	}
}

/* Returning the buffer asks for new ones (5.5.6.3). */
static void return_stats(struct balloon *b)
{
	if (b->has_stats && b->dev.running)
		virtio_push(&b->dev, QUEUE_STATS, &b->stats, 0);
	b->has_stats = false;
}

/* Asks for as much of what is wanted as the guest can spare by its last statistics. */
static void ask(struct balloon *b)
{
	uint64_t spare = b->state.available / MEM_PAGE, pages = b->wanted;

	spare = spare > RESERVE ? spare - RESERVE : 0;
	if (b->dev.acked & FEATURE_STATS && pages > b->config.actual + spare)
		pages = b->config.actual + spare;
	if (pages != b->config.num_pages) {
		b->config.num_pages = (uint32_t)pages;
		virtio_config_changed(&b->dev);
	}
	(void)loop_set_timer(b->timer, pages == b->wanted ? 0 : PERIOD_NS, 0);
}

/* Its statistics of now make it ask for more. */
static void on_timer(void *ctx)
{
	struct balloon *b = ctx;

	virtio_lock(&b->dev);
	return_stats(b);
	virtio_unlock(&b->dev);
}

static void take_stats(struct balloon *b)
{
	return_stats(b);	/* a driver has one; whoever offers more gets the older one back */
	b->stats = b->chain;
	b->has_stats = true;
	read_stats(b);
	ask(b);
}

/* -------------------------------------------------------------------- device */

/*
 * The spec gives free page reporting queue 4, behind the one of hints (5.5.2); Linux
 * counts the queues that there are, so that without hints it has number 3.  A driver
 * that does without statistics moves it to 2 in the same way.
 */
static bool is_reporting(const struct virtio_device *dev, unsigned index)
{
	return index >= QUEUE_3 || (index == QUEUE_STATS && !(dev->acked & FEATURE_STATS));
}

static const char *complaint(int error)
{
	switch (error) {
	case -EFAULT:
		return "a page lies outside guest memory";
	case -EINVAL:
		return "free memory is not reported in whole pages";
	case -EPROTO:
		return "a list of pages is malformed or too long";
	default:
		return "the host does not take a page back";
	}
}

static void balloon_notified(struct virtio_device *dev, unsigned index)
{
	struct balloon *b = balloon_of(dev);

	while (virtio_pop(dev, index, &b->chain)) {
		int r = 0;

		if (is_reporting(dev, index)) {
			r = dev->acked & FEATURE_REPORTING ? discard_reported(b, index) : 0;
		} else if (index == QUEUE_STATS) {
			take_stats(b);
			continue;
		} else if (index == QUEUE_INFLATE) {
			r = inflate(b);
		}
		if (r < 0) {
			virtio_broken(dev, complaint(r));
			return;
		}
		queue_push(&dev->queue[index], &b->chain, 0);
	}
	virtio_interrupt(dev, index);
}

static void balloon_config_write(struct virtio_device *dev, uint32_t off, const void *bytes, uint32_t len)
{
	struct balloon_config *c = &balloon_of(dev)->config;

	if (range_ok(off - offsetof(struct balloon_config, actual), len, sizeof(c->actual)))
		memcpy((uint8_t *)c + off, bytes, len);
}

/* What it gave up is its own again; the next driver's first statistics make it give up what is still wanted. */
static void balloon_reset(struct virtio_device *dev)
{
	struct balloon *b = balloon_of(dev);

	b->has_stats = false;
	b->config.num_pages = b->config.actual = 0;
	b->state.total = b->state.free = b->state.available = 0;
}

static void balloon_save(struct virtio_device *dev, struct blob *out)
{
	struct balloon *b = balloon_of(dev);

	return_stats(b);	/* the driver offers it again */
	blob_put_u32(out, b->wanted);
	blob_put_u32(out, b->config.num_pages);
	blob_put_u32(out, b->config.actual);
}

static int balloon_restore(struct virtio_device *dev, struct blob_reader *in)
{
	struct balloon *b = balloon_of(dev);

	b->wanted = blob_take_u32(in);
	b->config.num_pages = blob_take_u32(in);
	b->config.actual = blob_take_u32(in);
	return in->failed ? -EINVAL : 0;
}

static void balloon_destroy(struct virtio_device *dev)
{
	loop_remove(balloon_of(dev)->timer);
	virtio_device_finish(dev);
	free(dev);
}

static const struct virtio_device_ops balloon_ops = {
	.name = "virtio-balloon",
	.id = 5,
	.nqueues = QUEUES,
	/* Linux reports 32 pieces in a chain, and wants room for as many descriptors. */
	.queue_size = { 64, 64, 64, 64, 64 },
	.notified = balloon_notified,
	.config_write = balloon_config_write,
	.reset = balloon_reset,
	.save = balloon_save,
	.restore = balloon_restore,
	.destroy = balloon_destroy,
};

int virtio_balloon_create(struct loop *loop, bool yield, struct virtio_device **ret_dev, struct err *err)
{
	struct balloon *b = calloc(1, sizeof(*b));
	int r;

	if (!b)
		return err_set(err, -ENOMEM, "virtio-balloon: out of memory");
	r = loop_add_timer(loop, on_timer, b, &b->timer, err);
	if (r < 0) {
		free(b);
		return err_prefix(err, r, "virtio-balloon");
	}
	virtio_device_init(&b->dev, &balloon_ops, loop,
			   FEATURE_STATS | FEATURE_REPORTING | (yield ? FEATURE_DEFLATE_ON_OOM : 0));
	b->dev.config = &b->config;
	b->dev.config_len = sizeof(b->config);
	*ret_dev = &b->dev;
	return 0;
}

int virtio_balloon_want(struct virtio_device *dev, uint64_t bytes)
{
	struct balloon *b = balloon_of(dev);
	uint64_t pages = bytes / MEM_PAGE;
	int r = -ENOTCONN;

	virtio_lock(dev);
	if (dev->running) {
		b->wanted = pages > UINT32_MAX ? UINT32_MAX : (uint32_t)pages;
		b->state.available = 0;	/* old by now: more is asked for when there are new ones */
		ask(b);
		return_stats(b);
		r = 0;
	}
	virtio_unlock(dev);
	return r;
}

void virtio_balloon_get(struct virtio_device *dev, struct virtio_balloon_state *ret_state)
{
	struct balloon *b = balloon_of(dev);

	virtio_lock(dev);
	*ret_state = b->state;
	ret_state->wanted = (uint64_t)b->wanted * MEM_PAGE;
	ret_state->given = (uint64_t)b->config.actual * MEM_PAGE;
	return_stats(b);
	virtio_unlock(dev);
}
