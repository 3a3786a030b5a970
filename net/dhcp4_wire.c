/* SPDX-License-Identifier: Apache-2.0 */
/* Reading and writing of DHCP messages. */
#include "net/dhcp4_wire.h"
#include "net/dhcp4.h"

bool dhcp4_take(const struct udp_datagram *datagram, struct dhcp4_message *message)
{
	message->len = spans_copy(datagram->spans, datagram->count, message->bytes, sizeof(message->bytes));
	return message->len >= DHCP4_SIZE && message->bytes[0] == DHCP4_OP_REQUEST && message->bytes[1] == 1 &&
	       message->bytes[2] == NET_MAC_SIZE &&
	       get32(message->bytes + DHCP4_MAGIC) == DHCP4_COOKIE;
}

const uint8_t *dhcp4_option(const struct dhcp4_message *message, uint8_t code, uint8_t *ret_len)
{
	size_t at = DHCP4_SIZE;

	while (at < message->len && message->bytes[at] != OPT_END) {
		uint8_t len;

		if (message->bytes[at] == OPT_PAD) {
			at++;
			continue;
		}
		if (at + 2 > message->len)
			return NULL;
		len = message->bytes[at + 1];
		if (at + 2 + len > message->len)
			return NULL;
		if (message->bytes[at] == code) {
			*ret_len = len;
			return message->bytes + at + 2;
		}
		at += 2u + len;
	}
	return NULL;
}

bool dhcp4_option_addr(const struct dhcp4_message *message, uint8_t code, struct net_addr *ret_addr)
{
	uint8_t len;
	const uint8_t *data = dhcp4_option(message, code, &len);

	if (!data || len < 4)
		return false;
	*ret_addr = net_addr4_from(data);
	return true;
}

uint32_t dhcp4_option_number(const struct dhcp4_message *message, uint8_t code, uint8_t size)
{
	uint8_t len;
	const uint8_t *data = dhcp4_option(message, code, &len);
	uint32_t value = 0;

	if (!data || len != size)
		return 0;
	while (size--)
		value = value << 8 | *data++;
	return value;
}

void dhcp4_begin(struct dhcp4_writer *writer, uint32_t xid, const uint8_t *mac)
{
	__builtin_memset(writer->bytes, 0, sizeof(writer->bytes));
	writer->bytes[0] = DHCP4_OP_REPLY;
	writer->bytes[1] = 1;	/* Ethernet */
	writer->bytes[2] = NET_MAC_SIZE;
	put32(writer->bytes + DHCP4_XID, xid);
	__builtin_memcpy(writer->bytes + DHCP4_CHADDR, mac, NET_MAC_SIZE);
	put32(writer->bytes + DHCP4_MAGIC, DHCP4_COOKIE);
	writer->len = DHCP4_SIZE;
}

void dhcp4_put(struct dhcp4_writer *writer, uint8_t code, const void *data, size_t len)
{
	uint8_t *at = writer->bytes + writer->len;

	if (len > 255 || writer->len + 2 + len + 1 > sizeof(writer->bytes))
		return;
	at[0] = code;
	at[1] = (uint8_t)len;
	__builtin_memcpy(at + 2, data, len);
	writer->len += 2 + len;
}

void dhcp4_put_number(struct dhcp4_writer *writer, uint8_t code, uint32_t value, uint8_t size)
{
	uint8_t bytes[4];

	put32(bytes, value);
	dhcp4_put(writer, code, bytes + 4 - size, size);
}

void dhcp4_put_addr(struct dhcp4_writer *writer, uint8_t code, const struct net_addr *addr)
{
	dhcp4_put(writer, code, addr->b + 12, 4);
}

void dhcp4_end(struct dhcp4_writer *writer)
{
	writer->bytes[writer->len++] = OPT_END;
	writer->len = max_of(writer->len, DHCP4_REPLY_MIN);
}

static bool name_char(uint8_t c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.';
}

void dhcp4_name(const uint8_t *from, uint8_t len, char *name)
{
	name[0] = 0;
	if (!from)
		return;
	while (len && !from[len - 1])	/* some count a NUL */
		len--;
	if (len >= DHCP4_NAME_MAX)
		return;
	for (uint8_t i = 0; i < len; i++) {
		uint8_t c = from[i];

		if (c >= 'A' && c <= 'Z')
			c |= 0x20;
		if (!name_char(c)) {
			name[0] = 0;
			return;
		}
		name[i] = (char)c;
	}
	name[len] = 0;
}
