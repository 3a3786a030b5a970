/* SPDX-License-Identifier: Apache-2.0 */
/* What the control socket serves: docs/control-api.yaml, one function a route. */
#include "life/inside.h"

#include "abi/agent.h"
#include "api/handle.h"
#include "api/process.h"
#include "base/checked.h"
#include "life/clock.h"
#include "life/events.h"
#include "os/signame.h"
#include "life/stats.h"
#include "life/when.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STOP_DEFAULT_MS 10000

typedef void (*route_fn)(struct conn *c, const struct http_request *rq, const cJSON *body);

/* ------------------------------------------------------------------ helpers */

static const char *get_text(const cJSON *body, const char *name)
{
	return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(body, name));
}

static double get_number(const cJSON *body, const char *name, double otherwise)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(body, name);

	return cJSON_IsNumber(item) ? item->valuedouble : otherwise;
}

static uint16_t get_u16(const cJSON *body, const char *name)
{
	double v = get_number(body, name, 0);

	return v >= 1 && v <= UINT16_MAX ? (uint16_t)v : 0;
}

static bool get_flag(const cJSON *body, const char *name)
{
	return cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(body, name));
}

static int get_list(const cJSON *body, const char *name, struct strings *ret)
{
	const cJSON *item;

	cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(body, name))
		if (!cJSON_IsString(item) || strings_add(ret, item->valuestring) < 0)
			return -EINVAL;
	return 0;
}

/* False, and the client is told, unless the command runs. */
static bool needs_running(struct conn *c)
{
	const struct monitor *m = c->m;

	if (monitor_running(m) && m->record.state.status != VM_PAUSED)
		return true;
	conn_error(c, 409, 1, "VM %s is not running: it is %s", m->record.name, vm_status_name(m->record.state.status));
	return false;
}

/* False, and the client is told, unless it wants to speak frames behind the answer. */
static bool needs_upgrade(struct conn *c, const struct http_request *rq, int code, const char *what)
{
	if (!*rq->upgrade)
		conn_error(c, 426, code, "%s needs 'Upgrade: roux-frames'", what);
	return *rq->upgrade;
}

/* Milliseconds of a stop: the request's, else the VM's, else docker's ten seconds. */
static int64_t stop_timeout(const struct monitor *m, const cJSON *body)
{
	double given = get_number(body, "TimeoutMs", -2);

	if (given >= -1 && given < 1e12)
		return (int64_t)given;
	return m->record.config.stop_timeout_ms >= 0 ? m->record.config.stop_timeout_ms : STOP_DEFAULT_MS;
}

/* ------------------------------------------------------------------- routes */

static void get_vm(struct conn *c, const struct http_request *rq, const cJSON *body)
{
	conn_json(c, 200, record_to_json(&c->m->record));
}

static void answer_status(struct conn *c)
{
	cJSON *json = cJSON_CreateObject();

	(void)cJSON_AddNumberToObject(json, "StatusCode", c->m->record.state.exit_code);
	(void)cJSON_AddStringToObject(json, "Error", c->m->record.state.error ? c->m->record.state.error : "");
	conn_json(c, 200, json);
}

static void wait_for(struct conn *c, void (*answer)(struct conn *), bool until_started)
{
	c->mode = CONN_WAITING;
	c->answer = answer;
	c->until_started = until_started;
}

static void get_wait(struct conn *c, const struct http_request *rq, const cJSON *body)
{
	if (c->m->finished)
		answer_status(c);
	else
		wait_for(c, answer_status, false);
}

static void post_stop(struct conn *c, const struct http_request *rq, const cJSON *body)
{
	struct monitor *m = c->m;

	m->record.state.stopped_by_user = true;
	m->restart_asked = false;
	events_add(&m->vms, &m->record, "stop", NULL);
	wait_for(c, answer_status, false);
	monitor_stop(m, stop_timeout(m, body));
}

static void answer_started(struct conn *c)
{
	struct monitor *m = c->m;

	if (monitor_running(m))
		conn_json(c, 200, NULL);
	else
		conn_error(c, 500, 1, "VM %s did not start again: %s", m->record.name,
			   m->record.state.error ? m->record.state.error : "it ended at once");
}

static void post_restart(struct conn *c, const struct http_request *rq, const cJSON *body)
{
	struct monitor *m = c->m;

	m->restart_asked = true;
	wait_for(c, answer_started, true);
	monitor_stop(m, stop_timeout(m, body));
}

static void answer_gone(struct conn *c)
{
	conn_json(c, 200, NULL);
}

static void post_kill(struct conn *c, const struct http_request *rq, const cJSON *body)
{
	struct monitor *m = c->m;
	const char *name = get_text(body, "Signal");
	int signo = name ? signal_by_name(name) : SIGKILL;
	char number[12];

	if (signo < 0) {
		conn_error(c, 400, 1, "there is no signal '%.32s'", name);
		return;
	}
	if (!monitor_running(m) && !m->starter) {
		(void)needs_running(c);
		return;
	}
	(void)snprintf(number, sizeof(number), "%d", signo);
	events_add(&m->vms, &m->record, "kill", number);
	if (signo == SIGKILL) {
		m->record.state.stopped_by_user = true;
		wait_for(c, answer_gone, false);
		monitor_kill(m);
		return;
	}
	if (!needs_running(c))
		return;
	(void)command_signal(m, signo);
	conn_json(c, 200, NULL);
}

static void set_paused(struct conn *c, bool pause)
{
	struct monitor *m = c->m;

	if (!monitor_running(m) || (m->record.state.status == VM_PAUSED) == pause) {
		conn_error(c, 409, 1, "VM %s is %s", m->record.name, vm_status_name(m->record.state.status));
		return;
	}
	if (kill((pid_t)m->record.state.vm_pid, pause ? SIGSTOP : SIGCONT) < 0) {
		conn_error(c, 500, 1, "cannot signal the VM's process: %s", strerror(errno));
		return;
	}
	m->record.state.status = pause ? VM_PAUSED : VM_RUNNING;
	if (!pause)
		clock_catch_up(m);
	events_add(&m->vms, &m->record, pause ? "pause" : "unpause", NULL);
	conn_json(c, 200, NULL);
	monitor_save(m);
}

static void post_pause(struct conn *c, const struct http_request *rq, const cJSON *body)
{
	set_paused(c, true);
}

static void post_unpause(struct conn *c, const struct http_request *rq, const cJSON *body)
{
	set_paused(c, false);
}

static void post_rename(struct conn *c, const struct http_request *rq, const cJSON *body)
{
	const char *name = get_text(body, "Name");
	struct err err = { 0 };
	int r = name ? vm_rename(&c->m->vms, &c->m->owned, &c->m->record, name, &err) :
		       err_set(&err, -EINVAL, "no name given");

	if (r < 0)
		conn_error(c, r == -EEXIST ? 409 : 400, 1, "%s", err.msg);
	else
		conn_json(c, 200, NULL);
	if (r == 0)
		events_add(&c->m->vms, &c->m->record, "rename", name);
}

static void post_checkpoint(struct conn *c, const struct http_request *rq, const cJSON *body)
{
	const struct checkpoint_options o = { .path = get_text(body, "Path"), .base = get_text(body, "Base"),
					      .compress = get_flag(body, "Compress"), .stop = get_flag(body, "Stop"),
					      .keep_disks = get_flag(body, "KeepDisks") };
	struct err err = { 0 };
	uint64_t bytes = 0;
	cJSON *json;

	if (!o.path || o.path[0] != '/' || (o.base && o.base[0] != '/')) {
		conn_error(c, 400, 1, "a checkpoint needs absolute paths of files");
		return;
	}
	if (!needs_running(c))
		return;
	if (checkpoint_write(c->m, &o, &bytes, &err) < 0) {
		conn_error(c, err.code == -EOPNOTSUPP ? 409 : 500, 1, "cannot save VM %s: %s", c->m->record.name, err.msg);
		return;
	}
	events_add(&c->m->vms, &c->m->record, "checkpoint", o.path);
	json = cJSON_CreateObject();
	(void)cJSON_AddNumberToObject(json, "Bytes", (double)bytes);
	conn_json(c, 200, json);
}

/* Attaching is possible before the command runs: STARTED or ERROR tells how that went. */
static void post_attach(struct conn *c, const struct http_request *rq, const cJSON *body)
{
	struct monitor *m = c->m;
	char value[8];

	if (!needs_upgrade(c, rq, 1, "attaching"))
		return;
	if (c->creator)
		monitor_begin(m);
	if (m->finished)
		conn_error(c, 500, m->record.state.exit_code, "%s", m->record.state.error ? m->record.state.error : "the VM has ended");
	if (m->finished || (!m->starter && !needs_running(c)))
		return;
	c->output = !http_query(rq->query, "output", value, sizeof(value)) || strcmp(value, "0") != 0;
	c->mode = CONN_ATTACHED;
	conn_upgrade(c);
	command_greet(c);
}

static void post_exec(struct conn *c, const struct http_request *rq, const cJSON *body)
{
	struct roux_exec_options o = { .size = sizeof(o), .cwd = get_text(body, "WorkingDir"), .user = get_text(body, "User"),
				       .tty = get_flag(body, "Tty"), .stdin_fd = get_flag(body, "AttachStdin") ? 0 : -1 };
	struct strings argv = { 0 }, env = { 0 };
	struct err err = { 0 };
	uint8_t *frame = NULL;
	size_t len;
	int r;

	if (!needs_upgrade(c, rq, STATUS_FAILED, "exec") || !needs_running(c))
		return;
	r = get_list(body, "Cmd", &argv);
	/* The VM's own variables come between the image's and the request's. */
	if (r == 0)
		r = strings_add_all(&env, (const char *const *)c->m->record.config.env.v);
	if (r == 0)
		r = get_list(body, "Env", &env);
	if (r == 0 && argv.n == 0)
		r = err_set(&err, -EINVAL, "exec needs a command");
	o.argv = (const char *const *)argv.v;
	o.env = (const char *const *)env.v;
	if (!o.cwd || !*o.cwd)
		o.cwd = c->m->record.config.cwd;
	if (!o.user || !*o.user)
		o.user = c->m->record.config.user;
	o.detached = get_flag(body, "Detach");
	o.rows = get_u16(body, "Rows");
	o.cols = get_u16(body, "Cols");
	if (r == 0)
		r = process_exec_frame(c->m->machine->config, &o, &frame, &len, &err);
	strings_finish(&argv);
	strings_finish(&env);
	if (r < 0)
		conn_error(c, 400, STATUS_FAILED, "%s", err.msg[0] ? err.msg : strerror(-r));
	else
		guest_exec(c, frame, len);
}

/* The client speaks GET or PUT itself behind this: see copy/tree.h. */
static void post_copy(struct conn *c, const struct http_request *rq, const cJSON *body)
{
	const char *path = get_text(body, "Path"), *name = get_text(body, "Name");
	size_t size = FRAME_HEADER + 64 + (path ? strlen(path) : 0) + (name ? strlen(name) : 0);
	struct frame_writer w;
	uint8_t *frame;

	if (!needs_upgrade(c, rq, 1, "copying"))
		return;
	if (!path || path[0] != '/') {
		conn_error(c, 400, 1, "a path in a VM begins with '/'");
		return;
	}
	if (!needs_running(c))
		return;
	frame = malloc(size);
	if (!frame) {
		conn_error(c, 503, 1, "out of memory");
		return;
	}
	frame_begin(&w, frame, size, get_flag(body, "Put") ? AGENT_PUT : AGENT_GET);
	field_put_str(&w, AGENT_TAG_PATH, path);
	if (name && get_flag(body, "Put"))
		field_put_str(&w, AGENT_TAG_NAME, name);
	guest_exec(c, frame, frame_end(&w));
}

static void get_stats(struct conn *c, const struct http_request *rq, const cJSON *body)
{
	static const uint8_t request[FRAME_HEADER] = { [4] = AGENT_STATS };

	if (needs_running(c))
		guest_ask(c, request, sizeof(request), stats_answer);
}

static void get_top(struct conn *c, const struct http_request *rq, const cJSON *body)
{
	static const uint8_t request[FRAME_HEADER] = { [4] = AGENT_PROCESSES };

	if (needs_running(c))
		guest_ask(c, request, sizeof(request), stats_answer_processes);
}

/* What the host knows is told even when the guest does not answer. */
static void get_metrics(struct conn *c, const struct http_request *rq, const cJSON *body)
{
	static const uint8_t request[FRAME_HEADER] = { [4] = AGENT_STATS };

	if (monitor_running(c->m) && c->m->record.state.status != VM_PAUSED)
		guest_ask(c, request, sizeof(request), stats_answer_metrics);
	else
		stats_answer_metrics(c, NULL, 0);
}

/* Of the guest that runs, and of what the VM starts with.  False, and the client is told, if it cannot be. */
static bool update_memory(struct conn *c, double bytes)
{
	struct monitor *m = c->m;
	struct roux_error error = { 0 };
	int r;

	if (!(bytes >= 1 << 20 && bytes < 1e18)) {
		conn_error(c, 400, 1, "memory is a number of bytes, from 32 MiB");
		return false;
	}
	if (!needs_running(c))
		return false;
	r = roux_machine_set_memory(m->machine, (uint64_t)bytes, &error);
	if (r < 0)
		conn_error(c, r == -EINVAL ? 400 : 409, 1, "cannot give VM %s %.0f MiB: %s", m->record.name, bytes / (1 << 20),
			   error.message);
	else
		m->record.config.memory = (uint64_t)bytes;
	return r == 0;
}

static void post_update(struct conn *c, const struct http_request *rq, const cJSON *body)
{
	struct monitor *m = c->m;
	double shares = get_number(body, "CpuShares", 0), memory = get_number(body, "Memory", 0);
	const char *policy = get_text(body, "RestartPolicy");
	struct err err = { 0 };

	if (shares && (shares < 2 || shares > 262144)) {
		conn_error(c, 400, 1, "CPU shares are a number from 2 to 262144");
		return;
	}
	if (policy && !vm_restart_parse(policy, &m->record.config.restart, &m->record.config.restart_max)) {
		conn_error(c, 400, 1, "there is no restart policy '%.32s'", policy);
		return;
	}
	if (memory && !update_memory(c, memory))
		return;
	if (shares && m->machine && machine_set_shares(m->machine, (uint32_t)shares, &err) < 0) {
		conn_error(c, 500, 1, "%s", err.msg);
		return;
	}
	if (shares)
		m->record.config.cpu_shares = (uint32_t)shares;
	monitor_save(m);
	conn_json(c, 200, NULL);
}

static const struct {
	const char *method, *path;
	route_fn serve;
	bool after_end;	/* of a VM that has ended too */
} routes[] = {
	{ "GET", "/v1/vm", get_vm },
	{ "GET", "/v1/wait", get_wait, true },
	{ "POST", "/v1/stop", post_stop },
	{ "POST", "/v1/restart", post_restart },
	{ "POST", "/v1/kill", post_kill },
	{ "POST", "/v1/pause", post_pause },
	{ "POST", "/v1/unpause", post_unpause },
	{ "POST", "/v1/rename", post_rename },
	{ "POST", "/v1/checkpoint", post_checkpoint },
	{ "POST", "/v1/attach", post_attach },
	{ "POST", "/v1/exec", post_exec },
	{ "POST", "/v1/copy", post_copy },
	{ "GET", "/v1/stats", get_stats },
	{ "GET", "/v1/top", get_top },
	{ "POST", "/v1/update", post_update },
	{ "GET", "/metrics", get_metrics },
};

static void serve(struct conn *c, const struct http_request *rq, const cJSON *body)
{
	bool known = false;

	for (size_t i = 0; i < ARRAY_SIZE(routes); i++) {
		if (strcmp(routes[i].path, rq->path) != 0)
			continue;
		known = true;
		if (strcmp(routes[i].method, rq->method) != 0)
			continue;
		if (c->m->finished && !routes[i].after_end)
			conn_error(c, 410, 1, "the VM has ended");
		else
			routes[i].serve(c, rq, body);
		return;
	}
	conn_error(c, known ? 405 : 404, 1, known ? "%s cannot be asked for in this way" : "there is no %s", rq->path);
}

void service_request(struct conn *c, const struct http_request *rq, const char *body)
{
	cJSON *json = *body ? cJSON_Parse(body) : NULL;

	if (*body && !cJSON_IsObject(json))
		conn_error(c, 400, 1, "the body is not a JSON object");
	else
		serve(c, rq, json);
	cJSON_Delete(json);
}
