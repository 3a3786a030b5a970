/* SPDX-License-Identifier: Apache-2.0 */
#include "os/blob.h"
#include "tests/unit/virtio_driver.h"
#include "virtio/vsock.h"

#include <errno.h>
#include <linux/virtio_vsock.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

enum { RX, TX, EVENT };

#define CID 5u
#define RX_BYTES 4096u
#define RX_AT(i) (DRV_DATA + 0x20000u + (i) * RX_BYTES)
#define RX_COUNT 64u
#define HDR sizeof(struct virtio_vsock_hdr)
#define TX_AT DRV_DATA

static struct drv drv;
static int host_end = -1;	/* the program's end of the last accepted connection */
static int result;
static unsigned results;

static int pair(int *ret_mine)
{
	int fds[2];

	*ret_mine = -1;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) < 0)
		return -errno;
	*ret_mine = fds[0];
	return fds[1];
}

static int accept_one(void *ctx, uint32_t guest_port)
{
	return guest_port == 666 ? -EACCES : pair(&host_end);
}

static void on_result(void *ctx, int code)
{
	result = code;
	results++;
}

/* Offers receive buffer @i. */
static void offer_rx(unsigned i)
{
	const struct drv_seg seg = { RX_AT(i), RX_BYTES, true };

	(void)drv_add(&drv, RX, &seg, 1);
}

static void start(void)
{
	assert_int_equal(drv_start(&drv, DRV_FEATURES_ALL), 15);
	for (unsigned i = 0; i < RX_COUNT; i++)
		offer_rx(i);
	drv_kick(&drv, RX);
}

static int setup(void **state)
{
	struct virtio_device *dev;

	drv_init(&drv);
	assert_int_equal(virtio_vsock_create(drv.loop, CID, &dev, NULL), 0);
	drv_attach(&drv, dev);
	assert_int_equal(virtio_vsock_listen(dev, 1024, accept_one, NULL), 0);
	results = 0;
	start();
	return 0;
}

static int teardown(void **state)
{
	drv_finish(&drv);
	if (host_end >= 0)
		(void)close(host_end);
	host_end = -1;
	return 0;
}

/* Sends one packet from the guest, with the credit of a driver with @buf_alloc bytes. */
static void send_packet(uint16_t op, uint32_t guest_port, uint32_t host_port, const void *bytes,
			uint32_t len, uint32_t flags, uint32_t buf_alloc)
{
	const struct virtio_vsock_hdr h = { .src_cid = CID, .dst_cid = 2, .src_port = guest_port,
					    .dst_port = host_port, .len = len, .type = 1, .op = op,
					    .flags = flags, .buf_alloc = buf_alloc };
	const struct drv_seg seg[] = { { TX_AT, HDR, false }, { TX_AT + 0x100, len, false } };
	uint32_t id, used;

	drv_put(&drv, TX_AT, &h, HDR);
	if (len)
		drv_put(&drv, TX_AT + 0x100, bytes, len);
	(void)drv_add(&drv, TX, seg, len ? 2 : 1);
	drv_kick(&drv, TX);
	assert_true(drv_used(&drv, TX, &id, &used));
}

/* Takes one packet for the guest and gives the buffer back.  False when there is none. */
static bool receive(struct virtio_vsock_hdr *h, uint8_t data[RX_BYTES])
{
	uint32_t id, len;
	gpa_t at;

	drv_pump(&drv);
	if (!drv_used(&drv, RX, &id, &len))
		return false;
	memcpy(&at, drv.ram + drv.q[RX].desc + 16 * id, 8);
	memcpy(h, drv.ram + at, HDR);
	assert_int_equal(len, HDR + h->len);
	if (data)
		memcpy(data, drv.ram + at + HDR, h->len);
	offer_rx((unsigned)((at - RX_AT(0)) / RX_BYTES));
	drv_kick(&drv, RX);
	return true;
}

static void expect(uint16_t op, uint32_t guest_port, uint32_t host_port)
{
	struct virtio_vsock_hdr h;

	assert_true(receive(&h, NULL));
	assert_int_equal(h.op, op);
	assert_int_equal(h.src_cid, 2);
	assert_int_equal(h.dst_cid, CID);
	assert_int_equal(h.dst_port, guest_port);
	assert_int_equal(h.src_port, host_port);
}

static void expect_silence(void)
{
	struct virtio_vsock_hdr h;

	assert_false(receive(&h, NULL));
}

static void open_from_guest(uint32_t guest_port)
{
	send_packet(VIRTIO_VSOCK_OP_REQUEST, guest_port, 1024, NULL, 0, 0, 65536);
	expect(VIRTIO_VSOCK_OP_RESPONSE, guest_port, 1024);
}

static void test_guest_connects_and_talks(void **state)
{
	struct virtio_vsock_hdr h;
	uint8_t data[RX_BYTES];
	char buf[16];

	assert_int_equal(drv_read(&drv, 0x100), CID);
	open_from_guest(100);
	send_packet(VIRTIO_VSOCK_OP_RW, 100, 1024, "ping", 4, 0, 65536);
	assert_int_equal(read(host_end, buf, sizeof(buf)), 4);
	assert_memory_equal(buf, "ping", 4);
	assert_int_equal(write(host_end, "pong!", 5), 5);
	assert_true(receive(&h, data));
	assert_int_equal(h.op, VIRTIO_VSOCK_OP_RW);
	assert_int_equal(h.len, 5);
	assert_int_equal(h.fwd_cnt, 4);
	assert_int_equal(h.buf_alloc, VSOCK_BUFFER);
	assert_memory_equal(data, "pong!", 5);
	expect_silence();
}

static void test_refusals_are_resets(void **state)
{
	send_packet(VIRTIO_VSOCK_OP_REQUEST, 100, 1025, NULL, 0, 0, 65536);	/* nobody listens */
	expect(VIRTIO_VSOCK_OP_RST, 100, 1025);
	send_packet(VIRTIO_VSOCK_OP_REQUEST, 666, 1024, NULL, 0, 0, 65536);	/* not welcome */
	expect(VIRTIO_VSOCK_OP_RST, 666, 1024);
	send_packet(VIRTIO_VSOCK_OP_RW, 100, 1024, "x", 1, 0, 65536);	/* no connection */
	expect(VIRTIO_VSOCK_OP_RST, 100, 1024);
	send_packet(VIRTIO_VSOCK_OP_RST, 100, 1024, NULL, 0, 0, 65536);	/* never answered */
	expect_silence();
	virtio_vsock_unlisten(drv.dev, 1024);
	send_packet(VIRTIO_VSOCK_OP_REQUEST, 100, 1024, NULL, 0, 0, 65536);
	expect(VIRTIO_VSOCK_OP_RST, 100, 1024);
	assert_int_equal(virtio_vsock_listen(drv.dev, 1024, accept_one, NULL), 0);
	assert_int_equal(virtio_vsock_listen(drv.dev, 1024, accept_one, NULL), -EADDRINUSE);
}

static void test_half_closes_travel_both_ways(void **state)
{
	struct virtio_vsock_hdr h;
	char buf[16];

	open_from_guest(100);
	send_packet(VIRTIO_VSOCK_OP_SHUTDOWN, 100, 1024, NULL, 0, VIRTIO_VSOCK_SHUTDOWN_SEND, 65536);
	assert_int_equal(read(host_end, buf, sizeof(buf)), 0);	/* end of file, yet */
	assert_int_equal(write(host_end, "late", 4), 4);	/* the other way is open */
	expect(VIRTIO_VSOCK_OP_RW, 100, 1024);
	assert_int_equal(shutdown(host_end, SHUT_WR), 0);
	assert_true(receive(&h, NULL));
	assert_int_equal(h.op, VIRTIO_VSOCK_OP_SHUTDOWN);
	assert_true(h.flags & VIRTIO_VSOCK_SHUTDOWN_SEND);
	send_packet(VIRTIO_VSOCK_OP_RST, 100, 1024, NULL, 0, 0, 65536);
	assert_int_equal(virtio_vsock_connections(drv.dev), 0);
}

static void test_host_close_tells_the_guest_everything(void **state)
{
	struct virtio_vsock_hdr h;
	uint32_t flags = 0;

	open_from_guest(100);
	assert_int_equal(write(host_end, "bye", 3), 3);
	(void)close(host_end);
	host_end = -1;
	expect(VIRTIO_VSOCK_OP_RW, 100, 1024);	/* data comes before the end */
	while (receive(&h, NULL)) {
		assert_int_equal(h.op, VIRTIO_VSOCK_OP_SHUTDOWN);
		flags = h.flags;
	}
	assert_int_equal(flags, 3);
	send_packet(VIRTIO_VSOCK_OP_RW, 100, 1024, "x", 1, 0, 65536);	/* nobody reads it */
	expect(VIRTIO_VSOCK_OP_RST, 100, 1024);
	assert_int_equal(virtio_vsock_connections(drv.dev), 0);
}

static void test_full_shutdown_is_confirmed_by_reset(void **state)
{
	open_from_guest(100);
	send_packet(VIRTIO_VSOCK_OP_SHUTDOWN, 100, 1024, NULL, 0, 3, 65536);
	expect(VIRTIO_VSOCK_OP_RST, 100, 1024);
	assert_int_equal(virtio_vsock_connections(drv.dev), 0);
}

static void test_data_for_the_guest_respects_its_credit(void **state)
{
	struct virtio_vsock_hdr h;
	char big[1000] = { 0 };

	send_packet(VIRTIO_VSOCK_OP_REQUEST, 100, 1024, NULL, 0, 0, 10);
	expect(VIRTIO_VSOCK_OP_RESPONSE, 100, 1024);
	assert_int_equal(write(host_end, big, sizeof(big)), sizeof(big));
	assert_true(receive(&h, NULL));
	assert_int_equal(h.len, 10);
	expect_silence();
	send_packet(VIRTIO_VSOCK_OP_CREDIT_UPDATE, 100, 1024, NULL, 0, 0, 25);
	assert_true(receive(&h, NULL));
	assert_int_equal(h.len, 15);
	expect_silence();
	send_packet(VIRTIO_VSOCK_OP_CREDIT_REQUEST, 100, 1024, NULL, 0, 0, 25);
	expect(VIRTIO_VSOCK_OP_CREDIT_UPDATE, 100, 1024);
}

static void test_slow_host_bounds_memory_and_loses_nothing(void **state)
{
	static char block[16384];
	size_t sent = 0, got = 0, held;
	struct virtio_vsock_hdr h;
	uint32_t fwd = 0;
	int size = 4096;
	ssize_t n;

	open_from_guest(100);
	(void)setsockopt(host_end, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	memset(block, 'q', sizeof(block));
	for (;;) {	/* as a driver does: never more than its credit */
		while (receive(&h, NULL))
			fwd = h.fwd_cnt;
		if (sent - fwd + sizeof(block) > VSOCK_BUFFER)
			break;
		send_packet(VIRTIO_VSOCK_OP_RW, 100, 1024, block, sizeof(block), 0, 65536);
		sent += sizeof(block);
	}
	held = sent - fwd;
	assert_true(held > VSOCK_BUFFER - sizeof(block));
	send_packet(VIRTIO_VSOCK_OP_SHUTDOWN, 100, 1024, NULL, 0, 3, 65536);
	for (;;) {
		n = read(host_end, block, sizeof(block));
		if (n == 0)
			break;
		if (n > 0) {
			got += (size_t)n;
			assert_int_equal(block[n - 1], 'q');
		}
		drv_pump(&drv);
	}
	assert_int_equal(got, sent);
	while (receive(&h, NULL))
		;
	assert_int_equal(h.op, VIRTIO_VSOCK_OP_RST);
}

static void test_overrunning_the_credit_ends_the_connection(void **state)
{
	static char block[65536];
	struct virtio_vsock_hdr h = { 0 };

	open_from_guest(100);
	for (unsigned i = 0; i < 64 && virtio_vsock_connections(drv.dev); i++)
		send_packet(VIRTIO_VSOCK_OP_RW, 100, 1024, block, sizeof(block), 0, 65536);
	assert_int_equal(virtio_vsock_connections(drv.dev), 0);
	while (receive(&h, NULL) && h.op != VIRTIO_VSOCK_OP_RST)
		;
	assert_int_equal(h.op, VIRTIO_VSOCK_OP_RST);
}

static void test_host_connects_to_the_guest(void **state)
{
	struct virtio_vsock_hdr h;
	int mine, fd = pair(&mine);
	char buf[8];

	assert_int_equal(virtio_vsock_connect(drv.dev, 77, fd, on_result, NULL, NULL), 0);
	assert_int_equal(write(mine, "early", 5), 5);	/* before anybody accepted */
	assert_true(receive(&h, NULL));
	assert_int_equal(h.op, VIRTIO_VSOCK_OP_REQUEST);
	assert_int_equal(h.dst_port, 77);
	expect_silence();
	assert_int_equal(results, 0);
	send_packet(VIRTIO_VSOCK_OP_RESPONSE, 77, h.src_port, NULL, 0, 0, 65536);
	assert_int_equal(results, 1);
	assert_int_equal(result, 0);
	expect(VIRTIO_VSOCK_OP_RW, 77, h.src_port);
	send_packet(VIRTIO_VSOCK_OP_RW, 77, h.src_port, "hi", 2, 0, 65536);
	assert_int_equal(read(mine, buf, sizeof(buf)), 2);
	(void)close(mine);
}

static void test_failed_connects_are_told_once(void **state)
{
	struct virtio_vsock_hdr h;
	int mine, fd = pair(&mine);

	assert_int_equal(virtio_vsock_connect(drv.dev, 77, fd, on_result, NULL, NULL), 0);
	assert_true(receive(&h, NULL));
	send_packet(VIRTIO_VSOCK_OP_RST, 77, h.src_port, NULL, 0, 0, 0);
	assert_int_equal(results, 1);
	assert_int_equal(result, -ECONNREFUSED);
	(void)close(mine);

	fd = pair(&mine);
	assert_int_equal(virtio_vsock_connect(drv.dev, 77, fd, on_result, NULL, NULL), 0);
	assert_true(receive(&h, NULL));
	(void)close(mine);	/* the caller gave up */
	drv_pump(&drv);
	assert_int_equal(results, 2);
	assert_int_equal(result, -ECANCELED);
	expect(VIRTIO_VSOCK_OP_RST, 77, h.src_port);

	fd = pair(&mine);
	assert_int_equal(virtio_vsock_connect(drv.dev, 77, fd, on_result, NULL, NULL), 0);
	drv_write(&drv, 0x70, 0);
	drv_pump(&drv);
	assert_int_equal(results, 3);
	assert_int_equal(result, -ECONNRESET);
	assert_int_equal(send(mine, "x", 1, MSG_NOSIGNAL), -1);	/* closed on our side */
	(void)close(mine);
	fd = pair(&mine);
	assert_int_equal(virtio_vsock_connect(drv.dev, 77, fd, on_result, NULL, NULL), -ENOTCONN);
	(void)close(mine);
	(void)close(fd);
}

static void test_two_thousand_connections(void **state)
{
	const struct rlimit lim = { 5000, 5000 };
	enum { N = 2000 };
	static int end[N];
	struct virtio_vsock_hdr h;
	char c;

	if (setrlimit(RLIMIT_NOFILE, &lim) < 0)
		skip();
	for (unsigned i = 0; i < N; i++) {
		open_from_guest(1000 + i);
		end[i] = host_end;
	}
	host_end = -1;
	assert_int_equal(virtio_vsock_connections(drv.dev), N);
	for (unsigned i = 0; i < N; i++) {
		c = (char)i;
		send_packet(VIRTIO_VSOCK_OP_RW, 1000 + i, 1024, &c, 1, 0, 65536);
		assert_int_equal(write(end[i], &c, 1), 1);
	}
	for (unsigned i = 0; i < N; i++) {	/* more than there are buffers: all arrive */
		assert_int_equal(read(end[i], &c, 1), 1);
		assert_int_equal(c, (char)i);
		assert_true(receive(&h, NULL));
		assert_int_equal(h.op, VIRTIO_VSOCK_OP_RW);
	}
	drv_write(&drv, 0x70, 0);
	drv_pump(&drv);
	assert_int_equal(virtio_vsock_connections(drv.dev), 0);
	for (unsigned i = 0; i < N; i++) {
		assert_int_equal(read(end[i], &c, 1), 0);
		(void)close(end[i]);
	}
}

static void test_flood_of_refusals_needs_no_buffers_beyond_the_ring(void **state)
{
	struct virtio_vsock_hdr h;
	unsigned resets = 0;

	for (unsigned i = 0; i < RX_COUNT + 100; i++) {	/* takes no receive buffer back */
		const struct virtio_vsock_hdr p = { .src_cid = CID, .dst_cid = 2, .src_port = i,
						    .dst_port = 1, .type = 1, .op = VIRTIO_VSOCK_OP_RW };
		const struct drv_seg seg = { TX_AT + i * 64, HDR, false };

		drv_put(&drv, TX_AT + i * 64, &p, HDR);
		(void)drv_add(&drv, TX, &seg, 1);
	}
	drv_kick(&drv, TX);
	while (receive(&h, NULL))
		resets += h.op == VIRTIO_VSOCK_OP_RST;
	assert_int_equal(resets, RX_COUNT + 100);
}

static void test_strangers_and_liars(void **state)
{
	struct virtio_vsock_hdr h = { .src_cid = 9, .dst_cid = 2, .src_port = 1, .dst_port = 1024,
				      .type = 1, .op = VIRTIO_VSOCK_OP_REQUEST };
	const struct drv_seg seg = { TX_AT, HDR, false };

	drv_put(&drv, TX_AT, &h, HDR);
	assert_int_equal(drv_request(&drv, TX, &seg, 1), 0);	/* not this guest's id */
	expect(VIRTIO_VSOCK_OP_RST, 1, 1024);
	assert_int_equal(virtio_vsock_connections(drv.dev), 0);
	h.len = 1000;	/* longer than the chain */
	drv_put(&drv, TX_AT, &h, HDR);
	assert_int_equal(drv_request(&drv, TX, &seg, 1), -1);
	assert_int_equal(drv_read(&drv, 0x70) & 64, 64);
}

static void test_a_reset_ends_every_connection_and_writes_nothing_more(void **state)
{
	uint8_t *before = test_malloc(DRV_RAM);
	char buf[16];

	open_from_guest(100);
	assert_int_equal(write(host_end, "late", 4), 4);	/* for a buffer the driver takes back */
	drv_write(&drv, 0x70, 0);
	assert_int_equal(virtio_vsock_connections(drv.dev), 0);
	memcpy(before, drv.ram, DRV_RAM);
	drv_pump(&drv);
	assert_memory_equal(drv.ram, before, DRV_RAM);
	assert_true(read(host_end, buf, sizeof(buf)) <= 0);	/* the end, or a reset as bytes were lost */
	assert_int_equal(send(host_end, "x", 1, MSG_NOSIGNAL), -1);
	(void)close(host_end);
	start();
	expect_silence();
	open_from_guest(100);	/* the same port, a new connection */
	send_packet(VIRTIO_VSOCK_OP_RW, 100, 1024, "ping", 4, 0, 65536);
	assert_int_equal(read(host_end, buf, sizeof(buf)), 4);
	test_free(before);
}

static void save_and_restore(void)
{
	struct blob blob = { 0 };
	struct blob_reader in;

	virtio_mmio_pause(drv.mmio);
	virtio_mmio_save(drv.mmio, &blob);
	virtio_mmio_resume(drv.mmio);
	in = (struct blob_reader){ .at = blob.bytes, .left = blob.len };
	assert_int_equal(virtio_mmio_restore(drv.mmio, &in, NULL), 0);
	assert_int_equal(in.left, 0);
	blob_finish(&blob);
}

static void test_a_saved_connection_goes_on_with_another_socket(void **state)
{
	struct virtio_vsock_hdr h;
	uint8_t data[RX_BYTES];
	char buf[16];
	int fd, mine;

	open_from_guest(100);
	send_packet(VIRTIO_VSOCK_OP_RW, 100, 1024, "hello", 5, 0, 65536);
	assert_false(receive(&h, NULL));
	assert_true(virtio_vsock_quiet(drv.dev));
	assert_int_equal(virtio_vsock_take(drv.dev, 100, &(uint32_t){ 0 }, -1, -1), -ENOENT);	/* it has not been saved */
	save_and_restore();
	send_packet(VIRTIO_VSOCK_OP_RST, 100, 1024, NULL, 0, 0, 65536);	/* here it ends, not there */
	(void)close(host_end);
	assert_int_equal(virtio_vsock_connections(drv.dev), 0);
	fd = pair(&mine);
	assert_true(fd >= 0);
	assert_int_equal(virtio_vsock_take(drv.dev, 101, &(uint32_t){ 0 }, fd, mine), -ENOENT);
	assert_int_equal(virtio_vsock_take(drv.dev, 100, &(uint32_t){ 1025 }, fd, mine), -ENOENT);
	assert_int_equal(virtio_vsock_take(drv.dev, 100, &(uint32_t){ 1024 }, fd, mine), 0);
	assert_int_equal(virtio_vsock_take(drv.dev, 100, &(uint32_t){ 1024 }, fd, mine), -ENOENT);	/* once */
	virtio_vsock_abandon(drv.dev);
	assert_true(receive(&h, NULL));	/* which might have been on its way */
	assert_int_equal(h.op, VIRTIO_VSOCK_OP_CREDIT_UPDATE);
	assert_int_equal(h.fwd_cnt, 5);	/* as the guest counts it */
	assert_int_equal(write(mine, "go on", 5), 5);
	assert_true(receive(&h, data));
	assert_int_equal(h.op, VIRTIO_VSOCK_OP_RW);
	assert_memory_equal(data, "go on", 5);
	send_packet(VIRTIO_VSOCK_OP_RW, 100, 1024, "yes", 3, 0, 65536);
	assert_int_equal(read(mine, buf, sizeof(buf)), 3);
	(void)close(mine);
	host_end = -1;
}

static void test_bytes_on_their_way_are_saved(void **state)
{
	static char flood[VSOCK_BUFFER];
	struct virtio_vsock_hdr h;
	uint8_t data[RX_BYTES];
	char buf[4096];
	int fd, mine;
	uint32_t port = 0;
	size_t sent = 0, got = 0;
	ssize_t n;

	open_from_guest(100);
	send_packet(VIRTIO_VSOCK_OP_CREDIT_UPDATE, 100, 1024, NULL, 0, 0, 0);	/* no room */
	assert_int_equal(write(host_end, "wait", 4), 4);
	drv_pump(&drv);
	assert_false(virtio_vsock_quiet(drv.dev));
	for (unsigned i = 0; i < 70; i++) {	/* more than the socket takes */
		memset(flood, (int)i, 3000);
		send_packet(VIRTIO_VSOCK_OP_RW, 100, 1024, flood, 3000, 0, 0);
		sent += 3000;
	}
	while ((n = read(host_end, buf, sizeof(buf))) > 0)	/* what had arrived stays with who has it */
		got += (size_t)n;
	assert_true(got > 0 && got < sent);
	save_and_restore();
	send_packet(VIRTIO_VSOCK_OP_RST, 100, 1024, NULL, 0, 0, 0);
	fd = pair(&mine);
	assert_int_equal(virtio_vsock_take(drv.dev, 100, &port, fd, mine), 0);
	assert_int_equal(port, 1024);
	while (receive(&h, NULL))
		;
	send_packet(VIRTIO_VSOCK_OP_CREDIT_UPDATE, 100, 1024, NULL, 0, 0, 65536);
	assert_true(receive(&h, data));
	assert_memory_equal(data, "wait", 4);
	for (unsigned i = 0; i < 200 && got < sent; i++) {
		drv_pump(&drv);
		while ((n = read(mine, buf, sizeof(buf))) > 0) {
			for (ssize_t k = 0; k < n; k++)
				assert_int_equal((uint8_t)buf[k], (got + (size_t)k) / 3000);
			got += (size_t)n;
		}
	}
	assert_int_equal(got, sent);
	(void)close(mine);
}

static void test_the_guest_hears_of_connections_that_nobody_took(void **state)
{
	struct virtio_vsock_hdr h;

	open_from_guest(100);
	open_from_guest(101);
	save_and_restore();
	send_packet(VIRTIO_VSOCK_OP_RST, 100, 1024, NULL, 0, 0, 65536);
	send_packet(VIRTIO_VSOCK_OP_RST, 101, 1024, NULL, 0, 0, 65536);
	virtio_vsock_abandon(drv.dev);
	for (unsigned i = 0; i < 2; i++) {
		assert_true(receive(&h, NULL));
		assert_int_equal(h.op, VIRTIO_VSOCK_OP_RST);
		assert_in_range(h.dst_port, 100, 101);
	}
	expect_silence();
}

static void test_more_connections_than_are_saved_are_all_reset(void **state)
{
	const struct drv_seg seg = { DRV_DATA, 4, true };
	struct blob blob = { 0 };
	struct blob_reader in;
	uint32_t id, len;
	int fd, mine;

	(void)drv_add(&drv, EVENT, &seg, 1);
	drv_kick(&drv, EVENT);
	for (uint32_t port = 100; port < 170; port++)
		open_from_guest(port);
	save_and_restore();
	drv_pump(&drv);
	assert_true(drv_used(&drv, EVENT, &id, &len));
	fd = pair(&mine);
	assert_int_equal(virtio_vsock_take(drv.dev, 100, &(uint32_t){ 0 }, fd, mine), -ENOENT);
	(void)close(fd);
	(void)close(mine);
	virtio_mmio_pause(drv.mmio);
	virtio_mmio_save(drv.mmio, &blob);
	virtio_mmio_resume(drv.mmio);
	for (size_t cut = 1; cut < 64; cut++) {
		in = (struct blob_reader){ .at = blob.bytes, .left = blob.len - cut };
		assert_true(virtio_mmio_restore(drv.mmio, &in, NULL) < 0);
	}
	blob_finish(&blob);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_guest_connects_and_talks),
		T(test_refusals_are_resets),
		T(test_half_closes_travel_both_ways),
		T(test_host_close_tells_the_guest_everything),
		T(test_full_shutdown_is_confirmed_by_reset),
		T(test_data_for_the_guest_respects_its_credit),
		T(test_slow_host_bounds_memory_and_loses_nothing),
		T(test_overrunning_the_credit_ends_the_connection),
		T(test_host_connects_to_the_guest),
		T(test_failed_connects_are_told_once),
		T(test_two_thousand_connections),
		T(test_flood_of_refusals_needs_no_buffers_beyond_the_ring),
		T(test_strangers_and_liars),
		T(test_a_reset_ends_every_connection_and_writes_nothing_more),
		T(test_a_saved_connection_goes_on_with_another_socket),
		T(test_bytes_on_their_way_are_saved),
		T(test_the_guest_hears_of_connections_that_nobody_took),
		T(test_more_connections_than_are_saved_are_all_reset),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
