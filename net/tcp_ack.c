/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an acknowledgement does to the sender: round trip time (RFC 6298), loss and
 * recovery (RFC 5681, 6582, 6675), the peer's window, and room in the send buffer.
 */
#include "net/tcp_conn.h"

void tcp_init_sender(struct tcp_conn *conn)
{
	uint32_t mss = tcp_path_mss(conn->net, conn, UINT16_MAX);

	conn->mss = (uint16_t)min_of(mss, conn->peer_mss);
	cc_init(conn);
}

/* RFC 6298, 2.3. */
static uint64_t timeout(const struct tcp_conn *conn)
{
	return min_of(conn->srtt + max_of(4 * conn->rttvar, RTO_LEAST), RTO_MAX);
}

void tcp_sample_rtt(struct tcp_conn *conn)
{
	uint64_t rtt = max_of(conn->net->now - conn->rtt_at, 1), delta;

	conn->rtt_at = 0;
	if (!conn->srtt) {
		conn->srtt = rtt;
		conn->rttvar = rtt / 2;
	} else {
		delta = rtt > conn->srtt ? rtt - conn->srtt : conn->srtt - rtt;
		conn->rttvar = (3 * conn->rttvar + delta) / 4;
		conn->srtt = (7 * conn->srtt + rtt) / 8;
	}
	conn->rto = timeout(conn);
}

static void leave_recovery(struct tcp_conn *conn)
{
	if (conn->recovery == RECOVERY_FAST)
		conn->cwnd = min_of(conn->ssthresh, max_of(sack_pipe(conn), conn->mss) +
				    3u * conn->mss);	/* no burst: RFC 6582, 3.2 */
	conn->recovery = RECOVERY_NONE;
	conn->dup_acks = 0;
}

static void enter_fast_recovery(struct tcp_conn *conn)
{
	conn->recovery = RECOVERY_FAST;
	conn->recover = conn->snd_nxt;
	conn->high_rxt = conn->snd_una;
	conn->undo_possible = false;
	cc_lost(conn);
	conn->net->stats.tcp_fast_retransmits++;
	tcp_retransmit_first(conn);	/* whatever the window says: RFC 6675, 5, (4.3) */
}

/* Our FIN is acknowledged: RFC 9293, 3.10.7.4, fifth. */
static void fin_acknowledged(struct tcp_conn *conn)
{
	if (conn->state == TCP_FIN_WAIT_1) {
		conn->state = TCP_FIN_WAIT_2;
		if (!conn->ops) {	/* nobody will ever end it */
			conn->end_due = conn->net->now + WAIT_TIME;
			tcp_arm(conn);
		}
	}
}

/* Takes @acked bytes of sequence space out of the send buffer. */
static void take_acked(struct tcp_conn *conn, uint32_t ack)
{
	uint32_t acked = ack - conn->snd_una, data = min_of(acked, conn->send.len);

	chunks_consume(conn->net, &conn->send, data);
	conn->bytes_out += data;
	conn->snd_una = ack;
	conn->tries = 0;
	conn->high_rxt = seq_max(conn->high_rxt, ack);
	sack_advance(conn);
	conn->rtx_due = 0;	/* tcp_output() sets it anew for what is in flight */
	conn->persisting = false;
	if (acked > data)	/* the FIN */
		fin_acknowledged(conn);
}

/* New data was acknowledged. */
static void advance(struct tcp_conn *conn, const struct segment *segment)
{
	uint32_t acked = segment->ack - conn->snd_una;

	if (conn->undo_possible && segment->has_ts) {
		/* RFC 3522: it answers what was sent before the timeout. */
		if ((int32_t)(segment->ts_echo - conn->undo_ts) < 0) {
			cc_undo(conn);
			conn->recovery = RECOVERY_NONE;
		}
		conn->undo_possible = false;
	}
	if (conn->rtt_at && seq_le(conn->rtt_seq, segment->ack))
		tcp_sample_rtt(conn);
	else if (conn->tries && conn->srtt)	/* no sample, but it got through */
		conn->rto = timeout(conn);
	take_acked(conn, segment->ack);
	switch ((enum recovery)conn->recovery) {
	case RECOVERY_NONE:
		conn->dup_acks = 0;
		cc_acked(conn, acked);
		break;
	case RECOVERY_FAST:
		if (seq_le(conn->recover, segment->ack)) {
			leave_recovery(conn);
		} else if (!conn->sack) {	/* a partial one: RFC 6582, 3.2, (3) */
			conn->dup_acks -= min_of(conn->dup_acks, acked / conn->mss);
			conn->high_rxt = conn->snd_una;
			tcp_retransmit_first(conn);
		}
		break;
	case RECOVERY_TIMEOUT:
		cc_acked(conn, acked);
		if (seq_le(conn->recover, segment->ack))
			leave_recovery(conn);
		break;
	}
	conn->cwnd_limited = conn->recovery == RECOVERY_TIMEOUT;	/* until output says again */
}

/* RFC 5681, 2, DUPLICATE ACKNOWLEDGMENT; with SACK, RFC 6675, 2. */
static bool is_duplicate(const struct tcp_conn *conn, const struct segment *segment, bool news)
{
	if (conn->snd_nxt == conn->snd_una || segment->ack != conn->snd_una)
		return false;
	if (conn->sack)
		return news;
	return !segment->len && !(segment->flags & (TCP_SYN | TCP_FIN)) &&
	       segment->window == conn->snd_wnd;
}

static void update_window(struct tcp_conn *conn, const struct segment *segment)
{
	if (!seq_lt(conn->snd_wl1, segment->seq) &&
	    (conn->snd_wl1 != segment->seq || seq_lt(segment->ack, conn->snd_wl2)))
		return;
	if (conn->persisting && segment->window > conn->snd_wnd) {
		conn->rtx_due = 0;
		conn->persisting = false;
		conn->tries = 0;
	}
	conn->snd_wnd = segment->window;
	conn->snd_wnd_max = max_of(conn->snd_wnd_max, segment->window);
	conn->snd_wl1 = segment->seq;
	conn->snd_wl2 = segment->ack;
}

bool tcp_acknowledge(struct tcp_conn *conn, const struct segment *segment)
{
	bool news, duplicate, had_data = conn->send.len;

	if (seq_lt(conn->snd_nxt, segment->ack) ||
	    seq_lt(segment->ack, conn->snd_una - max_of(conn->snd_wnd_max, 1u << 16))) {
		tcp_challenge(conn);	/* RFC 5961, 5 */
		return false;
	}
	if (seq_lt(segment->ack, conn->snd_una))
		return true;	/* old, but its data may be good */
	news = sack_take(conn, segment);
	duplicate = is_duplicate(conn, segment, news);
	update_window(conn, segment);
	if (seq_lt(conn->snd_una, segment->ack))
		advance(conn, segment);
	else if (duplicate)
		conn->dup_acks++;
	if ((duplicate || news) && conn->recovery == RECOVERY_NONE && sack_first_lost(conn))
		enter_fast_recovery(conn);
	if (had_data && !conn->send.len && conn->ops && conn->ops->drained)
		conn->ops->drained(conn);
	if (!conn->dead)
		tcp_offer_room(conn);
	return !conn->dead;
}
