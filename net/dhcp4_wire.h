/* SPDX-License-Identifier: Apache-2.0 */
/* Private to net/dhcp4*.c: messages of DHCP (RFC 2131, 2; options RFC 2132). */
#ifndef NET_DHCP4_WIRE_H
#define NET_DHCP4_WIRE_H

#include "net/core.h"

#define DHCP4_SERVER_PORT 67u
#define DHCP4_CLIENT_PORT 68u
#define DHCP4_SIZE 240u	/* before the options, with the cookie */
#define DHCP4_COOKIE 0x63825363u
#define DHCP4_MESSAGE_MAX 1024u	/* bytes that we look at, and at most send */
#define DHCP4_REPLY_MIN 300u	/* BOOTP: some clients want no less */

/* Offsets in the header. */
enum { DHCP4_XID = 4, DHCP4_FLAGS = 10, DHCP4_CIADDR = 12, DHCP4_YIADDR = 16, DHCP4_CHADDR = 28,
       DHCP4_MAGIC = 236 };

enum { DHCP4_OP_REQUEST = 1, DHCP4_OP_REPLY = 2 };

enum dhcp4_type { DHCP4_DISCOVER = 1, DHCP4_OFFER, DHCP4_REQUEST, DHCP4_DECLINE, DHCP4_ACK, DHCP4_NAK,
		  DHCP4_RELEASE, DHCP4_INFORM };

enum { OPT_PAD = 0, OPT_MASK = 1, OPT_ROUTER = 3, OPT_DNS = 6, OPT_HOST_NAME = 12, OPT_DOMAIN = 15,
       OPT_MTU = 26, OPT_ADDRESS = 50, OPT_LEASE = 51, OPT_TYPE = 53, OPT_SERVER = 54, OPT_RENEW = 58,
       OPT_REBIND = 59, OPT_SEARCH = 119, OPT_END = 255 };

/* A message received: a copy. */
struct dhcp4_message {
	size_t len;
	uint8_t bytes[DHCP4_MESSAGE_MAX];
};

/* Copies a request and checks its fixed part. */
bool dhcp4_take(const struct udp_datagram *datagram, struct dhcp4_message *message);

/* The option @code: its bytes and *@ret_len, or NULL.  The first one counts. */
const uint8_t *dhcp4_option(const struct dhcp4_message *message, uint8_t code, uint8_t *ret_len);

/* The option as an address; false: not there.  As a number of exactly @size bytes; 0: not there. */
bool dhcp4_option_addr(const struct dhcp4_message *message, uint8_t code, struct net_addr *ret_addr);
uint32_t dhcp4_option_number(const struct dhcp4_message *message, uint8_t code, uint8_t size);

/* A reply being written. */
struct dhcp4_writer {
	size_t len;	/* bytes, with the header */
	uint8_t bytes[DHCP4_MESSAGE_MAX];
};

void dhcp4_begin(struct dhcp4_writer *writer, uint32_t xid, const uint8_t *mac);
/* Leaves out what does not fit. */
void dhcp4_put(struct dhcp4_writer *writer, uint8_t code, const void *data, size_t len);
void dhcp4_put_number(struct dhcp4_writer *writer, uint8_t code, uint32_t value, uint8_t size);
void dhcp4_put_addr(struct dhcp4_writer *writer, uint8_t code, const struct net_addr *addr);
void dhcp4_end(struct dhcp4_writer *writer);

/*
 * Copies a name that a peer sent; what is no host name becomes "".  @name has
 * DHCP4_NAME_MAX bytes.
 */
void dhcp4_name(const uint8_t *from, uint8_t len, char *name);

#endif /* NET_DHCP4_WIRE_H */
