/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One table of members serves both directions, so that they cannot disagree.  A
 * member's name is a path of at most two parts: "State.ExitCode".
 */
#include "life/record.h"

#include "base/checked.h"
#include "life/names.h"
#include "life/when.h"
#include "os/err.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VERSION 1

enum kind { BOOL, U32, I32, U64, TEXT, LIST, TIME, MS, STATUS, HEALTH, RESTART };

struct member {
	const char *group, *name;	/* group NULL: the document itself */
	enum kind kind;
	size_t offset;
};

#define M(group, name, kind, field) { group, name, kind, offsetof(struct vm_record, field) }

static const struct member members[] = {
	M(NULL, "Created", TIME, created_ns),
	M("State", "Status", STATUS, state.status),
	M("State", "MonitorPid", U32, state.monitor_pid),
	M("State", "Pid", U32, state.vm_pid),
	M("State", "ExitCode", I32, state.exit_code),
	M("State", "HasRun", BOOL, state.has_run),
	M("State", "Error", TEXT, state.error),
	M("State", "StartedAt", TIME, state.started_ns),
	M("State", "FinishedAt", TIME, state.finished_ns),
	M("State", "RestartCount", U32, state.restarts),
	M("State", "StoppedByUser", BOOL, state.stopped_by_user),
	M("State", "Health", HEALTH, state.health),
	M("State", "FailingStreak", U32, state.health_failures),
	M("State", "LogDropped", U64, state.log_dropped),
	M("State", "Engine", TEXT, state.engine),
	M("State", "Command", LIST, state.command),
	M("Config", "Image", TEXT, config.image),
	M("Config", "Cmd", LIST, config.argv),
	M("Config", "NoEntrypoint", BOOL, config.no_entrypoint),
	M("Config", "Env", LIST, config.env),
	M("Config", "WorkingDir", TEXT, config.cwd),
	M("Config", "User", TEXT, config.user),
	M("Config", "Tty", BOOL, config.tty),
	M("Config", "OpenStdin", BOOL, config.open_stdin),
	M("Config", "StdinOnce", BOOL, config.stdin_once),
	M("Config", "Hostname", TEXT, config.hostname),
	M("Config", "Publish", LIST, config.publish),
	M("Config", "Egress", LIST, config.egress),
	M("Config", "HostLoopback", BOOL, config.host_loopback),
	M("Config", "NoPull", BOOL, config.no_pull),
	M("Config", "InsecureRegistry", BOOL, config.insecure),
	M("Config", "NetworkMode", TEXT, config.network.kind),
	M("Config", "NetworkName", TEXT, config.network.name),
	M("Config", "Address4", TEXT, config.network.address4),
	M("Config", "Gateway4", TEXT, config.network.gateway4),
	M("Config", "Address6", TEXT, config.network.address6),
	M("Config", "Gateway6", TEXT, config.network.gateway6),
	M("Config", "Pcap", TEXT, config.network.pcap),
	M("Config", "SendBytesPerSecond", U64, config.network.send_bytes),
	M("Config", "SendFramesPerSecond", U64, config.network.send_frames),
	M("Config", "ReceiveBytesPerSecond", U64, config.network.receive_bytes),
	M("Config", "ReceiveFramesPerSecond", U64, config.network.receive_frames),
	M("Config", "ReadonlyRootfs", BOOL, config.read_only),
	M("Config", "NoTemplate", BOOL, config.no_template),
	M("Config", "MergeMemory", BOOL, config.merge_memory),
	M("Config", "Cpus", U32, config.cpus),
	M("Config", "Memory", U64, config.memory),
	M("Config", "CpuShares", U32, config.cpu_shares),
	M("Config", "Engine", TEXT, config.engine),
	M("Config", "Kernel", TEXT, config.kernel),
	M("Config", "Append", TEXT, config.append),
	M("Config", "RestartPolicy", RESTART, config.restart),
	M("Config", "RestartMax", U32, config.restart_max),
	M("Config", "StopSignal", U32, config.stop_signal),
	M("Config", "StopTimeoutMs", MS, config.stop_timeout_ms),
	M("Config", "TimeoutSeconds", U32, config.timeout_s),
	M("Config", "AutoRemove", BOOL, config.auto_remove),
	M("Config", "LogMax", U64, config.log_max),
	M("Config", "HealthCmd", LIST, config.health_cmd),
	M("Config", "HealthIntervalMs", MS, config.health_interval_ms),
	M("Config", "HealthTimeoutMs", MS, config.health_timeout_ms),
	M("Config", "HealthStartPeriodMs", MS, config.health_start_ms),
	M("Config", "HealthRetries", U32, config.health_retries),
};

static const char *const status_names[] = { "created", "starting", "running", "paused", "stopping", "restarting",
					    "exited" };
static const char *const restart_names[] = { "no", "on-failure", "always", "unless-stopped" };
static const char *const health_names[] = { "none", "starting", "healthy", "unhealthy" };

_Static_assert(ARRAY_SIZE(status_names) == VM_EXITED + 1, "a name for each status");
_Static_assert(ARRAY_SIZE(restart_names) == VM_RESTART_UNLESS_STOPPED + 1, "a name for each policy");
_Static_assert(ARRAY_SIZE(health_names) == VM_UNHEALTHY + 1, "a name for each state of health");

/* The names of a kind whose value is an index. */
static const char *const *names_of(enum kind kind, size_t *ret_count)
{
	*ret_count = kind == STATUS ? ARRAY_SIZE(status_names) : kind == RESTART ? ARRAY_SIZE(restart_names) :
		     ARRAY_SIZE(health_names);
	return kind == STATUS ? status_names : kind == RESTART ? restart_names : health_names;
}

const char *vm_status_name(uint32_t status)
{
	return status < ARRAY_SIZE(status_names) ? status_names[status] : "unknown";
}

const char *vm_health_name(uint32_t health)
{
	return health < ARRAY_SIZE(health_names) ? health_names[health] : "unknown";
}

bool vm_restart_parse(const char *text, uint32_t *ret_restart, uint32_t *ret_max)
{
	const char *colon = strchr(text, ':');
	size_t len = colon ? (size_t)(colon - text) : strlen(text);
	unsigned long max = 0;
	char *end;

	for (uint32_t i = 0; i < ARRAY_SIZE(restart_names); i++) {
		if (strlen(restart_names[i]) != len || strncmp(text, restart_names[i], len) != 0)
			continue;
		if (colon) {
			max = strtoul(colon + 1, &end, 10);
			if (i != VM_RESTART_ON_FAILURE || colon[1] < '0' || colon[1] > '9' || *end || max > UINT32_MAX)
				return false;
		}
		*ret_restart = i;
		*ret_max = (uint32_t)max;
		return true;
	}
	return false;
}

void record_init(struct vm_record *record)
{
	*record = (struct vm_record){ .config.stop_timeout_ms = -1 };
}

void record_finish(struct vm_record *r)
{
	for (size_t i = 0; i < ARRAY_SIZE(members); i++) {
		void *field = (char *)r + members[i].offset;

		if (members[i].kind == TEXT)
			free(*(char **)field);
		else if (members[i].kind == LIST)
			strings_finish(field);
	}
	strings_finish(&r->config.labels);
	for (uint32_t i = 0; i < r->config.nshares; i++) {
		free(r->config.share[i].host);
		free(r->config.share[i].guest);
	}
	for (uint32_t i = 0; i < r->config.ndisks; i++)
		free(r->config.disk[i].path);
	record_init(r);
}

void record_forget(struct vm_record *r)
{
	for (size_t i = 0; i < ARRAY_SIZE(members); i++) {
		void *field = (char *)r + members[i].offset;

		if (members[i].offset < offsetof(struct vm_record, state))
			continue;
		if (members[i].kind == TEXT)
			free(*(char **)field);
		else if (members[i].kind == LIST)
			strings_finish(field);
	}
	r->state = (struct vm_state){ .status = VM_CREATED };
}

/* ------------------------------------------------------------------ writing */

static cJSON *list_to_json(const struct strings *list)
{
	cJSON *array = cJSON_CreateArray();

	for (size_t i = 0; array && i < list->n; i++)
		if (!cJSON_AddItemToArray(array, cJSON_CreateString(list->v[i]))) {
			cJSON_Delete(array);
			return NULL;
		}
	return array;
}

static cJSON *time_to_json(int64_t ns)
{
	char text[WHEN_SIZE];

	when_format(ns, text);
	return cJSON_CreateString(ns ? text : "");
}

static cJSON *member_to_json(const struct member *m, const struct vm_record *r)
{
	const void *field = (const char *)r + m->offset;
	size_t count;

	switch (m->kind) {
	case BOOL: return cJSON_CreateBool(*(const bool *)field);
	case U32: return cJSON_CreateNumber(*(const uint32_t *)field);
	case I32: return cJSON_CreateNumber(*(const int32_t *)field);
	case U64: return cJSON_CreateNumber((double)*(const uint64_t *)field);
	case MS: return cJSON_CreateNumber((double)*(const int64_t *)field);
	case TIME: return time_to_json(*(const int64_t *)field);
	case LIST: return list_to_json(field);
	case TEXT: return cJSON_CreateString(*(char *const *)field ? *(char *const *)field : "");
	case STATUS:
	case HEALTH:
	case RESTART: return cJSON_CreateString(names_of(m->kind, &count)[*(const uint32_t *)field]);
	}
	return NULL;
}

static bool add_labels(cJSON *config, const struct vm_config *c)
{
	cJSON *labels = cJSON_AddObjectToObject(config, "Labels");

	for (size_t i = 0; labels && i < c->labels.n; i++) {
		char *key = strdup(c->labels.v[i]), *value = key ? strchr(key, '=') : NULL;

		if (value)
			*value++ = '\0';
		if (!key || !cJSON_AddStringToObject(labels, key, value ? value : ""))
			labels = NULL;
		free(key);
	}
	return labels != NULL;
}

static bool add_mounts(cJSON *config, const struct vm_config *c)
{
	cJSON *shares = cJSON_AddArrayToObject(config, "Mounts"), *disks = cJSON_AddArrayToObject(config, "Disks");

	for (uint32_t i = 0; i < c->nshares; i++) {
		cJSON *o = cJSON_CreateObject();

		if (!cJSON_AddItemToArray(shares, o) || !cJSON_AddStringToObject(o, "Source", c->share[i].host) ||
		    !cJSON_AddStringToObject(o, "Destination", c->share[i].guest) ||
		    !cJSON_AddBoolToObject(o, "RW", !c->share[i].read_only))
			return false;
	}
	for (uint32_t i = 0; i < c->ndisks; i++) {
		cJSON *o = cJSON_CreateObject();

		if (!cJSON_AddItemToArray(disks, o) || !cJSON_AddStringToObject(o, "Path", c->disk[i].path) ||
		    !cJSON_AddBoolToObject(o, "RW", !c->disk[i].read_only) ||
		    !cJSON_AddBoolToObject(o, "Overlay", c->disk[i].overlay))
			return false;
	}
	return shares && disks;
}

cJSON *record_to_json(const struct vm_record *r)
{
	cJSON *doc = cJSON_CreateObject(), *config;
	bool ok = cJSON_AddNumberToObject(doc, "Version", VERSION) && cJSON_AddStringToObject(doc, "Id", r->id) &&
		  cJSON_AddStringToObject(doc, "Name", r->name);

	for (size_t i = 0; ok && i < ARRAY_SIZE(members); i++) {
		const struct member *m = &members[i];
		cJSON *group = m->group ? cJSON_GetObjectItemCaseSensitive(doc, m->group) : doc;

		if (!group)
			group = cJSON_AddObjectToObject(doc, m->group);
		ok = cJSON_AddItemToObject(group, m->name, member_to_json(m, r));
	}
	config = cJSON_GetObjectItemCaseSensitive(doc, "Config");
	if (!ok || !add_labels(config, &r->config) || !add_mounts(config, &r->config)) {
		cJSON_Delete(doc);
		return NULL;
	}
	return doc;
}

char *record_encode(const struct vm_record *r)
{
	cJSON *doc = record_to_json(r);
	char *text = doc ? cJSON_PrintUnformatted(doc) : NULL, *line = NULL;

	cJSON_Delete(doc);
	if (text && asprintf(&line, "%s\n", text) < 0)
		line = NULL;
	free(text);
	return line;
}

/* ------------------------------------------------------------------ reading */

static bool number(const cJSON *item, double min, double max, double *ret)
{
	if (!cJSON_IsNumber(item) || !(item->valuedouble >= min && item->valuedouble <= max) ||
	    item->valuedouble != (double)(int64_t)item->valuedouble)
		return false;
	*ret = item->valuedouble;
	return true;
}

static bool take_text(const cJSON *item, char **ret)
{
	if (!cJSON_IsString(item))
		return false;
	free(*ret);
	*ret = *item->valuestring ? strdup(item->valuestring) : NULL;
	return *ret || !*item->valuestring;
}

static bool take_list(const cJSON *array, struct strings *ret)
{
	const cJSON *item;

	if (!cJSON_IsArray(array))
		return false;
	strings_finish(ret);
	cJSON_ArrayForEach(item, array)
		if (!cJSON_IsString(item) || strings_add(ret, item->valuestring) < 0)
			return false;
	return true;
}

static bool take_name(const cJSON *item, enum kind kind, uint32_t *ret)
{
	size_t count;
	const char *const *names = names_of(kind, &count);

	for (uint32_t i = 0; cJSON_IsString(item) && i < count; i++)
		if (strcmp(item->valuestring, names[i]) == 0) {
			*ret = i;
			return true;
		}
	return false;
}

static bool take_member(const struct member *m, const cJSON *item, struct vm_record *r)
{
	void *field = (char *)r + m->offset;
	double v = 0;

	switch (m->kind) {
	case BOOL:
		*(bool *)field = cJSON_IsTrue(item);
		return cJSON_IsBool(item);
	case U32:
		if (!number(item, 0, UINT32_MAX, &v))
			return false;
		*(uint32_t *)field = (uint32_t)v;
		return true;
	case I32:
		if (!number(item, INT32_MIN, INT32_MAX, &v))
			return false;
		*(int32_t *)field = (int32_t)v;
		return true;
	case U64:
		if (!number(item, 0, 0x1p53, &v))
			return false;
		*(uint64_t *)field = (uint64_t)v;
		return true;
	case MS:
		if (!number(item, -1, 0x1p43, &v))
			return false;
		*(int64_t *)field = (int64_t)v;
		return true;
	case TIME:
		*(int64_t *)field = 0;
		return cJSON_IsString(item) && (!*item->valuestring || when_parse(item->valuestring, 0, field));
	case TEXT:
		return take_text(item, field);
	case LIST:
		return take_list(item, field);
	case STATUS:
	case HEALTH:
	case RESTART:
		return take_name(item, m->kind, field);
	}
	return false;
}

static bool take_labels(const cJSON *labels, struct vm_config *c)
{
	const cJSON *item;
	char *pair;

	cJSON_ArrayForEach(item, labels) {
		int r = -1;

		if (!item->string || !cJSON_IsString(item) || asprintf(&pair, "%s=%s", item->string, item->valuestring) < 0)
			return false;
		r = strings_add(&c->labels, pair);
		free(pair);
		if (r < 0)
			return false;
	}
	return true;
}

static bool take_mounts(const cJSON *config, struct vm_config *c)
{
	const cJSON *item;

	cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(config, "Mounts")) {
		struct vm_share *s = &c->share[c->nshares];

		if (c->nshares == RECORD_SHARES_MAX)
			return false;
		c->nshares++;
		s->read_only = !cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(item, "RW"));
		if (!take_text(cJSON_GetObjectItemCaseSensitive(item, "Source"), &s->host) ||
		    !take_text(cJSON_GetObjectItemCaseSensitive(item, "Destination"), &s->guest) || !s->host || !s->guest)
			return false;
	}
	cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(config, "Disks")) {
		struct vm_disk *d = &c->disk[c->ndisks];

		if (c->ndisks == RECORD_DISKS_MAX)
			return false;
		c->ndisks++;
		d->read_only = !cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(item, "RW"));
		d->overlay = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(item, "Overlay"));
		if (!take_text(cJSON_GetObjectItemCaseSensitive(item, "Path"), &d->path) || !d->path)
			return false;
	}
	return true;
}

/* Members that are missing keep their defaults: an older version wrote the file. */
static bool take_document(const cJSON *doc, struct vm_record *r)
{
	const cJSON *id = cJSON_GetObjectItemCaseSensitive(doc, "Id"), *name = cJSON_GetObjectItemCaseSensitive(doc, "Name");
	const cJSON *config = cJSON_GetObjectItemCaseSensitive(doc, "Config");

	if (!cJSON_IsString(id) || !vm_id_valid(id->valuestring) || !cJSON_IsString(name) ||
	    !vm_name_valid(name->valuestring) || !cJSON_IsObject(config))
		return false;
	memcpy(r->id, id->valuestring, VM_ID_SIZE);
	(void)snprintf(r->name, sizeof(r->name), "%s", name->valuestring);
	for (size_t i = 0; i < ARRAY_SIZE(members); i++) {
		const struct member *m = &members[i];
		const cJSON *group = m->group ? cJSON_GetObjectItemCaseSensitive(doc, m->group) : doc;
		const cJSON *item = cJSON_GetObjectItemCaseSensitive(group, m->name);

		if (item && !take_member(m, item, r))
			return false;
	}
	return take_labels(cJSON_GetObjectItemCaseSensitive(config, "Labels"), &r->config) &&
	       take_mounts(config, &r->config);
}

int record_decode(const char *text, size_t len, struct vm_record *r, struct err *err)
{
	cJSON *doc = cJSON_ParseWithLength(text, len);
	const cJSON *version = cJSON_GetObjectItemCaseSensitive(doc, "Version");
	int result = 0;

	if (!doc)
		result = err_set(err, -EBADMSG, "it is not JSON");
	else if (!cJSON_IsNumber(version) || version->valuedouble != VERSION)
		result = err_set(err, -EBADMSG, "its version is not %d: another version of roux made it", VERSION);
	else if (!take_document(doc, r))
		result = err_set(err, -EBADMSG, "a member of it is missing or of the wrong kind");
	cJSON_Delete(doc);
	return result;
}
