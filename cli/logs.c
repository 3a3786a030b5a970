/* SPDX-License-Identifier: Apache-2.0 */
/* roux logs: what a VM's command has written. */
#include "cli/cli.h"
#include "cli/pick.h"
#include "life/output.h"
#include "life/when.h"
#include "os/file.h"

#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#define FOLLOW_MS 500 /* how often the end of the VM is looked for when nothing is written */

static const char help[] =
	"Usage: roux logs [OPTIONS] VM\n\n"
	"Prints what the VM's command has written, errors to standard error.\n\n"
	"  -f, --follow              Go on until the VM ends\n"
	"  -n, --tail N              Only the last N lines\n"
	"      --since WHEN          Only what came after WHEN: a time such as\n"
	"                            2026-11-21T09:00:00Z, or a span such as 10m\n"
	"      --until WHEN          Only what came before WHEN\n"
	"  -t, --timestamps          With the time of each line\n";

struct logs {
	bool follow, times;
	uint64_t tail;	/* lines; UINT64_MAX: all */
	int64_t since_ns, until_ns;
	bool at_start[3];	/* of a line, by stream */
};

/* Prints one record.  0, or a negative errno when nobody reads. */
static int print_record(struct logs *l, const struct output_record *r)
{
	int fd = r->stream == OUTPUT_STDERR ? STDERR_FILENO : STDOUT_FILENO, result = 0;
	const uint8_t *at = r->data, *end = r->data + r->len;
	char time[WHEN_SIZE + 1];
	bool *at_start = &l->at_start[r->stream];

	if (r->time_ns < l->since_ns || r->time_ns > l->until_ns)
		return 0;
	if (!l->times)
		return file_write_all(fd, r->data, r->len);
	when_format(r->time_ns, time);
	(void)strcat(time, " ");
	while (at < end && result == 0) {
		const uint8_t *newline = memchr(at, '\n', (size_t)(end - at)), *stop = newline ? newline + 1 : end;

		if (*at_start)
			result = file_write_all(fd, time, strlen(time));
		if (result == 0)
			result = file_write_all(fd, at, (size_t)(stop - at));
		*at_start = newline != NULL;
		at = stop;
	}
	return result;
}

static int print_all(struct logs *l, struct output_reader *reader)
{
	struct output_record record;
	int r = 0;

	while (r == 0 && output_read(reader, &record))
		r = print_record(l, &record);
	return r;
}

/* Waits for a change in the folder, but not for ever. */
static void wait_change(int watch)
{
	struct pollfd p = { .fd = watch, .events = POLLIN };
	char events[4096];

	if (poll(&p, 1, FOLLOW_MS) > 0 && read(watch, events, sizeof(events)) < 0)
		(void)usleep(FOLLOW_MS * 1000);
}

static int follow(struct logs *l, const struct vms *vms, const char *id, struct output_reader *reader)
{
	int watch = inotify_init1(IN_CLOEXEC | IN_NONBLOCK), r;

	if (watch >= 0)
		(void)inotify_add_watch(watch, reader->folder, IN_MODIFY | IN_CREATE);
	for (;;) {
		bool alive = vms_is_owned(vms, id);	/* before the reading: nothing comes after the end */

		r = print_all(l, reader);
		if (r < 0 || !alive)
			break;
		wait_change(watch);
	}
	if (watch >= 0)
		(void)close(watch);
	return r;
}

static int print_logs(struct logs *l, const struct vms *vms, const char *what)
{
	struct output_reader reader;
	struct vm_record record;
	char folder[PATH_MAX];
	bool alive = false;
	int status = pick_vm(vms, what, &record, &alive), r;

	if (status == 0) {
		(void)snprintf(folder, sizeof(folder), "%s/vms/%s", vms->data, record.id);
		r = output_reader_open(&reader, folder);
		if (r == 0 && l->tail != UINT64_MAX)
			r = output_seek_tail(&reader, l->tail);
		if (r == 0)
			r = l->follow ? follow(l, vms, record.id, &reader) : print_all(l, &reader);
		output_reader_close(&reader);
		if (r < 0 && r != -EPIPE)
			status = complain(EXIT_VERB, "cannot print the log: %s", strerror(-r));
	}
	record_finish(&record);
	return status;
}

static const struct option options[] = { { "follow", no_argument, NULL, 'f' },
					 { "tail", required_argument, NULL, 'n' },
					 { "since", required_argument, NULL, 's' },
					 { "until", required_argument, NULL, 'u' },
					 { "timestamps", no_argument, NULL, 't' },
					 { "help", no_argument, NULL, PICK_HELP },
					 { NULL, 0, NULL, 0 } };

static int take_option(struct logs *l, int c)
{
	char *end;

	switch (c) {
	case 'f': l->follow = true; return 0;
	case 't': l->times = true; return 0;
	case 'n':
		if (strcmp(optarg, "all") == 0)
			return 0;
		l->tail = strtoull(optarg, &end, 10);
		return *optarg >= '0' && *optarg <= '9' && !*end ? 0 :
			complain(EXIT_ROUX, "--tail needs a number of lines or 'all', not '%s'", optarg);
	case 's':
	case 'u':
		return when_parse(optarg, when_now(), c == 's' ? &l->since_ns : &l->until_ns) ? 0 :
			complain(EXIT_ROUX, "'%s' is no time: give 2026-11-21T09:00:00Z, or 10m for ten minutes ago", optarg);
	default:
		return pick_usage("logs", help, c);
	}
}

int verb_logs(int argc, char **argv)
{
	struct logs l = { .tail = UINT64_MAX, .until_ns = INT64_MAX, .at_start = { true, true, true } };
	struct vms vms;
	int c, status;

	optind = 0;
	while ((c = getopt_long(argc, argv, "fn:t", options, NULL)) != -1) {
		status = take_option(&l, c);
		if (status || c == PICK_HELP)
			return status;
	}
	if (argc - optind != 1)
		return complain(EXIT_ROUX, "logs needs one VM; see 'roux logs --help'");
	status = pick_open(&vms);
	return status ? status : print_logs(&l, &vms, argv[optind]);
}
