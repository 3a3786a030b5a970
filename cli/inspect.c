/* SPDX-License-Identifier: Apache-2.0 */
/* roux inspect and port: all that is known of VMs and images. */
#include "cli/cli.h"
#include "cli/format.h"
#include "cli/image.h"
#include "cli/pick.h"
#include "os/publish.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

/* There is no such VM: it may be an image. */
static int inspect_image(const char *what, cJSON *array)
{
	struct store *store = NULL;
	struct err err = { 0 };
	int r;

	if (!image_open_store(&store))
		return EXIT_VERB;
	r = image_inspect(store, what, array, &err);
	store_close(store);
	if (r == -ENOENT)
		return complain(EXIT_VERB, "there is no VM '%s' and no image '%s'; 'roux ps -a' and 'roux images' list them", what, what);
	return r < 0 ? complain(EXIT_VERB, "%s", err.msg) : 0;
}

/* Adds the VM or image called @what to the array. */
static int inspect_one(const struct vms *vms, const char *what, cJSON *array)
{
	struct vm_record record;
	char id[VM_ID_SIZE];
	bool alive = false;
	cJSON *json;
	int status;

	if (vms_find(vms, what, id, NULL) == -ENOENT)
		return inspect_image(what, array);
	status = pick_vm(vms, what, &record, &alive);
	json = status == 0 ? record_to_json(&record) : NULL;

	if (json && !cJSON_AddItemToArray(array, json))
		status = complain(EXIT_ROUX, "out of memory");
	record_finish(&record);
	return status;
}

static int print_array(const cJSON *array, const char *format)
{
	const cJSON *item;
	int status = 0;

	if (!format)
		return pick_print_indented(array);
	cJSON_ArrayForEach(item, array)
		status = status ? status : format_json(format, item);
	return status;
}

int verb_inspect(int argc, char **argv)
{
	static const char help[] =
		"Usage: roux inspect [OPTIONS] VM|IMAGE...\n\n"
		"Prints all that is known of VMs and images as a JSON array.\n\n"
		"  -f, --format TEXT         Print TEXT for each, with fields such as {{.State.Status}}\n"
		"                            or {{json .Config}} replaced\n"
		"      --json                As without (JSON is the default)\n";
	static const struct option options[] = { { "format", required_argument, NULL, 'f' },
						 { "json", no_argument, NULL, 'j' },
						 { "help", no_argument, NULL, PICK_HELP },
						 { NULL, 0, NULL, 0 } };
	cJSON *array = cJSON_CreateArray();
	const char *format = NULL;
	struct vms vms;
	int c, status, last = 0;

	optind = 0;
	while ((c = getopt_long(argc, argv, "f:", options, NULL)) != -1) {
		if (c == 'f') {
			format = optarg;
		} else if (c != 'j') {
			cJSON_Delete(array);
			return pick_usage("inspect", help, c);
		}
	}
	status = optind == argc ? complain(EXIT_ROUX, "inspect needs the name or id of a VM, or the name of an image") : pick_open(&vms);
	for (int i = optind; status == 0 && i < argc; i++) {
		int r = inspect_one(&vms, argv[i], array);

		last = r ? r : last;
	}
	if (status == 0)
		status = print_array(array, format);
	cJSON_Delete(array);
	return status ? status : last;
}

static void print_ports(const struct vm_record *record)
{
	cJSON *json = cJSON_CreateObject();

	(void)cJSON_AddStringToObject(json, "Id", record->id);
	(void)cJSON_AddStringToObject(json, "Name", record->name);
	(void)cJSON_AddItemToObject(json, "Publish",
				    cJSON_CreateStringArray((const char *const *)record->config.publish.v, (int)record->config.publish.n));
	pick_print(json);
}

/* As docker has it: "80/tcp -> 127.0.0.1:8080". */
static void print_port(const char *text)
{
	struct publish p;

	if (publish_parse(text, &p))
		(void)printf("%u/%s -> %s%s%s:%u\n", p.guest, p.udp ? "udp" : "tcp", strchr(p.address, ':') ? "[" : "",
			     p.address[0] ? p.address : "0.0.0.0", strchr(p.address, ':') ? "]" : "", p.host);
}

static int port_one(const struct vms *vms, const char *what, const void *ctx)
{
	const bool *as_json = ctx;
	struct vm_record record;
	bool alive = false;
	int status = pick_vm(vms, what, &record, &alive);

	if (status == 0 && *as_json)
		print_ports(&record);
	for (size_t i = 0; status == 0 && !*as_json && i < record.config.publish.n; i++)
		print_port(record.config.publish.v[i]);
	record_finish(&record);
	return status;
}

int verb_port(int argc, char **argv)
{
	static const char help[] =
		"Usage: roux port [--json] VM...\n\n"
		"Prints the ports that VMs publish.\n\n"
		"      --json                One line of JSON for each VM\n";

	return pick_facts(argc, argv, "port", help, port_one);
}
