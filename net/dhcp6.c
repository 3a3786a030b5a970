/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DHCPv6 server (RFC 8415).  An address follows from the client's MAC address, so there
 * are no leases to remember: who asks again gets the same.
 */
#include "net/dhcp6.h"
#include "net/core.h"
#include "net/names.h"

#define SERVER_PORT 547u
#define MESSAGE_MAX 1024u	/* bytes that we look at, and at most send */
#define SEARCH_MAX 256u
#define DUID_SIZE 10u	/* DUID-LL: RFC 8415, 11.4 */
#define DUID_MAX 130u	/* of a client: RFC 8415, 11.1 */

enum { SOLICIT = 1, ADVERTISE = 2, REQUEST = 3, CONFIRM = 4, RENEW = 5, REBIND = 6, REPLY = 7,
       RELEASE = 8, DECLINE = 9, INFORMATION = 11 };
enum { OPT_CLIENT_ID = 1, OPT_SERVER_ID = 2, OPT_IA_NA = 3, OPT_IA_ADDR = 5, OPT_STATUS = 13,
       OPT_RAPID_COMMIT = 14, OPT_DNS = 23, OPT_SEARCH = 24 };
enum { STATUS_OK = 0, STATUS_NO_ADDRS = 2, STATUS_NOT_ON_LINK = 4 };

struct dhcp6_server {
	struct net *net;
	struct dhcp6_server_config config;
	struct udp_service service;
	uint8_t search[SEARCH_MAX];
	uint16_t search_len;	/* bytes */
};

struct message {	/* a copy of what came */
	size_t len;	/* bytes */
	uint8_t bytes[MESSAGE_MAX];
};

struct reply {	/* being written */
	size_t len;	/* bytes */
	uint8_t bytes[MESSAGE_MAX];
};

/* The option @code of @message; NULL: none, or malformed. */
static const uint8_t *find(const struct message *message, uint16_t code, uint16_t *ret_len)
{
	size_t at = 4;

	while (at + 4 <= message->len) {
		uint16_t len = get16(message->bytes + at + 2);

		if (at + 4 + len > message->len)
			return NULL;
		if (get16(message->bytes + at) == code) {
			*ret_len = len;
			return message->bytes + at + 4;
		}
		at += 4u + len;
	}
	return NULL;
}

static void put(struct reply *reply, uint16_t code, const void *data, size_t len)
{
	uint8_t *at = reply->bytes + reply->len;

	if (reply->len + 4 + len > sizeof(reply->bytes))
		return;
	put16(at, code);
	put16(at + 2, (uint16_t)len);
	__builtin_memcpy(at + 4, data, len);
	reply->len += 4 + len;
}

static void put_status(struct reply *reply, uint16_t status)
{
	uint8_t bytes[2];

	put16(bytes, status);
	put(reply, OPT_STATUS, bytes, sizeof(bytes));
}

static void server_id(const struct dhcp6_server *server, uint8_t duid[DUID_SIZE])
{
	put16(duid, 3);	/* DUID-LL */
	put16(duid + 2, 1);	/* Ethernet */
	__builtin_memcpy(duid + 4, server->net->mac, NET_MAC_SIZE);
}

static bool address_for(const struct dhcp6_server *server, const uint8_t *mac, struct net_addr *ret)
{
	const struct dhcp6_server_config *config = &server->config;

	if (config->reserved && config->reserved(config->ctx, mac, ret))
		return true;
	if (net_addr_is_zero(&config->pool))
		return false;
	*ret = config->pool;
	__builtin_memcpy(ret->b + 10, mac, NET_MAC_SIZE);
	return true;
}

/* An identity association with its address, or with why there is none (RFC 8415, 21.4, 21.6). */
static void put_identity(const struct dhcp6_server *server, struct reply *reply, const uint8_t *iaid,
			 const struct net_addr *addr)
{
	uint8_t ia[12 + 28] = { 0 };
	uint32_t valid = server->config.lease_s, preferred = valid / 2;

	__builtin_memcpy(ia, iaid, 4);
	if (!addr) {
		put16(ia + 12, OPT_STATUS);
		put16(ia + 14, 2);
		put16(ia + 16, STATUS_NO_ADDRS);
		put(reply, OPT_IA_NA, ia, 12 + 6);
		return;
	}
	put32(ia + 4, preferred / 2);	/* T1 and T2: RFC 8415, 21.4 */
	put32(ia + 8, (uint32_t)(preferred * 4ull / 5));
	put16(ia + 12, OPT_IA_ADDR);
	put16(ia + 14, 24);
	__builtin_memcpy(ia + 16, addr->b, 16);
	put32(ia + 32, preferred);
	put32(ia + 36, valid);
	put(reply, OPT_IA_NA, ia, sizeof(ia));
}

static void put_names(const struct dhcp6_server *server, struct reply *reply)
{
	if (server->config.dns_count)
		put(reply, OPT_DNS, server->config.dns, 16 * (size_t)server->config.dns_count);
	if (server->search_len)
		put(reply, OPT_SEARCH, server->search, server->search_len);
}

/* RFC 8415, 16: which messages name a server, and whether it is this one. */
static bool for_us(const struct dhcp6_server *server, const struct message *message)
{
	uint8_t own[DUID_SIZE];
	uint16_t len = 0;
	const uint8_t *id = find(message, OPT_SERVER_ID, &len);

	server_id(server, own);
	switch (message->bytes[0]) {
	case SOLICIT:
	case CONFIRM:
	case REBIND:
		return !id;
	case INFORMATION:
		return !id || (len == DUID_SIZE && !__builtin_memcmp(id, own, DUID_SIZE));
	case REQUEST:
	case RENEW:
	case RELEASE:
	case DECLINE:
		return id && len == DUID_SIZE && !__builtin_memcmp(id, own, DUID_SIZE);
	default:
		return false;
	}
}

/* RFC 8415, 18.3.3: are the client's addresses those of this link? */
static uint16_t confirm(const struct dhcp6_server *server, const struct message *message,
			const struct net_addr *addr)
{
	uint16_t len;
	const uint8_t *ia = find(message, OPT_IA_NA, &len);

	if (!ia || len < 12 + 28 || get16(ia + 12) != OPT_IA_ADDR || !addr)
		return STATUS_NOT_ON_LINK;
	return __builtin_memcmp(ia + 16, addr->b, 16) ? STATUS_NOT_ON_LINK : STATUS_OK;
}

/* Fills in the answer after the identifiers. */
static void answer(struct dhcp6_server *server, const struct message *message, const uint8_t *mac,
		   struct reply *reply)
{
	struct net_addr addr;
	bool has = address_for(server, mac, &addr), bound = false;
	uint16_t len;
	const uint8_t *ia = find(message, OPT_IA_NA, &len);

	reply->bytes[0] = REPLY;
	switch (message->bytes[0]) {
	case SOLICIT:
		bound = find(message, OPT_RAPID_COMMIT, &(uint16_t){ 0 });
		if (bound)
			put(reply, OPT_RAPID_COMMIT, "", 0);
		else
			reply->bytes[0] = ADVERTISE;
		break;
	case REQUEST:
	case RENEW:
	case REBIND:
		bound = true;
		break;
	case CONFIRM:
		put_status(reply, confirm(server, message, has ? &addr : NULL));
		return;
	case RELEASE:
	case DECLINE:
		put_status(reply, STATUS_OK);
		return;
	default:
		break;
	}
	if (message->bytes[0] != INFORMATION && ia && len >= 12) {
		put_identity(server, reply, ia, has ? &addr : NULL);
		if (bound && has && server->config.leased)
			server->config.leased(server->config.ctx, mac, &addr);
	}
	put_names(server, reply);
}

static void input(struct udp_service *service, struct net *net, const struct udp_datagram *datagram,
		  const uint8_t from_mac[NET_MAC_SIZE])
{
	struct dhcp6_server *server = container_of(service, struct dhcp6_server, service);
	struct message message;
	struct reply reply = { .len = 4 };
	struct net_span span = { reply.bytes, 0 };
	struct udp_datagram out = { .to = datagram->from, .spans = &span, .count = 1 };
	uint8_t duid[DUID_SIZE];
	const uint8_t *client;
	uint16_t len = 0;

	if (net_addr_is4(&datagram->from.addr) || datagram->len > MESSAGE_MAX || datagram->len < 4)
		return;
	message.len = spans_copy(datagram->spans, datagram->count, message.bytes, sizeof(message.bytes));
	client = find(&message, OPT_CLIENT_ID, &len);
	if ((!client && message.bytes[0] != INFORMATION) || len > DUID_MAX ||
	    !for_us(server, &message))
		return;
	__builtin_memcpy(reply.bytes, message.bytes, 4);	/* type, transaction */
	if (client)
		put(&reply, OPT_CLIENT_ID, client, len);
	server_id(server, duid);
	put(&reply, OPT_SERVER_ID, duid, DUID_SIZE);
	answer(server, &message, from_mac, &reply);
	net_link_local(net->mac, &out.from.addr);
	out.from.port = SERVER_PORT;
	neighbour_update(net, &datagram->from.addr, from_mac, true);
	span.len = out.len = reply.len;
	(void)udp_send(net, &out);
}

struct dhcp6_server *dhcp6_server_create(struct net *net, const struct dhcp6_server_config *config)
{
	struct dhcp6_server *server;

	if (config->dns_count > DHCP6_DNS_MAX)
		return NULL;
	server = net_alloc_zero(net, sizeof(*server));
	if (!server)
		return NULL;
	server->net = net;
	server->config = *config;
	server->search_len = (uint16_t)name_put_list(config->search, server->search, SEARCH_MAX);
	server->config.search = NULL;
	server->service = (struct udp_service){ .local = { .port = SERVER_PORT }, .input = input };
	if (udp_serve(net, &server->service) == NET_OK)
		return server;
	net_free(net, server, sizeof(*server));
	return NULL;
}

void dhcp6_server_destroy(struct dhcp6_server *server)
{
	udp_unserve(server->net, &server->service);
	net_free(server->net, server, sizeof(*server));
}
