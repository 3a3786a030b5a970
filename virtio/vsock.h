/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Socket device (VIRTIO 1.2, 5.10): stream connections between guest programs
 * and host sockets, without any network.
 *
 *   guest connects to (CID 2, port)  -->  listener of that port supplies a socket
 *   virtio_vsock_connect(port)       -->  guest program listening on that port
 *
 * A connection joins one guest stream to one host stream socket; bytes, half
 * closes and resets travel both ways.
 *
 *   state        event                         next
 *   connecting   RESPONSE                      established; result 0
 *   connecting   RST, host socket closed       gone; result -errno
 *   established  host end of file              SHUTDOWN(send) to the guest
 *   established  guest SHUTDOWN(send)          flushed, then shutdown(SHUT_WR)
 *   established  guest SHUTDOWN(both)          flushed, then RST to the guest, gone
 *   any          RST, error, broken credit     gone (RST to the guest unless it sent it)
 *   saved        virtio_vsock_take()           established, in the restored guest
 *   saved        virtio_vsock_abandon()        gone (RST to the guest)
 *
 * Memory is bounded: data for the guest stays in the host socket until the
 * guest has room; data from the guest waits in at most VSOCK_BUFFER bytes a
 * connection, which is the credit the guest is given (5.10.6.3).
 *
 * Threads: all functions and callbacks run on the loop's thread.
 */
#ifndef VIRTIO_VSOCK_H
#define VIRTIO_VSOCK_H

#include "virtio/device.h"

#define VSOCK_CID_HOST 2u
#define VSOCK_CID_GUEST_MIN 3u
#define VSOCK_BUFFER (128u << 10)	/* bytes a connection may hold for the host */
#define VSOCK_CONNECTIONS_MAX 8192u

/* @guest_cid: 3 or more, below 2^32 - 1.  0 with ownership in @ret_dev, -EINVAL or another errno. */
int virtio_vsock_create(struct loop *loop, uint64_t guest_cid, struct virtio_device **ret_dev,
			struct err *err);

/*
 * Tells how a connection attempt ended: 0, -ECONNREFUSED (nobody listens),
 * -ECONNRESET (device reset), -ECANCELED (host socket closed).  Once, after
 * virtio_vsock_connect() has returned; may call the functions of this header.
 */
typedef void (*vsock_result_fn)(void *ctx, int result);

/*
 * Connects the host stream socket @fd to @guest_port.  Ownership of @fd passes
 * on success; it is made non-blocking and closed when the connection ends.
 * Bytes written to the other end before the guest accepts wait in the socket.
 *
 * Returns 0 and, unless NULL, our port of the connection (then @fn, optional, is called), -ENOTCONN while no guest driver
 * runs, -EMFILE beyond VSOCK_CONNECTIONS_MAX, or another errno.
 */
int virtio_vsock_connect(struct virtio_device *dev, uint32_t guest_port, int fd, vsock_result_fn fn,
			 void *ctx, uint32_t *ret_host_port);

/*
 * Supplies a connected host stream socket, whose ownership passes, for a guest
 * program that connects from @guest_port; a negative errno refuses it.  The
 * device's lock is held: must not call the functions of this header.
 */
typedef int (*vsock_accept_fn)(void *ctx, uint32_t guest_port);

/* Accepts guest connections to @host_port.  0, -EADDRINUSE or -ENOMEM. */
int virtio_vsock_listen(struct virtio_device *dev, uint32_t host_port, vsock_accept_fn fn, void *ctx);

/* Stops accepting; connections go on.  Unknown ports are fine. */
void virtio_vsock_unlisten(struct virtio_device *dev, uint32_t host_port);

/* True when nothing is on its way on any connection. */
bool virtio_vsock_quiet(struct virtio_device *dev);

/*
 * Host socket @fd, with the caller's end @peer, for a connection of the restored guest, which goes on where it was
 * saved; @host_port 0: any of @guest_port, and it becomes the one that it is.  0 with ownership of @fd, -ENOENT when
 * there is none (left), or another negative errno.
 */
int virtio_vsock_take(struct virtio_device *dev, uint32_t guest_port, uint32_t *host_port, int fd, int peer);

/* The guest is told that those not taken are gone. */
void virtio_vsock_abandon(struct virtio_device *dev);

/* Open connections, for diagnosis and tests. */
unsigned virtio_vsock_connections(struct virtio_device *dev);

#endif /* VIRTIO_VSOCK_H */
