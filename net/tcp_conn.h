/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to net/tcp*.c: a connection, the table of them, and what the files of
 * TCP call of each other.
 *
 *   tcp.c        what owners call
 *   tcp_table.c  beginning and end; listeners; TIME_WAIT
 *   tcp_in.c     segments received: RFC 9293, 3.10.7
 *   tcp_ack.c    what an acknowledgement does to the sender
 *   tcp_recv.c   data in order, out of order, and the receive window
 *   tcp_out.c    segments sent
 *   tcp_sack.c   what is known to have arrived, is lost, and is in flight
 *   tcp_cc.c     CUBIC
 *   tcp_timer.c  everything that happens without a segment
 *
 * Sequence space of what we send: SYN, then bytes of the send buffer, then FIN.
 * conn->send begins at snd_una (or at iss + 1 while the SYN is not acknowledged).
 */
#ifndef NET_TCP_CONN_H
#define NET_TCP_CONN_H

#include "net/core.h"
#include "net/list.h"
#include "net/tcp.h"

#define TCP_FIN 0x01u
#define TCP_SYN 0x02u
#define TCP_RST 0x04u
#define TCP_PSH 0x08u
#define TCP_ACK 0x10u

#define TCP_TIMESTAMPS_SIZE 12u	/* bytes of the option with what aligns it */
#define SACK_RANGES 32u	/* that the sender remembers */
#define SACK_HISTORY 4u	/* that the receiver reports */
#define MSS_MIN4 536u
#define MSS_MIN6 1220u
#define RTO_FIRST SECOND
/*
 * On top of the round trip, however steady that is: an acknowledgement that the peer delays must not
 * look like a loss.  RFC 6298 says 1 s for both together; Linux has it as we do.
 */
#define RTO_LEAST (200 * MS)
#define RTO_MAX (60 * SECOND)
#define WAIT_TIME (60 * SECOND)	/* 2 MSL: RFC 9293 says 4 minutes; everybody does with less */
#define WINDOW_FIRST (512u << 10)	/* bytes, of a new connection */
#define ACK_AT_ONCE (256u << 10)	/* bytes that do not wait for tcp_flush() */

/* Comparisons modulo 2^32 (RFC 9293, 3.4). */
static inline bool seq_lt(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) < 0;
}

static inline bool seq_le(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) <= 0;
}

static inline uint32_t seq_max(uint32_t a, uint32_t b)
{
	return seq_lt(a, b) ? b : a;
}

static inline uint32_t seq_min(uint32_t a, uint32_t b)
{
	return seq_lt(a, b) ? a : b;
}

struct seq_range {
	uint32_t begin, end;	/* [begin, end) */
};

/* A segment received, in host order. */
struct segment {
	uint32_t seq, ack;
	uint32_t window;	/* bytes; not scaled in a SYN */
	uint32_t len;	/* bytes of payload */
	uint32_t data_at;	/* offset of the payload in the frame */
	uint8_t flags;
	bool has_mss, has_scale, sack_ok, has_ts;
	uint8_t scale;
	uint16_t mss;
	uint32_t ts, ts_echo;
	uint8_t sack_count;
	struct seq_range sack[SACK_HISTORY];
};

struct early {	/* data that came before what precedes it */
	struct early *next;
	uint32_t seq, len;
	uint8_t bytes[];
};

struct scoreboard {
	uint32_t count;
	uint32_t bytes;	/* in the ranges */
	struct seq_range range[SACK_RANGES];	/* ascending, apart from each other */
};

enum recovery {
	RECOVERY_NONE,
	RECOVERY_FAST,	/* RFC 6675, or RFC 6582 without SACK */
	RECOVERY_TIMEOUT,	/* all that is not known to have arrived is taken for lost */
};

struct tcp_conn {
	struct net *net;
	const struct tcp_ops *ops;	/* NULL: given up by its owner */
	void *user;
	struct tcp_conn *hash_next;
	struct list all;	/* of tcp_table.embryonic or .established, or .dead */
	struct list work;	/* of tcp_table.flush or .blocked */
	struct net_endpoint local, remote;

	uint8_t state;	/* enum tcp_state */
	uint8_t recovery;	/* enum recovery */
	uint8_t send_shift, recv_shift;	/* window scaling */
	uint8_t tries;	/* timeouts in a row */
	uint8_t probes;	/* keep-alive probes in a row */
	uint8_t keep_count;
	bool dead : 1;	/* nothing may happen any more but to be freed */
	bool peer_asked : 1;	/* it began with a SYN of the peer */
	bool sack : 1, timestamps : 1, scaling : 1;	/* negotiated */
	bool nagle : 1;
	bool fin_queued : 1, fin_sent : 1;
	bool fin_seen : 1;	/* the peer's FIN is acknowledged */
	bool fin_told : 1;	/* ... and the owner knows */
	bool ack_now : 1;
	bool blocked : 1;	/* in tcp_table.blocked */
	bool in_data : 1;	/* the owner looks at data: nothing is sent until it returns */
	bool kept_shut : 1;	/* the owner did not take all: wait for tcp_resume() */
	bool short_of_room : 1;	/* writable() is owed */
	bool persisting : 1;	/* rtx_due is that of the persist timer */
	bool cwnd_limited : 1;	/* the congestion window is what holds data back */
	bool undo_possible : 1;

	/* sender */
	struct chunks send;
	uint32_t iss, snd_una, snd_nxt;
	uint32_t snd_wnd, snd_wnd_max;	/* bytes */
	uint32_t snd_wl1, snd_wl2;	/* RFC 9293, 3.3.1 */
	uint16_t mss;	/* bytes of payload and options that fit */
	uint16_t peer_mss;
	uint32_t dup_acks;
	uint32_t recover;	/* recovery ends when this is acknowledged */
	uint32_t high_rxt;	/* what is below was retransmitted in this recovery */
	struct scoreboard *board;	/* NULL: nothing reported */
	uint32_t rtt_seq;	/* acknowledged when the sample is complete */
	uint64_t rtt_at;	/* ns; 0: no sample is being taken */
	uint64_t srtt, rttvar, rto;	/* ns */
	uint64_t last_sent_at;	/* ns */

	/* congestion control: tcp_cc.c */
	uint32_t cwnd, ssthresh;	/* bytes */
	uint32_t w_max, w_reno;	/* bytes */
	uint32_t k_ms;
	uint32_t grown;	/* bytes acknowledged that have not yet become window */
	uint64_t epoch;	/* ns; 0: begins with the next acknowledgement */
	uint32_t undo_cwnd, undo_ssthresh, undo_ts;

	/* receiver */
	uint32_t irs, rcv_nxt;
	uint32_t rcv_adv;	/* right edge of the window that the peer was told */
	uint32_t last_ack;	/* acknowledgement number last sent */
	uint32_t window;	/* bytes that we are ready to keep */
	uint32_t ack_bytes;	/* received since last_ack was sent */
	uint32_t tune_bytes;	/* received since tune_at */
	uint64_t tune_at;
	struct chunks kept;	/* in order, not taken by the owner */
	struct early *early, *early_last;	/* by sequence number, without overlap */
	uint32_t early_bytes, early_count;
	uint32_t ts_recent, ts_offset;
	uint64_t ts_recent_at;	/* ns */
	struct seq_range history[SACK_HISTORY];	/* of early data, most recent first */
	uint8_t history_count;

	struct timer timer;
	uint64_t rtx_due, ack_due, keep_due, end_due;	/* ns; 0: off */
	uint64_t heard_at;	/* ns, of the last segment */
	uint32_t keep_idle_ms, keep_interval_ms;
	uint64_t challenge_at;	/* ns, begin of the present second of challenge ACKs */
	uint32_t challenges;

	uint64_t bytes_in, bytes_out, segments_in, segments_out, retransmits;
};

struct time_wait {
	struct time_wait *hash_next;
	struct list all;	/* oldest first */
	struct net_endpoint local, remote;
	uint32_t snd_nxt, rcv_nxt, ts_recent, ts_offset;
	uint64_t ends_at;	/* ns */
	bool timestamps;
};

struct tcp_table {
	struct tcp_conn **hash;	/* mask + 1 lists */
	struct time_wait **wait_hash;	/* wait_mask + 1 lists */
	uint32_t mask, wait_mask;
	uint32_t count, embryonic_count, wait_count;
	struct list embryonic, established, dead;	/* oldest first */
	struct list flush;	/* acknowledgements that wait for tcp_flush() */
	struct list blocked;	/* output that waits for the link */
	struct list waiting;	/* TIME_WAIT */
	struct timer wait_timer;
	struct tcp_listener *listeners;
	uint32_t depth;	/* of calls that may use connections */
};

/* tcp_table.c */
struct tcp_conn *tcp_find(const struct net *net, const struct net_endpoint *local,
			  const struct net_endpoint *remote);
/* A connection in no state yet; NULL: a limit, or out of memory. */
struct tcp_conn *tcp_new(struct net *net, const struct net_endpoint *local,
			 const struct net_endpoint *remote);
void tcp_asked(struct net *net, struct tcp_conn *conn);	/* finds who is to be asked about a request */
void tcp_established(struct tcp_conn *conn);
/* Ends: closed() with @reason if the owner is still there, then the memory. */
void tcp_end(struct tcp_conn *conn, enum net_result reason);
/* Ends it when both sides have, and all is delivered and acknowledged. */
void tcp_end_if_done(struct tcp_conn *conn);
struct time_wait *tcp_find_waiting(const struct net *net, const struct net_endpoint *local,
				   const struct net_endpoint *remote);
void tcp_forget_waiting(struct net *net, struct time_wait *wait);
void tcp_wait_again(struct net *net, struct time_wait *wait);

/* tcp.c */
void tcp_offer_room(struct tcp_conn *conn);	/* writable(), when it is owed and there is room */

/* tcp_in.c */
void tcp_prepare(struct tcp_conn *conn);	/* numbers, windows and options of our SYN */

/* tcp_ack.c */
/* False: the connection ended, or the segment is to be ignored. */
bool tcp_acknowledge(struct tcp_conn *conn, const struct segment *segment);
void tcp_init_sender(struct tcp_conn *conn);	/* when the peer's SYN is known */
void tcp_sample_rtt(struct tcp_conn *conn);	/* what was sent at rtt_at is acknowledged */

/* tcp_recv.c */
void tcp_receive(struct tcp_conn *conn, const struct packet *packet, const struct segment *segment);
uint32_t tcp_window(struct tcp_conn *conn);	/* to announce now; moves rcv_adv */
void tcp_free_early(struct tcp_conn *conn);

/* tcp_out.c */
void tcp_output(struct tcp_conn *conn);	/* all that may be sent now; sets timers */
void tcp_send_syn(struct tcp_conn *conn);	/* SYN, or SYN and ACK when the peer asked */
void tcp_send_rst(struct tcp_conn *conn);
void tcp_send_probe(struct tcp_conn *conn);	/* something that asks for an acknowledgement */
void tcp_send_part(struct tcp_conn *conn);	/* what the small window takes */
void tcp_retransmit_first(struct tcp_conn *conn);
void tcp_challenge(struct tcp_conn *conn);	/* RFC 5961, 7: limited in number */
/* Answers a segment of no connection with RST (RFC 9293, 3.10.7.1). */
void tcp_reply_rst(struct net *net, const struct packet *packet, const struct segment *segment);
void tcp_reply_waiting(struct net *net, const struct time_wait *wait);
uint32_t tcp_ts_now(const struct net *net);	/* ms */
uint32_t tcp_path_mss(const struct net *net, const struct tcp_conn *conn, uint32_t mtu);

/* tcp_sack.c */
bool sack_take(struct tcp_conn *conn, const struct segment *segment);	/* true: something new */
void sack_advance(struct tcp_conn *conn);	/* snd_una moved */
void sack_clear(struct tcp_conn *conn);
bool sack_first_lost(const struct tcp_conn *conn);
uint32_t sack_pipe(const struct tcp_conn *conn);	/* bytes thought to be in flight */
bool sack_next_lost(const struct tcp_conn *conn, struct seq_range *ret_range);
/* RFC 6675, 4, NextSeg() (3): a segment that may be lost, for when nothing else is to be sent. */
bool sack_next_doubtful(const struct tcp_conn *conn, struct seq_range *ret_range);

/* tcp_cc.c */
void cc_init(struct tcp_conn *conn);
void cc_acked(struct tcp_conn *conn, uint32_t bytes);
void cc_lost(struct tcp_conn *conn);	/* by duplicate acknowledgements */
void cc_timeout(struct tcp_conn *conn);
void cc_idle(struct tcp_conn *conn);	/* before sending after a pause */
void cc_undo(struct tcp_conn *conn);	/* the timeout was none */

/* tcp_timer.c */
void tcp_timer(struct net *net, struct timer *timer);
void tcp_arm(struct tcp_conn *conn);	/* after a change of one of the *_due */

#endif /* NET_TCP_CONN_H */
