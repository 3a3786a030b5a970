/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/spec.h"

#include "base/checked.h"
#include "machine/network.h"
#include "machine/toml.h"
#include "os/err.h"
#include "vmm/vm.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------------------------ members */

/* What a member is, there and in the text. */
enum form {
	TEXT,	/* char *, owned; NULL: not given */
	LIST,	/* struct spec_list; empty: not given */
	FLAG,	/* bool */
	RATE,	/* uint64_t */
	SIZE,	/* uint64_t; this and the next two: 0 when the text's does not fit, and no check lets that pass */
	UINT,	/* unsigned, at most field.max */
	U16,	/* uint16_t */
	NAME,	/* an enum: index of field.names */
	MAC,	/* uint8_t[6] */
	PORT,	/* uint16_t; not given unless machine_spec.gdb, which it sets */
};

struct field {
	const char *key;
	enum form form;
	size_t offset;	/* in the struct of its table */
	unsigned max;	/* LIST: entries, 0: any number */
	const char *const *names;	/* NULL-ended */
};

static const char *const cache_names[] = {
	[SPEC_CACHE_AUTO] = "auto", [SPEC_CACHE_ALWAYS] = "always", [SPEC_CACHE_NONE] = "none", NULL };

static const char *const net_names[] = { [SPEC_NET_TAP] = "tap", [SPEC_NET_USER] = "user", [SPEC_NET_NAMED] = "named",
					 NULL };

#define TOP(key, form, member, ...) { key, form, offsetof(struct machine_spec, member), __VA_ARGS__ }
#define SHARE(key, form, member, ...) { key, form, offsetof(struct spec_share, member), __VA_ARGS__ }
#define DISK(key, form, member, ...) { key, form, offsetof(struct spec_disk, member), __VA_ARGS__ }
#define NET(key, form, member, ...) { key, form, offsetof(struct spec_net, member), __VA_ARGS__ }

static const struct field top_fields[] = {
	TOP("engine", TEXT, engine),
	TOP("cpus", UINT, cpus, .max = VCPUS_MAX),
	TOP("memory", SIZE, memory),
	TOP("kernel", TEXT, kernel),
	TOP("cmdline", TEXT, cmdline),
	TOP("initrd", LIST, initrd, .max = SPEC_INITRDS_MAX),
	TOP("guest_conf", TEXT, guest_conf),
	TOP("restore", TEXT, restore),
	TOP("code", TEXT, code),
	TOP("no_code", FLAG, no_code),
	TOP("stream", TEXT, stream),
	TOP("vsock", FLAG, vsock),
	TOP("balloon", FLAG, balloon),
	TOP("balloon_yield", FLAG, balloon_yield),
	TOP("merge", FLAG, merge),
	TOP("gdb_port", PORT, gdb_port),
	TOP("gdb_wait", FLAG, gdb_wait),
};

static const struct field share_fields[] = {
	SHARE("tag", TEXT, tag),
	SHARE("path", TEXT, path),
	SHARE("read_only", FLAG, read_only),
	SHARE("cache", NAME, cache, .names = cache_names),
};

static const struct field disk_fields[] = {
	DISK("path", TEXT, path),
	DISK("read_only", FLAG, read_only),
	DISK("overlay", FLAG, overlay),
	DISK("layer", TEXT, layer),
	DISK("more", LIST, more, .max = SPEC_PARTS_MAX - 1),
};

static const struct field net_fields[] = {
	NET("kind", NAME, kind, .names = net_names),
	NET("name", TEXT, name),
	NET("mac", MAC, mac),
	NET("mtu", U16, mtu),
	NET("pcap", TEXT, pcap),
	NET("send_bytes", RATE, send.bytes_per_s),
	NET("send_frames", RATE, send.frames_per_s),
	NET("receive_bytes", RATE, receive.bytes_per_s),
	NET("receive_frames", RATE, receive.frames_per_s),
	NET("guest", LIST, guest),
	NET("gateway", LIST, gateway),
	NET("dns", LIST, dns),
	NET("nameserver", LIST, nameserver),
	NET("publish", LIST, publish),
	NET("egress", LIST, egress),
	NET("domain", TEXT, domain),
	NET("hostname", TEXT, hostname),
	NET("host_loopback", FLAG, host_loopback),
	NET("internal", FLAG, internal),
	NET("socket", TEXT, socket),
	NET("token", TEXT, token),
};

/* The text's tables: arrays of @max structs of @size bytes, @count of them there; the first is the spec itself. */
static const struct table {
	const char *name;
	const struct field *fields;
	unsigned nfields;
	size_t offset, size, count;
	unsigned max;
} tables[] = {
	{ "", top_fields, ARRAY_SIZE(top_fields), 0, sizeof(struct machine_spec), 0, 0 },
	{ "share", share_fields, ARRAY_SIZE(share_fields), offsetof(struct machine_spec, share), sizeof(struct spec_share),
	  offsetof(struct machine_spec, nshares), SPEC_SHARES_MAX },
	{ "disk", disk_fields, ARRAY_SIZE(disk_fields), offsetof(struct machine_spec, disk), sizeof(struct spec_disk),
	  offsetof(struct machine_spec, ndisks), SPEC_DISKS_MAX },
	{ "net", net_fields, ARRAY_SIZE(net_fields), offsetof(struct machine_spec, net), sizeof(struct spec_net),
	  offsetof(struct machine_spec, nnets), SPEC_NETS_MAX },
};

static void *at(const void *base, size_t offset)
{
	return (uint8_t *)(uintptr_t)base + offset;
}

static unsigned *count_of(const struct table *t, const struct machine_spec *spec)
{
	static unsigned one = 1;

	return t->max ? at(spec, t->count) : &one;
}

/* ---------------------------------------------------------------- life time */

int spec_list_add(struct spec_list *list, const char *text)
{
	char **more = reallocarray(list->at, list->n + 1, sizeof(*more));

	if (!more)
		return -ENOMEM;
	list->at = more;
	more[list->n] = strdup(text);
	if (!more[list->n])
		return -ENOMEM;
	list->n++;
	return 0;
}

static void list_finish(struct spec_list *list)
{
	for (unsigned i = 0; i < list->n; i++)
		free(list->at[i]);
	free(list->at);
}

void machine_spec_init(struct machine_spec *spec)
{
	*spec = (struct machine_spec){ .cpus = 1, .memory = 512ull << 20, .vsock = true };
}

static void finish_element(const struct table *t, void *element)
{
	for (unsigned i = 0; i < t->nfields; i++) {
		void *member = at(element, t->fields[i].offset);

		if (t->fields[i].form == TEXT)
			free(*(char **)member);
		else if (t->fields[i].form == LIST)
			list_finish(member);
	}
}

void machine_spec_finish(struct machine_spec *spec)
{
	for (const struct table *t = tables; t < tables + ARRAY_SIZE(tables); t++)
		for (unsigned i = 0; i < *count_of(t, spec); i++)
			finish_element(t, at(spec, t->offset + i * t->size));
	*spec = (struct machine_spec){ 0 };
}

int machine_spec_check(const struct machine_spec *spec, struct err *err)
{
	int r;

	if (spec->cpus < 1 || spec->cpus > VCPUS_MAX)
		return err_set(err, -EINVAL, "a machine has 1 to %d CPUs, not %u", VCPUS_MAX, spec->cpus);
	if (spec->memory < 32ull << 20 || spec->memory % (2ull << 20))
		return err_set(err, -EINVAL, "memory must be at least 32 MiB and a multiple of 2 MiB");
	if (!spec->kernel)
		return err_set(err, -EINVAL, "no kernel given");
	if (spec->gdb_wait && !spec->gdb)
		return err_set(err, -EINVAL, "waiting for GDB needs a port for it");
	for (unsigned i = 0; i < spec->nshares; i++)
		if (!spec->share[i].tag || !spec->share[i].path)
			return err_set(err, -EINVAL, "shared folder %u needs a tag and a path", i + 1);
	for (unsigned i = 0; i < spec->ndisks; i++) {
		if (!spec->disk[i].path)
			return err_set(err, -EINVAL, "disk %u needs a path", i + 1);
		if (spec->disk[i].layer && !spec->disk[i].overlay)
			return err_set(err, -EINVAL, "disk %u has a layer, so it must be an overlay", i + 1);
		if (spec->disk[i].more.n && !spec->disk[i].read_only)
			return err_set(err, -EINVAL, "disk %u has several files, so it must be read-only", i + 1);
	}
	for (unsigned i = 0; i < spec->nnets; i++) {
		const struct spec_net *n = &spec->net[i];

		if (n->kind != SPEC_NET_USER && !n->name)
			return err_set(err, -EINVAL, "network %u needs a name", i + 1);
		if (n->mtu < LINK_MTU_MIN || n->mtu > LINK_MTU_MAX)
			return err_set(err, -EINVAL, "an MTU is %u to %u bytes, not %u", LINK_MTU_MIN, LINK_MTU_MAX,
				       n->mtu);
		if (n->mac[0] & 1)
			return err_set(err, -EINVAL, "network %u: the MAC address is one of a group", i + 1);
		r = network_check(n, err);
		if (r < 0)
			return r;
	}
	return 0;
}

/* ------------------------------------------------------------------ writing */

static void put_mac(struct toml_writer *w, const char *key, const uint8_t *m)
{
	char text[18];

	(void)snprintf(text, sizeof(text), "%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5]);
	toml_put_string(w, key, text);
}

static void put_field(struct toml_writer *w, const struct field *f, const struct machine_spec *spec, const void *element)
{
	const void *member = at(element, f->offset);
	const struct spec_list *list = member;

	switch (f->form) {
	case TEXT:
		if (*(char *const *)member)
			toml_put_string(w, f->key, *(char *const *)member);
		break;
	case LIST:
		if (list->n)
			toml_put_strings(w, f->key, list->at, list->n);
		break;
	case FLAG: toml_put_bool(w, f->key, *(const bool *)member); break;
	case RATE:
	case SIZE: toml_put_int(w, f->key, *(const int64_t *)member); break;
	case UINT: toml_put_int(w, f->key, *(const unsigned *)member); break;
	case U16: toml_put_int(w, f->key, *(const uint16_t *)member); break;
	case NAME: toml_put_string(w, f->key, f->names[*(const unsigned *)member]); break;
	case MAC: put_mac(w, f->key, member); break;
	case PORT:
		if (spec->gdb)
			toml_put_int(w, f->key, *(const uint16_t *)member);
		break;
	}
}

char *machine_spec_text(const struct machine_spec *spec)
{
	struct toml_writer w = { 0 };

	for (const struct table *t = tables; t < tables + ARRAY_SIZE(tables); t++) {
		for (unsigned i = 0; i < *count_of(t, spec); i++) {
			if (t->max)
				toml_put_table(&w, t->name);
			for (unsigned k = 0; k < t->nfields; k++)
				put_field(&w, &t->fields[k], spec, at(spec, t->offset + i * t->size));
		}
	}
	if (w.failed) {
		free(w.text);
		return NULL;
	}
	return w.text;
}

/* ------------------------------------------------------------------ reading */

static int set_text(char **field, const char *text)
{
	char *copy = strdup(text);

	if (!copy)
		return -ENOMEM;
	free(*field);
	*field = copy;
	return 0;
}

static int set_name(unsigned *field, const char *const *names, const char *text)
{
	for (unsigned i = 0; names[i]; i++) {
		if (strcmp(names[i], text) == 0) {
			*field = i;
			return 0;
		}
	}
	return -EINVAL;
}

static int set_mac(uint8_t *m, const char *text)
{
	int len = 0;

	return sscanf(text, "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx%n", &m[0], &m[1], &m[2], &m[3], &m[4], &m[5], &len) != 6 ||
	       text[len] ? -EINVAL : 0;
}

/* @v is of the right kind.  0 or -EINVAL, -ENOMEM. */
static int set_field(const struct field *f, struct machine_spec *spec, void *element, const struct toml_value *v)
{
	void *member = at(element, f->offset);
	struct spec_list *list = member;
	int64_t n = v->integer;

	switch (f->form) {
	case TEXT: return set_text(member, v->string);
	case LIST: return f->max && list->n == f->max ? -EINVAL : spec_list_add(list, v->string);
	case FLAG: *(bool *)member = n; return 0;
	case RATE: *(uint64_t *)member = (uint64_t)n; return n < 0 ? -EINVAL : 0;
	case SIZE: *(uint64_t *)member = n < 0 ? 0 : (uint64_t)n; return 0;
	case UINT: *(unsigned *)member = n < 0 || n > f->max ? 0 : (unsigned)n; return 0;
	case U16: *(uint16_t *)member = n < 0 || n > UINT16_MAX ? 0 : (uint16_t)n; return 0;
	case NAME: return set_name(member, f->names, v->string);
	case MAC: return set_mac(member, v->string);
	case PORT:
		*(uint16_t *)member = (uint16_t)n;
		spec->gdb = true;
		return n < 0 || n > UINT16_MAX ? -EINVAL : 0;
	}
	return -EINVAL;
}

static enum toml_kind kind_of(enum form form)
{
	switch (form) {
	case FLAG: return TOML_BOOL;
	case RATE:
	case SIZE:
	case UINT:
	case U16:
	case PORT: return TOML_INT;
	case TEXT:
	case LIST:
	case NAME:
	case MAC: break;
	}
	return TOML_STRING;
}

static const struct table *find_table(const char *name)
{
	for (const struct table *t = tables; t < tables + ARRAY_SIZE(tables); t++)
		if (strcmp(t->name, name) == 0)
			return t;
	return NULL;
}

static int open_table(struct machine_spec *s, const struct toml_value *v, struct err *err)
{
	const struct table *t = find_table(v->table);
	unsigned *n = t ? count_of(t, s) : NULL;

	if (!t || *n >= t->max)
		return err_set(err, -EINVAL, "line %u: no table [%s] here, or too many of them", v->line, v->table);
	memset(at(s, t->offset + *n * t->size), 0, t->size);
	if (t->fields == net_fields)
		s->net[*n].mtu = LINK_MTU_DEFAULT;
	++*n;
	return 0;
}

static int take(void *ctx, const struct toml_value *v, struct err *err)
{
	const struct table *t = find_table(v->table);
	struct machine_spec *s = ctx;
	int r;

	if (v->kind == TOML_TABLE)
		return open_table(s, v, err);
	for (const struct field *f = t ? t->fields : NULL; t && f < t->fields + t->nfields; f++) {
		if (strcmp(f->key, v->key) != 0)
			continue;
		if (kind_of(f->form) != v->kind || (f->form == LIST) != v->element)
			return err_set(err, -EINVAL, "line %u: %s has the wrong kind of value", v->line, v->key);
		r = set_field(f, s, at(s, t->offset + (*count_of(t, s) - 1) * t->size), v);
		return r < 0 ? err_set(err, r, "line %u: bad value for %s", v->line, v->key) : 0;
	}
	return err_set(err, -EINVAL, "line %u: unknown key %s", v->line, v->key);
}

int machine_spec_read(struct machine_spec *spec, const char *text, size_t len, struct err *err)
{
	return toml_read(text, len, take, spec, err);
}
