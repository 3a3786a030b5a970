/* SPDX-License-Identifier: Apache-2.0 */
/* Published ports as people write them. */
#ifndef OS_PUBLISH_H
#define OS_PUBLISH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PUBLISH_ADDRESS_MAX 48	/* bytes, with the NUL */

struct publish {
	char address[PUBLISH_ADDRESS_MAX];	/* of the host, without brackets, not looked at; empty: all */
	uint16_t host;	/* port; 0: any */
	uint16_t guest;
	bool udp;
};

/* "[ADDRESS:]HOST:GUEST[/tcp|/udp]", "GUEST[/...]" or "ADDRESS::GUEST[/...]"; an IPv6 address is in brackets. */
bool publish_parse(const char *text, struct publish *ret_publish);

/* The same in one way: as publish_parse() reads it, with the protocol.  Returns as snprintf(). */
int publish_format(const struct publish *publish, char *ret_text, size_t size);

#endif /* OS_PUBLISH_H */
