/* SPDX-License-Identifier: Apache-2.0 */
#include "api/network.h"

#include "api/conf.h"
#include "base/checked.h"
#include "machine/spec.h"
#include "os/err.h"
#include "roux/roux.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define RESOLV_CONF "/etc/resolv.conf"
#define DOMAIN "roux.internal"

/* The user network, the same for every guest: nobody else is on it. */
static const char *const user_guest[] = { "10.0.2.15/24", "fd72:6f75:7800::15/64" };
static const char *const user_gateway[] = { "10.0.2.2", "fd72:6f75:7800::2" };
static const char *const user_dns[] = { "10.0.2.3", "fd72:6f75:7800::3" };

static int add_all(struct spec_list *list, const char *const *text, unsigned n)
{
	int r = 0;

	for (unsigned i = 0; i < n && r == 0; i++)
		r = spec_list_add(list, text[i]);
	return r;
}

/* The host's name servers; without any there is none for the guest either. */
static int add_nameservers(struct spec_list *list)
{
	FILE *f = fopen(RESOLV_CONF, "re");
	char line[256], addr[64];
	int r = 0;

	while (f && r == 0 && fgets(line, sizeof(line), f))
		if (sscanf(line, "nameserver %63[0-9a-fA-F:.]", addr) == 1)
			r = spec_list_add(list, addr);
	if (f)
		(void)fclose(f);
	return r;
}

static int copy(char **field, const char *text)
{
	*field = text ? strdup(text) : NULL;
	return text && !*field ? -ENOMEM : 0;
}

/* An address with or without the bits of its network; NULL is fine. */
static bool is_address(const char *text, bool with_bits)
{
	char copy[INET6_ADDRSTRLEN + 8], *slash, *end;
	uint8_t bytes[16];
	unsigned long bits;
	int family;

	if (!text)
		return true;
	if (strlen(text) >= sizeof(copy))
		return false;
	slash = strchr(strcpy(copy, text), '/');
	if (!slash == with_bits)
		return false;
	if (slash)
		*slash++ = '\0';
	family = strchr(copy, ':') ? AF_INET6 : AF_INET;
	if (inet_pton(family, copy, bytes) != 1)
		return false;
	if (!slash)
		return true;
	bits = strtoul(slash, &end, 10);
	return *slash >= '0' && *slash <= '9' && !*end && bits <= (family == AF_INET ? 32u : 128u);
}

static int check_addresses(const struct roux_network *net, struct err *err)
{
	const struct {
		const char *text;
		bool with_bits;
	} all[] = { { net->address4, true }, { net->address6, true }, { net->gateway4, false },
		    { net->gateway6, false }, { net->nameserver, false } };

	for (unsigned i = 0; i < ARRAY_SIZE(all); i++)
		if (!is_address(all[i].text, all[i].with_bits))
			return err_set(err, -EINVAL, "'%s' is no %s", all[i].text,
				       all[i].with_bits ? "ADDRESS/BITS for a network" : "address");
	return 0;
}

static void tell_guest(struct conf_text *conf, unsigned index, const char *addr, const char *gateway,
		       const char *nameserver)
{
	if (addr)
		conf_add(conf, "address=eth%u:%s\n", index, addr);
	if (gateway && index == 0)
		conf_add(conf, "gateway=%s\n", gateway);
	if (nameserver && index == 0)
		conf_add(conf, "nameserver=%s\n", nameserver);
}

static int add_user(struct spec_net *n, const struct roux_network *net, unsigned index, struct conf_text *conf)
{
	int r = add_all(&n->guest, user_guest, 2);

	if (r == 0)
		r = add_all(&n->gateway, user_gateway, 2);
	if (r == 0)
		r = add_all(&n->dns, user_dns, 2);
	if (r == 0)
		r = add_all(&n->publish, net->publish, net->npublish);
	if (r == 0)
		r = add_all(&n->egress, net->egress, net->negress);
	if (r == 0)
		r = add_nameservers(&n->nameserver);
	if (r == 0)
		r = copy(&n->domain, DOMAIN);
	n->host_loopback = net->host_loopback;
	for (unsigned i = 0; i < 2; i++)
		tell_guest(conf, index, user_guest[i], user_gateway[i], i == 0 ? user_dns[i] : NULL);
	if (index == 0)
		conf_add(conf, "search=" DOMAIN "\n");
	return r;
}

static int add_network(struct machine_spec *spec, const struct roux_network *net, const char *hostname,
		       struct conf_text *conf, struct err *err)
{
	unsigned index = spec->nnets;
	struct spec_net *n = &spec->net[index];
	int r;

	if (index == SPEC_NETS_MAX)
		return err_set(err, -EINVAL, "a machine can have at most %d networks", SPEC_NETS_MAX);
	r = check_addresses(net, err);
	if (r < 0)
		return r;
	*n = (struct spec_net){ .mtu = LINK_MTU_DEFAULT };
	spec->nnets++;
	if (net->mtu)
		n->mtu = (uint16_t)(net->mtu > UINT16_MAX ? UINT16_MAX : net->mtu);
	/* An address of its own making: locally administered, for one station (IEEE 802, 8.4). */
	if (getrandom(n->mac, sizeof(n->mac), 0) != (ssize_t)sizeof(n->mac))
		return err_set(err, -EIO, "no random numbers for a MAC address");
	n->mac[0] = (uint8_t)((n->mac[0] & 0xfc) | 2);
	n->send = (struct link_limits){ net->send_bytes, net->send_frames };
	n->receive = (struct link_limits){ net->receive_bytes, net->receive_frames };
	r = copy(&n->pcap, net->pcap);
	if (r == 0 && net->kind == ROUX_NETWORK_TAP) {
		n->kind = SPEC_NET_TAP;
		r = copy(&n->name, net->name);
		tell_guest(conf, index, net->address4, net->gateway4, net->nameserver);
		tell_guest(conf, index, net->address6, net->gateway6, NULL);
	} else if (r == 0) {
		n->kind = SPEC_NET_USER;
		r = copy(&n->hostname, hostname);
		if (r == 0)
			r = add_user(n, net, index, conf);
	}
	return r < 0 ? err_set(err, r, "out of memory") : 0;
}

int add_networks(struct machine_spec *spec, const struct roux_options *options, struct conf_text *conf,
		 struct err *err)
{
	int r = 0;

	for (unsigned i = 0; i < options->nnetworks && r == 0; i++)
		r = add_network(spec, &options->networks[i], options->hostname, conf, err);
	return r;
}
