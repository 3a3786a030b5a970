/* SPDX-License-Identifier: Apache-2.0 */
/* Messages to the DHCPv6 server: each is a length of two bytes and then the message. */
#include "net/dhcp6.h"
#include "net_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void leased(void *ctx, const uint8_t mac[NET_MAC_SIZE], const struct net_addr *addr)
{
	want(addr->b[0] == 0xfd && !memcmp(addr->b + 10, mac, NET_MAC_SIZE));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct dhcp6_server_config config = { .dns = { fuzz_addr(2, false) }, .dns_count = 1,
					      .search = "roux example.org", .pool = fuzz_addr(0, false),
					      .lease_s = 60, .leased = leased };
	struct net_endpoint from = { { .b = { 0xfe, 0x80, [15] = 2 } }, 546 },
			    to = { { .b = { 0xff, 2, [13] = 1, [15] = 2 } }, 547 };
	struct dhcp6_server *server;

	fuzz_begin((struct net_config){ .proxy = true, .mtu = 1500 }, NULL);
	server = dhcp6_server_create(peer.net, &config);
	want(server);
	while (len > 2) {
		size_t size = get16(data) & 0x7ff;

		size = size < len - 2 ? size : len - 2;
		fuzz_datagram(false, from, to, data + 2, size);
		data += 2 + size;
		len -= 2 + size;
	}
	dhcp6_server_destroy(server);
	fuzz_end();
	return 0;
}
