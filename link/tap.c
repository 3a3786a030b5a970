/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A TAP device of the host: frames with their offload header go through a
 * descriptor, one system call each.
 */
#include "link/link.h"

#include "os/err.h"
#include "os/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define BATCH 64	/* frames to the guest before the loop serves others */

struct tap {
	struct link link;	/* first */
	int fd;
	struct loop_source *source;
	bool want_write;	/* the device waits for link_writable() */
	bool held;	/* buffer[] has a frame that the guest has no room for */
	uint32_t held_len;	/* bytes of it, header included */
	uint8_t buffer[sizeof(struct virtio_net_hdr_v1) + LINK_FRAME_MAX];
};

static void watch(struct tap *t)
{
	(void)loop_set_events(t->source, (t->held ? 0u : EPOLLIN) | (t->want_write ? EPOLLOUT : 0u));
}

static int tap_send(struct link *link, const struct link_frame *frame)
{
	struct tap *t = (struct tap *)link;
	struct iovec iov[LINK_IOV_MAX + 1];
	struct virtio_net_hdr_v1 hdr = frame->hdr;

	if (frame->niov > LINK_IOV_MAX)
		return -EMSGSIZE;
	iov[0] = (struct iovec){ .iov_base = &hdr, .iov_len = sizeof(hdr) };
	memcpy(&iov[1], frame->iov, frame->niov * sizeof(iov[0]));
	if (writev(t->fd, iov, (int)frame->niov + 1) >= 0)
		return 0;
	if (errno != EAGAIN)
		return -errno;	/* EINVAL: the guest's header or frame is none; EIO: the device is down */
	t->want_write = true;
	watch(t);
	return -EAGAIN;
}

/* Hands on the frame in buffer[].  False when the guest has no room. */
static bool hand_on(struct tap *t)
{
	struct link_frame frame = { .niov = 1, .len = t->held_len - (uint32_t)sizeof(frame.hdr) };
	struct iovec iov = { .iov_base = t->buffer + sizeof(frame.hdr), .iov_len = frame.len };

	memcpy(&frame.hdr, t->buffer, sizeof(frame.hdr));
	frame.iov = &iov;
	t->held = link_deliver(&t->link, &frame) == -EAGAIN;
	return !t->held;
}

static void read_frames(struct tap *t)
{
	for (unsigned i = 0; i < BATCH; i++) {
		ssize_t n = read(t->fd, t->buffer, sizeof(t->buffer));

		if (n < (ssize_t)sizeof(struct virtio_net_hdr_v1))
			return;
		t->held_len = (uint32_t)n;
		if (!hand_on(t)) {
			watch(t);
			return;
		}
	}
}

static void on_tap(void *ctx, uint32_t events)
{
	struct tap *t = ctx;

	if (events & EPOLLOUT && t->want_write) {
		t->want_write = false;
		watch(t);
		link_writable(&t->link);
	}
	if (events & EPOLLIN && !t->held)
		read_frames(t);
}

static void tap_ready(struct link *link)
{
	struct tap *t = (struct tap *)link;

	if (t->held && hand_on(t))
		watch(t);
}

static void tap_offloads(struct link *link, unsigned offloads)
{
	struct tap *t = (struct tap *)link;
	unsigned long flags = (offloads & LINK_CSUM ? TUN_F_CSUM : 0u) |
			      (offloads & LINK_TSO4 ? TUN_F_TSO4 : 0u) |
			      (offloads & LINK_TSO6 ? TUN_F_TSO6 : 0u);

	(void)ioctl(t->fd, TUNSETOFFLOAD, flags);	/* what fails here only makes it slower */
}

static void tap_destroy(struct link *link)
{
	struct tap *t = (struct tap *)link;

	loop_remove(t->source);
	if (t->fd >= 0)
		(void)close(t->fd);
	link_finish(link);
	free(t);
}

static const struct link_ops tap_ops = {
	.name = "tap",
	.send = tap_send,
	.ready = tap_ready,
	.offloads = tap_offloads,
	.destroy = tap_destroy,
};

int link_tap_open(const char *name, struct err *err)
{
	struct ifreq ifr = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };
	int fd, r;

	if (strlen(name) >= sizeof(ifr.ifr_name) || !*name)
		return err_set(err, -EINVAL, "\"%s\" is no name of a network device", name);
	memcpy(ifr.ifr_name, name, strlen(name) + 1);
	fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return err_set(err, -errno, "cannot open /dev/net/tun: %s", strerror(errno));
	if (ioctl(fd, TUNSETIFF, &ifr) < 0) {
		r = -errno;
		(void)close(fd);
		if (r == -EPERM)
			return err_set(err, r, "TAP device %s is not yours; make it with "
				       "\"ip tuntap add %s mode tap user $USER vnet_hdr\" as root", name, name);
		return err_set(err, r, "TAP device %s: %s", name, strerror(-r));
	}
	return fd;
}

int link_tap_create(struct loop *loop, int fd, const uint8_t mac[6], uint16_t mtu, struct link **ret_link,
		    struct err *err)
{
	struct tap *t = calloc(1, sizeof(*t));
	int size = sizeof(struct virtio_net_hdr_v1), r;

	if (!t)
		return err_set(err, -ENOMEM, "out of host memory");
	link_init(&t->link, &tap_ops, loop, mac, mtu);
	t->fd = -1;
	r = ioctl(fd, TUNSETVNETHDRSZ, &size) < 0 ? err_set(err, -errno, "TAP device: %s", strerror(errno)) : 0;
	if (r == 0)
		r = loop_add_fd(loop, fd, EPOLLIN, on_tap, t, &t->source, err);
	if (r < 0) {
		tap_destroy(&t->link);
		return r;
	}
	t->fd = fd;
	*ret_link = &t->link;
	return 0;
}
