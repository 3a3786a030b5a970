/* SPDX-License-Identifier: Apache-2.0 */
/* roux start and attach. */
#include "cli/start.h"

#include "cli/attached.h"
#include "cli/cli.h"
#include "cli/create.h"
#include "cli/pick.h"
#include "life/monitor.h"

#include <getopt.h>
#include <stdio.h>
#include <unistd.h>

int start_vm(const struct vms *vms, const char *what, const struct vm_record *known, bool attach, bool input,
	     const struct detach_keys *keys)
{
	struct monitor_options options = { .vmm = own_path() };
	struct attached how = { .input = attach && input && known->config.open_stdin, .output = attach,
				.tty = attach && known->config.tty, .signals = attach, .until_started = !attach };
	struct vm_record record;
	struct vm_owned owned;
	int status = pick_own(vms, known->id, PICK_JUST_ENDED_MS, &owned, &record);

	if (status)
		return status;
	how.name = record.name;
	if (keys && how.input)
		how.keys = *keys;
	attached_signals();
	status = run_vm(vms, &owned, &record, &options, &how);
	if (status == 0 && !attach)
		(void)puts(what);
	record_finish(&record);
	return !attach && status == EXIT_ROUX ? EXIT_VERB : status;
}

struct start_options {
	bool attach, input;
	struct detach_keys keys;
};

static int start_one(const struct vms *vms, const char *what, const void *ctx)
{
	const struct start_options *o = ctx;
	struct vm_record record;
	bool alive = false;
	int status = pick_vm(vms, what, &record, &alive);

	if (status == 0 && alive)
		(void)puts(what);	/* as docker: it runs already, which is what was asked for */
	else if (status == 0)
		status = start_vm(vms, what, &record, o->attach, o->input, &o->keys);
	record_finish(&record);
	return status;
}

static const struct option options[] = { { "attach", no_argument, NULL, 'a' },
					 { "interactive", no_argument, NULL, 'i' },
					 { "no-stdin", no_argument, NULL, 'n' },
					 { "detach-keys", required_argument, NULL, 'k' },
					 { "help", no_argument, NULL, PICK_HELP },
					 { NULL, 0, NULL, 0 } };

/* Options of both verbs; 0, or an exit status, with *ret_done set when there is nothing left to do. */
static int parse(int argc, char **argv, const char *verb, const char *help, struct start_options *o, bool *ret_done)
{
	const char *keys = "ctrl-p,ctrl-q";
	int c;

	*ret_done = true;
	optind = 0;
	while ((c = getopt_long(argc, argv, "ai", options, NULL)) != -1) {
		if (c == 'a')
			o->attach = true;
		else if (c == 'i')
			o->attach = o->input = true;
		else if (c == 'n')
			o->input = false;
		else if (c == 'k')
			keys = optarg;
		else
			return pick_usage(verb, help, c);
	}
	if (!detach_keys_parse(keys, &o->keys))
		return complain(EXIT_ROUX, "--detach-keys needs keys such as ctrl-p,ctrl-q, not '%s'", keys);
	*ret_done = false;
	return 0;
}

int verb_start(int argc, char **argv)
{
	static const char help[] =
		"Usage: roux start [-a] [-i] VM...\n\n"
		"Starts VMs that have ended or were only created, with a fresh root file system.\n\n"
		"  -a, --attach              Show the command's output and pass signals on\n"
		"  -i, --interactive         Pass standard input too\n"
		"      --detach-keys KEYS    Leave the VM running with these (default ctrl-p,ctrl-q)\n";
	struct start_options o = { .attach = false };
	bool done;
	int status = parse(argc, argv, "start", help, &o, &done);

	if (done)
		return status;
	if (o.attach && argc - optind != 1)
		return complain(EXIT_ROUX, "only one VM can be attached to");
	return pick_each(argc, argv, "start", start_one, &o);
}

static int attach_one(const struct vms *vms, const char *what, const void *ctx)
{
	const struct start_options *o = ctx;
	struct attached how = { .output = true, .signals = true, .linger = true };
	struct vm_record record;
	struct session session;
	int status = pick_running(vms, what, &record);

	if (status == 0) {
		how.tty = record.config.tty;
		how.input = o->input && record.config.open_stdin;
		how.name = record.name;
		if (how.tty && how.input)
			how.keys = o->keys;
		attached_signals();
		status = pick_upgrade(vms, &record, "/v1/attach", NULL, EXIT_VERB, &session);
	}
	if (status == 0)
		status = attached_run(&session, &how);
	record_finish(&record);
	return status;
}

int verb_attach(int argc, char **argv)
{
	static const char help[] =
		"Usage: roux attach [OPTIONS] VM\n\n"
		"Shows what the VM's command writes from now on, passes input and signals to it, and\n"
		"exits with its status.\n\n"
		"      --no-stdin            Do not pass standard input\n"
		"      --detach-keys KEYS    Leave the VM running with these (default ctrl-p,ctrl-q)\n";
	struct start_options o = { .input = true };
	bool done;
	int status = parse(argc, argv, "attach", help, &o, &done);

	if (done)
		return status;
	if (argc - optind != 1)
		return complain(EXIT_ROUX, "attach needs one VM");
	return pick_each(argc, argv, "attach", attach_one, &o);
}
