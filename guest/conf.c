/* SPDX-License-Identifier: Apache-2.0 */
#include "guest/conf.h"

#include "base/checked.h"
#include "guest/text.h"

#include <string.h>

/* Cuts @str at the first @sep; returns what follows, or NULL when there is none. */
static char *cut(char *str, char sep)
{
	char *at = strchr(str, sep);

	if (!at)
		return NULL;
	*at = '\0';
	return at + 1;
}

static bool set_flag(const char *value, const char *on, const char *off, bool *ret_flag)
{
	*ret_flag = strcmp(value, on) == 0;
	return *ret_flag || strcmp(value, off) == 0;
}

static bool set_root(struct conf *conf, char *value)
{
	char *source = cut(value, ':');

	if (strcmp(value, "initramfs") == 0) {
		conf->root = CONF_ROOT_INITRAMFS;
		return !source;
	}
	if (!source || !*source)
		return false;
	conf->root_source = source;
	if (strcmp(value, "virtiofs") == 0) {
		conf->root = CONF_ROOT_VIRTIOFS;
		return true;
	}
	conf->root = CONF_ROOT_BLK;
	conf->root_fstype = cut(source, ':');
	return strcmp(value, "blk") == 0 && conf->root_fstype && *conf->root_fstype &&
	       source[0] == '/';
}

static bool set_overlay(struct conf *conf, char *value)
{
	return set_flag(value, "tmpfs", "none", &conf->overlay);
}

static bool set_overlay_size(struct conf *conf, char *value)
{
	conf->overlay_size = value;
	return *value && strspn(value, "0123456789kmgKMG%") == strlen(value);
}

static bool set_readonly(struct conf *conf, char *value)
{
	return set_flag(value, "yes", "no", &conf->readonly);
}

static bool set_mount(struct conf *conf, char *value)
{
	char *access = cut(value, ':');
	char *source = access ? cut(access, ':') : NULL;
	char *target = source ? cut(source, ':') : NULL;
	struct conf_mount *m = &conf->mount[conf->nmounts];

	if (!target || target[0] != '/' || conf->nmounts == ARRAY_SIZE(conf->mount))
		return false;
	if (strcmp(value, "virtiofs") != 0 && strcmp(value, "tmpfs") != 0 &&
	    strcmp(value, "bind") != 0)
		return false;
	*m = (struct conf_mount){ .type = value, .source = source, .target = target };
	conf->nmounts++;
	return set_flag(access, "ro", "rw", &m->readonly);
}

static bool set_hostname(struct conf *conf, char *value)
{
	conf->hostname = value;
	return *value && strlen(value) <= 64;	/* __NEW_UTS_LEN */
}

static bool set_clock(struct conf *conf, char *value)
{
	char *fraction = cut(value, '.');
	uint64_t s, ns = 0;

	if (text_to_num(value, strlen(value), INT64_MAX, &s) < 0)
		return false;
	/* Nine digits exactly, so that .5 cannot be misread as 5 ns. */
	if (fraction && (strlen(fraction) != 9 || text_to_num(fraction, 9, 999999999, &ns) < 0))
		return false;
	conf->has_clock = true;
	conf->clock_s = (int64_t)s;
	conf->clock_ns = (uint32_t)ns;
	return true;
}

static bool set_console(struct conf *conf, char *value)
{
	return set_flag(value, "ready", "quiet", &conf->say_ready);
}

static bool set_transport(struct conf *conf, char *value)
{
	return set_flag(value, "vport", "vsock", &conf->vport);
}

bool conf_is_link_local(const char *addr)
{
	return strncmp(addr, "fe80:", 5) == 0;
}

static bool set_interface(struct conf *conf, char *value)
{
	conf->interface = value;
	return *value;
}

static bool set_address(struct conf *conf, char *value)
{
	char *addr = cut(value, ':'), *prefix = addr ? cut(addr, '/') : NULL;
	uint64_t bits;

	if (!prefix || conf->naddresses == ARRAY_SIZE(conf->address) ||
	    text_to_num(prefix, strlen(prefix), strchr(addr, ':') ? 128 : 32, &bits) < 0)
		return false;
	conf->address[conf->naddresses++] = (struct conf_address){ .interface = value, .addr = addr,
								   .prefix = (uint8_t)bits };
	return *value && *addr;
}

static bool set_gateway(struct conf *conf, char *value)
{
	if (conf->ngateways == ARRAY_SIZE(conf->gateway))
		return false;
	conf->gateway[conf->ngateways++] = value;
	return *value;
}

static bool set_nameserver(struct conf *conf, char *value)
{
	if (conf->nnameservers == ARRAY_SIZE(conf->nameserver))
		return false;
	conf->nameserver[conf->nnameservers++] = value;
	return *value;
}

static bool set_search(struct conf *conf, char *value)
{
	conf->search = value;
	return *value;
}

static bool set_host(struct conf *conf, char *value)
{
	char *addr = cut(value, ':');

	if (!addr || conf->nhosts == ARRAY_SIZE(conf->host))
		return false;
	conf->host[conf->nhosts++] = (struct conf_host){ .name = value, .addr = addr };
	return *value && *addr;
}

static const struct {
	const char *name;
	bool (*set)(struct conf *conf, char *value);
} keys[] = {
	{ "root", set_root },
	{ "overlay", set_overlay },
	{ "overlay_size", set_overlay_size },
	{ "readonly", set_readonly },
	{ "mount", set_mount },
	{ "hostname", set_hostname },
	{ "clock", set_clock },
	{ "console", set_console },
	{ "transport", set_transport },
	{ "interface", set_interface },
	{ "address", set_address },
	{ "gateway", set_gateway },
	{ "nameserver", set_nameserver },
	{ "search", set_search },
	{ "host", set_host },
};

static bool parse_line(struct conf *conf, char *line)
{
	char *value;

	if (line[0] == '\0' || line[0] == '#')
		return true;
	value = cut(line, '=');
	if (!value)
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		if (strcmp(keys[i].name, line) == 0)
			return keys[i].set(conf, value);
	return false;
}

int conf_parse(char *text, size_t len, struct conf *ret_conf)
{
	char *line = text;
	int number = 1;

	*ret_conf = (struct conf){ .hostname = "roux" };
	text[len] = '\0';
	if (memchr(text, '\0', len))
		return number;
	for (; line; number++) {
		char *next = cut(line, '\n');

		if (!parse_line(ret_conf, line))
			return number;
		line = next;
	}
	return 0;
}
