/* SPDX-License-Identifier: Apache-2.0 */
/* roux stats, top and update: what VMs use, and how much they may. */
#include "cli/cli.h"
#include "cli/format.h"
#include "cli/pick.h"
#include "life/client.h"
#include "life/when.h"
#include "machine/machine.h"
#include "os/err.h"

#include <cjson/cJSON.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define STATS_MAX 256u /* VMs shown at once */
#define PERIOD_NS 1000000000L
#define ANSWER_MS 6000

struct sample {
	char id[VM_ID_SIZE], name[VM_NAME_MAX];
	double time_ns, cpu_ns, memory;	/* of the host */
	double own, shared, merged, saved;	/* os/memory.h */
	double guest_cpu_ns, guest_total, guest_used;	/* 0 when the guest did not answer */
	unsigned processes;
	double sent, received;	/* bytes; 0 without a network */
};

struct stats {
	const struct vms *vms;
	bool json;
	char **names;	/* borrowed, when VMs were named */
	int nnames;
	struct sample now[STATS_MAX], before[STATS_MAX];
	unsigned n, nbefore;
};

static double number(const cJSON *json, const char *name)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, name);

	return cJSON_IsNumber(item) ? item->valuedouble : 0;
}

static void text_of(const cJSON *json, const char *name, char *ret, size_t size)
{
	const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, name));

	(void)snprintf(ret, size, "%s", text ? text : "");
}

/* Nothing is taken of a VM that has ended or is paused. */
static void take_sample(struct stats *s, const char *id)
{
	struct sample *at = &s->now[s->n];
	const cJSON *guest, *network;
	cJSON *json = NULL;
	struct err err = { 0 };

	if (s->n == STATS_MAX || client_ask(s->vms, id, "GET", "/v1/stats", NULL, ANSWER_MS, &json, &err) < 0)
		return;
	guest = cJSON_GetObjectItemCaseSensitive(json, "Guest");
	network = cJSON_GetObjectItemCaseSensitive(json, "Network");
	text_of(json, "Id", at->id, sizeof(at->id));
	text_of(json, "Name", at->name, sizeof(at->name));
	at->time_ns = number(json, "TimeNs");
	at->cpu_ns = number(json, "HostCpuNs");
	at->memory = number(json, "HostMemory");
	at->own = number(json, "HostMemoryOwn");
	at->shared = number(json, "HostMemoryShared");
	at->merged = number(json, "HostMemoryMerged");
	at->saved = number(json, "HostMemorySaved");
	at->guest_cpu_ns = number(guest, "CpuNs");
	at->guest_total = number(guest, "MemoryTotal");
	at->guest_used = number(guest, "MemoryUsed");
	at->processes = (unsigned)number(guest, "Processes");
	at->sent = number(cJSON_GetObjectItemCaseSensitive(network, "Sent"), "Bytes");
	at->received = number(cJSON_GetObjectItemCaseSensitive(network, "Received"), "Bytes");
	cJSON_Delete(json);
	s->n++;
}

static int sample_one(void *ctx, const char *id)
{
	struct stats *s = ctx;

	if (vms_is_owned(s->vms, id))
		take_sample(s, id);
	return 0;
}

/* Takes a sample of all that are wanted; the last one becomes the one before. */
static int sample_all(struct stats *s)
{
	int status = 0;

	memcpy(s->before, s->now, sizeof(s->now));
	s->nbefore = s->n;
	s->n = 0;
	if (!s->nnames) {
		(void)vms_each(s->vms, sample_one, s);
		return 0;
	}
	for (int i = 0; i < s->nnames && status == 0; i++) {
		struct vm_record record;
		bool alive = false;

		status = pick_vm(s->vms, s->names[i], &record, &alive);
		if (status == 0 && alive)
			take_sample(s, record.id);
		record_finish(&record);
	}
	return status;
}

/* Share of a CPU between the last two samples, in percent. */
static double percent(const struct stats *s, const struct sample *now)
{
	for (unsigned i = 0; i < s->nbefore; i++) {
		const struct sample *b = &s->before[i];

		if (strcmp(b->id, now->id) == 0 && now->time_ns > b->time_ns)
			return (now->cpu_ns - b->cpu_ns) / (now->time_ns - b->time_ns) * 100;
	}
	return 0;
}

static void size_text(double bytes, char *ret, size_t size)
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB" };
	unsigned u = 0;

	for (; bytes >= 1024 && u + 1 < sizeof(units) / sizeof(units[0]); u++)
		bytes /= 1024;
	(void)snprintf(ret, size, u ? "%.1f%s" : "%.0f%s", bytes, units[u]);
}

static void print_table(const struct stats *s, bool clear)
{
	static const char *const titles[] = { "VM ID", "NAME", "CPU %", "HOST MEM OWN + SHARED", "SAVED",
					      "GUEST MEM USED / TOTAL", "NET IN / OUT",
					      "PIDS", NULL };
	struct table table = { 0 };

	if (clear)
		(void)fputs("\033[H\033[J", stdout);
	table_row(&table, titles);
	for (unsigned i = 0; i < s->n; i++) {
		const struct sample *at = &s->now[i];
		char id[16], cpu[16], own[24], shared[24], host[64], saved[24], used[24], total[24], guest[64], in[24], out[24],
			net[64], pids[16];
		const char *cells[] = { id, at->name, cpu, host, saved, guest, net, pids, NULL };

		(void)snprintf(id, sizeof(id), "%.12s", at->id);
		(void)snprintf(cpu, sizeof(cpu), "%.2f%%", percent(s, at));
		size_text(at->own, own, sizeof(own));
		size_text(at->shared, shared, sizeof(shared));
		(void)snprintf(host, sizeof(host), "%s + %s", own, shared);
		size_text(at->saved, saved, sizeof(saved));
		size_text(at->guest_used, used, sizeof(used));
		size_text(at->guest_total, total, sizeof(total));
		(void)snprintf(guest, sizeof(guest), "%s / %s", used, total);
		size_text(at->received, in, sizeof(in));
		size_text(at->sent, out, sizeof(out));
		(void)snprintf(net, sizeof(net), "%s / %s", in, out);
		(void)snprintf(pids, sizeof(pids), "%u", at->processes);
		table_row(&table, cells);
	}
	table_print(&table);
	(void)fflush(stdout);
}

static void print_json(const struct stats *s)
{
	for (unsigned i = 0; i < s->n; i++) {
		const struct sample *at = &s->now[i];
		cJSON *json = cJSON_CreateObject();

		(void)cJSON_AddStringToObject(json, "Id", at->id);
		(void)cJSON_AddStringToObject(json, "Name", at->name);
		(void)cJSON_AddNumberToObject(json, "CpuPercent", percent(s, at));
		(void)cJSON_AddNumberToObject(json, "HostCpuNs", at->cpu_ns);
		(void)cJSON_AddNumberToObject(json, "HostMemoryBytes", at->memory);
		(void)cJSON_AddNumberToObject(json, "HostMemoryOwnBytes", at->own);
		(void)cJSON_AddNumberToObject(json, "HostMemorySharedBytes", at->shared);
		(void)cJSON_AddNumberToObject(json, "HostMemoryMergedBytes", at->merged);
		(void)cJSON_AddNumberToObject(json, "HostMemorySavedBytes", at->saved);
		(void)cJSON_AddNumberToObject(json, "GuestCpuNs", at->guest_cpu_ns);
		(void)cJSON_AddNumberToObject(json, "GuestMemoryUsedBytes", at->guest_used);
		(void)cJSON_AddNumberToObject(json, "GuestMemoryTotalBytes", at->guest_total);
		(void)cJSON_AddNumberToObject(json, "NetworkReceivedBytes", at->received);
		(void)cJSON_AddNumberToObject(json, "NetworkSentBytes", at->sent);
		(void)cJSON_AddNumberToObject(json, "Pids", at->processes);
		pick_print(json);
	}
	(void)fflush(stdout);
}

int verb_stats(int argc, char **argv)
{
	static const char help[] =
		"Usage: roux stats [OPTIONS] [VM...]\n\n"
		"Shows every second what VMs (default: all that run) use.\n\n"
		"      --no-stream           Once only\n"
		"      --json                One line of JSON for each VM\n";
	static const struct option options[] = { { "no-stream", no_argument, NULL, 'n' },
						 { "json", no_argument, NULL, 'j' },
						 { "help", no_argument, NULL, PICK_HELP },
						 { NULL, 0, NULL, 0 } };
	static struct stats s;
	const struct timespec period = { .tv_nsec = PERIOD_NS / 2 };
	bool once = false;
	struct vms vms;
	int c, status;

	optind = 0;
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'n')
			once = true;
		else if (c == 'j')
			s.json = true;
		else
			return pick_usage("stats", help, c);
	}
	status = pick_open(&vms);
	if (status)
		return status;
	s.vms = &vms;
	s.names = argv + optind;
	s.nnames = argc - optind;
	status = sample_all(&s);
	do {
		if (status)
			break;
		(void)nanosleep(&period, NULL);	/* a share of CPU time needs two samples */
		if (!once)
			(void)nanosleep(&period, NULL);
		status = sample_all(&s);
		if (s.json)
			print_json(&s);
		else
			print_table(&s, !once && isatty(STDOUT_FILENO));
	} while (!once && !ferror(stdout));
	return status;
}

static int top_one(const struct vms *vms, const char *what, const void *ctx)
{
	static const char *const titles[] = { "PID", "PPID", "UID", "TIME", "MEM", "COMMAND", NULL };
	const bool *as_json = ctx;
	struct table table = { 0 };
	struct vm_record record;
	const cJSON *item;
	cJSON *json = NULL;
	int status = pick_running(vms, what, &record);

	if (status == 0)
		status = pick_ask(vms, &record, "GET", "/v1/top", NULL, &json);
	record_finish(&record);
	if (status)
		return status;
	if (*as_json) {
		status = pick_print_indented(cJSON_GetObjectItemCaseSensitive(json, "Processes"));
		cJSON_Delete(json);
		return status;
	}
	table_row(&table, titles);
	cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(json, "Processes")) {
		char pid[16], ppid[16], uid[16], time[32], memory[24], command[256];
		const char *cells[] = { pid, ppid, uid, time, memory, command, NULL };

		(void)snprintf(pid, sizeof(pid), "%.0f", number(item, "Pid"));
		(void)snprintf(ppid, sizeof(ppid), "%.0f", number(item, "Ppid"));
		(void)snprintf(uid, sizeof(uid), "%.0f", number(item, "Uid"));
		(void)snprintf(time, sizeof(time), "%.2fs", number(item, "CpuNs") / 1e9);
		size_text(number(item, "Memory"), memory, sizeof(memory));
		text_of(item, "Command", command, sizeof(command));
		table_row(&table, cells);
	}
	table_print(&table);
	cJSON_Delete(json);
	return 0;
}

int verb_top(int argc, char **argv)
{
	static const struct option options[] = { { "json", no_argument, NULL, 'j' },
						 { "help", no_argument, NULL, PICK_HELP },
						 { NULL, 0, NULL, 0 } };
	bool json = false;
	int c;

	optind = 0;
	while ((c = getopt_long(argc, argv, "+", options, NULL)) != -1) {
		if (c != 'j')
			return pick_usage("top", "Usage: roux top [--json] VM\n\nShows the processes in a VM.\n\n"
					  "      --json                One line of JSON\n", c);
		json = true;
	}
	if (argc - optind != 1)
		return complain(EXIT_ROUX, "top needs one VM");
	return pick_each(argc, argv, "top", top_one, &json);
}

/* Of a VM that does not run: the next start takes it. */
static int update_record(const struct vms *vms, const char *id, const cJSON *body)
{
	const cJSON *shares = cJSON_GetObjectItemCaseSensitive(body, "CpuShares");
	const cJSON *memory = cJSON_GetObjectItemCaseSensitive(body, "Memory");
	const char *policy = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(body, "RestartPolicy"));
	struct vm_record record;
	struct vm_owned owned;
	struct err err = { 0 };
	int status = pick_own(vms, id, 1000, &owned, &record);

	if (status)
		return status;
	if (shares)
		record.config.cpu_shares = (uint32_t)shares->valuedouble;
	if (memory)
		record.config.memory = (uint64_t)memory->valuedouble;
	if (policy)
		(void)vm_restart_parse(policy, &record.config.restart, &record.config.restart_max);
	if (vm_save(&owned, &record, &err) < 0)
		status = complain(EXIT_VERB, "%s", err.msg);
	record_finish(&record);
	vm_release(&owned);
	return status;
}

static int update_one(const struct vms *vms, const char *what, const void *ctx)
{
	struct vm_record record;
	bool alive = false;
	int status = pick_vm(vms, what, &record, &alive);

	if (status == 0 && alive)
		status = pick_ask(vms, &record, "POST", "/v1/update", cJSON_Duplicate(ctx, true), NULL);
	else if (status == 0)
		status = update_record(vms, record.id, ctx);
	if (status == 0)
		(void)puts(what);
	record_finish(&record);
	return status;
}

static int take_update(cJSON *body, int c)
{
	uint32_t restart, max;
	uint64_t bytes;
	char *end;
	long v;

	if (c == 'r') {
		(void)cJSON_AddStringToObject(body, "RestartPolicy", optarg);
		return vm_restart_parse(optarg, &restart, &max) ? 0 :
			complain(EXIT_ROUX, "--restart is no, on-failure[:N], always or unless-stopped, not '%s'", optarg);
	}
	if (c == 'm') {
		if (!parse_size(optarg, &bytes) || bytes < MACHINE_MEMORY_MIN)
			return complain(EXIT_ROUX, "--memory needs a size such as 512M or 2G, at least 32M, not '%s'", optarg);
		(void)cJSON_AddNumberToObject(body, "Memory", (double)bytes);
		return 0;
	}
	v = strtol(optarg, &end, 10);
	(void)cJSON_AddNumberToObject(body, "CpuShares", (double)v);
	return !*end && v >= 2 && v <= 262144 ? 0 :
		complain(EXIT_ROUX, "--cpu-shares must be a number from 2 to 262144, not '%s'", optarg);
}

int verb_update(int argc, char **argv)
{
	static const char help[] =
		"Usage: roux update [OPTIONS] VM...\n\n"
		"Changes VMs that exist, at once when they run.\n\n"
		"      --cpu-shares N        Weight among VMs when CPUs are short (1024 is everybody's)\n"
		"      --memory SIZE         Memory such as 256M: of a VM that runs at most what it started with,\n"
		"                            the guest gives the rest back; without end, what it starts with next\n"
		"      --restart POLICY      no, on-failure[:N], always or unless-stopped\n";
	static const struct option options[] = { { "cpu-shares", required_argument, NULL, 'c' },
						 { "memory", required_argument, NULL, 'm' },
						 { "restart", required_argument, NULL, 'r' },
						 { "help", no_argument, NULL, PICK_HELP },
						 { NULL, 0, NULL, 0 } };
	cJSON *body = cJSON_CreateObject();
	int c, status = 0;

	optind = 0;
	while (status == 0 && (c = getopt_long(argc, argv, "c:", options, NULL)) != -1) {
		if (c != 'c' && c != 'm' && c != 'r') {
			cJSON_Delete(body);
			return pick_usage("update", help, c);
		}
		status = take_update(body, c);
	}
	if (status == 0)
		status = pick_each(argc, argv, "update", update_one, body);
	cJSON_Delete(body);
	return status;
}
