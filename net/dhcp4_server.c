/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DHCP server (RFC 2131).  It is the only one on its link and knows all leases, so it
 * answers every request, with DHCPNAK where the client is wrong.  Leases are bounded;
 * the one that ended longest ago, or was given first, makes room.
 */
#include "net/dhcp4.h"
#include "net/dhcp4_wire.h"
#include "net/names.h"

#define LEASES_MAX 256u
#define SEARCH_MAX 255u	/* bytes of an option */
#define OFFER_S 60u	/* an address offered is held so long */

struct lease {
	uint8_t mac[NET_MAC_SIZE];
	uint32_t addr;	/* host order */
	uint64_t ends;	/* ns */
};

struct dhcp4_server {
	struct net *net;
	struct dhcp4_server_config config;
	struct udp_service service;
	char domain[DHCP4_NAME_MAX];
	uint8_t search[SEARCH_MAX];
	uint8_t search_len;	/* bytes */
	uint32_t first, last;	/* the pool, host order */
	uint32_t count;
	struct lease leases[LEASES_MAX];
};

static uint32_t value_of(const struct net_addr *addr)
{
	return get32(addr->b + 12);
}

static struct net_addr addr_of(uint32_t value)
{
	uint8_t bytes[4];

	put32(bytes, value);
	return net_addr4_from(bytes);
}

static struct lease *lease_of_mac(struct dhcp4_server *server, const uint8_t *mac)
{
	for (uint32_t i = 0; i < server->count; i++)
		if (!__builtin_memcmp(server->leases[i].mac, mac, NET_MAC_SIZE))
			return &server->leases[i];
	return NULL;
}

static struct lease *lease_of_addr(struct dhcp4_server *server, uint32_t addr)
{
	for (uint32_t i = 0; i < server->count; i++)
		if (server->leases[i].addr == addr)
			return &server->leases[i];
	return NULL;
}

static bool is_free(struct dhcp4_server *server, uint32_t addr)
{
	const struct lease *lease = lease_of_addr(server, addr);
	struct net_addr full = addr_of(addr);

	return !net_is_own(server->net, &full) && (!lease || lease->ends <= server->net->now);
}

static struct lease *oldest(struct dhcp4_server *server)
{
	struct lease *first = &server->leases[0];

	for (uint32_t i = 1; i < server->count; i++)
		if (server->leases[i].ends < first->ends)
			first = &server->leases[i];
	return first;
}

/* A free address of the pool: @wanted if it is one.  0: none. */
static uint32_t choose(struct dhcp4_server *server, uint32_t wanted)
{
	if (wanted >= server->first && wanted <= server->last && is_free(server, wanted))
		return wanted;
	/* Among LEASES_MAX + 1 addresses one is not leased. */
	for (uint32_t i = 0; i <= min_of(server->last - server->first, LEASES_MAX); i++)
		if (is_free(server, server->first + i))
			return server->first + i;
	return 0;
}

/* The lease for a client: what is reserved, what it has, or a new one.  NULL: no address is free. */
static struct lease *find_lease(struct dhcp4_server *server, const uint8_t *mac, uint32_t wanted,
				char name[DHCP4_NAME_MAX])
{
	struct lease *lease = lease_of_mac(server, mac), *other;
	struct net_addr reserved;
	uint32_t addr;

	name[0] = 0;
	if (server->config.reserved &&
	    server->config.reserved(server->config.ctx, mac, &reserved, name))
		addr = value_of(&reserved);
	else if (lease)
		return lease;
	else
		addr = choose(server, wanted);
	if (!addr)
		return NULL;
	other = lease_of_addr(server, addr);
	if (!lease)
		lease = other;
	if (!lease)
		lease = server->count < LEASES_MAX ? &server->leases[server->count++] : oldest(server);
	if (other && other != lease)
		*other = (struct lease){ 0 };
	*lease = (struct lease){ .addr = addr };
	__builtin_memcpy(lease->mac, mac, NET_MAC_SIZE);
	return lease;
}

static void put_options(const struct dhcp4_server *server, struct dhcp4_writer *writer,
			const char *name)
{
	const struct dhcp4_server_config *config = &server->config;
	uint8_t dns[4 * DHCP4_DNS_MAX];

	dhcp4_put_number(writer, OPT_MASK,
			 config->prefix ? 0xffffffffu << (32 - config->prefix) : 0, 4);
	if (net_addr_is4(&config->router))
		dhcp4_put_addr(writer, OPT_ROUTER, &config->router);
	for (unsigned i = 0; i < config->dns_count; i++)
		__builtin_memcpy(dns + (size_t)4 * i, config->dns[i].b + 12, 4);
	if (config->dns_count)
		dhcp4_put(writer, OPT_DNS, dns, (size_t)4 * config->dns_count);
	if (name[0])
		dhcp4_put(writer, OPT_HOST_NAME, name, text_len(name));
	if (server->domain[0])
		dhcp4_put(writer, OPT_DOMAIN, server->domain, text_len(server->domain));
	if (server->search_len)
		dhcp4_put(writer, OPT_SEARCH, server->search, server->search_len);
	if (config->mtu)
		dhcp4_put_number(writer, OPT_MTU, config->mtu, 2);
}

/* RFC 2131, 4.1: where a reply goes. */
static struct net_endpoint destination(const struct dhcp4_message *request, enum dhcp4_type type,
				       const struct net_addr *yours)
{
	struct net_endpoint to = { net_addr4_from(request->bytes + DHCP4_CIADDR), DHCP4_CLIENT_PORT };

	if (type == DHCP4_NAK || (net_addr_is_zero(&to.addr) &&
				  (request->bytes[DHCP4_FLAGS] & 0x80 || net_addr_is_zero(yours))))
		to.addr = net_addr4(255, 255, 255, 255);
	else if (net_addr_is_zero(&to.addr))
		to.addr = *yours;
	return to;
}

static void reply(struct dhcp4_server *server, const struct dhcp4_message *request,
		  enum dhcp4_type type, const struct net_addr *yours, const char *name)
{
	const uint8_t *mac = request->bytes + DHCP4_CHADDR;
	struct dhcp4_writer writer;
	struct net_span span;
	struct udp_datagram datagram = { .from = { server->config.server, DHCP4_SERVER_PORT },
					 .spans = &span, .count = 1 };

	dhcp4_begin(&writer, get32(request->bytes + DHCP4_XID), mac);
	put16(writer.bytes + DHCP4_FLAGS, get16(request->bytes + DHCP4_FLAGS));
	dhcp4_put_number(&writer, OPT_TYPE, type, 1);
	dhcp4_put_addr(&writer, OPT_SERVER, &server->config.server);
	if (type != DHCP4_NAK) {
		__builtin_memcpy(writer.bytes + DHCP4_CIADDR, request->bytes + DHCP4_CIADDR, 4);
		__builtin_memcpy(writer.bytes + DHCP4_YIADDR, yours->b + 12, 4);
		if (!net_addr_is_zero(yours)) {
			dhcp4_put_number(&writer, OPT_LEASE, server->config.lease_s, 4);
			dhcp4_put_number(&writer, OPT_RENEW, server->config.lease_s / 2, 4);
			dhcp4_put_number(&writer, OPT_REBIND,
					 (uint32_t)(server->config.lease_s * 7ull / 8), 4);
		}
		put_options(server, &writer, name);
	}
	dhcp4_end(&writer);
	datagram.to = destination(request, type, yours);
	/* The client cannot answer ARP for an address that it does not have yet. */
	if (!net_addr_is_broadcast(server->net, &datagram.to.addr))
		neighbour_update(server->net, &datagram.to.addr, mac, true);
	span = (struct net_span){ writer.bytes, writer.len };
	datagram.len = writer.len;
	(void)udp_send(server->net, &datagram);
}

static uint64_t in_seconds(const struct dhcp4_server *server, uint32_t seconds)
{
	return server->net->now + seconds * SECOND;
}

static void discover(struct dhcp4_server *server, const struct dhcp4_message *request)
{
	struct net_addr wanted = { 0 }, yours;
	char name[DHCP4_NAME_MAX];
	struct lease *lease;

	(void)dhcp4_option_addr(request, OPT_ADDRESS, &wanted);
	lease = find_lease(server, request->bytes + DHCP4_CHADDR, value_of(&wanted), name);
	if (!lease)
		return;
	lease->ends = max_of(lease->ends, in_seconds(server, OFFER_S));
	yours = addr_of(lease->addr);
	reply(server, request, DHCP4_OFFER, &yours, name);
}

/* RFC 2131, 4.3.2: what is requested is in the option, or when it is renewed, in ciaddr. */
static void request_address(struct dhcp4_server *server, const struct dhcp4_message *request)
{
	const uint8_t *mac = request->bytes + DHCP4_CHADDR, *data;
	struct net_addr wanted, chosen;
	char name[DHCP4_NAME_MAX], own_name[DHCP4_NAME_MAX];
	struct lease *lease;
	uint8_t len = 0;

	if (dhcp4_option_addr(request, OPT_SERVER, &chosen) &&
	    !net_addr_equal(&chosen, &server->config.server))
		return;	/* it chose another server */
	if (!dhcp4_option_addr(request, OPT_ADDRESS, &wanted))
		wanted = net_addr4_from(request->bytes + DHCP4_CIADDR);
	lease = find_lease(server, mac, value_of(&wanted), name);
	if (!lease || lease->addr != value_of(&wanted)) {
		reply(server, request, DHCP4_NAK, &server->config.server, "");
		return;
	}
	lease->ends = in_seconds(server, server->config.lease_s);
	reply(server, request, DHCP4_ACK, &wanted, name);
	data = dhcp4_option(request, OPT_HOST_NAME, &len);
	dhcp4_name(data, len, own_name);
	if (server->config.leased)
		server->config.leased(server->config.ctx, mac, &wanted, own_name);
}

/* The client found the address in use (RFC 2131, 4.3.3): nobody gets it for a while. */
static void decline(struct dhcp4_server *server, const struct dhcp4_message *request)
{
	struct lease *lease = lease_of_mac(server, request->bytes + DHCP4_CHADDR);

	if (!lease)
		return;
	__builtin_memset(lease->mac, 0, NET_MAC_SIZE);
	lease->ends = in_seconds(server, server->config.lease_s);
}

static void release(struct dhcp4_server *server, const struct dhcp4_message *request)
{
	struct lease *lease = lease_of_mac(server, request->bytes + DHCP4_CHADDR);

	if (lease)	/* kept for it as long as there are others */
		lease->ends = server->net->now;
}

static void input(struct udp_service *service, struct net *net, const struct udp_datagram *datagram,
		  const uint8_t from_mac[NET_MAC_SIZE])
{
	struct dhcp4_server *server = container_of(service, struct dhcp4_server, service);
	struct net_addr none = net_addr4(0, 0, 0, 0);
	struct dhcp4_message message;

	if (!net_addr_is4(&datagram->from.addr) || !dhcp4_take(datagram, &message))
		return;
	switch (dhcp4_option_number(&message, OPT_TYPE, 1)) {
	case DHCP4_DISCOVER:
		discover(server, &message);
		break;
	case DHCP4_REQUEST:
		request_address(server, &message);
		break;
	case DHCP4_DECLINE:
		decline(server, &message);
		break;
	case DHCP4_RELEASE:
		release(server, &message);
		break;
	case DHCP4_INFORM:	/* RFC 2131, 4.3.5: everything but an address */
		reply(server, &message, DHCP4_ACK, &none, "");
		break;
	default:
		break;
	}
}

struct dhcp4_server *dhcp4_server_create(struct net *net, const struct dhcp4_server_config *config)
{
	struct dhcp4_server *server;
	size_t domain_len = text_len(config->domain);

	if (!net_addr_is4(&config->server) || config->prefix > 32 ||
	    config->dns_count > DHCP4_DNS_MAX || value_of(&config->first) > value_of(&config->last) ||
	    domain_len >= DHCP4_NAME_MAX)
		return NULL;
	server = net_alloc_zero(net, sizeof(*server));
	if (!server)
		return NULL;
	server->net = net;
	server->config = *config;
	server->first = value_of(&config->first);
	server->last = value_of(&config->last);
	if (domain_len)
		__builtin_memcpy(server->domain, config->domain, domain_len);
	server->search_len = (uint8_t)name_put_list(config->search, server->search, SEARCH_MAX);
	server->config.domain = server->config.search = NULL;
	server->service = (struct udp_service){ .local = { .port = DHCP4_SERVER_PORT }, .input = input };
	if (udp_serve(net, &server->service) == NET_OK)
		return server;
	net_free(net, server, sizeof(*server));
	return NULL;
}

void dhcp4_server_destroy(struct dhcp4_server *server)
{
	udp_unserve(server->net, &server->service);
	net_free(server->net, server, sizeof(*server));
}
