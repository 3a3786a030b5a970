/* SPDX-License-Identifier: Apache-2.0 */
#include "life/stats.h"

#include "abi/agent.h"
#include "os/memory.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NS_PER_S 1000000000ull

struct sample {
	uint64_t host_cpu_ns, host_rss;	/* of the VM's process */
	struct process_memory memory;	/* of that and the monitor */
	bool has_host, has_memory, has_guest;
	uint64_t total, available, cpu_ns;	/* in the guest; bytes, nanoseconds */
	uint32_t processes;
	bool has_network;
	struct roux_network_counts network;
};

/* CPU time and resident memory of a process (proc(5)); false when it is gone. */
static bool sample_host(uint32_t pid, struct sample *s)
{
	char path[64], text[1024];
	unsigned long long user, system;
	const char *at;
	long rss;
	size_t n;
	FILE *f;

	(void)snprintf(path, sizeof(path), "/proc/%u/stat", pid);
	f = fopen(path, "re");
	if (!f)
		return false;
	n = fread(text, 1, sizeof(text) - 1, f);
	(void)fclose(f);
	text[n] = '\0';
	at = strrchr(text, ')');
	/* Fields 14, 15: user and system time in ticks; 24: pages. */
	if (!at || sscanf(at + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu %*d %*d %*d %*d %*d %*d %*u %*u %ld",
			  &user, &system, &rss) != 3)
		return false;
	s->host_cpu_ns = (user + system) * (NS_PER_S / (uint64_t)sysconf(_SC_CLK_TCK));
	s->host_rss = (uint64_t)rss * (uint64_t)sysconf(_SC_PAGESIZE);
	return true;
}

static bool find_frame(const uint8_t *frames, size_t len, uint8_t type, struct frame *ret)
{
	while (frames && frame_parse(frames, len, AGENT_FRAME_MAX, ret) == 1) {
		if (ret->type == type)
			return true;
		frames += FRAME_HEADER + ret->len;
		len -= FRAME_HEADER + ret->len;
	}
	return false;
}

static void take_sample(const struct monitor *m, const uint8_t *frames, size_t len, struct sample *s)
{
	struct field_reader reader;
	struct field field;
	struct frame f;

	*s = (struct sample){ .has_host = false };
	s->has_host = m->record.state.vm_pid && sample_host(m->record.state.vm_pid, s);
	s->has_memory = s->has_host && process_memory_add((pid_t)m->record.state.vm_pid, &s->memory) == 0 &&
			process_memory_add(getpid(), &s->memory) == 0;
	s->has_network = m->machine && roux_machine_network_counts(m->machine, 0, &s->network);
	if (!find_frame(frames, len, AGENT_STATS_REPLY, &f))
		return;
	s->has_guest = true;
	reader = (struct field_reader){ f.data, f.len };
	while (field_next(&reader, &field) == 1) {
		if (field.tag == AGENT_TAG_MEM_TOTAL)
			(void)field_u64(&field, &s->total);
		else if (field.tag == AGENT_TAG_MEM_AVAILABLE)
			(void)field_u64(&field, &s->available);
		else if (field.tag == AGENT_TAG_CPU_NS)
			(void)field_u64(&field, &s->cpu_ns);
		else if (field.tag == AGENT_TAG_COUNT)
			(void)field_u32(&field, &s->processes);
	}
	if (s->available > s->total)
		s->available = s->total;
}

static void add_direction(cJSON *json, const struct roux_network_direction *d)
{
	(void)cJSON_AddNumberToObject(json, "Bytes", (double)d->bytes);
	(void)cJSON_AddNumberToObject(json, "Packets", (double)d->frames);
	(void)cJSON_AddNumberToObject(json, "Dropped", (double)d->dropped);
}

void stats_answer(struct conn *c, const uint8_t *frames, size_t len)
{
	cJSON *json = cJSON_CreateObject(), *guest, *network;
	struct sample s;

	take_sample(c->m, frames, len, &s);
	(void)cJSON_AddStringToObject(json, "Id", c->m->record.id);
	(void)cJSON_AddStringToObject(json, "Name", c->m->record.name);
	(void)cJSON_AddNumberToObject(json, "TimeNs", (double)monotonic_ns());
	(void)cJSON_AddNumberToObject(json, "HostCpuNs", (double)s.host_cpu_ns);
	(void)cJSON_AddNumberToObject(json, "HostMemory", (double)s.host_rss);
	if (s.has_memory) {
		(void)cJSON_AddNumberToObject(json, "HostMemoryOwn", (double)s.memory.own);
		(void)cJSON_AddNumberToObject(json, "HostMemoryShared", (double)s.memory.shared);
		(void)cJSON_AddNumberToObject(json, "HostMemoryMerged", (double)s.memory.merged);
		(void)cJSON_AddNumberToObject(json, "HostMemorySaved", (double)s.memory.saved);
	}
	if (s.has_guest) {
		guest = cJSON_AddObjectToObject(json, "Guest");
		(void)cJSON_AddNumberToObject(guest, "CpuNs", (double)s.cpu_ns);
		(void)cJSON_AddNumberToObject(guest, "MemoryTotal", (double)s.total);
		(void)cJSON_AddNumberToObject(guest, "MemoryUsed", (double)(s.total - s.available));
		(void)cJSON_AddNumberToObject(guest, "Processes", s.processes);
	}
	if (s.has_network) {
		network = cJSON_AddObjectToObject(json, "Network");
		add_direction(cJSON_AddObjectToObject(network, "Sent"), &s.network.sent);
		add_direction(cJSON_AddObjectToObject(network, "Received"), &s.network.received);
	}
	conn_json(c, 200, json);
}

static void add_process(cJSON *list, const struct frame *f)
{
	static const struct {
		uint16_t tag;
		const char *name;
		bool wide;
	} numbers[] = { { AGENT_TAG_PID, "Pid", false }, { AGENT_TAG_PPID, "Ppid", false }, { AGENT_TAG_UID, "Uid", false },
			{ AGENT_TAG_CPU_NS, "CpuNs", true }, { AGENT_TAG_RSS, "Memory", true } };
	struct field_reader reader = { f->data, f->len };
	cJSON *json = cJSON_CreateObject();
	struct field field;

	while (field_next(&reader, &field) == 1) {
		uint64_t wide = 0;
		uint32_t narrow = 0;

		if (field.tag == AGENT_TAG_COMMAND && field_str(&field))
			(void)cJSON_AddStringToObject(json, "Command", field_str(&field));
		for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
			if (numbers[i].tag == field.tag && (numbers[i].wide ? field_u64(&field, &wide) : field_u32(&field, &narrow)))
				(void)cJSON_AddNumberToObject(json, numbers[i].name, numbers[i].wide ? (double)wide : narrow);
	}
	(void)cJSON_AddItemToArray(list, json);
}

void stats_answer_processes(struct conn *c, const uint8_t *frames, size_t len)
{
	cJSON *json, *list;
	struct frame f;

	if (!frames) {
		conn_error(c, 503, 1, "the guest does not answer");
		return;
	}
	json = cJSON_CreateObject();
	list = cJSON_AddArrayToObject(json, "Processes");
	while (frame_parse(frames, len, AGENT_FRAME_MAX, &f) == 1) {
		if (f.type == AGENT_PROCESS)
			add_process(list, &f);
		frames += FRAME_HEADER + f.len;
		len -= FRAME_HEADER + f.len;
	}
	conn_json(c, 200, json);
}

struct text {
	char buf[4096];
	size_t len;
};

/* One metric with its help and type; @value in the base unit, as Prometheus wants them. */
static void add_metric(struct text *t, const struct vm_record *r, const char *name, const char *type, const char *help,
		       double value)
{
	int n = snprintf(t->buf + t->len, sizeof(t->buf) - t->len,
			 "# HELP %s %s\n# TYPE %s %s\n%s{id=\"%.12s\",name=\"%s\"} %.15g\n", name, help, name, type, name, r->id,
			 r->name, value);

	if (n > 0 && (size_t)n < sizeof(t->buf) - t->len)
		t->len += (size_t)n;
}

void stats_answer_metrics(struct conn *c, const uint8_t *frames, size_t len)
{
	const struct vm_record *r = &c->m->record;
	struct text t = { .len = 0 };
	struct sample s;

	take_sample(c->m, frames, len, &s);
	add_metric(&t, r, "roux_vm_running", "gauge", "Whether the VM's command runs.", monitor_running(c->m));
	add_metric(&t, r, "roux_vm_start_time_seconds", "gauge", "When the command started, since 1970.",
		   (double)r->state.started_ns / 1e9);
	add_metric(&t, r, "roux_vm_restarts_total", "counter", "Restarts by the restart policy.", r->state.restarts);
	add_metric(&t, r, "roux_vm_health", "gauge", "0 without checks, 1 starting, 2 healthy, 3 unhealthy.", r->state.health);
	add_metric(&t, r, "roux_vm_log_dropped_bytes_total", "counter", "Output that could not be kept.",
		   (double)r->state.log_dropped);
	if (s.has_host) {
		add_metric(&t, r, "roux_vm_cpu_seconds_total", "counter", "CPU time of the VM's process on the host.",
			   (double)s.host_cpu_ns / 1e9);
		add_metric(&t, r, "roux_vm_memory_bytes", "gauge", "Resident memory of the VM's process on the host.",
			   (double)s.host_rss);
	}
	if (s.has_memory) {
		add_metric(&t, r, "roux_vm_memory_own_bytes", "gauge", "Memory of the VM's processes that comes free with them.",
			   (double)s.memory.own);
		add_metric(&t, r, "roux_vm_memory_shared_bytes", "gauge", "Memory of theirs that others may have too.",
			   (double)s.memory.shared);
		add_metric(&t, r, "roux_vm_memory_merged_bytes", "gauge", "Of the shared: pages that the kernel has merged (KSM).",
			   (double)s.memory.merged);
		add_metric(&t, r, "roux_vm_memory_saved_bytes", "gauge", "Of theirs: what is there once for several.",
			   (double)s.memory.saved);
	}
	if (s.has_network) {
		add_metric(&t, r, "roux_network_sent_bytes_total", "counter", "Bytes that the guest sent.",
			   (double)s.network.sent.bytes);
		add_metric(&t, r, "roux_network_sent_packets_total", "counter", "Packets that the guest sent.",
			   (double)s.network.sent.frames);
		add_metric(&t, r, "roux_network_received_bytes_total", "counter", "Bytes that the guest received.",
			   (double)s.network.received.bytes);
		add_metric(&t, r, "roux_network_received_packets_total", "counter", "Packets that the guest received.",
			   (double)s.network.received.frames);
		add_metric(&t, r, "roux_network_dropped_packets_total", "counter", "Packets dropped either way.",
			   (double)(s.network.sent.dropped + s.network.received.dropped));
	}
	if (s.has_guest) {
		add_metric(&t, r, "roux_guest_cpu_seconds_total", "counter", "CPU time that the guest counts.",
			   (double)s.cpu_ns / 1e9);
		add_metric(&t, r, "roux_guest_memory_total_bytes", "gauge", "Memory of the guest.", (double)s.total);
		add_metric(&t, r, "roux_guest_memory_used_bytes", "gauge", "Memory that the guest uses.",
			   (double)(s.total - s.available));
		add_metric(&t, r, "roux_guest_processes", "gauge", "Processes in the guest.", s.processes);
	}
	conn_text(c, 200, "text/plain; version=0.0.4", t.buf, t.len);
}
