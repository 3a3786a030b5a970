/* SPDX-License-Identifier: Apache-2.0 */
/*
 * net/ behind a TAP device: tap DEVICE [MTU [OFFLOADS]].  The kernel at the other
 * end is the peer; run_tap.py is who talks through it.
 *
 * It is 10.7.0.1/24 and fd07::1/64, a proxy for everything else, and serves
 *   TCP 7     echo                    TCP 4     accepted after 300 ms
 *   TCP 9     takes, then tells how many bytes and their sum
 *   TCP 19    sends as many bytes as the first line says
 *   TCP 2     ICMP host unreachable   TCP 3     never answered
 *   TCP other refused
 *   UDP 7     echo; other ports are unreachable
 *   TCP connections of its own: a datagram "PORT" to UDP 5 makes it connect to
 *   the sender, from 203.0.113.9, and echo there
 *   DHCP, DHCPv6, router advertisements
 */
#include "net/dhcp4.h"
#include "net/dhcp6.h"
#include "net/net.h"
#include "net/ra.h"
#include "net/tcp.h"
#include "net/udp.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

_Static_assert(sizeof(struct net_span) == sizeof(struct iovec) &&
	       offsetof(struct net_span, len) == offsetof(struct iovec, iov_len), "");

static int tap = -1;
static bool full;	/* output() said no */

struct service {	/* of one connection */
	uint16_t port;
	bool echo_done;
	uint64_t got, sum, to_send;
	char line[32];
	size_t line_len;
	struct service *next_delayed;
	struct tcp_conn *conn;
	uint64_t accept_at;
};

static struct service *delayed;	/* by time, all of the same delay */

static uint64_t now(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void *tap_alloc(void *ctx, size_t size)
{
	return malloc(size);
}

static void tap_free(void *ctx, void *ptr, size_t size)
{
	free(ptr);
}

static void tap_random(void *ctx, void *buf, size_t len)
{
	if (getrandom(buf, len, 0) != (ssize_t)len)
		die("getrandom");
}

static bool tap_output(void *ctx, const struct net_frame *frame)
{
	struct virtio_net_hdr hdr = {
		.flags = frame->csum_partial ? VIRTIO_NET_HDR_F_NEEDS_CSUM : 0,
		.gso_type = (uint8_t)frame->gso, .hdr_len = frame->hdr_len,
		.gso_size = frame->gso_size, .csum_start = frame->csum_start,
		.csum_offset = frame->csum_offset,
	};
	struct iovec iov[1 + NET_SPANS_MAX];

	iov[0] = (struct iovec){ &hdr, sizeof(hdr) };
	memcpy(iov + 1, frame->spans, frame->count * sizeof(*iov));
	if (writev(tap, iov, 1 + (int)frame->count) >= 0)
		return true;
	if (errno == EAGAIN)
		full = true;
	else if (errno != EIO)	/* that is: the device is down */
		(void)fprintf(stderr, "write of %u bytes: %s\n", frame->len, strerror(errno));
	return errno != EAGAIN;
}

static void send_numbers(struct tcp_conn *conn, struct service *service)
{
	struct net_room rooms[4];
	unsigned count;
	size_t got;

	while (service->to_send && (got = tcp_reserve(conn, service->to_send, rooms, 4, &count))) {
		for (unsigned i = 0; i < count; i++)
			memset(rooms[i].data, 'x', rooms[i].len);
		service->to_send -= got;
		tcp_commit(conn, got);
	}
	if (!service->to_send)
		tcp_shutdown(conn);
}

static size_t take_line(struct tcp_conn *conn, struct service *service, const struct net_span *span)
{
	for (size_t i = 0; i < span->len && service->line_len < sizeof(service->line) - 1; i++) {
		char c = ((const char *)span->data)[i];

		service->line[service->line_len++] = c;
		if (c == '\n') {
			service->to_send = strtoull(service->line, NULL, 10);
			send_numbers(conn, service);
		}
	}
	return span->len;
}

static size_t on_data(struct tcp_conn *conn, const struct net_span *spans, unsigned count, size_t len)
{
	struct service *service = tcp_user(conn);
	size_t taken = 0, part;

	for (unsigned i = 0; i < count; i++) {
		if (service->port == 19) {
			taken += take_line(conn, service, &spans[i]);
		} else if (service->port == 9) {
			for (size_t j = 0; j < spans[i].len; j += 4096)
				service->sum += ((const uint8_t *)spans[i].data)[j];
			taken += spans[i].len;
		} else {
			part = tcp_send(conn, spans[i].data, spans[i].len);
			taken += part;
			if (part < spans[i].len)
				break;
		}
	}
	service->got += taken;
	return taken;
}

static void on_peer_closed(struct tcp_conn *conn)
{
	struct service *service = tcp_user(conn);
	char text[64];

	if (service->port == 9) {
		(void)snprintf(text, sizeof(text), "%llu\n", (unsigned long long)service->got);
		(void)tcp_send(conn, text, strlen(text));
	}
	if (service->port != 19)
		tcp_shutdown(conn);
}

static void on_writable(struct tcp_conn *conn)
{
	struct service *service = tcp_user(conn);

	if (service->port == 19)
		send_numbers(conn, service);
	else
		tcp_resume(conn);
}

static void on_closed(struct tcp_conn *conn, enum net_result reason)
{
	struct service *service = tcp_user(conn), **link = &delayed;

	while (*link && *link != service)
		link = &(*link)->next_delayed;
	if (*link)
		*link = service->next_delayed;
	free(service);
}

static const struct tcp_ops ops = {
	.data = on_data, .peer_closed = on_peer_closed, .writable = on_writable, .closed = on_closed,
};

static struct service *serve(struct tcp_conn *conn, uint16_t port)
{
	struct service *service = calloc(1, sizeof(*service));

	if (!service)
		die("calloc");
	service->port = port;
	service->conn = conn;
	tcp_set_owner(conn, &ops, service);
	return service;
}

static void on_request(void *ctx, struct tcp_conn *conn)
{
	uint16_t port = tcp_local(conn)->port;
	struct service *service, **link = &delayed;

	if (port == 7 || port == 9 || port == 19) {
		(void)serve(conn, port);
		tcp_accept(conn);
	} else if (port == 4) {
		service = serve(conn, 7);
		service->accept_at = now() + 300000000;
		while (*link)
			link = &(*link)->next_delayed;
		*link = service;
	} else if (port == 2) {
		tcp_unreachable(conn, ICMP_HOST_UNREACHABLE);
	} else if (port != 3) {
		tcp_refuse(conn);
	}
}

static void connect_back(struct net *net, const struct udp_datagram *datagram)
{
	struct net_endpoint from = { net_addr4(203, 0, 113, 9), 0 }, to = datagram->from;
	struct tcp_conn *conn;
	char text[16] = "";
	struct service *service = calloc(1, sizeof(*service));

	if (!service)
		die("calloc");
	service->port = 7;
	memcpy(text, datagram->spans[0].data, datagram->len < 15 ? datagram->len : 15);
	to.port = (uint16_t)strtoul(text, NULL, 10);
	if (!net_addr_is4(&to.addr) &&
	    !net_addr_parse("2001:db8::9", &from.addr))
		abort();
	if (tcp_connect(net, &from, &to, &ops, service, &conn) != NET_OK)
		free(service);
}

static struct net *the_net;

static bool on_udp(void *ctx, const struct udp_datagram *datagram)
{
	struct udp_datagram answer = *datagram;

	if (datagram->to.port == 5 && datagram->count) {
		connect_back(the_net, datagram);
		return true;
	}
	if (datagram->to.port != 7)
		return false;
	answer.from = datagram->to;
	answer.to = datagram->from;
	answer.hop_limit = 0;
	(void)udp_send(the_net, &answer);
	return true;
}

static void on_echo(void *ctx, const struct icmp_echo *echo)
{
	struct icmp_echo answer = *echo;

	if (echo->reply)
		return;
	answer.reply = true;
	answer.from = echo->to;
	answer.to = echo->from;
	answer.hop_limit = 0;
	(void)icmp_send_echo(the_net, &answer);
}

static const struct net_ops net_ops = {
	.alloc = tap_alloc, .free = tap_free, .random = tap_random, .output = tap_output,
	.tcp_request = on_request, .udp_input = on_udp, .echo_input = on_echo,
};

static void open_tap(const char *name, unsigned offloads)
{
	struct ifreq ifr = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };

	(void)snprintf(ifr.ifr_name, IFNAMSIZ, "%s", name);
	tap = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (tap < 0 || ioctl(tap, TUNSETIFF, &ifr) < 0)
		die(name);
	if (ioctl(tap, TUNSETOFFLOAD,
		  (offloads & NET_OFFLOAD_CSUM ? TUN_F_CSUM : 0) |
		  (offloads & NET_OFFLOAD_TSO4 ? TUN_F_TSO4 : 0) |
		  (offloads & NET_OFFLOAD_TSO6 ? TUN_F_TSO6 : 0)) < 0)
		die("TUNSETOFFLOAD");
}

/* One frame; false when there is none. */
static bool take_frame(void)
{
	static uint8_t buf[1 << 17];
	struct virtio_net_hdr hdr;
	struct iovec iov[2] = { { &hdr, sizeof(hdr) }, { buf, sizeof(buf) } };
	ssize_t got = readv(tap, iov, 2);
	struct net_span span = { buf, 0 };
	struct net_frame frame = { .spans = &span, .count = 1 };

	if (got < (ssize_t)sizeof(hdr))
		return false;
	span.len = (size_t)got - sizeof(hdr);
	frame.len = (uint32_t)span.len;
	frame.csum_partial = hdr.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM;
	frame.csum_good = hdr.flags & VIRTIO_NET_HDR_F_DATA_VALID;
	frame.gso = (enum net_gso)(hdr.gso_type & ~VIRTIO_NET_HDR_GSO_ECN);
	frame.gso_size = hdr.gso_size;
	frame.hdr_len = hdr.hdr_len;
	frame.csum_start = hdr.csum_start;
	frame.csum_offset = hdr.csum_offset;
	net_input(the_net, &frame, now());
	return true;
}

static int wait_ms(void)
{
	uint64_t due = net_deadline(the_net), time = now();

	if (delayed && (!due || delayed->accept_at < due))
		due = delayed->accept_at;
	if (!due)
		return -1;
	return due <= time ? 0 : (int)((due - time + 999999) / 1000000);
}

static void accept_delayed(void)
{
	while (delayed && delayed->accept_at <= now()) {
		struct service *service = delayed;

		delayed = service->next_delayed;
		tcp_accept(service->conn);
	}
}

static void start_services(void)
{
	struct dhcp4_server_config dhcp = { .server = net_addr4(10, 7, 0, 1), .prefix = 24,
					    .router = net_addr4(10, 7, 0, 1),
					    .dns = { net_addr4(10, 7, 0, 3) }, .dns_count = 1,
					    .domain = "roux.test", .search = "roux.test example.org",
					    .mtu = 1400, .lease_s = 3600,
					    .first = net_addr4(10, 7, 0, 100),
					    .last = net_addr4(10, 7, 0, 101) };
	struct dhcp6_server_config dhcp6 = { .dns_count = 1, .search = "roux.test", .lease_s = 3600 };
	struct ra_config ra = { .prefix_len = 64, .autonomous = true, .other = true,
				.lifetime_s = 3600, .router_lifetime_s = 1800, .dns_count = 1,
				.search = "roux.test", .mtu = 1450, .interval_s = 600 };

	(void)net_addr_parse("fd07::3", &dhcp6.dns[0]);
	(void)net_addr_parse("fd07::", &dhcp6.pool);
	(void)net_addr_parse("fd07::", &ra.prefix);
	ra.dns[0] = dhcp6.dns[0];
	if (!dhcp4_server_create(the_net, &dhcp) || !dhcp6_server_create(the_net, &dhcp6) ||
	    !ra_create(the_net, &ra))
		die("services");
}

int main(int argc, char **argv)
{
	struct net_config config = { .mac = { 2, 0x72, 0x6f, 0x75, 0x78, 1 }, .mtu = 1500,
				     .proxy = true, .ops = &net_ops, .addr_count = 2 };
	unsigned offloads = NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4 | NET_OFFLOAD_TSO6;

	if (argc < 2)
		return 2;
	if (argc > 2)
		config.mtu = (uint16_t)strtoul(argv[2], NULL, 10);
	if (argc > 3)
		offloads = (unsigned)strtoul(argv[3], NULL, 10);
	open_tap(argv[1], offloads);
	config.addrs[0].addr = net_addr4(10, 7, 0, 1);
	config.addrs[0].prefix = 24;
	(void)net_addr_parse("fd07::1", &config.addrs[1].addr);
	config.addrs[1].prefix = 64;
	the_net = net_create(&config, now());
	if (!the_net)
		die("net_create");
	net_set_offloads(the_net, offloads);
	start_services();
	(void)printf("ready\n");
	(void)fflush(stdout);
	for (;;) {
		struct pollfd fds = { tap, (short)(POLLIN | (full ? POLLOUT : 0)), 0 };

		if (poll(&fds, 1, wait_ms()) < 0)
			die("poll");
		net_clock(the_net, now());
		if (full && fds.revents & POLLOUT) {
			full = false;
			net_output_ready(the_net, now());
		}
		for (unsigned i = 0; i < 64 && take_frame(); i++)
			continue;
		net_flush(the_net, now());
		net_timers(the_net, now());
		accept_delayed();
	}
}
