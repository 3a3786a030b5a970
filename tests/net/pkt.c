/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs conformance scripts: pkt SCRIPT...
 *
 * A script is a conversation with one TCP connection of net/, in simulated time, in the
 * manner of packetdrill but not in its language: Debian 12 has no package of it, and what
 * owners of net/'s connections do are callbacks, not system calls.
 *
 *   # comment
 *   TIME listen | connect | accept | refuse | unreachable | write N | shutdown | close | abort
 *   TIME take N | take all             how much data the owner takes from now on
 *   TIME nagle | keepalive IDLE INTERVAL COUNT (s) | offload tso
 *   TIME < FLAGS SEQ:END(LEN) [ack N] [win N] [<OPTIONS>]      a segment of the peer
 *   TIME < icmp TYPE [mtu N] seq N     an error about our segment N: host, port, too_big
 *   TIME > FLAGS SEQ:END(LEN) [ack N] [win N] [<OPTIONS>]      one that we must send then
 *   TIME > icmp host
 *   TIME > none                        nothing was sent up to then
 *   TIME = connected | peer_closed | closed REASON | got N | request | writable | kept N
 *
 * TIME is seconds, from the start or with "+" from the line before; what is sent may
 * be TOLERANCE late or early.  FLAGS are of S F R P and "." for ACK; P need not be
 * named.  Sequence numbers count from the first SYN of each side.  OPTIONS are mss N, wscale
 * N, sackOK, TS VAL ECR, sack A:B ...; ours count timestamps from the first one.
 * What a ">" line does not name is not looked at.  First lines may set "mtu N",
 * "recv_max N", "host" (else proxy), before anything else.
 */
#include "net/checksum.h"
#include "net/net.h"
#include "net/tcp.h"
#include "net/wire.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TOLERANCE 4000000ull	/* ns */
#define PEER_ISS 7000000u
#define PEER_PORT 40000u
#define OUR_PORT 80u
#define PEER_WINDOW 65535u

struct sent {	/* a frame of ours */
	struct sent *next;
	uint64_t at;	/* ns */
	uint32_t len;
	uint8_t bytes[];
};

static struct {
	const char *name;
	unsigned line;
	bool failed;
	struct net_config config;
	struct net *net;
	uint64_t now, last;	/* ns; time of the line before */
	struct sent *first, **end;
	struct tcp_conn *conn;
	struct tcp_listener listener;
	uint32_t iss, ts_base;
	bool iss_known, ts_known;
	uint64_t to_write, take;
	bool take_all;
	/* What events told. */
	bool request, connected, peer_closed, closed, writable;
	enum net_result reason;
	uint64_t got;
	bool arp_asked;	/* we want to know who the peer is */
	uint32_t random;
} run;

__attribute__((format(printf, 1, 2))) static void fail(const char *format, ...)
{
	va_list args;

	if (run.failed)
		return;
	run.failed = true;
	(void)printf("%s:%u: ", run.name, run.line);
	va_start(args, format);
	(void)vprintf(format, args);
	va_end(args);
	(void)printf("\n");
}

static void *run_alloc(void *ctx, size_t size)
{
	return malloc(size);
}

static void run_free(void *ctx, void *ptr, size_t size)
{
	free(ptr);
}

static void run_random(void *ctx, void *buf, size_t len)
{
	for (size_t i = 0; i < len; i++)
		((uint8_t *)buf)[i] = (uint8_t)((run.random = run.random * 1103515245 + 12345) >> 16);
}

static bool run_output(void *ctx, const struct net_frame *frame)
{
	struct sent *sent = malloc(sizeof(*sent) + frame->len);
	size_t at = 0;

	if (!sent)
		abort();
	for (unsigned i = 0; i < frame->count; i++) {
		memcpy(sent->bytes + at, frame->spans[i].data, frame->spans[i].len);
		at += frame->spans[i].len;
	}
	if (get16(sent->bytes + 12) != ETH_IP4) {
		run.arp_asked |= get16(sent->bytes + 12) == ETH_ARP;
		free(sent);
		return true;
	}
	*sent = (struct sent){ .at = run.now, .len = frame->len };
	*run.end = sent;
	run.end = &sent->next;
	return true;
}

static void write_more(void)
{
	static const uint8_t data[1 << 16];
	size_t done;

	while (run.conn && run.to_write &&
	       (done = tcp_send(run.conn, data, min_of(run.to_write, sizeof(data)))))
		run.to_write -= done;
}

static void on_connected(struct tcp_conn *conn)
{
	run.connected = true;
}

static size_t on_data(struct tcp_conn *conn, const struct net_span *spans, unsigned count, size_t len)
{
	size_t taken = run.take_all ? len : min_of(len, run.take);

	if (!run.take_all)
		run.take -= taken;
	run.got += taken;
	return taken;
}

static void on_peer_closed(struct tcp_conn *conn)
{
	run.peer_closed = true;
}

static void on_writable(struct tcp_conn *conn)
{
	run.writable = true;
	write_more();
}

static void on_closed(struct tcp_conn *conn, enum net_result reason)
{
	run.closed = true;
	run.reason = reason;
	run.conn = NULL;
}

static const struct tcp_ops ops = {
	.connected = on_connected, .data = on_data, .peer_closed = on_peer_closed,
	.writable = on_writable, .closed = on_closed,
};

static void on_request(struct tcp_listener *listener, struct tcp_conn *conn)
{
	run.request = true;
	run.conn = conn;
	tcp_set_owner(conn, &ops, NULL);
}

static const struct net_ops net_ops = {
	.alloc = run_alloc, .free = run_free, .random = run_random, .output = run_output,
};

static const uint8_t our_mac[6] = { 2, 0, 0, 0, 0, 1 }, peer_mac[6] = { 2, 0, 0, 0, 0, 2 };

static void input(uint8_t *bytes, size_t len)
{
	struct net_span span = { bytes, len };
	struct net_frame frame = { .spans = &span, .count = 1, .len = (uint32_t)len };

	net_input(run.net, &frame, run.now);
	net_flush(run.net, run.now);
}

/* Fills in Ethernet and IPv4 headers of a packet from the peer with @len bytes of payload. */
static void put_ip(uint8_t *bytes, uint8_t proto, size_t len)
{
	uint8_t *ip = bytes + ETH_SIZE;

	memcpy(bytes, our_mac, 6);
	memcpy(bytes + 6, peer_mac, 6);
	put16(bytes + 12, ETH_IP4);
	memset(ip, 0, IP4_SIZE);
	ip[0] = 0x45;
	put16(ip + 2, (uint16_t)(IP4_SIZE + len));
	ip[8] = 64;
	ip[9] = proto;
	memcpy(ip + 12, "\x0a\0\0\x02\x0a\0\0\x01", 8);
	sum_store(ip + 10, (uint16_t)~sum_fold(sum_bytes(ip, IP4_SIZE, 0)));
}

/* The peer says who it is. */
static void send_arp(void)
{
	uint8_t arp[42] = { 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 2, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 2,
			    10, 0, 0, 2, 0, 0, 0, 0, 0, 0, 10, 0, 0, 1 };

	memcpy(arp, our_mac, 6);
	run.arp_asked = false;
	input(arp, sizeof(arp));
	run.arp_asked = false;
}

static void start(void)
{
	if (run.net)
		return;
	memcpy(run.config.mac, our_mac, 6);
	run.config.ops = &net_ops;
	run.config.addrs[0].addr = net_addr4(10, 0, 0, 1);
	run.config.addrs[0].prefix = 24;
	run.config.addr_count = 1;
	run.net = net_create(&run.config, run.now);
	if (!run.net)
		abort();
	send_arp();	/* so that ARP is done with */
}

/* Lets time pass up to @until. */
static void advance(uint64_t until)
{
	uint64_t due;

	while (run.net && (due = net_deadline(run.net)) && due <= until) {
		run.now = max_of(run.now, due);
		net_timers(run.net, run.now);
		if (run.arp_asked)
			send_arp();
	}
	run.now = max_of(run.now, until);
	if (run.net)
		net_clock(run.net, run.now);
}

/* Text of the options of a segment. */
static void options_text(const uint8_t *at, size_t left, bool ours, char *text, size_t size)
{
	size_t used = 0;

	text[0] = 0;
	while (left && *at) {
		size_t len = *at == 1 ? 1 : at[1];
		char part[200] = "";
		size_t part_len = 0;

		if (*at == 2)
			(void)snprintf(part, sizeof(part), "mss %u", get16(at + 2));
		else if (*at == 3)
			(void)snprintf(part, sizeof(part), "wscale %u", at[2]);
		else if (*at == 4)
			(void)snprintf(part, sizeof(part), "sackOK");
		else if (*at == 8)
			(void)snprintf(part, sizeof(part), "TS %u %u", get32(at + 2) - run.ts_base,
				       get32(at + 6));
		for (size_t i = 2; *at == 5 && i + 8 <= len; i += 8)
			part_len += (size_t)snprintf(part + part_len, sizeof(part) - part_len, "%s%u:%u",
						     part_len ? " " : "sack ", get32(at + i) - PEER_ISS,
						     get32(at + i + 4) - PEER_ISS);
		if (part[0])
			used += (size_t)snprintf(text + used, size - used, "%s%s", used ? "," : "", part);
		at += len;
		left -= len;
	}
}

struct parsed {	/* a segment in words */
	char flags[8];
	uint32_t seq, len, ack, win;
	bool has_ack, has_win, has_options;
	char options[200];
};

static const char flag_names[] = "FSRP.";

static void describe(const struct sent *sent, struct parsed *out)
{
	const uint8_t *tcp = sent->bytes + ETH_SIZE + IP4_SIZE;
	size_t head = (tcp[12] >> 4) * 4u, at = 0;

	memset(out, 0, sizeof(*out));
	if (!run.iss_known && tcp[13] & 2) {
		run.iss = get32(tcp + 4);
		run.iss_known = true;
	}
	for (size_t i = 0; !run.ts_known && i + 10 <= head - TCP_SIZE; i++) {
		if (tcp[TCP_SIZE + i] == 8 && tcp[TCP_SIZE + i + 1] == 10) {
			run.ts_base = get32(tcp + TCP_SIZE + i + 2);
			run.ts_known = true;
		}
	}
	for (unsigned i = 0; i < 5; i++)
		if (tcp[13] & 1u << i)
			out->flags[at++] = flag_names[i];
	out->seq = get32(tcp + 4) - (run.iss_known ? run.iss : 0);
	out->len = (uint32_t)(get16(sent->bytes + ETH_SIZE + 2) - IP4_SIZE - head);
	out->ack = tcp[13] & 0x10 ? get32(tcp + 8) - PEER_ISS : 0;
	out->win = get16(tcp + 14);
	options_text(tcp + TCP_SIZE, head - TCP_SIZE, true, out->options, sizeof(out->options));
}

static bool same_flags(const char *want, const char *got)
{
	for (const char *flag = flag_names; *flag; flag++)
		if (*flag != 'P' && !strchr(want, *flag) != !strchr(got, *flag))
			return false;
	return !strchr(want, 'P') || strchr(got, 'P');
}

/* Reads "FLAGS SEQ:END(LEN) [ack N] [win N] [<OPTIONS>]". */
static bool parse_segment(char *text, struct parsed *out)
{
	unsigned seq, end, len;
	int used = 0;
	char *options = strchr(text, '<'), *word;

	memset(out, 0, sizeof(*out));
	if (options) {
		char *close = strchr(options, '>');

		if (!close || (size_t)(close - options) > sizeof(out->options))
			return false;
		memcpy(out->options, options + 1, (size_t)(close - options - 1));
		out->has_options = true;
		*options = 0;
	}
	if (sscanf(text, "%7s %u:%u(%u)%n", out->flags, &seq, &end, &len, &used) != 4 ||
	    end - seq != len)
		return false;
	out->seq = seq;
	out->len = len;
	word = strstr(text + used, "ack ");
	out->has_ack = word;
	if (word)
		out->ack = (uint32_t)strtoul(word + 4, NULL, 10);
	word = strstr(text + used, "win ");
	out->has_win = word;
	out->win = word ? (uint32_t)strtoul(word + 4, NULL, 10) : PEER_WINDOW;
	return true;
}

static void expect_segment(char *text, uint64_t at)
{
	struct parsed want, got;
	struct sent *sent;

	advance(at);
	if (!run.first)
		advance(at + TOLERANCE);
	sent = run.first;
	if (!sent) {
		fail("nothing was sent");
		return;
	}
	run.first = sent->next;
	if (!run.first)
		run.end = &run.first;
	if (!strncmp(text, "icmp", 4)) {
		if (sent->bytes[ETH_SIZE + 9] != 1 || sent->bytes[ETH_SIZE + IP4_SIZE] != 3)
			fail("sent something else than that error");
		free(sent);
		return;
	}
	describe(sent, &got);
	if (!parse_segment(text, &want))
		fail("cannot read that");
	else if (!same_flags(want.flags, got.flags) || want.seq != got.seq || want.len != got.len ||
		 (want.has_ack && want.ack != got.ack) || (want.has_win && want.win != got.win) ||
		 (want.has_options && strcmp(want.options, got.options)))
		fail("sent %s %u:%u(%u) ack %u win %u <%s>", got.flags, got.seq, got.seq + got.len,
		     got.len, got.ack, got.win, got.options);
	else if (sent->at + TOLERANCE < at || sent->at > at + TOLERANCE)
		fail("sent at %.3f s", (double)(sent->at - 1000000000) / 1e9);
	free(sent);
}

/* Nothing may have been sent that no line expected. */
static void expect_silence(void)
{
	struct parsed got;

	if (!run.first)
		return;
	describe(run.first, &got);
	fail("before that, at %.3f s, it sent %s %u:%u(%u) ack %u win %u <%s>",
	     (double)(run.first->at - 1000000000) / 1e9, got.flags, got.seq, got.seq + got.len, got.len,
	     got.ack, got.win, got.options);
}

static size_t put_options(char *text, uint8_t *out)
{
	size_t at = 0;
	char *save = NULL;

	for (char *word = strtok_r(text, ",", &save); word; word = strtok_r(NULL, ",", &save)) {
		unsigned a, b;
		int used;

		if (sscanf(word, " mss %u", &a) == 1) {
			put32(out + at, 2u << 24 | 4u << 16 | a);
			at += 4;
		} else if (sscanf(word, " wscale %u", &a) == 1) {
			put32(out + at, 0x01030300 | a);
			at += 4;
		} else if (sscanf(word, " TS %u %u", &a, &b) == 2) {
			put32(out + at, 0x0101080a);
			put32(out + at + 4, a);
			put32(out + at + 8, b + run.ts_base);
			at += 12;
		} else if (strstr(word, "sackOK")) {
			put32(out + at, 0x01010402);
			at += 4;
		} else if ((word = strstr(word, "sack "))) {
			size_t begin = at;

			at += 4;
			for (word += 5; sscanf(word, " %u:%u%n", &a, &b, &used) == 2; word += used) {
				put32(out + at, a + run.iss);
				put32(out + at + 4, b + run.iss);
				at += 8;
			}
			put32(out + begin, 0x01010500 | (uint32_t)(at - begin - 2));
		} else {
			fail("no such option");
		}
	}
	return at;
}

static void send_segment(char *text)
{
	static uint8_t bytes[66000];
	uint8_t *tcp = bytes + ETH_SIZE + IP4_SIZE;
	struct parsed segment;
	struct net_addr from = net_addr4(10, 0, 0, 2), to = net_addr4(10, 0, 0, 1);
	size_t head, len;

	if (!parse_segment(text, &segment)) {
		fail("cannot read that");
		return;
	}
	memset(bytes, 0, sizeof(bytes));
	head = TCP_SIZE + put_options(segment.options, tcp + TCP_SIZE);
	len = head + segment.len;
	put16(tcp, PEER_PORT);
	put16(tcp + 2, OUR_PORT);
	put32(tcp + 4, segment.seq + PEER_ISS);
	put32(tcp + 8, segment.has_ack ? segment.ack + run.iss : 0);
	tcp[12] = (uint8_t)(head / 4 << 4);
	for (unsigned i = 0; i < 5; i++)
		if (strchr(segment.flags, flag_names[i]))
			tcp[13] |= (uint8_t)(1u << i);
	put16(tcp + 14, (uint16_t)segment.win);
	sum_store(tcp + 16, (uint16_t)~sum_fold(sum_bytes(tcp, len, sum_pseudo(&from, &to, 6,
									      (uint32_t)len))));
	put_ip(bytes, 6, len);
	input(bytes, ETH_SIZE + IP4_SIZE + len);
}

static void send_icmp(const char *text)
{
	uint8_t bytes[ETH_SIZE + IP4_SIZE + 8 + IP4_SIZE + 8] = { 0 };
	uint8_t *icmp = bytes + ETH_SIZE + IP4_SIZE, *ip = icmp + 8, *tcp = ip + IP4_SIZE;
	const char *mtu = strstr(text, "mtu "), *seq = strstr(text, "seq ");

	icmp[0] = 3;
	icmp[1] = strstr(text, "too_big") ? 4 : strstr(text, "port") ? 3 : 1;
	if (mtu)
		put16(icmp + 6, (uint16_t)strtoul(mtu + 4, NULL, 10));
	ip[0] = 0x45;
	ip[9] = 6;
	memcpy(ip + 12, "\x0a\0\0\x01\x0a\0\0\x02", 8);
	put16(tcp, OUR_PORT);
	put16(tcp + 2, PEER_PORT);
	put32(tcp + 4, run.iss + (seq ? (uint32_t)strtoul(seq + 4, NULL, 10) : 0));
	sum_store(icmp + 2, (uint16_t)~sum_fold(sum_bytes(icmp, 8 + IP4_SIZE + 8, 0)));
	put_ip(bytes, 1, 8 + IP4_SIZE + 8);
	input(bytes, sizeof(bytes));
}

static enum net_result reason_of(const char *name)
{
	static const struct {
		const char *name;
		enum net_result result;
	} names[] = { { "ok", NET_OK }, { "reset", NET_ECONNRESET }, { "refused", NET_ECONNREFUSED },
		      { "timeout", NET_ETIMEDOUT }, { "unreachable", NET_EHOSTUNREACH },
		      { "aborted", NET_ECONNABORTED } };

	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (!strcmp(name, names[i].name))
			return names[i].result;
	fail("no such reason");
	return NET_OK;
}

static void expect_state(char *what)
{
	struct tcp_info info = { 0 };
	unsigned n;

	if (!strcmp(what, "connected") || !strcmp(what, "request") || !strcmp(what, "peer_closed") ||
	    !strcmp(what, "writable")) {
		if (!(what[0] == 'c' ? run.connected : what[0] == 'r' ? run.request :
		      what[0] == 'p' ? run.peer_closed : run.writable))
			fail("it is not");
	} else if (!strncmp(what, "closed ", 7)) {
		if (!run.closed || run.reason != reason_of(what + 7))
			fail(run.closed ? "closed with %d" : "it is not (%d)", (int)run.reason);
	} else if (sscanf(what, "got %u", &n) == 1) {
		if (run.got != n)
			fail("got %llu", (unsigned long long)run.got);
	} else if (sscanf(what, "kept %u", &n) == 1 && run.conn) {
		tcp_info(run.conn, &info);
		if (info.kept != n)
			fail("kept %u", info.kept);
	} else if (!strcmp(what, "open")) {
		if (run.closed)
			fail("closed with %d", (int)run.reason);
	} else {
		fail("no such expectation");
	}
}

static void do_connect(void)
{
	struct net_endpoint local = { net_addr4(10, 0, 0, 1), OUR_PORT },
			    remote = { net_addr4(10, 0, 0, 2), PEER_PORT };

	if (tcp_connect(run.net, &local, &remote, &ops, NULL, &run.conn) != NET_OK)
		fail("tcp_connect failed");
}

/* What the owner of the connection does. */
static void act(char *what)
{
	unsigned a, b, c;

	if (!strcmp(what, "listen")) {
		run.listener = (struct tcp_listener){ .local = { .port = OUR_PORT },
						      .request = on_request };
		(void)tcp_listen(run.net, &run.listener);
	} else if (!strcmp(what, "connect")) {
		do_connect();
	} else if (sscanf(what, "take %u", &a) == 1 || !strcmp(what, "take all")) {
		run.take_all = what[5] == 'a';
		run.take = run.take_all ? 0 : a;
		if (run.conn)
			tcp_resume(run.conn);
	} else if (!strcmp(what, "offload tso")) {
		net_set_offloads(run.net, NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4);
	} else if (!run.conn) {
		fail("there is no connection");
	} else if (!strcmp(what, "accept")) {
		tcp_accept(run.conn);
	} else if (!strcmp(what, "shutdown")) {
		tcp_shutdown(run.conn);
	} else if (!strcmp(what, "nagle")) {
		tcp_set_nagle(run.conn, true);
	} else if (sscanf(what, "keepalive %u %u %u", &a, &b, &c) == 3) {
		tcp_set_keepalive(run.conn, a * 1000000000ull, b * 1000000000ull, c);
	} else if (sscanf(what, "write %u", &a) == 1) {
		run.to_write += a;
		write_more();
	} else {	/* what ends it */
		struct tcp_conn *conn = run.conn;

		run.conn = NULL;
		if (!strcmp(what, "refuse"))
			tcp_refuse(conn);
		else if (!strcmp(what, "unreachable"))
			tcp_unreachable(conn, ICMP_HOST_UNREACHABLE);
		else if (!strcmp(what, "close"))
			tcp_close(conn);
		else if (!strcmp(what, "abort"))
			tcp_abort(conn);
		else
			fail("no such command");
	}
}

static bool is_setting(const char *line)
{
	unsigned n;

	if (sscanf(line, "mtu %u", &n) == 1)
		run.config.mtu = (uint16_t)n;
	else if (sscanf(line, "recv_max %u", &n) == 1)
		run.config.limits.tcp_recv_max = n;
	else if (!strncmp(line, "host", 4))
		run.config.proxy = false;
	else
		return false;
	return true;
}

static void run_line(char *line)
{
	char *what = line;
	bool relative = *line == '+';
	double seconds;
	uint64_t at;

	line[strcspn(line, "#\n")] = 0;
	for (size_t len = strlen(line); len && line[len - 1] == ' '; len--)
		line[len - 1] = 0;
	if (!*line || is_setting(line))
		return;
	start();
	seconds = strtod(line, &what);
	if (what == line || *what != ' ') {
		fail("no time");
		return;
	}
	what += strspn(what, " ");
	at = (relative ? run.last : 1000000000ull) + (uint64_t)(seconds * 1e9 + 0.5);
	run.last = at;
	if (*what == '>' && strcmp(what, "> none")) {
		expect_segment(what + 1 + strspn(what + 1, " "), at);
		return;
	}
	advance(at);
	if (*what != '=')	/* what happened may have sent something too: the next lines say it */
		expect_silence();
	if (!strncmp(what, "< icmp", 6))
		send_icmp(what + 2);
	else if (*what == '<')
		send_segment(what + 2);
	else if (*what == '=')
		expect_state(what + 2);
	else if (*what != '>')
		act(what);
}

static bool run_script(const char *name)
{
	FILE *file = fopen(name, "re");
	char line[400];

	if (!file) {
		perror(name);
		return false;
	}
	memset(&run, 0, sizeof(run));
	run.name = name;
	run.now = run.last = 1000000000;
	run.end = &run.first;
	run.take_all = true;
	run.config.proxy = true;
	while (!run.failed && fgets(line, sizeof(line), file)) {
		run.line++;
		run_line(line);
	}
	(void)fclose(file);
	if (!run.failed)
		expect_silence();
	while (run.first) {
		struct sent *next = run.first->next;

		free(run.first);
		run.first = next;
	}
	if (run.net)
		net_destroy(run.net);
	return !run.failed;
}

int main(int argc, char **argv)
{
	int failed = 0;

	for (int i = 1; i < argc; i++)
		failed += !run_script(argv[i]);
	(void)printf("%d scripts, %d failed\n", argc - 1, failed);
	return failed ? 1 : 0;
}
