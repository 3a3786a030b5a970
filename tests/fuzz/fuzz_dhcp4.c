/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages to the DHCP server: each is a length of two bytes and then the message.  What it
 * leases comes from the pool, or is reserved.
 */
#include "net/dhcp4.h"
#include "net_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define POOL 4u

static void leased(void *ctx, const uint8_t mac[NET_MAC_SIZE], const struct net_addr *addr, const char *name)
{
	want(net_addr_is4(addr) && strlen(name) < DHCP4_NAME_MAX);
	want((addr->b[15] >= 100 && addr->b[15] < 100 + POOL) || addr->b[15] == 77);
}

static bool reserved(void *ctx, const uint8_t mac[NET_MAC_SIZE], struct net_addr *ret_addr,
		     char ret_name[DHCP4_NAME_MAX])
{
	if (mac[5] != 77)
		return false;
	*ret_addr = net_addr4(10, 0, 0, 77);
	strcpy(ret_name, "fixed");
	return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct dhcp4_server_config config = {
		.server = net_addr4(10, 0, 0, 1), .prefix = 24, .router = net_addr4(10, 0, 0, 1),
		.dns = { net_addr4(10, 0, 0, 3) }, .dns_count = 1, .domain = "roux", .search = "roux example.org",
		.mtu = 1400, .lease_s = 60, .first = net_addr4(10, 0, 0, 100),
		.last = net_addr4(10, 0, 0, 100 + POOL - 1), .reserved = reserved, .leased = leased,
	};
	struct net_endpoint from = { net_addr4(0, 0, 0, 0), 68 }, to = { net_addr4(255, 255, 255, 255), 67 };
	struct dhcp4_server *server;

	fuzz_begin((struct net_config){ .proxy = true, .mtu = 1500 }, NULL);
	server = dhcp4_server_create(peer.net, &config);
	want(server);
	while (len > 2) {
		size_t size = get16(data) & 0x7ff;

		size = size < len - 2 ? size : len - 2;
		fuzz_datagram(true, from, to, data + 2, size);
		peer.now += 7000000000;
		data += 2 + size;
		len -= 2 + size;
	}
	dhcp4_server_destroy(server);
	fuzz_end();
	return 0;
}
