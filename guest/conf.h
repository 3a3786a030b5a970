/* SPDX-License-Identifier: Apache-2.0 */
/* Parser of /roux.conf, see abi/guest_conf.h for the format. */
#ifndef GUEST_CONF_H
#define GUEST_CONF_H

#include "abi/guest_conf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum conf_root { CONF_ROOT_INITRAMFS, CONF_ROOT_VIRTIOFS, CONF_ROOT_BLK };

struct conf_mount {
	const char *type, *source, *target;
	bool readonly;
};

struct conf_address {
	const char *interface, *addr;
	uint8_t prefix;	/* bits of the network */
};

struct conf_host {
	const char *name, *addr;
};

/* Of IPv6 (RFC 4291, 2.5.6), as text that is an address. */
bool conf_is_link_local(const char *addr);

/* All strings are borrowed from the text that conf_parse() was given. */
struct conf {
	enum conf_root root;
	const char *root_source;	/* tag or device */
	const char *root_fstype;	/* CONF_ROOT_BLK only */
	bool overlay;
	const char *overlay_size;	/* NULL: the kernel's default */
	bool readonly;
	const char *hostname;
	bool has_clock;
	int64_t clock_s;
	uint32_t clock_ns;
	bool say_ready;
	bool vport;
	struct conf_mount mount[GUEST_CONF_MOUNTS_MAX];
	unsigned nmounts;
	const char *interface;	/* to be raised; gets addresses from identity_take().  NULL: none */
	struct conf_address address[GUEST_CONF_ADDRESSES_MAX];
	const char *gateway[GUEST_CONF_GATEWAYS_MAX];
	const char *nameserver[GUEST_CONF_NAMESERVERS_MAX];
	struct conf_host host[GUEST_CONF_HOSTS_MAX];
	const char *search;	/* NULL: none */
	unsigned naddresses, ngateways, nnameservers, nhosts;
};

/*
 * Parses @text[0..@len), which it cuts into strings; text[len] must be
 * writable.  Returns 0, or the 1-based number of the line that is wrong.
 */
int conf_parse(char *text, size_t len, struct conf *ret_conf);

#endif /* GUEST_CONF_H */
