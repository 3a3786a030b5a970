/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Interfaces are set up through rtnetlink (rtnetlink(7)): unlike the older
 * requests it can say that an IPv6 address needs no duplicate detection, whose
 * second of waiting would be most of the guest's start.
 */
#include "guest/network.h"

#include "base/checked.h"
#include "guest/text.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_addr.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdbool.h>
#include <string.h>
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

static int raise(int fd, unsigned index)
{
	struct request rq = { .header = { .nlmsg_len = NLMSG_LENGTH(sizeof(rq.link)), .nlmsg_type = RTM_NEWLINK },
			      .link = { .ifi_index = (int)index, .ifi_flags = IFF_UP, .ifi_change = IFF_UP } };

	return ask(fd, &rq);
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

static int add_address(int fd, unsigned index, const struct conf_address *a)
{
	struct request rq = { .header = { .nlmsg_len = NLMSG_LENGTH(sizeof(rq.addr)), .nlmsg_type = RTM_NEWADDR,
					  .nlmsg_flags = NLM_F_CREATE | NLM_F_REPLACE },
			      .addr = { .ifa_prefixlen = a->prefix, .ifa_flags = IFA_F_NODAD, .ifa_index = index } };
	uint8_t bytes[16];
	size_t len = parse(a->addr, bytes, &rq.addr.ifa_family);

	if (!len)
		return EINVAL;
	add_attribute(&rq, IFA_LOCAL, bytes, len);
	add_attribute(&rq, IFA_ADDRESS, bytes, len);
	return ask(fd, &rq);
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

void network_up(const struct conf *conf)
{
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE), r;

	if (fd < 0)
		return;	/* a kernel without network */
	(void)raise(fd, 1);	/* the loopback is always the first */
	for (unsigned i = 0; i < conf->naddresses; i++) {
		const struct conf_address *a = &conf->address[i];
		unsigned index = if_nametoindex(a->interface);

		r = index ? raise(fd, index) : ENODEV;
		if (r == 0)
			r = add_address(fd, index, a);
		if (r)
			complain("cannot set up the network's address", a->addr, r);
	}
	for (unsigned i = 0; i < conf->ngateways; i++) {
		r = add_gateway(fd, conf->gateway[i]);
		if (r)
			complain("cannot set up the route over", conf->gateway[i], r);
	}
	close(fd);
}

/* ---- files ---- */

struct file {
	int fd;	/* -1: cannot be written */
};

/* A new file in place of what the image has there, be it a link to a program's file. */
static struct file begin(const char *path)
{
	(void)unlink(path);
	return (struct file){ .fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644) };
}

static void put(const struct file *f, const char *str)
{
	if (f->fd >= 0 && write(f->fd, str, strlen(str)) < 0)
		complain("cannot write", str, errno);
}

static void end(const struct file *f)
{
	if (f->fd >= 0)
		close(f->fd);
}

static void put_line(const struct file *f, const char *key, const char *value)
{
	put(f, key);
	put(f, value);
	put(f, "\n");
}

static void write_hosts(const struct conf *conf)
{
	struct file f = begin("/etc/hosts");

	put(&f, "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
		"ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n");
	for (unsigned i = 0; i < conf->naddresses; i++) {
		put(&f, conf->address[i].addr);
		put_line(&f, "\t", conf->hostname);
	}
	for (unsigned i = 0; i < conf->nhosts; i++) {
		put(&f, conf->host[i].addr);
		put_line(&f, "\t", conf->host[i].name);
	}
	end(&f);
}

void network_files(const struct conf *conf)
{
	struct file f;

	if (!conf->naddresses && !conf->nhosts && !conf->nnameservers)
		return;
	write_hosts(conf);
	f = begin("/etc/hostname");
	put_line(&f, "", conf->hostname);
	end(&f);
	if (!conf->nnameservers)
		return;
	f = begin("/etc/resolv.conf");
	if (conf->search)
		put_line(&f, "search ", conf->search);
	for (unsigned i = 0; i < conf->nnameservers; i++)
		put_line(&f, "nameserver ", conf->nameserver[i]);
	end(&f);
}
