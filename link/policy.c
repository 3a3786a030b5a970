/* SPDX-License-Identifier: Apache-2.0 */
#include "link/policy.h"

#include "net/net.h"
#include "os/err.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define RULE_TEXT_MAX 512u
#define WORDS_MAX 4u
#define TTL_MIN_S 60u	/* programs use an address a little after its record has run out */
#define S_NS 1000000000ull

struct rule {
	bool allow;
	uint8_t protos;	/* enum policy_proto, or'ed */
	uint16_t port_min, port_max;
	char *name;	/* NULL: @addr */
	bool wildcard;	/* names that end in "." @name */
	struct net_addr addr;
	uint8_t prefix;	/* bits */
	bool any;
};

struct learned {
	struct net_addr addr;
	uint64_t until_ns;
	uint64_t rules[POLICY_RULES_MAX / 64];	/* bit per rule whose name fits */
};

struct policy {
	struct rule rule[POLICY_RULES_MAX];
	unsigned n;
	struct learned *learned;	/* POLICY_LEARNED_MAX once a rule has a name */
	unsigned nlearned, next;
};

struct policy *policy_create(void)
{
	return calloc(1, sizeof(struct policy));
}

void policy_destroy(struct policy *p)
{
	if (!p)
		return;
	for (unsigned i = 0; i < p->n; i++)
		free(p->rule[i].name);
	free(p->learned);
	free(p);
}

static bool parse_number(const char *text, unsigned max, unsigned *ret)
{
	char *end;
	unsigned long v;

	if (!isdigit((unsigned char)*text))
		return false;
	errno = 0;
	v = strtoul(text, &end, 10);
	if (*end || errno || v > max)
		return false;
	*ret = (unsigned)v;
	return true;
}

static bool parse_ports(struct rule *r, char *text)
{
	char *dash = strchr(text, '-');
	unsigned lo, hi;

	if (dash)
		*dash++ = '\0';
	if (!parse_number(text, UINT16_MAX, &lo) || !parse_number(dash ? dash : text, UINT16_MAX, &hi) || lo > hi)
		return false;
	r->port_min = (uint16_t)lo;
	r->port_max = (uint16_t)hi;
	return true;
}

static bool parse_proto(struct rule *r, const char *text)
{
	r->protos = strcmp(text, "tcp") == 0 ? POLICY_TCP : strcmp(text, "udp") == 0 ? POLICY_UDP :
		    strcmp(text, "icmp") == 0 ? POLICY_ICMP : 0;
	return r->protos;
}

static bool is_name(const char *text)
{
	size_t len = strlen(text);

	if (!len || len > 253 || strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789-_.") != len)
		return false;
	for (size_t i = 0; i <= len; i++) {
		bool begins = i == 0 || text[i - 1] == '.', ends = i == len || text[i] == '.';

		if ((begins && (ends || text[i] == '-')) || (ends && text[i - 1] == '-'))
			return false;
	}
	return true;
}

/* Makes @text lower case when it is a name.  0, -EINVAL, -ENOMEM. */
static int parse_target(struct rule *r, char *text)
{
	if (strcmp(text, "any") == 0) {
		r->any = true;
		return 0;
	}
	if (net_prefix_parse(text, &r->addr, &r->prefix))
		return 0;
	if (net_addr_parse(text, &r->addr)) {
		r->prefix = net_addr_is4(&r->addr) ? 32 : 128;
		return 0;
	}
	for (char *c = text; *c; c++)
		*c = (char)tolower((unsigned char)*c);
	r->wildcard = strncmp(text, "*.", 2) == 0;
	if (!is_name(text + (r->wildcard ? 2 : 0)))
		return -EINVAL;
	r->name = strdup(text + (r->wildcard ? 2 : 0));
	return r->name ? 0 : -ENOMEM;
}

/* @text is cut into words. */
static int parse(struct rule *r, char *text)
{
	char *word[WORDS_MAX + 1] = { NULL }, *save = NULL;
	unsigned n = 0, at = 2;
	int res;

	for (char *w = strtok_r(text, " \t", &save); w && n <= WORDS_MAX; w = strtok_r(NULL, " \t", &save))
		word[n++] = w;
	if (n < 2 || n > WORDS_MAX)
		return -EINVAL;
	r->allow = strcmp(word[0], "allow") == 0;
	if (!r->allow && strcmp(word[0], "deny") != 0)
		return -EINVAL;
	res = parse_target(r, word[1]);
	if (res < 0)
		return res;
	if (at < n && parse_proto(r, word[at]))
		at++;
	else
		r->protos = POLICY_TCP | POLICY_UDP | POLICY_ICMP;
	r->port_max = UINT16_MAX;
	if (at < n) {
		if (r->protos & POLICY_ICMP && r->protos != (POLICY_TCP | POLICY_UDP | POLICY_ICMP))
			return -EINVAL;
		r->protos &= ~(unsigned)POLICY_ICMP;	/* a port is one of TCP and UDP */
		if (!parse_ports(r, word[at++]))
			return -EINVAL;
	}
	return at == n ? 0 : -EINVAL;
}

int policy_add(struct policy *p, const char *text, struct err *err)
{
	char copy[RULE_TEXT_MAX];
	struct rule r = { 0 };
	int res;

	if (p->n == POLICY_RULES_MAX)
		return err_set(err, -E2BIG, "more than %u rules for what the guest may reach", POLICY_RULES_MAX);
	res = strlen(text) < sizeof(copy) ? 0 : -EINVAL;
	if (res == 0)
		res = parse(&r, strcpy(copy, text));
	if (res == 0 && r.name && !p->learned) {
		p->learned = calloc(POLICY_LEARNED_MAX, sizeof(*p->learned));
		res = p->learned ? 0 : -ENOMEM;
	}
	if (res == -ENOMEM || res == -EINVAL)
		free(r.name);
	if (res == -EINVAL)
		return err_set(err, res, "'%s' is no rule; one is \"allow|deny any|ADDRESS[/BITS]|NAME|*.NAME "
			       "[tcp|udp|icmp] [PORT[-PORT]]\"", text);
	if (res < 0)
		return err_set(err, res, "out of host memory");
	p->rule[p->n++] = r;
	return 0;
}

bool policy_has_names(const struct policy *p)
{
	return p->learned;
}

static bool name_fits(const struct rule *r, const char *name)
{
	size_t len = strlen(name), tail = strlen(r->name);

	if (!r->wildcard)
		return strcmp(name, r->name) == 0;
	return len > tail && name[len - tail - 1] == '.' && strcmp(name + len - tail, r->name) == 0;
}

static struct learned *find(const struct policy *p, const struct net_addr *addr)
{
	for (unsigned i = 0; i < p->nlearned; i++)
		if (net_addr_equal(&p->learned[i].addr, addr))
			return &p->learned[i];
	return NULL;
}

void policy_learn(struct policy *p, const char *name, const struct net_addr *addr, uint32_t ttl_s,
		  uint64_t now_ns)
{
	uint64_t until = now_ns + S_NS * (ttl_s > TTL_MIN_S ? ttl_s : TTL_MIN_S);
	uint64_t rules[POLICY_RULES_MAX / 64] = { 0 };
	struct learned *l;
	bool fits = false;

	for (unsigned i = 0; i < p->n; i++) {
		if (p->rule[i].name && name_fits(&p->rule[i], name)) {
			rules[i / 64] |= 1ull << i % 64;
			fits = true;
		}
	}
	if (!fits)
		return;
	l = find(p, addr);
	if (!l) {
		l = &p->learned[p->next];
		p->next = (p->next + 1) % POLICY_LEARNED_MAX;
		if (p->nlearned < POLICY_LEARNED_MAX)
			p->nlearned++;
		*l = (struct learned){ .addr = *addr };
	} else if (l->until_ns < now_ns) {
		memset(l->rules, 0, sizeof(l->rules));
	}
	if (l->until_ns < until)
		l->until_ns = until;
	for (unsigned i = 0; i < POLICY_RULES_MAX / 64; i++)
		l->rules[i] |= rules[i];
}

bool policy_allows(const struct policy *p, enum policy_proto proto, const struct net_endpoint *to,
		   uint64_t now_ns)
{
	const struct learned *l = p->learned ? find(p, &to->addr) : NULL;

	if (l && l->until_ns < now_ns)
		l = NULL;
	for (unsigned i = 0; i < p->n; i++) {
		const struct rule *r = &p->rule[i];

		if (!(r->protos & proto) || to->port < r->port_min || to->port > r->port_max)
			continue;
		if (r->any || (r->name ? l && l->rules[i / 64] >> i % 64 & 1 :
				net_addr_same_prefix(&r->addr, &to->addr, r->prefix)))
			return r->allow;
	}
	return true;
}
