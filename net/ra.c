/* SPDX-License-Identifier: Apache-2.0 */
/* Router advertisements: sent when asked (RFC 4861, 6.2.6) and from time to time. */
#include "net/ra.h"
#include "net/core.h"
#include "net/names.h"

#define RA_TYPE 134u
#define RA_SIZE 16u	/* before the options */
#define SEARCH_MAX 256u	/* bytes of names on the wire */
#define FIRST_COUNT 3u	/* RFC 4861, 6.2.4: the first ones come soon after each other */
#define FIRST_INTERVAL (16 * SECOND)

struct ra_sender {
	struct net *net;
	struct ra_config config;
	uint8_t search[SEARCH_MAX];	/* names as in the option */
	uint16_t search_len;	/* bytes, a multiple of 8 */
	uint32_t sent;
	struct timer timer;
};

static uint8_t *put_prefix(const struct ra_config *config, uint8_t *at)
{
	struct net_addr prefix = config->prefix;

	if (net_addr_is_zero(&config->prefix))
		return at;
	at[0] = 3;
	at[1] = 4;
	at[2] = config->prefix_len;
	at[3] = 0x80 | (config->autonomous ? 0x40 : 0);	/* on the link; autonomous */
	put32(at + 4, config->lifetime_s);
	put32(at + 8, config->lifetime_s);
	net_addr_cut(&prefix, config->prefix_len);
	__builtin_memcpy(at + 16, prefix.b, 16);
	return at + 32;
}

static uint8_t *put_dns(const struct ra_sender *ra, uint8_t *at)
{
	const struct ra_config *config = &ra->config;

	if (config->dns_count) {	/* RFC 8106, 5.1 */
		at[0] = 25;
		at[1] = (uint8_t)(1 + 2 * config->dns_count);
		put32(at + 4, config->lifetime_s);
		for (unsigned i = 0; i < config->dns_count; i++)
			__builtin_memcpy(at + 8 + 16 * (size_t)i, config->dns[i].b, 16);
		at += at[1] * 8;
	}
	return at;
}

/* The message in @buf, of which the size is returned. */
static size_t build(const struct ra_sender *ra, uint8_t *buf)
{
	const struct ra_config *config = &ra->config;
	uint8_t *at = buf + RA_SIZE;

	buf[0] = RA_TYPE;
	buf[4] = DEFAULT_HOPS;
	buf[5] = (config->managed ? 0x80 : 0) | (config->other ? 0x40 : 0);
	put16(buf + 6, config->router_lifetime_s);
	at[0] = 1;	/* source link-layer address */
	at[1] = 1;
	__builtin_memcpy(at + 2, ra->net->mac, NET_MAC_SIZE);
	at += 8;
	if (config->mtu) {
		at[0] = 5;
		at[1] = 1;
		put32(at + 4, config->mtu);
		at += 8;
	}
	at = put_prefix(config, at);
	at = put_dns(ra, at);
	return (size_t)(at - buf);
}

static void send(struct ra_sender *ra)
{
	static const struct net_addr all_nodes = { .b = { 0xff, 2, [15] = 1 } };
	uint8_t names[8 + SEARCH_MAX] = { 0 };
	struct net_addr src;
	struct out out;
	uint8_t *message;

	net_link_local(ra->net->mac, &src);
	message = out_init(&out, &src, &all_nodes, PROTO_ICMP6, OUT_HEADER_MAX);
	out.header_len = (uint16_t)build(ra, message);
	if (ra->search_len) {	/* RFC 8106, 5.2 */
		names[0] = 31;
		names[1] = (uint8_t)(1 + ra->search_len / 8);
		put32(names + 4, ra->config.lifetime_s);
		__builtin_memcpy(names + 8, ra->search, ra->search_len);
		out.spans[out.count++] = (struct net_span){ names, 8u + ra->search_len };
		out.len = 8u + ra->search_len;
	}
	out.checksum_at = 2;
	out.hop_limit = 255;
	(void)ip_output(ra->net, &out);
}

static void send_unasked(struct net *net, struct timer *timer)
{
	struct ra_sender *ra = container_of(timer, struct ra_sender, timer);
	uint64_t interval = ra->config.interval_s * SECOND;

	send(ra);
	if (++ra->sent < FIRST_COUNT)
		interval = min_of(interval, FIRST_INTERVAL);
	timer_set(net, &ra->timer, net->now + interval);
}

void ra_solicited(struct ra_sender *ra)
{
	send(ra);
}

struct ra_sender *ra_create(struct net *net, const struct ra_config *config)
{
	struct ra_sender *ra;

	if (net->ra || config->prefix_len > 128 || config->dns_count > RA_DNS_MAX)
		return NULL;
	ra = net_alloc_zero(net, sizeof(*ra));
	if (!ra)
		return NULL;
	if (!timer_init(net, &ra->timer, send_unasked)) {
		net_free(net, ra, sizeof(*ra));
		return NULL;
	}
	ra->net = net;
	ra->config = *config;
	ra->search_len = (uint16_t)(name_put_list(config->search, ra->search, SEARCH_MAX - 8) + 7) & ~7u;
	ra->config.search = NULL;
	net->ra = ra;
	if (config->interval_s)
		timer_set(net, &ra->timer, net->now);
	return ra;
}

void ra_destroy(struct ra_sender *ra)
{
	struct net *net = ra->net;

	net->ra = NULL;
	timer_finish(net, &ra->timer);
	net_free(net, ra, sizeof(*ra));
}
