/* SPDX-License-Identifier: Apache-2.0 */
/* Port 0 has a listener, so that short inputs reach connections. */
#include "tests/fuzz/virtio_fuzz.h"
#include "virtio/vsock.h"

#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define ENDS 16u

static int end[ENDS];
static unsigned nends;

static int accept_one(void *ctx, uint32_t guest_port)
{
	int fds[2];

	if (nends == ENDS || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) < 0)
		return -1;
	(void)!write(fds[0], "hello guest", 11);
	end[nends++] = fds[0];
	return fds[1];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct virtio_device *dev;
	struct drv d;
	int fds[2];

	nends = 0;
	drv_init(&d);
	if (virtio_vsock_create(d.loop, 3, &dev, NULL) < 0 ||
	    virtio_vsock_listen(dev, 0, accept_one, NULL) < 0 ||
	    socketpair(AF_UNIX, SOCK_STREAM, 0, fds) < 0)
		abort();
	drv_attach(&d, dev);
	(void)drv_start(&d, DRV_FEATURES_ALL);
	if (virtio_vsock_connect(dev, 1, fds[1], NULL, NULL, NULL) < 0)
		abort();
	fuzz_run(&d, data, len);
	while (nends)
		(void)close(end[--nends]);
	(void)close(fds[0]);
	drv_pump(&d);
	drv_finish(&d);
	return 0;
}
