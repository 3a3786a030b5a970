/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who on the link has which address (RFC 826; RFC 4861, 7), for both families.
 *
 *   ASKED --answer--> KNOWN --used after STALE_NS--> KNOWN, probed --no answer--> ASKED
 *     \--no answer after ASK_COUNT--> gone
 *
 * In proxy mode packets teach too: whoever sends from an address has it.  The
 * table is bounded; the entry longest not used makes room.
 */
#include "net/core.h"
#include "net/siphash.h"

#define ASK_INTERVAL SECOND
#define ASK_COUNT 3u
#define STALE_NS (60 * SECOND)
#define LEARN_NS SECOND	/* a packet confirms an entry at most this often */
#define WAITING_MAX 4u	/* packets per entry */
#define WAITING_BYTES (256u << 10)	/* of all entries */

struct waiting {	/* a frame that waits for an answer */
	struct waiting *next;
	struct net_frame frame;
	struct net_span span;
	uint8_t bytes[];
};

struct neighbour {
	struct neighbour *hash_next;
	struct neighbour *prev, *next;	/* by use */
	struct net_addr addr;
	uint8_t mac[NET_MAC_SIZE];
	bool known;
	uint8_t asked;	/* times since the last answer */
	uint64_t confirmed, asked_at;	/* ns */
	struct waiting *waiting;
	uint32_t waiting_count;
	struct timer timer;	/* while asked */
};

bool neighbour_init(struct net *net)
{
	uint32_t size = 64;

	while (size < net->limits.neighbours && size < 4096)
		size *= 2;
	net->neigh_hash = net_alloc_zero(net, size * sizeof(struct neighbour *));
	net->neigh_mask = size - 1;
	return net->neigh_hash;
}

static struct neighbour **bucket(const struct net *net, const struct net_addr *addr)
{
	return &net->neigh_hash[siphash(net->key, addr->q, 2) & net->neigh_mask];
}

static struct neighbour *find(const struct net *net, const struct net_addr *addr)
{
	struct neighbour *entry = *bucket(net, addr);

	while (entry && !net_addr_equal(&entry->addr, addr))
		entry = entry->hash_next;
	return entry;
}

static void unlink_use(struct net *net, struct neighbour *entry)
{
	*(entry->prev ? &entry->prev->next : &net->neigh_first) = entry->next;
	*(entry->next ? &entry->next->prev : &net->neigh_last) = entry->prev;
}

static void link_first(struct net *net, struct neighbour *entry)
{
	entry->prev = NULL;
	entry->next = net->neigh_first;
	*(entry->next ? &entry->next->prev : &net->neigh_last) = entry;
	net->neigh_first = entry;
}

static void used(struct net *net, struct neighbour *entry)
{
	if (net->neigh_first == entry)
		return;
	unlink_use(net, entry);
	link_first(net, entry);
}

static void free_waiting(struct net *net, struct waiting *waiting)
{
	size_t size = sizeof(*waiting) + waiting->frame.len;

	net->neigh_waiting -= size;
	net_free(net, waiting, size);
}

static void drop_waiting(struct net *net, struct neighbour *entry)
{
	struct waiting *waiting;

	while ((waiting = entry->waiting)) {
		entry->waiting = waiting->next;
		net->stats.no_neighbour++;
		free_waiting(net, waiting);
	}
	entry->waiting_count = 0;
}

void neighbour_drop_waiting(struct net *net)
{
	for (struct neighbour *entry = net->neigh_first; entry; entry = entry->next)
		drop_waiting(net, entry);
}

static void forget(struct net *net, struct neighbour *entry)
{
	struct neighbour **link = bucket(net, &entry->addr);

	while (*link != entry)
		link = &(*link)->hash_next;
	*link = entry->hash_next;
	unlink_use(net, entry);
	drop_waiting(net, entry);
	timer_finish(net, &entry->timer);
	net->neigh_count--;
	if (net_addr_equal(&net->learned, &entry->addr))
		net->learned = (struct net_addr){ 0 };
	net_free(net, entry, sizeof(*entry));
}

void neighbour_destroy(struct net *net)
{
	while (net->neigh_first)
		forget(net, net->neigh_first);
	if (net->neigh_hash)
		net_free(net, net->neigh_hash, (net->neigh_mask + 1) * sizeof(struct neighbour *));
}

static void ask(struct net *net, struct neighbour *entry)
{
	const uint8_t *mac = entry->known ? entry->mac : NULL;

	entry->asked++;
	entry->asked_at = net->now;
	if (net_addr_is4(&entry->addr))
		arp_request(net, &entry->addr, mac);
	else
		ndp_solicit(net, &entry->addr, mac);
}

static void ask_again(struct net *net, struct timer *timer)
{
	struct neighbour *entry = container_of(timer, struct neighbour, timer);

	if (entry->known)
		return;
	if (entry->asked >= ASK_COUNT) {
		forget(net, entry);
		return;
	}
	ask(net, entry);
	timer_set(net, &entry->timer, net->now + ASK_INTERVAL);
}

static struct neighbour *create(struct net *net, const struct net_addr *addr)
{
	struct neighbour *entry, **link;

	if (net->neigh_count >= net->limits.neighbours)
		forget(net, net->neigh_last);
	entry = net_alloc_zero(net, sizeof(*entry));
	if (!entry)
		return NULL;
	if (!timer_init(net, &entry->timer, ask_again)) {
		net_free(net, entry, sizeof(*entry));
		return NULL;
	}
	entry->addr = *addr;
	link = bucket(net, addr);
	entry->hash_next = *link;
	*link = entry;
	link_first(net, entry);
	net->neigh_count++;
	return entry;
}

static void send_waiting(struct net *net, struct neighbour *entry)
{
	struct waiting *waiting;

	while ((waiting = entry->waiting)) {
		entry->waiting = waiting->next;
		__builtin_memcpy(waiting->bytes, entry->mac, NET_MAC_SIZE);
		(void)eth_transmit(net, &waiting->frame);
		free_waiting(net, waiting);
	}
	entry->waiting_count = 0;
}

void neighbour_update(struct net *net, const struct net_addr *addr, const uint8_t *mac, bool make)
{
	struct neighbour *entry = find(net, addr);

	if (mac[0] & 1 || net_is_own(net, addr) || net_addr_is_zero(addr))
		return;
	if (!entry)
		entry = make ? create(net, addr) : NULL;
	if (!entry)
		return;
	__builtin_memcpy(entry->mac, mac, NET_MAC_SIZE);
	entry->known = true;
	entry->confirmed = net->now;
	entry->asked = 0;
	timer_stop(&entry->timer);
	if (net_addr_equal(&net->learned, addr))
		net->learned = (struct net_addr){ 0 };
	send_waiting(net, entry);
}

void neighbour_learn(struct net *net, const struct net_addr *addr, const uint8_t *mac)
{
	if (net_addr_equal(&net->learned, addr) &&
	    !__builtin_memcmp(net->learned_mac, mac, NET_MAC_SIZE) &&
	    net->now - net->learned_at < LEARN_NS)
		return;
	if (net_addr_is_multicast(addr))
		return;
	neighbour_update(net, addr, mac, true);
	net->learned = *addr;
	net->learned_at = net->now;
	__builtin_memcpy(net->learned_mac, mac, NET_MAC_SIZE);
}

/* Keeps a copy of @frame; the checksum and GSO fields go with it. */
static void keep(struct net *net, struct neighbour *entry, const struct net_frame *frame)
{
	size_t size = sizeof(struct waiting) + frame->len;
	struct waiting *waiting = NULL, **link = &entry->waiting;

	if (entry->waiting_count < WAITING_MAX && net->neigh_waiting + size <= WAITING_BYTES)
		waiting = net_alloc(net, size);
	if (!waiting) {
		net->stats.no_neighbour++;
		return;
	}
	(void)spans_copy(frame->spans, frame->count, waiting->bytes, frame->len);
	waiting->next = NULL;
	waiting->span = (struct net_span){ waiting->bytes, frame->len };
	waiting->frame = *frame;
	waiting->frame.spans = &waiting->span;
	waiting->frame.count = 1;
	while (*link)
		link = &(*link)->next;
	*link = waiting;
	entry->waiting_count++;
	net->neigh_waiting += size;
}

/* A known entry that is old is asked about while it is used; no answer, and it is not known. */
static void probe_stale(struct net *net, struct neighbour *entry)
{
	if (net->now - entry->confirmed < STALE_NS || net->now - entry->asked_at < ASK_INTERVAL)
		return;
	if (entry->asked >= ASK_COUNT) {
		entry->known = false;
		entry->asked = 0;
		return;
	}
	ask(net, entry);
}

const uint8_t *neighbour_resolve(struct net *net, const struct net_addr *addr,
				 const struct net_frame *frame)
{
	struct neighbour *entry = find(net, addr);

	if (!entry)
		entry = create(net, addr);
	if (!entry)
		return NULL;
	used(net, entry);
	if (entry->known)
		probe_stale(net, entry);
	if (entry->known)
		return entry->mac;
	keep(net, entry, frame);
	if (!entry->timer.due) {
		ask(net, entry);
		timer_set(net, &entry->timer, net->now + ASK_INTERVAL);
	}
	return NULL;
}

bool net_neighbour(const struct net *net, const struct net_addr *addr, uint8_t ret_mac[NET_MAC_SIZE])
{
	const struct neighbour *entry = find(net, addr);

	if (!entry || !entry->known)
		return false;
	__builtin_memcpy(ret_mac, entry->mac, NET_MAC_SIZE);
	return true;
}
