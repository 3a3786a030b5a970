/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scripts in the language of packetdrill (https://github.com/google/packetdrill), as far as
 * those in scripts/ use it; anything else is an error with its line.  [] is what may be left out.
 *
 *   script   option* event*
 *   option   --ip_version=ipv4 | --ip_version=ipv6 | --so_flags=WORD
 *   event    TIME or +TIME (s), then one of
 *     < FLAGS SEQ:END(LEN) [ack N] [win N] [<OPTIONS>]    the peer sends this
 *     > FLAGS SEQ:END(LEN) [ack N] [win N] [<OPTIONS>]    we do; <...>: whatever options
 *     < or > icmp TYPE [CODE] [mtu N] "[" SEQ:END(LEN) "]"    in brackets: the segment it quotes
 *     CALL(ARGUMENT, ...) = NUMBER [ERRNO (words)]
 *   FLAGS    of F S R P and "." for ACK
 *   OPTIONS  nop, mss N, wscale N, sackOK, sack A:B C:D ..., TS val N ecr N
 *   ARGUMENT ... | NUMBER | "[" NUMBER "]" | {onoff=N, linger=N} | "[" {fd=N, events=N, revents=N} "]"
 *   NUMBER   decimal, hexadecimal, a name (of the system, or of packetdrill.h), or several
 *            with "|" between them
 *
 * // and C comments are skipped.  Sequence numbers count from the SYN of each side.
 */
#ifndef TESTS_NET_SCRIPT_H
#define TESTS_NET_SCRIPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SCRIPT_ARGS_MAX 6u
#define SCRIPT_OPTIONS_MAX 40u	/* bytes: RFC 9293, 3.1 */

struct script_packet {
	bool icmp;
	uint8_t icmp_type, icmp_code;
	uint32_t mtu;	/* of icmp; 0: none */
	uint8_t flags;	/* as in the TCP header */
	uint32_t seq, len, ack;	/* of icmp: seq and len of the segment quoted */
	int32_t win;	/* not scaled; -1: not given */
	bool any_options;
	uint8_t options[SCRIPT_OPTIONS_MAX];	/* as in the TCP header, numbers as in the script */
	uint32_t options_len;
};

struct script_arg {
	enum { ARG_ELLIPSIS, ARG_NUMBER, ARG_LIST, ARG_LINGER, ARG_POLL } kind;
	int32_t number[3];	/* as many as the kind has */
};

struct script_call {
	char name[16];
	struct script_arg args[SCRIPT_ARGS_MAX];
	unsigned count;	/* of args */
	int32_t result;
	int error;	/* errno; 0: none */
};

struct script_event {
	struct script_event *next;
	unsigned line;
	bool relative;	/* time is from the end of the event before */
	uint64_t time;	/* us */
	enum { EVENT_IN, EVENT_OUT, EVENT_CALL } kind;
	union {
		struct script_packet packet;
		struct script_call call;
	};
};

struct script {
	char so_flags[32];
	bool no4, no6;	/* --ip_version names the other one */
	struct script_event *events;
};

/*
 * Reads the script @path, for IPv6 if @v6: kinds of ICMP have other names then.  False: it
 * cannot be read, which was said on standard output.  Either way script_free() is due.
 */
bool script_read(const char *path, bool v6, struct script *ret_script);
void script_free(struct script *script);

#endif /* TESTS_NET_SCRIPT_H */
