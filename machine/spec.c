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

static const char *const cache_names[] = {
	[SPEC_CACHE_AUTO] = "auto", [SPEC_CACHE_ALWAYS] = "always", [SPEC_CACHE_NONE] = "none" };

static const char *const net_names[] = { [SPEC_NET_TAP] = "tap", [SPEC_NET_USER] = "user",
						[SPEC_NET_NAMED] = "named" };

int spec_list_add(struct spec_list *list, const char *text)
{
	char **at = reallocarray(list->at, list->n + 1, sizeof(*at));

	if (!at)
		return -ENOMEM;
	list->at = at;
	at[list->n] = strdup(text);
	if (!at[list->n])
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

/* The lists of a network by the names of their keys. */
static const struct {
	const char *key;
	size_t off;
} net_lists[] = {
	{ "guest", offsetof(struct spec_net, guest) },
	{ "gateway", offsetof(struct spec_net, gateway) },
	{ "dns", offsetof(struct spec_net, dns) },
	{ "nameserver", offsetof(struct spec_net, nameserver) },
	{ "publish", offsetof(struct spec_net, publish) },
	{ "egress", offsetof(struct spec_net, egress) },
};

static struct spec_list *net_list(const struct spec_net *net, unsigned i)
{
	return (struct spec_list *)(void *)((uint8_t *)(uintptr_t)net + net_lists[i].off);
}

void machine_spec_init(struct machine_spec *spec)
{
	*spec = (struct machine_spec){ .cpus = 1, .memory = 512ull << 20, .vsock = true };
}

void machine_spec_finish(struct machine_spec *spec)
{
	free(spec->engine);
	free(spec->kernel);
	free(spec->cmdline);
	free(spec->guest_conf);
	for (unsigned i = 0; i < spec->ninitrds; i++)
		free(spec->initrd[i]);
	for (unsigned i = 0; i < spec->nshares; i++) {
		free(spec->share[i].tag);
		free(spec->share[i].path);
	}
	for (unsigned i = 0; i < spec->ndisks; i++) {
		free(spec->disk[i].path);
		for (unsigned k = 0; k < spec->disk[i].nmore; k++)
			free(spec->disk[i].more[k]);
		free(spec->disk[i].more);
	}
	for (unsigned i = 0; i < spec->nnets; i++) {
		free(spec->net[i].name);
		free(spec->net[i].pcap);
		free(spec->net[i].domain);
		free(spec->net[i].hostname);
		free(spec->net[i].socket);
		free(spec->net[i].token);
		for (unsigned k = 0; k < ARRAY_SIZE(net_lists); k++)
			list_finish(net_list(&spec->net[i], k));
	}
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
		if (spec->disk[i].nmore && !spec->disk[i].read_only)
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

static void put_given(struct toml_writer *w, const char *key, const char *value)
{
	if (value)
		toml_put_string(w, key, value);
}

static void put_net(struct toml_writer *w, const struct spec_net *n)
{
	char mac[18];

	toml_put_table(w, "net");
	toml_put_string(w, "kind", net_names[n->kind]);
	put_given(w, "name", n->name);
	(void)snprintf(mac, sizeof(mac), "%02x:%02x:%02x:%02x:%02x:%02x", n->mac[0], n->mac[1], n->mac[2],
		       n->mac[3], n->mac[4], n->mac[5]);
	toml_put_string(w, "mac", mac);
	toml_put_int(w, "mtu", n->mtu);
	put_given(w, "pcap", n->pcap);
	toml_put_int(w, "send_bytes", (int64_t)n->send.bytes_per_s);
	toml_put_int(w, "send_frames", (int64_t)n->send.frames_per_s);
	toml_put_int(w, "receive_bytes", (int64_t)n->receive.bytes_per_s);
	toml_put_int(w, "receive_frames", (int64_t)n->receive.frames_per_s);
	if (n->kind == SPEC_NET_TAP)
		return;
	for (unsigned i = 0; i < ARRAY_SIZE(net_lists); i++)
		toml_put_strings(w, net_lists[i].key, net_list(n, i)->at, net_list(n, i)->n);
	put_given(w, "domain", n->domain);
	put_given(w, "hostname", n->hostname);
	toml_put_bool(w, "host_loopback", n->host_loopback);
	if (n->kind != SPEC_NET_NAMED)
		return;
	put_given(w, "socket", n->socket);
	put_given(w, "token", n->token);
	toml_put_bool(w, "internal", n->internal);
}

char *machine_spec_text(const struct machine_spec *spec)
{
	struct toml_writer w = { 0 };

	put_given(&w, "engine", spec->engine);
	toml_put_int(&w, "cpus", spec->cpus);
	toml_put_int(&w, "memory", (int64_t)spec->memory);
	put_given(&w, "kernel", spec->kernel);
	put_given(&w, "cmdline", spec->cmdline);
	toml_put_strings(&w, "initrd", spec->initrd, spec->ninitrds);
	put_given(&w, "guest_conf", spec->guest_conf);
	toml_put_bool(&w, "vsock", spec->vsock);
	toml_put_bool(&w, "balloon", spec->balloon);
	toml_put_bool(&w, "balloon_yield", spec->balloon_yield);
	if (spec->gdb) {
		toml_put_int(&w, "gdb_port", spec->gdb_port);
		toml_put_bool(&w, "gdb_wait", spec->gdb_wait);
	}
	for (unsigned i = 0; i < spec->nshares; i++) {
		toml_put_table(&w, "share");
		put_given(&w, "tag", spec->share[i].tag);
		put_given(&w, "path", spec->share[i].path);
		toml_put_bool(&w, "read_only", spec->share[i].read_only);
		toml_put_string(&w, "cache", cache_names[spec->share[i].cache]);
	}
	for (unsigned i = 0; i < spec->ndisks; i++) {
		toml_put_table(&w, "disk");
		put_given(&w, "path", spec->disk[i].path);
		toml_put_bool(&w, "read_only", spec->disk[i].read_only);
		toml_put_bool(&w, "overlay", spec->disk[i].overlay);
		if (spec->disk[i].nmore)
			toml_put_strings(&w, "more", spec->disk[i].more, spec->disk[i].nmore);
	}
	for (unsigned i = 0; i < spec->nnets; i++)
		put_net(&w, &spec->net[i]);
	if (w.failed) {
		free(w.text);
		return NULL;
	}
	return w.text;
}

/* ------------------------------------------------------------------ reading */

struct key {
	const char *table, *name;
	enum toml_kind kind;
	bool array;	/* of such values */
	/* Stores a value that has the right kind.  0 or -EINVAL, -ENOMEM. */
	int (*set)(struct machine_spec *spec, const struct toml_value *v);
};

static int set_text(char **field, const char *text)
{
	char *copy = strdup(text);

	if (!copy)
		return -ENOMEM;
	free(*field);
	*field = copy;
	return 0;
}

static int set_engine(struct machine_spec *s, const struct toml_value *v)
{
	return set_text(&s->engine, v->string);
}

static int set_kernel(struct machine_spec *s, const struct toml_value *v)
{
	return set_text(&s->kernel, v->string);
}

static int set_cmdline(struct machine_spec *s, const struct toml_value *v)
{
	return set_text(&s->cmdline, v->string);
}

static int set_guest_conf(struct machine_spec *s, const struct toml_value *v)
{
	return set_text(&s->guest_conf, v->string);
}

static int set_initrd(struct machine_spec *s, const struct toml_value *v)
{
	if (s->ninitrds == SPEC_INITRDS_MAX)
		return -EINVAL;
	s->initrd[s->ninitrds++] = NULL;
	return set_text(&s->initrd[s->ninitrds - 1], v->string);
}

static int set_cpus(struct machine_spec *s, const struct toml_value *v)
{
	s->cpus = v->integer < 0 || v->integer > VCPUS_MAX ? 0 : (unsigned)v->integer;
	return 0;
}

static int set_memory(struct machine_spec *s, const struct toml_value *v)
{
	s->memory = v->integer < 0 ? 0 : (uint64_t)v->integer;
	return 0;
}

static int set_vsock(struct machine_spec *s, const struct toml_value *v)
{
	s->vsock = v->integer;
	return 0;
}

static int set_balloon(struct machine_spec *s, const struct toml_value *v)
{
	s->balloon = v->integer;
	return 0;
}

static int set_balloon_yield(struct machine_spec *s, const struct toml_value *v)
{
	s->balloon_yield = v->integer;
	return 0;
}

static int set_gdb_port(struct machine_spec *s, const struct toml_value *v)
{
	if (v->integer < 0 || v->integer > UINT16_MAX)
		return -EINVAL;
	s->gdb = true;
	s->gdb_port = (uint16_t)v->integer;
	return 0;
}

static int set_gdb_wait(struct machine_spec *s, const struct toml_value *v)
{
	s->gdb_wait = v->integer;
	return 0;
}

static int set_share_tag(struct machine_spec *s, const struct toml_value *v)
{
	return set_text(&s->share[s->nshares - 1].tag, v->string);
}

static int set_share_path(struct machine_spec *s, const struct toml_value *v)
{
	return set_text(&s->share[s->nshares - 1].path, v->string);
}

static int set_share_ro(struct machine_spec *s, const struct toml_value *v)
{
	s->share[s->nshares - 1].read_only = v->integer;
	return 0;
}

static int set_share_cache(struct machine_spec *s, const struct toml_value *v)
{
	for (unsigned i = 0; i < sizeof(cache_names) / sizeof(cache_names[0]); i++)
		if (strcmp(cache_names[i], v->string) == 0) {
			s->share[s->nshares - 1].cache = (enum spec_cache)i;
			return 0;
		}
	return -EINVAL;
}

static int set_disk_path(struct machine_spec *s, const struct toml_value *v)
{
	return set_text(&s->disk[s->ndisks - 1].path, v->string);
}

static int set_disk_ro(struct machine_spec *s, const struct toml_value *v)
{
	s->disk[s->ndisks - 1].read_only = v->integer;
	return 0;
}

static int set_disk_overlay(struct machine_spec *s, const struct toml_value *v)
{
	s->disk[s->ndisks - 1].overlay = v->integer;
	return 0;
}

int spec_disk_add(struct spec_disk *disk, const char *path)
{
	char **more;

	if (disk->nmore + 1 >= SPEC_PARTS_MAX)
		return -EINVAL;
	more = realloc(disk->more, (disk->nmore + 1) * sizeof(*more));
	if (!more)
		return -ENOMEM;
	disk->more = more;
	more[disk->nmore] = strdup(path);
	if (!more[disk->nmore])
		return -ENOMEM;
	disk->nmore++;
	return 0;
}

static int set_disk_more(struct machine_spec *s, const struct toml_value *v)
{
	return spec_disk_add(&s->disk[s->ndisks - 1], v->string);
}

static struct spec_net *last_net(struct machine_spec *s)
{
	return &s->net[s->nnets - 1];
}

static int set_net_kind(struct machine_spec *s, const struct toml_value *v)
{
	for (unsigned i = 0; i < sizeof(net_names) / sizeof(net_names[0]); i++)
		if (strcmp(net_names[i], v->string) == 0) {
			last_net(s)->kind = (enum spec_net_kind)i;
			return 0;
		}
	return -EINVAL;
}

static int set_net_name(struct machine_spec *s, const struct toml_value *v)
{
	return set_text(&last_net(s)->name, v->string);
}

static int set_net_mac(struct machine_spec *s, const struct toml_value *v)
{
	uint8_t *m = last_net(s)->mac;
	int len = 0;

	if (sscanf(v->string, "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx%n", &m[0], &m[1], &m[2], &m[3], &m[4], &m[5],
		   &len) != 6 || v->string[len])
		return -EINVAL;
	return 0;
}

static int set_net_mtu(struct machine_spec *s, const struct toml_value *v)
{
	last_net(s)->mtu = v->integer < 0 || v->integer > UINT16_MAX ? 0 : (uint16_t)v->integer;
	return 0;
}

static int set_net_list(struct machine_spec *s, const struct toml_value *v)
{
	for (unsigned i = 0; i < ARRAY_SIZE(net_lists); i++)
		if (strcmp(net_lists[i].key, v->key) == 0)
			return spec_list_add(net_list(last_net(s), i), v->string);
	return -EINVAL;
}

static int set_net_domain(struct machine_spec *s, const struct toml_value *v)
{
	return set_text(&last_net(s)->domain, v->string);
}

static int set_net_hostname(struct machine_spec *s, const struct toml_value *v)
{
	return set_text(&last_net(s)->hostname, v->string);
}

static int set_net_socket(struct machine_spec *s, const struct toml_value *v)
{
	return set_text(&last_net(s)->socket, v->string);
}

static int set_net_token(struct machine_spec *s, const struct toml_value *v)
{
	return set_text(&last_net(s)->token, v->string);
}

static int set_net_internal(struct machine_spec *s, const struct toml_value *v)
{
	last_net(s)->internal = v->integer;
	return 0;
}

static int set_net_host_loopback(struct machine_spec *s, const struct toml_value *v)
{
	last_net(s)->host_loopback = v->integer;
	return 0;
}

static int set_net_pcap(struct machine_spec *s, const struct toml_value *v)
{
	return set_text(&last_net(s)->pcap, v->string);
}

static int set_rate(uint64_t *rate, const struct toml_value *v)
{
	*rate = (uint64_t)v->integer;
	return v->integer < 0 ? -EINVAL : 0;
}

static int set_net_send_bytes(struct machine_spec *s, const struct toml_value *v)
{
	return set_rate(&last_net(s)->send.bytes_per_s, v);
}

static int set_net_send_frames(struct machine_spec *s, const struct toml_value *v)
{
	return set_rate(&last_net(s)->send.frames_per_s, v);
}

static int set_net_receive_bytes(struct machine_spec *s, const struct toml_value *v)
{
	return set_rate(&last_net(s)->receive.bytes_per_s, v);
}

static int set_net_receive_frames(struct machine_spec *s, const struct toml_value *v)
{
	return set_rate(&last_net(s)->receive.frames_per_s, v);
}

static const struct key keys[] = {
	{ "", "engine", TOML_STRING, false, set_engine },
	{ "", "cpus", TOML_INT, false, set_cpus },
	{ "", "memory", TOML_INT, false, set_memory },
	{ "", "kernel", TOML_STRING, false, set_kernel },
	{ "", "cmdline", TOML_STRING, false, set_cmdline },
	{ "", "guest_conf", TOML_STRING, false, set_guest_conf },
	{ "", "initrd", TOML_STRING, true, set_initrd },
	{ "", "vsock", TOML_BOOL, false, set_vsock },
	{ "", "balloon", TOML_BOOL, false, set_balloon },
	{ "", "balloon_yield", TOML_BOOL, false, set_balloon_yield },
	{ "", "gdb_port", TOML_INT, false, set_gdb_port },
	{ "", "gdb_wait", TOML_BOOL, false, set_gdb_wait },
	{ "share", "tag", TOML_STRING, false, set_share_tag },
	{ "share", "path", TOML_STRING, false, set_share_path },
	{ "share", "read_only", TOML_BOOL, false, set_share_ro },
	{ "share", "cache", TOML_STRING, false, set_share_cache },
	{ "disk", "path", TOML_STRING, false, set_disk_path },
	{ "disk", "read_only", TOML_BOOL, false, set_disk_ro },
	{ "disk", "overlay", TOML_BOOL, false, set_disk_overlay },
	{ "disk", "more", TOML_STRING, true, set_disk_more },
	{ "net", "kind", TOML_STRING, false, set_net_kind },
	{ "net", "name", TOML_STRING, false, set_net_name },
	{ "net", "mac", TOML_STRING, false, set_net_mac },
	{ "net", "mtu", TOML_INT, false, set_net_mtu },
	{ "net", "pcap", TOML_STRING, false, set_net_pcap },
	{ "net", "send_bytes", TOML_INT, false, set_net_send_bytes },
	{ "net", "send_frames", TOML_INT, false, set_net_send_frames },
	{ "net", "receive_bytes", TOML_INT, false, set_net_receive_bytes },
	{ "net", "receive_frames", TOML_INT, false, set_net_receive_frames },
	{ "net", "guest", TOML_STRING, true, set_net_list },
	{ "net", "gateway", TOML_STRING, true, set_net_list },
	{ "net", "dns", TOML_STRING, true, set_net_list },
	{ "net", "nameserver", TOML_STRING, true, set_net_list },
	{ "net", "publish", TOML_STRING, true, set_net_list },
	{ "net", "egress", TOML_STRING, true, set_net_list },
	{ "net", "domain", TOML_STRING, false, set_net_domain },
	{ "net", "hostname", TOML_STRING, false, set_net_hostname },
	{ "net", "host_loopback", TOML_BOOL, false, set_net_host_loopback },
	{ "net", "internal", TOML_BOOL, false, set_net_internal },
	{ "net", "socket", TOML_STRING, false, set_net_socket },
	{ "net", "token", TOML_STRING, false, set_net_token },
};

static int open_table(struct machine_spec *s, const struct toml_value *v, struct err *err)
{
	if (strcmp(v->table, "share") == 0 && s->nshares < SPEC_SHARES_MAX) {
		s->share[s->nshares++] = (struct spec_share){ 0 };
		return 0;
	}
	if (strcmp(v->table, "disk") == 0 && s->ndisks < SPEC_DISKS_MAX) {
		s->disk[s->ndisks++] = (struct spec_disk){ 0 };
		return 0;
	}
	if (strcmp(v->table, "net") == 0 && s->nnets < SPEC_NETS_MAX) {
		s->net[s->nnets++] = (struct spec_net){ .mtu = LINK_MTU_DEFAULT };
		return 0;
	}
	return err_set(err, -EINVAL, "line %u: no table [%s] here, or too many of them", v->line, v->table);
}

static int take(void *ctx, const struct toml_value *v, struct err *err)
{
	struct machine_spec *s = ctx;
	int r;

	if (v->kind == TOML_TABLE)
		return open_table(s, v, err);
	for (unsigned i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		if (strcmp(keys[i].table, v->table) != 0 || strcmp(keys[i].name, v->key) != 0)
			continue;
		if (keys[i].kind != v->kind || keys[i].array != v->element)
			return err_set(err, -EINVAL, "line %u: %s has the wrong kind of value", v->line, v->key);
		r = keys[i].set(s, v);
		return r < 0 ? err_set(err, r, "line %u: bad value for %s", v->line, v->key) : 0;
	}
	return err_set(err, -EINVAL, "line %u: unknown key %s", v->line, v->key);
}

int machine_spec_read(struct machine_spec *spec, const char *text, size_t len, struct err *err)
{
	return toml_read(text, len, take, spec, err);
}
