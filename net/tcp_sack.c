/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sender's scoreboard (RFC 2018, RFC 6675), and the same questions answered
 * without SACK (RFC 6582), where each duplicate acknowledgement stands for a segment
 * that arrived.
 *
 *   snd_una          high_rxt                         recover      snd_nxt
 *      |  retransmitted  |  lost | range | lost? | range |             |
 */
#include "net/tcp_conn.h"

#define DUP_THRESHOLD 3u

void sack_clear(struct tcp_conn *conn)
{
	if (conn->board)
		net_free(conn->net, conn->board, sizeof(*conn->board));
	conn->board = NULL;
}

static void remove_range(struct scoreboard *board, uint32_t at)
{
	board->count--;
	__builtin_memmove(&board->range[at], &board->range[at + 1],
			  (board->count - at) * sizeof(board->range[0]));
}

static uint32_t count_bytes(const struct scoreboard *board)
{
	uint32_t bytes = 0;

	for (uint32_t i = 0; i < board->count; i++)
		bytes += board->range[i].end - board->range[i].begin;
	return bytes;
}

/* Adds a range, joined with those that it touches.  A full board forgets the highest. */
static void add_range(struct scoreboard *board, struct seq_range add)
{
	uint32_t at = 0;

	while (at < board->count && seq_lt(board->range[at].end, add.begin))
		at++;
	while (at < board->count && seq_le(board->range[at].begin, add.end)) {
		add.begin = seq_min(add.begin, board->range[at].begin);
		add.end = seq_max(add.end, board->range[at].end);
		remove_range(board, at);
	}
	if (board->count == SACK_RANGES) {
		if (at == SACK_RANGES)
			return;
		board->count--;
	}
	__builtin_memmove(&board->range[at + 1], &board->range[at],
			  (board->count - at) * sizeof(board->range[0]));
	board->range[at] = add;
	board->count++;
}

bool sack_take(struct tcp_conn *conn, const struct segment *segment)
{
	uint32_t before = conn->board ? conn->board->bytes : 0;

	if (!conn->sack)
		return false;
	for (unsigned i = 0; i < segment->sack_count; i++) {
		struct seq_range range = segment->sack[i];

		/* Below snd_una it is a D-SACK (RFC 2883), beyond snd_nxt a lie. */
		if (!seq_lt(range.begin, range.end) || !seq_lt(conn->snd_una, range.begin) ||
		    seq_lt(conn->snd_nxt, range.end))
			continue;
		if (!conn->board) {
			conn->board = net_alloc_zero(conn->net, sizeof(*conn->board));
			if (!conn->board)
				return false;
		}
		add_range(conn->board, range);
	}
	if (!conn->board)
		return false;
	conn->board->bytes = count_bytes(conn->board);
	return conn->board->bytes > before;
}

void sack_advance(struct tcp_conn *conn)
{
	struct scoreboard *board = conn->board;

	if (!board)
		return;
	while (board->count && seq_le(board->range[0].end, conn->snd_una))
		remove_range(board, 0);
	if (board->count && seq_lt(board->range[0].begin, conn->snd_una))
		board->range[0].begin = conn->snd_una;
	if (board->count)
		board->bytes = count_bytes(board);
	else
		sack_clear(conn);
}

/* RFC 6675, 4, IsLost() for what lies before range @at. */
static bool is_lost(const struct tcp_conn *conn, uint32_t at, uint32_t bytes_above)
{
	const struct scoreboard *board = conn->board;

	if (conn->recovery == RECOVERY_TIMEOUT)
		return true;
	return board->count - at >= DUP_THRESHOLD ||
	       bytes_above > (DUP_THRESHOLD - 1) * conn->mss;
}

bool sack_first_lost(const struct tcp_conn *conn)
{
	if (conn->dup_acks >= DUP_THRESHOLD)
		return true;
	return conn->board && is_lost(conn, 0, conn->board->bytes);
}

/* Bytes of [begin, end) that are in flight when it was lost: those sent again. */
static uint32_t sent_again(const struct tcp_conn *conn, uint32_t begin, uint32_t end)
{
	return seq_lt(begin, conn->high_rxt) ? seq_min(conn->high_rxt, end) - begin : 0;
}

static uint32_t pipe_without_sack(const struct tcp_conn *conn)
{
	uint32_t flight = conn->snd_nxt - conn->snd_una, gone;

	switch ((enum recovery)conn->recovery) {
	case RECOVERY_NONE:	/* limited transmit (RFC 3042) */
		return flight - min_of(flight, min_of(conn->dup_acks, 2u) * conn->mss);
	case RECOVERY_FAST:
		gone = conn->dup_acks * conn->mss;
		if (conn->high_rxt == conn->snd_una)
			gone += conn->mss;
		return flight - min_of(flight, gone);
	case RECOVERY_TIMEOUT:
		break;
	}
	return sent_again(conn, conn->snd_una, conn->recover) + (conn->snd_nxt - conn->recover);
}

uint32_t sack_pipe(const struct tcp_conn *conn)
{
	const struct scoreboard *board = conn->board;
	uint32_t at = conn->snd_una, above, pipe = 0;

	if (!conn->sack || (!board && conn->recovery == RECOVERY_TIMEOUT))
		return pipe_without_sack(conn);
	if (!board)
		return conn->snd_nxt - conn->snd_una;
	above = board->bytes;
	for (uint32_t i = 0; i < board->count; i++) {
		uint32_t begin = board->range[i].begin;

		pipe += sent_again(conn, at, begin);
		if (!is_lost(conn, i, above))
			pipe += begin - at;
		above -= board->range[i].end - begin;
		at = board->range[i].end;
	}
	if (conn->recovery == RECOVERY_TIMEOUT && seq_lt(at, conn->recover)) {
		pipe += sent_again(conn, at, conn->recover);
		at = conn->recover;
	}
	return pipe + (conn->snd_nxt - at);
}

/* What was not sent again yet of the first hole that has some; with @lost, only if it is lost. */
static bool next_hole(const struct tcp_conn *conn, bool lost, struct seq_range *ret_range)
{
	const struct scoreboard *board = conn->board;
	uint32_t at = conn->snd_una, above = board ? board->bytes : 0;

	for (uint32_t i = 0; board && i < board->count; i++) {
		uint32_t begin = seq_max(at, conn->high_rxt);

		if (lost && !is_lost(conn, i, above))
			return false;
		if (seq_lt(begin, board->range[i].begin)) {
			*ret_range = (struct seq_range){ begin, board->range[i].begin };
			return true;
		}
		above -= board->range[i].end - board->range[i].begin;
		at = board->range[i].end;
	}
	return false;
}

bool sack_next_doubtful(const struct tcp_conn *conn, struct seq_range *ret_range)
{
	if (conn->recovery != RECOVERY_FAST || !next_hole(conn, false, ret_range))
		return false;
	ret_range->end = seq_min(ret_range->end, ret_range->begin + conn->mss);
	return true;
}

bool sack_next_lost(const struct tcp_conn *conn, struct seq_range *ret_range)
{
	const struct scoreboard *board = conn->board;
	uint32_t at, last;

	if (next_hole(conn, true, ret_range))
		return true;
	at = board && board->count ? board->range[board->count - 1].end : conn->snd_una;
	at = seq_max(at, conn->high_rxt);
	if (conn->recovery == RECOVERY_TIMEOUT)
		last = conn->recover;
	else if (!conn->sack && conn->high_rxt == conn->snd_una)	/* RFC 6582: the first segment */
		last = seq_min(conn->snd_una + conn->mss, conn->recover);
	else
		return false;
	*ret_range = (struct seq_range){ at, last };
	return seq_lt(at, last);
}
