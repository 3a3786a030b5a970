/* SPDX-License-Identifier: Apache-2.0 */
/* roux network: networks that join machines; and roux switch, the process of one, which is not for people. */
#include "cli/cli.h"
#include "cli/image.h"

#include "machine/networks.h"
#include "os/err.h"
#include "os/jail.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char help[] =
	"Usage: roux network COMMAND [OPTIONS]\n"
	"\n"
	"Machines of 'roux run --network NAME' reach each other by their host names, and the\n"
	"world as on the user network.  Nothing runs while no machine is on a network.\n"
	"\n"
	"  create [--subnet CIDR]... [--internal] [--json] NAME\n"
	"                            Make a network; --subnet: its addresses, for IPv4 and for\n"
	"                            IPv6 (default: ones that are free); --internal: without a\n"
	"                            way out\n"
	"  ls [--json]               List networks\n"
	"  inspect NAME...           Print what is known of networks and their machines, as JSON\n"
	"  rm NAME...                Remove networks that no machine is on\n"
	"\n"
	"Exit status: 1 when something failed.\n";

struct flags {
	bool json, internal;
	const char *subnet[NETWORK_FAMILIES];
	unsigned nsubnets;
	char **name;	/* and what follows it */
	int nnames;
};

static int failed(const struct err *err)
{
	return complain(EXIT_FAILED, "%s", err->msg);
}

/* ------------------------------------------------------------------- printing */

static void put_pair(const char *key, const char *const value[NETWORK_FAMILIES])
{
	(void)printf("\"%s\": [\"%s\", \"%s\"]", key, value[0], value[1]);
}

static void put_network(const struct network *n)
{
	time_t created = (time_t)n->created_s;
	char when[32] = "";
	struct tm tm;

	if (gmtime_r(&created, &tm))
		(void)strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", &tm);
	/* Names and addresses need no escapes. */
	(void)printf("\"name\": \"%s\", \"created\": \"%s\", \"internal\": %s, ", n->name, when,
		     n->internal ? "true" : "false");
	put_pair("subnets", (const char *const[]){ n->subnet[0], n->subnet[1] });
	(void)printf(", ");
	put_pair("gateways", (const char *const[]){ n->gateway[0], n->gateway[1] });
	(void)printf(", ");
	put_pair("dns", (const char *const[]){ n->dns[0], n->dns[1] });
}

static void put_vm(const struct network_vm *vm)
{
	(void)printf("{\"name\": ");
	json_string(stdout, vm->name);
	(void)printf(", \"hostname\": ");
	json_string(stdout, vm->hostname);
	(void)printf(", \"connected\": %s, \"mac\": \"%02x:%02x:%02x:%02x:%02x:%02x\", ", vm->connected ? "true" : "false",
		     vm->mac[0], vm->mac[1], vm->mac[2], vm->mac[3], vm->mac[4], vm->mac[5]);
	put_pair("addresses", (const char *const[]){ vm->addr[0], vm->addr[1] });
	(void)printf(", \"sent_packets\": %" PRIu64 ", \"sent_bytes\": %" PRIu64 ", \"sent_dropped\": %" PRIu64
		     ", \"received_packets\": %" PRIu64 ", \"received_bytes\": %" PRIu64 ", \"received_dropped\": %" PRIu64
		     ", \"forged\": %" PRIu64 ", \"refused\": %" PRIu64 ", \"unknown_destination\": %" PRIu64 "}",
		     vm->sent.frames, vm->sent.bytes, vm->sent.dropped, vm->received.frames, vm->received.bytes,
		     vm->received.dropped, vm->forged, vm->refused, vm->unknown);
}

/* ------------------------------------------------------------------- commands */

static int create(const struct flags *f)
{
	struct network n = { .internal = f->internal };
	struct err err = { 0 };

	if (strlen(f->name[0]) >= sizeof(n.name))
		return complain(EXIT_FAILED, "the name of a network has at most %u letters", NETWORK_NAME_SIZE - 1);
	memcpy(n.name, f->name[0], strlen(f->name[0]));
	for (unsigned i = 0; i < f->nsubnets; i++) {
		char *subnet = n.subnet[strchr(f->subnet[i], ':') != NULL];

		if (*subnet || strlen(f->subnet[i]) >= NETWORK_ADDR_SIZE)
			return complain(EXIT_FAILED, "--subnet is given once for IPv4 and once for IPv6, not '%s'",
					f->subnet[i]);
		memcpy(subnet, f->subnet[i], strlen(f->subnet[i]) + 1);
	}
	if (network_define(&n, &err) < 0)
		return failed(&err);
	if (!f->json) {
		(void)printf("%s\n", n.name);
		return 0;
	}
	(void)printf("{");
	put_network(&n);
	(void)printf("}\n");
	return 0;
}

static int ls(const struct flags *f)
{
	struct network *all;
	struct err err = { 0 };
	int n = network_list(&all, &err);

	if (n < 0)
		return failed(&err);
	(void)printf(f->json ? "[" : "%-20s %-18s %-24s %-8s %s\n", "NAME", "SUBNET", "SUBNET6", "MACHINES", "INTERNAL");
	for (int i = 0; i < n; i++) {
		struct network_vm *vms = NULL;
		int count = network_vms(all[i].name, &vms, NULL);

		free(vms);
		if (f->json) {
			(void)printf("%s\n  {", i ? "," : "");
			put_network(&all[i]);
			(void)printf(", \"machines\": %d}", count < 0 ? 0 : count);
		} else {
			(void)printf("%-20s %-18s %-24s %-8d %s\n", all[i].name, all[i].subnet[0], all[i].subnet[1],
				     count < 0 ? 0 : count, all[i].internal ? "yes" : "no");
		}
	}
	if (f->json)
		(void)printf("%s]\n", n ? "\n" : "");
	free(all);
	return 0;
}

static int inspect_one(const char *name, bool first)
{
	struct network_vm *vms;
	struct err err = { 0 };
	struct network n;
	int count = network_read(name, &n, &err);

	if (count == 0)
		count = network_vms(name, &vms, &err);
	if (count < 0)
		return failed(&err);
	(void)printf("%s\n  {", first ? "" : ",");
	put_network(&n);
	(void)printf(", \"machines\": [");
	for (int i = 0; i < count; i++) {
		(void)printf("%s\n    ", i ? "," : "");
		put_vm(&vms[i]);
	}
	(void)printf("]}");
	free(vms);
	return 0;
}

static int inspect(const struct flags *f)
{
	int status = 0;
	bool first = true;

	(void)printf("[");
	for (int i = 0; i < f->nnames; i++) {
		int one = inspect_one(f->name[i], first);

		first = first && one;
		status = one ? one : status;
	}
	(void)printf("%s]\n", first ? "" : "\n");
	return status;
}

static int rm(const struct flags *f)
{
	int status = 0;

	for (int i = 0; i < f->nnames; i++) {
		struct err err = { 0 };

		if (network_remove(f->name[i], &err) < 0)
			status = failed(&err);
		else if (!f->json)
			(void)printf("%s\n", f->name[i]);
	}
	return status;
}

/* Fills in @f; 0 or an exit status. */
static int take_flags(struct flags *f, int argc, char **argv, bool creates)
{
	for (int i = 0; i < argc; i++) {
		if (strcmp(argv[i], "--json") == 0)
			f->json = true;
		else if (creates && strcmp(argv[i], "--internal") == 0)
			f->internal = true;
		else if (creates && strcmp(argv[i], "--subnet") == 0 && i + 1 < argc && f->nsubnets < NETWORK_FAMILIES)
			f->subnet[f->nsubnets++] = argv[++i];
		else if (creates && strncmp(argv[i], "--subnet=", 9) == 0 && f->nsubnets < NETWORK_FAMILIES)
			f->subnet[f->nsubnets++] = argv[i] + 9;
		else if (argv[i][0] == '-')
			return verb_misused("network", "that command does not take this");
		else
			f->name[f->nnames++] = argv[i];
	}
	return 0;
}

int verb_network(int argc, char **argv)
{
	static const struct { const char *name; int (*run)(const struct flags *f); int min, max; } commands[] = {
		{ "create", create, 1, 1 }, { "ls", ls, 0, 0 }, { "list", ls, 0, 0 }, { "inspect", inspect, 1, 1 << 16 },
		{ "rm", rm, 1, 1 << 16 } };
	struct flags f = { .name = argv };
	int status;

	for (int i = 1; i < argc; i++)
		if (strcmp(argv[i], "--help") == 0)
			return verb_help(help);
	for (size_t c = 0; argc > 1 && c < sizeof(commands) / sizeof(commands[0]); c++) {
		if (strcmp(argv[1], commands[c].name) != 0)
			continue;
		status = take_flags(&f, argc - 2, argv + 2, commands[c].run == create);
		if (status)
			return status;
		if (f.nnames < commands[c].min || f.nnames > commands[c].max)
			return verb_misused("network", commands[c].max ? "give the name of a network" : "ls takes no names");
		return commands[c].run(&f);
	}
	return verb_misused("network", argc > 1 ? "there is no such command" : "network needs a command");
}

int verb_switch(int argc, char **argv)
{
	struct err err = { 0 };

	if (argc != 2)
		return complain(EXIT_ROUX, "switch is started by roux itself; use 'roux run --network NAME'");
	jail_close_from(3);
	return network_serve(argv[1], &err) < 0 ? complain(EXIT_ROUX, "%s", err.msg) : 0;
}
