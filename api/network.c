/* SPDX-License-Identifier: Apache-2.0 */
#include "api/network.h"

#include "api/conf.h"
#include "api/handle.h"
#include "base/checked.h"
#include "machine/network.h"
#include "machine/networks.h"
#include "machine/spec.h"
#include "os/err.h"
#include "roux/roux.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define RESOLV_CONF "/etc/resolv.conf"
#define DOMAIN "roux.internal"
#define REJOIN_TRIES 3u

/* The user network (network_user_guest), the same for every guest: nobody else is on it. */
static const char *const user_gateway[] = { "10.0.2.2", "fd72:6f75:7800::2" };
static const char user_link_local[] = "fe80::15/64";	/* not of the MAC address, which differs */
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

static int check_addresses(const struct roux_network *net, struct err *err)
{
	const struct {
		const char *text;
		bool with_bits;
	} all[] = { { net->address4, true }, { net->address6, true }, { net->gateway4, false },
		    { net->gateway6, false }, { net->nameserver, false } };

	for (unsigned i = 0; i < ARRAY_SIZE(all); i++)
		if (all[i].text && !network_address_valid(all[i].text, all[i].with_bits))
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

/* What the user's own network and a named one have in common: two addresses and what leads out. */
static int add_user(struct spec_net *n, const struct roux_network *net, const char *const *guest,
		    const char *const *gateway, const char *const *dns, unsigned index, struct conf_text *conf)
{
	int r = add_all(&n->guest, guest, 2);
	bool late;

	if (r == 0)
		r = add_all(&n->gateway, gateway, 2);
	if (r == 0)
		r = add_all(&n->dns, dns, 2);
	if (r == 0)
		r = add_all(&n->publish, net->publish, net->npublish);
	if (r == 0)
		r = add_all(&n->egress, net->egress, net->negress);
	if (r == 0)
		r = add_nameservers(&n->nameserver);
	if (r == 0)
		r = copy(&n->domain, DOMAIN);
	n->host_loopback = net->host_loopback;
	/* Addresses that only one VM can have come with its identity, for the first network. */
	late = n->kind == SPEC_NET_NAMED && index == 0;
	if (late)
		conf_add(conf, "interface=eth0\n");
	if (n->kind == SPEC_NET_USER)
		tell_guest(conf, index, user_link_local, NULL, NULL);
	for (unsigned i = 0; i < 2; i++)
		tell_guest(conf, index, late ? NULL : guest[i], n->internal ? NULL : gateway[i], i == 0 ? dns[i] : NULL);
	if (index == 0)
		conf_add(conf, "search=" DOMAIN "\n");
	return r;
}

/* Takes a place on the network, which says what addresses the guest has. */
static int add_named(struct roux_machine *m, struct spec_net *n, const struct roux_network *net,
		     const struct network_guest *vm, unsigned index, struct conf_text *conf, struct err *err)
{
	struct network_seat *seat = malloc(sizeof(*seat));
	struct network_guest wish = *vm;
	int r;

	if (!seat)
		return err_set(err, -ENOMEM, "out of memory");
	wish.addr = net->address4;
	r = network_join(net->name, &wish, m->vmm, seat, err);
	if (r == -EADDRNOTAVAIL && wish.addr)
		r = network_join(net->name, vm, m->vmm, seat, err);
	if (r == 0) {
		const char *guest[] = { seat->addr[0], seat->addr[1] };
		const char *gateway[] = { seat->network.gateway[0], seat->network.gateway[1] };
		const char *dns[] = { seat->network.dns[0], seat->network.dns[1] };

		m->seat_fd[index] = seat->fd;
		memcpy(n->mac, seat->mac, sizeof(n->mac));
		n->internal = seat->network.internal;
		if (n->internal && (net->npublish || net->host_loopback))
			r = err_set(err, -EINVAL, "network %s is internal: no ports can be published, and the host is out of reach",
				    net->name);
		if (r == 0 && (copy(&n->name, net->name) < 0 || copy(&n->socket, seat->socket) < 0 ||
			       copy(&n->token, seat->token) < 0 || add_user(n, net, guest, gateway, dns, index, conf) < 0))
			r = err_set(err, -ENOMEM, "out of memory");
	}
	free(seat);
	return r;
}

void leave_networks(struct roux_machine *m)
{
	for (unsigned i = 0; i < SPEC_NETS_MAX; i++)
		if (m->seat_fd[i] >= 0)
			(void)close(m->seat_fd[i]);
}

void rejoin_network(struct roux_machine *m, unsigned index)
{
	struct network_guest vm = { .name = m->guest_name, .keep = !m->transient };
	const struct spec_net *n;
	struct network_seat *seat;
	int fd = -1;

	/* The process of the VM may say so without cause. */
	if (index >= m->spec.nnets || m->seat_fd[index] < 0 || !network_seat_lost(m->seat_fd[index]))
		return;
	seat = malloc(sizeof(*seat));
	n = &m->spec.net[index];
	vm.hostname = n->hostname;
	vm.addr = n->guest.at[0];
	for (unsigned i = 0; seat && fd < 0 && i < REJOIN_TRIES; i++) {
		if (network_join(n->name, &vm, m->vmm, seat, NULL) < 0)
			continue;
		(void)close(m->seat_fd[index]);
		m->seat_fd[index] = seat->fd;
		fd = network_claim(seat, NULL);	/* the new one may end just as well */
	}
	if (fd >= 0) {
		(void)control_send(m->sock, CONTROL_NETWORK, (int32_t)index, 0, NULL, 0, fd);
		(void)close(fd);
	}
	free(seat);
}

static int add_network(struct roux_machine *m, const struct roux_network *net, const struct network_guest *vm,
		       struct conf_text *conf, struct err *err)
{
	struct machine_spec *spec = &m->spec;
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
	if (r == 0 && net->kind != ROUX_NETWORK_TAP)
		r = copy(&n->hostname, vm->hostname);
	if (r == 0 && net->kind == ROUX_NETWORK_NAMED) {
		n->kind = SPEC_NET_NAMED;
		return add_named(m, n, net, vm, index, conf, err);
	}
	if (r == 0 && net->kind == ROUX_NETWORK_TAP) {
		n->kind = SPEC_NET_TAP;
		r = copy(&n->name, net->name);
		tell_guest(conf, index, net->address4, net->gateway4, net->nameserver);
		tell_guest(conf, index, net->address6, net->gateway6, NULL);
	} else if (r == 0) {
		n->kind = SPEC_NET_USER;
		r = add_user(n, net, network_user_guest, user_gateway, user_dns, index, conf);
	}
	return r < 0 ? err_set(err, r, "out of memory") : 0;
}

int add_networks(struct roux_machine *m, const struct roux_options *options, struct conf_text *conf,
		 struct err *err)
{
	const struct network_guest vm = { .name = options->name, .hostname = options->hostname,
					  .keep = !options->transient };
	int r = copy(&m->guest_name, options->name);

	m->transient = options->transient;
	for (unsigned i = 0; i < options->nnetworks && r == 0; i++)
		r = add_network(m, &options->networks[i], &vm, conf, err);
	return r;
}
