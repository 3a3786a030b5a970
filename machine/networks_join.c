/* SPDX-License-Identifier: Apache-2.0 */
/* What is asked of switches: who is there, a place for a VM, an end; and how one is started. */
#include "machine/networks.h"

#include "base/hex.h"
#include "link/port.h"
#include "link/switch_client.h"
#include "machine/network.h"
#include "machine/networks_private.h"
#include "net/net.h"
#include "os/err.h"
#include "os/process.h"

#include <ctype.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define LAST_BREATH_MS 200	/* a process that ends closes one socket after the other */
#define DYING_NS 10000000	/* between tries */
#define DYING_TRIES 50u

static int refused(int r, const char *name, struct err *err)
{
	if (r == -EADDRNOTAVAIL)
		return err_set(err, r, "network %s has no free address; stop a VM that is on it", name);
	if (r == -EPROTONOSUPPORT)
		return err_set(err, r, "network %s is run by another version of roux; stop the VMs that are on it", name);
	return err_set(err, r, "the switch of network %s: %s", name, strerror(-r));
}

static void copy_vm(struct network_vm *vm, const struct switch_port_info *p)
{
	const struct switch_counters *c = &p->counters;

	(void)snprintf(vm->name, sizeof(vm->name), "%.63s", p->name.name);
	(void)snprintf(vm->hostname, sizeof(vm->hostname), "%.63s", p->alias);
	network_put_addr(vm->addr[0], &p->name.ip4, -1);
	network_put_addr(vm->addr[1], &p->name.ip6, -1);
	memcpy(vm->mac, p->mac, sizeof(vm->mac));
	vm->connected = p->connected;
	vm->sent.frames = c->sent.frames;
	vm->sent.bytes = c->sent.bytes;
	vm->sent.dropped = c->sent.dropped;
	vm->received.frames = c->received.frames;
	vm->received.bytes = c->received.bytes;
	vm->received.dropped = c->received.dropped;
	vm->forged = c->forged;
	vm->refused = c->refused;
	vm->unknown = c->unknown;
}

int network_vms(const char *name, struct network_vm **ret_vms, struct err *err)
{
	const uint32_t list = SWITCH_LIST;
	struct switch_listed *m = malloc(sizeof(*m));
	struct network_vm *vms = calloc(SWITCH_PORTS_MAX, sizeof(*vms));
	struct network_paths p;
	int fd = -ENOENT, r = m && vms ? 0 : err_set(err, -ENOMEM, "out of memory"), count = 0;
	ssize_t n = 0;

	if (r == 0)
		r = network_paths_get(name, &p, err);
	if (r == 0)
		fd = switch_connect(p.socket);
	if (fd >= 0)
		n = switch_ask(fd, &list, sizeof(list), SWITCH_LISTED, m, sizeof(*m));
	else if (r == 0 && fd != -ENOENT && fd != -ECONNREFUSED)
		r = refused(fd, name, err);
	if (n < 0 && n != -EPIPE && n != -ECONNRESET)	/* it is just ending */
		r = refused((int)n, name, err);
	if (n > 0 && m->count <= SWITCH_PORTS_MAX && n == (ssize_t)offsetof(struct switch_listed, port[m->count]))
		for (; count < (int)m->count; count++)
			copy_vm(&vms[count], &m->port[count]);
	if (fd >= 0)
		(void)close(fd);
	free(m);
	if (r < 0) {
		free(vms);
		return r;
	}
	*ret_vms = vms;
	return count;
}

/* Ends the switch, which nobody starts anew while we hold the lock. */
static int end_switch(const char *name, const struct network_paths *p, struct err *err)
{
	const uint32_t quit = SWITCH_QUIT;
	struct switch_answer a;
	int fd = switch_connect(p->socket);
	ssize_t n;

	if (fd == -ENOENT || fd == -ECONNREFUSED)
		return 0;
	if (fd < 0)
		return refused(fd, name, err);
	n = switch_ask(fd, &quit, sizeof(quit), SWITCH_QUITTING, &a, sizeof(a));
	if (n > 0)
		(void)recv(fd, &a, sizeof(a), 0);	/* until it has ended */
	(void)close(fd);
	if (n == -EBUSY)
		return err_set(err, -EBUSY, "network %s is in use; stop the VMs that 'roux network inspect %s' shows", name,
			       name);
	return n < 0 && n != -EPIPE && n != -ECONNRESET ? refused((int)n, name, err) : 0;
}

static int remove_locked(const char *name, const struct network_paths *p, struct err *err)
{
	int r;

	if (access(p->definition, F_OK) < 0)
		return err_set(err, -ENOENT, "there is no network '%s'; 'roux network ls' lists them", name);
	r = end_switch(name, p, err);
	if (r < 0)
		return r;
	if (unlink(p->definition) < 0)
		return err_set(err, -errno, "cannot remove %s: %s", p->definition, strerror(errno));
	(void)unlink(p->socket);
	(void)unlink(p->leases);
	return 0;
}

int network_remove(const char *name, struct err *err)
{
	struct network_paths p;
	int r, lock = networks_lock(name, &p, err);

	if (lock < 0)
		return lock;
	r = remove_locked(name, &p, err);
	(void)close(lock);
	return r;
}

static int start_switch(const char *name, const char *roux, struct err *err)
{
	const char *const argv[] = { roux, "switch", name, NULL };
	struct process_result result;
	int r = process_run(argv, NULL, NULL, 4096, NULL, &result, err);
	char *line;

	if (r < 0)
		return r;
	line = strchr(result.errors, '\n');
	if (line)
		*line = '\0';
	line = strncmp(result.errors, "roux: ", 6) == 0 ? result.errors + 6 : result.errors;
	r = result.status ? err_set(err, -EIO, "cannot start the switch of network %s: %s", name,
				    *line ? line : "it ended unexpectedly") : 0;
	free(result.out);
	return r;
}

static void copy_name(char to[SWITCH_NAME_SIZE], const char *name)
{
	for (size_t i = 0; name && name[i] && i < SWITCH_NAME_SIZE - 1; i++)
		to[i] = (char)tolower((unsigned char)name[i]);
}

static int reserve(int fd, const struct network_guest *vm, struct network_seat *seat)
{
	struct switch_reserve m = { .type = SWITCH_RESERVE, .version = SWITCH_VERSION, .keep = vm->keep };
	struct switch_reserved a;
	struct net_addr base;
	uint8_t bits[NETWORK_FAMILIES] = { 0 };
	ssize_t n;

	if (vm->addr && !net_prefix_parse(vm->addr, &m.ip4, &bits[0]))
		return -EINVAL;
	copy_name(m.name, vm->name);
	copy_name(m.alias, vm->hostname);
	n = switch_ask(fd, &m, sizeof(m), SWITCH_RESERVED, &a, sizeof(a));
	if (n != (ssize_t)sizeof(a))
		return n < 0 ? (int)n : -EPROTO;
	for (unsigned i = 0; i < NETWORK_FAMILIES; i++)
		(void)net_prefix_parse(seat->network.subnet[i], &base, &bits[i]);
	network_put_addr(seat->addr[0], &a.ip4, bits[0]);
	network_put_addr(seat->addr[1], &a.ip6, bits[1]);
	memcpy(seat->mac, a.mac, sizeof(seat->mac));
	hex_write(seat->token, a.token, sizeof(a.token));
	return 0;
}

static int join_locked(const char *name, const struct network_guest *vm, const char *roux, const struct network_paths *p,
		       struct network_seat *seat, struct err *err)
{
	const struct timespec pause = { .tv_nsec = DYING_NS };
	int fd, r = network_read_at(name, p->definition, &seat->network, err);

	if (r < 0)
		return r;
	for (unsigned i = 0;; i++) {
		fd = switch_connect(p->socket);
		if (fd == -ENOENT || fd == -ECONNREFUSED) {
			r = start_switch(name, roux, err);
			if (r < 0)
				return r;
			fd = switch_connect(p->socket);
		}
		r = fd < 0 ? fd : reserve(fd, vm, seat);
		if (r < 0 && fd >= 0)
			(void)close(fd);
		/* One that was killed may let us in with its last breath. */
		if ((r != -ECONNRESET && r != -EPIPE) || i == DYING_TRIES)
			break;
		(void)nanosleep(&pause, NULL);
	}
	if (r < 0)
		return refused(r, name, err);
	(void)snprintf(seat->socket, sizeof(seat->socket), "%.107s", p->socket);
	seat->fd = fd;
	return 0;
}

bool network_seat_lost(int seat_fd)
{
	struct pollfd p = { .fd = seat_fd };

	return poll(&p, 1, LAST_BREATH_MS) > 0 && p.revents & (POLLHUP | POLLERR);
}

int network_claim(const struct network_seat *seat, struct err *err)
{
	uint8_t token[SWITCH_TOKEN_SIZE];

	if (!network_token_parse(seat->token, token))
		return err_set(err, -EINVAL, "no token of a network's switch");
	return link_port_open(seat->socket, token, err);
}

int network_join(const char *name, const struct network_guest *vm, const char *roux, struct network_seat *ret_seat,
		 struct err *err)
{
	struct network_paths p;
	int r, lock = networks_lock(name, &p, err);

	if (lock < 0)
		return lock;
	r = join_locked(name, vm, roux, &p, ret_seat, err);
	(void)close(lock);
	return r;
}
