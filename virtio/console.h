/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Console device with one port (VIRTIO 1.2, 5.3).
 *
 *   guest writes --> transmit queue --> output() ------> program or descriptor
 *   guest reads  <-- receive queue <-- input buffer <--- virtio_console_input()
 *
 * Output is flow-controlled: when output() takes less than offered, the device
 * keeps the request and goes on after virtio_console_output_ready().  Input
 * waits in a small buffer while the guest offers no room.
 */
#ifndef VIRTIO_CONSOLE_H
#define VIRTIO_CONSOLE_H

#include "virtio/device.h"

struct virtio_console_host {
	/*
	 * Required, loop thread, lock held: takes up to @len bytes of output and
	 * returns how many.  Must not block or call back into the device.
	 */
	size_t (*output)(void *ctx, const void *bytes, size_t len);
	/* Optional, loop thread, lock held: there is room for input again. */
	void (*input_room)(void *ctx);
	void *ctx;
};

/*
 * A console for callbacks.  @host is copied.  0 with ownership in @ret_dev, or
 * -ENOMEM.
 */
int virtio_console_create(struct loop *loop, const struct virtio_console_host *host,
			  struct virtio_device **ret_dev, struct err *err);

/*
 * A console between two descriptors (borrowed, both non-blocking; @in_fd may be
 * -1).  Watched on the loop from here on; the end of @in_fd ends input only,
 * and output to a closed @out_fd is dropped.  0 or a negative errno.
 */
int virtio_console_create_fd(struct loop *loop, int in_fd, int out_fd,
			     struct virtio_device **ret_dev, struct err *err);

/*
 * Gives the guest up to @len bytes of input.  Returns how many were taken: less
 * when the buffer is full, and input_room() follows.  Any thread.
 */
size_t virtio_console_input(struct virtio_device *dev, const void *bytes, size_t len);

/* output() can take more.  Any thread. */
void virtio_console_output_ready(struct virtio_device *dev);

/* The terminal now has @cols x @rows characters: tells the guest.  Any thread. */
void virtio_console_resize(struct virtio_device *dev, uint16_t cols, uint16_t rows);

#endif /* VIRTIO_CONSOLE_H */
