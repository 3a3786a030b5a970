/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/network.h"

#include "link/link.h"
#include "link/policy.h"
#include "link/port.h"
#include "link/user.h"
#include "machine/spec.h"
#include "net/net.h"
#include "os/err.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DNS_PORT_OF_HOSTS 53

bool network_address_valid(const char *text, bool with_bits)
{
	struct net_addr addr;
	uint8_t prefix;

	return with_bits ? net_prefix_parse(text, &addr, &prefix) : net_addr_parse(text, &addr);
}

static struct link_user_address *family(struct link_user_config *c, const struct net_addr *addr)
{
	return net_addr_is4(addr) ? &c->ip4 : &c->ip6;
}

static int read_addresses(const struct spec_net *net, struct link_user_config *c, struct err *err)
{
	const char *bad = NULL;
	struct net_addr addr;
	uint8_t prefix;

	for (unsigned i = 0; i < net->guest.n && !bad; i++) {
		if (net_prefix_parse(net->guest.at[i], &addr, &prefix)) {
			family(c, &addr)->guest = addr;
			family(c, &addr)->prefix = prefix;
		} else {
			bad = net->guest.at[i];
		}
	}
	for (unsigned i = 0; i < net->gateway.n && !bad; i++) {
		if (net_addr_parse(net->gateway.at[i], &addr))
			family(c, &addr)->gateway = addr;
		else
			bad = net->gateway.at[i];
	}
	for (unsigned i = 0; i < net->dns.n && !bad; i++) {
		if (net_addr_parse(net->dns.at[i], &addr))
			family(c, &addr)->dns = addr;
		else
			bad = net->dns.at[i];
	}
	for (unsigned i = 0; i < net->nameserver.n && !bad && c->nnameservers < LINK_NAMESERVERS_MAX; i++) {
		if (net_addr_parse(net->nameserver.at[i], &addr))
			c->nameserver[c->nnameservers++] = (struct net_endpoint){ addr, DNS_PORT_OF_HOSTS };
		else
			bad = net->nameserver.at[i];
	}
	return bad ? err_set(err, -EINVAL, "'%s' is no address for a network", bad) : 0;
}

/* NULL when there are no rules; @ret_r tells failure from that. */
static struct policy *read_policy(const struct spec_net *net, int *ret_r, struct err *err)
{
	struct policy *p;

	*ret_r = 0;
	if (!net->egress.n)
		return NULL;
	p = policy_create();
	if (!p)
		*ret_r = err_set(err, -ENOMEM, "out of host memory");
	for (unsigned i = 0; i < net->egress.n && *ret_r == 0; i++)
		*ret_r = policy_add(p, net->egress.at[i], err);
	if (*ret_r < 0) {
		policy_destroy(p);
		p = NULL;
	}
	return p;
}

static bool is_complete(const struct link_user_address *a)
{
	static const struct net_addr none;

	return net_addr_equal(&a->guest, &none) ||
	       !(net_addr_equal(&a->gateway, &none) || net_addr_equal(&a->dns, &none));
}

bool network_token_parse(const char *text, uint8_t token[SWITCH_TOKEN_SIZE])
{
	unsigned v;

	if (!text || strlen(text) != 2ul * SWITCH_TOKEN_SIZE || strspn(text, "0123456789abcdef") != 2ul * SWITCH_TOKEN_SIZE)
		return false;
	for (unsigned i = 0; i < SWITCH_TOKEN_SIZE; i++) {
		(void)sscanf(text + 2ul * i, "%2x", &v);
		token[i] = (uint8_t)v;
	}
	return true;
}

int network_check(const struct spec_net *net, struct err *err)
{
	struct link_user_config c = { 0 };
	struct link_publish publish;
	uint8_t token[SWITCH_TOKEN_SIZE];
	int r = read_addresses(net, &c, err);

	if (r == 0 && net->kind == SPEC_NET_NAMED && !(net->socket && network_token_parse(net->token, token)))
		r = err_set(err, -EINVAL, "a named network needs the socket of its switch and a token");
	if (r == 0 && !(is_complete(&c.ip4) && is_complete(&c.ip6)))
		r = err_set(err, -EINVAL, "a user network needs a gateway and a dns address with each of the guest's");
	for (unsigned i = 0; i < net->publish.n && r == 0; i++)
		r = link_publish_parse(net->publish.at[i], &publish, err);
	if (r == 0)
		policy_destroy(read_policy(net, &r, err));
	return r;
}

static int publish_all(struct link *link, const struct spec_net *net, struct err *err)
{
	struct link_publish publish;
	uint16_t port;
	int r = 0;

	for (unsigned i = 0; i < net->publish.n && r == 0; i++) {
		r = link_publish_parse(net->publish.at[i], &publish, err);
		if (r == 0)
			r = link_user_publish(link, &publish, &port, err);
	}
	return r;
}

static int create_user(struct loop *loop, const struct spec_net *net, const struct link_host *host,
		       struct link **ret_link, struct err *err)
{
	struct link_user_config c = { .mtu = net->mtu, .hostname = net->hostname, .domain = net->domain,
				      .host_loopback = net->host_loopback, .internal = net->internal,
				      .host = host };
	int r = read_addresses(net, &c, err);

	memcpy(c.mac, net->mac, sizeof(c.mac));
	if (r == 0)
		c.policy = read_policy(net, &r, err);
	if (r < 0)
		return r;
	r = link_user_create(loop, &c, ret_link, err);
	if (r < 0) {
		policy_destroy(c.policy);
		return r;
	}
	r = publish_all(*ret_link, net, err);
	if (r < 0)
		link_destroy(*ret_link);
	return r;
}

static int create_named(struct loop *loop, const struct spec_net *net, const struct link_host *host,
			struct link **ret_link, struct err *err)
{
	uint8_t token[SWITCH_TOKEN_SIZE] = { 0 };
	struct link *gateway;
	int fd, r = create_user(loop, net, host, &gateway, err);

	if (r < 0)
		return r;
	(void)network_token_parse(net->token, token);
	fd = link_port_open(net->socket, token, err);
	r = fd < 0 ? fd : link_port_create(loop, fd, gateway, ret_link, err);
	if (r < 0) {
		link_destroy(gateway);
		if (fd >= 0)
			(void)close(fd);
	}
	return r;
}

static int create_tap(struct loop *loop, const struct spec_net *net, struct link **ret_link, struct err *err)
{
	int fd = link_tap_open(net->name, err), r;

	if (fd < 0)
		return fd;
	r = link_tap_create(loop, fd, net->mac, net->mtu, ret_link, err);
	if (r < 0)
		(void)close(fd);
	return r;
}

static int open_pcap(struct link *link, const char *path, struct err *err)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	return fd < 0 ? err_set(err, -errno, "pcap file %s: %s", path, strerror(errno)) :
			link_capture(link, fd, err);
}

int network_create(struct loop *loop, const struct spec_net *net, const struct link_host *host, struct link **ret_link,
		   struct err *err)
{
	struct link *link;
	int r = -EINVAL;

	switch (net->kind) {
	case SPEC_NET_TAP:
		r = create_tap(loop, net, &link, err);
		break;
	case SPEC_NET_USER:
		r = create_user(loop, net, host, &link, err);
		break;
	case SPEC_NET_NAMED:
		r = create_named(loop, net, host, &link, err);
		break;
	}
	if (r < 0)
		return r;
	r = link_limit(link, &net->send, &net->receive, err);
	if (r == 0 && net->pcap)
		r = open_pcap(link, net->pcap, err);
	if (r < 0) {
		link_destroy(link);
		return r;
	}
	*ret_link = link;
	return 0;
}
