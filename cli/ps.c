/* SPDX-License-Identifier: Apache-2.0 */
/* roux ps: the VMs of this user. */
#include "cli/cli.h"
#include "cli/format.h"
#include "cli/pick.h"
#include "life/client.h"
#include "life/names.h"
#include "life/when.h"
#include "os/err.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILTERS_MAX 16u
#define LAST_ALL UINT32_MAX

static const char help[] =
	"Usage: roux ps [OPTIONS]\n\n"
	"Lists VMs that run.\n\n"
	"  -a, --all                 Also those that do not run\n"
	"  -f, --filter KEY=VALUE    Only VMs with this id, name, label, status, ancestor (image),\n"
	"                            exited (status) or health; may be repeated\n"
	"  -n, --last N              The N created last, running or not\n"
	"  -q, --quiet               Ids only\n"
	"      --no-trunc            Whole ids and commands\n"
	"      --format TEXT         Print TEXT for each, with {{.ID}}, {{.Names}}, {{.Image}},\n"
	"                            {{.Command}}, {{.CreatedAt}}, {{.RunningFor}}, {{.Status}},\n"
	"                            {{.State}}, {{.Ports}}, {{.Labels}} and {{.Label \"key\"}} replaced\n"
	"      --json                Print a JSON array of what 'roux inspect' shows\n";

struct list {
	const struct vms *vms;
	bool all, quiet, whole, json;
	const char *format;
	const char *filter[FILTERS_MAX];
	unsigned nfilters;
	uint32_t last;
	struct vm_record *record;	/* owned */
	size_t n;
	bool failed;
};

/* ------------------------------------------------------------------- texts */

static void status_text(const struct vm_record *r, char *ret, size_t size)
{
	const struct vm_state *s = &r->state;
	int64_t since = s->status == VM_EXITED ? s->finished_ns : s->started_ns;
	char span[48] = "", health[48] = "";

	span_format(when_now() - since, span, sizeof(span));
	if (s->health != VM_HEALTH_NONE)
		(void)snprintf(health, sizeof(health), s->health == VM_HEALTH_STARTING ? " (health: %s)" : " (%s)",
			       vm_health_name(s->health));
	switch ((enum vm_status)s->status) {
	case VM_RUNNING:
	case VM_STOPPING: (void)snprintf(ret, size, "Up %s%s", span, health); break;
	case VM_PAUSED: (void)snprintf(ret, size, "Up %s (Paused)", span); break;
	case VM_EXITED: (void)snprintf(ret, size, "Exited (%d) %s ago", s->exit_code, span); break;
	case VM_RESTARTING: (void)snprintf(ret, size, "Restarting (%d)", s->exit_code); break;
	case VM_CREATED: (void)snprintf(ret, size, "Created"); break;
	case VM_STARTING: (void)snprintf(ret, size, "Starting"); break;
	}
}

static void join(const struct strings *list, const char *between, char *ret, size_t size)
{
	size_t len = 0;

	ret[0] = '\0';
	for (size_t i = 0; i < list->n && len < size - 1; i++) {
		int n = snprintf(ret + len, size - len, "%s%s", i ? between : "", list->v[i]);

		len += n > 0 ? (size_t)n : 0;
	}
	for (char *at = ret; *at; at++)
		if ((unsigned char)*at < 0x20)
			*at = ' ';
}

static void command_text(const struct list *l, const struct vm_record *r, char *ret, size_t size)
{
	char words[1024];

	join(&r->config.argv, " ", words, sizeof(words));
	if (l->whole || strlen(words) <= 20)
		(void)snprintf(ret, size, "\"%s\"", words);
	else
		(void)snprintf(ret, size, "\"%.19s…\"", words);
}

struct row {
	const struct list *l;
	const struct vm_record *r;
};

static bool field_text(void *ctx, const char *name, const char *arg, char *ret, size_t size)
{
	const struct row *row = ctx;
	const struct vm_record *r = row->r;
	char span[48];
	const char *value;

	if (strcmp(name, "ID") == 0) {
		(void)snprintf(ret, size, "%.*s", row->l->whole ? VM_ID_SIZE : VM_ID_SHORT, r->id);
	} else if (strcmp(name, "Names") == 0) {
		(void)snprintf(ret, size, "%s", r->name);
	} else if (strcmp(name, "Image") == 0) {
		(void)snprintf(ret, size, "%s", r->config.image ? r->config.image : "");
	} else if (strcmp(name, "Command") == 0) {
		command_text(row->l, r, ret, size);
	} else if (strcmp(name, "CreatedAt") == 0) {
		when_format(r->created_ns, span);
		(void)snprintf(ret, size, "%s", span);
	} else if (strcmp(name, "RunningFor") == 0) {
		span_format(when_now() - r->created_ns, span, sizeof(span));
		(void)snprintf(ret, size, "%s ago", span);
	} else if (strcmp(name, "Status") == 0) {
		status_text(r, ret, size);
	} else if (strcmp(name, "State") == 0) {
		(void)snprintf(ret, size, "%s", vm_status_name(r->state.status));
	} else if (strcmp(name, "Ports") == 0) {
		join(&r->config.publish, ", ", ret, size);
	} else if (strcmp(name, "Labels") == 0) {
		join(&r->config.labels, ",", ret, size);
	} else if (strcmp(name, "Label") == 0 && arg) {
		value = strings_value(&r->config.labels, arg);
		(void)snprintf(ret, size, "%s", value ? value : "");
	} else {
		return false;
	}
	return true;
}

/* ------------------------------------------------------------------ filters */

static bool filter_matches(const struct vm_record *r, const char *key, size_t len, const char *value)
{
	const char *equals;

	if (strncmp(key, "id", len) == 0)
		return strncmp(r->id, value, strlen(value)) == 0;
	if (strncmp(key, "name", len) == 0)
		return strstr(r->name, value) != NULL;
	if (strncmp(key, "status", len) == 0)
		return strcmp(vm_status_name(r->state.status), value) == 0;
	if (strncmp(key, "ancestor", len) == 0)
		return r->config.image && strcmp(r->config.image, value) == 0;
	if (strncmp(key, "exited", len) == 0)
		return r->state.status == VM_EXITED && atoi(value) == r->state.exit_code;
	if (strncmp(key, "health", len) == 0)
		return strcmp(vm_health_name(r->state.health), value) == 0;
	equals = strchr(value, '=');
	for (size_t i = 0; i < r->config.labels.n; i++) {
		const char *label = r->config.labels.v[i];

		if (equals ? strcmp(label, value) == 0 : strncmp(label, value, strlen(value)) == 0 &&
		    strchr("=", label[strlen(value)]))
			return true;
	}
	return false;
}

static bool filter_valid(const char *filter)
{
	static const char *const keys[] = { "id", "name", "label", "status", "ancestor", "exited", "health" };
	const char *equals = strchr(filter, '=');

	for (size_t i = 0; equals && i < sizeof(keys) / sizeof(keys[0]); i++)
		if (strlen(keys[i]) == (size_t)(equals - filter) && strncmp(filter, keys[i], strlen(keys[i])) == 0)
			return true;
	return false;
}

/* Filters of one key are alternatives, those of different keys (and labels) must all hold. */
static bool wanted(const struct list *l, const struct vm_record *r)
{
	bool running = r->state.status != VM_CREATED && r->state.status != VM_EXITED, by_state = false;

	for (unsigned i = 0; i < l->nfilters; i++) {
		size_t len = (size_t)(strchr(l->filter[i], '=') - l->filter[i]);
		bool label = strncmp(l->filter[i], "label=", 6) == 0, ok = false;

		by_state |= strncmp(l->filter[i], "status=", 7) == 0 || strncmp(l->filter[i], "exited=", 7) == 0;
		for (unsigned j = 0; j < l->nfilters; j++)
			if (j == i || (!label && strncmp(l->filter[j], l->filter[i], len + 1) == 0))
				ok |= filter_matches(r, l->filter[j], len, l->filter[j] + len + 1);
		if (!ok)
			return false;
	}
	return l->all || running || by_state || l->last != LAST_ALL;
}

/* ----------------------------------------------------------------- listing */

static int collect(void *ctx, const char *id)
{
	struct list *l = ctx;
	struct vm_record *more = realloc(l->record, (l->n + 1) * sizeof(*more)), *r;
	struct err err = { 0 };
	bool alive;
	int result;

	if (!more)
		return -1;
	l->record = more;
	r = &more[l->n];
	record_init(r);
	result = client_load(l->vms, id, r, &alive, &err);
	if (result == 0 && wanted(l, r)) {
		l->n++;
		return 0;
	}
	if (result < 0 && result != -ENOENT) {
		(void)complain(EXIT_VERB, "%s", err.msg);
		l->failed = true;
	}
	record_finish(r);
	return 0;
}

static int newest_first(const void *a, const void *b)
{
	int64_t x = ((const struct vm_record *)a)->created_ns, y = ((const struct vm_record *)b)->created_ns;

	return x < y ? 1 : x > y ? -1 : 0;
}

static int print_json(const struct list *l, size_t n)
{
	cJSON *array = cJSON_CreateArray();
	int status;

	for (size_t i = 0; i < n; i++)
		(void)cJSON_AddItemToArray(array, record_to_json(&l->record[i]));
	status = pick_print_indented(array);
	cJSON_Delete(array);
	return status;
}

static int print_list(const struct list *l, size_t n)
{
	static const char *const columns[] = { "ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names", NULL };
	static const char *const titles[] = { "VM ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES", NULL };
	struct table table = { 0 };
	int status = 0;

	if (!l->format && !l->quiet)
		table_row(&table, titles);
	for (size_t i = 0; status == 0 && i < n; i++) {
		struct row row = { l, &l->record[i] };

		if (l->quiet)
			(void)printf("%.*s\n", l->whole ? VM_ID_SIZE : VM_ID_SHORT, row.r->id);
		else if (l->format)
			status = format_print(l->format, field_text, &row);
		else
			table_fields(&table, columns, field_text, &row);
	}
	table_print(&table);
	return status;
}

static const struct option options[] = { { "all", no_argument, NULL, 'a' },
					 { "filter", required_argument, NULL, 'f' },
					 { "last", required_argument, NULL, 'n' },
					 { "quiet", no_argument, NULL, 'q' },
					 { "no-trunc", no_argument, NULL, 'w' },
					 { "format", required_argument, NULL, 'F' },
					 { "json", no_argument, NULL, 'j' },
					 { "help", no_argument, NULL, PICK_HELP },
					 { NULL, 0, NULL, 0 } };

static int take_option(struct list *l, int c)
{
	switch (c) {
	case 'a': l->all = true; return 0;
	case 'q': l->quiet = true; return 0;
	case 'w': l->whole = true; return 0;
	case 'j': l->json = true; return 0;
	case 'F':
		l->format = optarg;
		l->json |= strcmp(optarg, "json") == 0;
		return 0;
	case 'n':
		l->last = (uint32_t)atoi(optarg);
		return atoi(optarg) > 0 ? 0 : complain(EXIT_ROUX, "-n needs a number, not '%s'", optarg);
	case 'f':
		if (!filter_valid(optarg) || l->nfilters == FILTERS_MAX)
			return complain(EXIT_ROUX, "there is no filter '%s'; see 'roux ps --help'", optarg);
		l->filter[l->nfilters++] = optarg;
		return 0;
	default:
		return pick_usage("ps", help, c);
	}
}

int verb_ps(int argc, char **argv)
{
	struct list l = { .last = LAST_ALL };
	struct vms vms;
	size_t n;
	int c, status;

	optind = 0;
	while ((c = getopt_long(argc, argv, "af:n:q", options, NULL)) != -1) {
		status = take_option(&l, c);
		if (status || c == PICK_HELP)
			return status;
	}
	if (optind < argc)
		return complain(EXIT_ROUX, "ps takes no arguments");
	status = pick_open(&vms);
	if (status)
		return status;
	l.vms = &vms;
	(void)vms_each(&vms, collect, &l);
	if (l.n)
		qsort(l.record, l.n, sizeof(*l.record), newest_first);
	n = l.last < l.n ? l.last : l.n;
	status = l.json ? print_json(&l, n) : print_list(&l, n);
	for (size_t i = 0; i < l.n; i++)
		record_finish(&l.record[i]);
	free(l.record);
	return status ? status : l.failed ? EXIT_VERB : 0;
}
