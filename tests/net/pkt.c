/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs conformance scripts: pkt SCRIPT...
 *
 * The scripts are packetdrill's (script.h says which part of its language they use), and so is
 * the meaning of what they say: what is sent must have exactly the flags, numbers and options
 * named, up to TOLERANCE early or late; a window that is not named is not looked at.  We are
 * stricter in four things: what is sent must be expected before the script goes on, and
 * before it ends; the timestamp echoed and the checksum must be right; the tolerance does not
 * grow with time.
 *
 * Each script runs with IPv4 and with IPv6, unless it says --ip_version, on sockets on net/ in
 * simulated time: packetdrill.c, the same as what packetdrill loads.  Sequence numbers of the
 * peer wrap around soon, which packetdrill's do not.
 */
#include "packetdrill.h"
#include "script.h"

#include "net/checksum.h"
#include "net/wire.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TOLERANCE 4000	/* us */
#define PEER_ISS 0xffffff80u
#define PEER_PORT 40000u	/* of a peer that connects */
#define PORT 8080u	/* of whoever listens */
#define PEER_WINDOW 65535	/* of segments that do not say */
#define FDS_MAX 16u
#define PACKET_MAX 66000u

static struct {
	const char *name;
	bool v6, failed;
	unsigned line;
	struct script script;
	struct packetdrill_interface sockets;
	long long began, last;	/* us: start; time by the script of the event before */
	bool last_in;	/* ... which was a packet of the peer */
	int fds[FDS_MAX];	/* by their number in the script; -1: none */
	uint16_t our_port, peer_port;
	uint32_t iss, ts_base;
	bool ts_known;
	uint8_t buffer[PACKET_MAX];
} run;

static struct net_addr our_addr(void)
{
	return packetdrill_own(run.v6);
}

/* As packetdrill has them: 192.0.2.0/24 and 2001:db8::/32 are for documentation. */
static struct net_addr peer_addr(void)
{
	return run.v6 ? (struct net_addr){ .b = { 0x20, 0x01, 0x0d, 0xb8, [15] = 1 } } :
			net_addr4(192, 0, 2, 1);
}

__attribute__((format(printf, 1, 2))) static void fail(const char *format, ...)
{
	va_list args;

	if (run.failed)
		return;
	run.failed = true;
	(void)printf("%s:%u: IPv%c: ", run.name, run.line, run.v6 ? '6' : '4');
	va_start(args, format);
	(void)vprintf(format, args);
	va_end(args);
	(void)printf("\n");
}

/* Microseconds from the start of the script. */
static long long now(void)
{
	struct timeval time;

	(void)run.sockets.gettimeofday(run.sockets.userdata, &time, NULL);
	return time.tv_sec * 1000000ll + time.tv_usec - run.began;
}

/* --- Packets of the peer ------------------------------------------------------------------- */

/* Fills in the IP header at @ip of a packet with @len bytes of payload. */
static void put_ip(uint8_t *ip, const struct net_addr *from, const struct net_addr *to, uint8_t proto,
		   size_t len)
{
	if (run.v6) {
		memset(ip, 0, IP6_SIZE);
		ip[0] = 0x60;
		put16(ip + 4, (uint16_t)len);
		ip[6] = proto;
		ip[7] = 64;
		memcpy(ip + 8, from->b, 16);
		memcpy(ip + 24, to->b, 16);
		return;
	}
	memset(ip, 0, IP4_SIZE);
	ip[0] = 0x45;
	put16(ip + 2, (uint16_t)(IP4_SIZE + len));
	ip[8] = 64;
	ip[9] = proto;
	memcpy(ip + 12, from->b + 12, 4);
	memcpy(ip + 16, to->b + 12, 4);
	sum_store(ip + 10, (uint16_t)~sum_fold(sum_bytes(ip, IP4_SIZE, 0)));
}

static size_t ip_size(void)
{
	return run.v6 ? IP6_SIZE : IP4_SIZE;
}

/* Adds @acks to the edges of SACK and @echo to what timestamps echo. */
static void move_options(uint8_t *option, uint32_t left, uint32_t acks, uint32_t value, uint32_t echo)
{
	while (left && *option) {
		uint32_t len = *option == 1 ? 1 : option[1];

		for (uint32_t i = 2; *option == 5 && i + 4 <= len; i += 4)
			put32(option + i, get32(option + i) + acks);
		if (*option == 8) {
			put32(option + 2, get32(option + 2) + value);
			put32(option + 6, get32(option + 6) + echo);
		}
		option += len;
		left -= len;
	}
}

static void send_ip(uint8_t proto, size_t len)
{
	struct net_addr from = peer_addr(), to = our_addr();

	put_ip(run.buffer, &from, &to, proto, len);
	if (run.sockets.netdev_send(run.sockets.userdata, run.buffer, ip_size() + len))
		fail("the packet was not taken");
}

static void send_segment(const struct script_packet *packet)
{
	uint8_t *tcp = run.buffer + ip_size();
	size_t head = TCP_SIZE + packet->options_len, len = head + packet->len;
	struct net_addr from = peer_addr(), to = our_addr();

	memset(tcp, 0, len);
	put16(tcp, run.peer_port);
	put16(tcp + 2, run.our_port);
	put32(tcp + 4, packet->seq + PEER_ISS);
	put32(tcp + 8, packet->flags & 0x10 ? packet->ack + run.iss : 0);
	tcp[12] = (uint8_t)(head / 4 << 4);
	tcp[13] = packet->flags;
	put16(tcp + 14, (uint16_t)(packet->win < 0 ? PEER_WINDOW : packet->win));
	memcpy(tcp + TCP_SIZE, packet->options, packet->options_len);
	move_options(tcp + TCP_SIZE, packet->options_len, run.iss, 0,
		     packet->flags & 0x10 ? run.ts_base : 0);
	sum_store(tcp + 16, (uint16_t)~sum_fold(sum_bytes(
				    tcp, len, sum_pseudo(&from, &to, PROTO_TCP, (uint32_t)len))));
	send_ip(PROTO_TCP, len);
}

/* An error that quotes the first 8 bytes of a segment of ours. */
static void send_icmp(const struct script_packet *packet)
{
	uint8_t *icmp = run.buffer + ip_size(), *ip = icmp + ICMP_SIZE, *tcp = ip + ip_size();
	size_t len = ICMP_SIZE + ip_size() + 8;
	struct net_addr from = peer_addr(), to = our_addr();
	uint64_t sum = run.v6 ? sum_pseudo(&from, &to, PROTO_ICMP6, (uint32_t)len) : 0;

	memset(icmp, 0, len);
	icmp[0] = packet->icmp_type;
	icmp[1] = packet->icmp_code;
	put32(icmp + 4, packet->mtu);
	put_ip(ip, &to, &from, PROTO_TCP, TCP_SIZE + packet->len);
	put16(tcp, run.our_port);
	put16(tcp + 2, run.peer_port);
	put32(tcp + 4, packet->seq + run.iss);
	sum_store(icmp + 2, (uint16_t)~sum_fold(sum_bytes(icmp, len, sum)));
	send_ip(run.v6 ? PROTO_ICMP6 : PROTO_ICMP, len);
}

/* --- Packets of ours ----------------------------------------------------------------------- */

static size_t options_text(const uint8_t *option, uint32_t left, char *text, size_t size)
{
	size_t used = 0;

	for (text[0] = 0; left && *option; left -= *option == 1 ? 1 : option[1],
	    option += *option == 1 ? 1 : option[1]) {
		const char *comma = used ? "," : "";
		char *at = text + used;

		if (*option == 2)
			used += (size_t)snprintf(at, size - used, "%smss %u", comma, get16(option + 2));
		else if (*option == 3)
			used += (size_t)snprintf(at, size - used, "%swscale %u", comma, option[2]);
		else if (*option == 8)
			used += (size_t)snprintf(at, size - used, "%sTS val %u ecr %u", comma,
						 get32(option + 2), get32(option + 6));
		else
			used += (size_t)snprintf(at, size - used, "%s%s", comma,
						 *option == 1 ? "nop" : *option == 4 ? "sackOK" : "sack");
		for (uint32_t i = 2; *option == 5 && i + 8 <= option[1]; i += 8)
			used += (size_t)snprintf(text + used, size - used, " %u:%u", get32(option + i),
						 get32(option + i + 4));
	}
	return used;
}

/* In the words of a script. */
static const char *packet_text(const struct script_packet *packet)
{
	static char text[512];
	char flags[8] = "", options[256];
	size_t count = 0;

	for (unsigned i = 0; i < 5; i++)
		if (packet->flags & 1u << i)
			flags[count++] = "FSRP."[i];
	(void)options_text(packet->options, packet->options_len, options, sizeof(options));
	if (packet->icmp)
		(void)snprintf(text, sizeof(text), "icmp type %u code %u", packet->icmp_type,
			       packet->icmp_code);
	else
		(void)snprintf(text, sizeof(text), "%s %u:%u(%u) ack %u win %d <%s>", flags, packet->seq,
			       packet->seq + packet->len, packet->len, packet->ack, packet->win, options);
	return text;
}

/* The first timestamp that a script names says what its numbers count from. */
static void learn(const struct script_packet *want, const uint8_t *tcp, uint32_t options_len)
{
	if (tcp[13] & 2) {
		run.iss = get32(tcp + 4);
		run.our_port = get16(tcp);
		run.peer_port = get16(tcp + 2);
	}
	if (run.ts_known || !want)
		return;
	for (uint32_t i = 0; i + 10 <= options_len && i + 10 <= want->options_len; i++) {
		const uint8_t *live = tcp + TCP_SIZE + i, *script = want->options + i;

		if (live[0] == 8 && live[1] == 10 && script[0] == 8 && script[1] == 10) {
			run.ts_base = get32(live + 2) - get32(script + 2);
			run.ts_known = true;
			return;
		}
	}
}

static bool read_segment(const uint8_t *tcp, size_t len, const struct script_packet *want,
			 struct script_packet *ret_packet)
{
	size_t head = len < TCP_SIZE ? 0 : (tcp[12] >> 4) * 4u;
	struct net_addr from = our_addr(), to = peer_addr();

	if (head < TCP_SIZE || head > len)
		return false;
	if (sum_fold(sum_bytes(tcp, len, sum_pseudo(&from, &to, PROTO_TCP, (uint32_t)len))) != 0xffff)
		return false;
	ret_packet->options_len = (uint32_t)(head - TCP_SIZE);
	learn(want, tcp, ret_packet->options_len);
	ret_packet->flags = tcp[13];
	ret_packet->seq = get32(tcp + 4) - run.iss;
	ret_packet->len = (uint32_t)(len - head);
	ret_packet->ack = tcp[13] & 0x10 ? get32(tcp + 8) - PEER_ISS : 0;
	ret_packet->win = get16(tcp + 14);
	memcpy(ret_packet->options, tcp + TCP_SIZE, ret_packet->options_len);
	move_options(ret_packet->options, ret_packet->options_len, 0u - PEER_ISS, 0u - run.ts_base, 0);
	return get16(tcp) == run.our_port && get16(tcp + 2) == run.peer_port;
}

/* Reads the packet of @len bytes in run.buffer in terms of the script; false: it is malformed. */
static bool read_packet(size_t len, const struct script_packet *want, struct script_packet *ret_packet)
{
	const uint8_t *ip = run.buffer, *payload = ip + ip_size();
	struct net_addr from = our_addr(), to = peer_addr();
	uint8_t proto = run.v6 ? ip[6] : ip[9];

	memset(ret_packet, 0, sizeof(*ret_packet));
	if (len < ip_size() || ip[0] >> 4 != (run.v6 ? 6 : 4))
		return false;
	if (run.v6 ? get16(ip + 4) != len - IP6_SIZE || memcmp(ip + 8, from.b, 16) ||
			     memcmp(ip + 24, to.b, 16) :
		     get16(ip + 2) != len || memcmp(ip + 12, from.b + 12, 4) ||
			     memcmp(ip + 16, to.b + 12, 4) ||
			     sum_fold(sum_bytes(ip, IP4_SIZE, 0)) != 0xffff)
		return false;
	len -= ip_size();
	if (proto == PROTO_TCP)
		return read_segment(payload, len, want, ret_packet);
	ret_packet->icmp = true;
	ret_packet->icmp_type = payload[0];
	ret_packet->icmp_code = payload[1];
	return proto == (run.v6 ? PROTO_ICMP6 : PROTO_ICMP) && len >= ICMP_SIZE;
}

static bool same(const struct script_packet *want, const struct script_packet *got)
{
	if (want->icmp || got->icmp)
		return want->icmp == got->icmp && want->icmp_type == got->icmp_type &&
		       want->icmp_code == got->icmp_code;
	if (want->flags != got->flags || want->seq != got->seq || want->len != got->len ||
	    want->ack != got->ack || (want->win >= 0 && want->win != got->win))
		return false;
	return want->any_options || (want->options_len == got->options_len &&
				     !memcmp(want->options, got->options, got->options_len));
}

static void expect_packet(const struct script_packet *want, long long at)
{
	struct script_packet got;
	size_t len = sizeof(run.buffer);
	long long time;

	(void)run.sockets.netdev_receive(run.sockets.userdata, run.buffer, &len, &time);
	time -= run.began;
	if (!len)
		fail("nothing was sent");
	else if (!read_packet(len, want, &got))
		fail("sent a malformed packet");
	else if (!same(want, &got))
		fail("sent %s", packet_text(&got));
	else if (time < at - TOLERANCE || time > at + TOLERANCE)
		fail("sent at %.6f s, not at %.6f s", (double)time / 1e6, (double)at / 1e6);
}

/* Nothing may have been sent that no line expected. */
static void expect_silence(void)
{
	struct script_packet got;
	size_t len = sizeof(run.buffer);
	long long time;

	if (run.failed || !packetdrill_pending(&run.sockets))
		return;
	(void)run.sockets.netdev_receive(run.sockets.userdata, run.buffer, &len, &time);
	fail("before that, at %.6f s, it sent %s", (double)(time - run.began) / 1e6,
	     read_packet(len, NULL, &got) ? packet_text(&got) : "a malformed packet");
}

/* --- Calls --------------------------------------------------------------------------------- */

static int live_fd(int32_t fd)
{
	return fd >= 0 && fd < (int32_t)FDS_MAX ? run.fds[fd] : -1;
}

/* Remembers @fd under the number that the script gives it. */
static long new_fd(const struct script_call *call, int fd)
{
	if (fd < 0)
		return -1;
	if (call->result < 0 || call->result >= (int32_t)FDS_MAX || run.fds[call->result] >= 0) {
		(void)run.sockets.close(run.sockets.userdata, fd);
		fail("a descriptor was returned");
		return 0;
	}
	run.fds[call->result] = fd;
	return call->result;
}

static socklen_t endpoint(const struct net_addr *addr, struct sockaddr_in6 *storage)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(PORT) };

	if (run.v6) {
		*storage = (struct sockaddr_in6){ .sin6_family = AF_INET6, .sin6_port = htons(PORT) };
		memcpy(&storage->sin6_addr, addr->b, 16);
		return sizeof(*storage);
	}
	memcpy(&in.sin_addr, addr->b + 12, 4);
	memcpy(storage, &in, sizeof(in));
	return sizeof(in);
}

static long do_socket(const struct script_call *call)
{
	return new_fd(call, run.sockets.socket(run.sockets.userdata, run.v6 ? AF_INET6 : AF_INET,
					       call->args[1].number[0], call->args[2].number[0]));
}

static long do_bind(const struct script_call *call)
{
	struct net_addr addr = our_addr();
	struct sockaddr_in6 storage;
	socklen_t len = endpoint(&addr, &storage);

	return run.sockets.bind(run.sockets.userdata, live_fd(call->args[0].number[0]),
				(const struct sockaddr *)&storage, len);
}

static long do_listen(const struct script_call *call)
{
	return run.sockets.listen(run.sockets.userdata, live_fd(call->args[0].number[0]),
				  call->args[1].number[0]);
}

static long do_accept(const struct script_call *call)
{
	struct sockaddr_in6 storage;
	socklen_t len = sizeof(storage);

	return new_fd(call, run.sockets.accept(run.sockets.userdata, live_fd(call->args[0].number[0]),
					       (struct sockaddr *)&storage, &len));
}

static long do_connect(const struct script_call *call)
{
	struct net_addr addr = peer_addr();
	struct sockaddr_in6 storage;
	socklen_t len = endpoint(&addr, &storage);

	return run.sockets.connect(run.sockets.userdata, live_fd(call->args[0].number[0]),
				   (const struct sockaddr *)&storage, len);
}

/* Memory for @size bytes, cleared. */
static void *buffer(int32_t size)
{
	void *bytes = calloc(1, (size_t)size + 1);

	if (!bytes)
		abort();
	return bytes;
}

static long do_read(const struct script_call *call)
{
	int32_t size = call->args[2].number[0];
	uint8_t *bytes = buffer(size);
	long result = run.sockets.recv(run.sockets.userdata, live_fd(call->args[0].number[0]), bytes,
				       (size_t)size, call->args[3].number[0]);

	for (long i = 0; i < result; i++)	/* all that the peer sends is 0 */
		if (bytes[i])
			fail("byte %ld of what was read is not what was sent", i);
	free(bytes);
	return result;
}

static long do_write(const struct script_call *call)
{
	int32_t len = call->args[2].number[0];
	void *bytes = buffer(len);
	long result = run.sockets.write(run.sockets.userdata, live_fd(call->args[0].number[0]), bytes,
					(size_t)len);

	free(bytes);
	return result;
}

static long do_fcntl(const struct script_call *call)
{
	return run.sockets.fcntl(run.sockets.userdata, live_fd(call->args[0].number[0]),
				 call->args[1].number[0], call->args[2].number[0]);
}

static long do_ioctl(const struct script_call *call)
{
	int value = 0;
	long result = run.sockets.ioctl(run.sockets.userdata, live_fd(call->args[0].number[0]),
					(unsigned long)call->args[1].number[0], &value);

	if (!result && value != call->args[2].number[0])
		fail("ioctl gave %d", value);
	return result;
}

static long do_close(const struct script_call *call)
{
	int fd = live_fd(call->args[0].number[0]);

	if (fd >= 0)
		run.fds[call->args[0].number[0]] = -1;
	return run.sockets.close(run.sockets.userdata, fd);
}

static long do_shutdown(const struct script_call *call)
{
	return run.sockets.shutdown(run.sockets.userdata, live_fd(call->args[0].number[0]),
				    call->args[1].number[0]);
}

static long do_getsockopt(const struct script_call *call)
{
	int value = 0;
	socklen_t len = sizeof(value);
	long result = run.sockets.getsockopt(run.sockets.userdata, live_fd(call->args[0].number[0]),
					     call->args[1].number[0], call->args[2].number[0], &value,
					     &len);

	if (!result && value != call->args[3].number[0])
		fail("getsockopt gave %d (%s)", value, strerror(value));
	return result;
}

/* A number in brackets is one int, a linger two. */
static long do_setsockopt(const struct script_call *call)
{
	socklen_t len = (call->args[3].kind == ARG_LINGER ? 2 : 1) * sizeof(call->args[3].number[0]);

	return run.sockets.setsockopt(run.sockets.userdata, live_fd(call->args[0].number[0]),
				      call->args[1].number[0], call->args[2].number[0],
				      call->args[3].number, len);
}

static long do_poll(const struct script_call *call)
{
	const int32_t *want = call->args[0].number;
	struct pollfd poll = { .fd = live_fd(want[0]), .events = (short)want[1] };
	long result = run.sockets.poll(run.sockets.userdata, &poll, 1, call->args[2].number[0]);

	if (poll.revents != want[2])
		fail("poll gave %#x", (unsigned)poll.revents);
	return result;
}

static const struct {
	const char *name;
	long (*run)(const struct script_call *call);
	unsigned least, most;	/* arguments */
} calls[] = {
	{ "socket", do_socket, 3, 3 }, { "bind", do_bind, 3, 3 }, { "listen", do_listen, 2, 2 },
	{ "accept", do_accept, 3, 3 }, { "connect", do_connect, 3, 3 }, { "read", do_read, 3, 3 },
	{ "recv", do_read, 4, 4 }, { "write", do_write, 3, 3 }, { "fcntl", do_fcntl, 2, 3 },
	{ "ioctl", do_ioctl, 3, 3 }, { "close", do_close, 1, 1 }, { "shutdown", do_shutdown, 2, 2 },
	{ "getsockopt", do_getsockopt, 5, 5 }, { "setsockopt", do_setsockopt, 5, 5 },
	{ "poll", do_poll, 3, 3 },
};

static void make_call(const struct script_call *call)
{
	unsigned i = 0, count = sizeof(calls) / sizeof(calls[0]);
	long result;

	while (i < count && strcmp(calls[i].name, call->name))
		i++;
	if (i == count || call->count < calls[i].least || call->count > calls[i].most) {
		fail(i == count ? "no such call: %s" : "%s has other arguments", call->name);
		return;
	}
	errno = 0;
	result = calls[i].run(call);
	if (result != call->result || (result < 0 && errno != call->error))
		fail("%s gave %ld%s%s", call->name, result, result < 0 ? ": " : "",
		     result < 0 ? strerror(errno) : "");
}

/* --- Scripts ------------------------------------------------------------------------------- */

static void wait_until(long long at)
{
	long long left = at - now();

	if (left > 0)
		(void)run.sockets.usleep(run.sockets.userdata, (useconds_t)left);
	else if (left < -TOLERANCE)
		fail("it is %.6f s already", (double)now() / 1e6);
}

static void run_event(const struct script_event *event)
{
	bool in = event->kind == EVENT_IN;
	long long at = (long long)event->time;

	run.line = event->line;
	if (event->relative)	/* packets of the peer do not drift */
		at += in && run.last_in ? run.last : now();
	run.last = at;
	run.last_in = in;
	if (event->kind == EVENT_OUT) {
		expect_packet(&event->packet, at);
		return;
	}
	wait_until(at);
	expect_silence();
	if (run.failed)
		return;
	if (event->kind == EVENT_CALL)
		make_call(&event->call);
	else if (event->packet.icmp)
		send_icmp(&event->packet);
	else
		send_segment(&event->packet);
}

/* Runs it with one kind of IP. */
static bool run_script(const char *name, bool v6, unsigned *runs)
{
	memset(&run, 0, sizeof(run));
	run.name = name;
	run.v6 = v6;
	run.our_port = PORT;
	run.peer_port = PEER_PORT;
	for (unsigned i = 0; i < FDS_MAX; i++)
		run.fds[i] = -1;
	run.failed = !script_read(name, v6, &run.script);
	packetdrill_interface_init(run.script.so_flags, &run.sockets);
	run.began = now();
	*runs += run.failed || run.script.events;
	for (struct script_event *event = run.script.events; event && !run.failed; event = event->next)
		run_event(event);
	expect_silence();
	run.sockets.free(run.sockets.userdata);
	for (unsigned i = 0; i < FDS_MAX; i++)
		if (run.fds[i] >= 0)
			(void)close(run.fds[i]);
	script_free(&run.script);
	return !run.failed;
}

int main(int argc, char **argv)
{
	unsigned runs = 0, failed = 0;

	for (int i = 1; i < argc; i++) {
		failed += !run_script(argv[i], false, &runs);
		failed += !run_script(argv[i], true, &runs);
	}
	(void)printf("%d scripts, %u runs, %u failed\n", argc - 1, runs, failed);
	return failed ? 1 : 0;
}
