/* SPDX-License-Identifier: Apache-2.0 */
/* What networks are: their folders, their addresses and their definitions. */
#include "machine/networks.h"

#include "base/checked.h"
#include "machine/networks_private.h"
#include "net/net.h"
#include "os/err.h"
#include "os/file.h"
#include "os/folders.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define DEFINITION_MAX 4096u	/* bytes of a definition's file */
#define FIRST_INDEX 2u	/* of a VM: 1 is the gateway's */

/* ------------------------------------------------------------------- folders */

/* The folders with all networks, made when they are missing. */
static int open_folders(char data[PATH_MAX], char state[PATH_MAX], struct err *err)
{
	char path[PATH_MAX];
	int r = folder_data(path, sizeof(path), err);

	if (r == 0)
		r = file_path(data, err, path, "/networks", NULL);
	if (r == 0)
		r = folder_make(data, "", "ROUX_STORE", err);
	if (r == 0)
		r = folder_state(path, sizeof(path), err);
	if (r == 0)
		r = file_path(state, err, path, "/networks", NULL);
	return r < 0 ? r : folder_make(state, "", "ROUX_STATE", err);
}

int network_paths_get(const char *name, struct network_paths *ret, struct err *err)
{
	char data[PATH_MAX], state[PATH_MAX];
	int r;

	if (!network_name_valid(name))
		return err_set(err, -EINVAL, "'%s' is no name for a network: it has 1 to %u letters, digits, '_', '.' and '-'",
			       name, NETWORK_NAME_SIZE - 1);
	r = open_folders(data, state, err);
	if (r == 0)
		r = file_path(ret->definition, err, data, "/", name, NULL);
	if (r == 0)
		r = file_path(ret->socket, err, state, "/", name, ".sock", NULL);
	if (r == 0)
		r = file_path(ret->leases, err, state, "/", name, ".leases", NULL);
	if (r == 0)
		r = file_path(ret->lock, err, state, "/lock", NULL);
	if (r == 0 && strlen(ret->socket) >= sizeof(((struct sockaddr_un *)0)->sun_path))
		r = err_set(err, -ENAMETOOLONG, "%s is too long for a socket: set ROUX_STATE to a shorter folder",
			    ret->socket);
	return r;
}

int networks_lock(const char *name, struct network_paths *ret, struct err *err)
{
	int r = network_paths_get(name, ret, err);

	return r < 0 ? r : file_lock(ret->lock, false, err);
}

bool network_name_valid(const char *name)
{
	static const char *const words[] = { "none", "user", "tap", "host", "bridge", "default", "lock" };
	size_t len = strlen(name);

	for (unsigned i = 0; i < ARRAY_SIZE(words); i++)
		if (strcmp(name, words[i]) == 0)
			return false;
	for (const char *c = name; *c; c++)
		if (!isalnum((unsigned char)*c) && !strchr("_.-", *c))
			return false;
	return len && len < NETWORK_NAME_SIZE && isalnum((unsigned char)*name);
}

/* ----------------------------------------------------------------- addresses */

const char *const network_user_guest[NETWORK_FAMILIES] = { "10.0.2.15/24", "fd72:6f75:7800::15/64" };

static uint32_t last_index(unsigned bits4)
{
	return (1u << (32 - bits4)) - 2;
}

void network_put_addr(char text[NETWORK_ADDR_SIZE], const struct net_addr *addr, int bits)
{
	char plain[NET_ADDR_TEXT];

	net_addr_text(addr, plain);
	(void)snprintf(text, NETWORK_ADDR_SIZE, bits < 0 ? "%s" : "%s/%d", plain, bits);
}

/* Checks the subnets and derives the rest from them. */
static int complete(struct network *n, struct err *err)
{
	struct net_addr base[NETWORK_FAMILIES], at;
	uint8_t bits[NETWORK_FAMILIES];

	for (unsigned i = 0; i < NETWORK_FAMILIES; i++)
		if (!net_prefix_parse(n->subnet[i], &base[i], &bits[i]) || net_addr_is4(&base[i]) != (i == 0))
			return err_set(err, -EINVAL, "'%s' is no subnet such as 10.89.1.0/24 or fd00:1::/64", n->subnet[i]);
	if (bits[0] < 8 || bits[0] > 29)
		return err_set(err, -EINVAL, "an IPv4 subnet has 8 to 29 bits, not %u", bits[0]);
	if (bits[1] < 48 || bits[1] > 96)
		return err_set(err, -EINVAL, "an IPv6 subnet has 48 to 96 bits, not %u", bits[1]);
	if (base[0].b[12] == 0 || base[0].b[12] == 127 || base[0].b[12] >= 224 || base[1].b[0] >= 0xfe || base[1].b[0] == 0)
		return err_set(err, -EINVAL, "%s is not for hosts of a network", base[0].b[12] % 127 && base[0].b[12] < 224 ?
			       n->subnet[1] : n->subnet[0]);
	for (unsigned i = 0; i < NETWORK_FAMILIES; i++) {
		net_addr_cut(&base[i], bits[i]);
		network_put_addr(n->subnet[i], &base[i], bits[i]);
		at = switch_address(&base[i], 1);
		network_put_addr(n->gateway[i], &at, -1);
		at = switch_address(&base[i], last_index(bits[0]));
		network_put_addr(n->dns[i], &at, -1);
	}
	return 0;
}

void network_describe(const struct network *n, struct switch_config *c)
{
	uint8_t bits[NETWORK_FAMILIES];
	uint32_t most;

	(void)net_prefix_parse(n->subnet[0], &c->prefix4, &bits[0]);
	(void)net_prefix_parse(n->subnet[1], &c->prefix6, &bits[1]);
	most = last_index(bits[0]) - FIRST_INDEX;
	c->first = FIRST_INDEX;
	c->ports = most < SWITCH_PORTS_MAX ? most : SWITCH_PORTS_MAX;
	c->mtu = LINK_MTU_DEFAULT;
}

static bool overlap(const char *a, const char *b)
{
	struct net_addr addr[2];
	uint8_t bits[2];

	return net_prefix_parse(a, &addr[0], &bits[0]) && net_prefix_parse(b, &addr[1], &bits[1]) &&
	       net_addr_same_prefix(&addr[0], &addr[1], bits[0] < bits[1] ? bits[0] : bits[1]);
}

/* The network that has a part of @subnet, or NULL. */
static const char *who_has(const char *subnet, const struct network *all, int n)
{
	for (int i = 0; i < n; i++)
		for (unsigned k = 0; k < NETWORK_FAMILIES; k++)
			if (overlap(subnet, all[i].subnet[k]))
				return all[i].name;
	return overlap(subnet, network_user_guest[0]) || overlap(subnet, network_user_guest[1]) ? "user" : NULL;
}

/* A subnet that the host itself is in could not be reached through the gateway. */
static bool host_has(const char *subnet, const struct ifaddrs *all)
{
	struct net_addr base, addr;
	uint8_t bits;

	if (!net_prefix_parse(subnet, &base, &bits))
		return false;
	for (const struct ifaddrs *i = all; i; i = i->ifa_next) {
		if (!i->ifa_addr)
			continue;
		if (i->ifa_addr->sa_family == AF_INET)
			addr = net_addr4_from(&((const struct sockaddr_in *)(const void *)i->ifa_addr)->sin_addr);
		else if (i->ifa_addr->sa_family == AF_INET6)
			addr = net_addr6_from(&((const struct sockaddr_in6 *)(const void *)i->ifa_addr)->sin6_addr);
		else
			continue;
		if (net_addr_same_prefix(&base, &addr, bits))
			return true;
	}
	return false;
}

static int choose_subnet(struct network *n, unsigned family, const struct network *all, int count, struct err *err)
{
	struct ifaddrs *host = NULL;
	char *text = n->subnet[family];

	(void)getifaddrs(&host);	/* NULL when it fails: then there is nothing to avoid */
	for (unsigned i = 1; i < 255; i++) {
		(void)snprintf(text, NETWORK_ADDR_SIZE, family == 0 ? "10.89.%u.0/24" : "fd72:6f75:78%02x::/64", i);
		if (!who_has(text, all, count) && !host_has(text, host))
			break;
		*text = '\0';
	}
	if (host)
		freeifaddrs(host);
	return *text ? 0 : err_set(err, -EADDRINUSE, "all subnets are taken; give one with --subnet");
}

/* --------------------------------------------------------------- definitions */

int network_read_at(const char *name, const char *path, struct network *n, struct err *err)
{
	char *text, *line, *save = NULL;
	size_t len;
	long long created = 0;
	int internal = 0, r = file_read_all(path, DEFINITION_MAX, &text, &len, err);

	*n = (struct network){ .created_s = 0 };
	(void)snprintf(n->name, sizeof(n->name), "%s", name);
	if (r == -ENOENT)
		return err_set(err, r, "there is no network '%s'; 'roux network create %s' makes it", name, name);
	if (r < 0)
		return r;
	for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		(void)sscanf(line, "subnet4 %49s", n->subnet[0]);
		(void)sscanf(line, "subnet6 %49s", n->subnet[1]);
		(void)sscanf(line, "internal %d", &internal);
		(void)sscanf(line, "created %lld", &created);
	}
	free(text);
	n->internal = internal;
	n->created_s = created;
	r = complete(n, NULL);
	if (r < 0)
		return err_set(err, r, "the definition of network %s is damaged; 'roux network rm %s' removes it", name, name);
	return 0;
}

int network_read(const char *name, struct network *ret_network, struct err *err)
{
	struct network_paths p;
	int r = network_paths_get(name, &p, err);

	return r < 0 ? r : network_read_at(name, p.definition, ret_network, err);
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct network *)a)->name, ((const struct network *)b)->name);
}

/* A damaged one is passed over: it must not keep others from being used. */
int network_list(struct network **ret_networks, struct err *err)
{
	struct network *all = calloc(NETWORKS_MAX, sizeof(*all));
	char data[PATH_MAX], state[PATH_MAX], path[PATH_MAX];
	const struct dirent *e;
	int n = 0, r = all ? open_folders(data, state, err) : err_set(err, -ENOMEM, "out of memory");
	DIR *d = r == 0 ? opendir(data) : NULL;

	if (r == 0 && !d)
		r = err_set(err, -errno, "%s: %s", data, strerror(errno));
	while (d && n < (int)NETWORKS_MAX && (e = readdir(d)))
		if (network_name_valid(e->d_name) && file_path(path, NULL, data, "/", e->d_name, NULL) == 0 &&
		    network_read_at(e->d_name, path, &all[n], NULL) == 0)
			n++;
	if (d)
		(void)closedir(d);
	if (r < 0) {
		free(all);
		return r;
	}
	qsort(all, (size_t)n, sizeof(*all), by_name);
	*ret_networks = all;
	return n;
}

static int define_locked(struct network *n, const struct network_paths *p, struct err *err)
{
	struct network *all = NULL;
	const char *other;
	char text[256];
	int r, count, len;

	if (access(p->definition, F_OK) == 0)
		return err_set(err, -EEXIST, "there is a network '%s' already", n->name);
	count = r = network_list(&all, err);
	if (count == (int)NETWORKS_MAX)
		r = err_set(err, -ENOSPC, "there are %u networks already", NETWORKS_MAX);
	for (unsigned i = 0; i < NETWORK_FAMILIES && r >= 0; i++) {
		other = who_has(n->subnet[i], all, count);
		if (!n->subnet[i][0])
			r = choose_subnet(n, i, all, count, err);
		else if (other)
			r = err_set(err, -EADDRINUSE, "%s overlaps network %s", n->subnet[i], other);
	}
	free(all);
	if (r >= 0)
		r = complete(n, err);
	if (r < 0)
		return r;
	n->created_s = (int64_t)time(NULL);
	len = snprintf(text, sizeof(text), "subnet4 %s\nsubnet6 %s\ninternal %d\ncreated %lld\n", n->subnet[0], n->subnet[1],
		       n->internal, (long long)n->created_s);
	(void)unlink(p->leases);	/* of one by that name whose removal was cut short */
	return file_write_atomic(p->definition, text, (size_t)len, 0600, err);
}

int network_define(struct network *n, struct err *err)
{
	struct network_paths p;
	int r, lock = networks_lock(n->name, &p, err);

	if (lock < 0)
		return lock;
	r = define_locked(n, &p, err);
	(void)close(lock);
	return r;
}
