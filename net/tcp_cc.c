/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CUBIC (RFC 9438) in integers: windows in bytes, time in milliseconds.
 *
 *   W(t) = C * (t - K)^3 + W_max,  K = cbrt(W_max * (1 - beta) / C),  C = 0.4, beta = 0.7
 *
 * with windows in segments and seconds there; the constants below turn that around.
 */
#include "net/tcp_conn.h"

#define BETA_NUM 7u
#define BETA_DEN 10u
#define INITIAL_SEGMENTS 10u	/* RFC 6928 */
#define CUBIC_SPAN ((int64_t)1 << 19)	/* ms; its cube fits */
#define WINDOW_MAX (64u << 20)	/* bytes */

static uint32_t cube_root(uint64_t v)
{
	uint64_t root = 0;

	for (int bit = 20; bit >= 0; bit--) {
		uint64_t next = root | 1ull << bit;

		if (next * next * next <= v)
			root = next;
	}
	return (uint32_t)root;
}

void cc_init(struct tcp_conn *conn)
{
	conn->cwnd = INITIAL_SEGMENTS * conn->mss;
	conn->ssthresh = UINT32_MAX;
	conn->w_max = 0;
	conn->epoch = 0;
}

static void begin_epoch(struct tcp_conn *conn)
{
	uint64_t below = conn->w_max > conn->cwnd ? (conn->w_max - conn->cwnd) / conn->mss : 0;

	conn->epoch = conn->net->now;
	conn->w_reno = conn->cwnd;
	conn->grown = 0;
	if (!below)
		conn->w_max = conn->cwnd;
	/* K in ms: cbrt(segments / 0.4 * 1000^3); RFC 9438, 4.2. */
	conn->k_ms = cube_root(below * 2500000000ull);
}

/* W_cubic after @ms of the epoch, in bytes. */
static uint64_t cubic(const struct tcp_conn *conn, uint64_t ms)
{
	int64_t t = (int64_t)min_of(ms, (uint64_t)1 << 20) - (int64_t)conn->k_ms;
	int64_t segments_1024;

	t = t > CUBIC_SPAN ? CUBIC_SPAN : t < -CUBIC_SPAN ? -CUBIC_SPAN : t;
	/* 0.4 * (t / 1000)^3 segments, in units of 1/1024; 2^57 * 4 does not overflow. */
	segments_1024 = t * t * t / 1000000 * 4 * 1024 / 10000;
	segments_1024 = segments_1024 * conn->mss / 1024 + conn->w_max;
	return segments_1024 > 0 ? (uint64_t)segments_1024 : 0;
}

static void avoid_congestion(struct tcp_conn *conn, uint32_t bytes)
{
	uint64_t ms, target, step;

	if (!conn->epoch)
		begin_epoch(conn);
	ms = (conn->net->now - conn->epoch) / MS;
	/* RFC 9438, 4.3: alpha = 3 * (1 - beta) / (1 + beta) = 9/17, then 1 above w_max. */
	step = (uint64_t)bytes * conn->mss / conn->cwnd;
	conn->w_reno += (uint32_t)(conn->w_reno < conn->w_max ? step * 9 / 17 : step);
	if (cubic(conn, ms) < conn->w_reno) {
		conn->cwnd = max_of(conn->cwnd, min_of(conn->w_reno, WINDOW_MAX));
		return;
	}
	target = cubic(conn, ms + conn->srtt / MS);
	target = max_of(target, (uint64_t)conn->cwnd);
	target = min_of(target, (uint64_t)conn->cwnd + conn->cwnd / 2);
	/* (target - cwnd) / cwnd for each byte acknowledged; the remainder is not lost. */
	step = (target - conn->cwnd) * bytes + conn->grown;
	conn->grown = (uint32_t)(step % conn->cwnd);
	conn->cwnd = (uint32_t)min_of(conn->cwnd + step / conn->cwnd, WINDOW_MAX);
}

void cc_acked(struct tcp_conn *conn, uint32_t bytes)
{
	if (!conn->cwnd_limited)	/* it says nothing about a larger window (RFC 9438, 5.8) */
		return;
	if (conn->cwnd < conn->ssthresh)
		conn->cwnd = min_of(conn->cwnd + min_of(bytes, conn->cwnd), WINDOW_MAX);
	else
		avoid_congestion(conn, bytes);
}

static void reduce(struct tcp_conn *conn)
{
	/* RFC 9438, 4.7: a flow that loses before its last peak makes room for others. */
	if (conn->cwnd < conn->w_max)
		conn->w_max = (uint32_t)((uint64_t)conn->cwnd * (BETA_DEN + BETA_NUM) / (2 * BETA_DEN));
	else
		conn->w_max = conn->cwnd;
	conn->ssthresh = max_of((uint32_t)((uint64_t)conn->cwnd * BETA_NUM / BETA_DEN),
				2u * conn->mss);
	conn->epoch = 0;
}

void cc_lost(struct tcp_conn *conn)
{
	reduce(conn);
	conn->cwnd = conn->ssthresh;
}

void cc_timeout(struct tcp_conn *conn)
{
	if (conn->tries == 1 && conn->recovery == RECOVERY_NONE) {
		conn->undo_cwnd = conn->cwnd;
		conn->undo_ssthresh = conn->ssthresh;
		conn->undo_ts = tcp_ts_now(conn->net) + conn->ts_offset;
		conn->undo_possible = conn->timestamps;
	}
	if (conn->tries == 1)
		reduce(conn);
	conn->cwnd = conn->mss;
	conn->cwnd_limited = true;
}

void cc_undo(struct tcp_conn *conn)
{
	conn->cwnd = max_of(conn->cwnd, conn->undo_cwnd);
	conn->ssthresh = conn->undo_ssthresh;
	conn->epoch = 0;
	conn->undo_possible = false;
}

void cc_idle(struct tcp_conn *conn)
{
	/* RFC 5681, 4.1.  Between a proxy and its guest there is no network that changed. */
	if (!conn->net->proxy && conn->net->now - conn->last_sent_at > conn->rto)
		conn->cwnd = min_of(conn->cwnd, INITIAL_SEGMENTS * conn->mss);
}
