/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Interfaces are set up through rtnetlink (rtnetlink(7)): unlike the older
 * requests it can say that an IPv6 address needs no duplicate detection, whose
 * second of waiting would be most of the guest's start.
 */
#include "guest/network.h"

#include "base/checked.h"
#include "guest/files.h"
#include "guest/text.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_addr.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

struct request {
	struct nlmsghdr header;
	union {
		struct ifinfomsg link;
		struct ifaddrmsg addr;
		struct rtmsg route;
		uint8_t room[256];	/* with the attributes */
	};
};

static void add_attribute(struct request *rq, uint16_t type, const void *data, size_t len)
{
	struct rtattr *a = (void *)((uint8_t *)rq + NLMSG_ALIGN(rq->header.nlmsg_len));

	a->rta_type = type;
	a->rta_len = (uint16_t)RTA_LENGTH(len);
	memcpy(RTA_DATA(a), data, len);
	rq->header.nlmsg_len = (uint32_t)(NLMSG_ALIGN(rq->header.nlmsg_len) + RTA_SPACE(len));
}

/* Sends @rq and waits for the kernel's answer.  0 or a positive errno. */
static int ask(int fd, struct request *rq)
{
	struct {
		struct nlmsghdr header;
		struct nlmsgerr error;
		uint8_t quoted[sizeof(struct request)];
	} answer;

	rq->header.nlmsg_flags |= NLM_F_REQUEST | NLM_F_ACK;
	if (send(fd, rq, rq->header.nlmsg_len, 0) < 0 || recv(fd, &answer, sizeof(answer), 0) < 0)
		return errno;
	return answer.header.nlmsg_type == NLMSG_ERROR ? -answer.error.error : EPROTO;
}

/* Reads an address of either family; returns its length in bytes, 0 when it is none. */
static size_t parse(const char *text, uint8_t bytes[16], uint8_t *ret_family)
{
	if (inet_pton(AF_INET, text, bytes) == 1) {
		*ret_family = AF_INET;
		return 4;
	}
	*ret_family = AF_INET6;
	return inet_pton(AF_INET6, text, bytes) == 1 ? 16 : 0;
}

static int change_address(int fd, uint16_t what, unsigned index, const struct conf_address *a)
{
	struct request rq = { .header = { .nlmsg_len = NLMSG_LENGTH(sizeof(rq.addr)), .nlmsg_type = what,
					  .nlmsg_flags = what == RTM_NEWADDR ? NLM_F_CREATE | NLM_F_REPLACE : 0 },
			      .addr = { .ifa_prefixlen = a->prefix, .ifa_flags = IFA_F_NODAD, .ifa_index = index } };
	uint8_t bytes[16];
	size_t len = parse(a->addr, bytes, &rq.addr.ifa_family);

	if (!len)
		return EINVAL;
	add_attribute(&rq, IFA_LOCAL, bytes, len);
	add_attribute(&rq, IFA_ADDRESS, bytes, len);
	return ask(fd, &rq);
}

/* @quiet: the kernel gives it no link-local address. */
static int raise(int fd, const char *interface, bool quiet)
{
	struct request rq = { .header = { .nlmsg_len = NLMSG_LENGTH(sizeof(rq.link)), .nlmsg_type = RTM_NEWLINK },
			      .link = { .ifi_index = (int)if_nametoindex(interface), .ifi_flags = IFF_UP, .ifi_change = IFF_UP } };
	struct text path = { .len = 0 };

	if (!rq.link.ifi_index)
		return ENODEV;
	text_add(&path, "/proc/sys/net/ipv6/conf/");
	text_add(&path, interface);
	text_add(&path, "/addr_gen_mode");
	if (quiet)
		(void)file_put(path.str, "1");	/* IN6_ADDR_GEN_MODE_NONE; there is none without IPv6 */
	return ask(fd, &rq);
}

/* Whether it is given a link-local address. */
static bool has_link_local(const struct conf *conf, const char *interface)
{
	for (unsigned i = 0; i < conf->naddresses; i++)
		if (strcmp(conf->address[i].interface, interface) == 0 && conf_is_link_local(conf->address[i].addr))
			return true;
	return false;
}

static int add_gateway(int fd, const char *gateway)
{
	struct request rq = { .header = { .nlmsg_len = NLMSG_LENGTH(sizeof(rq.route)), .nlmsg_type = RTM_NEWROUTE,
					  .nlmsg_flags = NLM_F_CREATE | NLM_F_REPLACE },
			      .route = { .rtm_table = RT_TABLE_MAIN, .rtm_protocol = RTPROT_BOOT,
					 .rtm_scope = RT_SCOPE_UNIVERSE, .rtm_type = RTN_UNICAST } };
	uint8_t bytes[16];
	size_t len = parse(gateway, bytes, &rq.route.rtm_family);

	if (!len)
		return EINVAL;
	add_attribute(&rq, RTA_GATEWAY, bytes, len);
	return ask(fd, &rq);
}

static void complain(const char *what, const char *name, int error)
{
	struct text message = { .len = 0 };

	text_add(&message, what);
	text_add(&message, " ");
	text_add(&message, name);
	say(message.str, error);
}

/* The link-local address that is made of the MAC address (RFC 4291, appendix A). */
static void change_link_local(int fd, uint16_t what, unsigned index, const uint8_t *mac)
{
	const uint8_t bytes[16] = { 0xfe, 0x80, [8] = mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5] };
	char text[INET6_ADDRSTRLEN];

	/* A kernel without IPv6 has none, nor has an interface that is new. */
	if (inet_ntop(AF_INET6, bytes, text, sizeof(text)))
		(void)change_address(fd, what, index, &(struct conf_address){ .addr = text, .prefix = 64 });
}

/* An ioctl is half the work of a netlink request, for each clone. */
static int move_mac(int fd, unsigned index, const uint8_t mac[6], bool link_local)
{
	struct ifreq ifr = { .ifr_name = "eth0", .ifr_hwaddr.sa_family = ARPHRD_ETHER };
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), r = s < 0 ? errno : 0;

	if (r == 0 && link_local && ioctl(s, SIOCGIFHWADDR, &ifr) < 0)
		r = errno;
	if (r == 0 && link_local)
		change_link_local(fd, RTM_DELADDR, index, (const uint8_t *)ifr.ifr_hwaddr.sa_data);
	memcpy(ifr.ifr_hwaddr.sa_data, mac, 6);
	if (r == 0 && ioctl(s, SIOCSIFHWADDR, &ifr) < 0)
		r = errno;
	if (r == 0 && link_local)
		change_link_local(fd, RTM_NEWADDR, index, mac);
	if (s >= 0)
		close(s);
	return r;
}

/* "ADDRESS/BITS", cut in two in @room. */
static bool split(const char *text, char room[INET6_ADDRSTRLEN], struct conf_address *ret)
{
	const char *slash = strchr(text, '/');
	uint64_t bits;

	if (!slash || (size_t)(slash - text) >= INET6_ADDRSTRLEN || text_to_num(slash + 1, strlen(slash + 1), 128, &bits) < 0)
		return false;
	memcpy(room, text, (size_t)(slash - text));
	room[slash - text] = '\0';
	*ret = (struct conf_address){ .interface = "eth0", .addr = room, .prefix = (uint8_t)bits };
	return true;
}

/* The one of @conf of the same family becomes @a. */
static void note_address(struct conf *conf, const struct conf_address *a)
{
	unsigned i = 0;

	while (i < conf->naddresses && (strcmp(conf->address[i].interface, a->interface) != 0 ||
					!strchr(conf->address[i].addr, ':') != !strchr(a->addr, ':')))
		i++;
	if (i == ARRAY_SIZE(conf->address))
		return;
	conf->address[i] = *a;
	if (i == conf->naddresses)
		conf->naddresses++;
}

int network_move(const struct identity_request *id, struct conf *booted)
{
	static char room[IDENTITY_ADDRESSES_MAX][INET6_ADDRSTRLEN];
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE), r = 0;
	unsigned index = if_nametoindex("eth0");
	struct conf_address a;

	if (fd < 0)
		return -1;
	if (!index)
		r = ENODEV;
	for (unsigned i = 0; i < id->nleft && r == 0; i++) {
		r = split(id->left[i], room[0], &a) ? change_address(fd, RTM_DELADDR, index, &a) : EINVAL;
		if (r == EADDRNOTAVAIL)	/* a program has changed it */
			r = 0;
	}
	if (id->mac && r == 0)
		r = move_mac(fd, index, id->mac, booted && booted->interface);
	for (unsigned i = 0; i < id->ntaken && r == 0; i++) {
		r = split(id->taken[i], room[i], &a) ? change_address(fd, RTM_NEWADDR, index, &a) : EINVAL;
		if (r == 0 && booted)
			note_address(booted, &a);
	}
	/* They went with the last address, or wait for the first. */
	for (unsigned i = 0; booted && id->ntaken && i < booted->ngateways && r == 0; i++)
		r = add_gateway(fd, booted->gateway[i]);
	close(fd);
	errno = r;
	return r ? -1 : 0;
}

void network_up(const struct conf *conf)
{
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE), r;

	if (fd < 0)
		return;	/* a kernel without network */
	(void)raise(fd, "lo", false);
	if (conf->interface) {
		r = raise(fd, conf->interface, true);
		if (r)
			complain("cannot raise", conf->interface, r);
	}
	for (unsigned i = 0; i < conf->naddresses; i++) {
		const struct conf_address *a = &conf->address[i];

		r = raise(fd, a->interface, has_link_local(conf, a->interface));
		if (r == 0)
			r = change_address(fd, RTM_NEWADDR, if_nametoindex(a->interface), a);
		if (r)
			complain("cannot set up the network's address", a->addr, r);
	}
	for (unsigned i = 0; i < conf->ngateways && !conf->interface; i++) {
		r = add_gateway(fd, conf->gateway[i]);
		if (r)
			complain("cannot set up the route over", conf->gateway[i], r);
	}
	close(fd);
}
