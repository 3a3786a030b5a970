/* SPDX-License-Identifier: Apache-2.0 */
#include "os/publish.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool parse_port(const char *text, uint16_t *ret_port)
{
	char *end;
	unsigned long v = strtoul(text, &end, 10);

	*ret_port = (uint16_t)v;
	return isdigit((unsigned char)*text) && !*end && v <= UINT16_MAX;
}

/* Cuts @text at the last @separator; returns what follows it, or NULL. */
static char *cut_last(char *text, char separator)
{
	char *at = strrchr(text, separator);

	if (!at)
		return NULL;
	*at = '\0';
	return at + 1;
}

static bool take_address(char *text, struct publish *p)
{
	size_t len = strlen(text);

	if (text[0] == '[' && text[len - 1] == ']') {
		text[len - 1] = '\0';
		text++;
	} else if (strchr(text, ':')) {
		return false;
	}
	len = strlen(text);
	if (!len || len >= sizeof(p->address))
		return false;
	memcpy(p->address, text, len + 1);
	return true;
}

bool publish_parse(const char *text, struct publish *p)
{
	char copy[PUBLISH_ADDRESS_MAX + 32], *proto, *guest, *host;

	*p = (struct publish){ 0 };
	if (strlen(text) >= sizeof(copy))
		return false;
	strcpy(copy, text);
	proto = cut_last(copy, '/');
	p->udp = proto && strcmp(proto, "udp") == 0;
	if (proto && !p->udp && strcmp(proto, "tcp") != 0)
		return false;
	guest = cut_last(copy, ':');
	if (!guest)	/* the guest's alone */
		return parse_port(copy, &p->guest) && p->guest;
	host = cut_last(copy, ':');
	if (host && !take_address(copy, p))
		return false;
	if (!host)
		host = copy;
	return parse_port(guest, &p->guest) && p->guest &&
	       ((!*host && p->address[0]) || parse_port(host, &p->host));
}

int publish_format(const struct publish *p, char *ret_text, size_t size)
{
	const char *open = strchr(p->address, ':') ? "[" : "", *close = *open ? "]" : "";

	return snprintf(ret_text, size, "%s%s%s%s%u:%u/%s", open, p->address, close, p->address[0] ? ":" : "", p->host,
			p->guest, p->udp ? "udp" : "tcp");
}
