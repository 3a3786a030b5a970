/* SPDX-License-Identifier: Apache-2.0 */
/* roux stop, restart, kill, pause, unpause, rename, wait: requests to a VM's monitor. */
#include "cli/cli.h"
#include "cli/create.h"
#include "cli/pick.h"
#include "cli/start.h"
#include "life/client.h"
#include "os/err.h"
#include "os/signame.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What a request carries. */
struct request {
	const char *target;
	double timeout_ms;	/* below -1: not given */
	const char *signal;
	/* What becomes of a VM that does not run.  Returns the exit status. */
	int (*at_rest)(const struct vms *vms, const char *what, const struct vm_record *record);
};

static cJSON *request_body(const struct request *rq)
{
	cJSON *body = cJSON_CreateObject();

	if (rq->timeout_ms >= -1)
		(void)cJSON_AddNumberToObject(body, "TimeoutMs", rq->timeout_ms);
	if (rq->signal)
		(void)cJSON_AddStringToObject(body, "Signal", rq->signal);
	return body;
}

#define END_TRIES 50u
#define END_WAIT_US 10000u

/*
 * Asks the VM's monitor, if there is one: one that ends at that moment is as good as none.  0 and the VM, which is then to be
 * finished, and whether it answered; or the exit status.
 */
static int ask(const struct vms *vms, const char *what, const char *method, const struct request *rq,
	       struct vm_record *record, bool *ret_answered, cJSON **ret_json)
{
	for (unsigned i = 0;; i++) {
		int r, status = pick_vm(vms, what, record, ret_answered);
		struct err err = { 0 };
		char *text = NULL;

		if (status)
			record_finish(record);
		if (status || !*ret_answered)
			return status;
		if (strcmp(method, "POST") == 0) {
			cJSON *body = request_body(rq);

			text = cJSON_PrintUnformatted(body);
			cJSON_Delete(body);
			if (!text) {
				record_finish(record);
				return complain(EXIT_VERB, "out of memory");
			}
		}
		r = client_ask(vms, record->id, method, rq->target, text, -1, ret_json, &err);
		free(text);
		if (r == 0)
			return 0;
		record_finish(record);
		if (r != -ESRCH || i == END_TRIES)
			return complain(EXIT_VERB, "%s", err.msg);
		(void)usleep(END_WAIT_US);
	}
}

static int ask_one(const struct vms *vms, const char *what, const void *ctx)
{
	const struct request *rq = ctx;
	struct vm_record record;
	bool answered;
	int status = ask(vms, what, "POST", rq, &record, &answered, NULL);

	if (status)
		return status;
	if (answered)
		(void)puts(what);
	else
		status = rq->at_rest(vms, what, &record);
	record_finish(&record);
	return status;
}

/* Stopping what does not run is no mistake. */
static int stopped_already(const struct vms *vms, const char *what, const struct vm_record *record)
{
	(void)puts(what);
	return 0;
}

static int start_again(const struct vms *vms, const char *what, const struct vm_record *record)
{
	return start_vm(vms, what, record, false, false, NULL);
}

static int not_running(const struct vms *vms, const char *what, const struct vm_record *record)
{
	return pick_not_running(record);
}

static const struct option timeout_options[] = { { "time", required_argument, NULL, 't' },
						 { "timeout", required_argument, NULL, 't' },
						 { "help", no_argument, NULL, PICK_HELP },
						 { NULL, 0, NULL, 0 } };

static int timeout_verb(int argc, char **argv, const char *verb, const char *help, struct request *rq)
{
	int c;

	rq->timeout_ms = -2;
	optind = 0;
	while ((c = getopt_long(argc, argv, "t:", timeout_options, NULL)) != -1) {
		char *end;

		if (c != 't')
			return pick_usage(verb, help, c);
		rq->timeout_ms = (double)strtol(optarg, &end, 10) * 1000;
		if (!*optarg || *end || rq->timeout_ms < -1000)
			return complain(EXIT_ROUX, "-t needs seconds, not '%s'", optarg);
		if (rq->timeout_ms < 0)
			rq->timeout_ms = -1;
	}
	return pick_each(argc, argv, verb, ask_one, rq);
}

int verb_stop(int argc, char **argv)
{
	static const char help[] =
		"Usage: roux stop [-t SECONDS] VM...\n\n"
		"Sends the VM's command its stop signal, and SIGKILL when it has not ended after\n"
		"SECONDS.\n\n"
		"  -t, --time SECONDS        Default: the VM's own, else 10; -1: never kill\n";
	struct request rq = { .target = "/v1/stop", .at_rest = stopped_already };

	return timeout_verb(argc, argv, "stop", help, &rq);
}

int verb_restart(int argc, char **argv)
{
	static const char help[] =
		"Usage: roux restart [-t SECONDS] VM...\n\n"
		"Stops VMs as 'roux stop' does, and starts them again.\n\n"
		"  -t, --time SECONDS        Default: the VM's own, else 10; -1: never kill\n";
	struct request rq = { .target = "/v1/restart", .at_rest = start_again };

	return timeout_verb(argc, argv, "restart", help, &rq);
}

int verb_kill(int argc, char **argv)
{
	static const char help[] =
		"Usage: roux kill [-s SIGNAL] VM...\n\n"
		"Sends a signal to the VM's command.\n\n"
		"  -s, --signal SIGNAL       Name or number (default KILL)\n";
	static const struct option options[] = { { "signal", required_argument, NULL, 's' },
						 { "help", no_argument, NULL, PICK_HELP },
						 { NULL, 0, NULL, 0 } };
	struct request rq = { .target = "/v1/kill", .timeout_ms = -2, .signal = "KILL", .at_rest = not_running };
	int c;

	optind = 0;
	while ((c = getopt_long(argc, argv, "s:", options, NULL)) != -1) {
		if (c != 's')
			return pick_usage("kill", help, c);
		if (signal_by_name(optarg) < 0)
			return complain(EXIT_VERB, "there is no signal '%s'", optarg);
		rq.signal = optarg;
	}
	return pick_each(argc, argv, "kill", ask_one, &rq);
}

static int plain_verb(int argc, char **argv, const char *verb, const char *help, const struct request *rq)
{
	static const struct option options[] = { { "help", no_argument, NULL, PICK_HELP }, { NULL, 0, NULL, 0 } };
	int c;

	optind = 0;
	c = getopt_long(argc, argv, "", options, NULL);
	return c != -1 ? pick_usage(verb, help, c) : pick_each(argc, argv, verb, ask_one, rq);
}

int verb_pause(int argc, char **argv)
{
	static const struct request rq = { .target = "/v1/pause", .timeout_ms = -2, .at_rest = not_running };

	return plain_verb(argc, argv, "pause", "Usage: roux pause VM...\n\nStops the VM's processors until 'roux unpause'.\n",
			  &rq);
}

int verb_unpause(int argc, char **argv)
{
	static const struct request rq = { .target = "/v1/unpause", .timeout_ms = -2, .at_rest = not_running };

	return plain_verb(argc, argv, "unpause", "Usage: roux unpause VM...\n\nLets paused VMs go on.\n", &rq);
}

static void print_status(const struct vm_record *record, int code)
{
	cJSON *json = cJSON_CreateObject();

	(void)cJSON_AddStringToObject(json, "Id", record->id);
	(void)cJSON_AddStringToObject(json, "Name", record->name);
	(void)cJSON_AddNumberToObject(json, "StatusCode", code);
	pick_print(json);
}

static int wait_one(const struct vms *vms, const char *what, const void *ctx)
{
	static const struct request rq = { .target = "/v1/wait" };
	const bool *as_json = ctx;
	struct vm_record record;
	cJSON *json = NULL;
	bool answered;
	int code, status = ask(vms, what, "GET", &rq, &record, &answered, &json);

	if (status)
		return status;
	code = answered ? (int)cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(json, "StatusCode")) : record.state.exit_code;
	if (*as_json)
		print_status(&record, code);
	else
		(void)printf("%d\n", code);
	cJSON_Delete(json);
	record_finish(&record);
	return 0;
}

int verb_wait(int argc, char **argv)
{
	static const char help[] =
		"Usage: roux wait [--json] VM...\n\n"
		"Waits until VMs have ended and prints their exit statuses.\n\n"
		"      --json                One line of JSON for each VM\n";

	return pick_facts(argc, argv, "wait", help, wait_one);
}

static int rename_vm(const struct vms *vms, const struct vm_record *record, const char *name)
{
	struct vm_record mine;
	struct vm_owned owned;
	struct err err = { 0 };
	int status = pick_own(vms, record->id, 1000, &owned, &mine);

	if (status)
		return status;
	if (vm_rename(vms, &owned, &mine, name, &err) < 0)
		status = complain(EXIT_VERB, "%s", err.msg);
	record_finish(&mine);
	vm_release(&owned);
	return status;
}

int verb_rename(int argc, char **argv)
{
	static const char help[] = "Usage: roux rename VM NAME\n\nGives a VM another name.\n";
	static const struct option options[] = { { "help", no_argument, NULL, PICK_HELP }, { NULL, 0, NULL, 0 } };
	struct vm_record record;
	bool alive = false;
	struct vms vms;
	cJSON *body;
	int c, status;

	optind = 0;
	c = getopt_long(argc, argv, "", options, NULL);
	if (c != -1)
		return pick_usage("rename", help, c);
	if (argc - optind != 2)
		return complain(EXIT_ROUX, "rename needs a VM and its new name");
	status = pick_open(&vms);
	if (status)
		return status;
	status = pick_vm(&vms, argv[optind], &record, &alive);
	if (status == 0 && alive) {
		body = cJSON_CreateObject();
		(void)cJSON_AddStringToObject(body, "Name", argv[optind + 1]);
		status = pick_ask(&vms, &record, "POST", "/v1/rename", body, NULL);
	} else if (status == 0) {
		status = rename_vm(&vms, &record, argv[optind + 1]);
	}
	record_finish(&record);
	return status;
}
