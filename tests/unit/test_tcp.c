/* SPDX-License-Identifier: Apache-2.0 */
/* TCP against itself over links of all kinds; conformance to the letter is in tests/net. */
#include "net_sim.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define MS 1000000ull
#define SECOND 1000000000ull
#define PATTERN(at) ((uint8_t)((at) * 131 + ((at) >> 8) * 7 + ((at) >> 16)))

/* One side of a test: sends @to_send bytes of the pattern, checks what it gets. */
struct side {
	struct tcp_conn *conn;
	uint64_t sent, to_send, got;
	uint64_t take;	/* bytes to take at most; then nothing until allowed */
	bool limited;	/* @take counts */
	bool connected, peer_closed, closed, wrong, no_shutdown;
	enum net_result reason;
	unsigned drained;
};

struct pair {
	struct sim sim;
	struct sim_end ends[2];
	struct side side[2];	/* [0] connects, [1] is listened on */
	struct tcp_listener listener;
	bool later;	/* do not accept at once */
	struct tcp_conn *asked;
	unsigned requests;
};

static void pump(struct side *side)
{
	struct net_room rooms[4];
	unsigned count;
	size_t got;

	while (side->sent < side->to_send &&
	       (got = tcp_reserve(side->conn, side->to_send - side->sent, rooms, 4, &count))) {
		for (unsigned i = 0; i < count; i++) {
			uint8_t *at = rooms[i].data;

			for (size_t j = 0; j < rooms[i].len; j++, side->sent++)
				at[j] = PATTERN(side->sent);
		}
		tcp_commit(side->conn, got);
	}
	if (side->sent == side->to_send && !side->no_shutdown)
		tcp_shutdown(side->conn);
}

static void on_connected(struct tcp_conn *conn)
{
	struct side *side = tcp_user(conn);

	side->connected = true;
	pump(side);
}

static size_t on_data(struct tcp_conn *conn, const struct net_span *spans, unsigned count, size_t len)
{
	struct side *side = tcp_user(conn);
	size_t taken = 0;

	for (unsigned i = 0; i < count; i++) {
		const uint8_t *at = spans[i].data;

		for (size_t j = 0; j < spans[i].len; j++) {
			if (side->limited && !side->take)
				return taken;
			side->take -= side->limited;
			side->wrong |= at[j] != PATTERN(side->got);
			side->got++;
			taken++;
		}
	}
	assert_int_equal(taken, len);
	return taken;
}

static void on_peer_closed(struct tcp_conn *conn)
{
	((struct side *)tcp_user(conn))->peer_closed = true;
}

static void on_writable(struct tcp_conn *conn)
{
	pump(tcp_user(conn));
}

static void on_drained(struct tcp_conn *conn)
{
	((struct side *)tcp_user(conn))->drained++;
}

static void on_closed(struct tcp_conn *conn, enum net_result reason)
{
	struct side *side = tcp_user(conn);

	assert_false(side->closed);
	side->closed = true;
	side->reason = reason;
	side->conn = NULL;
}

static const struct tcp_ops ops = {
	.connected = on_connected, .data = on_data, .peer_closed = on_peer_closed,
	.writable = on_writable, .drained = on_drained, .closed = on_closed,
};

static void on_request(struct tcp_listener *listener, struct tcp_conn *conn)
{
	struct pair *pair = listener->user;

	pair->requests++;
	pair->asked = conn;
	tcp_set_owner(conn, &ops, &pair->side[1]);
	pair->side[1].conn = conn;
	if (!pair->later)
		tcp_accept(conn);
}

static bool both_closed(void *arg)
{
	struct pair *pair = arg;

	return pair->side[0].closed && pair->side[1].closed;
}

static bool both_connected(void *arg)
{
	struct pair *pair = arg;

	return pair->side[0].connected && pair->side[1].connected;
}

static struct pair *pair_create(const struct net_config *config, uint64_t first, uint64_t second)
{
	struct pair *pair = calloc(1, sizeof(*pair));

	assert_non_null(pair);
	pair->sim.delay = 50000;
	sim_init(&pair->sim, pair->ends, config, NULL);
	pair->side[0].to_send = first;
	pair->side[1].to_send = second;
	pair->listener = (struct tcp_listener){ .local = { .port = 80 }, .request = on_request,
						.user = pair };
	assert_int_equal(tcp_listen(pair->sim.net[1], &pair->listener), NET_OK);
	return pair;
}

static void pair_connect(struct pair *pair, bool v6)
{
	struct net_endpoint from = v6 ? sim_end6(0, 0) : sim_end4(0, 0);
	struct net_endpoint to = v6 ? sim_end6(1, 80) : sim_end4(1, 80);

	assert_int_equal(tcp_connect(pair->sim.net[0], &from, &to, &ops, &pair->side[0],
				     &pair->side[0].conn), NET_OK);
}

static void pair_destroy(struct pair *pair)
{
	sim_finish(&pair->sim);
	free(pair);
}

/* Both sides send and close; everything must arrive, within @seconds. */
static void exchange(struct pair *pair, bool v6, unsigned seconds)
{
	pair_connect(pair, v6);
	assert_true(sim_run(&pair->sim, seconds * SECOND, both_closed, pair));
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(pair->side[i].reason, NET_OK);
		assert_int_equal(pair->side[i].got, pair->side[!i].to_send);
		assert_false(pair->side[i].wrong);
		assert_true(pair->side[i].peer_closed);
	}
}

static void test_bytes_arrive_in_both_directions(void **state)
{
	struct pair *pair = pair_create(NULL, 3000000, 2000000);
	struct net_stats stats;

	exchange(pair, false, 10);
	net_stats(pair->sim.net[0], &stats);
	assert_int_equal(stats.tcp_retransmits, 0);
	assert_int_equal(stats.tcp_opened, 1);
	net_stats(pair->sim.net[1], &stats);
	assert_int_equal(stats.tcp_retransmits, 0);
	assert_int_equal(stats.tcp_accepted, 1);
	assert_int_equal(stats.tcp_conns, 0);
	pair_destroy(pair);
}

static void test_bytes_arrive_over_ipv6(void **state)
{
	struct pair *pair = pair_create(NULL, 1000000, 1000000);

	exchange(pair, true, 10);
	pair_destroy(pair);
}

static void test_segments_of_64_kib_are_used_where_the_peer_takes_them(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		struct pair *pair = pair_create(NULL, 20000000, 0);

		for (unsigned i = 0; i < 2; i++)
			net_set_offloads(pair->sim.net[i], NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4 |
							   NET_OFFLOAD_TSO6);
		exchange(pair, v6, 10);
		assert_true(pair->sim.frames < 2000);
		pair_destroy(pair);
	}
}

static void test_bytes_arrive_over_a_bad_link(void **state)
{
	for (uint32_t seed = 1; seed <= 200; seed++) {
		struct pair *pair = pair_create(NULL, 400000, 300000);

		pair->sim.seed = seed;
		pair->sim.delay = 5 * MS;
		pair->sim.loss = seed % 4 * 25;
		pair->sim.duplicate = seed % 3 * 20;
		pair->sim.reorder = seed % 5 * 30;
		pair->sim.corrupt = seed % 2 * 20;
		pair->sim.room = seed % 7 ? 0 : 3 + seed % 11;
		for (unsigned i = 0; i < 2 && seed % 3 == 1; i++)
			net_set_offloads(pair->sim.net[i], NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4 | NET_OFFLOAD_TSO6);
		exchange(pair, seed & 1, 3600);
		pair_destroy(pair);
	}
}

static void test_a_link_that_is_full_now_and_then_loses_nothing(void **state)
{
	struct pair *pair = pair_create(NULL, 5000000, 5000000);
	struct net_stats stats;

	pair->sim.room = 5;
	exchange(pair, false, 60);
	net_stats(pair->sim.net[0], &stats);
	assert_true(stats.out_full > 0);
	assert_int_equal(stats.tcp_retransmits, 0);
	pair_destroy(pair);
}

static unsigned frames_with_data;

static bool drop_one_data_segment(struct sim *sim, unsigned from, const struct net_frame *frame,
				  const uint8_t *bytes)
{
	if (from != 0 || frame->len < 1000)
		return true;
	return ++frames_with_data != 30;
}

static void test_one_lost_segment_is_sent_again_without_a_timeout(void **state)
{
	struct pair *pair = pair_create(NULL, 1000000, 0);
	struct net_stats stats;

	frames_with_data = 0;
	pair->sim.filter = drop_one_data_segment;
	exchange(pair, false, 10);
	net_stats(pair->sim.net[0], &stats);
	assert_int_equal(stats.tcp_fast_retransmits, 1);
	assert_int_equal(stats.tcp_retransmits, 1);
	assert_int_equal(stats.tcp_timeouts, 0);
	pair_destroy(pair);
}

static bool drop_many(struct sim *sim, unsigned from, const struct net_frame *frame,
		      const uint8_t *bytes)
{
	if (from != 0 || frame->len < 1000)
		return true;
	frames_with_data++;
	return frames_with_data < 60 || frames_with_data > 90 || frames_with_data % 3;
}

static void test_sack_mends_many_holes_in_one_recovery(void **state)
{
	struct pair *pair = pair_create(NULL, 2000000, 0);
	struct net_stats stats;

	frames_with_data = 0;
	pair->sim.delay = 10 * MS;
	pair->sim.filter = drop_many;
	exchange(pair, false, 10);
	net_stats(pair->sim.net[0], &stats);
	assert_int_equal(stats.tcp_fast_retransmits, 1);
	assert_int_equal(stats.tcp_retransmits, 11);
	assert_int_equal(stats.tcp_timeouts, 0);
	pair_destroy(pair);
}

static void test_a_slow_owner_closes_the_window_and_opens_it(void **state)
{
	struct net_config config = { .limits = { .tcp_recv_max = 100000 } };
	struct pair *pair = pair_create(&config, 500000, 0);
	struct side *slow = &pair->side[1];
	struct tcp_info info;

	slow->limited = true;
	slow->take = 1000;
	pair_connect(pair, false);
	(void)sim_run(&pair->sim, 2 * SECOND, both_closed, pair);
	assert_int_equal(slow->got, 1000);
	tcp_info(slow->conn, &info);
	assert_in_range(info.kept, 90000, 100000);
	assert_in_range(info.recv_window, 0, 2000);
	(void)sim_run(&pair->sim, 100 * SECOND, both_closed, pair);	/* for ever, if need be */
	assert_false(pair->side[0].closed);
	while (!slow->closed) {
		slow->take = 40000;
		tcp_resume(slow->conn);
		(void)sim_run(&pair->sim, 10 * MS, both_closed, pair);
	}
	assert_int_equal(slow->reason, NET_OK);
	assert_int_equal(slow->got, 500000);
	assert_false(slow->wrong);
	pair_destroy(pair);
}

static bool window_updates_lost;

static bool drop_acks(struct sim *sim, unsigned from, const struct net_frame *frame,
		      const uint8_t *bytes)
{
	return !(window_updates_lost && from == 1);
}

/* An owner that is not ready at first, and then answers from within data(). */
static bool ready;

static size_t answer_when_ready(struct tcp_conn *conn, const struct net_span *spans, unsigned count,
				size_t len)
{
	uint8_t byte = PATTERN(0);

	if (ready)
		(void)tcp_send(conn, &byte, 1);
	return ready ? len : 0;
}

static void test_an_answer_from_within_resumed_data_leaves_at_once(void **state)
{
	static const struct tcp_ops late = { .data = answer_when_ready };
	struct pair *pair = pair_create(NULL, 10, 0);

	ready = false;
	pair->side[0].no_shutdown = pair->side[1].no_shutdown = true;
	pair->later = true;
	pair_connect(pair, false);
	(void)sim_run(&pair->sim, 10 * MS, NULL, NULL);
	tcp_set_owner(pair->asked, &late, NULL);
	tcp_accept(pair->asked);
	(void)sim_run(&pair->sim, SECOND, NULL, NULL);
	ready = true;
	tcp_resume(pair->asked);
	(void)sim_run(&pair->sim, MS, NULL, NULL);
	assert_int_equal(pair->side[0].got, 1);
	pair_destroy(pair);
}

static void test_a_lost_window_update_is_found_by_a_probe(void **state)
{
	struct net_config config = { .limits = { .tcp_recv_max = 50000 } };
	struct pair *pair = pair_create(&config, 200000, 0);
	struct side *slow = &pair->side[1];

	slow->limited = true;
	pair->sim.filter = drop_acks;
	window_updates_lost = false;
	pair_connect(pair, false);
	(void)sim_run(&pair->sim, SECOND, both_closed, pair);
	window_updates_lost = true;
	slow->take = 1000000;
	tcp_resume(slow->conn);
	(void)sim_run(&pair->sim, MS, both_closed, pair);
	window_updates_lost = false;
	assert_true(sim_run(&pair->sim, 20 * SECOND, both_closed, pair));
	assert_int_equal(slow->got, 200000);
	pair_destroy(pair);
}

static void test_each_side_closes_alone(void **state)
{
	struct pair *pair = pair_create(NULL, 100, 50000);

	pair->side[1].no_shutdown = true;
	pair->side[1].to_send = 0;
	pair_connect(pair, false);
	(void)sim_run(&pair->sim, SECOND, both_closed, pair);
	assert_true(pair->side[1].peer_closed);
	assert_false(pair->side[0].peer_closed);
	pair->side[1].to_send = 50000;	/* still sends after the other has ended */
	pair->side[1].no_shutdown = false;
	pump(&pair->side[1]);
	assert_true(sim_run(&pair->sim, SECOND, both_closed, pair));
	assert_int_equal(pair->side[0].got, 50000);
	pair_destroy(pair);
}

static void test_a_request_is_answered_when_its_owner_knows(void **state)
{
	struct pair *pair = pair_create(NULL, 10, 10);

	pair->later = true;
	pair_connect(pair, false);
	(void)sim_run(&pair->sim, 5 * SECOND, both_connected, pair);	/* the SYN comes again */
	assert_int_equal(pair->requests, 1);
	assert_false(pair->side[0].connected);
	tcp_accept(pair->asked);
	assert_true(sim_run(&pair->sim, SECOND, both_closed, pair));
	assert_int_equal(pair->side[1].got, 10);
	pair_destroy(pair);
}

static void test_a_refused_request_fails_the_connection(void **state)
{
	struct pair *pair = pair_create(NULL, 10, 10);

	pair->later = true;
	pair_connect(pair, false);
	(void)sim_run(&pair->sim, 10 * MS, both_connected, pair);
	tcp_refuse(pair->asked);
	(void)sim_run(&pair->sim, 10 * MS, both_connected, pair);
	assert_true(pair->side[0].closed);
	assert_int_equal(pair->side[0].reason, NET_ECONNREFUSED);
	pair_destroy(pair);
}

static void test_an_unreachable_request_fails_the_connection(void **state)
{
	static const struct {
		enum icmp_kind kind;
		enum net_result reason;
	} cases[] = { { ICMP_HOST_UNREACHABLE, NET_EHOSTUNREACH },
		      { ICMP_NET_UNREACHABLE, NET_ENETUNREACH },
		      { ICMP_PROHIBITED, NET_EHOSTUNREACH },
		      { ICMP_PORT_UNREACHABLE, NET_ECONNREFUSED } };

	for (unsigned i = 0; i < 8; i++) {
		struct pair *pair = pair_create(NULL, 10, 10);

		pair->later = true;
		pair_connect(pair, i & 1);
		(void)sim_run(&pair->sim, 10 * MS, both_connected, pair);
		tcp_unreachable(pair->asked, cases[i / 2].kind);
		(void)sim_run(&pair->sim, 10 * MS, both_connected, pair);
		assert_true(pair->side[0].closed);
		assert_int_equal(pair->side[0].reason, cases[i / 2].reason);
		pair_destroy(pair);
	}
}

static void test_nobody_there_times_out(void **state)
{
	struct pair *pair = pair_create(NULL, 10, 10);

	pair->sim.loss = 1000;
	pair_connect(pair, false);
	(void)sim_run(&pair->sim, 300 * SECOND, both_closed, pair);
	assert_true(pair->side[0].closed);
	assert_int_equal(pair->side[0].reason, NET_ETIMEDOUT);
	pair_destroy(pair);
}

static void test_a_peer_that_vanishes_times_out(void **state)
{
	struct pair *pair = pair_create(NULL, 1000000, 1000000);

	pair->side[0].limited = true;
	pair_connect(pair, false);
	assert_true(sim_run(&pair->sim, SECOND, both_connected, pair));
	pair->sim.loss = 1000;
	(void)sim_run(&pair->sim, 3600 * SECOND, both_closed, pair);
	assert_true(pair->side[0].closed && pair->side[1].closed);
	assert_int_equal(pair->side[0].reason, NET_ETIMEDOUT);
	pair_destroy(pair);
}

static void test_keepalive_finds_a_dead_peer(void **state)
{
	struct pair *pair = pair_create(NULL, 0, 0);

	pair->side[0].no_shutdown = pair->side[1].no_shutdown = true;
	pair_connect(pair, false);
	assert_true(sim_run(&pair->sim, SECOND, both_connected, pair));
	tcp_set_keepalive(pair->side[0].conn, 10 * SECOND, SECOND, 3);
	(void)sim_run(&pair->sim, 100 * SECOND, NULL, NULL);
	assert_false(pair->side[0].closed);	/* it answers */
	pair->sim.loss = 1000;
	(void)sim_run(&pair->sim, 15 * SECOND, NULL, NULL);
	assert_true(pair->side[0].closed);
	assert_int_equal(pair->side[0].reason, NET_ETIMEDOUT);
	pair_destroy(pair);
}

static void count_conn(struct tcp_conn *conn, void *arg)
{
	(*(unsigned *)arg)++;
	tcp_abort(conn);
}

static void test_a_listener_may_be_taken_away_and_connections_walked(void **state)
{
	struct pair *pair = pair_create(NULL, 0, 0);
	unsigned count = 0;

	pair->side[0].no_shutdown = pair->side[1].no_shutdown = true;
	assert_int_equal(tcp_listen(pair->sim.net[1], &pair->listener), NET_EADDRINUSE);
	pair_connect(pair, false);
	assert_true(sim_run(&pair->sim, SECOND, both_connected, pair));
	tcp_unlisten(pair->sim.net[1], &pair->listener);
	tcp_for_each(pair->sim.net[1], count_conn, &count);
	assert_int_equal(count, 1);
	(void)sim_run(&pair->sim, SECOND, NULL, NULL);
	assert_int_equal(pair->side[0].reason, NET_ECONNRESET);
	pair->side[0].closed = false;
	pair_connect(pair, false);
	(void)sim_run(&pair->sim, SECOND, NULL, NULL);
	assert_int_equal(pair->side[0].reason, NET_ECONNREFUSED);
	pair_destroy(pair);
}

static void test_abort_resets_the_peer(void **state)
{
	struct pair *pair = pair_create(NULL, 10, 1000);

	pair->side[0].no_shutdown = true;
	pair_connect(pair, false);
	(void)sim_run(&pair->sim, SECOND, NULL, NULL);
	tcp_abort(pair->side[0].conn);
	(void)sim_run(&pair->sim, SECOND, NULL, NULL);
	assert_true(pair->side[1].closed);
	assert_int_equal(pair->side[1].reason, NET_ECONNRESET);
	assert_false(pair->side[0].closed);	/* it ended it itself: no event */
	pair_destroy(pair);
}

static void test_close_delivers_what_was_sent(void **state)
{
	struct pair *pair = pair_create(NULL, 100000, 0);

	pair->side[0].no_shutdown = true;
	pair->sim.delay = 20 * MS;
	pair_connect(pair, false);
	assert_true(sim_run(&pair->sim, SECOND, both_connected, pair));
	tcp_close(pair->side[0].conn);
	(void)sim_run(&pair->sim, 2 * SECOND, NULL, NULL);
	assert_int_equal(pair->side[1].got, 100000);
	assert_true(pair->side[1].closed);
	assert_int_equal(pair->side[1].reason, NET_OK);
	pair_destroy(pair);
}

static void test_closed_connections_wait_and_then_are_forgotten(void **state)
{
	struct pair *pair = pair_create(NULL, 10, 10);
	struct net_stats a, b;

	exchange(pair, false, 10);
	net_stats(pair->sim.net[0], &a);
	net_stats(pair->sim.net[1], &b);
	assert_int_not_equal(a.tcp_time_wait + b.tcp_time_wait, 0);
	(void)sim_run(&pair->sim, 200 * SECOND, NULL, NULL);
	net_stats(pair->sim.net[0], &a);
	net_stats(pair->sim.net[1], &b);
	assert_int_equal(a.tcp_time_wait + b.tcp_time_wait, 0);
	pair_destroy(pair);
}

static void test_idle_connections_hold_little_memory(void **state)
{
	enum { COUNT = 1000 };
	struct pair *pair = pair_create(NULL, 100, 100);
	struct net_stats before, after;

	pair->side[0].no_shutdown = pair->side[1].no_shutdown = true;
	net_stats(pair->sim.net[0], &before);
	for (unsigned i = 0; i < COUNT; i++) {
		pair->side[0].sent = pair->side[0].got = pair->side[1].sent = pair->side[1].got = 0;
		pair_connect(pair, false);
		(void)sim_run(&pair->sim, 5 * MS, NULL, NULL);
		assert_int_equal(pair->side[1].got, 100);
	}
	net_stats(pair->sim.net[0], &after);
	assert_int_equal(after.tcp_conns, COUNT);
	assert_true((after.memory - before.memory) / COUNT < 800);
	pair_destroy(pair);
}

static void refuse_nothing(struct tcp_listener *listener, struct tcp_conn *conn)
{
	((struct pair *)listener->user)->requests++;
}

static void test_a_flood_of_requests_is_bounded(void **state)
{
	struct net_config config = { .limits = { .tcp_embryonic = 50, .tcp_conns = 100 } };
	struct pair *pair = pair_create(&config, 0, 0);
	struct net_endpoint from = sim_end4(0, 0), to = sim_end4(1, 80);
	struct net_stats stats;
	struct tcp_conn *conn;

	pair->listener.request = refuse_nothing;
	for (unsigned i = 0; i < 1000; i++) {
		(void)tcp_connect(pair->sim.net[0], &from, &to, NULL, NULL, &conn);
		(void)sim_run(&pair->sim, MS, NULL, NULL);
	}
	net_stats(pair->sim.net[1], &stats);
	assert_int_equal(stats.tcp_conns, 50);
	assert_true(stats.tcp_embryonic_dropped > 900);
	pair_destroy(pair);
}

static void test_memory_is_bounded_and_failures_end_nothing_but_connections(void **state)
{
	for (uint32_t seed = 1; seed < 30; seed++) {
		struct pair *pair = pair_create(NULL, 300000, 300000);

		pair->sim.seed = seed;
		pair->sim.loss = 20;
		pair_connect(pair, false);
		pair->sim.fail_alloc = 100;
		if (!sim_run(&pair->sim, 60 * SECOND, both_closed, pair))
			pair->sim.fail_alloc = 0;
		(void)sim_run(&pair->sim, 1000 * SECOND, both_closed, pair);
		assert_false(pair->side[0].wrong || pair->side[1].wrong);
		if (pair->side[0].reason == NET_OK && pair->side[0].closed)
			assert_int_equal(pair->side[0].got, 300000);
		pair_destroy(pair);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bytes_arrive_in_both_directions),
		cmocka_unit_test(test_bytes_arrive_over_ipv6),
		cmocka_unit_test(test_segments_of_64_kib_are_used_where_the_peer_takes_them),
		cmocka_unit_test(test_bytes_arrive_over_a_bad_link),
		cmocka_unit_test(test_a_link_that_is_full_now_and_then_loses_nothing),
		cmocka_unit_test(test_one_lost_segment_is_sent_again_without_a_timeout),
		cmocka_unit_test(test_sack_mends_many_holes_in_one_recovery),
		cmocka_unit_test(test_a_slow_owner_closes_the_window_and_opens_it),
		cmocka_unit_test(test_an_answer_from_within_resumed_data_leaves_at_once),
		cmocka_unit_test(test_a_lost_window_update_is_found_by_a_probe),
		cmocka_unit_test(test_each_side_closes_alone),
		cmocka_unit_test(test_a_request_is_answered_when_its_owner_knows),
		cmocka_unit_test(test_a_refused_request_fails_the_connection),
		cmocka_unit_test(test_an_unreachable_request_fails_the_connection),
		cmocka_unit_test(test_nobody_there_times_out),
		cmocka_unit_test(test_a_peer_that_vanishes_times_out),
		cmocka_unit_test(test_keepalive_finds_a_dead_peer),
		cmocka_unit_test(test_a_listener_may_be_taken_away_and_connections_walked),
		cmocka_unit_test(test_abort_resets_the_peer),
		cmocka_unit_test(test_close_delivers_what_was_sent),
		cmocka_unit_test(test_closed_connections_wait_and_then_are_forgotten),
		cmocka_unit_test(test_idle_connections_hold_little_memory),
		cmocka_unit_test(test_a_flood_of_requests_is_bounded),
		cmocka_unit_test(test_memory_is_bounded_and_failures_end_nothing_but_connections),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
