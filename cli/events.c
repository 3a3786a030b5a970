/* SPDX-License-Identifier: Apache-2.0 */
/* roux events: what happens to this user's VMs. */
#include "cli/cli.h"
#include "cli/pick.h"
#include "life/events.h"
#include "life/when.h"

#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#define FILTERS_MAX 16u
#define LOOK_MS 1000 /* how often files are looked at when the kernel tells nothing */

static const char help[] =
	"Usage: roux events [OPTIONS]\n\n"
	"Shows what happens to VMs from now on.\n\n"
	"      --since WHEN          Also what happened since: a time, or a span such as 10m\n"
	"      --until WHEN          Stop there\n"
	"  -f, --filter KEY=VALUE    Only events with this event (action), vm (name or id) or image\n"
	"      --json                One line of JSON for each\n";

struct filter_set {
	const char *filter[FILTERS_MAX];
	unsigned n;
};

static bool matches(const struct event *e, const char *filter)
{
	const char *value = strchr(filter, '=') + 1;

	if (strncmp(filter, "event=", 6) == 0)
		return strcmp(e->action, value) == 0;
	if (strncmp(filter, "image=", 6) == 0)
		return strcmp(e->image, value) == 0;
	return strcmp(e->name, value) == 0 || strncmp(e->id, value, strlen(value)) == 0;
}

/* Filters of one key are alternatives, different keys must all hold. */
static bool wanted(const struct filter_set *set, const struct event *e)
{
	for (unsigned i = 0; i < set->n; i++) {
		size_t key = (size_t)(strchr(set->filter[i], '=') - set->filter[i]) + 1;
		bool ok = false;

		for (unsigned j = 0; j < set->n; j++)
			ok |= strncmp(set->filter[i], set->filter[j], key) == 0 && matches(e, set->filter[j]);
		if (!ok)
			return false;
	}
	return true;
}

static void print(const struct event *e, bool json)
{
	char time[WHEN_SIZE];

	when_format(e->time_ns, time);
	if (json) {
		(void)printf("{\"Time\":\"%s\",\"TimeNs\":%" PRId64 ",\"Action\":\"%s\",\"Id\":\"%s\",\"Name\":\"%s\",\"Image\":", time,
			     e->time_ns, e->action, e->id, e->name);
		json_string(stdout, e->image);
		(void)fputs(",\"Detail\":", stdout);
		json_string(stdout, e->detail);
		(void)puts("}");
	} else {
		(void)printf("%s vm %s%s%s %s (image=%s, name=%s)\n", time, e->action, *e->detail ? ": " : "", e->detail, e->id,
			     e->image, e->name);
	}
	(void)fflush(stdout);
}

/* Waits until files change, at most until @until_ns.  False when that has come. */
static bool wait_change(int watch, int64_t until_ns)
{
	struct pollfd p = { .fd = watch, .events = POLLIN };
	int64_t left_ms = (until_ns - when_now()) / 1000000;
	char buf[4096];

	if (left_ms <= 0)
		return false;
	if (poll(&p, 1, left_ms < LOOK_MS ? (int)left_ms + 1 : LOOK_MS) > 0)
		(void)!read(watch, buf, sizeof(buf));
	return !ferror(stdout);
}

static int show(const struct vms *vms, const struct filter_set *filters, int64_t since_ns, int64_t until_ns, bool json)
{
	int watch = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	struct events_reader reader;
	struct event e;
	bool more = true;

	events_open(&reader, vms);
	if (watch >= 0)
		(void)inotify_add_watch(watch, reader.folder, IN_MODIFY | IN_CREATE | IN_MOVED_TO);
	while (more) {
		while (events_read(&reader, &e))
			if (e.time_ns >= since_ns && e.time_ns <= until_ns && wanted(filters, &e))
				print(&e, json);
		more = wait_change(watch, until_ns);
	}
	events_close(&reader);
	if (watch >= 0)
		(void)close(watch);
	return 0;
}

static int take_filter(struct filter_set *set, const char *arg)
{
	if ((strncmp(arg, "event=", 6) != 0 && strncmp(arg, "vm=", 3) != 0 && strncmp(arg, "container=", 10) != 0 &&
	     strncmp(arg, "image=", 6) != 0) || set->n == FILTERS_MAX)
		return complain(EXIT_ROUX, "there is no filter '%s'; see 'roux events --help'", arg);
	set->filter[set->n++] = arg;
	return 0;
}

int verb_events(int argc, char **argv)
{
	static const struct option options[] = { { "since", required_argument, NULL, 's' },
						 { "until", required_argument, NULL, 'u' },
						 { "filter", required_argument, NULL, 'f' },
						 { "json", no_argument, NULL, 'j' },
						 { "help", no_argument, NULL, PICK_HELP },
						 { NULL, 0, NULL, 0 } };
	int64_t now = when_now(), since = now, until = INT64_MAX;
	struct filter_set filters = { .n = 0 };
	bool json = false;
	struct vms vms;
	int c, status = 0;

	optind = 0;
	while (status == 0 && (c = getopt_long(argc, argv, "f:", options, NULL)) != -1) {
		if (c == 'f')
			status = take_filter(&filters, optarg);
		else if (c == 'j')
			json = true;
		else if (c != 's' && c != 'u')
			return pick_usage("events", help, c);
		else if (!when_parse(optarg, now, c == 's' ? &since : &until))
			status = complain(EXIT_ROUX, "'%s' is no time: give 2026-11-21T09:00:00Z, or 10m for ten minutes ago", optarg);
	}
	if (status == 0 && optind < argc)
		status = complain(EXIT_ROUX, "events takes no arguments");
	if (status == 0)
		status = pick_open(&vms);
	return status ? status : show(&vms, &filters, since, until, json);
}
