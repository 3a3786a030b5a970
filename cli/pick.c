/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/pick.h"

#include "cli/cli.h"
#include "life/client.h"
#include "os/err.h"

#include <cjson/cJSON.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int pick_open(struct vms *ret_vms)
{
	struct err err = { 0 };

	return vms_open(ret_vms, &err) < 0 ? complain(EXIT_ROUX, "%s", err.msg) : 0;
}

int pick_vm(const struct vms *vms, const char *what, struct vm_record *record, bool *ret_alive)
{
	struct err err = { 0 };
	char id[VM_ID_SIZE];
	int r;

	record_init(record);
	r = vms_find(vms, what, id, &err);
	if (r == 0)
		r = client_load(vms, id, record, ret_alive, &err);
	return r < 0 ? complain(EXIT_VERB, "%s", err.msg) : 0;
}

int pick_not_running(const struct vm_record *record)
{
	return complain(EXIT_VERB, "VM %s is not running", record->name);
}

int pick_running(const struct vms *vms, const char *what, struct vm_record *record)
{
	bool alive = false;
	int status = pick_vm(vms, what, record, &alive);

	if (status == 0 && !alive)
		status = pick_not_running(record);
	return status;
}

int pick_own(const struct vms *vms, const char *id, unsigned wait_ms, struct vm_owned *owned, struct vm_record *record)
{
	struct err err = { 0 };
	bool alive;

	record_init(record);
	if (vms_own(vms, id, wait_ms, owned, &err) < 0)
		return complain(EXIT_VERB, "%s", err.msg);
	if (vms_load(vms, id, record, &alive, &err) == 0)
		return 0;
	record_finish(record);
	vm_release(owned);
	return complain(EXIT_VERB, "%s", err.msg);
}

int pick_ask(const struct vms *vms, const struct vm_record *record, const char *method, const char *target, cJSON *body,
	     cJSON **ret_json)
{
	char *text = body ? cJSON_PrintUnformatted(body) : NULL;
	struct err err = { 0 };
	int r = body && !text ? err_set(&err, -1, "out of memory") :
		client_ask(vms, record->id, method, target, text, -1, ret_json, &err);

	cJSON_Delete(body);
	free(text);
	return r < 0 ? complain(EXIT_VERB, "%s", err.msg) : 0;
}

int pick_upgrade(const struct vms *vms, const struct vm_record *record, const char *target, const cJSON *body,
		 int otherwise, struct session *ret_session)
{
	char *text = body ? cJSON_PrintUnformatted(body) : NULL;
	int fd = client_connect(vms, record->id), status = 0;
	struct err err = { 0 };

	if (fd < 0)
		status = pick_not_running(record);
	else if (body && !text)
		status = complain(EXIT_ROUX, "out of memory");
	else if (client_upgrade(fd, target, text, ret_session, &otherwise, &err) < 0)
		status = complain(otherwise, "%s", err.msg);
	if (status && fd >= 0)
		(void)close(fd);
	free(text);
	return status;
}

int pick_each(int argc, char **argv, const char *verb, pick_fn fn, const void *ctx)
{
	struct vms vms;
	int status = pick_open(&vms), last = 0;

	if (status)
		return status;
	if (optind == argc)
		return complain(EXIT_ROUX, "%s needs the name or id of a VM; see 'roux %s --help'", verb, verb);
	for (int i = optind; i < argc; i++) {
		status = fn(&vms, argv[i], ctx);
		last = status ? status : last;
	}
	return last;
}

int pick_facts(int argc, char **argv, const char *verb, const char *help, pick_fn fn)
{
	static const struct option options[] = { { "json", no_argument, NULL, 'j' },
						 { "help", no_argument, NULL, PICK_HELP },
						 { NULL, 0, NULL, 0 } };
	bool as_json = false;
	int c;

	optind = 0;
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c != 'j')
			return pick_usage(verb, help, c);
		as_json = true;
	}
	return pick_each(argc, argv, verb, fn, &as_json);
}

void pick_print(cJSON *json)
{
	char *text = cJSON_PrintUnformatted(json);

	if (text)
		(void)puts(text);
	free(text);
	cJSON_Delete(json);
}

int pick_print_indented(const cJSON *json)
{
	char *text = cJSON_Print(json);

	if (!text)
		return complain(EXIT_ROUX, "out of memory");
	(void)puts(text);
	free(text);
	return 0;
}

int pick_usage(const char *verb, const char *help, int option)
{
	if (option != PICK_HELP)
		return complain(EXIT_ROUX, "see 'roux %s --help'", verb);
	(void)fputs(help, stdout);
	return 0;
}
