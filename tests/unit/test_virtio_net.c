/* SPDX-License-Identifier: Apache-2.0 */
#include "link/link.h"
#include "tests/unit/virtio_driver.h"
#include "virtio/net.h"

#include <endian.h>
#include <errno.h>
#include <linux/virtio_net.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#define F(bit) (1ull << VIRTIO_NET_F_##bit)
#define HEADER ((uint32_t)sizeof(struct virtio_net_hdr_v1))
#define BUFFERS (DRV_DATA + 0x20000)	/* for receiving */
#define FRAME (DRV_DATA + 0x1000)	/* to send */
#define PAIRS 2
#define CONTROL (2 * PAIRS)

/* A back end that keeps the last frame it was sent. */
static struct {
	struct link link;	/* first */
	struct link_frame frame;
	uint8_t bytes[LINK_FRAME_MAX];
	unsigned sent, ready, flushed, offloads;
	int answer;	/* of send() */
	bool echo;	/* answers from within send() */
} back;

static struct drv drv;

static int back_send(struct link *link, const struct link_frame *frame)
{
	uint32_t len = 0;

	if (back.answer)
		return back.answer;
	for (unsigned i = 0; i < frame->niov; i++) {
		memcpy(back.bytes + len, frame->iov[i].iov_base, frame->iov[i].iov_len);
		len += (uint32_t)frame->iov[i].iov_len;
	}
	assert_int_equal(len, frame->len);
	back.frame = *frame;
	back.sent++;
	if (back.echo)
		assert_int_equal(link_deliver(link, frame), 0);
	return 0;
}

static void back_flush(struct link *link)
{
	back.flushed++;
}

static void back_ready(struct link *link)
{
	back.ready++;
}

static void back_offloads(struct link *link, unsigned offloads)
{
	back.offloads = offloads;
}

static void back_destroy(struct link *link)
{
	link_finish(link);
}

static const struct link_ops back_ops = { .name = "test", .send = back_send, .flush = back_flush,
					  .ready = back_ready, .offloads = back_offloads,
					  .destroy = back_destroy };

static int setup(void **state)
{
	static const uint8_t mac[6] = { 2, 0, 0, 0, 0, 9 };
	struct virtio_device *dev;

	drv_init(&drv);
	memset(&back, 0, sizeof(back));
	link_init(&back.link, &back_ops, drv.loop, mac, 1400);
	assert_int_equal(virtio_net_create(drv.loop, &back.link, PAIRS, &dev, NULL), 0);
	drv_attach(&drv, dev);
	return 0;
}

static int teardown(void **state)
{
	drv_finish(&drv);
	return 0;
}

static void start(uint64_t features)
{
	assert_int_equal(drv_start(&drv, features | 1ull << 32), 15);
	drv_pump(&drv);
}

/* Offers @n receive buffers of @len bytes to @queue. */
static void offer(unsigned queue, unsigned n, uint32_t len)
{
	for (unsigned i = 0; i < n; i++) {
		struct drv_seg seg = { BUFFERS + queue * 0x10000 + i * 0x1000, len, true };

		(void)drv_add(&drv, queue, &seg, 1);
	}
	drv_kick(&drv, queue);
}

/* Delivers @len bytes of a pattern; returns what the device said. */
static int deliver(uint32_t len, const struct virtio_net_hdr_v1 *hdr)
{
	static uint8_t bytes[LINK_FRAME_MAX];
	struct iovec iov[2] = { { bytes, 5 }, { bytes + 5, len - 5 } };
	struct link_frame frame = { .iov = iov, .niov = 2, .len = len };

	if (hdr)
		frame.hdr = *hdr;
	for (uint32_t i = 0; i < len; i++)
		bytes[i] = (uint8_t)(i * 7 + i / 251);
	bytes[12] = 0x90;	/* no IP */
	return link_deliver(&back.link, &frame);
}

/* Sends @len bytes on @queue with @hdr. */
static void transmit(unsigned queue, const struct virtio_net_hdr_v1 *hdr, uint32_t len)
{
	const struct drv_seg seg[] = { { DRV_DATA, HEADER, false }, { FRAME, len, false } };

	drv_put(&drv, DRV_DATA, hdr, HEADER);
	assert_int_equal(drv_request(&drv, queue, seg, 2), 0);
}

static const struct virtio_net_hdr_v1 plain;

static void test_config_has_address_mtu_and_pairs(void **state)
{
	assert_int_equal(drv.range.ops->read(drv.range.dev, 0x100 + 5, 1), 9);
	assert_int_equal(drv.range.ops->read(drv.range.dev, 0x100 + 6, 2), VIRTIO_NET_S_LINK_UP);
	assert_int_equal(drv.range.ops->read(drv.range.dev, 0x100 + 8, 2), PAIRS);
	assert_int_equal(drv.range.ops->read(drv.range.dev, 0x100 + 10, 2), 1400);
}

static void test_sends_frames_with_their_header(void **state)
{
	const struct virtio_net_hdr_v1 hdr = { .flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .csum_start = 34,
					       .csum_offset = 16, .gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
					       .gso_size = 1360, .hdr_len = 54 };

	start(DRV_FEATURES_ALL);
	for (unsigned i = 0; i < 9000; i++)
		drv.ram[FRAME + i] = (uint8_t)(i * 3);
	transmit(1, &hdr, 9000);
	assert_int_equal(back.sent, 1);
	assert_int_equal(back.frame.len, 9000);
	assert_int_equal(back.frame.hdr.gso_size, 1360);
	assert_int_equal(back.frame.hdr.csum_start, 34);
	assert_memory_equal(back.bytes, drv.ram + FRAME, 9000);
	assert_true(back.flushed > 0);
	assert_int_equal(back.link.counts->sent.bytes, 9000);
	assert_int_equal(back.link.counts->sent.frames, 7);	/* what TCP will make of it */
}

static void test_frames_without_bytes_are_dropped(void **state)
{
	const struct drv_seg seg = { DRV_DATA, HEADER, false };

	start(DRV_FEATURES_ALL);
	assert_int_equal(drv_request(&drv, 1, &seg, 1), 0);
	assert_int_equal(back.sent, 0);
}

static void test_delivers_into_one_buffer(void **state)
{
	uint32_t id, len;

	start(DRV_FEATURES_ALL);
	offer(0, 2, 2048);
	assert_int_equal(deliver(1000, NULL), 0);
	assert_true(drv_used(&drv, 0, &id, &len));
	assert_int_equal(len, HEADER + 1000);
	assert_int_equal(drv.ram[BUFFERS + 10], 1);	/* num_buffers */
	assert_int_equal(drv.ram[BUFFERS + HEADER + 999], (uint8_t)(999 * 7 + 999 / 251));
	assert_false(drv_used(&drv, 0, &id, &len));
	assert_true(drv.wrote >= HEADER + 1000);
	assert_true(atomic_load(&drv.irqs) > 0);
}

static void test_merges_buffers_for_long_frames(void **state)
{
	const struct virtio_net_hdr_v1 hdr = { .flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .gso_size = 1448,
					       .gso_type = VIRTIO_NET_HDR_GSO_TCPV4, .hdr_len = 66 };
	uint32_t id, len = 0, total = 0, at = 0;

	start(DRV_FEATURES_ALL);
	offer(0, 15, 700);
	assert_int_equal(deliver(8000, &hdr), 0);
	assert_int_equal(drv.ram[BUFFERS + 10], 12);	/* (8000 + 12) / 700, rounded up */
	for (unsigned i = 0; i < 12; i++) {
		gpa_t buffer = BUFFERS + i * 0x1000;

		assert_true(drv_used(&drv, 0, &id, &len));
		total += len;
		for (uint32_t k = i ? 0 : HEADER; k < len; k++, at++)
			if (at != 12)
				assert_int_equal(drv.ram[buffer + k], (uint8_t)(at * 7 + at / 251));
	}
	assert_int_equal(total, 8000 + HEADER);
	assert_false(drv_used(&drv, 0, &id, &len));
}

static void test_keeps_nothing_when_buffers_run_out(void **state)
{
	const struct virtio_net_hdr_v1 hdr = { .gso_size = 1448, .gso_type = VIRTIO_NET_HDR_GSO_TCPV4 };
	uint32_t id, len;

	start(DRV_FEATURES_ALL);
	offer(0, 3, 1000);
	assert_int_equal(deliver(5000, &hdr), -EAGAIN);
	assert_false(drv_used(&drv, 0, &id, &len));
	assert_int_equal(back.ready, 0);
	offer(0, 3, 1000);
	assert_int_equal(back.ready, 1);
	assert_int_equal(deliver(5000, &hdr), 0);
	for (unsigned i = 0; i < 6; i++)
		assert_true(drv_used(&drv, 0, &id, &len));
	assert_int_equal(back.link.counts->received.frames, 4);
}

static void test_small_buffer_without_merging_breaks_the_device(void **state)
{
	start(~F(MRG_RXBUF));
	offer(0, 4, 500);
	assert_int_equal(deliver(1000, NULL), 0);	/* dropped */
	assert_int_equal(back.link.counts->received.dropped, 1);
	assert_true(drv_read(&drv, 0x70) & 64);
}

static void test_drops_what_the_guest_did_not_negotiate(void **state)
{
	const struct virtio_net_hdr_v1 tso = { .gso_size = 1448, .gso_type = VIRTIO_NET_HDR_GSO_TCPV6 };
	const struct virtio_net_hdr_v1 partial = { .flags = VIRTIO_NET_HDR_F_NEEDS_CSUM };

	start(~(F(GUEST_TSO6) | F(GUEST_CSUM)));
	offer(0, 4, 4096);
	assert_int_equal(deliver(2000, &tso), 0);
	assert_int_equal(deliver(1000, &partial), 0);
	assert_int_equal(back.link.counts->received.dropped, 2);
	assert_int_equal(deliver(1000, NULL), 0);
	assert_int_equal(back.link.counts->received.frames, 1);
}

static void test_nothing_arrives_before_the_driver_is_ready(void **state)
{
	assert_int_equal(deliver(100, NULL), 0);
	assert_int_equal(back.link.counts->received.dropped, 1);
}

static void test_a_full_link_holds_frames_back(void **state)
{
	const struct drv_seg seg[] = { { DRV_DATA, HEADER, false }, { FRAME, 100, false } };
	uint32_t id, len;

	start(DRV_FEATURES_ALL);
	drv_put(&drv, DRV_DATA, &plain, HEADER);
	back.answer = -EAGAIN;
	(void)drv_add(&drv, 1, seg, 2);
	drv_kick(&drv, 1);
	assert_false(drv_used(&drv, 1, &id, &len));
	back.answer = 0;
	link_writable(&back.link);
	assert_true(drv_used(&drv, 1, &id, &len));
	assert_int_equal(back.sent, 1);
	back.answer = -EIO;
	transmit(1, &plain, 100);
	assert_int_equal(back.link.counts->sent.dropped, 1);
}

static void test_a_link_may_answer_while_it_takes_a_frame(void **state)
{
	uint32_t id, len;

	start(DRV_FEATURES_ALL);
	offer(0, 2, 2048);
	back.echo = true;
	transmit(1, &plain, 100);
	assert_true(drv_used(&drv, 0, &id, &len));
	assert_int_equal(len, HEADER + 100);
}

/* Sends a control command; returns the device's answer. */
static uint8_t control(unsigned queue, uint8_t class, uint8_t cmd, const void *data, uint32_t len)
{
	const uint8_t head[2] = { class, cmd };
	const struct drv_seg seg[] = { { DRV_DATA, 2, false }, { DRV_DATA + 16, len, false },
				       { DRV_DATA + 64, 1, true } };

	drv_put(&drv, DRV_DATA, head, 2);
	drv_put(&drv, DRV_DATA + 16, data, len);
	drv.ram[DRV_DATA + 64] = 0xee;
	assert_int_equal(drv_request(&drv, queue, seg, 3), 1);
	return drv.ram[DRV_DATA + 64];
}

static void udp4(uint8_t *frame, uint16_t from, uint16_t to)
{
	memset(frame, 0, 60);
	frame[12] = 8;
	frame[14] = 0x45;
	frame[23] = 17;
	frame[34] = (uint8_t)(from >> 8);
	frame[35] = (uint8_t)from;
	frame[36] = (uint8_t)(to >> 8);
	frame[37] = (uint8_t)to;
}

static void test_frames_come_back_on_the_pair_of_their_flow(void **state)
{
	const uint16_t two = htole16(PAIRS);
	uint8_t answer[60];
	struct iovec iov = { answer, sizeof(answer) };
	const struct link_frame frame = { .iov = &iov, .niov = 1, .len = sizeof(answer) };
	uint32_t id, len;

	start(DRV_FEATURES_ALL);
	offer(0, 4, 2048);
	offer(2, 4, 2048);
	assert_int_equal(control(CONTROL, VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, &two, 2),
			 VIRTIO_NET_OK);
	udp4(drv.ram + FRAME, 1000, 53);
	transmit(3, &plain, 60);	/* transmit queue of pair 1 */
	udp4(answer, 53, 1000);
	assert_int_equal(link_deliver(&back.link, &frame), 0);
	assert_true(drv_used(&drv, 2, &id, &len));
	assert_false(drv_used(&drv, 0, &id, &len));
}

static void test_control_commands_are_checked(void **state)
{
	const uint16_t many = htole16(PAIRS + 1), none = 0;
	const uint64_t some = htole64(F(GUEST_CSUM)), wrong = htole64(F(GUEST_UFO));

	start(DRV_FEATURES_ALL);
	assert_int_equal(back.offloads, LINK_CSUM | LINK_TSO4 | LINK_TSO6);
	assert_int_equal(control(CONTROL, VIRTIO_NET_CTRL_MQ, 0, &many, 2), VIRTIO_NET_ERR);
	assert_int_equal(control(CONTROL, VIRTIO_NET_CTRL_MQ, 0, &none, 2), VIRTIO_NET_ERR);
	assert_int_equal(control(CONTROL, VIRTIO_NET_CTRL_GUEST_OFFLOADS, 0, &wrong, 8), VIRTIO_NET_ERR);
	assert_int_equal(control(CONTROL, VIRTIO_NET_CTRL_GUEST_OFFLOADS, 0, &some, 4), VIRTIO_NET_ERR);
	assert_int_equal(control(CONTROL, VIRTIO_NET_CTRL_GUEST_OFFLOADS, 0, &some, 8), VIRTIO_NET_OK);
	assert_int_equal(back.offloads, LINK_CSUM);
	assert_int_equal(control(CONTROL, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, "\1", 1), VIRTIO_NET_OK);
	assert_int_equal(control(CONTROL, 77, 0, "\1", 1), VIRTIO_NET_ERR);
}

static void test_without_several_pairs_control_is_the_third_queue(void **state)
{
	const uint16_t one = htole16(1);

	start(~F(MQ));
	assert_int_equal(control(2, VIRTIO_NET_CTRL_RX, 0, "\1", 1), VIRTIO_NET_OK);
	assert_int_equal(control(2, VIRTIO_NET_CTRL_MQ, 0, &one, 2), VIRTIO_NET_ERR);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_config_has_address_mtu_and_pairs, setup, teardown),
		cmocka_unit_test_setup_teardown(test_sends_frames_with_their_header, setup, teardown),
		cmocka_unit_test_setup_teardown(test_frames_without_bytes_are_dropped, setup, teardown),
		cmocka_unit_test_setup_teardown(test_delivers_into_one_buffer, setup, teardown),
		cmocka_unit_test_setup_teardown(test_merges_buffers_for_long_frames, setup, teardown),
		cmocka_unit_test_setup_teardown(test_keeps_nothing_when_buffers_run_out, setup, teardown),
		cmocka_unit_test_setup_teardown(test_small_buffer_without_merging_breaks_the_device, setup, teardown),
		cmocka_unit_test_setup_teardown(test_drops_what_the_guest_did_not_negotiate, setup, teardown),
		cmocka_unit_test_setup_teardown(test_nothing_arrives_before_the_driver_is_ready, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_full_link_holds_frames_back, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_link_may_answer_while_it_takes_a_frame, setup, teardown),
		cmocka_unit_test_setup_teardown(test_frames_come_back_on_the_pair_of_their_flow, setup, teardown),
		cmocka_unit_test_setup_teardown(test_control_commands_are_checked, setup, teardown),
		cmocka_unit_test_setup_teardown(test_without_several_pairs_control_is_the_third_queue, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
