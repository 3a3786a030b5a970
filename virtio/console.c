/* SPDX-License-Identifier: Apache-2.0 */
#include "virtio/console.h"

#include "os/blob.h"
#include "os/err.h"
#include "os/loop.h"

#include <endian.h>
#include <errno.h>
#include <linux/virtio_console.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { QUEUE_RECEIVE, QUEUE_TRANSMIT };

#define INPUT_BYTES 4096u
#define FEATURE_SIZE (1ull << VIRTIO_CONSOLE_F_SIZE)

struct console {
	struct virtio_device dev;	/* first */
	struct virtio_console_host host;
	struct virtio_console_config config;

	uint8_t input[INPUT_BYTES];	/* a ring */
	size_t input_at, input_len;	/* first byte, bytes */
	bool input_refused;	/* somebody waits for input_room() */

	struct chain out;	/* being sent while out_busy */
	size_t out_done;	/* bytes of it taken by the host */
	bool out_busy;
	struct chain in;

	/* Descriptor mode only. */
	int in_fd, out_fd;	/* borrowed, -1 when absent */
	struct loop_source *in_source, *out_source;
};

static struct console *console_of(struct virtio_device *dev)
{
	return (struct console *)dev;
}

/* Moves buffered input into the guest's buffers. */
static void deliver(struct console *c)
{
	struct virtio_device *dev = &c->dev;
	bool moved = false;

	while (c->input_len && virtio_pop(dev, QUEUE_RECEIVE, &c->in)) {
		size_t run = INPUT_BYTES - c->input_at, n;

		if (run > c->input_len)
			run = c->input_len;
		n = chain_write(&c->in, 0, c->input + c->input_at, run);
		c->input_at = (c->input_at + n) % INPUT_BYTES;
		c->input_len -= n;
		queue_push(&dev->queue[QUEUE_RECEIVE], &c->in, (uint32_t)n);
		moved = true;
	}
	if (moved)
		virtio_interrupt(dev, QUEUE_RECEIVE);
	if (c->input_refused && c->input_len < INPUT_BYTES) {
		c->input_refused = false;
		if (c->host.input_room)
			c->host.input_room(c->host.ctx);
	}
}

/* Offers the rest of the current request to the host; true when all was taken. */
static bool send(struct console *c)
{
	struct iovec iov[CHAIN_SEGS_MAX];
	unsigned n = chain_slice_read(&c->out, c->out_done, c->out.read_len, iov);

	for (unsigned i = 0; i < n; i++) {
		size_t took = c->host.output(c->host.ctx, iov[i].iov_base, iov[i].iov_len);

		c->out_done += took;
		if (took < iov[i].iov_len)
			return false;
	}
	return true;
}

/* A request half sent; not one whose buffers the driver took back by stopping the queue. */
static bool has_request(const struct console *c)
{
	return c->out_busy && queue_owns(&c->dev.queue[QUEUE_TRANSMIT], &c->out);
}

static void transmit(struct console *c)
{
	struct virtio_device *dev = &c->dev;
	bool moved = false;

	c->out_busy = has_request(c);
	while (c->out_busy || virtio_pop(dev, QUEUE_TRANSMIT, &c->out)) {
		if (!c->out_busy)
			c->out_done = 0;
		c->out_busy = !send(c);
		if (c->out_busy)
			break;
		queue_push(&dev->queue[QUEUE_TRANSMIT], &c->out, 0);
		moved = true;
	}
	if (moved)
		virtio_interrupt(dev, QUEUE_TRANSMIT);
}

static void console_notified(struct virtio_device *dev, unsigned index)
{
	if (index == QUEUE_RECEIVE)
		deliver(console_of(dev));
	else
		transmit(console_of(dev));
}

static void console_reset(struct virtio_device *dev)
{
	console_of(dev)->out_busy = false;	/* input waits for the next driver */
}

/* A request half sent goes on with its rest: the host saw the beginning. */
static void console_save(struct virtio_device *dev, struct blob *out)
{
	const struct console *c = console_of(dev);

	blob_put_u32(out, has_request(c));
	blob_put_u16(out, c->out.head);
	blob_put_u32(out, (uint32_t)c->out_done);
	blob_put_u32(out, (uint32_t)c->input_len);
	for (size_t i = 0; i < c->input_len; i++)
		blob_put(out, &c->input[(c->input_at + i) % INPUT_BYTES], 1);
}

static int console_restore(struct virtio_device *dev, struct blob_reader *in)
{
	struct console *c = console_of(dev);
	bool busy = blob_take_u32(in);
	uint32_t len;
	const void *bytes;

	(void)blob_take_u16(in);	/* the chain is found again through the ring */
	c->out_done = blob_take_u32(in);
	len = blob_take_u32(in);
	if (len > INPUT_BYTES)
		return -EINVAL;
	bytes = blob_take(in, len);
	if (!bytes)
		return -EINVAL;
	memcpy(c->input, bytes, len);
	c->input_at = 0;
	c->input_len = len;
	if (busy) {
		/* One request is out at a time, so it is the one popped last. */
		queue_unpop(&dev->queue[QUEUE_TRANSMIT]);
		if (queue_pop(&dev->queue[QUEUE_TRANSMIT], &c->out) != 1)
			return -EINVAL;
		c->out_busy = true;
	}
	return 0;
}

static void console_destroy(struct virtio_device *dev)
{
	struct console *c = console_of(dev);

	loop_remove(c->in_source);
	loop_remove(c->out_source);
	virtio_device_finish(dev);
	free(c);
}

static const struct virtio_device_ops console_ops = {
	.name = "virtio-console",
	.id = 3,
	.nqueues = 2,
	.queue_size = { 64, 64 },
	.notified = console_notified,
	.reset = console_reset,
	.save = console_save,
	.restore = console_restore,
	.destroy = console_destroy,
};

int virtio_console_create(struct loop *loop, const struct virtio_console_host *host,
			  struct virtio_device **ret_dev, struct err *err)
{
	struct console *c = calloc(1, sizeof(*c));

	if (!c)
		return err_set(err, -ENOMEM, "virtio-console: out of memory");
	virtio_device_init(&c->dev, &console_ops, loop, FEATURE_SIZE);
	c->dev.config = &c->config;
	c->dev.config_len = sizeof(c->config);
	c->config.cols = htole16(80);
	c->config.rows = htole16(25);
	c->config.max_nr_ports = htole32(1);
	c->host = *host;
	c->in_fd = c->out_fd = -1;
	*ret_dev = &c->dev;
	return 0;
}

size_t virtio_console_input(struct virtio_device *dev, const void *bytes, size_t len)
{
	struct console *c = console_of(dev);
	const uint8_t *from = bytes;
	size_t n = 0;

	virtio_lock(dev);
	for (; n < len && c->input_len < INPUT_BYTES; n++)
		c->input[(c->input_at + c->input_len++) % INPUT_BYTES] = from[n];
	deliver(c);
	if (n < len)
		c->input_refused = true;
	virtio_unlock(dev);
	return n;
}

void virtio_console_output_ready(struct virtio_device *dev)
{
	virtio_lock(dev);
	transmit(console_of(dev));
	virtio_unlock(dev);
}

void virtio_console_resize(struct virtio_device *dev, uint16_t cols, uint16_t rows)
{
	struct console *c = console_of(dev);

	virtio_lock(dev);
	c->config.cols = htole16(cols);
	c->config.rows = htole16(rows);
	virtio_config_changed(dev);
	virtio_unlock(dev);
}

/* Descriptor mode: the callbacks of struct virtio_console_host on two fds. */

/* write(2) that leaves the program's SIGPIPE alone: the error tells enough. */
static ssize_t write_quietly(int fd, const void *bytes, size_t len)
{
	const struct timespec now = { 0 };
	sigset_t pipe_only, old;
	ssize_t n;
	int saved;

	(void)sigemptyset(&pipe_only);
	(void)sigaddset(&pipe_only, SIGPIPE);
	(void)pthread_sigmask(SIG_BLOCK, &pipe_only, &old);
	n = write(fd, bytes, len);
	saved = errno;
	if (n < 0 && saved == EPIPE && !sigismember(&old, SIGPIPE))
		(void)sigtimedwait(&pipe_only, NULL, &now);	/* the signal was for this thread */
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	errno = saved;
	return n;
}

static size_t fd_output(void *ctx, const void *bytes, size_t len)
{
	struct console *c = ctx;
	size_t done = 0;

	while (done < len) {
		ssize_t n = write_quietly(c->out_fd, (const uint8_t *)bytes + done, len - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN) {
			(void)loop_set_events(c->out_source, EPOLLOUT);
			return done;
		}
		if (n < 0)
			return len;	/* nobody is there to read it */
		done += (size_t)n;
	}
	return done;
}

static void fd_writable(void *ctx, uint32_t events)
{
	struct console *c = ctx;

	(void)loop_set_events(c->out_source, 0);
	virtio_console_output_ready(&c->dev);
}

static void fd_input_room(void *ctx)
{
	struct console *c = ctx;

	(void)loop_set_events(c->in_source, EPOLLIN);
}

static void fd_readable(void *ctx, uint32_t events)
{
	struct console *c = ctx;
	uint8_t buf[INPUT_BYTES];
	size_t room;
	ssize_t n;

	virtio_lock(&c->dev);
	room = INPUT_BYTES - c->input_len;
	c->input_refused = room == 0;
	virtio_unlock(&c->dev);
	if (!room) {
		(void)loop_set_events(c->in_source, 0);
		return;
	}
	n = read(c->in_fd, buf, room);
	if (n > 0)
		(void)virtio_console_input(&c->dev, buf, (size_t)n);
	else if (n == 0 || (errno != EAGAIN && errno != EINTR))
		(void)loop_set_events(c->in_source, 0);
}

int virtio_console_create_fd(struct loop *loop, int in_fd, int out_fd,
			     struct virtio_device **ret_dev, struct err *err)
{
	const struct virtio_console_host host = { .output = fd_output, .input_room = fd_input_room };
	struct virtio_device *dev;
	struct console *c;
	int r = virtio_console_create(loop, &host, &dev, err);

	if (r < 0)
		return r;
	c = console_of(dev);
	c->host.ctx = c;
	c->in_fd = in_fd;
	c->out_fd = out_fd;
	r = loop_add_fd(loop, out_fd, 0, fd_writable, c, &c->out_source, err);
	if (r == 0 && in_fd >= 0)
		r = loop_add_fd(loop, in_fd, EPOLLIN, fd_readable, c, &c->in_source, err);
	if (r < 0) {
		console_destroy(dev);
		return r;
	}
	*ret_dev = dev;
	return 0;
}
