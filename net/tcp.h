/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TCP (RFC 9293) as its owner sees it.
 *
 *   peer's SYN -> net_ops.tcp_request or a listener -> tcp_accept() -> connected()
 *   tcp_connect()                                                   -> connected()
 *   data() ... peer_closed()                       what the peer sends
 *   tcp_reserve(), tcp_commit() ... writable()     what we send
 *   tcp_shutdown()                                 no more from us
 *   closed()                                       the last event; @conn is gone
 *
 * A connection lives until closed() returned, or until its owner gave it up with
 * tcp_refuse(), tcp_unreachable(), tcp_close() or tcp_abort(): after these there
 * are no more events and the pointer must not be used again.  closed() comes when both sides
 * have ended and everything is acknowledged, or when something went wrong;
 * TIME_WAIT (RFC 9293, 3.3.2) is spent without the owner.
 */
#ifndef NET_TCP_H
#define NET_TCP_H

#include "net/icmp.h"
#include "net/types.h"

struct net;
struct tcp_conn;

/* Events of a connection.  Slots may be NULL. */
struct tcp_ops {
	/* The handshake is complete. */
	void (*connected)(struct tcp_conn *conn);
	/*
	 * Data in order: @len bytes in @count spans (at most NET_SPANS_MAX), borrowed for
	 * the call; often they lie in the frame just received.  Returns how many of them it
	 * took.  The rest is kept, within the window that the peer was told, until
	 * tcp_resume(); data() does not come again before.  NULL: everything is taken.
	 * The callback may end the connection.
	 */
	size_t (*data)(struct tcp_conn *conn, const struct net_span *spans, unsigned count, size_t len);
	/* The peer sent FIN and everything before it was taken. */
	void (*peer_closed)(struct tcp_conn *conn);
	/* There is room again after tcp_reserve() gave less than it was asked for. */
	void (*writable)(struct tcp_conn *conn);
	/* Everything committed was acknowledged. */
	void (*drained)(struct tcp_conn *conn);
	/*
	 * The last event.  @reason: NET_OK both sides ended; NET_ECONNRESET by the peer;
	 * NET_ECONNREFUSED before it was connected; NET_ETIMEDOUT it no longer answers;
	 * NET_EHOSTUNREACH, NET_ENETUNREACH an ICMP error while connecting;
	 * NET_ECONNABORTED dropped because of a bound.
	 */
	void (*closed)(struct tcp_conn *conn, enum net_result reason);
};

/* Whom events go to.  @ops is borrowed for the connection's life. */
void tcp_set_owner(struct tcp_conn *conn, const struct tcp_ops *ops, void *user);
void *tcp_user(const struct tcp_conn *conn);

/* The two ends.  For a request: @local is where the peer wants to go. */
const struct net_endpoint *tcp_local(const struct tcp_conn *conn);
const struct net_endpoint *tcp_remote(const struct tcp_conn *conn);

/* Answers to a request (net_ops.tcp_request, or that of a listener), now or later. */
void tcp_accept(struct tcp_conn *conn);
void tcp_refuse(struct tcp_conn *conn);	/* RST: "connection refused" */
void tcp_unreachable(struct tcp_conn *conn, enum icmp_kind why);

/*
 * Host: a port that is listened on.  The struct is the caller's and must stay
 * until tcp_unlisten().  A zero address stands for any own one; in proxy mode,
 * listeners are asked before net_ops.tcp_request.
 */
struct tcp_listener {
	struct net_endpoint local;
	void (*request)(struct tcp_listener *listener, struct tcp_conn *conn);
	void *user;
	struct tcp_listener *next;	/* private */
};
int tcp_listen(struct net *net, struct tcp_listener *listener);	/* NET_EADDRINUSE */
void tcp_unlisten(struct net *net, struct tcp_listener *listener);

/*
 * Opens a connection.  @local->addr may be any address (a published port shows the
 * real client's); a @local->port of 0 chooses one from 49152 on.  Fails with
 * NET_EADDRINUSE when the four numbers are in use or no port is free, NET_ENOMEM,
 * NET_ENETUNREACH (no way there).  No event comes before it returns.
 */
int tcp_connect(struct net *net, const struct net_endpoint *local,
		const struct net_endpoint *remote, const struct tcp_ops *ops, void *user,
		struct tcp_conn **ret_conn);

/*
 * Sending.  tcp_reserve() gives up to @max pieces of send buffer with together at
 * most @want bytes, and returns how many bytes they have; *ret_count is how many
 * pieces.  0: no room (writable() will come), or no memory, or tcp_shutdown() was
 * called.  tcp_commit() sends the first @len bytes of what the last tcp_reserve()
 * gave; other calls for the connection may come between, net_input and net_timers too.
 * A second tcp_reserve() gives the same bytes again.  0 bytes may be committed.
 */
size_t tcp_reserve(struct tcp_conn *conn, size_t want, struct net_room *rooms, unsigned max,
		   unsigned *ret_count);
void tcp_commit(struct tcp_conn *conn, size_t len);

/* The same with a copy: returns how many bytes of @data fitted. */
size_t tcp_send(struct tcp_conn *conn, const void *data, size_t len);

/* Bytes committed and not yet acknowledged. */
size_t tcp_unacked(const struct tcp_conn *conn);

/* Off by default: with it, a part of a segment waits for what is in flight (RFC 9293, 3.7.4). */
void tcp_set_nagle(struct tcp_conn *conn, bool on);

/*
 * Off (0) by default: after @idle_ns without a segment, probe every @interval_ns;
 * closed(NET_ETIMEDOUT) after @count of them without an answer (RFC 9293, 3.8.4).
 */
void tcp_set_keepalive(struct tcp_conn *conn, uint64_t idle_ns, uint64_t interval_ns, unsigned count);

/* Gives data() what was kept, now: the owner can take some again. */
void tcp_resume(struct tcp_conn *conn);

/* Sends FIN after what was committed.  Data of the peer still comes. */
void tcp_shutdown(struct tcp_conn *conn);

/*
 * Gives up the connection: what was committed is still sent, then FIN.  Data of
 * the peer that was not taken, or comes later, is answered with RST (RFC 9293, 3.6.1).
 */
void tcp_close(struct tcp_conn *conn);

/* Gives up the connection with RST. */
void tcp_abort(struct tcp_conn *conn);

enum tcp_state {
	TCP_REQUESTED,	/* SYN came, not answered yet */
	TCP_SYN_SENT,
	TCP_SYN_RECEIVED,
	TCP_ESTABLISHED,
	TCP_FIN_WAIT_1,
	TCP_FIN_WAIT_2,
	TCP_CLOSING,
	TCP_CLOSE_WAIT,
	TCP_LAST_ACK,
	TCP_CLOSED,
};

struct tcp_info {
	enum tcp_state state;
	uint64_t bytes_in, bytes_out;	/* in order and taken or kept; committed and acknowledged */
	uint64_t segments_in, segments_out, retransmits;
	uint64_t srtt_ns, rto_ns;
	uint32_t cwnd, ssthresh;	/* bytes */
	uint32_t send_window, recv_window;	/* bytes, the peer's and what we told it */
	uint32_t unsent, unacked, kept;	/* bytes; kept: in order but not taken by the owner */
	uint16_t mss;	/* bytes of payload in a segment we send */
	bool sack, timestamps, window_scaling;
};
void tcp_info(const struct tcp_conn *conn, struct tcp_info *ret_info);

/* Calls @each for every connection; @each may end the one it is given. */
void tcp_for_each(struct net *net, void (*each)(struct tcp_conn *conn, void *arg), void *arg);

#endif /* NET_TCP_H */
