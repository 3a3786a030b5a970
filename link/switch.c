/* SPDX-License-Identifier: Apache-2.0 */
#include "link/switch.h"

#include "base/checked.h"
#include "link/guard.h"
#include "os/err.h"
#include "os/loop.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#define BATCH 32u	/* frames of one port before others have their turn */
#define NAMELESS "-"	/* the record of a port that keeps no address */

struct conn {
	struct net_switch *sw;
	struct conn *next, **at;
	struct port *port;	/* NULL: it has not asked for one */
	int fd;
	struct loop_source *source;
};

struct queued {
	struct queued *next;
	uint32_t len;	/* of @packet */
	unsigned sender;	/* index of net_switch.port[] */
	uint8_t packet[];
};

struct port {
	bool used;
	struct guard guard;
	char name[SWITCH_NAME_SIZE], alias[SWITCH_NAME_SIZE];
	bool keep;
	uint8_t token[SWITCH_TOKEN_SIZE];
	struct conn *holder, *line;	/* who reserved it; the VM's process */
	struct switch_counters counters;
	struct queued *oldest, **newest;
	uint32_t held;	/* bytes of the queue */
	uint32_t held_of[SWITCH_PORTS_MAX];	/* of them by sender */
	bool names_due;	/* there was no room for NAMES */
};

struct net_switch {
	struct loop *loop;
	struct switch_config config;
	struct loop_source *listener, *linger;
	int listen_fd;
	struct conn *conns;
	unsigned nconns, nused;
	struct port port[SWITCH_PORTS_MAX];
	/* Frames of a batch that have one receiver, one after the other. */
	struct port *run_from, *run_to;
	unsigned nrun;
	struct mmsghdr run[BATCH];
	struct iovec run_iov[BATCH];
	union {	/* what is sent other than frames */
		struct switch_names names;
		struct switch_listed listed;
	} message;
	char lease[SWITCH_PORTS_MAX][SWITCH_NAME_SIZE];
	struct switch_packet in[BATCH];
};

static unsigned number(const struct net_switch *sw, const struct port *p)
{
	return (unsigned)(p - sw->port);
}

/* ------------------------------------------------------------------ queues */

static void watch(const struct port *p)
{
	(void)loop_set_events(p->line->source, EPOLLIN | (p->oldest || p->names_due ? EPOLLOUT : 0u));
}

static uint32_t cost(uint32_t len)
{
	return (uint32_t)sizeof(struct queued) + len;
}

static void enqueue(struct port *p, unsigned sender, const void *packet, uint32_t len)
{
	struct queued *q = NULL;

	if (p->held_of[sender] + cost(len) <= SWITCH_QUEUE_MAX - p->held)
		q = malloc(cost(len));
	if (!q) {
		p->counters.received.dropped++;
		return;
	}
	q->next = NULL;
	q->len = len;
	q->sender = sender;
	memcpy(q->packet, packet, len);
	if (!p->oldest)
		p->newest = &p->oldest;
	*p->newest = q;
	p->newest = &q->next;
	p->held += cost(len);
	p->held_of[sender] += cost(len);
}

static void drop_oldest(struct port *p)
{
	struct queued *q = p->oldest;

	p->oldest = q->next;
	p->held -= cost(q->len);
	p->held_of[q->sender] -= cost(q->len);
	free(q);
}

static void count(struct link_direction *dir, size_t packet)
{
	dir->frames++;
	dir->bytes += packet - sizeof(struct switch_frame);
}

/* Sends @n of @msg, and returns how many went; -1: the port is gone, which its socket tells soon. */
static int send_some(const struct port *p, struct mmsghdr *msg, unsigned n)
{
	int sent;

	do
		sent = sendmmsg(p->line->fd, msg, n, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	return sent >= 0 ? sent : errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM ? 0 : -1;
}

static void send_queued(struct port *p)
{
	struct mmsghdr msg[BATCH] = { 0 };
	struct iovec iov[BATCH];
	unsigned n;
	int sent;

	do {
		n = 0;
		for (struct queued *q = p->oldest; q && n < BATCH; q = q->next, n++) {
			iov[n] = (struct iovec){ q->packet, q->len };
			msg[n].msg_hdr = (struct msghdr){ .msg_iov = &iov[n], .msg_iovlen = 1 };
		}
		sent = send_some(p, msg, n);
		for (int i = 0; i < sent; i++) {
			count(&p->counters.received, p->oldest->len);
			drop_oldest(p);
		}
	} while (sent == BATCH && p->oldest);
}

/* ---------------------------------------------------------------- forwarding */

/* Sends the run's frames to @to. */
static void send_run(struct net_switch *sw, struct port *to)
{
	int sent = 0;

	if (!to->line)
		return;
	if (!to->oldest)
		sent = send_some(to, sw->run, sw->nrun);
	if (sent < 0)
		return;
	for (int i = 0; i < sent; i++)
		count(&to->counters.received, sw->run_iov[i].iov_len);
	for (unsigned i = (unsigned)sent; i < sw->nrun; i++)
		enqueue(to, number(sw, sw->run_from), sw->run_iov[i].iov_base, (uint32_t)sw->run_iov[i].iov_len);
	if (to->oldest)
		watch(to);
}

static void end_run(struct net_switch *sw)
{
	if (sw->nrun && sw->run_to)
		send_run(sw, sw->run_to);
	for (unsigned i = 0; sw->nrun && !sw->run_to && i < sw->config.ports; i++)
		if (&sw->port[i] != sw->run_from)
			send_run(sw, &sw->port[i]);
	sw->nrun = 0;
}

static struct port *by_mac(struct net_switch *sw, const uint8_t *mac)
{
	/* A MAC address ends in the number of its port: make_port(). */
	struct port *p = mac[5] < sw->config.ports ? &sw->port[mac[5]] : NULL;

	return p && p->line && memcmp(p->guard.mac, mac, NET_MAC_SIZE) == 0 ? p : NULL;
}

/* @to NULL: everybody else. */
static void forward(struct net_switch *sw, struct port *from, struct port *to, struct switch_packet *packet, size_t len)
{
	if (to != sw->run_to)
		end_run(sw);
	sw->run_from = from;
	sw->run_to = to;
	sw->run_iov[sw->nrun] = (struct iovec){ packet, len };
	sw->run[sw->nrun] = (struct mmsghdr){ .msg_hdr = { .msg_iov = &sw->run_iov[sw->nrun], .msg_iovlen = 1 } };
	sw->nrun++;
	count(&from->counters.sent, len);
}

static void take_frame(struct net_switch *sw, struct port *from, struct switch_packet *packet, size_t len)
{
	struct switch_counters *c = &from->counters;
	struct port *to = NULL;
	enum guard_verdict verdict;

	if (len < sizeof(packet->head) || packet->head.type != SWITCH_FRAME) {
		c->refused++;
		return;
	}
	verdict = guard_check(&from->guard, &packet->head.hdr, packet->bytes, (uint32_t)(len - sizeof(packet->head)));
	if (verdict != GUARD_PASS) {
		c->sent.dropped++;
		*(verdict == GUARD_FORGED ? &c->forged : &c->refused) += 1;
		return;
	}
	if (!(packet->bytes[0] & 1)) {
		to = by_mac(sw, packet->bytes);
		if (!to || to == from) {
			c->sent.dropped++;
			c->unknown++;
			return;
		}
	}
	forward(sw, from, to, packet, len);
}

/* False when the VM is gone. */
static bool take_frames(struct net_switch *sw, struct port *from)
{
	struct mmsghdr msg[BATCH] = { 0 };
	struct iovec iov[BATCH];
	int n;

	for (unsigned i = 0; i < BATCH; i++) {
		iov[i] = (struct iovec){ &sw->in[i], sizeof(sw->in[i]) };
		msg[i].msg_hdr = (struct msghdr){ .msg_iov = &iov[i], .msg_iovlen = 1 };
	}
	n = recvmmsg(from->line->fd, msg, BATCH, MSG_DONTWAIT, NULL);
	if (n <= 0)
		return n < 0 && (errno == EAGAIN || errno == EINTR);
	for (int i = 0; i < n; i++) {
		if (msg[i].msg_len == 0) {
			end_run(sw);
			return false;
		}
		take_frame(sw, from, &sw->in[i], msg[i].msg_hdr.msg_flags & MSG_TRUNC ? 0 : msg[i].msg_len);
	}
	end_run(sw);
	return true;
}

/* --------------------------------------------------------------------- ports */

static void describe(const struct port *p, const char *name, struct switch_name *ret)
{
	memcpy(ret->name, name, sizeof(ret->name));
	ret->ip4 = p->guard.ip4;
	ret->ip6 = p->guard.ip6;
}

/* NAMES, in sw->message.  Returns its size. */
static size_t make_names(struct net_switch *sw)
{
	struct switch_names *m = &sw->message.names;

	*m = (struct switch_names){ .type = SWITCH_NAMES };
	for (unsigned i = 0; i < sw->config.ports; i++) {
		const struct port *q = &sw->port[i];

		if (q->line && q->name[0])
			describe(q, q->name, &m->entry[m->count++]);
		if (q->line && q->alias[0] && strcmp(q->name, q->alias) != 0)
			describe(q, q->alias, &m->entry[m->count++]);
	}
	return offsetof(struct switch_names, entry[m->count]);
}

/* Sends what make_names() has made. */
static void send_names(const struct net_switch *sw, struct port *p, size_t len)
{
	ssize_t sent = send(p->line->fd, &sw->message, len, MSG_DONTWAIT | MSG_NOSIGNAL);

	p->names_due = sent < 0 && errno != EPIPE && errno != ECONNRESET;
	watch(p);
}

static void tell_names(struct net_switch *sw)
{
	size_t len = make_names(sw);

	for (unsigned i = 0; i < sw->config.ports; i++)
		if (sw->port[i].line)
			send_names(sw, &sw->port[i], len);
}

static void write_lease(struct net_switch *sw, unsigned i, const char *name)
{
	memset(sw->lease[i], 0, sizeof(sw->lease[i]));
	memcpy(sw->lease[i], name, strlen(name));
	/* What is not remembered only makes the next address another one. */
	if (sw->config.leases >= 0 && pwrite(sw->config.leases, sw->lease[i], sizeof(sw->lease[i]),
					     (off_t)(i * sizeof(sw->lease[i]))) < 0)
		sw->config.leases = -1;
}

/*
 * The address that the name had last; else the lowest that nobody had; else the lowest.  NULL:
 * all are taken.
 */
static struct port *choose_port(struct net_switch *sw, const char *name)
{
	struct port *fresh = NULL, *any = NULL;

	for (unsigned i = sw->config.ports; i-- > 0;) {
		struct port *p = &sw->port[i];

		if (p->used)
			continue;
		if (*name && strcmp(sw->lease[i], name) == 0)
			return p;
		any = p;
		if (!sw->lease[i][0])
			fresh = p;
	}
	return fresh ? fresh : any;
}

/* The port with address @ip4, NULL: there is none, or it is taken. */
static struct port *port_at(struct net_switch *sw, const struct net_addr *ip4)
{
	for (unsigned i = 0; i < sw->config.ports; i++) {
		struct net_addr addr = switch_address(&sw->config.prefix4, sw->config.first + i);

		if (net_addr_equal(&addr, ip4))
			return sw->port[i].used ? NULL : &sw->port[i];
	}
	return NULL;
}

static struct port *make_port(struct net_switch *sw, const struct switch_reserve *m)
{
	struct port *p = m->ip4.q[0] | m->ip4.q[1] ? port_at(sw, &m->ip4) : choose_port(sw, m->name);
	uint32_t index;

	if (!p)
		return NULL;
	index = sw->config.first + number(sw, p);
	p->used = true;
	p->counters = (struct switch_counters){ 0 };
	p->guard = (struct guard){
		/* Locally administered; a network's own, and of the same port always the same. */
		.mac = { 0x02, 'r', 'x', sw->config.prefix4.b[13], sw->config.prefix4.b[14], (uint8_t)number(sw, p) },
		.ip4 = switch_address(&sw->config.prefix4, index), .ip6 = switch_address(&sw->config.prefix6, index),
		.mtu = sw->config.mtu,
	};
	memcpy(p->name, m->name, sizeof(p->name));
	memcpy(p->alias, m->alias, sizeof(p->alias));
	p->keep = m->keep && m->name[0];
	sw->nused++;
	write_lease(sw, number(sw, p), p->keep ? p->name : NAMELESS);
	return p;
}

static void free_port(struct net_switch *sw, struct port *p)
{
	p->used = false;
	sw->nused--;
	if (!p->keep)
		write_lease(sw, number(sw, p), "");
	if (!sw->nused)
		(void)loop_set_timer(sw->linger, sw->config.linger_ns, sw->config.linger_ns);
}

static void conn_free(struct conn *c)
{
	struct net_switch *sw = c->sw;
	struct port *p = c->port;

	*c->at = c->next;
	if (c->next)
		c->next->at = c->at;
	sw->nconns--;
	loop_remove(c->source);
	(void)close(c->fd);
	if (p && p->line == c) {
		p->line = NULL;
		p->names_due = false;
		while (p->oldest)
			drop_oldest(p);
		if (p->name[0] || p->alias[0])
			tell_names(sw);
	} else if (p) {
		p->holder = NULL;
	}
	if (p && !p->line && !p->holder)
		free_port(sw, p);
	free(c);
}

/* ------------------------------------------------------------------ requests */

static void reply(const struct conn *c, const void *message, size_t len)
{
	(void)send(c->fd, message, len, MSG_DONTWAIT | MSG_NOSIGNAL);	/* who does not listen hears nothing */
}

static void answer(const struct conn *c, enum switch_type type, int error)
{
	reply(c, &(struct switch_answer){ .type = type, .error = error }, sizeof(struct switch_answer));
}

static bool name_is_fine(const char *name)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyz0123456789-._";
	size_t len = strnlen(name, SWITCH_NAME_SIZE);

	return len < SWITCH_NAME_SIZE && strspn(name, allowed) == len && strcmp(name, NAMELESS) != 0;
}

static void reserve(struct conn *c, const struct switch_reserve *m)
{
	struct net_switch *sw = c->sw;
	struct switch_reserved r = { .type = SWITCH_RESERVED };
	struct port *p;

	if (m->version != SWITCH_VERSION || c->port || !name_is_fine(m->name) || !name_is_fine(m->alias)) {
		answer(c, SWITCH_REFUSED, m->version != SWITCH_VERSION ? -EPROTONOSUPPORT : -EINVAL);
		return;
	}
	p = make_port(sw, m);
	if (!p) {
		answer(c, SWITCH_REFUSED, -EADDRNOTAVAIL);
		return;
	}
	c->port = p;
	p->holder = c;
	if (getrandom(p->token, sizeof(p->token), 0) != sizeof(p->token)) {
		answer(c, SWITCH_REFUSED, -EIO);	/* the port goes with the connection */
		return;
	}
	memcpy(r.mac, p->guard.mac, sizeof(r.mac));
	memcpy(r.token, p->token, sizeof(r.token));
	r.ip4 = p->guard.ip4;
	r.ip6 = p->guard.ip6;
	reply(c, &r, sizeof(r));
}

static void claim(struct conn *c, const struct switch_claim *m)
{
	struct net_switch *sw = c->sw;

	for (unsigned i = 0; i < sw->config.ports && !c->port; i++) {
		struct port *p = &sw->port[i];

		if (!p->used || p->line || memcmp(p->token, m->token, sizeof(p->token)) != 0)
			continue;
		c->port = p;
		p->line = c;
		(void)setsockopt(c->fd, SOL_SOCKET, SO_SNDBUF, &(int){ SWITCH_SOCKET_BUFFER }, sizeof(int));
		answer(c, SWITCH_CLAIMED, 0);
		if (p->name[0] || p->alias[0])
			tell_names(sw);
		else
			send_names(sw, p, make_names(sw));
		return;
	}
	answer(c, SWITCH_REFUSED, -ENOENT);
}

static void list(const struct conn *c)
{
	struct net_switch *sw = c->sw;
	struct switch_listed *m = &sw->message.listed;

	*m = (struct switch_listed){ .type = SWITCH_LISTED };
	for (unsigned i = 0; i < sw->config.ports; i++) {
		const struct port *p = &sw->port[i];
		struct switch_port_info *info = &m->port[m->count];

		if (!p->used)
			continue;
		describe(p, p->name, &info->name);
		memcpy(info->alias, p->alias, sizeof(info->alias));
		memcpy(info->mac, p->guard.mac, sizeof(info->mac));
		info->connected = p->line;
		info->counters = p->counters;
		m->count++;
	}
	reply(c, m, offsetof(struct switch_listed, port[m->count]));
}

/* The client keeps others from joining meanwhile. */
static void quit(const struct conn *c)
{
	if (c->sw->nused) {
		answer(c, SWITCH_REFUSED, -EBUSY);
		return;
	}
	answer(c, SWITCH_QUITTING, 0);
	loop_quit(c->sw->loop);
}

/* False when the client is gone, or does not keep to the protocol. */
static bool take_request(struct conn *c)
{
	union {
		uint32_t type;
		struct switch_reserve reserve;
		struct switch_claim claim;
	} m = { 0 };
	ssize_t n = recv(c->fd, &m, sizeof(m), MSG_DONTWAIT);

	if (n <= 0)
		return n < 0 && (errno == EAGAIN || errno == EINTR);
	if (n == sizeof(m.reserve) && m.type == SWITCH_RESERVE)
		reserve(c, &m.reserve);
	else if (n == sizeof(m.claim) && m.type == SWITCH_CLAIM)
		claim(c, &m.claim);
	else if (n == sizeof(m.type) && m.type == SWITCH_LIST)
		list(c);
	else if (n == sizeof(m.type) && m.type == SWITCH_QUIT)
		quit(c);
	else
		return false;
	return true;
}

static void on_conn(void *ctx, uint32_t events)
{
	struct conn *c = ctx;
	struct port *p = c->port;
	bool alive = true;

	if (!p || p->line != c) {
		alive = take_request(c);
	} else {
		if (events & EPOLLOUT) {
			if (p->names_due)
				send_names(c->sw, p, make_names(c->sw));
			if (!p->names_due)
				send_queued(p);
			watch(p);
		}
		if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
			alive = take_frames(c->sw, p);
	}
	if (!alive)
		conn_free(c);
}

/* --------------------------------------------------------------- life time */

int switch_adopt(struct net_switch *sw, int fd)
{
	struct conn *c = sw->nconns < SWITCH_CONNS_MAX ? calloc(1, sizeof(*c)) : NULL;
	int r = c ? loop_add_fd(sw->loop, fd, EPOLLIN, on_conn, c, &c->source, NULL) : -EMFILE;

	if (r < 0) {
		free(c);
		(void)close(fd);
		return r;
	}
	c->sw = sw;
	c->fd = fd;
	c->next = sw->conns;
	c->at = &sw->conns;
	if (c->next)
		c->next->at = &c->next;
	sw->conns = c;
	sw->nconns++;
	return 0;
}

static void on_client(void *ctx, uint32_t events)
{
	struct net_switch *sw = ctx;
	int fd = accept4(sw->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct ucred peer;
	socklen_t len = sizeof(peer);

	(void)events;
	if (fd < 0)
		return;
	/* The folder keeps others out already. */
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0 || (peer.uid != geteuid() && peer.uid != 0))
		(void)close(fd);
	else
		(void)switch_adopt(sw, fd);
}

static void on_linger(void *ctx)
{
	struct net_switch *sw = ctx;

	if (sw->nused)
		(void)loop_set_timer(sw->linger, 0, 0);
	else if (sw->config.may_end && sw->config.may_end(sw->config.ctx))
		loop_quit(sw->loop);
}

static void read_leases(struct net_switch *sw)
{
	ssize_t n = sw->config.leases < 0 ? 0 : pread(sw->config.leases, sw->lease, sizeof(sw->lease), 0);

	for (unsigned i = 0; i < SWITCH_PORTS_MAX; i++) {
		bool whole = n >= (ssize_t)((i + 1) * sizeof(sw->lease[i]));

		if (!whole || (!name_is_fine(sw->lease[i]) && strncmp(sw->lease[i], NAMELESS, sizeof(NAMELESS)) != 0))
			memset(sw->lease[i], 0, sizeof(sw->lease[i]));
	}
}

int switch_create(struct loop *loop, const struct switch_config *config, struct net_switch **ret_switch,
		  struct err *err)
{
	struct net_switch *sw = calloc(1, sizeof(*sw));
	int r;

	if (!sw)
		return err_set(err, -ENOMEM, "out of memory");
	sw->loop = loop;
	sw->config = *config;
	sw->listen_fd = -1;
	read_leases(sw);
	r = loop_add_timer(loop, on_linger, sw, &sw->linger, err);
	if (r == 0 && config->may_end)
		r = loop_set_timer(sw->linger, config->linger_ns, config->linger_ns);
	if (r < 0) {
		switch_destroy(sw);
		return r;
	}
	*ret_switch = sw;
	return 0;
}

int switch_listen(struct net_switch *sw, int fd, struct err *err)
{
	sw->listen_fd = fd;
	return loop_add_fd(sw->loop, fd, EPOLLIN, on_client, sw, &sw->listener, err);
}

void switch_destroy(struct net_switch *sw)
{
	if (!sw)
		return;
	while (sw->conns)
		conn_free(sw->conns);
	loop_remove(sw->listener);
	loop_remove(sw->linger);
	free(sw);
}
